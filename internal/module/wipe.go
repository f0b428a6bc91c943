package module

import (
	"context"

	"softhem/internal/audit"
)

// wipe destroys the key of everything that is sealed, which is the point of no
// return: before it nothing has happened, after it nothing can be read, and a
// crash is followed by a start that removes the rest. When it returns, the owner
// can be told so. m.mu is held, and stays so for operations that wait: they
// find the module wiped.
//
// Unlike any other operation it goes on when its record cannot be written: the
// log is about to be destroyed too, and a full disk must not keep a module from
// being wiped.
func (m *Module) wipe(ctx context.Context, p *Pass) (ConfigOutcome, error) {
	m.recordOrGoOn(ctx, audit.Record{Type: audit.ConfigUpdated, Who: p.who()})
	m.wiped.Store(true) // nobody enters any more
	m.endBackground()   // it would find every key damaged
	if m.cfg.Disks != nil {
		if err := m.cfg.Disks.Drop(); err != nil {
			m.log.WarnContext(ctx, "a disk did not close well before the wipe", "error", err)
		}
	}
	m.tellSinksOfWipe(ctx)
	if err := m.cfg.Destroy(); err != nil {
		m.wiped.Store(false)
		m.beginBackground(ctx, m.state.Load())
		m.log.ErrorContext(ctx, "the module could not be wiped", "error", err)
		return ConfigOutcome{}, m.notDone(ctx, p, audit.ConfigUpdated, "the sealing key could not be destroyed", nil)
	}
	m.keys.ForgetAll()
	m.log.WarnContext(ctx, "the module was wiped", "who", p.who())
	return ConfigOutcome{Wiped: true}, nil
}
