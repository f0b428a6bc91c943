package module

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/keyring"
	"softhem/internal/store"
	"softhem/internal/suite"
)

// selfTest asks once.
func selfTest(t testing.TB, m *Module, token string) (api.SelfTest, error) {
	t.Helper()
	p, err := m.Enter(t.Context(), OpSelfTest, Caller{Bearer: token, HasBearer: token != ""})
	if err != nil {
		return api.SelfTest{}, err
	}
	return m.SelfTest(t.Context(), p)
}

// tested asks until there is a result.
func tested(t testing.TB, m *Module, token string) api.SelfTest {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		s, err := selfTest(t, m, token)
		if err != nil {
			t.Fatal(err)
		}
		if !s.KATBusy {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatal("the self-test does not end")
		}
	}
}

// many stores n keys, and returns the last.
func many(t testing.TB, m *Module, n int) (last store.Key) {
	t.Helper()
	a, _ := suite.AlgorithmOf(api.AES128)
	if err := m.cfg.Store.Update(t.Context(), func(tx store.Tx) error {
		for i := range n {
			row, err := m.keys.Prepare(keyring.NewKey{Algorithm: a, Material: a.NewMaterial(), Label: fmt.Sprint(i)}, 1)
			if err != nil {
				return err
			}
			if err := m.keys.Insert(t.Context(), tx, row); err != nil {
				return err
			}
			last = row
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return last
}

// damage changes a bit of a stored key, or takes the change back.
func damage(t testing.TB, m *Module, row store.Key) {
	t.Helper()
	row.Sealed[9] ^= 1
	if err := m.cfg.Store.Update(t.Context(), func(tx store.Tx) error { return tx.UpdateKey(t.Context(), row) }); err != nil {
		t.Fatal(err)
	}
}

// What a run tells, in time that stands still: of this one, of the one before,
// and of nobody's.
func TestSelfTestTellsOfItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, nil)
		boot := m.logTime()
		token := personalise(t, m, "anything")
		last := many(t, m, 5)
		pass(1000 * time.Second)
		first, err := selfTest(t, m, token)
		synctest.Wait() // the run has ended
		want := api.SelfTest{
			LastSelfTestTS: boot, KATBusy: true, SelfTestTS: boot + 1000, LastKATTS: first.LastKATTS, LastEntropyTestTS: first.LastEntropyTestTS,
			RepoStats: api.RepoStats{Total: 5, Fragmented: first.RepoStats.Fragmented, FreeSlots: keyring.DefaultMaxKeys - 5},
		}
		if err != nil || first != want {
			t.Errorf("the first: %v\n%+v, want\n%+v", err, first, want)
		}
		pass(20 * time.Second)
		want.KATBusy, want.LastKATTS, want.LastEntropyTestTS = false, boot+1000, boot+1020
		if s, err := selfTest(t, m, token); err != nil || s != want {
			t.Errorf("its result: %v\n%+v, want\n%+v", err, s, want)
		}
		if got := recordsOf(t, m, audit.SelftestPassed); len(got) != 2 || got[1] != "0|U|" {
			t.Errorf("records %q", got)
		}
		// The result was told, so who asks gets another run; and if nobody comes for
		// its result, the next too.
		damage(t, m, last)
		for i := range 2 {
			s, err := selfTest(t, m, token)
			if err != nil || !s.KATBusy || s.SelfTestTS != m.logTime() {
				t.Errorf("%d: %+v, %v", i, s, err)
			}
			pass(resultLife)
		}
		pass(time.Second)
		s := tested(t, m, token)
		if s.FLSState != 0x08 || s.LastFLSState != 0x08 || s.RepoStats.Invalid != 1 || s.RepoStats.Total != 5 {
			t.Errorf("with a damaged key: %+v", s)
		}
		if passed, found := recordsOf(t, m, audit.SelftestPassed), recordsOf(t, m, audit.KeyIntegrityError); len(passed) != 2 || len(found) != 3 {
			t.Errorf("%d passed, %d found", len(passed), len(found))
		}
	})
}

