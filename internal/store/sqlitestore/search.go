package sqlitestore

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"softhem/internal/store"
)

// manyHits is from how many hits on a search goes through all descr, in order
// of seq, instead of sorting what an index gives.
const manyHits = 20_000

func (r *reader) ListKeys(ctx context.Context, offset, limit int64) (store.KeyPage, error) {
	if err := checkPage(offset, limit); err != nil {
		return store.KeyPage{}, err
	}
	n, err := r.CountKeys(ctx)
	if err != nil {
		return store.KeyPage{}, err
	}
	page := store.KeyPage{Total: n.Live}
	if offset >= n.Live || limit == 0 {
		return page, nil
	}
	seq, err := r.nth(offset)
	if err != nil {
		return store.KeyPage{}, err
	}
	page.Keys, err = r.KeysAfter(ctx, seq-1, limit)
	return page, err
}

func (r *reader) SearchKeys(ctx context.Context, n store.Needle, offset, limit int64) (store.KeyPage, error) {
	if err := r.usable(ctx); err != nil {
		return store.KeyPage{}, err
	}
	if err := checkPage(offset, limit); err != nil {
		return store.KeyPage{}, err
	}
	if len(n.Bytes) == 0 {
		return store.KeyPage{}, errors.New("a search needs something to look for")
	}
	if len(n.Bytes) > maxDescr {
		return store.KeyPage{}, nil
	}
	// The values from <= value < to are the hits.
	from := n.Bytes
	count, page := r.c.keys.countDescrs, r.c.keys.pageDescrs
	var to []byte
	switch {
	case n.Start && n.End:
		to = append(slices.Clone(from), 0) // the next value there can be
	case n.Start:
		to = prefixEnd(from)
	case n.End:
		from = reversed(from)
		to = prefixEnd(from)
		count, page = r.c.keys.countSuffix, r.c.keys.pageSuffix
	default:
		return r.scanDescrs(ctx, n, offset, limit)
	}
	var total int64
	if err := count.QueryRow(from, to, r.s.manyHits).Scan(&total); err != nil {
		return store.KeyPage{}, r.fail(err)
	}
	if total == r.s.manyHits {
		return r.scanDescrs(ctx, n, offset, limit)
	}
	if offset >= total || limit == 0 {
		return store.KeyPage{Total: total}, nil
	}
	keys, err := r.selectKeys(page, from, to, limit, offset)
	return store.KeyPage{Total: total, Keys: keys}, err
}

// scanDescrs looks at every descr, in order of seq.
func (r *reader) scanDescrs(ctx context.Context, n store.Needle, offset, limit int64) (page store.KeyPage, err error) {
	if err := r.loadTotals(); err != nil {
		return store.KeyPage{}, err
	}
	var seqs []int64 // of the page
	look := func(seq int64, descr []byte) {
		if !n.Matches(descr) {
			return
		}
		if page.Total >= offset && int64(len(seqs)) < limit {
			seqs = append(seqs, seq)
		}
		page.Total++
	}
	if err := r.eachPacked(ctx, n.Bytes, look); err != nil {
		return store.KeyPage{}, err
	}
	if err := r.eachUnpacked(look); err != nil {
		return store.KeyPage{}, err
	}
	for _, seq := range seqs {
		k, err := scanKey(r.c.keys.bySeq.QueryRow(seq))
		if err != nil {
			return store.KeyPage{}, r.fail(noRows(err, "a key that has a descr"))
		}
		page.Keys = append(page.Keys, k)
	}
	return page, nil
}

// eachPacked calls look for the descr of key_packed, but for some of those
// without needle in them.
func (r *reader) eachPacked(ctx context.Context, needle []byte, look func(seq int64, descr []byte)) error {
	rows, err := r.c.keys.scanPacked.Query()
	if err != nil {
		return r.fail(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		var block int64
		var packed sql.RawBytes
		if err := rows.Scan(&block, &packed); err != nil {
			return r.fail(err)
		}
		// Most blocks are done with here, fast. What is found may lie across
		// entries.
		if !bytes.Contains(packed, needle) {
			continue
		}
		for rest := []byte(packed); len(rest) > 0; {
			var e packedDescr
			if e, rest, err = unpack(rest); err != nil {
				return r.fail(err)
			}
			look(packStart(block)+int64(e.index), e.descr)
		}
	}
	if err := rows.Err(); err != nil {
		return r.fail(err)
	}
	return nil
}

// eachUnpacked calls look for the descr that are not in key_packed yet.
func (r *reader) eachUnpacked(look func(seq int64, descr []byte)) error {
	rows, err := r.c.keys.descrs.Query(r.totals.unpacked(), r.totals.last)
	if err != nil {
		return r.fail(err)
	}
	defer rows.Close()
	for rows.Next() {
		var seq int64
		var descr sql.RawBytes
		if err := rows.Scan(&seq, &descr); err != nil {
			return r.fail(err)
		}
		look(seq, descr)
	}
	if err := rows.Err(); err != nil {
		return r.fail(err)
	}
	return nil
}

func checkPage(offset, limit int64) error {
	if offset < 0 || limit < 0 {
		return fmt.Errorf("there is no page of %d keys at offset %d", limit, offset)
	}
	return nil
}
