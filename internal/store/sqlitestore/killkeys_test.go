package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"softhem/internal/store"
)

const killKeysChild = "change-keys-until-killed"

// keyStep is what step n of changeKeys does: it inserts key n, gives every
// third key another sealed part one step later, and deletes key n/2.
func keyStep(ctx context.Context, tx store.Tx, n int) error {
	if err := tx.InsertKey(ctx, testKey(n, mark(n))); err != nil {
		return err
	}
	tx.Attempt(ctx, func() error {
		if err := tx.InsertKey(ctx, testKey(undoneMark+n, mark(undoneMark+n))); err != nil {
			return err
		}
		return errors.New("undo")
	})
	if n > 1 && n%3 == 0 {
		if err := tx.UpdateKey(ctx, updatedKey(n-1)); err != nil {
			return err
		}
	}
	if n%2 == 0 {
		return tx.DeleteKey(ctx, testKey(n/2, mark(0)).KID)
	}
	return nil
}

// Marks of updated sealed parts, and of those never committed, by number of
// key.
const (
	updatedMark = 300_000
	undoneMark  = 600_000
)

func updatedKey(n int) store.Key {
	k := testKey(n, mark(updatedMark+n))
	k.Label, k.Descr = "updated", fmt.Appendf(nil, "descr, updated, of key %d", n)
	return k
}

// keysAfterStep are the keys there are after step n, in order.
func keysAfterStep(n int) (keys []store.Key) {
	for i := n/2 + 1; i <= n; i++ {
		k := testKey(i, mark(i))
		if i%3 == 2 && i < n {
			updated := updatedKey(i)
			k.Label, k.Descr, k.Sealed = updated.Label, updated.Descr, updated.Sealed
		}
		keys = append(keys, k)
	}
	return keys
}

// changeKeys makes steps from start on, and prints each number when it is
// done. Every second is scrubbed before. It never ends.
func changeKeys(path, start string) {
	ctx := context.Background()
	s, err := Open(ctx, Config{Path: path})
	exitOn(err)
	n, err := strconv.Atoi(start)
	exitOn(err)
	for ; ; n++ {
		exitOn(s.Update(ctx, func(tx store.Tx) error { return keyStep(ctx, tx, n) }))
		if n%2 == 0 {
			exitOn(s.Scrub(ctx))
		}
		fmt.Println(n)
	}
}

// TestKeysSurviveKill kills a process that inserts, updates and deletes keys,
// again and again, on one file. The keys are those of the last step reported,
// or of the next; counts, searches and slots are whole; and once the store is
// open again, no file holds a sealed part that was deleted, replaced or undone.
func TestKeysSurviveKill(t *testing.T) {
	t.Parallel()
	ctx, path := t.Context(), newPath(t)
	last, rounds := 0, 30
	for round := range rounds {
		lines := 1 + rand.IntN(60)
		if round%4 == 3 {
			lines = 0
		}
		printed := killWriter(t, killKeysChild, path, last+1, lines)

		s, err := Open(ctx, Config{Path: path})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		var got store.KeyPage
		if err := s.View(ctx, func(r store.Reader) (err error) {
			got, err = r.ListKeys(ctx, 0, 1_000_000)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		// The commit may have been faster than the print, by one.
		last = printed
		if n := len(keysAfterStep(printed + 1)); len(got.Keys) > 0 && string(got.Keys[len(got.Keys)-1].KID[:]) == fmt.Sprintf("%016d", printed+1) {
			last = printed + 1
			if n != len(got.Keys) {
				t.Fatalf("round %d: %d keys, want %d", round, len(got.Keys), n)
			}
		}
		want := keysAfterStep(last)
		if len(got.Keys) != len(want) || got.Total != int64(len(want)) {
			t.Fatalf("round %d: %d keys of %d after step %d, want %d", round, len(got.Keys), got.Total, last, len(want))
		}
		for i, k := range got.Keys {
			k.Seq = 0
			if fmt.Sprint(k) != fmt.Sprint(want[i]) {
				t.Fatalf("round %d: after step %d key %d is %v, want %v", round, last, i, k, want[i])
			}
		}
		live := map[string]bool{}
		for _, k := range want {
			live[string(k.Sealed[:markBytes])] = true
		}
		for mark, n := range marksIn(t, path) {
			if strings.HasPrefix(mark, "<mark ") && strings.HasSuffix(mark, ">") && (!live[mark] || n != marksPerKey) {
				t.Errorf("round %d: after step %d %s is in the files %.1f times; live %t", round, last, mark, float64(n)/marksPerKey, live[mark])
			}
		}
		integrity(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("killed %d times, %d steps", rounds, last)
}
