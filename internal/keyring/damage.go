package keyring

import (
	"context"
	"errors"

	"softhem/internal/store"
)

// FindDamaged reads every row of a store that nothing else uses, and calls found
// with each that is not a whole key that can be reached by its kid, and why. It
// returns how many rows there are.
func FindDamaged(ctx context.Context, s store.Repairer, sealer Sealer, found func(row store.KeyRow, why error)) (rows int64, err error) {
	r := New(Config{Store: s, Sealer: sealer})
	seen := make(map[store.KID]bool)
	err = s.EachKey(ctx, func(row store.KeyRow) error {
		rows++
		why := row.Err
		if why == nil {
			_, why = r.check(&row.Key)
		}
		if damaged, ok := errors.AsType[*DamagedError](why); ok {
			why = damaged.Err
		}
		if why == nil && seen[row.KID] {
			why = errors.New("there is another row of this key")
		}
		if why != nil {
			found(row, why)
		} else {
			seen[row.KID] = true
		}
		return ctx.Err()
	})
	return rows, err
}
