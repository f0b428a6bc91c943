package module

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/suite"
)

// A source is one of random bytes that can break.
type source struct {
	mode  atomic.Int32 // 0: sound
	reads atomic.Int32
}

const (
	stuck = 1 + iota
	biased
	silent
)

func (s *source) Read(b []byte) (int, error) {
	s.reads.Add(1)
	copy(b, suite.Random(len(b)))
	switch s.mode.Load() {
	case stuck:
		clear(b)
	case biased: // one value half of the time, never twice in a row
		for i := 0; i < len(b); i += 2 {
			b[i] = 0x55
		}
	case silent:
		return 0, io.ErrUnexpectedEOF
	}
	return len(b), nil
}

// pass lets time pass in a bubble, and all be done that was due.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// recordsOf are those of the current log file, of one type, as
// "result|who|argument".
func recordsOf(t testing.TB, m *Module, typ audit.Type) (found []string) {
	t.Helper()
	tail, err := m.audit.Tail(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(tail)) {
		f := strings.Split(line, "|")
		if len(f) != 7 {
			t.Fatalf("no record: %q", line)
		}
		if f[0] == "0" { // a file begins
			found = nil
		}
		if f[2] == fmt.Sprintf("%x", uint8(typ)) {
			found = append(found, strings.Join(f[3:6], "|"))
		}
	}
	return found
}

// T77: a source of random bytes that breaks is found within 15 s and stops the
// module until a reboot finds it sound; it is recorded once.
func TestThreat_T77_ABrokenSourceStopsTheModule(t *testing.T) {
	for name, mode := range map[string]int32{"stuck": stuck, "biased": biased, "silent": silent} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &source{}
				m := open(t, func(c *Config) { c.Entropy = s })
				token := personalise(t, m, api.ScopeSystemConfig)
				if s.reads.Load() == 0 {
					t.Error("the source was not tested before the module was ready")
				}
				pass(10 * healthPeriod)
				if fls := m.FailState(); fls != 0 {
					t.Fatalf("a sound source: fail state %02x", fls)
				}
				s.mode.Store(mode)
				pass(15 * time.Second)
				if fls := m.FailState(); fls != 0x02 {
					t.Errorf("fail state %02x after 15 s, want 02", fls)
				}
				pass(10 * healthPeriod)
				if got := recordsOf(t, m, audit.TRNGFailed); len(got) != 1 || got[0] != "1||" {
					t.Errorf("records of the failure: %q", got)
				}
				if _, err := m.Enter(t.Context(), OpChallenge, Caller{TLS: true}); !errors.Is(err, api.ErrConflict) {
					t.Errorf("a challenge: %v, want a 409", err)
				}
				// A boot with a source that is still broken ends in the same state
				// before it is ready, and says so in the place of SELFTEST_PASSED.
				if err := m.Reboot(t.Context(), enter(t, m, OpReboot, token)); err != nil {
					t.Fatal(err)
				}
				if fls := m.FailState(); fls != 0x02 {
					t.Errorf("fail state %02x after the reboot, want 02", fls)
				}
				if passed, failed := recordsOf(t, m, audit.SelftestPassed), recordsOf(t, m, audit.TRNGFailed); len(passed) != 0 || len(failed) != 1 {
					t.Errorf("the boot's records: passed %q, failed %q", passed, failed)
				}
				s.mode.Store(0)
				if err := m.Reboot(t.Context(), enter(t, m, OpReboot, configToken(t, m))); err != nil {
					t.Fatal(err)
				}
				if fls := m.FailState(); fls != 0 || len(recordsOf(t, m, audit.SelftestPassed)) != 1 {
					t.Errorf("fail state %02x with the source sound again", fls)
				}
				pass(healthPeriod)
				if fls := m.FailState(); fls != 0 {
					t.Errorf("fail state %02x", fls)
				}
			})
		})
	}
}

