// Package storetest checks that a store.Store keeps its contract. Every
// implementation runs it on a real store.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"softhem/internal/store"
)

const kind store.Kind = "test"

// Run runs the suite. open gives a new empty store, which the suite closes.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s store.Store)
	}{
		{"Records", records},
		{"OddNames", oddNames},
		{"Sizes", sizes},
		{"BytesAreCopied", bytesAreCopied},
		{"ViewIsConsistent", viewIsConsistent},
		{"ErrorsPassThrough", errorsPassThrough},
		{"UpdateUndoneByError", updateUndoneByError},
		{"UpdateUndoneByPanic", updateUndoneByPanic},
		{"Attempt", attempt},
		{"AttemptNested", attemptNested},
		{"AttemptPanic", attemptPanic},
		{"LogTail", logTail},
		{"ReadersDuringWrites", readersDuringWrites},
		{"UpdatesOneAtATime", updatesOneAtATime},
		{"ContextEnded", contextEnded},
		{"ContextEndsInside", contextEndsInside},
		{"ContextEndsWhileWaiting", contextEndsWhileWaiting},
		{"ContextEndsAtRandom", contextEndsAtRandom},
		{"StateMachine", stateMachine},
		{"Keys", keyRecords},
		{"KeySeqIsNew", keySeqIsNew},
		{"KeyDuplicates", keyDuplicates},
		{"KeyLengths", keyLengths},
		{"KeyBytesAreCopied", keyBytesAreCopied},
		{"KeyPages", keyPages},
		{"KeySearches", keySearches},
		{"KeysGrow", keysGrow},
		{"KeysUndone", keysUndone},
		{"KeysReadDuringWrites", keysReadDuringWrites},
		{"KeyMachine", keyMachine},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := open(t)
			defer func() {
				if err := s.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}()
			test.run(t, s)
		})
	}
}

func records(t *testing.T, s store.Store) {
	ctx := t.Context()
	wantNone(t, s, kind, "a")
	put(t, s, kind, "a", "1")
	put(t, s, "other", "a", "2")
	want(t, s, kind, "a", "1")
	want(t, s, "other", "a", "2")
	put(t, s, kind, "a", "3 is longer")
	want(t, s, kind, "a", "3 is longer")
	want(t, s, "other", "a", "2")
	wantNone(t, s, kind, "A")

	update(t, s, func(tx store.Tx) error {
		if err := tx.Delete(ctx, kind, "none"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("deleting nothing: %v", err)
		}
		if err := tx.Delete(ctx, kind, "a"); err != nil {
			return err
		}
		// A transaction sees what it did.
		if _, err := tx.Get(ctx, kind, "a"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a deleted record in its transaction: %v", err)
		}
		if err := tx.Delete(ctx, kind, "a"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("deleting twice: %v", err)
		}
		if err := tx.Put(ctx, kind, "b", []byte("4")); err != nil {
			return err
		}
		if got, err := tx.Get(ctx, kind, "b"); err != nil || string(got) != "4" {
			t.Errorf("a new record in its transaction: %q, %v", got, err)
		}
		return nil
	})
	wantNone(t, s, kind, "a")
	want(t, s, kind, "b", "4")
	want(t, s, "other", "a", "2")
}

// Kinds and ids are bytes: nothing is trimmed, folded, normalised or cut.
func oddNames(t *testing.T, s store.Store) {
	names := []string{"", " ", "\x00", "\x00\x00", "a", "A", "a\x00", "a\x00b", "\xff", "\xff\xfe\xfd", "é", "e\u0301", "'; DROP TABLE record; --",
		"%", "_", "?1", "1", "01", "1.0", "null", "\n", strings.Repeat("x", 4096), "日本", "\xc3\x28"}
	for i, k := range names {
		for j, id := range names {
			put(t, s, store.Kind(k), id, fmt.Sprint(i, "/", j))
		}
	}
	for i, k := range names {
		for j, id := range names {
			want(t, s, store.Kind(k), id, fmt.Sprint(i, "/", j))
		}
	}
	update(t, s, func(tx store.Tx) error { return tx.Delete(t.Context(), "a", "a\x00") })
	wantNone(t, s, "a", "a\x00")
	want(t, s, "a", "a", "4/4")
}

