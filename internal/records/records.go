// Package records keeps Go values as sealed records of the store: JSON inside,
// sealed by the data key and bound to its kind and id outside.
package records

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"

	"softhem/internal/store"
)

// A Sealer seals bytes at rest; internal/seal has the one there is.
type Sealer interface {
	Seal(kind, id string, plaintext []byte) []byte
	Open(kind, id string, sealed []byte) ([]byte, error)
}

// Load reads and opens a record. The error wraps store.ErrNotFound when there
// is none, and the sealer's error when it is not the record that was written.
func Load[T any](ctx context.Context, r store.Reader, s Sealer, kind store.Kind, id string) (T, error) {
	var v T
	sealed, err := r.Get(ctx, kind, id)
	if err != nil {
		return v, fmt.Errorf("record %s/%s: %w", kind, id, err)
	}
	plain, err := s.Open(string(kind), id, sealed)
	if err != nil {
		return v, fmt.Errorf("record %s/%s: %w", kind, id, err)
	}
	defer clear(plain)
	if err := json.Unmarshal(plain, &v); err != nil {
		return v, fmt.Errorf("record %s/%s does not decode", kind, id) // err could quote a secret
	}
	return v, nil
}

// Check opens a record and looks at nothing in it. Errors are those of Load.
func Check(ctx context.Context, r store.Reader, s Sealer, kind store.Kind, id string) error {
	sealed, err := r.Get(ctx, kind, id)
	if err == nil {
		var plain []byte
		plain, err = s.Open(string(kind), id, sealed)
		clear(plain)
	}
	if err != nil {
		return fmt.Errorf("record %s/%s: %w", kind, id, err)
	}
	return nil
}

// Save seals v and puts it into the transaction.
func Save[T any](ctx context.Context, tx store.Tx, s Sealer, kind store.Kind, id string, v T) error {
	plain, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("record %s/%s does not encode", kind, id)
	}
	defer clear(plain)
	return tx.Put(ctx, kind, id, s.Seal(string(kind), id, plain))
}
