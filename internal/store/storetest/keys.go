package storetest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"softhem/internal/store"
)

// key makes a key whose fields all tell n.
func key(n int) store.Key {
	k := store.Key{
		Type: "ATT,PKEY,ExDSA,ED25519", Created: int64(1000 + n), Updated: int64(2000 + n), Label: fmt.Sprint("key ", n),
		Descr: fmt.Appendf(nil, "descr %d", n), Public: fmt.Appendf(nil, "public %d", n), Sealed: sealed(n),
	}
	binary.BigEndian.PutUint64(k.KID[8:], uint64(n))
	return k
}

func sealed(n int) []byte {
	return bytes.Repeat([]byte{byte(n), byte(n >> 8), byte(n >> 16), 1}, store.SealedKeyBytes/4)
}

func fingerprint(n int) []byte { return bytes.Repeat([]byte{byte(n), 0xf0}, 8) }

func insertKeys(t *testing.T, s store.Store, keys ...store.Key) {
	t.Helper()
	update(t, s, func(tx store.Tx) error {
		for _, k := range keys {
			if err := tx.InsertKey(t.Context(), k); err != nil {
				return err
			}
		}
		return nil
	})
}

// same compares keys but for Seq.
func same(a, b store.Key) bool {
	a.Seq, b.Seq = 0, 0
	return reflect.DeepEqual(a, b)
}

func wantKey(t *testing.T, s store.Store, want store.Key) (seq int64) {
	t.Helper()
	view(t, s, func(r store.Reader) error {
		got, err := r.GetKey(t.Context(), want.KID)
		if err != nil || !same(got, want) {
			t.Errorf("the key is %+v, %v; want %+v", got, err, want)
		}
		seq = got.Seq
		return nil
	})
	return seq
}

func wantNoKey(t *testing.T, s store.Store, kid store.KID) {
	t.Helper()
	view(t, s, func(r store.Reader) error {
		if got, err := r.GetKey(t.Context(), kid); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the key is %+v, %v; want ErrNotFound", got, err)
		}
		return nil
	})
}

// wantList checks labels and total of a whole list.
func wantList(t *testing.T, s store.Store, deleted int64, labels ...string) {
	t.Helper()
	view(t, s, func(r store.Reader) error {
		page, err := r.ListKeys(t.Context(), 0, 1000)
		if got := labelsOf(page.Keys); err != nil || got != strings.Join(labels, "|") || page.Total != int64(len(labels)) {
			t.Errorf("listed are %q of %d, %v; want %q", got, page.Total, err, labels)
		}
		n, err := r.CountKeys(t.Context())
		if err != nil || n.Live != int64(len(labels)) || n.Deleted != deleted {
			t.Errorf("counted are %+v, %v; want %d, %d deleted", n, err, len(labels), deleted)
		}
		return nil
	})
}

func labelsOf(keys []store.Key) string {
	var labels []string
	for _, k := range keys {
		labels = append(labels, k.Label)
	}
	return strings.Join(labels, "|")
}

