package sqlitestore

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"softhem/internal/store"
)

// busyStore has keys that were made, changed and deleted, and which there are.
func busyStore(t *testing.T, s *Store, ops int) map[int]store.Key {
	t.Helper()
	ctx := t.Context()
	r := rand.New(rand.NewPCG(5, 6))
	live := make(map[int]store.Key)
	next := 0
	err := s.Update(ctx, func(tx store.Tx) error {
		for range ops {
			n := -1
			for n = range live {
				break
			}
			switch what := r.IntN(10); {
			case what < 6 || n < 0:
				next++
				k := testKey(next, mark(next))
				if next%3 == 0 {
					k.Descr = nil
				}
				if next%50 == 0 {
					k.Public = bytes.Repeat([]byte{byte(next)}, 2592)
				}
				live[next] = k
				must(t, tx.InsertKey(ctx, k))
			case what < 8:
				k := live[n]
				k.Descr, k.Label, k.Updated = fmt.Appendf(nil, "another %d", r.IntN(1000)), "changed", k.Updated+1
				live[n] = k
				must(t, tx.UpdateKey(ctx, k))
			default:
				must(t, tx.DeleteKey(ctx, live[n].KID))
				delete(live, n)
			}
		}
		for n, k := range live { // so that there are free places
			if n%20 == 0 {
				must(t, tx.DeleteKey(ctx, k.KID))
				delete(live, n)
			}
		}
		return nil
	})
	must(t, err)
	return live
}

// repair takes rows out and says whether what follows from the rest was wrong.
func repair(t *testing.T, s *Store, seqs ...int64) (wrong bool) {
	t.Helper()
	must(t, s.Update(t.Context(), func(tx store.Tx) (err error) {
		wrong, err = s.RepairKeys(t.Context(), tx, seqs)
		return err
	}))
	return wrong
}

// whole checks that the store has exactly these keys, by every way to find them,
// and takes others.
func whole(t *testing.T, s *Store, live map[int]store.Key) {
	t.Helper()
	ctx := t.Context()
	must(t, s.View(ctx, func(r store.Reader) error {
		counts, err := r.CountKeys(ctx)
		must(t, err)
		if counts.Live != int64(len(live)) {
			t.Errorf("%d keys are counted of %d", counts.Live, len(live))
		}
		for n, k := range live {
			got, err := r.GetKey(ctx, k.KID)
			if err != nil || !bytes.Equal(got.Sealed, k.Sealed) || got.Label != k.Label {
				t.Fatalf("key %d: %v, %v", n, got, err)
			}
			if len(k.Descr) == 0 {
				continue
			}
			for _, needle := range []store.Needle{{Bytes: k.Descr, Start: true, End: true}, {Bytes: k.Descr, End: true}, {Bytes: k.Descr[1:]}} {
				page, err := r.SearchKeys(ctx, needle, 0, 1000)
				must(t, err)
				found := false
				for _, hit := range page.Keys {
					found = found || hit.KID == k.KID
				}
				if !found {
					t.Errorf("a search for %q finds no key %d", needle.Bytes, n)
				}
			}
		}
		seen := make(map[store.KID]bool)
		for offset := int64(0); ; offset += 7 {
			page, err := r.ListKeys(ctx, offset, 7)
			must(t, err)
			for _, k := range page.Keys {
				seen[k.KID] = true
			}
			if len(page.Keys) < 7 {
				break
			}
		}
		if len(seen) != len(live) {
			t.Errorf("pages have %d keys of %d", len(seen), len(live))
		}
		return nil
	}))
	more := testKey(900_000+rand.IntN(90_000), mark(1))
	must(t, s.Update(ctx, func(tx store.Tx) error { return tx.InsertKey(ctx, more) }))
	must(t, s.Update(ctx, func(tx store.Tx) error { return tx.DeleteKey(ctx, more.KID) }))
	faults, err := s.Faults(ctx)
	if err != nil || len(faults) > 0 {
		t.Errorf("the database says %q, %v", faults, err)
	}
}

