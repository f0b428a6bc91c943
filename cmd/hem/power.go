package main

import (
	"context"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

func newRebootCmd(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "reboot",
		Short: "Have the module boot anew",
		Long: `Have the module boot anew. All tokens end, and a new log file begins. Needs a token
for system:config; a module that is not personalised wants none.`,
		Example: `  hem reboot`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.power(c.Context(), (*hem.Client).Reboot, "boots anew")
		},
	}
}

func newShutdownCmd(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "shutdown",
		Short: "End the module's process",
		Long: `Have the module end. It comes back when it is started again, with a reboot's
effects. Needs a token for system:config.`,
		Example: `  hem shutdown`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.power(c.Context(), (*hem.Client).Shutdown, "shuts down")
		},
	}
}

// power does what ends all tokens, and forgets those that are kept.
func (o *options) power(ctx context.Context, do func(*hem.Client, context.Context) error, what string) error {
	err := o.with(ctx, need{scope: api.ScopeSystemConfig}, func(m *hem.Client) error {
		if err := do(m, ctx); err != nil {
			return err
		}
		if err := m.Logout(ctx); err != nil {
			o.warn("the tokens that ended are still kept: %v", err)
		}
		return nil
	})
	if err == nil {
		o.note("the module at %s %s; all its tokens have ended", o.address(), what)
	}
	return err
}
