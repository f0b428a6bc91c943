package keyring

import (
	"context"
	"time"

	"softhem/internal/store"
)

// A Page is a part of a list of keys in order of creation.
type Page struct {
	Total   int64 // keys in the whole list
	Deleted int64 // keys deleted so far
	Keys    []Info
}

// List returns at most limit keys after skipping offset, each checked.
func (r *Ring) List(ctx context.Context, offset, limit int64) (Page, error) {
	return r.page(ctx, func(v store.Reader) (store.KeyPage, error) { return v.ListKeys(ctx, offset, limit) })
}

// Search is List for the keys whose descr matches.
func (r *Ring) Search(ctx context.Context, n store.Needle, offset, limit int64) (Page, error) {
	return r.page(ctx, func(v store.Reader) (store.KeyPage, error) { return v.SearchKeys(ctx, n, offset, limit) })
}

func (r *Ring) page(ctx context.Context, read func(store.Reader) (store.KeyPage, error)) (Page, error) {
	var rows store.KeyPage
	var counts store.KeyCounts
	err := r.cfg.Store.View(ctx, func(v store.Reader) (err error) {
		if counts, err = v.CountKeys(ctx); err != nil {
			return err
		}
		rows, err = read(v)
		return err
	})
	if err != nil {
		return Page{}, err
	}
	p := Page{Total: rows.Total, Deleted: counts.Deleted, Keys: make([]Info, len(rows.Keys))}
	for i := range rows.Keys {
		if p.Keys[i], err = r.check(&rows.Keys[i]); err != nil {
			return Page{}, err
		}
	}
	return p, nil
}

// Counts are those of the repository.
func (r *Ring) Counts(ctx context.Context) (counts store.KeyCounts, err error) {
	err = r.cfg.Store.View(ctx, func(v store.Reader) (err error) {
		counts, err = v.CountKeys(ctx)
		return err
	})
	return counts, err
}

const (
	sweepRows = 256
	// sweepRest is how long a sweep rests after a batch, as a multiple of what
	// the batch took: it must not be felt.
	sweepRest = 3
)

// Sweep reads and checks every key, calling damaged for each that does not
// open, and returns how many it read. It works in short views and rests between
// them.
func (r *Ring) Sweep(ctx context.Context, damaged func(*DamagedError)) (checked int64, err error) {
	return r.sweep(ctx, sweepRest, damaged)
}

// SweepAtOnce is Sweep without rests, for a repository that nobody uses.
func (r *Ring) SweepAtOnce(ctx context.Context, damaged func(*DamagedError)) (checked int64, err error) {
	return r.sweep(ctx, 0, damaged)
}

func (r *Ring) sweep(ctx context.Context, rests time.Duration, damaged func(*DamagedError)) (checked int64, err error) {
	for seq := int64(0); ; {
		start := time.Now()
		var rows []store.Key
		err := r.cfg.Store.View(ctx, func(v store.Reader) (err error) {
			rows, err = v.KeysAfter(ctx, seq, sweepRows)
			return err
		})
		if err != nil {
			return checked, err
		}
		for i := range rows {
			if _, err := r.check(&rows[i]); err != nil {
				damaged(err.(*DamagedError))
			}
			seq = rows[i].Seq
		}
		checked += int64(len(rows))
		if len(rows) < sweepRows {
			return checked, nil
		}
		rest := time.NewTimer(rests * time.Since(start))
		select {
		case <-rest.C:
		case <-ctx.Done():
			rest.Stop()
			return checked, ctx.Err()
		}
	}
}