func keyRecords(t *testing.T, s store.Store) {
	ctx := t.Context()
	wantList(t, s, 0)
	wantNoKey(t, s, key(1).KID)

	bare := store.Key{KID: store.KID{0xff}, Sealed: sealed(0)}
	odd := store.Key{
		KID: store.KID{0: 0, 15: 0xff}, Type: "'; DROP TABLE key; --", Label: "\x00 é\xff\n", Created: 1 << 62, Updated: -1,
		Descr: []byte{0}, Public: []byte{0xff, 0}, Fingerprint: make([]byte, 16), Sealed: make([]byte, store.SealedKeyBytes),
	}
	longest := key(3)
	longest.Descr, longest.Public, longest.Fingerprint = bytes.Repeat([]byte{0xff}, 64), bytes.Repeat([]byte{7}, 2592), fingerprint(3)
	insertKeys(t, s, bare, odd, longest)
	var last int64
	for _, k := range []store.Key{bare, odd, longest} {
		seq := wantKey(t, s, k)
		if seq <= last {
			t.Errorf("seq %d after %d", seq, last)
		}
		last = seq
	}
	// Empty is none.
	empty := key(4)
	empty.Descr, empty.Public, empty.Fingerprint = []byte{}, []byte{}, []byte{}
	insertKeys(t, s, empty)
	empty.Descr, empty.Public, empty.Fingerprint = nil, nil, nil
	wantKey(t, s, empty)
	wantList(t, s, 0, bare.Label, odd.Label, "key 3", "key 4")

	// Updated are Label, Descr, Updated and Sealed, and nothing else.
	changed := key(5)
	changed.KID = longest.KID
	update(t, s, func(tx store.Tx) error { return tx.UpdateKey(ctx, changed) })
	longest.Label, longest.Descr, longest.Updated, longest.Sealed = changed.Label, changed.Descr, changed.Updated, changed.Sealed
	if seq := wantKey(t, s, longest); seq != last {
		t.Errorf("an update moves seq %d to %d", last, seq)
	}

	update(t, s, func(tx store.Tx) error {
		if err := tx.DeleteKey(ctx, odd.KID); err != nil {
			return err
		}
		// A transaction sees what it did.
		if _, err := tx.GetKey(ctx, odd.KID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a deleted key in its transaction: %v", err)
		}
		if n, err := tx.CountKeys(ctx); err != nil || n.Live != 3 || n.Deleted != 1 {
			t.Errorf("counted in its transaction: %+v, %v", n, err)
		}
		if err := tx.DeleteKey(ctx, odd.KID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("deleting twice: %v", err)
		}
		if err := tx.UpdateKey(ctx, odd); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("updating a deleted key: %v", err)
		}
		return nil
	})
	wantNoKey(t, s, odd.KID)
	wantList(t, s, 1, bare.Label, "key 5", "key 4")
	if err := s.Scrub(ctx); err != nil {
		t.Error(err)
	}
	wantList(t, s, 1, bare.Label, "key 5", "key 4")
}

// The last key's seq is not given again, whether it is deleted in the same
// transaction or later.
func keySeqIsNew(t *testing.T, s store.Store) {
	ctx := t.Context()
	last := int64(0)
	for n := range 5 {
		insertKeys(t, s, key(n))
		seq := wantKey(t, s, key(n))
		if seq <= last {
			t.Fatalf("seq %d after %d", seq, last)
		}
		last = seq
		update(t, s, func(tx store.Tx) error {
			if n%2 == 0 {
				return tx.DeleteKey(ctx, key(n).KID)
			}
			return errors.Join(tx.DeleteKey(ctx, key(n).KID), tx.InsertKey(ctx, key(n)), tx.DeleteKey(ctx, key(n).KID))
		})
	}
}

func keyDuplicates(t *testing.T, s store.Store) {
	ctx := t.Context()
	first, other := key(1), key(2)
	first.Fingerprint = fingerprint(1)
	insertKeys(t, s, first, other)
	sameKID, sameFP, both := key(3), key(4), key(5)
	sameKID.KID = other.KID
	sameFP.Fingerprint = first.Fingerprint
	both.KID, both.Fingerprint = other.KID, first.Fingerprint
	duplicates := []store.Key{first, sameKID, sameFP, both}
	update(t, s, func(tx store.Tx) error {
		for _, k := range duplicates {
			if err := tx.InsertKey(ctx, k); !errors.Is(err, store.ErrDuplicate) {
				t.Errorf("%q: %v", k.Label, err)
			}
			if err := tx.Attempt(ctx, func() error { return tx.InsertKey(ctx, k) }); !errors.Is(err, store.ErrDuplicate) {
				t.Errorf("%q in an attempt: %v", k.Label, err)
			}
		}
		// The transaction goes on.
		return tx.InsertKey(ctx, key(6))
	})
	wantKey(t, s, first)
	wantKey(t, s, other)
	wantList(t, s, 0, "key 1", "key 2", "key 6")
	// With the key goes what made another its duplicate.
	update(t, s, func(tx store.Tx) error {
		return errors.Join(tx.DeleteKey(ctx, first.KID), tx.InsertKey(ctx, sameFP), tx.DeleteKey(ctx, other.KID), tx.InsertKey(ctx, sameKID))
	})
	wantList(t, s, 2, "key 6", "key 4", "key 3")
	// Keys without a fingerprint are not each other's duplicates.
	insertKeys(t, s, key(7), key(8))
}

