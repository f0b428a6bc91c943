package store

import (
	"bytes"
	"context"
	"errors"
)

// SealedKeyBytes is the length of every sealed key. One length, so that what
// is deleted or replaced is overwritten in place and leaves no copy behind.
const SealedKeyBytes = 128

var (
	// ErrDuplicate: there is a key of that kid or fingerprint.
	ErrDuplicate = errors.New("the key is there already")
)

// A KID names a key.
type KID [16]byte

// A Key is one row of the key table: what stands in clear, and the sealed part
// that is bound to it by its associated data.
//
// The store does not interpret any of it beyond what the fields say.
type Key struct {
	// Seq is the place in the order of creation. InsertKey gives it; it only
	// grows, and is never given twice.
	Seq     int64
	KID     KID
	Type    string // see api.KeyTraits
	Created int64  // Unix seconds
	Updated int64
	Label   string
	Descr   []byte // at most 64 bytes; empty: none
	Public  []byte // at most 2592 bytes; empty: none
	// Fingerprint of the material, 16 bytes and unique; nil when the kid says
	// the same.
	Fingerprint []byte
	Sealed      []byte // SealedKeyBytes
}

// A Needle is what a search looks for in Descr. Both anchors: equals.
type Needle struct {
	Bytes      []byte // not empty
	Start, End bool
}

// Matches tells whether the needle finds descr.
func (n Needle) Matches(descr []byte) bool {
	switch {
	case n.Start && n.End:
		return bytes.Equal(descr, n.Bytes)
	case n.Start:
		return bytes.HasPrefix(descr, n.Bytes)
	case n.End:
		return bytes.HasSuffix(descr, n.Bytes)
	}
	return bytes.Contains(descr, n.Bytes)
}

// A KeyPage is a part of a list of keys in order of creation.
type KeyPage struct {
	Total int64 // keys in the whole list
	Keys  []Key
}

// KeyCounts is how many keys there are, how many were deleted so far, and how
// many places for one the store has made that hold none.
type KeyCounts struct{ Live, Deleted, Spare int64 }

// KeyReader reads keys.
type KeyReader interface {
	// GetKey returns a key, or ErrNotFound.
	GetKey(ctx context.Context, kid KID) (Key, error)
	// ListKeys returns at most limit keys after skipping offset. It costs the
	// same at any offset.
	ListKeys(ctx context.Context, offset, limit int64) (KeyPage, error)
	// SearchKeys is ListKeys for the keys whose Descr matches; a key without
	// Descr matches nothing.
	SearchKeys(ctx context.Context, n Needle, offset, limit int64) (KeyPage, error)
	// KeysAfter returns at most limit keys whose Seq is greater than seq: how
	// to walk all keys in many short views.
	KeysAfter(ctx context.Context, seq, limit int64) ([]Key, error)
	CountKeys(ctx context.Context) (KeyCounts, error)
}

// KeyTx changes keys.
type KeyTx interface {
	// InsertKey adds a key and gives it its Seq. ErrDuplicate, which leaves the
	// transaction usable, when its KID or Fingerprint is there.
	InsertKey(ctx context.Context, k Key) error
	// UpdateKey replaces Label, Descr, Updated and Sealed of the key k.KID, or
	// returns ErrNotFound.
	UpdateKey(ctx context.Context, k Key) error
	// DeleteKey removes a key and overwrites its sealed part; ErrNotFound if
	// there is none. Only after [Store.Scrub] is the sealed part gone from
	// every file.
	DeleteKey(ctx context.Context, kid KID) error
}
