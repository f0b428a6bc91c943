package sqlitestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"softhem/internal/store"
)

// TestErased deletes and replaces values of all sizes in between others, and
// looks for their bytes in every file: after Scrub and Compact with the store
// open, and after Close.
func TestErased(t *testing.T) {
	ctx, path := t.Context(), newPath(t)
	s := open(t, path)
	r := rand.New(rand.NewPCG(1, 2))
	// A value is its mark over and over, so that any rest of it is found.
	marks := map[string]string{} // of the live values, by id
	var gone []string
	value := func(mark string) []byte {
		size := r.IntN(600)
		if r.IntN(5) == 0 {
			size = r.IntN(30000)
		}
		return bytes.Repeat([]byte(mark), 2+size/len(mark))
	}
	serial := 0
	for range 60 {
		if err := s.Update(ctx, func(tx store.Tx) error {
			for range 40 {
				id := fmt.Sprintf("%08x", r.IntN(700))
				old, has := marks[id]
				if has {
					gone = append(gone, old)
				}
				if has && r.IntN(2) == 0 {
					delete(marks, id)
					if err := tx.Delete(ctx, "k", id); err != nil {
						return err
					}
					continue
				}
				serial++
				marks[id] = fmt.Sprintf("<mark %06d>", serial)
				if err := tx.Put(ctx, "k", id, value(marks[id])); err != nil {
					return err
				}
			}
			return tx.SetLogTail(ctx, store.LogTail{Lines: value(fmt.Sprintf("<tail %06d>", serial))})
		}); err != nil {
			t.Fatal(err)
		}
		gone = append(gone, fmt.Sprintf("<tail %06d>", serial))
	}
	if err := s.Update(ctx, func(tx store.Tx) error { return tx.SetLogTail(ctx, store.LogTail{}) }); err != nil {
		t.Fatal(err)
	}
	if found(t, path, gone) == 0 {
		t.Error("nothing is found before Scrub either: the search proves nothing")
	}
	if err := s.Scrub(ctx); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path + "-wal"); err != nil || info.Size() != 0 {
		t.Errorf("the write-ahead log after Scrub: %v, %v", info.Size(), err)
	}
	// Scrub leaves what SQLite moved and forgot, see there.
	if n := found(t, path, gone); n > len(gone)/100 {
		t.Errorf("after Scrub %d of %d values gone are in the files", n, len(gone))
	}
	if err := s.Compact(ctx); err != nil {
		t.Fatal(err)
	}
	if n := found(t, path, gone); n != 0 {
		t.Errorf("after Compact %d of %d values gone are in the files", n, len(gone))
	}
	var live []string
	for _, mark := range marks {
		live = append(live, mark)
	}
	if n := found(t, path, live); n != len(live) {
		t.Errorf("of %d live values %d are found", len(live), n)
	}
	// A value that was never moved is gone with its deletion and Close.
	put(t, s, "alone", bytes.Repeat([]byte("<mark alone!>"), 3000))
	if err := s.Update(ctx, func(tx store.Tx) error { return tx.Delete(ctx, "k", "alone") }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := found(t, path, append(gone, "<mark alone!>")); n != 0 {
		t.Errorf("after Close %d of %d values gone are in the files", n, len(gone)+1)
	}
}

// found counts the marks that are in any file of the folder.
func found(t *testing.T, path string, marks []string) (n int) {
	t.Helper()
	in := marksIn(t, path)
	for _, mark := range marks {
		if in[mark] > 0 {
			n++
		}
	}
	return n
}

// marksIn counts how often each mark is in the files of the folder.
func marksIn(t *testing.T, path string) map[string]int {
	t.Helper()
	in := map[string]int{}
	for _, name := range files(t, path) {
		content, err := os.ReadFile(filepath.Join(filepath.Dir(path), name))
		if err != nil {
			t.Fatal(err)
		}
		for len(content) > 0 {
			at := bytes.IndexByte(content, '<')
			if at < 0 || len(content) < at+markBytes {
				break
			}
			in[string(content[at:at+markBytes])]++
			content = content[at+1:]
		}
	}
	return in
}

// markBytes is the length of the marks of these tests: "<mark 000001>".
const markBytes = 13

