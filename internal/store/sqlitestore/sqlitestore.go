// Package sqlitestore keeps the records in one SQLite file, or in memory.
//
// In the file, the write-ahead log makes a commit durable (synchronous FULL:
// one fsync per transaction) and lets views read while an update runs. There
// is one connection for writing and a few for reading; in memory one
// connection is the whole database and serves both, one transaction at a time.
package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"softhem/internal/fsync"
	"softhem/internal/store"
)

// Config says where the records are.
type Config struct {
	// Path is the file. Beside it stand Path-wal and Path-shm while the store
	// is open, and after a crash. All get mode 0600. The folder must exist, and
	// the caller sees to it that no other process uses it. "" keeps everything
	// in memory, until Close.
	Path string
	// MaxReaders is how many views run at once; more wait. 0 means 4. It has
	// no effect in memory, where everything runs one after the other.
	MaxReaders int
}

const (
	defaultReaders = 4
	busyTimeoutMS  = 5000 // of the locks of SQLite, met only in a checkpoint
)

// ErrClosed is returned by every method after Close.
var ErrClosed = errors.New("the store is closed")

// Store implements store.Store. A function given to View or Update must not
// call the store again: in memory, and with all readers busy, it would wait
// for itself.
type Store struct {
	path string
	db   *sql.DB

	// A connection is taken out, used by one goroutine, and put back, outside
	// of a transaction. In memory, readers is the same channel as writer.
	writer  chan *conn
	readers chan *conn

	scrubs scrubber
	// copying is held by the one snapshot, or by the scrub that would wait for
	// it in vain.
	copying chan struct{}

	maxWAL, manyHits int64 // the constants, unless a test has changed them

	closing   chan struct{} // closed by Close
	closeOnce sync.Once
	closeErr  error
}

var _ store.Store = (*Store)(nil)

// Open opens or creates the store. Besides errors of the file system it
// returns store.ErrNewerSchema, store.ErrCorrupt and store.ErrFull.
func Open(ctx context.Context, cfg Config) (_ *Store, err error) {
	readers := cfg.MaxReaders
	if readers == 0 {
		readers = defaultReaders
	}
	if readers < 0 {
		return nil, fmt.Errorf("a store needs a reader, not %d", readers)
	}
	s := &Store{closing: make(chan struct{}), writer: make(chan *conn, 1), copying: make(chan struct{}, 1), maxWAL: maxWAL, manyHits: manyHits}
	s.scrubs.ended.Store(1) // what is in the log now counts as one update
	if cfg.Path == "" {
		s.readers, readers = s.writer, 0
	} else {
		s.readers = make(chan *conn, readers)
		if s.path, err = filepath.Abs(cfg.Path); err != nil {
			return nil, err
		}
		if err := makePrivate(s.path); err != nil {
			return nil, fmt.Errorf("cannot prepare the store: %w", translate(err, s.path))
		}
	}
	if s.db, err = sql.Open("sqlite", s.dsn()); err != nil {
		return nil, fmt.Errorf("cannot open the store: %w", err)
	}
	// Every connection is pinned below and lives until Close; the pool of
	// database/sql only counts them.
	s.db.SetMaxOpenConns(1 + readers)
	s.db.SetMaxIdleConns(-1) // closing a pinned connection closes it indeed
	defer func() {
		if err != nil { // what is in the channels is all there is
			closeConns(s.readers, len(s.readers))
			closeConns(s.writer, len(s.writer))
			s.db.Close()
		}
	}()

	w, err := s.db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot open the store: %w", translate(err, s.path))
	}
	if err := s.prepareFile(ctx, w); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	// The writer is the only one, and waits for nobody but in emptyLog.
	if _, err := w.ExecContext(ctx, "PRAGMA busy_timeout = 0"); err != nil {
		return nil, errors.Join(translate(err, s.path), w.Close())
	}
	if err := s.addConn(ctx, w, s.writer); err != nil {
		return nil, err
	}
	for range readers {
		c, err := s.db.Conn(ctx)
		if err != nil {
			return nil, fmt.Errorf("cannot open the store: %w", translate(err, s.path))
		}
		if _, err := c.ExecContext(ctx, "PRAGMA query_only = ON"); err != nil {
			return nil, errors.Join(translate(err, s.path), c.Close())
		}
		if err := s.addConn(ctx, c, s.readers); err != nil {
			return nil, err
		}
	}
	// A process before this one may have ended after a delete and before its
	// scrub. Without room for that, the next delete's scrub makes up for it.
	// Not ended with ctx: the connection must be back when Open fails.
	if err := s.Scrub(context.WithoutCancel(ctx)); err != nil && !errors.Is(err, store.ErrFull) {
		return nil, err
	}
	return s, nil
}