// T78: the self-test works in a fail state, and does not end it. A reboot does, and
// as long as the damage is there the next test finds it again.
func TestThreat_T78_DamageComesBack(t *testing.T) {
	m := open(t, nil)
	token := personalise(t, m, "anything")
	row := many(t, m, 3)
	if s := tested(t, m, token); s.FLSState != 0 {
		t.Fatalf("%+v", s)
	}
	damage(t, m, row)
	if fls := m.FailState(); fls != 0 {
		t.Errorf("%02x before anybody looked", fls)
	}
	if s := tested(t, m, token); s.FLSState != 0x08 || s.RepoStats.Invalid != 1 {
		t.Errorf("with the damage: %+v", s)
	}
	damage(t, m, row) // repaired
	if s := tested(t, m, token); s.FLSState != 0x08 || s.RepoStats.Invalid != 0 {
		t.Errorf("a fail state was ended by a test: %+v", s)
	}
	damage(t, m, row)
	for range 2 {
		if err := m.Reboot(t.Context(), enter(t, m, OpReboot, configToken(t, m))); err != nil {
			t.Fatal(err)
		}
		if s := tested(t, m, configToken(t, m)); s.FLSState != 0x08 || s.RepoStats.Invalid != 1 {
			t.Errorf("after a reboot: %+v", s)
		}
	}
	damage(t, m, row)
	if err := m.Reboot(t.Context(), enter(t, m, OpReboot, configToken(t, m))); err != nil {
		t.Fatal(err)
	}
	if s := tested(t, m, configToken(t, m)); s.FLSState != 0 {
		t.Errorf("repaired and rebooted: %+v", s)
	}

	// A record beside the keys, found by the boot's own sweep.
	good, err := readSealed(t.Context(), m, kindConfig, idOnly)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeSealed(t.Context(), m, kindConfig, idOnly, good[1:]); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.Reboot(t.Context(), enter(t, m, OpReboot, configToken(t, m))); err != nil {
			t.Fatal(err)
		}
		m.sweep.mu.Lock()
		swept := m.sweep.done
		m.sweep.mu.Unlock()
		<-swept
		if fls := m.FailState(); fls != 0x08 {
			t.Errorf("fail state %02x with a damaged configuration", fls)
		}
	}
}

// What is sealed beside the keys is checked too: a record that was changed, is
// another's or is gone stops the module, at the next boot or self-test.
func TestSelfTestReadsEveryRecord(t *testing.T) {
	m := open(t, nil)
	token := personalise(t, m, "anything")
	if s := tested(t, m, token); s.FLSState != 0 {
		t.Fatalf("%+v", s)
	}
	for _, rec := range []struct{ kind, id string }{
		{"identity", "module"}, {"config", "module"}, {"persona", "U"}, {"persona", "M"}, {"tls", "ca"}, {"tls", "pair"},
	} {
		kind := store.Kind(rec.kind)
		good, err := readSealed(t.Context(), m, kind, rec.id)
		if err != nil {
			t.Fatal(err)
		}
		changed := slices.Clone(good)
		changed[len(changed)/2] ^= 1
		if err := writeSealed(t.Context(), m, kind, rec.id, changed); err != nil {
			t.Fatal(err)
		}
		if s := tested(t, m, token); s.FLSState != 0x08 || s.RepoStats.Invalid != 0 {
			t.Errorf("%s/%s changed: %+v", rec.kind, rec.id, s)
		}
		if rec.kind != "tls" { // there need be none
			if err := m.cfg.Store.Update(t.Context(), func(tx store.Tx) error { return tx.Delete(t.Context(), kind, rec.id) }); err != nil {
				t.Fatal(err)
			}
			m.state.Load().fail.Store(0)
			if s := tested(t, m, token); s.FLSState != 0x08 {
				t.Errorf("%s/%s gone: %+v", rec.kind, rec.id, s)
			}
		}
		want := "2||" + base64.RawURLEncoding.EncodeToString([]byte("records"))
		if got := recordsOf(t, m, audit.NonSecureState); len(got) == 0 || got[0] != want {
			t.Errorf("records %q", got)
		}
		if err := writeSealed(t.Context(), m, kind, rec.id, good); err != nil {
			t.Fatal(err)
		}
		m.state.Load().fail.Store(0)
		if s := tested(t, m, token); s.FLSState != 0 {
			t.Errorf("%s/%s put back: %+v", rec.kind, rec.id, s)
		}
	}
}

