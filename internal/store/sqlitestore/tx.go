package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"softhem/internal/store"
)

var errOver = errors.New("store: a transaction was used after its end")

// A reader reads inside the transaction open on its connection.
type reader struct {
	s *Store
	c *conn
	// dead is why the transaction may not go on: its function has returned, or
	// a statement failed. SQLite undoes the whole transaction on a full disk
	// and other errors, also inside a savepoint; what ran after that would be
	// committed by itself. So the first error of the database is the last one:
	// nothing follows it, and Update returns it even if fn does not.
	dead error

	totals totals
}

// tx is a reader that may write.
type tx struct{ reader }

// usable tells whether another statement may run.
func (r *reader) usable(ctx context.Context) error {
	if r.dead != nil {
		return r.dead
	}
	return ctx.Err()
}

// fail translates an error of the database and ends the transaction with it.
func (r *reader) fail(err error) error {
	r.dead = translate(err, r.s.path)
	return r.dead
}

func (r *reader) Get(ctx context.Context, kind store.Kind, id string) ([]byte, error) {
	if err := r.usable(ctx); err != nil {
		return nil, err
	}
	sealed := []byte{}
	err := r.c.get.QueryRow(string(kind), id).Scan(&sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, notFound(kind)
	}
	if err != nil {
		return nil, r.fail(err)
	}
	if sealed == nil { // as the driver gives an empty value
		sealed = []byte{}
	}
	return sealed, nil
}

func (t *tx) Put(ctx context.Context, kind store.Kind, id string, sealed []byte) error {
	if err := t.usable(ctx); err != nil {
		return err
	}
	if _, err := t.c.put.Exec(string(kind), id, notNull(sealed)); err != nil {
		return t.fail(err)
	}
	return nil
}

func (t *tx) Delete(ctx context.Context, kind store.Kind, id string) error {
	if err := t.usable(ctx); err != nil {
		return err
	}
	result, err := t.c.remove.Exec(string(kind), id)
	if err != nil {
		return t.fail(err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return t.fail(err)
	}
	if n == 0 {
		return notFound(kind)
	}
	return nil
}

func (t *tx) SetLogTail(ctx context.Context, tail store.LogTail) error {
	if err := t.usable(ctx); err != nil {
		return err
	}
	if _, err := t.c.putTail.Exec(tail.File, tail.Offset, notNull(tail.Lines)); err != nil {
		return t.fail(err)
	}
	return nil
}

func (t *tx) Attempt(ctx context.Context, fn func() error) error {
	if err := t.usable(ctx); err != nil {
		return err
	}
	if err := t.c.exec(t.c.savepoint); err != nil {
		return t.fail(err)
	}
	kept, totals := false, t.totals
	// Deferred, so that a panic in fn leaves the savepoints nested as they
	// were, whoever recovers it.
	defer func() {
		if kept || t.dead != nil {
			return
		}
		t.totals = totals
		if err := t.c.exec(t.c.rollbackTo, t.c.release); err != nil {
			t.fail(err)
		}
	}()
	if err := fn(); err != nil {
		return err
	}
	if t.dead != nil { // fn has swallowed it
		return t.dead
	}
	if err := t.c.exec(t.c.release); err != nil {
		return t.fail(err)
	}
	kept = true
	return nil
}

// notFound leaves the id out: it may be a secret, such as a token's hash.
func notFound(kind store.Kind) error {
	return fmt.Errorf("%s: %w", kind, store.ErrNotFound)
}

// notNull makes an empty blob of nil, which the driver would make NULL.
func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
