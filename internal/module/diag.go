package module

import (
	"context"
	"errors"
	"sync"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/keyring"
	"softhem/internal/store"
	"softhem/internal/suite"
)

// The diagnostics (/api/diag) show and break a module, so that clients and
// suites see what they are to do then. They are open to all who reach them and
// are there only with Config.Diag; who runs the module sees to it that none but
// its own host reaches it.
//
// What breaks something is recorded as NON_SECURE_STATE with its name, and lasts
// until the end of the boot, damage to stored keys excepted.

// faults are what the diagnostics have broken in one boot.
type faults struct {
	mu         sync.Mutex
	tlsBroken  bool
	handshakes int // that still succeed for sure
	trngBroken bool
	testsOff   bool
}

func (f *faults) trngIsBroken() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trngBroken
}

func (f *faults) testsAreOff() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.testsOff
}

// handshakesLeft is how many follow a break_tls before they begin to fail.
const handshakesLeft = 5

var errHandshake = errors.New("handshakes fail at random, as the diagnostics were told to")

// Handshake tells whether a TLS handshake is to fail. It is asked at each one.
func (m *Module) Handshake() error {
	f := m.state.Load().faults
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case !f.tlsBroken:
		return nil
	case f.handshakes > 0:
		f.handshakes--
		return nil
	case suite.Random(1)[0]&1 == 0:
		return errHandshake
	}
	return nil
}

// Diag tells whether this is a diagnostic build.
func (m *Module) Diag() bool { return m.cfg.Diag }

// mustDiag guards the door from the inside: without diagnostics there is no way
// to them.
func (m *Module) mustDiag(p *Pass, op Op) {
	p.must(op)
	if !m.cfg.Diag {
		panic("module: diagnostics in a module without them")
	}
}

// DiagTest does nothing, and so tells that the diagnostics are there.
func (m *Module) DiagTest(p *Pass) { m.mustDiag(p, OpDiagTest) }

// DiagTRNG is a sample of the source of random bytes.
func (m *Module) DiagTRNG(p *Pass) api.DiagRandom {
	m.mustDiag(p, OpDiagTRNG)
	return api.DiagRandom{Rnd: api.EncodeBase64(suite.Random(api.DiagRandomBytes))}
}

// broke records that something is being broken on purpose.
func broke(what string) audit.Record {
	return audit.Record{Type: audit.NonSecureState, Arg: []byte(what)}
}

// DiagBreakTLS makes every later TLS handshake of this boot fail with probability
// 1/2, after five more.
func (m *Module) DiagBreakTLS(ctx context.Context, p *Pass) error {
	m.mustDiag(p, OpDiagBreakTLS)
	if err := m.append(ctx, broke("break_tls")); err != nil {
		return err
	}
	f := p.state.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tlsBroken, f.handshakes = true, handshakesLeft
	m.log.WarnContext(ctx, "diagnostics: TLS handshakes will fail at random")
	return nil
}

// DiagBreakTemp has the module find itself outside of the temperatures it works
// at: fail state 04, when this returns.
func (m *Module) DiagBreakTemp(ctx context.Context, p *Pass) error {
	m.mustDiag(p, OpDiagBreakTemp)
	if err := m.append(ctx, broke("break_temp")); err != nil {
		return err
	}
	p.state.fail.Or(flsTemperature)
	m.log.WarnContext(ctx, "diagnostics: the module fails as if it were too hot")
	return nil
}

// DiagBreakTRNG gives the health tests a source that is stuck, so that the next
// one latches fail state 02. The answer is of before. What the module makes goes
// on being made with the real source.
func (m *Module) DiagBreakTRNG(ctx context.Context, p *Pass) (api.DiagTRNGState, error) {
	m.mustDiag(p, OpDiagBreakTRNG)
	if err := m.append(ctx, broke("break_trng")); err != nil {
		return api.DiagTRNGState{}, err
	}
	var was api.DiagTRNGState
	at, sample := p.state.tests.lastEntropy()
	was.LastTS, was.LastVal = at, int(sample)
	f := p.state.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.trngBroken {
		was.Mode = api.DiagTRNGBroken
	}
	f.trngBroken = true
	m.log.WarnContext(ctx, "diagnostics: the next health test of the random bytes will fail")
	return was, nil
}

// DiagDisableSelfTest ends the tests of this boot: no health tests, no sweep, and
// none on demand. What was found stays, and whoever reads a damaged key finds it
// all the same.
func (m *Module) DiagDisableSelfTest(ctx context.Context, p *Pass) error {
	m.mustDiag(p, OpDiagDisableSelfTest)
	if err := m.append(ctx, broke("disable_selftest")); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f := p.state.faults
	f.mu.Lock()
	f.testsOff = true
	f.mu.Unlock()
	if m.state.Load().faults == f { // else another boot came first, and the fault went with the last
		m.sweep.stop()
	}
	m.log.WarnContext(ctx, "diagnostics: nothing is tested any more in this boot")
	return nil
}

// DiagMemory shows the repository as it lies in the store, sealed. address and
// length are as they stand in the path.
func (m *Module) DiagMemory(ctx context.Context, p *Pass, address, length string) (api.DiagDump, error) {
	m.mustDiag(p, OpDiagMemory)
	from, ok := pageNumber(address)
	n, ok2 := pageNumber(length)
	if !ok || !ok2 || n < 1 || n > api.MaxDiagDump {
		return api.DiagDump{}, api.ErrBadRequest.Becausef("want an address and a length of 1 to %d, decimal", api.MaxDiagDump)
	}
	dump, err := m.keys.Dump(ctx, from, n)
	if err != nil {
		return api.DiagDump{}, m.refusal(err)
	}
	return api.DiagDump{Address: from, Length: n, Dump: api.EncodeBase64(dump)}, nil
}

// DiagCorrupt damages the stored key at an address. Nobody is told: the next
// self-test finds it, or whoever reads the key first.
func (m *Module) DiagCorrupt(ctx context.Context, p *Pass, address string) (api.DiagCorrupted, error) {
	m.mustDiag(p, OpDiagCorrupt)
	at, ok := pageNumber(address)
	if !ok {
		return api.DiagCorrupted{}, api.ErrBadRequest.Because("want a decimal address")
	}
	err := m.commit(ctx, func(ctx context.Context, tx store.Tx) ([]audit.Record, error) {
		return []audit.Record{broke("corrupt_repo")}, m.keys.Corrupt(ctx, tx, at)
	})
	if errors.Is(err, keyring.ErrUnknown) {
		return api.DiagCorrupted{}, api.ErrNotAcceptable.Because("no key begins at this address")
	}
	if err != nil {
		return api.DiagCorrupted{}, m.refusal(err)
	}
	m.log.WarnContext(ctx, "diagnostics: a stored key was damaged", "address", at)
	return api.DiagCorrupted{Address: at, Status: "OK"}, nil
}

// DiagWipe is the wipe of the configuration, for everybody and in every state.
func (m *Module) DiagWipe(ctx context.Context, p *Pass) (ConfigOutcome, error) {
	m.mustDiag(p, OpDiagWipe)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wiped.Load() {
		return ConfigOutcome{}, api.ErrConflict.Because("the module is being wiped")
	}
	return m.wipe(ctx, p)
}