// dsn gives the settings that each connection needs for itself. journal_mode
// is not among them: it would write to the file before checkIdentity has seen
// that it is ours.
func (s *Store) dsn() string {
	name := ":memory:"
	if s.path != "" {
		// mode=rw: the file was made by makePrivate; SQLite must not make one
		// with a mode of its own.
		name = (&url.URL{Path: s.path}).EscapedPath()
	}
	q := url.Values{"_pragma": {
		fmt.Sprintf("busy_timeout(%d)", busyTimeoutMS), // first: the others may wait
		"synchronous(FULL)",
		"foreign_keys(ON)",
		"secure_delete(ON)",
		"temp_store(MEMORY)",
	}}
	if s.path != "" {
		q.Set("mode", "rw")
	}
	return "file:" + name + "?" + q.Encode()
}

// prepareFile checks that the database is ours, and brings journal mode and
// schema to where this program needs them.
func (s *Store) prepareFile(ctx context.Context, c *sql.Conn) error {
	if err := checkIdentity(ctx, c, s.path); err != nil {
		return err
	}
	var mode string
	if err := c.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return translate(err, s.path)
	}
	if s.path != "" && mode != "wal" {
		return fmt.Errorf("the file system of %s cannot keep a write-ahead log (SQLite offers %q); put the data on a local disk", s.path, mode)
	}
	if err := migrate(ctx, c, s.path, migrationFiles); err != nil {
		return err
	}
	if s.path == "" {
		return nil
	}
	// The names of the file and its log, so that a power cut after the first
	// commit finds them.
	return fsync.Dir(filepath.Dir(s.path))
}

// makePrivate creates the file, empty, if there is none, and sees to it that
// it and its companions have mode 0600. SQLite gives new companions the mode
// of the file.
func makePrivate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return err
	}
	for _, companion := range []string{path + "-wal", path + "-shm"} {
		if err := os.Chmod(companion, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// View implements store.Store.
func (s *Store) View(ctx context.Context, fn func(r store.Reader) error) error {
	c, err := s.take(ctx, s.readers)
	if err != nil {
		return err
	}
	defer func() { s.readers <- c }()
	// A transaction of SQLite sees the state of its first read, not of its
	// BEGIN, so pin reads.
	if err := c.exec(c.begin, c.pin); err != nil {
		c.rollback()
		return translate(err, s.path)
	}
	r := &reader{s: s, c: c}
	defer func() {
		r.dead = errOver
		c.rollback() // of what has only read
	}()
	return fn(r)
}

// Update implements store.Store.
//
// A crash inside fn, or before the commit frame is on disk, leaves nothing of
// the transaction; after it, everything. When the fsync itself reports an
// error, Update does too, and the next transaction writes over the frame; only
// a crash before that could let the transaction reappear.
func (s *Store) Update(ctx context.Context, fn func(tx store.Tx) error) error {
	c, err := s.take(ctx, s.writer)
	if err != nil {
		return err
	}
	defer func() {
		s.scrubs.ended.Add(1)
		s.writer <- c
	}()
	if err := c.exec(c.beginWrite); err != nil {
		c.rollback()
		return translate(err, s.path)
	}
	t := &tx{reader: reader{s: s, c: c}}
	committed := false
	// Deferred, so that a panic in fn takes the changes with it.
	defer func() {
		t.dead = errOver
		if !committed {
			c.rollback()
		}
	}()
	if err := fn(t); err != nil {
		return err
	}
	// fn may have swallowed an error that undid the transaction, or the end of
	// its context.
	if err := t.usable(ctx); err != nil {
		return err
	}
	if err := t.saveTotals(); err != nil {
		return err
	}
	if err := c.exec(c.commit); err != nil {
		return translate(err, s.path)
	}
	committed = true
	s.boundLog()
	return nil
}

// LogTail implements store.Store.
func (s *Store) LogTail(ctx context.Context) (tail store.LogTail, err error) {
	c, err := s.take(ctx, s.readers)
	if err != nil {
		return tail, err
	}
	defer func() { s.readers <- c }()
	err = c.getTail.QueryRow().Scan(&tail.File, &tail.Offset, &tail.Lines)
	if errors.Is(err, sql.ErrNoRows) {
		return tail, store.ErrNotFound
	}
	return tail, translate(err, s.path)
}

// Close waits for what is running, then moves the write-ahead log into the
// file and removes it. Calls after it get ErrClosed.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		close(s.closing)
		var errs []error
		// The writer last: the last connection moves the log, and must be one
		// that may write.
		if s.readers != s.writer {
			errs = append(errs, closeConns(s.readers, cap(s.readers)))
		}
		errs = append(errs, closeConns(s.writer, cap(s.writer)), s.db.Close())
		s.closeErr = errors.Join(errs...)
	})
	return s.closeErr
}
