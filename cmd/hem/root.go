package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"softhem/internal/build"
)

// The groups that `hem --help` sorts commands into.
const (
	groupModule = "module"
	groupClient = "client"
	groupKeep   = "keep"
	groupDocs   = "docs"
)

func newRootCmd(t terminal) *cobra.Command {
	root := &cobra.Command{
		Use:   "hem",
		Short: "A HEM in software, and a client of any HEM",
		Long: `hem is a hardware encryption module in software (hem serve), and the client that
talks to it or to any other module with the HEM REST API.

A client command that needs a token looks for one it has kept. If there is none it
asks for the passphrase, logs in for just the scope it needs, and keeps the token,
for you alone to read, until a minute before it ends.

Environment, where the flag is not given:
  HEM_URL, HEM_CACERT, HEM_PASSPHRASE_FILE, HEM_TOKEN, and HEM_BROKER for checkin,
  config domain, pair and login --remote. hem serve and hem authenticator have more.

Exit status:
  0  done
  1  failed
  2  wrong usage
  3  not authenticated (401)
  4  not allowed (403)
  5  not found, or cannot be done (404, 406)
  6  wrong state (409), or the module's clock is not set
  7  unreachable, or its certificate is not trusted`,
		Example: `  hem serve --dev
  hem --cacert ca.pem status
  hem --cacert ca.pem login --scope logger:get`,
		Version:       build.Version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		// Man pages and help are the same on every day they are made.
		DisableAutoGenTag:     true,
		DisableFlagsInUseLine: true,
	}
	root.AddGroup(
		&cobra.Group{ID: groupModule, Title: "Be a module, or a broker:"},
		&cobra.Group{ID: groupKeep, Title: "Keep a module, on its own host:"},
		&cobra.Group{ID: groupClient, Title: "Talk to a module:"},
		&cobra.Group{ID: groupDocs, Title: "Help:"},
	)
	o := newOptions(t, root)

	for _, c := range []*cobra.Command{newServeCmd(t), newBrokerCmd(t)} {
		c.GroupID = groupModule
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{newBackupCmd(t, o), newRestoreCmd(t, o), newRekeyCmd(t, o), newRepairCmd(t, o)} {
		c.GroupID = groupKeep
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{
		newInitCmd(o), newLoginCmd(o), newLogoutCmd(o), newTokenCmd(o), newPairCmd(o), newAuthenticatorCmd(o),
		newStatusCmd(o), newVersionCmd(o), newCheckinCmd(o), newConfigCmd(o), newPasswdCmd(o), newWipeCmd(o), newStorageCmd(o),
		newSelfTestCmd(o), newAttestCmd(o), newUpgradeCmd(o), newRebootCmd(o), newShutdownCmd(o), newLogCmd(o), newKeyCmd(o),
		newSignCmd(o), newVerifyCmd(o), newHMACCmd(o), newEncryptCmd(o), newDecryptCmd(o),
		newWrapCmd(o), newUnwrapCmd(o), newECDHCmd(o), newEncapsCmd(o), newDecapsCmd(o),
	} {
		c.GroupID = groupClient
		root.AddCommand(c)
	}
	bench := newBenchCmd(o)
	bench.GroupID = groupClient
	conform := newConformCmd(o)
	conform.GroupID = groupClient
	root.AddCommand(bench, newCeilingCmd(t), conform)
	man := newManCmd()
	man.GroupID = groupDocs
	root.AddCommand(man)
	root.SetHelpCommandGroupID(groupDocs)
	root.SetCompletionCommandGroupID(groupDocs)
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	// A command that groups others is runnable only so that it can complain.
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(),
		"{{if .Runnable}}", "{{if and .Runnable (not .HasAvailableSubCommands)}}", 1))

	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		text := err.Error()
		if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok && unknown.GetSpecifiedShortnames() != "" {
			// pflag repeats what follows the letter: with -pPASSPHRASE, a secret.
			text = "unknown shorthand flag: -" + unknown.GetSpecifiedName()
		}
		return &usageError{c.CommandPath(), text}
	})
	strict(root)
	return root
}

// knownCommand wants the arguments of help to be a command.
func knownCommand(c *cobra.Command, args []string) error {
	if _, rest, err := c.Root().Find(args); err != nil || len(rest) > 0 {
		return &usageError{c.Root().CommandPath(), fmt.Sprintf("there is no command %q", strings.Join(args, " "))}
	}
	return nil
}

// strict makes wrong usage of c and everything below it a usageError: arguments
// that do not fit, and a command that only groups others called by itself.
func strict(c *cobra.Command) {
	for _, sub := range c.Commands() {
		strict(sub)
		if sub.Name() == "help" {
			sub.Args = knownCommand
		}
	}
	if !c.Runnable() {
		c.DisableFlagsInUseLine = true
		c.Args = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			text := fmt.Sprintf("there is no command %q", args[0])
			c.SuggestionsMinimumDistance = 2
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				text += fmt.Sprintf("; perhaps you mean %s", strings.Join(near, " or "))
			}
			return &usageError{c.CommandPath(), text}
		}
		c.RunE = func(c *cobra.Command, _ []string) error {
			c.SetOut(c.ErrOrStderr()) // standard output is for results
			if err := c.Help(); err != nil {
				return err
			}
			return &usageError{c.CommandPath(), "a command is missing"}
		}
		return
	}
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				text := err.Error()
				if strings.HasPrefix(text, "unknown command ") {
					// cobra.NoArgs repeats the argument, which may be a secret gone astray.
					text = "it takes no arguments"
				}
				return &usageError{c.CommandPath(), text}
			}
			return nil
		}
	}
}
