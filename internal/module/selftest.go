package module

import (
	"context"
	"fmt"
	"sync"
	"time"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/suite"
)

// tests are what the self-tests of one boot have found so far. Times are those of
// the log, in Unix seconds.
//
// A run is the whole battery: known answers, health tests, every stored key. The
// boot makes the first, whose sweep goes on in the background; each later one
// was asked for.
type tests struct {
	mu      sync.Mutex
	entropy int64 // last health test of the source of random bytes
	sample  byte  // the last one it looked at
	answers int64 // last known answers
	invalid int64 // damaged keys that the last whole sweep found

	last, before battery // that ended

	running bool
	began   int64     // the run that goes on
	owed    bool      // a caller was told to come back, and has not been told the result
	ended   time.Time // of last, by the host's monotonic clock
	err     error     // what kept last from its end, or its record from the log
}

// A battery is a run that ended.
type battery struct {
	began int64
	fls   uint32 // of the module at its end
}

// resultLife is how long a result waits for who was told to come back. Whoever
// asks after that gets a new run.
const resultLife = time.Minute

// lastEntropy is when the source was tested last, and the last byte of that.
func (t *tests) lastEntropy() (at int64, sample byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entropy, t.sample
}

// failed latches what a test found, and tells whether it is new in this boot.
func (m *Module) failed(st *state, fls uint32, err error) (isNew bool) {
	if st.fail.Or(fls)&fls != 0 {
		return false
	}
	m.log.Error("the self-test failed; the module will not work", "error", err)
	return true
}

// bootTest is what a boot tests before it is ready. It latches what failed, and
// returns the records that say how it went.
func (m *Module) bootTest(st *state) []audit.Record {
	began := m.logTime()
	recs := m.testQuickly(st)
	if recs == nil {
		recs = []audit.Record{{Type: audit.SelftestPassed}}
	}
	st.tests.last = battery{began, st.fls()}
	return recs
}

// testQuickly is a run without the stored keys: it latches what failed, and
// returns a record for each.
func (m *Module) testQuickly(st *state) (failures []audit.Record) {
	err := suite.SelfTest()
	st.tests.mu.Lock()
	st.tests.answers = m.logTime()
	st.tests.mu.Unlock()
	if err != nil {
		m.failed(st, flsKnownAnswer, err)
		failures = append(failures, audit.Record{Type: audit.NonSecureState, Result: audit.Failed})
	}
	if err := m.testEntropy(st); err != nil {
		m.failed(st, flsEntropy, err)
		failures = append(failures, audit.Record{Type: audit.TRNGFailed, Result: audit.Failed})
	}
	return failures
}

// SelfTest starts a run, or tells how one goes or went. A run has one result, for
// one of those who were told to come back; who asks after that starts another. It
// works in every fail state, and a run that passes ends none.
func (m *Module) SelfTest(ctx context.Context, p *Pass) (api.SelfTest, error) {
	p.must(OpSelfTest)
	counts, err := m.keys.Counts(ctx)
	if err != nil {
		return api.SelfTest{}, m.refusal(err)
	}
	m.mu.Lock() // no reboot or wipe meanwhile: a run belongs to its boot
	defer m.mu.Unlock()
	now := m.state.Load()
	if err := m.stillEntered(p, now); err != nil {
		return api.SelfTest{}, err
	}
	t := now.tests
	start, err := t.toStart(now.faults.testsAreOff(), m.audit.Broken)
	if err != nil {
		return api.SelfTest{}, m.refusal(err)
	}
	if start { // it reads all keys itself, so the boot's sweep need not go on
		began := m.logTime()
		t.start(began)
		m.sweep.start(ctx, func(ctx context.Context) { m.runSelfTest(ctx, now, battery{began: began}, p.who()) })
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.owed = t.running
	if !t.running && t.err != nil {
		err, t.err = t.err, nil
		return api.SelfTest{}, m.refusal(err)
	}
	answer := api.SelfTest{
		LastSelfTestTS: t.before.began, LastFLSState: int(t.before.fls), SelfTestTS: t.last.began,
		LastEntropyTestTS: t.entropy, LastKATTS: t.answers, KATBusy: t.running, FLSState: int(now.fls()),
		RepoStats: api.RepoStats{
			Total: counts.Live, Deleted: counts.Deleted, Invalid: t.invalid,
			Fragmented: counts.Spare, FreeSlots: max(0, m.keys.MaxKeys()-counts.Live),
		},
		SEState: now.identity.seState(),
	}
	if t.running {
		answer.LastSelfTestTS, answer.LastFLSState, answer.SelfTestTS = t.last.began, int(t.last.fls), t.began
	}
	return answer, nil
}

// toStart tells whether who asks starts a run. One that goes on is joined; a
// result that waits is told; and none is started whose end could not be recorded.
func (t *tests) toStart(off bool, broken func() error) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running || off || t.owed && time.Since(t.ended) < resultLife {
		return false, nil
	}
	return true, broken()
}