// raw runs SQL past the store.
func raw(t *testing.T, s *Store, query string, args ...any) {
	t.Helper()
	c := <-s.writer
	defer func() { s.writer <- c }()
	if _, err := c.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// Of a whole store nothing is made anew that was not so before.
func TestRepairOfNothing(t *testing.T) {
	s := open(t, newPath(t))
	if repair(t, s) {
		t.Error("an empty store is wrong")
	}
	live := busyStore(t, s, 900)
	for range 2 {
		if repair(t, s) {
			t.Error("a whole store is wrong")
		}
		whole(t, s, live)
	}
	if orphans, err := s.Orphans(t.Context()); err != nil || len(orphans) > 0 {
		t.Errorf("%v, %v", orphans, err)
	}
}

// What follows from the keys is made anew, however wrong it is.
func TestRepairOfWhatFollows(t *testing.T) {
	for _, damage := range []string{
		"UPDATE key_total SET live = live - 3", "UPDATE key_total SET last = 1", "UPDATE key_total SET last = 1 << 60", "DELETE FROM key_total",
		"UPDATE key_total SET slots = slots + 1", "DELETE FROM key_suffix WHERE seq % 2", "DELETE FROM key_packed", "UPDATE key_packed SET packed = x'01ff'",
		"UPDATE key_gap SET gone = gone + 1", "DELETE FROM key_gap", "DELETE FROM free_slot", "INSERT INTO free_slot SELECT slot FROM key",
	} {
		s := open(t, newPath(t))
		live := busyStore(t, s, 480)
		raw(t, s, damage)
		if !repair(t, s) {
			t.Errorf("%s: nothing is wrong", damage)
		}
		whole(t, s, live)
		if t.Failed() {
			t.Fatal(damage)
		}
	}
}

// Rows go whatever their state, and the others stay as they are.
func TestRepairTakesRowsOut(t *testing.T) {
	for _, damage := range []string{
		"SELECT ?1",
		"UPDATE key SET kid = x'00' WHERE seq = ?1",
		"UPDATE key SET slot = (SELECT slot FROM key WHERE seq > ?1 ORDER BY seq LIMIT 1) WHERE seq = ?1", // another's sealed part
		"UPDATE key SET slot = 1000000 WHERE seq = ?1",
		"UPDATE key SET descr = zeroblob(64), label = '' WHERE seq = ?1",
	} {
		s := open(t, newPath(t))
		live := busyStore(t, s, 480)
		var seq int64
		var n int
		must(t, s.EachKey(t.Context(), func(row store.KeyRow) error {
			if row.Seq > 20 && seq == 0 {
				seq = row.Seq
				for i, k := range live {
					if k.KID == row.KID {
						n = i
					}
				}
			}
			return nil
		}))
		raw(t, s, damage, seq)
		repair(t, s, seq)
		delete(live, n)
		whole(t, s, live)
		if orphans, err := s.Orphans(t.Context()); err != nil || len(orphans) > 0 {
			t.Errorf("%v, %v", orphans, err)
		}
		if t.Failed() {
			t.Fatal(damage)
		}
	}
}

// A row that SQLite itself cannot read does not hide the others, and goes; an
// index that disagrees is found and made anew.
func TestRepairOfBytes(t *testing.T) {
	const label = "the label to be found"
	for name, change := range map[string]func(row []byte){
		"the length of the row's header": func(row []byte) { row[0] = 0x7f },
		"the type of the kid":            func(row []byte) { row[1] = 0x7f },
		"the kid":                        func(row []byte) { row[11] ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "db")
			s := open(t, path)
			live := busyStore(t, s, 300)
			k := testKey(500, mark(500))
			k.Label, k.Descr = label, nil
			must(t, s.Update(t.Context(), func(tx store.Tx) error { return tx.InsertKey(t.Context(), k) }))
			must(t, s.Close())
			file, err := os.ReadFile(path)
			must(t, err)
			// The header of a row stands before its kid, which stands before
			// its type, its times and the label.
			at := bytes.Index(file, k.KID[:])
			for ; at >= 0 && !bytes.Contains(file[at:at+90], []byte(label)); at += 1 + bytes.Index(file[at+1:], k.KID[:]) {
			}
			const columns = 10
			head := at - 1 - columns // one byte for its length and one for the type of each column
			for file[head] != byte(at-head) {
				head--
			}
			change(file[head : at+100])
			must(t, os.WriteFile(path, file, 0o600))

			s = open(t, path)
			faults, err := s.Faults(t.Context())
			if err != nil || len(faults) == 0 {
				t.Errorf("the database says %q, %v", faults, err)
			}
			var bad []int64
			rows := 0
			must(t, s.EachKey(t.Context(), func(row store.KeyRow) error {
				rows++
				if row.Err != nil || !strings.Contains(row.Label, "key ") && row.Label != "changed" {
					bad = append(bad, row.Seq)
				}
				return nil
			}))
			if len(bad) != 1 || rows != len(live)+1 {
				t.Fatalf("%d rows, bad are %v", rows, bad)
			}
			repair(t, s, bad...)
			whole(t, s, live)
		})
	}
}

// A database that does not pass its own check after a repair is left as it was.
func TestRepairThatFails(t *testing.T) {
	s := open(t, newPath(t))
	live := busyStore(t, s, 100)
	var kid []byte
	for _, k := range live {
		kid = k.KID[:]
		break
	}
	raw(t, s, "DROP INDEX key_kid")
	// The doubled row is not named, and a unique index cannot be made.
	raw(t, s, "INSERT INTO key SELECT (SELECT max(seq) + 1 FROM key), kid, type, created, updated, label, descr, NULL, slot, public FROM key WHERE kid = ?", kid)
	raw(t, s, "PRAGMA writable_schema = ON")
	raw(t, s, "CREATE INDEX key_kid ON key (kid)")
	raw(t, s, "UPDATE sqlite_schema SET sql = 'CREATE UNIQUE INDEX key_kid ON key (kid)' WHERE name = 'key_kid'")
	raw(t, s, "PRAGMA writable_schema = OFF")
	err := s.Update(t.Context(), func(tx store.Tx) error {
		_, err := s.RepairKeys(t.Context(), tx, nil)
		return err
	})
	if err == nil {
		t.Fatal("two rows of one key are no error")
	}
	if errors.Is(err, store.ErrFull) {
		t.Error(err)
	}
	rows := 0
	must(t, s.EachKey(t.Context(), func(store.KeyRow) error { rows++; return nil }))
	if rows != len(live)+1 {
		t.Errorf("%d rows of %d are left", rows, len(live)+1)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
