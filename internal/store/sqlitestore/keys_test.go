package sqlitestore

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"softhem/internal/store"
)

// testKey is key n of a test: its kid tells n, its sealed part the mark.
func testKey(n int, mark string) store.Key {
	k := store.Key{
		Type: "ATT,PKEY,ExDSA,ED25519", Created: 1_700_000_000 + int64(n), Updated: 1_700_000_000 + int64(n),
		Label: fmt.Sprint("key ", n), Descr: fmt.Appendf(nil, "descr of key %d", n), Public: bytes.Repeat([]byte{byte(n)}, 32),
		Sealed: bytes.Repeat([]byte(mark), store.SealedKeyBytes/markBytes+1)[:store.SealedKeyBytes],
	}
	copy(k.KID[:], fmt.Sprintf("%016d", n))
	return k
}

// marksPerKey is how often a mark is in one copy of a sealed part.
const marksPerKey = store.SealedKeyBytes / markBytes

func mark(n int) string { return fmt.Sprintf("<mark %06d>", n) }

// TestKeysErased inserts, updates and deletes keys of all sizes in between each
// other, in many transactions, some of them undone. Then, and after each of
// Scrub, Close and Open, every live sealed part must be in the files exactly
// once and no other at all: nothing that SQLite moves leaves a copy behind.
func TestKeysErased(t *testing.T) {
	ctx, path := t.Context(), newPath(t)
	s := open(t, path)
	r := rand.New(rand.NewPCG(3, 4))
	live := map[int]string{} // marks by number of key
	var gone []string
	serial, next := 0, 0
	newKey := func(n int) store.Key {
		serial++
		k := testKey(n, mark(serial))
		k.Descr = bytes.Repeat([]byte{byte('a' + r.IntN(26))}, r.IntN(65))
		k.Public = make([]byte, r.IntN(100))
		if r.IntN(10) == 0 {
			k.Public = make([]byte, 2592)
		}
		k.Label = strings.Repeat("l", 1+r.IntN(32))
		return k
	}
	any := func() (n int, ok bool) {
		for n := range live { // in the order of a map: any
			return n, true
		}
		return 0, false
	}
	check := func(when string) {
		t.Helper()
		in := marksIn(t, path)
		for n, mark := range live {
			if in[mark] != marksPerKey {
				t.Errorf("%s: the sealed part of key %d is there %.1f times", when, n, float64(in[mark])/marksPerKey)
			}
		}
		left := 0
		for _, mark := range gone {
			if in[mark] > 0 {
				left++
			}
		}
		if left > 0 {
			t.Errorf("%s: %d of %d sealed parts gone are in the files", when, left, len(gone))
		}
	}
	for round := range 80 {
		undo := round%8 == 7
		before := map[int]string{}
		for n, mark := range live {
			before[n] = mark
		}
		goneBefore := len(gone)
		err := s.Update(ctx, func(tx store.Tx) error {
			for range 1 + r.IntN(60) {
				n, ok := any()
				switch what := r.IntN(10); {
				case what < 5 || !ok:
					k := newKey(next)
					live[next] = mark(serial)
					next++
					if err := tx.InsertKey(ctx, k); err != nil {
						return err
					}
				case what < 7:
					k := newKey(n)
					gone = append(gone, live[n])
					live[n] = mark(serial)
					if err := tx.UpdateKey(ctx, k); err != nil {
						return err
					}
				default:
					gone = append(gone, live[n])
					delete(live, n)
					if err := tx.DeleteKey(ctx, testKey(n, mark(0)).KID); err != nil {
						return err
					}
				}
			}
			if undo {
				return errors.New("undo")
			}
			return nil
		})
		if undo != (err != nil) {
			t.Fatal(err)
		}
		if undo {
			gone = gone[:goneBefore]
			for n, mark := range live { // what was never there must not be found either
				if before[n] != mark {
					gone = append(gone, mark)
				}
			}
			live = before
		}
	}
	if len(live) < 300 || len(gone) < 500 {
		t.Fatalf("%d live, %d gone: that proves little", len(live), len(gone))
	}
	if found(t, path, gone) == 0 {
		t.Error("nothing is found before Scrub either: the search proves nothing")
	}
	if err := s.Scrub(ctx); err != nil {
		t.Fatal(err)
	}
	check("after Scrub")
	// All keys but a few, so that pages get empty, then some in their place.
	if err := s.Update(ctx, func(tx store.Tx) error {
		for n, old := range live {
			if n%20 == 0 {
				continue
			}
			gone = append(gone, old)
			delete(live, n)
			if err := tx.DeleteKey(ctx, testKey(n, mark(0)).KID); err != nil {
				return err
			}
		}
		for range 100 {
			if err := tx.InsertKey(ctx, newKey(next)); err != nil {
				return err
			}
			live[next] = mark(serial)
			next++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Scrub(ctx); err != nil {
		t.Fatal(err)
	}
	check("after the second Scrub")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check("after Close")
	s = open(t, path)
	check("after Open")
	if err := s.Compact(ctx); err != nil {
		t.Fatal(err)
	}
	check("after Compact")
	integrity(t, s)
	t.Logf("%d live, %d gone", len(live), len(gone))
}

// A crash between a delete and its scrub: the next Open makes up for it.
func TestOpenScrubs(t *testing.T) {
	ctx, path := t.Context(), newPath(t)
	s := open(t, path)
	if err := s.Update(ctx, func(tx store.Tx) error { return tx.InsertKey(ctx, testKey(1, mark(1))) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(ctx, func(tx store.Tx) error { return tx.DeleteKey(ctx, testKey(1, mark(1)).KID) }); err != nil {
		t.Fatal(err)
	}
	if found(t, path, []string{mark(1)}) == 0 {
		t.Fatal("nothing is found before: that proves nothing")
	}
	// The files as a killed process leaves them.
	crashed := newPath(t)
	copyFiles(t, path, crashed)
	s = open(t, crashed)
	if found(t, crashed, []string{mark(1)}) != 0 {
		t.Error("the sealed part is still there")
	}
	if _, err := getKey(t, s, 1); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the key: %v", err)
	}
}

func getKey(t *testing.T, s *Store, n int) (k store.Key, err error) {
	t.Helper()
	err = s.View(t.Context(), func(r store.Reader) error {
		k, err = r.GetKey(t.Context(), testKey(n, mark(0)).KID)
		return err
	})
	return k, err
}

// execute runs a statement on the writer's connection.
func execute(t *testing.T, s *Store, statement string, args ...any) {
	t.Helper()
	c := <-s.writer
	defer func() { s.writer <- c }()
	if _, err := c.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

// integrity lets SQLite check the file, and checks what is counted and derived
// against the keys themselves.
func integrity(t *testing.T, s *Store) {
	t.Helper()
	ctx := t.Context()
	c := <-s.writer
	defer func() { s.writer <- c }()
	var ok string
	if err := c.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&ok); err != nil || ok != "ok" {
		t.Fatalf("%s, %v", ok, err)
	}
	for what, query := range map[string]string{
		"live":                      "SELECT (SELECT live FROM key_total) - (SELECT count(*) FROM key)",
		"last":                      "SELECT (SELECT last FROM key_total) < (SELECT coalesce(max(seq), 0) FROM key)",
		"slots":                     "SELECT (SELECT slots FROM key_total) - (SELECT count(*) FROM sealed_key)",
		"slots from 1":              "SELECT count(*) - max(slot) FROM sealed_key",
		"slots are free or used":    "SELECT (SELECT count(*) FROM sealed_key) - (SELECT count(*) FROM free_slot) - (SELECT count(*) FROM key)",
		"no slot twice":             "SELECT count(*) - count(DISTINCT slot) FROM key",
		"no free slot used":         "SELECT count(*) FROM key JOIN free_slot USING (slot)",
		"free slots hold zeros":     "SELECT count(*) FROM free_slot JOIN sealed_key USING (slot) WHERE sealed != zeroblob(128)",
		"every key has a slot":      "SELECT count(*) FROM key LEFT JOIN sealed_key USING (slot) WHERE sealed IS NULL",
		"suffixes":                  "SELECT (SELECT count(*) FROM key_suffix) - (SELECT count(*) FROM key WHERE descr IS NOT NULL)",
		"every suffix has its key":  "SELECT count(*) FROM key_suffix LEFT JOIN key USING (seq) WHERE descr IS NULL OR length(descr) != length(reversed)",
		"gaps, level 0":             gapQuery(0),
		"gaps, level 1":             gapQuery(1),
		"gaps, level 2":             gapQuery(2),
		"gaps, level 3":             gapQuery(3),
		"no row for less than none": "SELECT count(*) FROM key_gap WHERE gone <= 0",
	} {
		var off sql.NullInt64
		if err := c.QueryRowContext(ctx, query).Scan(&off); err != nil || off.Int64 != 0 {
			t.Errorf("%s: off by %d, %v", what, off.Int64, err)
		}
	}
	// What is packed is what the keys say.
	var descrs, packed []string
	rows, err := c.QueryContext(ctx, "SELECT seq, descr FROM key WHERE descr IS NOT NULL AND seq < (SELECT (last + 1) >> 8 << 8 FROM key_total) ORDER BY seq")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var seq int64
		var descr []byte
		if err := rows.Scan(&seq, &descr); err != nil {
			t.Fatal(err)
		}
		descrs = append(descrs, fmt.Sprintf("%d %q", seq, descr))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	r := &reader{s: s, c: c}
	if err := r.eachPacked(ctx, nil, func(seq int64, descr []byte) { packed = append(packed, fmt.Sprintf("%d %q", seq, descr)) }); err != nil {
		t.Fatal(err)
	}
	if strings.Join(descrs, "|") != strings.Join(packed, "|") {
		t.Errorf("%d descr are packed, %d should be", len(packed), len(descrs))
	}
}

// gapQuery sums up by how much the gaps of a level that are counted differ from
// those there are, in the blocks that were given in full and are not in a
// larger one without any key.
func gapQuery(level int) string {
	return fmt.Sprintf(`WITH RECURSIVE blocks (block) AS (
			SELECT 0 UNION ALL SELECT block + 1 FROM blocks WHERE block + 1 < ((SELECT last FROM key_total) + 1) >> %[1]d
		), counts AS (
			SELECT block,
				(SELECT count(*) FROM key WHERE seq >= block << %[1]d AND seq < block + 1 << %[1]d) AS live,
				(SELECT count(*) FROM key WHERE seq >= block >> 6 << %[2]d AND seq < (block >> 6) + 1 << %[2]d) AS around,
				coalesce((SELECT gone FROM key_gap WHERE level = %[3]d AND key_gap.block = blocks.block), 0) AS gone
			FROM blocks WHERE block >= 0
		)
		SELECT sum(abs(iif(around = 0, 0, live + gone - (1 << %[1]d)))) FROM counts WHERE block < ((SELECT last FROM key_total) + 1) >> %[1]d`,
		gapShift*(level+1), gapShift*(level+2), level)
}

// TestGapsFarOut lists keys that lie behind very many deleted ones, where all
// levels of gaps matter.
func TestGapsFarOut(t *testing.T) {
	ctx := t.Context()
	for _, last := range []int64{
		gapStart(3, 1) - 70, gapStart(3, 2) + gapStart(2, 3) + gapStart(1, 5) + 7, gapStart(2, 1) - 70, gapStart(1, 1), 63,
	} {
		s := open(t, "")
		// As if keys 1 to last had come and gone.
		execute(t, s, "DELETE FROM key_gap")
		execute(t, s, "UPDATE key_total SET deleted = ?, last = ?", last, last)
		for level := range gapLevels {
			block, rest := gapBlock(level, last+1), (last+1)%gapStart(level, 1)
			from := int64(0)
			if level < gapLevels-1 {
				from = gapBlock(level+1, last+1) << gapShift // before it, the larger say it
			}
			for b := from; b < block; b++ {
				execute(t, s, "INSERT INTO key_gap VALUES (?, ?, ?)", level, b, gapStart(level, 1))
			}
			if rest > 0 {
				execute(t, s, "INSERT INTO key_gap VALUES (?, ?, ?)", level, block, rest)
			}
		}
		if err := s.Update(ctx, func(tx store.Tx) error {
			var live []int
			for n := range 150 {
				if err := tx.InsertKey(ctx, testKey(n, mark(n))); err != nil {
					return err
				}
				live = append(live, n)
			}
			for round := range 4 {
				for offset, n := range live {
					if offset%3 != round%3 && offset != len(live)-1 {
						continue
					}
					page, err := tx.ListKeys(ctx, int64(offset), 1)
					if err != nil || page.Total != int64(len(live)) || page.Keys[0].Label != fmt.Sprint("key ", n) {
						t.Fatalf("behind %d, round %d: offset %d gives %v of %d, %v; want key %d", last, round, offset, page.Keys, page.Total, err, n)
					}
				}
				var left []int
				for i, n := range live {
					if i%7 == round || i > 20 && i < 90 && round == 2 {
						if err := tx.DeleteKey(ctx, testKey(n, mark(n)).KID); err != nil {
							return err
						}
						continue
					}
					left = append(left, n)
				}
				live = left
			}
			// Without any of them blocks get empty on every level, and forgotten.
			for _, n := range live {
				if err := tx.DeleteKey(ctx, testKey(n, mark(n)).KID); err != nil {
					return err
				}
			}
			for n := range 3 {
				if err := tx.InsertKey(ctx, testKey(n, mark(n))); err != nil {
					return err
				}
				page, err := tx.ListKeys(ctx, int64(n), 1)
				if err != nil || page.Total != int64(n+1) || page.Keys[0].Label != fmt.Sprint("key ", n) {
					t.Errorf("behind %d and those deleted: %v of %d, %v; want key %d", last, page.Keys, page.Total, err, n)
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		c := <-s.writer
		for level := range gapLevels - 1 {
			var rows, larger int64
			if err := c.QueryRowContext(ctx, "SELECT count(*), count(DISTINCT block >> 6) FROM key_gap WHERE level = ?", level).Scan(&rows, &larger); err != nil {
				t.Error(err)
			}
			if larger > 1 {
				t.Errorf("behind %d: of level %d there are %d rows, in %d blocks of the next", last, level, rows, larger)
			}
		}
		s.writer <- c
	}
}

// TestManyHits: a search whose hits are too many to sort finds the same as
// another.
func TestManyHits(t *testing.T) {
	s, ctx := open(t, ""), t.Context()
	const manyHits, keys = 100, 600
	s.manyHits = manyHits
	if err := s.Update(ctx, func(tx store.Tx) error {
		for n := range keys {
			k := testKey(n, mark(n))
			k.Descr = fmt.Appendf(nil, "%d same 1 same %d", n%3, (n+1)%3)
			if err := tx.InsertKey(ctx, k); err != nil {
				return err
			}
		}
		for _, c := range []struct {
			needle     string
			start, end bool
			first      int64 // of the keys found
			every      int64
		}{
			{"1 ", true, false, 1, 3},
			{" 1", false, true, 0, 3},
			{"1 same 1 same 2", true, true, 1, 3},
			{"same 1 same", false, false, 0, 1},
		} {
			total := keys / c.every
			for _, offset := range []int64{0, 1, manyHits - 1, total - 2, total, total + 1} {
				page, err := tx.SearchKeys(ctx, store.Needle{Bytes: []byte(c.needle), Start: c.start, End: c.end}, offset, 5)
				listed := min(5, max(0, total-offset))
				if err != nil || page.Total != total || int64(len(page.Keys)) != listed {
					t.Errorf("%+v from %d: %d keys of %d, %v; want %d of %d", c, offset, len(page.Keys), page.Total, err, listed, total)
				} else if want := fmt.Sprint("key ", c.first+offset*c.every); listed > 0 && page.Keys[0].Label != want {
					t.Errorf("%+v from %d: %s, want %s", c, offset, page.Keys[0].Label, want)
				}
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestQueryPlans: no statement about keys goes through a whole table, but the
// one search that must. The planner knows nothing of the contents, so that an
// empty table does.
func TestQueryPlans(t *testing.T) {
	s := open(t, "")
	c := <-s.writer
	defer func() { s.writer <- c }()
	for stmt, query := range c.keys.queries() {
		rows, err := c.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, make([]any, strings.Count(query, "?"))...)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			whole := strings.HasPrefix(detail, "SCAN") && !strings.HasPrefix(detail, "SCAN (subquery")
			sorts := strings.HasPrefix(detail, "USE TEMP B-TREE")
			switch stmt {
			case &c.keys.scanPacked, &c.keys.getTotals, &c.keys.putTotals:
				whole = false // all of it; one row
			case &c.keys.pageDescrs, &c.keys.pageSuffix:
				sorts = false // the hits by seq
			}
			if whole || sorts {
				t.Errorf("%s\n%s", query, detail)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// Derived rows that contradict the keys are damage, and not a wrong answer.
func TestDamagedKeyTables(t *testing.T) {
	list := func(offset int64) func(r store.Reader) error {
		return func(r store.Reader) error {
			_, err := r.ListKeys(t.Context(), offset, 1)
			return err
		}
	}
	search := func(needle string) func(r store.Reader) error {
		return func(r store.Reader) error {
			_, err := r.SearchKeys(t.Context(), store.Needle{Bytes: []byte(needle)}, 0, 10)
			return err
		}
	}
	for name, c := range map[string]struct {
		damage string
		read   func(r store.Reader) error
	}{
		"counts":       {"DELETE FROM key WHERE seq > 200", list(250)},
		"entry cut":    {"UPDATE key_packed SET packed = substr(packed, 1, length(packed) - 1)", search("descr")},
		"length alone": {"UPDATE key_packed SET packed = x'00'", search("\x00")},
		"no key":       {"DELETE FROM key WHERE seq = 5", search("key 4")},
	} {
		s := open(t, newPath(t))
		if err := s.Update(t.Context(), func(tx store.Tx) error {
			for n := range 300 {
				if err := tx.InsertKey(t.Context(), testKey(n, mark(n))); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		execute(t, s, c.damage)
		if err := s.View(t.Context(), c.read); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
