package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"softhem/internal/control"
)

func newRekeyCmd(t terminal, o *options) *cobra.Command {
	var passphraseFile string
	c := &cobra.Command{
		Use:   "rekey",
		Short: "Give a module a new root key",
		Long: `Give a module of this host a new root key, in the place of the one in use. The module goes on working
meanwhile and nobody notices. If none runs on the folder, it is opened for this, which its log shows.

The new root key is kept as the old one was, in the same file: raw, or as an age file for the same
identity. An age file with a passphrase gets the one that is in --root-key-passphrase-file of hem serve
now; where that is asked for at each start, a new one is asked for here or read from
--new-passphrase-file. Killed at any instant, the module opens with one of the two, and its next start
sees to it that one is left.

Afterwards the old root key opens nothing in the folder. It does open copies of the folder that were
made before, backups too; and as the key that seals the records stays, who has such a copy and the old
root key reads what is sealed today. So make a new backup, and destroy the old ones. Renew the copy of the root
key that you keep elsewhere.

` + helpKeep,
		Example: `  hem rekey --data /var/lib/softhem
  hem rekey --config /etc/softhem/serve.toml`,
		Args: cobra.NoArgs,
	}
	k := newKeeper(t, o, c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx := c.Context()
		if err := k.settle(ctx, c); err != nil {
			return err
		}
		var report control.RekeyReport
		err := k.with(ctx, func(module control.Keeper) (err error) {
			report, err = o.rekey(ctx, c, module, passphraseFile)
			return err
		})
		if err != nil {
			return fmt.Errorf("the root key was not changed: %w", err)
		}
		if o.json {
			return printJSON(o.t.out, report)
		}
		o.note("%s has a new root key, which the module uses from now on; keep a copy of it elsewhere", report.File)
		o.note("the old one still opens copies and backups of before: make a new backup, and destroy those")
		return nil
	}
	c.Flags().StringVar(&passphraseFile, "new-passphrase-file", "", "`FILE` with the passphrase of the new root key, - for standard input, where it is asked for at each start (default: ask twice on the terminal)")
	return c
}

func (o *options) rekey(ctx context.Context, c *cobra.Command, module control.Keeper, passphraseFile string) (control.RekeyReport, error) {
	report, err := module.Rekey(ctx, control.RekeyRequest{})
	if err != nil || !report.WantsPassphrase {
		if err == nil && passphraseFile != "" {
			o.warn("--new-passphrase-file was not used: nobody is asked for the passphrase of this root key")
		}
		return report, err
	}
	passphrase, err := o.secretTwice(ctx, "--new-passphrase-file", "root key", passphraseFile, o.judgePassphrase(c, "root key"))
	if err != nil {
		return report, err
	}
	defer clear(passphrase)
	return module.Rekey(ctx, control.RekeyRequest{Passphrase: passphrase})
}
