package sqlitestore

import (
	"bytes"
	"cmp"
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

// nth returns the seq of the key before which there are n.
func (r *reader) nth(n int64) (seq int64, err error) {
	// Down from the large blocks to the small: of each level it steps through
	// the blocks within the one found before.
	var block int64
	for level := 2; level >= 0; level-- {
		if block, n, err = r.skipBlocks(level, block, n); err != nil {
			return 0, err
		}
		block <<= blockShift
	}
	if err := r.c.keys.skip.QueryRow(block, n).Scan(&seq); err != nil {
		return 0, r.fail(err)
	}
	return seq, nil
}

// skipBlocks goes from a block on as long as all keys of a block are among the
// n to skip. It returns the block where it stops, and what is left of n.
func (r *reader) skipBlocks(level int, from, n int64) (block, left int64, err error) {
	rows, err := r.c.keys.countBlocks.Query(level, from)
	if err != nil {
		return 0, 0, r.fail(err)
	}
	defer rows.Close()
	for rows.Next() {
		var live int64
		if err := rows.Scan(&block, &live); err != nil {
			return 0, 0, r.fail(err)
		}
		if n < live {
			return block, n, nil
		}
		n -= live
	}
	if err := rows.Err(); err != nil {
		return 0, 0, r.fail(err)
	}
	return 0, 0, r.fail(fmt.Errorf("%w: the counts of keys contradict each other; restore a backup", store.ErrCorrupt))
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
	var seqs []int64
	var total int64
	var err error
	from := n.Bytes
	switch {
	case n.Start && n.End:
		// The range of one value: nothing fits between it and the end.
		total, seqs, err = r.lookUp(ctx, n, from, append(slices.Clone(from), 0), r.c.keys.countRange, r.c.keys.pageRange, offset, limit)
	case n.Start:
		total, seqs, err = r.lookUp(ctx, n, from, prefixEnd(from), r.c.keys.countRange, r.c.keys.pageRange, offset, limit)
	case n.End:
		from = reversed(from)
		total, seqs, err = r.lookUp(ctx, n, from, prefixEnd(from), r.c.keys.countSuffixes, r.c.keys.pageSuffixes, offset, limit)
	default:
		total, seqs, err = r.scanDescr(ctx, n, offset, limit)
	}
	if err != nil {
		return store.KeyPage{}, err
	}
	page := store.KeyPage{Total: total}
	for _, seq := range seqs {
		k, err := scanKey(r.c.keys.bySeq.QueryRow(seq))
		if err != nil {
			return store.KeyPage{}, r.fail(err)
		}
		page.Keys = append(page.Keys, k)
	}
	return page, nil
}

// lookUp searches an index for from <= value < to.
func (r *reader) lookUp(ctx context.Context, n store.Needle, from, to []byte, count, page *sql.Stmt, offset, limit int64) (total int64, seqs []int64, err error) {
	if err := count.QueryRow(from, to, manyHits).Scan(&total); err != nil {
		return 0, nil, r.fail(err)
	}
	if total == manyHits {
		return r.scanDescr(ctx, n, offset, limit)
	}
	if offset >= total || limit == 0 {
		return total, nil, nil
	}
	rows, err := page.Query(from, to, limit, offset)
	if err != nil {
		return 0, nil, r.fail(err)
	}
	defer rows.Close()
	for rows.Next() {
		var seq int64
		if err := rows.Scan(&seq); err != nil {
			return 0, nil, r.fail(err)
		}
		seqs = append(seqs, seq)
	}
	if err := rows.Err(); err != nil {
		return 0, nil, r.fail(err)
	}
	return total, seqs, nil
}

// scanDescr looks at every descr, in order of seq.
func (r *reader) scanDescr(ctx context.Context, n store.Needle, offset, limit int64) (total int64, seqs []int64, err error) {
	rows, err := r.c.keys.scan.Query()
	if err != nil {
		return 0, nil, r.fail(err)
	}
	defer rows.Close()
	var hits []byte // indices of one block
	for rows.Next() {
		if err := ctx.Err(); err != nil {
			return 0, nil, err
		}
		var block int64
		var packed sql.RawBytes
		if err := rows.Scan(&block, &packed); err != nil {
			return 0, nil, r.fail(err)
		}
		// Most blocks are done with here, fast; it may also be found across
		// entries.
		if !bytes.Contains(packed, n.Bytes) {
			continue
		}
		hits = hits[:0]
		for rest := []byte(packed); len(rest) > 0; {
			var e packedDescr
			if e, rest, err = unpack(rest); err != nil {
				return 0, nil, r.fail(err)
			}
			if matches(n, e.descr) {
				hits = append(hits, e.index)
			}
		}
		if total+int64(len(hits)) > offset && int64(len(seqs)) < limit {
			slices.SortFunc(hits, cmp.Compare[byte])
			for i, index := range hits {
				if total+int64(i) >= offset && int64(len(seqs)) < limit {
					seqs = append(seqs, block<<blockShift|int64(index))
				}
			}
		}
		total += int64(len(hits))
	}
	if err := rows.Err(); err != nil {
		return 0, nil, r.fail(err)
	}
	return total, seqs, nil
}

func checkPage(offset, limit int64) error {
	if offset < 0 || limit < 0 {
		return fmt.Errorf("there is no page of %d keys at offset %d", limit, offset)
	}
	return nil
}
