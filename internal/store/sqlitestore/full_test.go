package sqlitestore

import (
	"bytes"
	"errors"
	"fmt"
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
		limit := func(pages int) {
			c := <-s.writer
			defer func() { s.writer <- c }()
			if _, err := c.ExecContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
				t.Fatal(err)
			}
		}
		limit(300)
		swallowed(t, s)
		fillUp(t, s, func() { limit(3000) })
	})
	t.Run("disk", fullDisk)
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
