package keyring

import (
	"context"

	"softhem/internal/store"
)

// What diagnostics see of the repository: a memory in which the sealed part of
// each key has its place for good,
//
//	┌──────────────┬──────────────┬──────────────┬──
//	│ Seq 0: none  │ Seq 1        │ Seq 2        │ …   store.SealedKeyBytes each
//	└──────────────┴──────────────┴──────────────┴──
//
// with the bytes that are in the store now, and zeros where there is no key, or
// none any more. Nothing is opened for it.

// Address is where the key's sealed part lies, and how long it is. A key that is
// not in the repository has no address: 0.
func (i *Info) Address() (address, length int64) {
	if i.seq == 0 {
		return 0, 0
	}
	return i.seq * store.SealedKeyBytes, store.SealedKeyBytes
}

// Dump reads that memory. address and length must not be negative, nor their
// sum larger than an int64.
func (r *Ring) Dump(ctx context.Context, address, length int64) ([]byte, error) {
	dump := make([]byte, length)
	first, most := address/store.SealedKeyBytes, length/store.SealedKeyBytes+2
	var rows []store.Key
	err := r.cfg.Store.View(ctx, func(v store.Reader) (err error) {
		rows, err = v.KeysAfter(ctx, first-1, most)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range rows {
		at := rows[i].Seq*store.SealedKeyBytes - address
		switch {
		case at >= length: // and so are the rest
			return dump, nil
		case at < 0:
			copy(dump, rows[i].Sealed[-at:])
		default:
			copy(dump[at:], rows[i].Sealed)
		}
	}
	return dump, nil
}

// Corrupt zeroes bytes 4 to 7 of the sealed part that lies at address, which
// will not open after that: ErrUnknown if none begins there. A copy that is open
// for use is left alone, since a memory that fails does not tell either.
func (r *Ring) Corrupt(ctx context.Context, tx store.Tx, address int64) error {
	seq := address / store.SealedKeyBytes
	rows, err := tx.KeysAfter(ctx, seq-1, 1)
	if err != nil {
		return err
	}
	if address%store.SealedKeyBytes != 0 || len(rows) == 0 || rows[0].Seq != seq {
		return ErrUnknown
	}
	clear(rows[0].Sealed[4:8])
	return tx.UpdateKey(ctx, rows[0])
}
