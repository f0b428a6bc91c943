package module

import (
	"context"
	"io"
	"net/netip"

	"softhem/internal/audit"
	"softhem/internal/session"
	"softhem/internal/store"
)

// What the nodes of one cluster would have to share is reached through the
// interfaces below and store.Store, so that another implementation of one
// changes nothing here. Used nonces have theirs in session.UsedNonces.

// auditLog is the log; *audit.Log is the one there is.
type auditLog interface {
	Append(ctx context.Context, recs ...audit.Record) error
	Commit(ctx context.Context, change func(context.Context, store.Tx) ([]audit.Record, error)) error
	Failure(t audit.Type) error
	StartBoot(ctx context.Context, first ...audit.Record) error
	ClockSet()
	LastTime() int64
	Files() []string
	OpenFile(id string) (io.ReadCloser, int64, error)
	Checkpoint(ctx context.Context) ([]byte, error)
	Tail(ctx context.Context, leaf int64) ([]byte, error)
	Freeze(ctx context.Context, hold func() error) (*audit.Frozen, error)
	RolledBack() bool
	Broken() error
	Close(ctx context.Context) error
}

// damper counts and holds back logins; *session.Damper counts for one process.
type damper interface {
	Enter(addr netip.Addr) (*session.Place, error)
	Waiting() int
}

// boots is where the secrets of a boot come from; session.LocalBoots makes
// them for one process.
type boots interface {
	// Begin gives a new boot's secrets.
	Begin() *session.Boot
	// Renew gives a boot others, see session.Boot.Renewed.
	Renew(*session.Boot) *session.Boot
}