// What has a wrong length is refused, and the transaction goes on.
func keyLengths(t *testing.T, s store.Store) {
	ctx := t.Context()
	insertKeys(t, s, key(1))
	for name, change := range map[string]func(k *store.Key){
		"sealed short":      func(k *store.Key) { k.Sealed = k.Sealed[1:] },
		"sealed long":       func(k *store.Key) { k.Sealed = append(bytes.Clone(k.Sealed), 0) },
		"sealed none":       func(k *store.Key) { k.Sealed = nil },
		"descr long":        func(k *store.Key) { k.Descr = make([]byte, 65) },
		"public long":       func(k *store.Key) { k.Public = make([]byte, 2593) },
		"fingerprint short": func(k *store.Key) { k.Fingerprint = make([]byte, 15) },
		"fingerprint long":  func(k *store.Key) { k.Fingerprint = make([]byte, 17) },
	} {
		fresh, there := key(2), key(1)
		change(&fresh)
		change(&there)
		update(t, s, func(tx store.Tx) error {
			if err := tx.InsertKey(ctx, fresh); err == nil || errors.Is(err, store.ErrDuplicate) {
				t.Errorf("%s: InsertKey returns %v", name, err)
			}
			if err := tx.UpdateKey(ctx, there); err == nil || errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s: UpdateKey returns %v", name, err)
			}
			return tx.Put(ctx, kind, name, nil)
		})
		want(t, s, kind, name, "")
	}
	wantKey(t, s, key(1))
	wantNoKey(t, s, key(2).KID)
}

// Whoever changes the slices given or returned changes no key.
func keyBytesAreCopied(t *testing.T, s store.Store) {
	ctx := t.Context()
	given := key(1)
	given.Fingerprint = fingerprint(1)
	wipe := func(k store.Key) {
		for _, b := range [][]byte{k.Descr, k.Public, k.Fingerprint, k.Sealed} {
			clear(b)
		}
	}
	update(t, s, func(tx store.Tx) error {
		if err := tx.InsertKey(ctx, given); err != nil {
			return err
		}
		wipe(given)
		return nil
	})
	view(t, s, func(r store.Reader) error {
		k, err := r.GetKey(ctx, given.KID)
		wipe(k)
		after, err2 := r.KeysAfter(ctx, 0, 10)
		found, err3 := r.SearchKeys(ctx, store.Needle{Bytes: []byte("esc")}, 0, 10)
		for _, k := range append(after, found.Keys...) {
			wipe(k)
		}
		return errors.Join(err, err2, err3)
	})
	intact := key(1)
	intact.Fingerprint = fingerprint(1)
	wantKey(t, s, intact)
}

