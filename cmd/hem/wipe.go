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

func newWipeCmd(o *options) *cobra.Command {
	var sure string
	c := &cobra.Command{
		Use:   "wipe",
		Short: "Destroy everything the module holds",
		Long: `Destroy everything the module holds: all keys, the configuration, its identity, its TLS
certificate, its logs. There is no way back. The module is then a fresh one that
belongs to the first who personalises it (hem init), with another certificate authority.

It asks for the module's host name, which hem config get shows. Needs a token for
system:config. A copy of the data and its root key that was made before still work.`,
		Example: `  hem wipe
  hem wipe --yes-wipe hem.example.com`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			err := o.with(ctx, need{scope: api.ScopeSystemConfig}, func(m *hem.Client) error {
				conf, err := m.Config(ctx)
				if err != nil {
					return err
				}
				if err := o.confirmWipe(ctx, sure, conf.Hostname); err != nil {
					return err
				}
				if err := m.Wipe(ctx); err != nil {
					return err
				}
				if err := m.Logout(ctx); err != nil {
					o.warn("the tokens that ended are still kept: %v", err)
				}
				return nil
			})
			if err == nil {
				o.note("the module at %s was wiped, and a fresh one takes its place; personalise it at once: hem init", o.address())
			}
			return err
		},
	}
	c.Flags().StringVar(&sure, "yes-wipe", "", "`HOSTNAME` of the module, instead of being asked for it")
	return c
}

// confirmWipe returns nil for who names the module that is to be wiped.
func (o *options) confirmWipe(ctx context.Context, sure, hostname string) error {
	if sure != "" {
		if strings.EqualFold(sure, hostname) {
			return nil
		}
		return &usageError{"hem wipe", fmt.Sprintf("this module is called %s, not %s: nothing was done", clean(hostname), clean(sure))}
	}
	o.progress.end() // the question has the line now
	typed, err := o.askLine(ctx, "--yes-wipe HOSTNAME", fmt.Sprintf("All keys and logs of the module at %s will be destroyed.\nType its host name, %s, to do so: ", o.address(), clean(hostname)))
	if err != nil {
		return err
	}
	if !strings.EqualFold(strings.TrimSpace(typed), hostname) {
		return errors.New("that is not the module's host name: nothing was done")
	}
	o.progress.begin()
	return nil
}

// askLine asks something on the terminal that is no secret.
func (o *options) askLine(ctx context.Context, flag, question string) (string, error) {
	tty, err := os.OpenFile(terminalDevice, os.O_RDWR, 0)
	if err != nil {
		return "", &usageError{"hem", "there is no terminal to ask on: give " + flag}
	}
	defer tty.Close()
	o.progress.hide()
	if _, err := io.WriteString(tty, question); err != nil {
		return "", fmt.Errorf("the terminal: %w", err)
	}
	type line struct {
		text string
		err  error
	}
	read := make(chan line, 1)
	go func() {
		text, err := bufio.NewReader(tty).ReadString('\n')
		read <- line{text, err}
	}()
	select {
	case l := <-read:
		if l.err != nil {
			return "", fmt.Errorf("nothing was typed: %w", l.err)
		}
		return l.text, nil
	case <-ctx.Done(): // the read cannot be called off; the process is about to end
		return "", ctx.Err()
	}
}
