package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"softhem/internal/store"
)

func put(id, value string, recs ...Record) func(context.Context, store.Tx) ([]Record, error) {
	return func(ctx context.Context, tx store.Tx) ([]Record, error) {
		return recs, tx.Put(ctx, "key", id, []byte(value))
	}
}

func has(t testing.TB, st store.Store, id string) bool {
	t.Helper()
	err := st.View(context.Background(), func(r store.Reader) error {
		_, err := r.Get(context.Background(), "key", id)
		return err
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// Of the changes in one transaction, each fails alone.
func TestCommit(t *testing.T) {
	st := openStore(t, "")
	l := openLog(t, config(st, t.TempDir()))
	if err := l.Commit(t.Context(), put("early", "x", Record{Type: KeyImport})); !errors.Is(err, ErrNoBoot) || has(t, st, "early") {
		t.Errorf("before StartBoot: %v", err)
	}
	must(t, l.Commit(t.Context(), put("silent", "x"))) // no record, no boot needed
	must(t, l.StartBoot(t.Context()))

	own := errors.New("own")
	cases := map[string]struct {
		recs  []Record
		err   error
		panic bool
		want  error
	}{
		"a": {recs: []Record{{Type: KeyImport, Who: "ab01", Arg: []byte("a")}, {Type: KeyImport, Arg: []byte("a2")}}},
		"b": {err: own, recs: []Record{{Type: KeyImport, Arg: []byte("b")}}, want: own},
		"c": {panic: true},
		"d": {recs: []Record{{Type: KeyInit}}, want: ErrRecord},
		"e": {recs: []Record{{Type: KeyImport, Arg: []byte("e")}}},
		"f": {}, // a plain change
	}
	// Hold the first in the store, so that the others share the next batch.
	entered, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := l.Commit(t.Context(), func(context.Context, store.Tx) ([]Record, error) {
			close(entered)
			<-release
			return nil, l.Append(t.Context(), Record{Type: KeyDerive}) // appends go on meanwhile
		}); err != nil {
			t.Error(err)
		}
	})
	<-entered
	var mu sync.Mutex
	got := map[string]error{}
	for id, c := range cases {
		wg.Go(func() {
			err := l.Commit(t.Context(), func(ctx context.Context, tx store.Tx) ([]Record, error) {
				must(t, tx.Put(ctx, "key", id, []byte(id)))
				if c.panic {
					panic("deliberate")
				}
				return c.recs, c.err
			})
			mu.Lock()
			got[id] = err
			mu.Unlock()
		})
	}
	gone, cancel := context.WithCancel(t.Context())
	wg.Go(func() {
		if err := l.Commit(gone, put("gone", "x", Record{Type: KeyImport, Arg: []byte("gone")})); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled in line: %v", err)
		}
	})
	for queued := 0; queued < len(cases)+1; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		if l.changes != nil {
			queued = len(l.changes.changes)
		}
		l.mu.Unlock()
	}
	cancel()
	close(release)
	wg.Wait()

	for id, c := range cases {
		fails := c.want != nil || c.panic
		if (got[id] != nil) != fails || !errors.Is(got[id], c.want) && c.want != nil {
			t.Errorf("%s: %v", id, got[id])
		}
		if has(t, st, id) == fails {
			t.Errorf("%s: in the store: %v", id, has(t, st, id))
		}
	}
	var args []string
	for _, e := range entries(t, l, l.Current()) {
		if e.Type == KeyImport {
			args = append(args, string(e.Arg))
		}
	}
	slices.Sort(args)
	if !slices.Equal(args, []string{"a", "a2", "e"}) || has(t, st, "gone") {
		t.Errorf("records %v", args)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Commit(done, put("late", "x")); !errors.Is(err, context.Canceled) || has(t, st, "late") {
		t.Errorf("cancelled before: %v", err)
	}
	if err := l.Append(done, Record{Type: Reboot}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
}

// A store that cannot commit leaves no line.
func TestCommitStoreFails(t *testing.T) {
	st := openStore(t, "")
	l := openLog(t, config(st, t.TempDir()))
	must(t, l.StartBoot(t.Context()))
	before := since(t, l, l.Current())
	err := l.Commit(t.Context(), func(ctx context.Context, tx store.Tx) ([]Record, error) {
		return []Record{{Type: KeyImport}}, fmt.Errorf("no room: %w", store.ErrFull)
	})
	if !errors.Is(err, store.ErrFull) {
		t.Error(err)
	}
	must(t, st.Close())
	if err := l.Commit(t.Context(), put("a", "x", Record{Type: KeyImport})); err == nil {
		t.Error("committed in a closed store")
	}
	if got := since(t, l, l.Current()); got != before {
		t.Errorf("the log has\n%s", got)
	}
	must(t, l.Append(t.Context(), Record{Type: Reboot})) // the log works on
}
