package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"

	"modernc.org/sqlite"

	"softhem/internal/store"
)

// A Snapshot is one consistent state of the store, for as long as it is held.
// Updates go on beside it, in the write-ahead log; a Scrub waits for its end.
type Snapshot struct {
	s      *Store
	c      *conn
	pinned bool
}

// copyPages is how much is copied between two looks for whether to go on.
const copyPages = 1024

// Snapshot waits until there can be one. Its state is that of the moment of
// Pin. It must be closed.
func (s *Store) Snapshot(ctx context.Context) (*Snapshot, error) {
	if s.path == "" {
		return nil, errors.New("a store in memory has no file to copy")
	}
	// Before the connection: a scrub that runs may need the views to end.
	select {
	case s.copying <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.closing:
		return nil, ErrClosed
	}
	c, err := s.take(ctx, s.readers)
	if err != nil {
		<-s.copying
		return nil, err
	}
	return &Snapshot{s: s, c: c}, nil
}

// Pin fixes the state. It takes microseconds and waits for nobody.
func (n *Snapshot) Pin() error {
	n.pinned = true
	return translate(n.c.exec(n.c.begin, n.c.pin), n.s.path)
}

// Size is how many bytes a copy has.
func (n *Snapshot) Size() (size int64, err error) {
	err = n.c.QueryRowContext(context.Background(), "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").Scan(&size)
	return size, translate(err, n.s.path)
}

// CopyTo writes the state to a new file, with mode 0600, that is a store by
// itself. It is not synced. On an error there is no file.
func (n *Snapshot) CopyTo(ctx context.Context, path string) (err error) {
	if !n.pinned {
		return errors.New("the snapshot is of no moment yet")
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(path)
		}
	}()
	if err := f.Close(); err != nil {
		return err
	}
	// Without a journal: a copy that is cut off is removed, not repaired.
	q := url.Values{"mode": {"rw"}, "_pragma": {"journal_mode(OFF)", "synchronous(OFF)"}}
	name := "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
	return n.c.Raw(func(driver any) error {
		source, ok := driver.(interface {
			NewBackup(name string) (*sqlite.Backup, error)
		})
		if !ok {
			return errors.New("the driver of the store cannot copy it")
		}
		b, err := source.NewBackup(name)
		if err != nil {
			return translate(err, path)
		}
		// The transaction that Pin began is what is copied from, so no commit
		// beside it makes the copying start anew.
		for more := true; more && err == nil; {
			if err = ctx.Err(); err == nil {
				more, err = b.Step(copyPages)
			}
		}
		return translate(errors.Join(err, b.Finish()), path)
	})
}

// Close ends the snapshot.
func (n *Snapshot) Close() {
	if n.c == nil {
		return
	}
	n.c.rollback()
	n.s.readers <- n.c
	n.c = nil
	<-n.s.copying
}

// Check reads all of the file and tells whether it is sound: that its structure
// holds and that its schema is the one this program makes, nothing less and
// nothing more.
func (s *Store) Check(ctx context.Context) error {
	fresh, err := Open(ctx, Config{})
	if err != nil {
		return err
	}
	defer fresh.Close()
	want, err := fresh.schema(ctx)
	if err != nil {
		return err
	}
	have, err := s.schema(ctx)
	if err != nil {
		return err
	}
	if have != want {
		return fmt.Errorf("%w: its tables are not those of this program", store.ErrCorrupt)
	}
	c, err := s.take(ctx, s.readers)
	if err != nil {
		return err
	}
	defer func() { s.readers <- c }()
	var verdict string
	if err := c.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return translate(err, s.path)
	}
	if verdict != "ok" {
		return fmt.Errorf("%w: %s", store.ErrCorrupt, verdict)
	}
	return nil
}

func (s *Store) schema(ctx context.Context) (string, error) {
	c, err := s.take(ctx, s.readers)
	if err != nil {
		return "", err
	}
	defer func() { s.readers <- c }()
	var all sql.NullString
	err = c.QueryRowContext(ctx, `SELECT group_concat(type || ' ' || name || ' ' || coalesce(sql, ''), char(10))
		FROM (SELECT type, name, sql FROM sqlite_schema ORDER BY type, name)`).Scan(&all)
	return all.String, translate(err, s.path)
}

// EachRecord calls yield with every record as it is stored, sealed, until it
// returns an error.
func (s *Store) EachRecord(ctx context.Context, yield func(kind store.Kind, id string, sealed []byte) error) error {
	c, err := s.take(ctx, s.readers)
	if err != nil {
		return err
	}
	defer func() { s.readers <- c }()
	rows, err := c.QueryContext(ctx, "SELECT kind, id, sealed FROM record ORDER BY kind, id")
	if err != nil {
		return translate(err, s.path)
	}
	defer rows.Close()
	for rows.Next() {
		var kind, id string
		var sealed []byte
		if err := rows.Scan(&kind, &id, &sealed); err != nil {
			return translate(err, s.path)
		}
		if err := yield(store.Kind(kind), id, sealed); err != nil {
			return err
		}
	}
	return translate(rows.Err(), s.path)
}
