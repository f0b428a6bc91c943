package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// T38 of docs/threat-model.md: arguments can be read by every user of the host,
// so no command wants a secret as one. Files, standard input and the
// environment serve; only --dev, whose passphrases are none, takes them.
func TestThreat_T38_NoSecretAsAnArgument(t *testing.T) {
	root := newRootCmd(terminal{in: strings.NewReader(""), out: io.Discard, err: io.Discard, env: os.LookupEnv})
	allowed := map[string]bool{"dev-user-passphrase": true, "dev-master-passphrase": true}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		check := func(f *pflag.Flag) {
			secret := strings.Contains(f.Name, "passphrase") || strings.Contains(f.Name, "password") || strings.Contains(f.Name, "secret")
			if secret && f.Value.Type() == "string" && !strings.HasSuffix(f.Name, "-file") && !allowed[f.Name] {
				t.Errorf("%s --%s takes a secret as an argument", c.CommandPath(), f.Name)
			}
		}
		c.Flags().VisitAll(check)
		c.PersistentFlags().VisitAll(check)
		for _, word := range []string{"PASSPHRASE", "PASSWORD", "SECRET"} {
			if strings.Contains(c.Use, word) {
				t.Errorf("%q takes a secret as an argument", c.Use)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
}
