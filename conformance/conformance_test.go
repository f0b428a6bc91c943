package conformance_test

import (
	"bytes"
	"context"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"softhem/conformance"
	"softhem/hem"
	"softhem/hemtest"
)

// key is a private key that is the same each time.
func key(name byte) []byte { return bytes.Repeat([]byte{name}, 32) }

func public(t *testing.T, private []byte) []byte {
	t.Helper()
	k, err := hem.KeyFromSeed(private)
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}

// module starts a fresh diagnostic build that trusts the suite's backend, with
// delays short enough to be measured in a test.
func module(t *testing.T, edit func(*hemtest.Options)) (*hemtest.Module, conformance.Options) {
	t.Helper()
	o := &hemtest.Options{
		Fresh: true, Diag: true, TrustedBackends: [][]byte{public(t, key('b'))},
		LoginDelay: 5 * time.Millisecond, LoginPenalty: 300 * time.Millisecond, LoginPenaltyWindow: 600 * time.Millisecond,
	}
	if edit != nil {
		edit(o)
	}
	m := hemtest.New(t, o)
	return m, conformance.Options{
		URL: m.URL, PlainURL: m.HTTPURL, CAFile: m.CAFile, BackendKey: key('b'), UserKey: key('u'), MasterKey: key('m'),
		Accelerated: true, Damping: conformance.Damping{Delay: o.LoginDelay, Penalty: o.LoginPenalty, Window: o.LoginPenaltyWindow},
	}
}

func run(t *testing.T, o conformance.Options) *conformance.Report {
	t.Helper()
	report, err := conformance.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// The whole walk, from a fresh module whose clock is not set to the wipe. Nothing
// may differ, and nothing may be skipped but what is named here.
func TestConformance(t *testing.T) {
	_, o := module(t, func(o *hemtest.Options) { o.ClockUnset = true })
	start := time.Now()
	report := run(t, o)
	var text strings.Builder
	if err := report.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if report.Failed() || len(report.Results) != len(conformance.Checks()) {
		t.Errorf("%d results of %d checks:\n%s", len(report.Results), len(conformance.Checks()), text.String())
	}
	for _, res := range report.Results {
		if res.Outcome == conformance.Skip {
			t.Errorf("%s was skipped: %s", res.ID, res.Reason)
		}
	}
	t.Logf("%d checks in %v", len(report.Results), time.Since(start).Round(time.Millisecond))
}

// A check names a section that is there, and its id is its own.
func TestChecksAreNamedAndPlaced(t *testing.T) {
	sections := make(map[string]bool)
	for _, file := range []string{"api.md", "divergences.md"} {
		raw, err := os.ReadFile("../docs/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(string(raw), -1) {
			anchor := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
			sections[file+"#"+strings.ReplaceAll(anchor, " ", "-")] = true
		}
	}
	seen := make(map[string]bool)
	for _, c := range conformance.Checks() {
		if seen[c.ID] || !regexp.MustCompile(`^[a-z]+\.[a-z0-9-]+$`).MatchString(c.ID) {
			t.Errorf("%s is there twice, or no id", c.ID)
		}
		seen[c.ID] = true
		if !sections[c.Spec] {
			t.Errorf("%s is in docs/%s, which there is none", c.ID, c.Spec)
		}
		if c.Title == "" || strings.HasSuffix(c.Title, ".") {
			t.Errorf("%s: title %q", c.ID, c.Title)
		}
	}
}

// A module that is in use is not touched.
func TestPersonalisedModuleIsRefused(t *testing.T) {
	m, o := module(t, func(o *hemtest.Options) { o.Fresh = false })
	if _, err := conformance.Run(context.Background(), o); err == nil || !strings.Contains(err.Error(), "personalised") {
		t.Fatalf("it was walked: %v", err)
	}
	if _, err := m.Client().Config(t.Context()); err != nil {
		t.Error(err)
	}
}

// The faults of firmware 1.2.2 are known, and nothing else differs; without being
// told of them the suite reports just these.
func TestKnownQuirks(t *testing.T) {
	want := []string{
		"transport.plain-quirks", "transport.keep-alive", "tls.newcrt", "keys.get-descr",
		"crypto.sign-mldsa44", "crypto.sign-mldsa65", "crypto.sign-mldsa87",
		"crypto.ecdh-secp384r1", "crypto.ecdh-secp521r1", "crypto.ecdh-curve448",
		"crypto.mlkem768", "crypto.mlkem1024", "crypto.mlkem512", "crypto.mldsa-imported",
	}
	for outcome, quirks := range map[conformance.Outcome]string{conformance.Quirk: conformance.QuirksFW122, conformance.Fail: ""} {
		t.Run(string(outcome), func(t *testing.T) {
			t.Parallel()
			_, o := module(t, func(o *hemtest.Options) { o.Quirks, o.LoginDelay, o.LoginPenalty = "fw1.2.2", 0, 0 })
			o.Quirks = quirks
			if outcome == conformance.Fail {
				o.Only = []string{"transport", "tls.newcrt", "keys.get-descr", "crypto.sign-m*", "crypto.ecdh*", "crypto.ml*"}
			}
			var got []string
			for _, res := range run(t, o).Results {
				switch res.Outcome {
				case outcome:
					got = append(got, res.ID)
				case conformance.Fail:
					t.Errorf("%s fails: %s", res.ID, res.Reason)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("the quirks are\n%v, want\n%v", got, want)
			}
		})
	}
}

// An EPA has less, and what it lacks is not asked of it.
func TestEPA(t *testing.T) {
	_, o := module(t, func(o *hemtest.Options) { o.Profile, o.Diag, o.LoginDelay, o.LoginPenalty = "EPA", false, 0, 0 })
	o.Only = []string{"transport", "fresh", "provisioning", "config", "attestation", "log", "selftest", "storage", "upgrade", "diag"}
	report := run(t, o)
	skipped := 0
	why := []string{
		"an EPA keeps no log files", "an EPA has none; that it answers 404 is transport.form-factor",
		"the module is no diagnostic build, so nothing can be broken in it",
	}
	for _, res := range report.Results {
		switch {
		case res.Outcome == conformance.Fail:
			t.Errorf("%s fails: %s", res.ID, res.Reason)
		case res.Outcome == conformance.Skip:
			skipped++
			if !slices.Contains(why, res.Reason) {
				t.Errorf("%s was skipped: %s", res.ID, res.Reason)
			}
		}
	}
	if skipped != 36 {
		t.Errorf("%d checks were skipped", skipped)
	}
}
