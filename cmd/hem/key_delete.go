package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

func newKeyDeleteCmd(o *options) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "delete KEY...",
		Short: "Destroy keys",
		Long: `Destroy keys, after asking on the terminal. There is no way back: what was encrypted with
a key is lost with it. Needs a token for keymgmt:del. The keys go in the order given; when
one cannot be deleted, those after it stay.

` + helpNames,
		Example: `  hem key delete old-release
  hem key delete 03a6c1f0 77d29e14 --yes`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var tty *os.File
			if !yes {
				var err error
				if tty, err = os.OpenFile(terminalDevice, os.O_RDWR, 0); err != nil {
					return &usageError{c.CommandPath(), "there is no terminal to ask on; --yes deletes without asking"}
				}
				defer tty.Close()
			}
			deleted := []hem.KID{}
			// Whoever is asked shall see what the keys are called.
			u := keyUse{names: args, attributes: !yes, scope: always(api.ScopeKeyDelete)}
			err := o.withKeys(c.Context(), u, func(m *hem.Client, keys []namedKey) error {
				if err := distinct(c, args, keys); err != nil {
					return err
				}
				if !yes {
					if err := o.confirmDelete(c.Context(), tty, keys); err != nil {
						return err
					}
				}
				for _, k := range keys {
					if err := m.DeleteKey(c.Context(), k.KID); err != nil {
						return err
					}
					deleted = append(deleted, k.KID)
					o.note("deleted %v", k)
				}
				return nil
			})
			if o.json && len(deleted) > 0 {
				if printErr := printJSON(o.t.out, struct {
					Deleted []hem.KID `json:"deleted"`
				}{deleted}); err == nil {
					err = printErr
				}
			}
			return err
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// distinct refuses two names of one key: they are hardly meant.
func distinct(c *cobra.Command, names []string, keys []namedKey) error {
	seen := make(map[hem.KID]string)
	for i, k := range keys {
		if first, ok := seen[k.KID]; ok {
			return &usageError{c.CommandPath(), fmt.Sprintf("%q and %q are one key", clean(first), clean(names[i]))}
		}
		seen[k.KID] = names[i]
	}
	return nil
}

// confirmDelete asks on the terminal.
func (o *options) confirmDelete(ctx context.Context, tty *os.File, keys []namedKey) error {
	o.progress.stage(hem.StagePassphrase) // a prompt has the line now
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&b, "  %v\n", k)
	}
	what := "this key"
	if len(keys) > 1 {
		what = fmt.Sprintf("these %d keys", len(keys))
	}
	fmt.Fprintf(&b, "Destroy %s? What was encrypted with it is lost. Type yes: ", what)
	if _, err := io.WriteString(tty, b.String()); err != nil {
		return fmt.Errorf("the terminal: %w", err)
	}
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(tty).ReadString('\n')
		answer <- strings.TrimSpace(line)
	}()
	select {
	case line := <-answer:
		if line != "yes" {
			return errNotConfirmed
		}
		return nil
	case <-ctx.Done():
		// The read cannot be called off; the process is about to end.
		io.WriteString(tty, "\n")
		return ctx.Err()
	}
}

var errNotConfirmed = errors.New("nothing was deleted")
