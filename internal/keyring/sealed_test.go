package keyring

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"softhem/api"
	"softhem/internal/seal"
	"softhem/internal/store"
	"softhem/internal/suite"
)

// A lone store holds one row, whatever that is.
type lone struct {
	store.Store
	row store.Key
}

func (s *lone) View(ctx context.Context, fn func(store.Reader) error) error {
	return fn(&loneReader{row: s.row})
}

type loneReader struct {
	store.Reader
	row store.Key
}

func (r *loneReader) GetKey(context.Context, store.KID) (store.Key, error) { return r.row, nil }

func (r *loneReader) ListKeys(context.Context, int64, int64) (store.KeyPage, error) {
	return store.KeyPage{Total: 1, Keys: []store.Key{r.row}}, nil
}

func (r *loneReader) SearchKeys(context.Context, store.Needle, int64, int64) (store.KeyPage, error) {
	return store.KeyPage{Total: 1, Keys: []store.Key{r.row}}, nil
}

func (r *loneReader) KeysAfter(context.Context, int64, int64) ([]store.Key, error) {
	return []store.Key{r.row}, nil
}

func (r *loneReader) CountKeys(context.Context) (store.KeyCounts, error) {
	return store.KeyCounts{Live: 1}, nil
}

// column is a column of a row as bytes that a fault can change.
type column struct {
	name string
	get  func(store.Key) []byte
	set  func(*store.Key, []byte)
}

