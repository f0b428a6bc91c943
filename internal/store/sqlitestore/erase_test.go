package sqlitestore

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

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