func sizes(t *testing.T, s store.Store) {
	r := rand.NewChaCha8([32]byte{1})
	for _, n := range []int{0, 1, 100, 1 << 10, 4095, 4096, 4097, 64 << 10, 1<<20 - 1, 1 << 20} {
		value := make([]byte, n)
		r.Read(value)
		id := fmt.Sprint(n)
		put(t, s, kind, id, string(value))
		want(t, s, kind, id, string(value))
		put(t, s, kind, id, "short")
		want(t, s, kind, id, "short")
		put(t, s, kind, id, string(value))
		want(t, s, kind, id, string(value))
	}
	update(t, s, func(tx store.Tx) error { return tx.Put(t.Context(), kind, "nil", nil) })
	want(t, s, kind, "nil", "")
}

// What a caller does to its slices later changes no record.
func bytesAreCopied(t *testing.T, s store.Store) {
	ctx := t.Context()
	value := []byte("value")
	update(t, s, func(tx store.Tx) error {
		if err := tx.Put(ctx, kind, "a", value); err != nil {
			return err
		}
		clear(value)
		got, err := tx.Get(ctx, kind, "a")
		clear(got)
		return err
	})
	view(t, s, func(r store.Reader) error {
		got, err := r.Get(ctx, kind, "a")
		clear(got)
		return err
	})
	want(t, s, kind, "a", "value")
}