func columns() []column {
	number := func(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
	return []column{
		{"kid", func(k store.Key) []byte { return k.KID[:] }, func(k *store.Key, b []byte) { copy(k.KID[:], b) }},
		{"type", func(k store.Key) []byte { return []byte(k.Type) }, func(k *store.Key, b []byte) { k.Type = string(b) }},
		{"created", func(k store.Key) []byte { return number(k.Created) }, func(k *store.Key, b []byte) { k.Created = int64(binary.BigEndian.Uint64(b)) }},
		{"updated", func(k store.Key) []byte { return number(k.Updated) }, func(k *store.Key, b []byte) { k.Updated = int64(binary.BigEndian.Uint64(b)) }},
		{"label", func(k store.Key) []byte { return []byte(k.Label) }, func(k *store.Key, b []byte) { k.Label = string(b) }},
		{"descr", func(k store.Key) []byte { return k.Descr }, func(k *store.Key, b []byte) { k.Descr = b }},
		{"public", func(k store.Key) []byte { return k.Public }, func(k *store.Key, b []byte) { k.Public = b }},
		{"fingerprint", func(k store.Key) []byte { return k.Fingerprint }, func(k *store.Key, b []byte) { k.Fingerprint = b }},
		{"sealed", func(k store.Key) []byte { return k.Sealed }, func(k *store.Key, b []byte) { k.Sealed = b }},
	}
}

// Every bit of every column but the store's own order, of a symmetric key, of a
// pair and of a public key: whoever reads the row sees that it is damaged.
func TestEveryBitIsChecked(t *testing.T) {
	ctx := t.Context()
	descr := []byte("described")
	for _, c := range []struct {
		keys   api.KeyType
		public bool
	}{{api.AES256, false}, {api.SHA3x512, false}, {api.SECP256R1, false}, {api.Ed448, false}, {api.Curve25519, true}} {
		db := new(lone)
		r := New(Config{Store: db, Sealer: seal.InMemory(), CacheBytes: 1}) // nothing stays open
		a, _ := suite.AlgorithmOf(c.keys)
		n := NewKey{Algorithm: a, Material: a.NewMaterial(), Label: "label", Descr: descr}
		if c.public {
			k, err := a.Open(n.Material)
			if err != nil {
				t.Fatal(err)
			}
			n.Material, n.Public = nil, k.Public()
		}
		row, err := r.Prepare(n, 1_700_000_000)
		if err != nil {
			t.Fatal(err)
		}
		readers := map[string]func() error{
			"open":   func() error { _, err := r.Open(ctx, row.KID); return err },
			"info":   func() error { _, err := r.Info(ctx, row.KID); return err },
			"list":   func() error { _, err := r.List(ctx, 0, 1); return err },
			"search": func() error { _, err := r.Search(ctx, store.Needle{Bytes: descr}, 0, 1); return err },
			"sweep": func() (found error) {
				if n, err := r.Sweep(ctx, func(d *DamagedError) { found = d }); n != 1 || err != nil {
					return errors.Join(errors.New("no sweep"), err)
				}
				return found
			},
		}
		db.row = row
		for name, read := range readers {
			if err := read(); err != nil {
				t.Fatalf("%s of a whole %s: %v", name, c.keys, err)
			}
		}
		tried := 0
		try := func(what string, fault func(*store.Key)) {
			t.Helper()
			tried++
			db.row = row
			fault(&db.row)
			for name, read := range readers {
				if _, ok := errors.AsType[*DamagedError](read()); !ok {
					t.Errorf("%s: %s takes %s for whole", c.keys, name, what)
				}
			}
		}
		for _, col := range columns() {
			whole := col.get(row)
			for bit := range 8 * len(whole) {
				changed := bytes.Clone(whole)
				changed[bit/8] ^= 1 << (bit % 8)
				try(col.name+" with a bit changed", func(k *store.Key) { col.set(k, changed) })
			}
			if col.name == "kid" || col.name == "created" || col.name == "updated" {
				continue
			}
			if len(whole) > 0 {
				try(col.name+" without an end", func(k *store.Key) { col.set(k, whole[:len(whole)-1]) })
				try("no "+col.name, func(k *store.Key) { col.set(k, nil) })
			}
			try(col.name+" with one byte more", func(k *store.Key) { col.set(k, append(bytes.Clone(whole), 0)) })
		}
		// One byte from one column to the next.
		try("a byte of label in descr", func(k *store.Key) { k.Label, k.Descr = k.Label[:4], append([]byte(k.Label[4:]), k.Descr...) })
		try("the material of another key", func(k *store.Key) {
			other, err := r.Prepare(NewKey{Algorithm: a, Material: a.NewMaterial(), Label: "label", Descr: descr}, row.Created)
			if err != nil {
				t.Fatal(err)
			}
			k.Sealed = other.Sealed
		})
		if tried < 1500 {
			t.Errorf("%s: %d faults", c.keys, tried)
		}
	}
}

// The same material is one key of its type, and another key under another type.
func TestOneKeyOfEachMaterial(t *testing.T) {
	r, _ := newRing(t, 0)
	ctx := t.Context()
	add := func(keys api.KeyType, material, public []byte) (store.KID, error) {
		a, _ := suite.AlgorithmOf(keys)
		row, err := r.Prepare(NewKey{Algorithm: a, Material: material, Public: public, Label: "x"}, 1)
		if err != nil {
			t.Fatal(err)
		}
		if material != nil && (bytes.Contains(row.Sealed, material[:4]) || bytes.Contains(row.Fingerprint, material[:4])) {
			t.Error("material stands in clear")
		}
		return row.KID, r.cfg.Store.Update(ctx, func(tx store.Tx) error { return r.Insert(ctx, tx, row) })
	}
	material := suite.Random(32)
	kids := make(map[store.KID]bool)
	for _, keys := range []api.KeyType{api.AES256, api.SHA2x256, api.SHA3x256, api.Ed25519, api.Curve25519} {
		kid, err := add(keys, material, nil)
		if err != nil {
			t.Errorf("%s: %v", keys, err)
		}
		kids[kid] = true
		if _, err := add(keys, material, nil); !errors.Is(err, ErrDuplicate) {
			t.Errorf("%s again: %v", keys, err)
		}
		k, err := r.Open(ctx, kid)
		if err != nil {
			t.Fatal(err)
		}
		if public := k.Info.Public; public != nil {
			if _, err := add(keys, nil, public); !errors.Is(err, ErrDuplicate) {
				t.Errorf("%s, the public key of a pair: %v", keys, err)
			}
		}
	}
	if len(kids) != 5 {
		t.Errorf("%d kids", len(kids))
	}
}

// A change keeps the material, and binds it to what is new.
func TestUpdateSealsAnew(t *testing.T) {
	r, _ := newRing(t, 0)
	ctx := t.Context()
	kid := r.add(t, api.AES256)
	before, err := r.Open(ctx, kid)
	if err != nil {
		t.Fatal(err)
	}
	row := func() (k store.Key) {
		if err := r.cfg.Store.View(ctx, func(v store.Reader) (err error) { k, err = v.GetKey(ctx, kid); return err }); err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := row()
	update := func(now int64, allow error) error {
		err := r.cfg.Store.Update(ctx, func(tx store.Tx) error {
			return r.Update(ctx, tx, kid, "new", []byte("descr"), now, func(Info) error { return allow })
		})
		r.Forget(kid)
		return err
	}
	refusal := errors.New("refused")
	if err := update(9, refusal); !errors.Is(err, refusal) || !bytes.Equal(row().Sealed, first.Sealed) || row().Label != "x" {
		t.Errorf("a change that was not allowed: %v", err)
	}
	updated := int64(1)
	for _, now := range []int64{9, 9, 3} { // the clock stands still, and goes back
		if err := update(now, nil); err != nil {
			t.Fatal(err)
		}
		after, err := r.Open(ctx, kid)
		if err != nil {
			t.Fatal(err)
		}
		if want := max(now, updated+1); after.Updated != want || after.Created != 1 || after.Label != "new" || !bytes.Equal(after.Secret(), before.Secret()) {
			t.Errorf("changed at %d: %+v, want updated %d", now, after.Info, want)
		}
		updated = after.Updated
		if bytes.Equal(row().Sealed, first.Sealed) {
			t.Error("the sealed part is the same after a change")
		}
	}
	if err := r.cfg.Store.Update(ctx, func(tx store.Tx) error {
		return r.Update(ctx, tx, store.KID{}, "new", nil, 1, func(Info) error { return nil })
	}); !errors.Is(err, ErrUnknown) {
		t.Errorf("change of no key: %v", err)
	}
}
