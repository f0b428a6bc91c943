package module

import (
	"context"
	"slices"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/records"
	"softhem/internal/store"
)

// Orders are what an owner can have done to a module that is out of reach: the
// letters of the check-in's status. Only who was told the instance id can have
// made one, see checkinStatus.
const (
	orderLock    = "L" // refuse the user and the authenticators, until role M sets a user key
	orderWipe    = "W"
	orderReport  = "R" // nothing but the answer and the operator's log
	orderBlock   = "B" // stop serving until the process is started again
	orderUpgrade = "U" // tell the operator that an upgrade is asked for
)

// A CheckinOutcome is what came of a check-in.
type CheckinOutcome struct {
	Answer  api.CheckinResult
	Wiped   bool // as ConfigOutcome.Wiped
	Blocked bool // whoever runs the module has to close its listeners
}

// order carries out a letter. A module that is fresh, or whose owner does not
// want to be ordered about, takes none and says checkinUnknown.
func (m *Module) order(ctx context.Context, p *Pass, letter string) (CheckinOutcome, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.state.Load()
	if m.wiped.Load() {
		return CheckinOutcome{}, api.ErrConflict.Because("the module is being wiped")
	}
	if !now.config.Inited || !now.config.TrustedBackend || now.config.InstanceID != p.state.config.InstanceID {
		m.log.WarnContext(ctx, "a check-in brought an order, which is not taken", "order", letter)
		return CheckinOutcome{Answer: api.CheckinResult{Status: checkinUnknown}}, nil
	}
	m.log.WarnContext(ctx, "a check-in brought an order of the owner", "order", letter)
	out := CheckinOutcome{Answer: api.CheckinResult{Status: letter}}
	switch letter {
	case orderLock:
		return out, m.lock(ctx, p, now)
	case orderWipe:
		wiped, err := m.wipe(ctx, p)
		out.Wiped = wiped.Wiped
		return out, err
	case orderBlock:
		now.fail.Or(flsBlocked)
		m.lockDisks()
		out.Blocked = true
		m.recordOrGoOn(ctx, audit.Record{Type: audit.NonSecureState, Result: audit.Failed, Arg: []byte(letter)})
	}
	return out, nil
}

// lock takes the user's key away and ends all tokens but those of role M, in
// the store and then here. Unlike other changes it goes on in any fail state.
func (m *Module) lock(ctx context.Context, p *Pass, now *state) error {
	next, user := now.config, persona{Generation: now.user.Generation + 1}
	next.Locked = true
	err := m.commit(ctx, func(ctx context.Context, tx store.Tx) ([]audit.Record, error) {
		rec, err := m.readPairings(ctx, tx)
		if err != nil {
			return nil, err
		}
		for i := range rec.Pairings {
			rec.Pairings[i].Generation++
		}
		if len(rec.Pairings) > 0 {
			if err := records.Save(ctx, tx, m.cfg.Sealer, kindPairings, idOnly, rec); err != nil {
				return nil, err
			}
		}
		if err := records.Save(ctx, tx, m.cfg.Sealer, kindPersona, string(api.RoleUser), user); err != nil {
			return nil, err
		}
		return []audit.Record{{Type: audit.ConfigUpdated, Arg: []byte(orderLock)}},
			records.Save(ctx, tx, m.cfg.Sealer, kindConfig, idOnly, next)
	})
	if err != nil {
		return m.notUpdated(ctx, p, err)
	}
	m.replace(func(st *state) {
		st.config, st.user = next, user
		st.pairings = slices.Clone(st.pairings)
		for i := range st.pairings {
			st.pairings[i].Generation++
		}
	})
	now.fail.Or(flsLocked)
	m.lockDisks()
	return nil
}
