package module

import (
	"context"
	"errors"
	"fmt"

	"softhem/internal/audit"
	"softhem/internal/keyring"
	"softhem/internal/records"
	"softhem/internal/store"
)

// Freeze is for who copies the module's state: see [audit.Log.Freeze]. It is no
// operation of the interface and has no record: no type fits, and who can ask for
// it has the files themselves.
func (m *Module) Freeze(ctx context.Context, hold func() error) (*audit.Frozen, error) {
	if m.wiped.Load() {
		return nil, errors.New("the module was wiped")
	}
	return m.audit.Freeze(ctx, hold)
}

// AtRest is the state of a module that does not run.
type AtRest struct {
	Store interface {
		store.Store
		EachRecord(ctx context.Context, yield func(kind store.Kind, id string, sealed []byte) error) error
	}
	Sealer   keyring.Sealer
	AuditDir string
	// Checkpoint is of the log's end.
	Checkpoint []byte
	// Gently leaves the machine to others most of the time.
	Gently bool
}

// Whole is what a state holds in which everything is in order.
type Whole struct {
	EID           string // base64
	Keys, Records int64
}

// Check opens everything there is: the identity, every record, every key, and
// the log from its first record to its last. It changes nothing.
func (r AtRest) Check(ctx context.Context) (Whole, error) {
	var w Whole
	var rec identityRecord
	err := r.Store.View(ctx, func(v store.Reader) (err error) {
		rec, err = records.Load[identityRecord](ctx, v, r.Sealer, kindIdentity, idOnly)
		return err
	})
	if err != nil {
		return w, fmt.Errorf("the module's identity: %w", err)
	}
	id, err := rec.open()
	if err != nil {
		return w, err
	}
	w.EID = id.eid
	err = r.Store.EachRecord(ctx, func(kind store.Kind, name string, sealed []byte) error {
		plain, err := r.Sealer.Open(string(kind), name, sealed)
		clear(plain)
		if err != nil {
			return fmt.Errorf("record %s/%s: %w", kind, name, err)
		}
		return ctx.Err()
	})
	if err != nil {
		return w, err
	}
	ring := keyring.New(keyring.Config{Store: r.Store, Sealer: r.Sealer})
	sweep := ring.SweepAtOnce
	if r.Gently {
		sweep = ring.Sweep
	}
	var damaged *keyring.DamagedError
	if w.Keys, err = sweep(ctx, func(d *keyring.DamagedError) { damaged = d }); err != nil {
		return w, err
	}
	if damaged != nil {
		return w, damaged
	}
	c := audit.Copy{
		Dir: r.AuditDir, Store: r.Store, Sealer: r.Sealer,
		EIDSign: id.signing.Public(), Origin: audit.Origin(id.key.Public()),
	}
	w.Records, err = c.Check(ctx, r.Checkpoint)
	return w, err
}
