package sqlitestore

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"softhem/internal/store"
)

// TestFullDisk fills the store until store.ErrFull, twice, and checks that
// nothing of the refused transactions was kept, that reading goes on, and that
// writing does once there is room.
//
// "disk" does it on a real file system of 2 MiB (tmpfs), wherever the test may
// mount one; "page limit" everywhere, with SQLite's own limit of the file.
func TestFullDisk(t *testing.T) {
	t.Run("page limit", func(t *testing.T) {
		s := open(t, newPath(t))
		limitPages(t, s, 300)
		swallowed(t, s)
		fillUp(t, s, func() { limitPages(t, s, 3000) })
	})
	t.Run("disk", fullDisk)
}

// TestFullDiskKeys does the same with keys.
func TestFullDiskKeys(t *testing.T) {
	t.Run("page limit", func(t *testing.T) {
		path := newPath(t)
		s := open(t, path)
		limitPages(t, s, 150)
		fillUpKeys(t, s, path, func() { limitPages(t, s, 300) })
	})
	t.Run("disk", func(t *testing.T) {
		dir, makeRoom := smallDisk(t)
		path := filepath.Join(dir, "s.db")
		fillUpKeys(t, open(t, path), path, makeRoom)
	})
}

func limitPages(t *testing.T, s *Store, pages int) {
	execute(t, s, fmt.Sprintf("PRAGMA max_page_count = %d", pages))
}

// swallowed: what follows a refused write in its transaction is not committed
// by itself, though it would fit and the error was ignored.
func swallowed(t *testing.T, s *Store) {
	ctx := t.Context()
	err := s.Update(ctx, func(tx store.Tx) error {
		if err := tx.Put(ctx, "k", "before", nil); err != nil {
			return err
		}
		for range 2 {
			if err := tx.Attempt(ctx, func() error { return tx.Put(ctx, "k", "huge", make([]byte, 4<<20)) }); !errors.Is(err, store.ErrFull) {
				t.Errorf("a value that has no room: %v", err)
			}
		}
		if err := tx.Put(ctx, "k", "after", nil); !errors.Is(err, store.ErrFull) {
			t.Errorf("after it: %v", err)
		}
		return nil
	})
	if !errors.Is(err, store.ErrFull) {
		t.Errorf("Update: %v", err)
	}
	for _, id := range []string{"before", "huge", "after"} {
		if _, err := get(t, s, id); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s was kept: %v", id, err)
		}
	}
}

func fillUp(t *testing.T, s *Store, makeRoom func()) {
	ctx, value := t.Context(), bytes.Repeat([]byte("x"), 3000)
	// write puts four records in one transaction, the last in an attempt whose
	// error is swallowed.
	write := func(n int) error {
		return s.Update(ctx, func(tx store.Tx) error {
			for part := range 3 {
				if err := tx.Put(ctx, "k", fmt.Sprint(n, "/", part), value); err != nil {
					return err
				}
			}
			tx.Attempt(ctx, func() error { return tx.Put(ctx, "k", fmt.Sprint(n, "/3"), value) })
			return nil
		})
	}
	check := func(done int) {
		t.Helper()
		for n := range done + 2 {
			for part := range 4 {
				got, err := get(t, s, fmt.Sprint(n, "/", part))
				if n < done && (err != nil || !bytes.Equal(got, value)) || n >= done && !errors.Is(err, store.ErrNotFound) {
					t.Fatalf("record %d/%d, with %d written: %d bytes, %v", n, part, done, len(got), err)
				}
			}
		}
	}
	fill := func(n int) int {
		t.Helper()
		for {
			err := write(n)
			if errors.Is(err, store.ErrFull) {
				return n
			}
			if err != nil || n > 5000 {
				t.Fatalf("write %d: %v", n, err)
			}
			n++
		}
	}
	done := fill(0)
	if done < 5 {
		t.Fatalf("full after %d writes: that proves little", done)
	}
	check(done)
	if err := write(done); !errors.Is(err, store.ErrFull) {
		t.Errorf("again: %v", err)
	}
	makeRoom()
	if err := write(done); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	check(done + 1)
	done = fill(done + 1)
	check(done)
	var integrity string
	c := <-s.writer
	err := c.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&integrity)
	s.writer <- c
	if err != nil || integrity != "ok" {
		t.Errorf("%s, %v", integrity, err)
	}
	t.Logf("%d transactions", done)
}

// fillUpKeys inserts keys until store.ErrFull, then tries to update and delete
// some. Whatever is refused has changed nothing, and with room all goes on.
func fillUpKeys(t *testing.T, s *Store, path string, makeRoom func()) {
	ctx := t.Context()
	const batch = 20
	insert := func(n int) error {
		return s.Update(ctx, func(tx store.Tx) error {
			for i := range batch {
				// The error of an attempt is swallowed.
				tx.Attempt(ctx, func() error { return tx.InsertKey(ctx, testKey(n+i, mark(n+i))) })
			}
			return nil
		})
	}
	labels := map[int]string{} // of the keys there must be
	check := func() {
		t.Helper()
		var page store.KeyPage
		if err := s.View(ctx, func(r store.Reader) (err error) {
			page, err = r.ListKeys(ctx, 0, 1_000_000)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if len(page.Keys) != len(labels) || page.Total != int64(len(labels)) {
			t.Fatalf("%d keys of %d, want %d", len(page.Keys), page.Total, len(labels))
		}
		for _, k := range page.Keys {
			n := int(k.Created - testKey(0, mark(0)).Created)
			if labels[n] != k.Label {
				t.Fatalf("key %d is labelled %q, want %q", n, k.Label, labels[n])
			}
		}
		integrity(t, s)
	}
	next := 0
	fill := func() {
		t.Helper()
		for {
			err := insert(next)
			if errors.Is(err, store.ErrFull) {
				return
			}
			if err != nil || next > 20_000 {
				t.Fatalf("insert %d: %v", next, err)
			}
			for i := range batch {
				labels[next+i] = fmt.Sprint("key ", next+i)
			}
			next += batch
		}
	}
	fill()
	if next < 100 {
		t.Fatalf("full after %d keys: that proves little", next)
	}
	check()
	refused := 0
	for n := range 60 {
		k := testKey(n, mark(updatedMark+n))
		k.Label, k.Descr = "updated", bytes.Repeat([]byte("d"), 60)
		err := s.Update(ctx, func(tx store.Tx) error {
			if n%2 == 0 {
				return tx.DeleteKey(ctx, k.KID)
			}
			return tx.UpdateKey(ctx, k)
		})
		switch {
		case errors.Is(err, store.ErrFull):
			refused++
		case err != nil:
			t.Fatal(err)
		case n%2 == 0:
			delete(labels, n)
		default:
			labels[n] = "updated"
		}
	}
	check()
	makeRoom()
	if err := insert(next); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	for i := range batch {
		labels[next+i] = fmt.Sprint("key ", next+i)
	}
	next += batch
	gone := testKey(next-1, mark(next-1))
	if err := s.Update(ctx, func(tx store.Tx) error { return tx.DeleteKey(ctx, gone.KID) }); err != nil {
		t.Fatal(err)
	}
	delete(labels, next-1)
	if err := s.Scrub(ctx); err != nil {
		t.Fatal(err)
	}
	if found(t, path, []string{mark(next - 1)}) != 0 {
		t.Error("a sealed part is still there after its scrub")
	}
	check()
	fill()
	check()
	t.Logf("%d keys, of 60 changes on the full disk %d refused", len(labels), refused)
}