func (t *tests) start(began int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running, t.began = true, began
}

// runSelfTest is a run that was asked for. Its result is told once it is recorded.
// A boot that ends cuts it off; it is then as if it had not been begun.
func (m *Module) runSelfTest(ctx context.Context, st *state, run battery, who string) {
	recs := m.testQuickly(st)
	sound := m.sweepRecords(ctx, st)
	damaged, err := m.sweepKeys(ctx, st)
	switch {
	case ctx.Err() != nil:
		recs, err = nil, ctx.Err()
	case err != nil:
		recs = append(recs, audit.Record{Type: audit.NonSecureState, Result: audit.Error})
	case recs == nil && sound && damaged == 0:
		recs = []audit.Record{{Type: audit.SelftestPassed}}
	}
	for i := range recs {
		recs[i].Who = who
	}
	if len(recs) > 0 {
		if unrecorded := m.append(ctx, recs...); err == nil {
			err = unrecorded
		}
	}
	t := st.tests
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running = false
	if ctx.Err() != nil {
		t.owed = false
		return
	}
	run.fls = st.fls()
	t.before, t.last, t.ended, t.err = t.last, run, time.Now(), err
	if err == nil {
		t.invalid = damaged
	} else {
		m.log.ErrorContext(ctx, "a self-test could not be brought to its end", "error", err)
	}
}

// sweepAfterBoot is the rest of a boot's run.
func (m *Module) sweepAfterBoot(ctx context.Context, st *state) {
	m.sweepRecords(ctx, st)
	damaged, err := m.sweepKeys(ctx, st)
	if err != nil {
		return
	}
	t := st.tests
	t.mu.Lock()
	defer t.mu.Unlock()
	t.invalid, t.last.fls = damaged, st.fls()
}

// healthPeriod is the time between two health tests.
const healthPeriod = 15 * time.Second

// watchHealth looks after a boot until ctx ends. What goes on failing is latched,
// and recorded, once.
func (m *Module) watchHealth(ctx context.Context, st *state) {
	tick := time.NewTicker(healthPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if st.faults.testsAreOff() {
			continue
		}
		if err := m.testEntropy(st); err != nil && m.failed(st, flsEntropy, err) {
			m.recordFailure(ctx, audit.Record{Type: audit.TRNGFailed, Result: audit.Failed})
		}
		if celsius, hot := m.thermometer.tooHot(); hot && m.failed(st, flsTemperature, fmt.Errorf("the host is too hot, %d degrees Celsius", celsius)) {
			m.recordFailure(ctx, audit.Record{Type: audit.NonSecureState, Result: audit.Failed, Arg: []byte("temperature")})
		}
	}
}

// recordFailure is for what is latched already, recorded or not.
func (m *Module) recordFailure(ctx context.Context, rec audit.Record) {
	if err := m.append(ctx, rec); err != nil {
		m.log.ErrorContext(ctx, "a failed self-test could not be recorded", "type", rec.Type.String(), "error", err)
	}
}
