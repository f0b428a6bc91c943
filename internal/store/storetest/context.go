package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"softhem/internal/store"
)

func contextEnded(t *testing.T, s store.Store) {
	prepareUndo(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.View(ctx, func(store.Reader) error { t.Error("View calls its function"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("View: %v", err)
	}
	if err := s.Update(ctx, func(store.Tx) error { t.Error("Update calls its function"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Update: %v", err)
	}
	if _, err := s.LogTail(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("LogTail: %v", err)
	}
	checkUndone(t, s)
}

// A context that ends within an update undoes it, also when its function
// takes no notice.
func contextEndsInside(t *testing.T, s store.Store) {
	prepareUndo(t, s)
	for name, fn := range map[string]func(ctx context.Context, cancel func(), tx store.Tx) error{
		"between": func(ctx context.Context, cancel func(), tx store.Tx) error {
			if err := tx.Put(ctx, kind, "added", nil); err != nil {
				t.Error(err)
			}
			cancel()
			if err := change(ctx, tx); !errors.Is(err, context.Canceled) {
				t.Errorf("a change after the end: %v", err)
			}
			return nil
		},
		"at the end": func(ctx context.Context, cancel func(), tx store.Tx) error {
			err := change(ctx, tx)
			cancel()
			return err
		},
		"in an attempt": func(ctx context.Context, cancel func(), tx store.Tx) error {
			if err := tx.Put(ctx, kind, "replaced", []byte("x")); err != nil {
				t.Error(err)
			}
			tx.Attempt(ctx, func() error {
				err := change(ctx, tx)
				cancel()
				return errors.Join(err, tx.Put(ctx, kind, "added", nil))
			})
			return nil
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		if err := s.Update(ctx, func(tx store.Tx) error { return fn(ctx, cancel, tx) }); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: Update returns %v", name, err)
		}
		cancel()
		checkUndone(t, s)
	}
}

// Who waits for another update can give up.
func contextEndsWhileWaiting(t *testing.T, s store.Store) {
	prepareUndo(t, s)
	update(t, s, func(store.Tx) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		// From another goroutine: this one is inside a transaction.
		done := make(chan error)
		go func() { done <- s.Update(ctx, func(tx store.Tx) error { return change(ctx, tx) }) }()
		select {
		case err := <-done:
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the update that waits: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the update still waits")
		}
		return nil
	})
	checkUndone(t, s)
}

// Whenever the context ends, an update has happened if and only if it says so.
func contextEndsAtRandom(t *testing.T, s store.Store) {
	var done, undone int
	for n := range 150 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(1500))*time.Microsecond)
		err := s.Update(ctx, func(tx store.Tx) error {
			for part := range 10 {
				if err := tx.Put(ctx, kind, fmt.Sprint(n, "/", part), make([]byte, 500)); err != nil {
					return err
				}
			}
			return nil
		})
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		for part := range 10 {
			id := fmt.Sprint(n, "/", part)
			if err != nil {
				wantNone(t, s, kind, id)
			} else {
				want(t, s, kind, id, string(make([]byte, 500)))
			}
		}
		if err != nil {
			undone++
		} else {
			done++
		}
	}
	t.Logf("%d updates done, %d undone", done, undone)
}

func view(t *testing.T, s store.Store, fn func(store.Reader) error) {
	t.Helper()
	if err := s.View(t.Context(), fn); err != nil {
		t.Fatalf("View: %v", err)
	}
}

func update(t *testing.T, s store.Store, fn func(store.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), fn); err != nil {
		t.Fatalf("Update: %v", err)
	}
}

func put(t *testing.T, s store.Store, kind store.Kind, id, value string) {
	t.Helper()
	update(t, s, func(tx store.Tx) error { return tx.Put(t.Context(), kind, id, []byte(value)) })
}

func want(t *testing.T, s store.Store, kind store.Kind, id, value string) {
	t.Helper()
	view(t, s, func(r store.Reader) error {
		got, err := r.Get(t.Context(), kind, id)
		if err != nil || string(got) != value || got == nil {
			t.Errorf("%q %.40q is %.40q (%d bytes, nil %t), %v; want %.40q", kind, id, got, len(got), got == nil, err, value)
		}
		return nil
	})
}

func wantNone(t *testing.T, s store.Store, kind store.Kind, id string) {
	t.Helper()
	view(t, s, func(r store.Reader) error {
		if got, err := r.Get(t.Context(), kind, id); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%q %q is %.40q, %v; want ErrNotFound", kind, id, got, err)
		}
		return nil
	})
}

func wantTail(t *testing.T, s store.Store, want store.LogTail) {
	t.Helper()
	got, err := s.LogTail(t.Context())
	if err != nil || got.File != want.File || got.Offset != want.Offset || string(got.Lines) != string(want.Lines) {
		t.Errorf("tail %.80q at %q %d, %v; want %.80q at %q %d", got.Lines, got.File, got.Offset, err, want.Lines, want.File, want.Offset)
	}
}
