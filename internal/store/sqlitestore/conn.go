package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"maps"
)

// A conn is one connection to the database with its prepared statements.
//
// Statements run without the caller's context: contexts are checked between
// them. The driver ends a statement by interrupting SQLite, and an interrupted
// write undoes the whole transaction behind the back of Update and Attempt.
// Every statement here is short.
type conn struct {
	*sql.Conn

	begin, pin                         *sql.Stmt
	beginWrite, commit, undo           *sql.Stmt
	savepoint, rollbackTo, release     *sql.Stmt
	get, put, remove, getTail, putTail *sql.Stmt
	truncate                           *sql.Stmt

	keys keyStmts

	stmts []*sql.Stmt // all of them, for close
}

// addConn prepares the statements and puts the connection into its channel.
func (s *Store) addConn(ctx context.Context, sc *sql.Conn, to chan *conn) error {
	c := &conn{Conn: sc}
	queries := c.keys.queries()
	maps.Copy(queries, map[**sql.Stmt]string{
		&c.begin:      "BEGIN",
		&c.pin:        "SELECT 1 FROM log_tail",
		&c.beginWrite: "BEGIN IMMEDIATE",
		&c.commit:     "COMMIT",
		&c.undo:       "ROLLBACK",
		// Savepoints of the same name nest: the innermost is meant.
		&c.savepoint:  "SAVEPOINT attempt",
		&c.rollbackTo: "ROLLBACK TO attempt",
		&c.release:    "RELEASE attempt",
		&c.get:        "SELECT sealed FROM record WHERE kind = ? AND id = ?",
		&c.put: `INSERT INTO record (kind, id, sealed) VALUES (?, ?, ?)
			ON CONFLICT (kind, id) DO UPDATE SET sealed = excluded.sealed`,
		&c.remove:  "DELETE FROM record WHERE kind = ? AND id = ?",
		&c.getTail: "SELECT file, offset, lines FROM log_tail",
		&c.putTail: `INSERT INTO log_tail (only, file, offset, lines) VALUES (1, ?, ?, ?)
			ON CONFLICT (only) DO UPDATE SET file = excluded.file, offset = excluded.offset, lines = excluded.lines`,
		&c.truncate: "PRAGMA wal_checkpoint(TRUNCATE)",
	})
	for stmt, query := range queries {
		var err error
		if *stmt, err = c.PrepareContext(ctx, query); err != nil {
			return errors.Join(translate(err, s.path), c.close())
		}
		c.stmts = append(c.stmts, *stmt)
	}
	to <- c
	return nil
}

// close closes the statements, then the connection. database/sql forgets the
// statements of a pinned connection; with one of them open SQLite would keep
// the connection, and its write-ahead log, behind its back.
func (c *conn) close() error {
	var errs []error
	for _, stmt := range c.stmts {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(append(errs, c.Close())...)
}

// exec runs statements without arguments or results, up to the first error.
func (c *conn) exec(stmts ...*sql.Stmt) error {
	for _, stmt := range stmts {
		if _, err := stmt.Exec(); err != nil {
			return err
		}
	}
	return nil
}

// rollback ends the transaction, if there still is one. Its error is of no
// use: after a full disk and the like SQLite has rolled back by itself, and
// ROLLBACK finds nothing to do. Should a transaction survive it, the next BEGIN
// on this connection fails, and rolls back again.
func (c *conn) rollback() { c.exec(c.undo) }

// take waits for a connection.
func (s *Store) take(ctx context.Context, from chan *conn) (*conn, error) {
	// First, because select chooses at random among what is ready.
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case <-s.closing:
		return nil, ErrClosed
	default:
	}
	select {
	case c := <-from:
		return c, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.closing:
		return nil, ErrClosed
	}
}

// closeConns takes n connections, waiting for those in use, and closes them.
func closeConns(from chan *conn, n int) error {
	var errs []error
	for range n {
		errs = append(errs, (<-from).close())
	}
	return errors.Join(errs...)
}