// A source that breaks is found by a self-test, each time.
func TestSelfTestFindsABrokenSource(t *testing.T) {
	s := &source{}
	m := open(t, func(c *Config) { c.Entropy = s })
	token := personalise(t, m, "anything")
	s.mode.Store(stuck)
	for n := 1; n < 3; n++ {
		if got := tested(t, m, token); got.FLSState != 0x02 {
			t.Errorf("%+v", got)
		}
		if got := recordsOf(t, m, audit.TRNGFailed); len(got) != n || got[n-1] != "1|U|" {
			t.Errorf("records %q", got)
		}
	}
	if got := recordsOf(t, m, audit.SelftestPassed); len(got) != 1 {
		t.Errorf("it passed: %q", got)
	}
}

// All who ask while a run goes on share it.
func TestConcurrentSelfTestsAreOne(t *testing.T) {
	m := open(t, nil)
	token := personalise(t, m, "anything")
	many(t, m, 3000)
	var asking sync.WaitGroup
	began := make(chan int64, 50)
	for range cap(began) {
		asking.Go(func() {
			s, err := selfTest(t, m, token)
			if err != nil || !s.KATBusy {
				t.Errorf("%+v, %v", s, err)
			}
			began <- s.SelfTestTS
		})
	}
	asking.Wait()
	s := tested(t, m, token)
	for range cap(began) {
		if at := <-began; at != s.SelfTestTS {
			t.Errorf("a run of %d, the result is of %d", at, s.SelfTestTS)
		}
	}
	if got := recordsOf(t, m, audit.SelftestPassed); len(got) != 2 {
		t.Errorf("%d runs passed, with the boot's; want 2", len(got))
	}
}

