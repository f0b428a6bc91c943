package module

import (
	"fmt"
	"io"

	"softhem/internal/suite"
)

// testEntropy runs the health tests over bytes of the source. Beside a source that
// gives the wrong bytes they find one that gives none. What is read is used for
// nothing else.
func (m *Module) testEntropy(st *state) error {
	samples := make([]byte, suite.EntropySamples)
	err := m.readEntropy(st, samples)
	if err == nil {
		err = suite.CheckEntropy(samples)
	}
	t := st.tests
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entropy, t.sample = m.logTime(), samples[len(samples)-1]
	if err != nil {
		return fmt.Errorf("the source of random bytes failed: %w", err)
	}
	return nil
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
