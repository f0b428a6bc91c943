package sqlitestore

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"softhem/internal/store"
)

// translate gives an error of the driver or the file system its meaning in the contract of
// package store. path is the file, "" in memory.
func translate(err error, path string) error {
	if errors.Is(err, syscall.ENOSPC) { // of the file operations around SQLite
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	switch e.Code() & 0xff { // the rest of an extended code tells details
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN:
		// SQLite makes SQLITE_FULL only of a write that met ENOSPC, and does
		// not tell the cause of others (growing the -shm file, fsync). So the
		// file system is asked; should there be room again by now, the error
		// stays a general one.
		if path != "" && diskFull(filepath.Dir(path)) {
			return fmt.Errorf("%w: %w", store.ErrFull, err)
		}
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("%w: %s: %w; restore a backup", store.ErrCorrupt, path, err)
	}
	return fmt.Errorf("store: %w", err)
}