// configToken is a token for the configuration in the boot that runs, whatever its
// fail state.
func configToken(t testing.TB, m *Module) string {
	t.Helper()
	p := &Pass{state: m.state.Load(), now: m.logTime()}
	token, err := p.state.boot.IssueToken(m.tokenClaims(p, api.RoleUser, api.ScopeSystemConfig, p.now+3600, ""), p.state)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// The tests go on when a reboot cannot be made, and end with the module.
func TestHealthIsWatchedAsLongAsTheModuleLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{}
		m := open(t, func(c *Config) { c.Entropy = s })
		token := personalise(t, m, api.ScopeSystemConfig)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := m.bootWith(ctx, m.state.Load()); err == nil {
			t.Fatal("a boot without a log file")
		}
		before := s.reads.Load()
		pass(2 * healthPeriod)
		if s.reads.Load() != before+2 {
			t.Errorf("%d tests in two periods after a reboot that failed", s.reads.Load()-before)
		}
		if err := m.Reboot(t.Context(), enter(t, m, OpReboot, token)); err != nil {
			t.Fatal(err)
		}
		before = s.reads.Load()
		pass(2 * healthPeriod)
		if s.reads.Load() != before+2 { // that of the last boot has ended
			t.Errorf("%d tests in two periods after a reboot", s.reads.Load()-before)
		}
		if err := m.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		before = s.reads.Load()
		pass(2 * healthPeriod)
		if s.reads.Load() != before {
			t.Error("a module that has ended is still tested")
		}
	})
}

// The diagnostics break what the tests read, and nothing that is made with it;
// or have nothing tested.
func TestDiagnosticsOfTheSelfTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, func(c *Config) { c.Diag = true })
		enterDiag := func(op Op) *Pass {
			p, err := m.Enter(t.Context(), op, Caller{})
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		pass(3*healthPeriod + time.Second)
		start := m.logTime()
		was, err := m.DiagBreakTRNG(t.Context(), enterDiag(OpDiagBreakTRNG))
		if err != nil || was.Mode != 0 || was.LastTS != start-1 {
			t.Errorf("%+v at %d, %v", was, start, err)
		}
		if bytes.Equal(suite.Random(32), make([]byte, 32)) {
			t.Error("the source itself was broken")
		}
		if fls := m.FailState(); fls != 0 {
			t.Errorf("fail state %02x before the next test", fls)
		}
		if was, err = m.DiagBreakTRNG(t.Context(), enterDiag(OpDiagBreakTRNG)); err != nil || was.Mode != api.DiagTRNGBroken {
			t.Errorf("%+v, %v", was, err)
		}
		// With the tests off it is not noticed.
		if err := m.DiagDisableSelfTest(t.Context(), enterDiag(OpDiagDisableSelfTest)); err != nil {
			t.Fatal(err)
		}
		pass(4 * healthPeriod)
		if fls := m.FailState(); fls != 0 {
			t.Errorf("fail state %02x with the tests off", fls)
		}
		p := enterDiag(OpReboot)
		if err := m.Reboot(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if _, err = m.DiagBreakTRNG(t.Context(), enterDiag(OpDiagBreakTRNG)); err != nil {
			t.Fatal(err)
		}
		pass(healthPeriod)
		if fls := m.FailState(); fls != 0x02 {
			t.Errorf("fail state %02x, want 02 with the tests on again", fls)
		}
		if was, err = m.DiagBreakTRNG(t.Context(), enterDiag(OpDiagBreakTRNG)); err != nil || was.LastVal != 0 || was.LastTS != m.logTime() {
			t.Errorf("%+v, %v", was, err)
		}
		want := "0||" + base64.RawURLEncoding.EncodeToString([]byte("break_trng"))
		if got := recordsOf(t, m, audit.NonSecureState); !slices.Equal(got, []string{want, want}) {
			t.Errorf("records of what was broken: %q", got)
		}
	})
}
