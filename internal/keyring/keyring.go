// Package keyring is the key repository: keys sealed one by one in the store,
// opened for use and kept open for a while, listed, searched and swept.
//
// # What holds
//
//   - A key that comes out of here is the one that was put in: every row is
//     opened, and with it everything that stands beside it in clear is checked,
//     each time it is read. What does not open is a [DamagedError].
//   - After [Ring.Forget] no call that begins later returns the key from
//     memory.
//
// It decides nothing about who may do what; that is internal/module.
package keyring

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"softhem/api"
	"softhem/internal/store"
	"softhem/internal/suite"
)

// The error contract; test with errors.Is.
var (
	// ErrUnknown: there is no such key.
	ErrUnknown = errors.New("no such key")
	// ErrDuplicate: its material is stored already.
	ErrDuplicate = errors.New("the key is stored already")
	// ErrFull: there are as many keys as are allowed.
	ErrFull = errors.New("the key repository is full")
)

// A DamagedError names a key whose row was changed: by a failing disk, or by
// somebody who can write to it.
type DamagedError struct {
	KID store.KID
	Err error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("the stored key %x is damaged: %v", e.KID, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// A Sealer seals keys at rest; internal/seal has the one there is.
type Sealer interface {
	Seal(kind, id string, plaintext []byte) []byte
	Open(kind, id string, sealed []byte) ([]byte, error)
	// Fingerprint names a secret to who holds the sealing key, and to nobody
	// else.
	Fingerprint(domain string, secret []byte) ([]byte, error)
}

// Config says how a Ring keeps keys. Store and Sealer are required.
type Config struct {
	Store  store.Store
	Sealer Sealer
	// MaxKeys is how many keys there may be; 0 means DefaultMaxKeys.
	MaxKeys int64
	// CacheBytes bounds the opened keys that are kept in memory; 0 means
	// DefaultCacheBytes.
	CacheBytes int
}

const (
	DefaultMaxKeys    = 1_000_000
	DefaultCacheBytes = 32 << 20
)

// A Ring is the key repository of one module. Its methods may be called
// concurrently.
type Ring struct {
	cfg   Config
	cache *cache
}

// New makes a Ring over what the store holds.
func New(cfg Config) *Ring {
	if cfg.MaxKeys == 0 {
		cfg.MaxKeys = DefaultMaxKeys
	}
	if cfg.CacheBytes == 0 {
		cfg.CacheBytes = DefaultCacheBytes
	}
	return &Ring{cfg: cfg, cache: newCache(cfg.CacheBytes)}
}

// MaxKeys is how many keys there may be.
func (r *Ring) MaxKeys() int64 { return r.cfg.MaxKeys }

// Info is what is known of a key besides its material.
type Info struct {
	KID     store.KID
	Traits  api.KeyTraits
	Created int64 // Unix seconds
	Updated int64 // grows with every change
	Label   string
	Descr   []byte // empty: none
	Public  []byte // wire form; empty for symmetric keys

	seq int64 // place in the repository, see Address; 0: none
}

// A Key is a key that is open for use.
type Key struct {
	Info
	*suite.Key
}

// A NewKey is what a key is made of.
type NewKey struct {
	Algorithm *suite.Algorithm
	// Material is private or secret; nil for a public key. It stays the
	// caller's.
	Material []byte
	Public   []byte // of a public key that is imported
	Mode     string // one of api.Mode…; counts where Algorithm.HasMode
	Label    string
	Descr    []byte
}

// Open returns a key for use: ErrUnknown, a DamagedError, or an error of the
// store.
func (r *Ring) Open(ctx context.Context, kid store.KID) (*Key, error) {
	if k := r.cache.get(kid); k != nil {
		return k, nil
	}
	loading := r.cache.begin(kid)
	row, err := r.read(ctx, kid)
	if err != nil {
		return nil, err
	}
	k, err := r.open(&row)
	if err != nil {
		return nil, err
	}
	r.cache.put(loading, k)
	return k, nil
}

// Info returns what is known of a key, without keeping it open.
func (r *Ring) Info(ctx context.Context, kid store.KID) (Info, error) {
	row, err := r.read(ctx, kid)
	if err != nil {
		return Info{}, err
	}
	return r.check(&row)
}

// read returns the row of a key: ErrUnknown, a DamagedError.
func (r *Ring) read(ctx context.Context, kid store.KID) (row store.Key, err error) {
	err = r.cfg.Store.View(ctx, func(v store.Reader) (err error) {
		row, err = get(ctx, v, kid)
		return err
	})
	return row, err
}

// get is read in a transaction. A row that opens is whole, but an index that was
// tampered with may give one for another kid.
func get(ctx context.Context, v store.Reader, kid store.KID) (store.Key, error) {
	row, err := v.GetKey(ctx, kid)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return row, ErrUnknown
	case err == nil && row.KID != kid:
		return row, &DamagedError{kid, errors.New("another key's row stands in its place")}
	}
	return row, err
}

// Forget drops a key from memory. It is called after the change of a key has
// been committed and before anybody is told so.
func (r *Ring) Forget(kid store.KID) { r.cache.forget(kid) }

// ForgetAll drops all keys from memory.
func (r *Ring) ForgetAll() { r.cache.forgetAll() }

// Prepare makes the row of a new key: everything that needs no transaction.
func (r *Ring) Prepare(n NewKey, now int64) (store.Key, error) {
	row := store.Key{Created: now, Updated: now, Label: n.Label, Descr: n.Descr}
	traits := api.KeyTraits{Type: n.Algorithm.Type, PQC: n.Algorithm.KEM || n.Algorithm.MLDSA}
	switch {
	case !n.Algorithm.HasMode:
		traits.ECDH, traits.ExDSA = n.Algorithm.ECDH, n.Algorithm.ExDSA
	case n.Mode == api.ModeBoth:
		traits.ECDH, traits.ExDSA = true, true
	case n.Mode == api.ModeExDSA:
		traits.ExDSA = true
	default:
		traits.ECDH = true
	}
	if n.Material == nil {
		row.Public = n.Public
	} else {
		k, err := n.Algorithm.Open(n.Material)
		if err != nil {
			return store.Key{}, err
		}
		row.Public = k.Public()
		traits.Made = true
		traits.Private = row.Public != nil
	}
	row.Type = traits.String()
	if row.Public != nil {
		row.KID = KIDOf(row.Public)
	} else {
		copy(row.KID[:], suite.Random(api.KIDBytes))
		fp, err := r.cfg.Sealer.Fingerprint(fingerprintDomain+string(n.Algorithm.Type), n.Material)
		if err != nil {
			return store.Key{}, err
		}
		row.Fingerprint = fp
	}
	r.seal(&row, n.Material)
	return row, nil
}

// Insert puts a prepared row into a transaction: ErrFull, ErrDuplicate.
func (r *Ring) Insert(ctx context.Context, tx store.Tx, row store.Key) error {
	counts, err := tx.CountKeys(ctx)
	if err != nil {
		return err
	}
	if counts.Live >= r.cfg.MaxKeys {
		return ErrFull
	}
	err = tx.InsertKey(ctx, row)
	if errors.Is(err, store.ErrDuplicate) {
		return ErrDuplicate
	}
	return err
}

// Update gives a key another label and descr, if allow, called with the key as
// it is, returns nil. The key's Updated becomes now, or one more than it was.
// Errors: ErrUnknown, a DamagedError, what allow returned.
func (r *Ring) Update(ctx context.Context, tx store.Tx, kid store.KID, label string, descr []byte, now int64, allow func(Info) error) error {
	row, err := get(ctx, tx, kid)
	if err != nil {
		return err
	}
	material, info, err := r.unseal(&row)
	if err != nil {
		return err
	}
	defer clear(material)
	if err := allow(info); err != nil {
		return err
	}
	row.Label, row.Descr, row.Updated = label, descr, max(now, row.Updated+1)
	r.seal(&row, material)
	return tx.UpdateKey(ctx, row)
}

// Delete removes a key: ErrUnknown. Its sealed material is gone from the files
// after [store.Store.Scrub].
func (r *Ring) Delete(ctx context.Context, tx store.Tx, kid store.KID) error {
	err := tx.DeleteKey(ctx, kid)
	if errors.Is(err, store.ErrNotFound) {
		return ErrUnknown
	}
	return err
}

// KIDOf is the kid of a public key: the first 16 bytes of its SHA-1. Who makes
// two keys of one kid can store only the first.
func KIDOf(public []byte) (kid store.KID) {
	sum := suite.SHA1(public)
	copy(kid[:], sum[:])
	return kid
}

// ParseKID reads 32 hex digits in either case.
func ParseKID(text string) (kid store.KID, ok bool) {
	if len(text) != 2*len(kid) {
		return kid, false
	}
	_, err := hex.Decode(kid[:], []byte(text))
	return kid, err == nil
}

// open makes a usable key of a row.
func (r *Ring) open(row *store.Key) (*Key, error) {
	material, info, err := r.unseal(row)
	if err != nil {
		return nil, err
	}
	defer clear(material)
	algorithm, ok := suite.AlgorithmOf(info.Traits.Type)
	if !ok {
		return nil, &DamagedError{row.KID, fmt.Errorf("unknown type %q", row.Type)}
	}
	k := &Key{Info: info}
	if len(material) > 0 {
		k.Key, err = algorithm.Open(bytes.Clone(material))
	} else {
		k.Key, err = algorithm.OpenPublic(info.Public)
	}
	if err != nil {
		return nil, &DamagedError{row.KID, err}
	}
	if !bytes.Equal(k.Key.Public(), info.Public) {
		return nil, &DamagedError{row.KID, errors.New("private and public key are not a pair")}
	}
	return k, nil
}

// check is unseal for who needs no material.
func (r *Ring) check(row *store.Key) (Info, error) {
	material, info, err := r.unseal(row)
	clear(material)
	return info, err
}
