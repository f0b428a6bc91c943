package keyring

import (
	"context"
	"errors"
	"testing"

	"softhem/api"
	"softhem/internal/seal"
	"softhem/internal/store"
	"softhem/internal/store/sqlitestore"
	"softhem/internal/suite"
)

// The claims of docs/threat-model.md about what a ring hands out.

// A spy is a store that counts the keys read from it, and does worse.
type spy struct {
	store.Store
	reads int
	// swapped gives the row of another key.
	swapped map[store.KID]store.KID
	// after runs when a key has been read and the view is over.
	after func()
}

func (s *spy) View(ctx context.Context, fn func(store.Reader) error) error {
	reads := s.reads
	err := s.Store.View(ctx, func(r store.Reader) error { return fn(&spyReader{r, s}) })
	if after := s.after; s.reads != reads && after != nil {
		s.after = nil
		after()
	}
	return err
}

type spyReader struct {
	store.Reader
	spy *spy
}

func (r *spyReader) GetKey(ctx context.Context, kid store.KID) (store.Key, error) {
	r.spy.reads++
	if other, ok := r.spy.swapped[kid]; ok {
		kid = other
	}
	return r.Reader.GetKey(ctx, kid)
}

func newRing(t *testing.T, cacheBytes int) (*Ring, *spy) {
	t.Helper()
	db, err := sqlitestore.Open(t.Context(), sqlitestore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &spy{Store: db}
	return New(Config{Store: s, Sealer: seal.InMemory(), CacheBytes: cacheBytes}), s
}

func (r *Ring) add(t *testing.T, keys api.KeyType) store.KID {
	t.Helper()
	a, _ := suite.AlgorithmOf(keys)
	row, err := r.Prepare(NewKey{Algorithm: a, Material: a.NewMaterial(), Label: "x"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cfg.Store.Update(t.Context(), func(tx store.Tx) error { return r.Insert(t.Context(), tx, row) }); err != nil {
		t.Fatal(err)
	}
	return row.KID
}

func (r *Ring) remove(t *testing.T, kid store.KID) {
	t.Helper()
	if err := r.cfg.Store.Update(t.Context(), func(tx store.Tx) error { return r.Delete(t.Context(), tx, kid) }); err != nil {
		t.Fatal(err)
	}
	r.Forget(kid)
}

// T60: a row that is whole and another key's, which an index can be made to
// give, is not handed out.
func TestThreat_T60_AnotherKeysRow(t *testing.T) {
	r, s := newRing(t, 0)
	a, b := r.add(t, api.AES256), r.add(t, api.AES256)
	s.swapped = map[store.KID]store.KID{a: b}
	damaged := func(what string, err error) {
		t.Helper()
		if d, ok := errors.AsType[*DamagedError](err); !ok || d.KID != a {
			t.Errorf("%s: %v, want that the key is damaged", what, err)
		}
	}
	_, err := r.Open(t.Context(), a)
	damaged("open", err)
	_, err = r.Info(t.Context(), a)
	damaged("info", err)
	if k, err := r.Open(t.Context(), b); err != nil || k.KID != b {
		t.Errorf("the other key: %v", err)
	}
	s.swapped = nil
	if k, err := r.Open(t.Context(), a); err != nil || k.KID != a {
		t.Errorf("and without the swap: %v", err)
	}
}

// T62: what was forgotten does not come back from memory, not even through a
// request that had read it before.
func TestThreat_T62_ForgottenKeys(t *testing.T) {
	r, s := newRing(t, 0)
	open := func(kid store.KID, want error, reads int) {
		t.Helper()
		before := s.reads
		if _, err := r.Open(t.Context(), kid); !errors.Is(err, want) {
			t.Errorf("open: %v, want %v", err, want)
		}
		if got := s.reads - before; got != reads {
			t.Errorf("%d reads of the store, want %d", got, reads)
		}
	}
	kid, other := r.add(t, api.Ed25519), r.add(t, api.Ed25519)
	open(kid, nil, 1)
	open(kid, nil, 0)
	r.Forget(kid)
	open(kid, nil, 1)
	open(other, nil, 1)
	r.ForgetAll()
	open(kid, nil, 1)
	open(other, nil, 1)

	r.remove(t, other)
	open(other, ErrUnknown, 1)

	// Deleted between the read and the keeping.
	r.Forget(kid)
	s.after = func() { r.remove(t, kid) }
	open(kid, nil, 1)
	open(kid, ErrUnknown, 1)

	// And all forgotten there, as by a reboot.
	kid = r.add(t, api.Ed25519)
	s.after = r.ForgetAll
	open(kid, nil, 1)
	open(kid, nil, 1)
	open(kid, nil, 0)
}

// T63: opened keys take no more memory than is allowed, the least recently used
// going first.
func TestThreat_T63_OpenedKeysAreBounded(t *testing.T) {
	const limit = 4 << 20
	r, s := newRing(t, limit)
	var kids []store.KID
	for range 200 {
		kids = append(kids, r.add(t, api.MLDSA44))
	}
	favourite := kids[0]
	for _, kid := range kids {
		for _, k := range []store.KID{kid, favourite} {
			if _, err := r.Open(t.Context(), k); err != nil {
				t.Fatal(err)
			}
		}
		sum := 0
		for i := range r.cache.shards {
			shard := &r.cache.shards[i]
			real := 0
			for _, e := range shard.keys {
				real += keyBytes(e.Value.(*Key))
			}
			if real != shard.bytes || shard.order.Len() != len(shard.keys) {
				t.Fatalf("a shard counts %d bytes of %d, %d keys of %d", shard.bytes, real, shard.order.Len(), len(shard.keys))
			}
			sum += shard.bytes
		}
		if sum > limit {
			t.Fatalf("%d bytes of keys are kept, at most %d may be", sum, limit)
		}
	}
	if s.reads != len(kids) {
		t.Errorf("%d reads for %d keys: the one in use did not stay", s.reads, len(kids))
	}
	before := s.reads
	for _, kid := range kids {
		if _, err := r.Open(t.Context(), kid); err != nil {
			t.Fatal(err)
		}
	}
	if s.reads == before {
		t.Error("all keys stayed: nothing was bounded")
	}
}

// T59: the fingerprint of a symmetric key says nothing without the data key, and
// the same bytes under two types are two keys.
func TestThreat_T59_FingerprintsAreKeyed(t *testing.T) {
	prepare := func(r *Ring, keys api.KeyType, material []byte) []byte {
		t.Helper()
		a, _ := suite.AlgorithmOf(keys)
		row, err := r.Prepare(NewKey{Algorithm: a, Material: material, Label: "x"}, 1)
		if err != nil {
			t.Fatal(err)
		}
		return row.Fingerprint
	}
	r, _ := newRing(t, 0)
	other, _ := newRing(t, 0)
	material := suite.Random(32)
	fp := prepare(r, api.AES256, material)
	if string(prepare(r, api.AES256, material)) != string(fp) {
		t.Error("one key has two fingerprints")
	}
	for what, unlike := range map[string][]byte{
		"another key":              prepare(r, api.AES256, suite.Random(32)),
		"the same as an HMAC key":  prepare(r, api.SHA2x256, material),
		"the same in another data": prepare(other, api.AES256, material),
	} {
		if string(unlike) == string(fp) {
			t.Errorf("%s has the fingerprint of the key", what)
		}
	}
	sum := suite.SHA256(material)
	for what, guess := range map[string][]byte{
		"SHA-256": sum[:], "HMAC with nothing": suite.HMACSHA256(nil, material),
		"HMAC with its domain": suite.HMACSHA256([]byte(fingerprintDomain+"AES256"), material),
	} {
		if string(guess[:len(fp)]) == string(fp) {
			t.Errorf("the fingerprint is %s of the key: anybody can test a guess", what)
		}
	}
}
