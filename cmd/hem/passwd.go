package main

import (
	"bytes"
	"context"
	"fmt"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

func newPasswdCmd(o *options) *cobra.Command {
	var file string
	var allowEmpty bool
	c := &cobra.Command{
		Use:   "passwd",
		Short: "Give the user another passphrase",
		Long: `Give the module's user another passphrase. Needs a token for system:config, as the user or,
when the user's passphrase is lost, as the master: --role master. All tokens of the user
end. The master's passphrase cannot be changed.`,
		Example: `  hem passwd
  hem passwd --role master`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, locked := c.Context(), false
			err := o.with(ctx, need{scope: api.ScopeSystemConfig}, func(m *hem.Client) error {
				// Before anyone has to think of a passphrase.
				if _, err := m.Config(ctx); err != nil {
					return err
				}
				o.progress.end() // the prompts have the line now
				o.warnExposed()
				passphrase, err := o.newPassphrase(ctx, "hem passwd", "--new-passphrase-file", "user", file, allowEmpty)
				if err != nil {
					return err
				}
				defer clear(passphrase)
				o.progress.begin()
				if err := m.ChangeUserKey(ctx, passphrase, nil); err != nil {
					return err
				}
				if err := m.Logout(ctx); err != nil {
					o.warn("the tokens that ended are still kept: %v", err)
				}
				status, err := m.Status(ctx)
				locked = err == nil && status.FLSState != 0
				return nil
			})
			if err == nil {
				o.note("the user of the module at %s has another passphrase; the user's tokens have ended", o.address())
				if locked {
					o.note("the module stays locked until it boots anew; run: hem reboot --role master")
				}
			}
			return err
		},
	}
	c.Flags().StringVar(&file, "new-passphrase-file", "", "`file` with the new passphrase, - for standard input (default: ask twice on the terminal)")
	c.Flags().BoolVar(&allowEmpty, "allow-empty-passphrase", false, "take an empty one, too")
	return c
}

// newPassphrase gets a passphrase that is to be set, from a file or twice from
// the terminal, and judges it. The caller clears it.
func (o *options) newPassphrase(ctx context.Context, command, flag, role, path string, allowEmpty bool) ([]byte, error) {
	return o.secretTwice(ctx, flag, role, path, func(passphrase []byte) error {
		switch n := utf8.RuneCount(passphrase); {
		case n == 0 && !allowEmpty:
			return &usageError{command, fmt.Sprintf("the passphrase of the %s is empty; if that is meant, add --allow-empty-passphrase", role)}
		case n < shortPassphrase:
			o.warn("the passphrase of the %s has fewer than %d characters: who sees its public key can find it by trying", role, shortPassphrase)
		}
		return nil
	})
}

// secretTwice gets a passphrase of something from a file, or from the terminal:
// there once, and again if judge takes it. The caller clears it.
func (o *options) secretTwice(ctx context.Context, flag, of, path string, judge func([]byte) error) ([]byte, error) {
	passphrase, err := o.secret(ctx, flag, path, "New passphrase of the "+of+": ")
	if err != nil {
		return nil, err
	}
	if passphrase == nil {
		passphrase = []byte{} // nil would count as none given
	}
	if err := judge(passphrase); err != nil {
		clear(passphrase)
		return nil, err
	}
	if path != "" {
		return passphrase, nil
	}
	again, err := o.secret(ctx, flag, path, "The same again: ")
	defer clear(again)
	if err == nil && !bytes.Equal(passphrase, again) {
		err = fmt.Errorf("the two entries of the %s's passphrase differ; nothing was done, start again", of)
	}
	if err != nil {
		clear(passphrase)
		return nil, err
	}
	return passphrase, nil
}
