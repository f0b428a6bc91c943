package storetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"softhem/internal/store"
)

// keyModel is what keys must behave like: a list.
type keyModel struct {
	keys    []store.Key // in order of creation
	deleted int64
	last    int64 // the greatest Seq seen so far
	serial  int   // of the sealed parts, so that each is another
}

func (m keyModel) clone() keyModel {
	m.keys = slices.Clone(m.keys)
	return m
}

func (m keyModel) find(kid store.KID) int {
	return slices.IndexFunc(m.keys, func(k store.Key) bool { return k.KID == kid })
}

func (m keyModel) has(k store.Key) bool {
	return slices.ContainsFunc(m.keys, func(other store.Key) bool {
		return other.KID == k.KID || len(k.Fingerprint) > 0 && bytes.Equal(other.Fingerprint, k.Fingerprint)
	})
}

func (m keyModel) search(n store.Needle) (hits []store.Key) {
	for _, k := range m.keys {
		found := bytes.Contains(k.Descr, n.Bytes)
		if n.Start {
			found = found && bytes.HasPrefix(k.Descr, n.Bytes)
		}
		if n.End {
			found = found && bytes.HasSuffix(k.Descr, n.Bytes)
		}
		if found && (!n.Start || !n.End || len(k.Descr) == len(n.Bytes)) {
			hits = append(hits, k)
		}
	}
	return hits
}

// Few values, so that they meet often.
var (
	drawByte  = rapid.SampledFrom([]byte{'a', 'b', 0, 0xff})
	drawDescr = rapid.OneOf(
		rapid.SliceOfN(drawByte, 0, 4),
		rapid.SliceOfN(drawByte, 64, 64),
	)
	drawNeedle = rapid.Custom(func(t *rapid.T) store.Needle {
		return store.Needle{
			Bytes: rapid.OneOf(rapid.SliceOfN(drawByte, 1, 3), rapid.SliceOfN(drawByte, 63, 65)).Draw(t, "bytes"),
			Start: rapid.Bool().Draw(t, "start"), End: rapid.Bool().Draw(t, "end"),
		}
	})
	drawKID = rapid.Custom(func(t *rapid.T) (kid store.KID) {
		kid[15] = byte(rapid.IntRange(0, 40).Draw(t, "kid"))
		return kid
	})
	drawFingerprint = rapid.Custom(func(t *rapid.T) []byte {
		if n := rapid.IntRange(-20, 20).Draw(t, "fingerprint"); n > 0 {
			return fingerprint(n)
		}
		return nil
	})
	// Most searches have few hits.
	drawOffset = rapid.OneOf(rapid.Int64Range(0, 3), rapid.Int64Range(0, 200))
	drawLimit  = rapid.Custom(func(t *rapid.T) int64 {
		if rapid.IntRange(0, 15).Draw(t, "all") == 0 {
			return 1000
		}
		return rapid.Int64Range(0, 20).Draw(t, "limit")
	})
)