func TestScrubWaitsForViews(t *testing.T) {
	t.Parallel() // it waits five seconds
	s, ctx := open(t, newPath(t)), t.Context()
	put(t, s, "a", []byte("1"))
	done := make(chan error)
	if err := s.View(ctx, func(r store.Reader) error {
		go func() { done <- s.Scrub(ctx) }()
		_, err := r.Get(ctx, "k", "a")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	// One that stays makes Scrub give up, and harms nothing.
	if err := s.View(ctx, func(r store.Reader) error {
		go func() {
			err := s.Update(ctx, func(tx store.Tx) error { return tx.Put(ctx, "k", "a", []byte("2")) })
			if err == nil {
				err = s.Scrub(ctx)
			}
			done <- err
		}()
		if err := <-done; err == nil {
			t.Error("Scrub reports success while an older state is being read")
		}
		if got, err := r.Get(ctx, "k", "a"); err != nil || string(got) != "1" {
			return errors.Join(fmt.Errorf("the view sees %q", got), err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Scrub(ctx); err != nil {
		t.Error(err)
	}
	if got, err := get(t, s, "a"); err != nil || string(got) != "2" {
		t.Errorf("%q, %v", got, err)
	}
	if err := open(t, "").Scrub(ctx); err != nil {
		t.Errorf("in memory: %v", err)
	}
}

// TestScrubIsShared: of many who delete and scrub at once, each finds its own
// sealed part gone when its Scrub returns, and they take far fewer rounds than
// they are. Views are read all the while.
func TestScrubIsShared(t *testing.T) {
	ctx, path := t.Context(), newPath(t)
	s := open(t, path)
	const deleters, rounds = 16, 4
	stop := make(chan struct{})
	var readers, wg sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := s.View(ctx, func(r store.Reader) error {
					_, err := r.ListKeys(ctx, 0, 100)
					return err
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	before := s.scrubs.rounds.Load()
	for d := range deleters {
		wg.Go(func() {
			for round := range rounds {
				n := d*rounds + round
				err := errors.Join(
					s.Update(ctx, func(tx store.Tx) error { return tx.InsertKey(ctx, testKey(n, mark(n))) }),
					s.Update(ctx, func(tx store.Tx) error { return tx.DeleteKey(ctx, testKey(n, mark(n)).KID) }),
					s.Scrub(ctx),
				)
				if err != nil {
					t.Error(err)
				}
				if found(t, path, []string{mark(n)}) != 0 {
					t.Errorf("the sealed part of key %d is in the files after its scrub", n)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	readers.Wait()
	took := s.scrubs.rounds.Load() - before
	t.Logf("%d scrubs took %d rounds", deleters*rounds, took)
	if took > deleters*rounds/2 {
		t.Error("they were not shared")
	}
	// Without an update since, there is nothing to do.
	took = s.scrubs.rounds.Load()
	if err := s.Scrub(ctx); err != nil || s.scrubs.rounds.Load() != took {
		t.Errorf("a scrub of nothing: %v, %d rounds", err, s.scrubs.rounds.Load()-took)
	}
}

// Who waits for a scrub can give up, and takes nobody with it; nor does it keep
// the store from closing.
func TestScrubGivenUp(t *testing.T) {
	s, ctx := open(t, newPath(t)), t.Context()
	hold, held := make(chan struct{}), make(chan struct{})
	var view sync.WaitGroup
	view.Go(func() {
		if err := s.View(ctx, func(store.Reader) error {
			close(held)
			<-hold
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	<-held
	put(t, s, "a", []byte("1"))
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Scrub(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the one that gives up: %v", err)
		}
	})
	for range 3 {
		wg.Go(func() {
			if err := s.Scrub(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	<-short.Done()
	// Updates have their turn in between.
	put(t, s, "a", []byte("2"))
	close(hold)
	wg.Wait()
	view.Wait()

	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Scrub(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}

	put(t, s, "a", []byte("3"))
	hold, held = make(chan struct{}), make(chan struct{})
	view.Go(func() {
		if err := s.View(ctx, func(store.Reader) error {
			close(held)
			<-hold
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	<-held
	failed := make(chan error)
	go func() { failed <- s.Scrub(ctx) }()
	time.Sleep(10 * time.Millisecond)
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	if err := <-failed; !errors.Is(err, ErrClosed) {
		t.Errorf("a scrub while the store is being closed: %v", err)
	}
	close(hold)
	view.Wait()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// TestLogIsBounded: with views all the time SQLite never begins the log anew,
// and it would grow for ever.
func TestLogIsBounded(t *testing.T) {
	ctx, path := t.Context(), newPath(t)
	s := open(t, path)
	s.maxWAL = 1 << 20
	put(t, s, "a", nil)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 * defaultReaders { // so that one is always waiting
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := s.View(ctx, func(r store.Reader) error {
					_, err := r.Get(ctx, "k", "a")
					time.Sleep(2 * time.Millisecond)
					return err
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var longest, written int64
	value := make([]byte, 40_000)
	for n := byte(0); written < 20*s.maxWAL; n++ {
		for i := range value { // SQLite writes no page that stays as it is
			value[i] = n
		}
		put(t, s, "a", value)
		written += int64(len(value))
		info, err := os.Stat(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		longest = max(longest, info.Size())
	}
	close(stop)
	readers.Wait()
	t.Logf("the log was at most %d KiB long", longest>>10)
	if longest > 5*s.maxWAL {
		t.Error("that is too long")
	}
}
