package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"softhem/internal/store"
)

// A snapshot is of the moment it was pinned at, whatever is written while it is
// copied, and the copy is a sound store.
func TestSnapshot(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	s, err := Open(ctx, Config{Path: filepath.Join(dir, "hem.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const kinds = 400
	put := func(generation string) error {
		return s.Update(ctx, func(tx store.Tx) error {
			for i := range kinds {
				if err := tx.Put(ctx, "k", fmt.Sprint(i), append([]byte(generation), make([]byte, 3000)...)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := put("old"); err != nil {
		t.Fatal(err)
	}
	n, err := s.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.CopyTo(ctx, filepath.Join(dir, "early")); err == nil {
		t.Error("copied before it was pinned")
	}
	if err := n.Pin(); err != nil {
		t.Fatal(err)
	}
	if err := put("new"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 20 {
			if err := put("newer"); err != nil {
				t.Error(err)
			}
		}
	})
	path := filepath.Join(dir, "copy.db")
	if err := n.CopyTo(ctx, path); err != nil {
		t.Fatal(err)
	}
	if err := n.CopyTo(ctx, path); !errors.Is(err, os.ErrExist) {
		t.Errorf("it writes over a file: %v", err)
	}
	scrubbed := make(chan error, 1)
	go func() { scrubbed <- s.Scrub(ctx) }()
	wg.Wait()
	select {
	case err := <-scrubbed:
		t.Errorf("a scrub did not wait for the snapshot: %v", err)
	default:
	}
	size, err := n.Size()
	if err != nil {
		t.Error(err)
	}
	n.Close()
	n.Close()
	if err := <-scrubbed; err != nil {
		t.Errorf("the scrub after it: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || info.Size() != size {
		t.Errorf("%v, %v; its size was to be %d", info, err, size)
	}
	c, err := Open(ctx, Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Check(ctx); err != nil {
		t.Error(err)
	}
	seen := 0
	err = c.EachRecord(ctx, func(kind store.Kind, id string, sealed []byte) error {
		seen++
		if kind != "k" || string(sealed[:3]) != "old" {
			return fmt.Errorf("%s %s is %.5q", kind, id, sealed)
		}
		return nil
	})
	if err != nil || seen != kinds {
		t.Errorf("%d records: %v", seen, err)
	}
}

// What ends early leaves no file.
func TestSnapshotEndsEarly(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	s, err := Open(ctx, Config{Path: filepath.Join(dir, "hem.db")})
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.Snapshot(ctx)
	if err == nil {
		err = n.Pin()
	}
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	path := filepath.Join(dir, "copy.db")
	if err := n.CopyTo(gone, path); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := s.Snapshot(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("two snapshots: %v", err)
	}
	n.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Snapshot(ctx); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// A store with more in it than this program makes, such as a trigger, or with
// a damaged page, is not sound.
func TestCheckFindsWhatIsNotOurs(t *testing.T) {
	ctx := t.Context()
	for name, change := range map[string]string{
		"a trigger": "CREATE TRIGGER mine AFTER INSERT ON record BEGIN DELETE FROM record; END",
		"a table":   "CREATE TABLE mine (x)",
		"no index":  "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = sql || ' ' WHERE name = 'record'; PRAGMA writable_schema = RESET",
	} {
		s, err := Open(ctx, Config{Path: filepath.Join(t.TempDir(), "hem.db")})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Check(ctx); err != nil {
			t.Error(err)
		}
		w := <-s.writer
		if _, err := w.ExecContext(ctx, change); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s.writer <- w
		if err := s.Check(ctx); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
	}
}