// A view sees the state it began with, and nothing that is committed later.
func viewIsConsistent(t *testing.T, s store.Store) {
	ctx := t.Context()
	put(t, s, kind, "a", "old")
	put(t, s, kind, "b", "old")
	done := make(chan error, 1)
	view(t, s, func(r store.Reader) error {
		go func() {
			done <- s.Update(ctx, func(tx store.Tx) error {
				return errors.Join(tx.Put(ctx, kind, "a", []byte("new")), tx.Delete(ctx, kind, "b"), tx.Put(ctx, kind, "c", nil))
			})
		}()
		// A store may let the update wait for the view; then this is over
		// after a while, with nothing to see either.
		select {
		case err := <-done:
			done <- err
		case <-time.After(100 * time.Millisecond):
		}
		for _, id := range []string{"a", "b"} {
			if got, err := r.Get(ctx, kind, id); err != nil || string(got) != "old" {
				t.Errorf("%s in the view: %q, %v", id, got, err)
			}
		}
		if _, err := r.Get(ctx, kind, "c"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("c in the view: %v", err)
		}
		return nil
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want(t, s, kind, "a", "new")
	wantNone(t, s, kind, "b")
	want(t, s, kind, "c", "")
}

var errTest = errors.New("test error") // never changed

func errorsPassThrough(t *testing.T, s store.Store) {
	ctx := t.Context()
	if err := s.View(ctx, func(store.Reader) error { return errTest }); !errors.Is(err, errTest) {
		t.Errorf("View: %v", err)
	}
	if err := s.Update(ctx, func(store.Tx) error { return errTest }); !errors.Is(err, errTest) {
		t.Errorf("Update: %v", err)
	}
	if err := s.Update(ctx, func(tx store.Tx) error {
		return tx.Attempt(ctx, func() error { return errTest })
	}); !errors.Is(err, errTest) {
		t.Errorf("Attempt: %v", err)
	}
	view(t, s, func(store.Reader) error { return nil })
	update(t, s, func(store.Tx) error { return nil })
}

func updateUndoneByError(t *testing.T, s store.Store) {
	ctx := t.Context()
	prepareUndo(t, s)
	if err := s.Update(ctx, func(tx store.Tx) error { return errors.Join(change(ctx, tx), errTest) }); !errors.Is(err, errTest) {
		t.Fatal(err)
	}
	checkUndone(t, s)
}

func updateUndoneByPanic(t *testing.T, s store.Store) {
	ctx := t.Context()
	prepareUndo(t, s)
	got := caught(func() {
		s.Update(ctx, func(tx store.Tx) error {
			if err := change(ctx, tx); err != nil {
				t.Error(err)
			}
			panic(errTest)
		})
	})
	if got != errTest {
		t.Fatalf("the panic arrives as %v", got)
	}
	if got := caught(func() { s.View(ctx, func(store.Reader) error { panic(errTest) }) }); got != errTest {
		t.Fatalf("the panic of a view arrives as %v", got)
	}
	checkUndone(t, s)
}

func caught(fn func()) (value any) {
	defer func() { value = recover() }()
	fn()
	return nil
}

// prepareUndo, change and checkUndone: a state, a change of everything in it,
// and a check that the change has left no trace and the store works.
func prepareUndo(t *testing.T, s store.Store) {
	t.Helper()
	ctx := t.Context()
	update(t, s, func(tx store.Tx) error {
		return errors.Join(tx.Put(ctx, kind, "kept", []byte("1")), tx.Put(ctx, kind, "replaced", []byte("2")),
			tx.SetLogTail(ctx, store.LogTail{File: "log", Offset: 1, Lines: []byte("one\n")}))
	})
}

func change(ctx context.Context, tx store.Tx) error {
	return errors.Join(tx.Put(ctx, kind, "added", []byte("x")), tx.Put(ctx, kind, "replaced", []byte("x")), tx.Delete(ctx, kind, "kept"),
		tx.SetLogTail(ctx, store.LogTail{File: "log", Offset: 2, Lines: []byte("two\n")}))
}

func checkUndone(t *testing.T, s store.Store) {
	t.Helper()
	want(t, s, kind, "kept", "1")
	want(t, s, kind, "replaced", "2")
	wantNone(t, s, kind, "added")
	wantTail(t, s, store.LogTail{File: "log", Offset: 1, Lines: []byte("one\n")})
	put(t, s, kind, "works", "on")
	want(t, s, kind, "works", "on")
}

func attempt(t *testing.T, s store.Store) {
	ctx := t.Context()
	prepareUndo(t, s)
	update(t, s, func(tx store.Tx) error {
		if err := tx.Put(ctx, kind, "before", []byte("b")); err != nil {
			return err
		}
		err := tx.Attempt(ctx, func() error { return errors.Join(change(ctx, tx), errTest) })
		if !errors.Is(err, errTest) {
			t.Errorf("Attempt returns %v", err)
		}
		if got, err := tx.Get(ctx, kind, "kept"); err != nil || string(got) != "1" {
			t.Errorf("after the attempt: %q, %v", got, err)
		}
		if err := tx.Attempt(ctx, func() error { return tx.Put(ctx, kind, "tried", []byte("t")) }); err != nil {
			return err
		}
		return tx.Put(ctx, kind, "after", []byte("a"))
	})
	want(t, s, kind, "before", "b")
	want(t, s, kind, "tried", "t")
	want(t, s, kind, "after", "a")
	checkUndone(t, s)

	// An attempt that stands falls with its transaction.
	s.Update(ctx, func(tx store.Tx) error {
		return errors.Join(tx.Attempt(ctx, func() error { return change(ctx, tx) }), errTest)
	})
	checkUndone(t, s)
}

func attemptNested(t *testing.T, s store.Store) {
	ctx := t.Context()
	for _, c := range []struct {
		name           string
		inner, outer   error
		hasIn, hasRest bool
	}{
		{"both", nil, nil, true, true},
		{"inner-fails", errTest, nil, false, true},
		{"outer-fails", nil, errTest, false, false},
		{"both-fail", errTest, errTest, false, false},
	} {
		update(t, s, func(tx store.Tx) error {
			err := tx.Attempt(ctx, func() error {
				if err := tx.Put(ctx, kind, c.name+"1", nil); err != nil {
					return err
				}
				if err := tx.Attempt(ctx, func() error {
					return errors.Join(tx.Put(ctx, kind, c.name+"2", nil), c.inner)
				}); !errors.Is(err, c.inner) {
					t.Errorf("%s: inner %v", c.name, err)
				}
				return errors.Join(tx.Put(ctx, kind, c.name+"3", nil), c.outer)
			})
			if !errors.Is(err, c.outer) {
				t.Errorf("%s: outer %v", c.name, err)
			}
			return tx.Put(ctx, kind, c.name+"4", nil)
		})
		for id, has := range map[string]bool{"1": c.hasRest, "2": c.hasIn, "3": c.hasRest, "4": true} {
			if has {
				want(t, s, kind, c.name+id, "")
			} else {
				wantNone(t, s, kind, c.name+id)
			}
		}
	}
}

func attemptPanic(t *testing.T, s store.Store) {
	ctx := t.Context()
	prepareUndo(t, s)
	got := caught(func() {
		s.Update(ctx, func(tx store.Tx) error {
			return tx.Attempt(ctx, func() error {
				return tx.Attempt(ctx, func() error {
					if err := change(ctx, tx); err != nil {
						t.Error(err)
					}
					panic(errTest)
				})
			})
		})
	})
	if got != errTest {
		t.Fatalf("the panic arrives as %v", got)
	}
	checkUndone(t, s)

	// Recovered inside the transaction, a panic undoes the attempt alone.
	update(t, s, func(tx store.Tx) error {
		if got := caught(func() {
			tx.Attempt(ctx, func() error {
				if err := change(ctx, tx); err != nil {
					t.Error(err)
				}
				panic(errTest)
			})
		}); got != errTest {
			t.Errorf("the panic arrives as %v", got)
		}
		return tx.Put(ctx, kind, "after", []byte("a"))
	})
	want(t, s, kind, "after", "a")
	checkUndone(t, s)
}

func logTail(t *testing.T, s store.Store) {
	ctx := t.Context()
	if _, err := s.LogTail(ctx); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("no tail yet: %v", err)
	}
	set := func(tail store.LogTail, err error) error {
		return s.Update(ctx, func(tx store.Tx) error { return errors.Join(tx.SetLogTail(ctx, tail), err) })
	}
	if err := set(store.LogTail{File: "none"}, errTest); !errors.Is(err, errTest) {
		t.Fatal(err)
	}
	if _, err := s.LogTail(ctx); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("a tail of an update undone: %v", err)
	}
	long := bytes.Repeat([]byte("a line of the log\n"), 4000)
	for _, tail := range []store.LogTail{
		{File: "log-1", Offset: 0, Lines: []byte("first\n")},
		{File: "log-1", Offset: 1 << 52, Lines: long},
		{File: "", Offset: 7, Lines: nil},
		{File: "odd\x00\xff", Offset: 9, Lines: []byte{0, 255, '\n'}},
	} {
		if err := set(tail, nil); err != nil {
			t.Fatal(err)
		}
		wantTail(t, s, tail)
		if err := set(store.LogTail{File: "undone", Offset: 3, Lines: long}, errTest); !errors.Is(err, errTest) {
			t.Fatal(err)
		}
		wantTail(t, s, tail)
	}
	// Of two in one transaction the later counts.
	update(t, s, func(tx store.Tx) error {
		return errors.Join(tx.SetLogTail(ctx, store.LogTail{File: "x"}), tx.SetLogTail(ctx, store.LogTail{File: "y", Offset: 1}))
	})
	wantTail(t, s, store.LogTail{File: "y", Offset: 1})
}

