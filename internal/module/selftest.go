package module

import (
	"context"
	"sync"
	"time"

	"softhem/internal/audit"
	"softhem/internal/suite"
)

// tests are what the self-tests of one boot have found so far. Times are those of
// the log, in Unix seconds.
type tests struct {
	mu      sync.Mutex
	entropy int64 // last health test of the source of random bytes
	sample  byte  // the last one it looked at
}

// lastEntropy is when the source was tested last, and the last byte of that.
func (t *tests) lastEntropy() (at int64, sample byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entropy, t.sample
}

// bootTest is what a boot tests before it is ready. It latches what failed, and
// returns the records that say how it went.
func (m *Module) bootTest(st *state) []audit.Record {
	var failures []audit.Record
	if m.testAnswers(st) {
		failures = append(failures, audit.Record{Type: audit.NonSecureState, Result: audit.Failed})
	}
	if m.testEntropy(st) {
		failures = append(failures, trngFailed)
	}
	if failures == nil {
		return []audit.Record{{Type: audit.SelftestPassed}}
	}
	return failures
}

// testAnswers runs the known answers and tells whether one of them failed for
// the first time in this boot.
func (m *Module) testAnswers(st *state) (failed bool) {
	err := suite.SelfTest()
	if err == nil || st.fail.Or(flsKnownAnswer)&flsKnownAnswer != 0 {
		return false
	}
	m.log.Error("the self-test failed; the module will not work", "error", err)
	return true
}

// healthPeriod is the time between two health tests.
const healthPeriod = 15 * time.Second

// watchHealth looks after a boot until ctx ends.
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
		if m.testEntropy(st) {
			m.recordFailure(ctx, trngFailed)
		}
	}
}

// recordFailure is for what is latched already, recorded or not.
func (m *Module) recordFailure(ctx context.Context, rec audit.Record) {
	if err := m.append(ctx, rec); err != nil {
		m.log.ErrorContext(ctx, "a failed self-test could not be recorded", "type", rec.Type.String(), "error", err)
	}
}
