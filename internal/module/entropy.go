package module

import (
	"io"

	"softhem/internal/audit"
	"softhem/internal/suite"
)

// trngFailed says that the source of random bytes failed its health tests.
var trngFailed = audit.Record{Type: audit.TRNGFailed, Result: audit.Failed}

// testEntropy runs the health tests over bytes of the source, latches a failure,
// and tells whether it is the first of this boot. Beside a source that gives the
// wrong bytes it finds one that gives none. What it reads is used for nothing else.
func (m *Module) testEntropy(st *state) (failed bool) {
	samples := make([]byte, suite.EntropySamples)
	err := m.readEntropy(st, samples)
	if err == nil {
		err = suite.CheckEntropy(samples)
	}
	t := st.tests
	t.mu.Lock()
	t.entropy, t.sample = m.logTime(), samples[len(samples)-1]
	t.mu.Unlock()
	if err == nil || st.fail.Or(flsEntropy)&flsEntropy != 0 {
		return false
	}
	m.log.Error("the source of random bytes failed; the module will not work", "error", err)
	return true
}

// readEntropy fills samples from the source, or as the diagnostics broke it.
func (m *Module) readEntropy(st *state, samples []byte) error {
	switch {
	case st.faults.trngIsBroken():
		return nil // all zero: stuck
	case m.cfg.Entropy == nil:
		copy(samples, suite.Random(len(samples)))
		return nil
	}
	_, err := io.ReadFull(m.cfg.Entropy, samples)
	return err
}
