// Package store says how the module keeps its records: sealed values under a
// kind and an id, changed in transactions. It holds the interface and the
// error contract; sqlitestore implements it and storetest checks any
// implementation.
//
// A store never sees a secret: what it is given is already sealed
// (internal/seal), bound to its kind and id.
package store

import (
	"context"
	"errors"
)

// A Kind groups records; it is part of what a sealed value is bound to.
type Kind string

// The error contract. Implementations wrap these, so test with errors.Is.
var (
	// ErrNotFound: there is no record of that kind and id.
	ErrNotFound = errors.New("record not found")
	// ErrFull: the disk has no room. Nothing of the transaction was kept; the
	// store works on once there is room again.
	ErrFull = errors.New("no space left for the store")
	// ErrNewerSchema: the data was written by a newer version of the program.
	ErrNewerSchema = errors.New("the data was written by a newer version")
	// ErrCorrupt: the file is damaged or no store at all.
	ErrCorrupt = errors.New("the store is damaged")
)

// Reader reads one consistent state.
type Reader interface {
	// Get returns the sealed value, or ErrNotFound.
	Get(ctx context.Context, kind Kind, id string) ([]byte, error)
	KeyReader
}

// Tx is a running transaction. It must not be used after its function
// returned, nor from another goroutine.
type Tx interface {
	Reader
	// Put inserts or replaces a record.
	Put(ctx context.Context, kind Kind, id string, sealed []byte) error
	// Delete removes a record; ErrNotFound if there is none. The bytes of the
	// sealed value are overwritten in the file (SQLite: secure_delete).
	Delete(ctx context.Context, kind Kind, id string) error
	// Attempt runs fn so that, if it fails, only its own changes are undone
	// and the rest of the transaction stands. It returns fn's error.
	Attempt(ctx context.Context, fn func() error) error
	// SetLogTail replaces the store's one log tail.
	SetLogTail(ctx context.Context, tail LogTail) error
	KeyTx
}

// A LogTail is the stretch of the audit log that belongs to the transaction
// it was set in: the lines of the changes made there, and where in the log
// they stand. It is how a change and its audit record become one: after a
// crash between the commit and the append, the log is completed from it.
// Only the latest tail is kept.
type LogTail struct {
	File   string // name of the log file
	Offset int64  // in bytes from the start of that file
	Lines  []byte // complete lines, each with its newline
}

// Store is a durable set of records. Its methods may be called concurrently.
type Store interface {
	// View runs fn on a consistent state; fn must not keep r.
	View(ctx context.Context, fn func(r Reader) error) error
	// Update runs fn in a write transaction, one at a time. When it returns
	// nil everything fn did is on disk; otherwise nothing is.
	Update(ctx context.Context, fn func(tx Tx) error) error
	// LogTail returns the latest tail, or ErrNotFound.
	LogTail(ctx context.Context) (LogTail, error)
	// Scrub returns when no file of the store holds the sealed part of a key
	// that was deleted, or replaced, before the call. Calls that wait at the
	// same time share the work.
	Scrub(ctx context.Context) error
	// Close flushes and releases the files.
	Close() error
}
