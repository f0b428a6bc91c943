package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"softhem/internal/backup"
	"softhem/internal/control"
	"softhem/internal/envelope"
	"softhem/internal/seal"
	"softhem/internal/server"
)

// restored is what hem restore prints with --json.
type restored struct {
	Data string `json:"data"`
	control.Report
}

func newRestoreCmd(t terminal, o *options) *cobra.Command {
	var dir, identityFile, passphraseFile string
	var root seal.RootSource
	c := &cobra.Command{
		Use:   "restore FILE --data DIR",
		Short: "Make a data folder from a backup",
		Long: `Make a data folder from a backup that hem backup wrote, on this or another machine. FILE is - for
standard input. DIR must not be there yet, or be empty. Everything in the backup is opened before the
folder gets its name: every record, every key, and the log from its first record to its last. Whatever
fails leaves no folder.

The root key goes to DIR/root.key or, with --root-key, to a file of its own, which is the better place. If
that file is there, it is taken for the root key and stays as it is. A root key that was an age
file is one again, and takes --root-key-identity or a passphrase to be opened.

The module is what it was when the backup was made. Stop the other one for good: two modules with one
identity contradict each other. Who followed the log further than that moment will say, rightly, that
it was cut.`,
		Example: `  hem restore hem.age --data /var/lib/softhem --root-key /etc/softhem/root.key
  hem restore hem.age --data new --identity key.txt`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			if f := foreignFlag(c); f != "" {
				return &usageError{c.CommandPath(), "--" + f + " is for commands that talk to a module over the network; leave it out"}
			}
			if dir == "" {
				return &usageError{c.CommandPath(), "name the folder to be made with --data"}
			}
			for flag, value := range map[string]string{"root-key": root.File, "root-key-identity": root.Identity, "root-key-passphrase-file": root.PassphraseFile} {
				if c.Flags().Changed(flag) && value == "" {
					return &usageError{c.CommandPath(), "--" + flag + " is empty; name something, or leave it out"}
				}
			}
			var identity []byte
			if identityFile != "" {
				var err error
				if identity, err = o.secretFile("--identity", identityFile); err != nil {
					return fmt.Errorf("--identity: %w", err)
				}
				defer clear(identity)
			}
			s := &service{t: t}
			root.Prompt = func(what string) ([]byte, error) { return s.prompt(ctx, what) }
			report, err := o.restore(ctx, args[0], identity, passphraseFile, server.RestoreConfig{Dir: dir, RootKey: root})
			if err != nil {
				return fmt.Errorf("nothing was restored: %s: %w", clean(args[0]), err)
			}
			if o.json {
				return printJSON(o.t.out, restored{dir, report})
			}
			o.note("%s is the module %s as it was at %s: %d keys and %d records of its log, all of which were opened",
				dir, report.EID, moment(report.Created), report.Keys, report.Records)
			if report.RootKey == backup.RootRaw && root.File == "" {
				o.note("its root key lies beside it, and protects nothing if the whole folder is stolen; the better place is elsewhere: --root-key")
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&dir, "data", "", "`DIR` to make")
	f.StringVar(&identityFile, "identity", "", "`FILE` of the age identity that opens the backup")
	f.StringVar(&passphraseFile, "passphrase-file", "", "`FILE` with the passphrase of the backup, - for standard input (default: ask on the terminal)")
	f.StringVar(&root.File, "root-key", "", "`FILE` where the root key is to be, or is (default DIR/root.key)")
	f.StringVar(&root.Identity, "root-key-identity", "", "`FILE` of the age identity that opens the root key")
	f.StringVar(&root.PassphraseFile, "root-key-passphrase-file", "", "`FILE` of the passphrase that opens the root key (default: ask on the terminal)")
	exclude(c, "identity", "passphrase-file")
	return c
}

func (o *options) restore(ctx context.Context, path string, identity []byte, passphraseFile string, cfg server.RestoreConfig) (control.Report, error) {
	in, err := o.openFile(ctx, path, "the backup")
	if err != nil {
		return control.Report{}, err
	}
	defer in.Close()
	content, err := envelope.OpenFor(in, identity, func() ([]byte, error) {
		return o.secret(ctx, "--passphrase-file", passphraseFile, "Passphrase of the backup: ")
	})
	if err != nil {
		return control.Report{}, err
	}
	report, err := server.Restore(ctx, content, cfg)
	if errors.Is(err, envelope.ErrDamaged) {
		err = errors.New("the file is damaged or incomplete")
	}
	return report, err
}
