package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

func newSelfTestCmd(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "selftest",
		Short: "Have the module test itself",
		Long: `Have the module run known answers through all algorithms, test its source of random
bytes and check every stored key, and wait until it has. Exits with 1 if the module is in a
fail state then. Any token will do; a module that is not personalised wants none.

In a fail state nobody can log in: only a token that was kept from before, or is given, works.`,
		Example: `  hem selftest
  hem selftest --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var s *api.SelfTest
			err := o.with(c.Context(), need{scope: api.ScopeSystemConfig}, func(m *hem.Client) (err error) {
				s, err = m.SelfTest(c.Context())
				return err
			})
			if err != nil {
				return err
			}
			if o.json {
				err = printJSON(o.t.out, s)
			} else {
				err = selfTestTable(s).print(o.t.out)
			}
			if err == nil && s.FLSState != 0 {
				err = fmt.Errorf("the module is not sound: %s", healthInWords(s.FLSState))
			}
			return err
		},
	}
}

func selfTestTable(s *api.SelfTest) *table {
	t := &table{}
	t.addText("health", healthInWords(s.FLSState))
	t.addText("tested", instant(s.SelfTestTS))
	if s.LastSelfTestTS != 0 {
		t.add("before that", "%s, health %s", instant(s.LastSelfTestTS), healthInWords(s.LastFLSState))
	}
	t.addText("known answers", instant(s.LastKATTS))
	t.addText("random bytes", instant(s.LastEntropyTestTS))
	t.add("keys", "%d, and room for %d", s.RepoStats.Total, s.RepoStats.FreeSlots)
	t.add("damaged keys", "%d", s.RepoStats.Invalid)
	t.add("deleted keys", "%d", s.RepoStats.Deleted)
	t.add("empty places", "%d", s.RepoStats.Fragmented)
	t.addText("attestation", attestationInWords(s.SEState))
	return t
}

func attestationInWords(state int) string {
	if state == api.SEProvisioned {
		return "certified"
	}
	return "not certified by another"
}
