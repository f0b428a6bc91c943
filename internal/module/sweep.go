package module

import (
	"context"
	"sync"
	"time"

	"softhem/internal/keyring"
)

// A sweep is the check of all stored keys that follows each boot in the
// background. The module serves meanwhile: every key is checked on its own
// whenever it is read.
type sweep struct {
	mu   sync.Mutex
	end  context.CancelFunc
	done chan struct{}
}

// start ends the sweep that runs and begins another.
func (s *sweep) start(ctx context.Context, run func(context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopLocked()
	ctx, s.end = context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	s.done = done
	go func() {
		defer close(done)
		run(ctx)
	}()
}

// stop ends the sweep and waits until it has ended.
func (s *sweep) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopLocked()
}

func (s *sweep) stopLocked() {
	if s.end != nil {
		s.end()
		<-s.done
		s.end = nil
	}
}

// sweepKeys reads every key of the boot whose state is st. What it finds
// damaged latches the fail state.
func (m *Module) sweepKeys(ctx context.Context, st *state) {
	start := time.Now()
	damaged := 0
	checked, err := m.keys.Sweep(ctx, func(d *keyring.DamagedError) {
		damaged++
		m.keyDamaged(ctx, st, d)
	})
	switch {
	case ctx.Err() != nil:
	case err != nil:
		m.log.ErrorContext(ctx, "the stored keys could not all be checked", "checked", checked, "error", err)
	case checked > 0:
		m.log.InfoContext(ctx, "all stored keys were checked", "keys", checked, "damaged", damaged, "took", time.Since(start).Round(time.Millisecond))
	}
}
