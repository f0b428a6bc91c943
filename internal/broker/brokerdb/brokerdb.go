// Package brokerdb keeps what a broker must not forget: its key, its
// subscribers, registrations and events under way, and orders. It is SQLite in
// one file, or in memory.
//
// A write that has returned is on disk. Writes that wait at the same time share
// a transaction, and so one sync.
package brokerdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	_ "modernc.org/sqlite" // the driver
)

// A Kind groups items.
type Kind string

// An Item is one row. Exp is when it may be forgotten, in Unix seconds; 0: never.
type Item struct {
	Kind  Kind
	ID    string
	Exp   int64
	Value []byte // nil in a write: the row goes
}

// ErrClosed: the database was closed.
var ErrClosed = errors.New("the broker's database is closed")

const schema = `
CREATE TABLE IF NOT EXISTS item (
	kind TEXT NOT NULL, id TEXT NOT NULL, exp INTEGER NOT NULL, value BLOB NOT NULL,
	PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS item_exp ON item (exp) WHERE exp > 0;`

// applicationID marks the file: "SHBR".
const applicationID = 0x53484252

// DB is an open database. Its methods may be called concurrently.
type DB struct {
	sql   *sql.DB
	queue chan write
	done  chan struct{} // closed when the writer has ended

	mu     sync.RWMutex // guards closed against a send on queue
	closed bool
}

type write struct {
	items []Item
	err   chan error
}

// Open opens or makes the file broker.db in dir; with an empty dir it is in
// memory. Several processes may have it open.
func Open(ctx context.Context, dir string) (*DB, error) {
	dsn := "file::memory:"
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		path := filepath.Join(dir, "broker.db")
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // SQLite would make it by the umask
		if err != nil {
			return nil, err
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
		dsn = "file:" + path
	}
	db, err := sql.Open("sqlite", dsn+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	d := &DB{sql: db, queue: make(chan write, 1024), done: make(chan struct{})}
	if err := d.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("the broker's database in %s: %w", dir, err), db.Close())
	}
	go d.writer()
	return d, nil
}

func (d *DB) prepare(ctx context.Context) error {
	var id int
	if err := d.sql.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return err
	}
	if id != 0 && id != applicationID {
		return errors.New("it is a database of another program")
	}
	if _, err := d.sql.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID)); err != nil {
		return err
	}
	_, err := d.sql.ExecContext(ctx, schema)
	return err
}

// Write stores items, all or none.
func (d *DB) Write(items ...Item) error {
	w := write{items, make(chan error, 1)}
	d.mu.RLock()
	if d.closed {
		d.mu.RUnlock()
		return ErrClosed
	}
	d.queue <- w
	d.mu.RUnlock()
	return <-w.err
}

const maxBatch = 512 // writes in one transaction

// writer is the one goroutine that writes.
func (d *DB) writer() {
	defer close(d.done)
	for first := range d.queue {
		batch := []write{first}
	more:
		for len(batch) < maxBatch {
			select {
			case w, ok := <-d.queue:
				if !ok {
					break more
				}
				batch = append(batch, w)
			default:
				break more
			}
		}
		err := d.commit(batch)
		for _, w := range batch {
			w.err <- err
		}
	}
}

func (d *DB) commit(batch []write) error {
	tx, err := d.sql.Begin()
	if err != nil {
		return err
	}
	for _, w := range batch {
		for _, i := range w.items {
			if i.Value == nil {
				_, err = tx.Exec("DELETE FROM item WHERE kind = ? AND id = ?", i.Kind, i.ID)
			} else {
				_, err = tx.Exec("INSERT OR REPLACE INTO item (kind, id, exp, value) VALUES (?, ?, ?, ?)", i.Kind, i.ID, i.Exp, i.Value)
			}
			if err != nil {
				return errors.Join(err, tx.Rollback())
			}
		}
	}
	return tx.Commit()
}

// Read returns all items of a kind.
func (d *DB) Read(ctx context.Context, kind Kind) (all []Item, err error) {
	rows, err := d.sql.QueryContext(ctx, "SELECT id, exp, value FROM item WHERE kind = ? ORDER BY id", kind)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		i := Item{Kind: kind}
		if err := rows.Scan(&i.ID, &i.Exp, &i.Value); err != nil {
			return nil, err
		}
		all = append(all, i)
	}
	return all, rows.Err()
}

// Get returns the value of one item; nil: there is none.
func (d *DB) Get(ctx context.Context, kind Kind, id string) (value []byte, err error) {
	err = d.sql.QueryRowContext(ctx, "SELECT value FROM item WHERE kind = ? AND id = ?", kind, id).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return value, err
}

// Count is how many items of a kind there are.
func (d *DB) Count(ctx context.Context, kind Kind) (n int, err error) {
	err = d.sql.QueryRowContext(ctx, "SELECT count(*) FROM item WHERE kind = ?", kind).Scan(&n)
	return n, err
}

// Forget removes what ended before now.
func (d *DB) Forget(ctx context.Context, now int64) error {
	_, err := d.sql.ExecContext(ctx, "DELETE FROM item WHERE exp > 0 AND exp < ?", now)
	return err
}

// Close writes what waits and closes the file.
func (d *DB) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	close(d.queue)
	d.mu.Unlock()
	<-d.done
	return d.sql.Close()
}