func keyPages(t *testing.T, s store.Store) {
	ctx := t.Context()
	var labels []string
	for n := range 10 {
		insertKeys(t, s, key(n))
		labels = append(labels, key(n).Label)
	}
	needle := store.Needle{Bytes: []byte("descr"), Start: true}
	for _, p := range []struct{ offset, limit, from, to int64 }{
		{0, 10, 0, 10}, {0, 3, 0, 3}, {3, 4, 3, 7}, {8, 4, 8, 10}, {9, 1, 9, 10}, {10, 5, 10, 10}, {11, 5, 10, 10},
		{1 << 62, 1 << 62, 10, 10}, {0, 1 << 62, 0, 10}, {0, 0, 0, 0}, {4, 0, 4, 4},
	} {
		view(t, s, func(r store.Reader) error {
			listed, err := r.ListKeys(ctx, p.offset, p.limit)
			found, err2 := r.SearchKeys(ctx, needle, p.offset, p.limit)
			want := strings.Join(labels[p.from:p.to], "|")
			if got := labelsOf(listed.Keys); got != want || listed.Total != 10 || labelsOf(found.Keys) != want || found.Total != 10 {
				t.Errorf("%d from %d: listed %q of %d, found %q of %d; want %q", p.limit, p.offset, got, listed.Total, labelsOf(found.Keys), found.Total, want)
			}
			return errors.Join(err, err2)
		})
	}
	view(t, s, func(r store.Reader) error {
		for _, p := range [][2]int64{{-1, 1}, {1, -1}} {
			_, err := r.ListKeys(ctx, p[0], p[1])
			_, err2 := r.SearchKeys(ctx, needle, p[0], p[1])
			if err == nil || err2 == nil {
				t.Errorf("page %v: %v, %v", p, err, err2)
			}
		}
		if _, err := r.KeysAfter(ctx, 0, -1); err == nil {
			t.Error("KeysAfter takes a negative limit")
		}
		if _, err := r.SearchKeys(ctx, store.Needle{}, 0, 1); err == nil {
			t.Error("SearchKeys takes an empty needle")
		}
		// A walk, as the sweep does it.
		var walked []store.Key
		for seq := int64(0); ; {
			keys, err := r.KeysAfter(ctx, seq, 3)
			if err != nil {
				return err
			}
			walked = append(walked, keys...)
			if len(keys) < 3 {
				break
			}
			seq = keys[2].Seq
		}
		if got := labelsOf(walked); got != strings.Join(labels, "|") {
			t.Errorf("walked %q", got)
		}
		return nil
	})
}

func keySearches(t *testing.T, s store.Store) {
	ctx := t.Context()
	for i, descr := range []string{"", "a", "ab", "ba", "abba", "A", "b\xff", "\xff", "\xff\xff", "\xff\xffa", "\x00", "\x00\x00", "a\x00b", "%", "_", strings.Repeat("x", 64), "ab"} {
		k := key(i)
		k.Label, k.Descr = fmt.Sprint(i), []byte(descr)
		insertKeys(t, s, k)
	}
	for _, c := range []struct{ needle, want string }{
		{"^a", "1|2|4|12|16"}, {"^ab", "2|4|16"}, {"^abba", "4"}, {"^abbaa", ""}, {"^A", "5"}, {"^b", "3|6"},
		{"a$", "1|3|4|9"}, {"ba$", "3|4"}, {"b$", "2|12|16"},
		{"^ab$", "2|16"}, {"^a$", "1"}, {"^a\x00$", ""},
		{"b", "2|3|4|6|12|16"}, {"bb", "4"}, {"ab", "2|4|16"},
		{"^\xff", "7|8|9"}, {"^\xff\xff", "8|9"}, {"^\xff\xff\xff", ""}, {"^\xff$", "7"}, {"\xff$", "6|7|8"}, {"\xff\xff$", "8"}, {"\xff", "6|7|8|9"},
		{"^\x00", "10|11"}, {"\x00$", "10|11"}, {"^\x00$", "10"}, {"\x00", "10|11|12"}, {"\x00b", "12"}, {"\x00\x00\x00", ""},
		{"%", "13"}, {"_", "14"}, {"^%", "13"}, {"_$", "14"}, {"^_%$", ""},
		{"^" + strings.Repeat("x", 64) + "$", "15"}, {strings.Repeat("x", 64), "15"}, {strings.Repeat("x", 65), ""}, {"^" + strings.Repeat("x", 65), ""},
		{strings.Repeat("x", 65) + "$", ""}, {"^" + strings.Repeat("x", 65) + "$", ""}, {"^" + strings.Repeat("\xff", 64), ""},
	} {
		n := store.Needle{Start: c.needle[0] == '^', End: c.needle[len(c.needle)-1] == '$'}
		n.Bytes = []byte(strings.TrimSuffix(strings.TrimPrefix(c.needle, "^"), "$"))
		total := int64(0)
		if c.want != "" {
			total = int64(strings.Count(c.want, "|")) + 1
		}
		view(t, s, func(r store.Reader) error {
			page, err := r.SearchKeys(ctx, n, 0, 100)
			if got := labelsOf(page.Keys); err != nil || got != c.want || page.Total != total {
				t.Errorf("%q: %q of %d, %v; want %q", c.needle, got, page.Total, err, c.want)
			}
			return nil
		})
	}
}