// Two records always change together; no reader sees them differ, nor time
// going backwards.
func readersDuringWrites(t *testing.T, s store.Store) {
	ctx := t.Context()
	pair := func(n int) {
		update(t, s, func(tx store.Tx) error {
			v := fmt.Appendf(nil, "%06d", n)
			return errors.Join(tx.Put(ctx, kind, "a", v), tx.Put(ctx, kind, "b", v))
		})
	}
	pair(0)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			last := ""
			for {
				select {
				case <-stop:
					return
				default:
				}
				err := s.View(ctx, func(r store.Reader) error {
					a, err := r.Get(ctx, kind, "a")
					b, err2 := r.Get(ctx, kind, "b")
					if string(a) != string(b) || string(a) < last {
						t.Errorf("a is %q, b is %q, before it was %q", a, b, last)
					}
					last = string(a)
					return errors.Join(err, err2)
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for n := range 150 {
		pair(n)
	}
	close(stop)
	wg.Wait()
}

// Updates that read, then write, lose no count when many run at once.
func updatesOneAtATime(t *testing.T, s store.Store) {
	ctx := t.Context()
	put(t, s, kind, "count", "0")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				if err := s.Update(ctx, func(tx store.Tx) error {
					var n int
					got, err := tx.Get(ctx, kind, "count")
					if err != nil {
						return err
					}
					fmt.Sscan(string(got), &n)
					return tx.Put(ctx, kind, "count", fmt.Append(nil, n+1))
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	want(t, s, kind, "count", "80")
}