// keyMachine runs random transactions about keys on the store and on a model,
// and compares them after each.
func keyMachine(t *testing.T, s store.Store) {
	ctx := t.Context()
	var m keyModel // as the store, the same in every round
	rapid.Check(t, func(t *rapid.T) {
		t.Repeat(map[string]func(*rapid.T){
			"update": func(t *rapid.T) {
				next := m.clone()
				fails := rapid.IntRange(0, 3).Draw(t, "fails") == 0
				err := s.Update(ctx, func(tx store.Tx) error {
					if err := keySteps(ctx, t, tx, &next, 0); err != nil {
						return err
					}
					if fails {
						return errTest
					}
					return nil
				})
				if fails != (err != nil) || err != nil && err != errTest {
					t.Fatalf("Update: %v", err)
				}
				if !fails {
					m = next
				}
			},
			"scrub": func(t *rapid.T) {
				if err := s.Scrub(ctx); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				if err := s.View(ctx, func(r store.Reader) error { return compareKeys(ctx, t, r, m) }); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
}

// keySteps does random work in a transaction, and on the model.
func keySteps(ctx context.Context, t *rapid.T, tx store.Tx, m *keyModel, depth int) error {
	for range rapid.IntRange(0, 3).Draw(t, "steps") {
		switch rapid.SampledFrom([]string{"insert", "insert", "insert", "many", "update", "delete", "delete run", "compare", "attempt"}).Draw(t, "step") {
		case "insert":
			k := store.Key{
				KID: drawKID.Draw(t, "kid"), Descr: drawDescr.Draw(t, "descr"), Fingerprint: drawFingerprint.Draw(t, "fingerprint"),
				Label: "inserted", Type: "type", Created: 1, Updated: 2,
			}
			if err := insertInto(ctx, t, tx, m, k); err != nil {
				return err
			}
		case "many": // to get across blocks, or whatever the store counts in
			var keys []store.Key
			descr := drawDescr.Draw(t, "descr")
			for range min(rapid.IntRange(1, 100).Draw(t, "many"), 200-len(m.keys)) {
				k := store.Key{Descr: descr, Label: "one of many", Type: "type", Created: 3}
				m.serial++
				binary.BigEndian.PutUint64(k.KID[:], uint64(m.serial))
				keys = append(keys, k)
			}
			if err := insertInto(ctx, t, tx, m, keys...); err != nil {
				return err
			}
		case "update":
			k := store.Key{KID: drawTarget(t, m), Descr: drawDescr.Draw(t, "descr"), Label: "updated", Updated: 4}
			m.serial++
			k.Sealed = sealed(m.serial)
			at := m.find(k.KID)
			if err := tx.UpdateKey(ctx, k); (at >= 0) != (err == nil) || err != nil && !errors.Is(err, store.ErrNotFound) {
				t.Fatalf("updating %x, at %d: %v", k.KID, at, err)
			}
			if at >= 0 {
				is := &m.keys[at]
				is.Descr, is.Label, is.Updated, is.Sealed = orNil(k.Descr), k.Label, k.Updated, k.Sealed
			}
		case "delete":
			if err := deleteFrom(ctx, t, tx, m, drawTarget(t, m)); err != nil {
				return err
			}
		case "delete run": // so that whole blocks get empty
			if len(m.keys) == 0 {
				continue
			}
			from := rapid.IntRange(0, len(m.keys)-1).Draw(t, "from")
			for range min(rapid.IntRange(1, 50).Draw(t, "run"), len(m.keys)-from) {
				if err := deleteFrom(ctx, t, tx, m, m.keys[from].KID); err != nil {
					return err
				}
			}
		case "compare":
			if err := compareKeys(ctx, t, tx, *m); err != nil {
				return err
			}
		case "attempt":
			if depth == 2 {
				continue
			}
			next, fails := m.clone(), rapid.Bool().Draw(t, "attempt fails")
			err := tx.Attempt(ctx, func() error {
				if err := keySteps(ctx, t, tx, &next, depth+1); err != nil {
					return err
				}
				if fails {
					return errTest
				}
				return nil
			})
			if fails != (err != nil) || err != nil && err != errTest {
				t.Fatalf("Attempt: %v", err)
			}
			if !fails {
				*m = next
			}
		}
	}
	return nil
}

// drawTarget is mostly the kid of a key there is.
func drawTarget(t *rapid.T, m *keyModel) store.KID {
	if len(m.keys) == 0 || rapid.IntRange(0, 4).Draw(t, "any") == 0 {
		return drawKID.Draw(t, "kid")
	}
	return m.keys[rapid.IntRange(0, len(m.keys)-1).Draw(t, "at")].KID
}

func insertInto(ctx context.Context, t *rapid.T, tx store.Tx, m *keyModel, keys ...store.Key) error {
	var added []store.Key
	for _, k := range keys {
		m.serial++
		k.Sealed = sealed(m.serial)
		has := m.has(k)
		if err := tx.InsertKey(ctx, k); has != errors.Is(err, store.ErrDuplicate) || !has && err != nil {
			t.Fatalf("inserting %x, there %t: %v", k.KID, has, err)
		}
		if !has {
			k.Descr, k.Fingerprint = orNil(k.Descr), orNil(k.Fingerprint)
			m.keys, added = append(m.keys, k), append(added, k)
		}
	}
	got, err := tx.KeysAfter(ctx, m.last, int64(len(keys)))
	if err != nil {
		return err
	}
	if len(got) != len(added) {
		t.Fatalf("%d keys of %d are in order after the others", len(got), len(added))
	}
	for i, k := range added {
		if got[i].Seq <= m.last || !same(got[i], k) {
			t.Fatalf("inserted %+v after %d, got %+v", k, m.last, got[i])
		}
		m.last = got[i].Seq
		m.keys[len(m.keys)-len(added)+i].Seq = m.last
	}
	return nil
}

func deleteFrom(ctx context.Context, t *rapid.T, tx store.Tx, m *keyModel, kid store.KID) error {
	at := m.find(kid)
	if err := tx.DeleteKey(ctx, kid); (at >= 0) != (err == nil) || err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("deleting %x, at %d: %v", kid, at, err)
	}
	if at >= 0 {
		m.keys = slices.Delete(m.keys, at, at+1)
		m.deleted++
	}
	return nil
}

// compareKeys compares the counts and one other thing that can be read.
func compareKeys(ctx context.Context, t *rapid.T, r store.Reader, m keyModel) error {
	counts, err := r.CountKeys(ctx)
	if err != nil {
		return err
	}
	if counts.Live != int64(len(m.keys)) || counts.Deleted != m.deleted {
		t.Fatalf("counted are %+v; want %d, %d deleted", counts, len(m.keys), m.deleted)
	}
	switch rapid.SampledFrom([]string{"list", "search", "search", "after", "get"}).Draw(t, "read") {
	case "list":
		offset, limit := drawOffset.Draw(t, "offset"), drawLimit.Draw(t, "limit")
		page, err := r.ListKeys(ctx, offset, limit)
		if err != nil {
			return err
		}
		comparePage(t, page, m.keys, offset, limit)
	case "search":
		n, offset, limit := drawNeedle.Draw(t, "needle"), drawOffset.Draw(t, "offset"), drawLimit.Draw(t, "limit")
		page, err := r.SearchKeys(ctx, n, offset, limit)
		if err != nil {
			return err
		}
		comparePage(t, page, m.search(n), offset, limit)
	case "after":
		seq, limit := rapid.Int64Range(max(0, m.last-200), m.last+1).Draw(t, "seq"), drawLimit.Draw(t, "limit")
		got, err := r.KeysAfter(ctx, seq, limit)
		if err != nil {
			return err
		}
		from := slices.IndexFunc(m.keys, func(k store.Key) bool { return k.Seq > seq })
		if from < 0 {
			from = len(m.keys)
		}
		compareList(t, got, m.keys[from:min(int64(len(m.keys)), int64(from)+limit)])
	case "get":
		kid := drawTarget(t, &m)
		got, err := r.GetKey(ctx, kid)
		if at := m.find(kid); at >= 0 && err == nil {
			compareList(t, []store.Key{got}, m.keys[at:at+1])
		} else if at >= 0 || !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("%x, at %d, is %+v, %v", kid, at, got, err)
		}
	}
	return nil
}

func comparePage(t *rapid.T, page store.KeyPage, all []store.Key, offset, limit int64) {
	if page.Total != int64(len(all)) {
		t.Fatalf("the total is %d; want %d", page.Total, len(all))
	}
	from := min(offset, page.Total)
	compareList(t, page.Keys, all[from:min(page.Total, from+limit)])
}

func compareList(t *rapid.T, got, want []store.Key) {
	if len(got) != len(want) {
		t.Fatalf("%d keys; want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].Seq != want[i].Seq || !same(got[i], want[i]) {
			t.Fatalf("key %d of %d is %+v; want %+v", i, len(want), got[i], want[i])
		}
	}
}

func orNil(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}