// An undone transaction or attempt leaves keys, counts and searches as they
// were; so does one that panics.
func keysUndone(t *testing.T, s store.Store) {
	ctx := t.Context()
	for n := range 100 {
		insertKeys(t, s, key(n))
	}
	update(t, s, func(tx store.Tx) error { return tx.DeleteKey(ctx, key(50).KID) })
	snapshot := func() (state string) {
		view(t, s, func(r store.Reader) error {
			list, err := r.ListKeys(ctx, 0, 1000)
			counts, err2 := r.CountKeys(ctx)
			state = fmt.Sprintf("%+v %+v", list, counts)
			for _, n := range []store.Needle{{Bytes: []byte("d"), Start: true}, {Bytes: []byte("7"), End: true}, {Bytes: []byte(" 1")}} {
				found, err := r.SearchKeys(ctx, n, 3, 5)
				err2 = errors.Join(err2, err)
				state += fmt.Sprintf(" %+v", found)
			}
			return errors.Join(err, err2)
		})
		return state
	}
	work := func(tx store.Tx) error {
		for n := 100; n < 200; n++ {
			if err := tx.InsertKey(ctx, key(n)); err != nil {
				return err
			}
		}
		changed := key(7)
		changed.Descr = []byte("d 1777")
		return errors.Join(tx.DeleteKey(ctx, key(0).KID), tx.DeleteKey(ctx, key(150).KID), tx.UpdateKey(ctx, changed))
	}
	before := snapshot()
	for name, undo := range map[string]func(){
		"error": func() {
			if err := s.Update(ctx, func(tx store.Tx) error { return errors.Join(work(tx), errTest) }); err != errTest && !errors.Is(err, errTest) {
				t.Error(err)
			}
		},
		"attempt": func() {
			update(t, s, func(tx store.Tx) error {
				if err := tx.Attempt(ctx, func() error { return errors.Join(work(tx), errTest) }); !errors.Is(err, errTest) {
					t.Error(err)
				}
				if n, err := tx.CountKeys(ctx); err != nil || n.Live != 99 || n.Deleted != 1 {
					t.Errorf("after an attempt: %+v, %v", n, err)
				}
				return nil
			})
		},
		"attempt within": func() {
			s.Update(ctx, func(tx store.Tx) error {
				return errors.Join(tx.Attempt(ctx, func() error { return work(tx) }), errTest)
			})
		},
		"panic": func() {
			caught(func() {
				s.Update(ctx, func(tx store.Tx) error {
					if err := work(tx); err != nil {
						t.Error(err)
					}
					panic(errTest)
				})
			})
		},
	} {
		undo()
		if after := snapshot(); after != before {
			t.Errorf("%s leaves\n%.2000s\nwant\n%.2000s", name, after, before)
		}
	}
	// Done after all, in the transaction where it was undone.
	update(t, s, func(tx store.Tx) error {
		if err := tx.Attempt(ctx, func() error { return errors.Join(work(tx), errTest) }); !errors.Is(err, errTest) {
			t.Error(err)
		}
		return work(tx)
	})
	view(t, s, func(r store.Reader) error {
		page, err := r.SearchKeys(ctx, store.Needle{Bytes: []byte(" 1")}, 0, 1000)
		// 1, 10 to 19, 100 to 199 without 150, and the one that was 7.
		if n, _ := r.CountKeys(ctx); err != nil || n.Live != 197 || n.Deleted != 3 || page.Total != 111 {
			t.Errorf("%+v, %d found, %v", n, page.Total, err)
		}
		return err
	})
}
