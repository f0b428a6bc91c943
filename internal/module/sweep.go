package module

import (
	"context"
	"errors"
	"sync"
	"time"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/keyring"
	"softhem/internal/records"
	"softhem/internal/store"
)

// A background is work that goes on beside the serving, one piece at a time, and
// ends with its boot.
type background struct {
	mu   sync.Mutex
	end  context.CancelFunc
	done chan struct{}
}

// start ends the work that runs and begins another.
func (b *background) start(ctx context.Context, run func(context.Context)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopLocked()
	ctx, b.end = context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	b.done = done
	go func() {
		defer close(done)
		run(ctx)
	}()
}

// stop ends the work and waits until it has ended.
func (b *background) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopLocked()
}

func (b *background) stopLocked() {
	if b.end != nil {
		b.end()
		<-b.done
		b.end = nil
	}
}

// The sweep is the check of all that is stored, which follows each boot in the
// background. The module serves meanwhile: every key is checked on its own
// whenever it is read.

// sweepRecords opens again what is sealed beside the key repository: identity and
// attestation, configuration, personas, pairings, the TLS pair, the key of disk 1. It was
// read when the process started, so that its damage would show at the next start
// only. Damage latches the fail state.
func (m *Module) sweepRecords(ctx context.Context, st *state) (sound bool) {
	inited := m.state.Load().config.Inited
	var damage []error
	damage = append(damage, m.cfg.TLS.Check(ctx))
	for _, rec := range []struct {
		kind store.Kind
		id   string
		must bool // it has to be there
	}{
		{kindIdentity, idOnly, true}, {kindConfig, idOnly, inited},
		{kindPersona, string(api.RoleUser), inited}, {kindPersona, string(api.RoleMaster), inited},
		{kindPairings, idOnly, false}, {kindProvisioning, idOnly, false}, {kindDisk, diskID(sealedDisk), false},
	} {
		err := m.cfg.Store.View(ctx, func(r store.Reader) error { return records.Check(ctx, r, m.cfg.Sealer, rec.kind, rec.id) })
		if rec.must || !errors.Is(err, store.ErrNotFound) {
			damage = append(damage, err)
		}
	}
	err := errors.Join(damage...)
	if err == nil || ctx.Err() != nil {
		return true
	}
	m.failed(st, flsDataIntegrity, err)
	m.recordFailure(ctx, audit.Record{Type: audit.NonSecureState, Result: audit.Error, Arg: []byte("records")})
	return false
}

// sweepKeys reads every key of the boot whose state is st, and returns how many are
// damaged, which latches the fail state.
func (m *Module) sweepKeys(ctx context.Context, st *state) (damaged int64, err error) {
	start := time.Now()
	checked, err := m.keys.Sweep(ctx, func(d *keyring.DamagedError) {
		damaged++
		m.keyDamaged(ctx, st, d)
	})
	switch {
	case ctx.Err() != nil:
		return damaged, ctx.Err()
	case err != nil:
		m.log.ErrorContext(ctx, "the stored keys could not all be checked", "checked", checked, "error", err)
		// A row that the store itself cannot read is as damaged as one that does not open.
		if errors.Is(err, store.ErrCorrupt) && m.failed(st, flsDataIntegrity, err) {
			m.recordFailure(ctx, audit.Record{Type: audit.NonSecureState, Result: audit.Error, Arg: []byte("store")})
		}
	case checked > 0:
		m.log.InfoContext(ctx, "all stored keys were checked", "keys", checked, "damaged", damaged, "took", time.Since(start).Round(time.Millisecond))
	}
	return damaged, err
}