// T79: a run that is cut off, by a reboot, a wipe or the module's end, leaves no
// record and no result, and goes on in no other boot.
func TestThreat_T79_ARunEndsWithItsBoot(t *testing.T) {
	start := func(t *testing.T) (m *Module, token string, ended <-chan struct{}) {
		m = open(t, func(c *Config) { c.AuditDir = filepath.Join(t.TempDir(), "audit") })
		token = personalise(t, m, api.ScopeSystemConfig)
		many(t, m, 3000) // the run rests between its batches
		if s, err := selfTest(t, m, token); err != nil || !s.KATBusy {
			t.Fatalf("%+v, %v", s, err)
		}
		m.sweep.mu.Lock()
		defer m.sweep.mu.Unlock()
		return m, token, m.sweep.done
	}
	over := func(t *testing.T, ended <-chan struct{}) {
		t.Helper()
		select {
		case <-ended:
		default:
			t.Error("the run goes on")
		}
	}
	t.Run("reboot", func(t *testing.T) {
		m, token, ended := start(t)
		old := m.state.Load()
		stale := enter(t, m, OpSelfTest, token)
		if err := m.Reboot(t.Context(), enter(t, m, OpReboot, token)); err != nil {
			t.Fatal(err)
		}
		over(t, ended)
		old.tests.mu.Lock()
		if old.tests.running || old.tests.owed || !old.tests.ended.IsZero() {
			t.Errorf("the run that was cut off counts: %+v", &old.tests.last)
		}
		old.tests.mu.Unlock()
		if got := recordsOf(t, m, audit.SelftestPassed); len(got) != 1 {
			t.Errorf("records in the new file: %q", got)
		}
		// Who had entered before the reboot starts nothing after it.
		if _, err := m.SelfTest(t.Context(), stale); !errors.Is(err, api.ErrUnauthorized) {
			t.Errorf("a caller of the last boot: %v", err)
		}
		if s := tested(t, m, configToken(t, m)); s.FLSState != 0 || s.RepoStats.Total != 3000 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("wipe", func(t *testing.T) {
		m, token, ended := start(t)
		update := enter(t, m, OpConfigUpdate, token)
		stale := enter(t, m, OpSelfTest, token)
		out, err := m.ConfigUpdate(t.Context(), update, ConfigUpdate{Wipeout: given[bool]{here: true, value: true}})
		if err != nil || !out.Wiped {
			t.Fatalf("%+v, %v", out, err)
		}
		over(t, ended)
		if fls := m.FailState(); fls != 0 {
			t.Errorf("the run took the destroyed keys for damaged: %02x", fls)
		}
		if _, err := m.SelfTest(t.Context(), stale); !errors.Is(err, api.ErrConflict) {
			t.Errorf("a self-test of a wiped module: %v", err)
		}
	})
	t.Run("a wipe that fails", func(t *testing.T) {
		m := open(t, func(c *Config) { c.Destroy = func() error { return errors.New("the disk is gone") } })
		token := personalise(t, m, api.ScopeSystemConfig)
		many(t, m, 3000)
		if _, err := selfTest(t, m, token); err != nil {
			t.Fatal(err)
		}
		if _, err := m.ConfigUpdate(t.Context(), enter(t, m, OpConfigUpdate, token), ConfigUpdate{Wipeout: given[bool]{here: true, value: true}}); err == nil {
			t.Fatal("it did not fail")
		}
		if s := tested(t, m, token); s.FLSState != 0 || s.RepoStats.Total != 3000 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("close", func(t *testing.T) {
		m, _, ended := start(t)
		if err := m.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		over(t, ended)
	})
	t.Run("disable_selftest", func(t *testing.T) {
		m := open(t, func(c *Config) { c.Diag = true })
		token := personalise(t, m, api.ScopeSystemConfig)
		row := many(t, m, 3000)
		damage(t, m, row)
		if _, err := selfTest(t, m, token); err != nil {
			t.Fatal(err)
		}
		p, err := m.Enter(t.Context(), OpDiagDisableSelfTest, Caller{})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.DiagDisableSelfTest(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if s, err := selfTest(t, m, token); err != nil || s.KATBusy || s.FLSState != 0 {
				t.Errorf("%+v, %v", s, err)
			}
		}
	})
}

// brokenStore cannot read keys once it is broken.
type brokenStore struct {
	store.Store
	broken bool
	mu     sync.Mutex
}

func (s *brokenStore) View(ctx context.Context, f func(store.Reader) error) error {
	return s.Store.View(ctx, func(r store.Reader) error { return f(brokenReader{r, s}) })
}

type brokenReader struct {
	store.Reader
	store *brokenStore
}

func (r brokenReader) KeysAfter(ctx context.Context, seq, limit int64) ([]store.Key, error) {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	if r.store.broken {
		return nil, errors.New("the disk cannot be read")
	}
	return r.Reader.KeysAfter(ctx, seq, limit)
}

// A run that cannot be brought to its end is no success, and is told once.
func TestSelfTestThatCannotEnd(t *testing.T) {
	var s *brokenStore
	m := open(t, func(c *Config) { s = &brokenStore{Store: c.Store}; c.Store = s })
	token := personalise(t, m, "anything")
	s.mu.Lock()
	s.broken = true
	s.mu.Unlock()
	var err error
	for deadline := time.Now().Add(time.Minute); err == nil && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		_, err = selfTest(t, m, token)
	}
	var told *api.Error
	if err == nil || errors.As(err, &told) {
		t.Fatalf("%v, want an error of the module's own", err)
	}
	if passed, failed := recordsOf(t, m, audit.SelftestPassed), recordsOf(t, m, audit.NonSecureState); len(passed) != 1 || len(failed) != 1 || failed[0] != "2|U|" {
		t.Errorf("passed %q, failed %q", passed, failed)
	}
	s.mu.Lock()
	s.broken = false
	s.mu.Unlock()
	if got := tested(t, m, token); got.FLSState != 0 {
		t.Errorf("%+v", got)
	}
}
