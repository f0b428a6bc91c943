package sqlitestore

// Blocks of level 0 are of 64 consecutive seqs, those of the next of 64 of
// these, and so on; see key_gap.
const (
	gapShift  = 6
	gapLevels = 4
)

// gapBlock is the block of a level that a seq is in.
func gapBlock(level int, seq int64) int64 { return seq >> (gapShift * (level + 1)) }

// gapStart is the first seq of a block, and of the one after it the end.
func gapStart(level int, block int64) int64 { return block << (gapShift * (level + 1)) }

// countGap notes that a key is gone.
func (t *tx) countGap(seq int64) error {
	for level := range gapLevels {
		block := gapBlock(level, seq)
		var gone int64
		if err := t.c.keys.addGap.QueryRow(level, block).Scan(&gone); err != nil {
			return t.fail(err)
		}
		// All of it gone: no way leads into it any more.
		if level > 0 && gone == gapStart(level, 1) {
			if _, err := t.c.keys.dropGaps.Exec(level-1, block<<gapShift, (block+1)<<gapShift-1); err != nil {
				return t.fail(err)
			}
		}
	}
	return nil
}

// nth returns the seq of the key before which there are n; there must be one.
func (r *reader) nth(n int64) (seq int64, err error) {
	// Down from the large blocks to the small: of each level it steps through
	// the blocks within the one found before.
	var block int64
	for level := gapLevels - 1; level >= 0; level-- {
		if block, n, err = r.skipBlocks(level, block<<gapShift, n); err != nil {
			return 0, err
		}
	}
	if err := r.c.keys.skip.QueryRow(gapStart(0, block), n).Scan(&seq); err != nil {
		return 0, r.fail(noRows(err, "keys that are counted"))
	}
	return seq, nil
}

// skipBlocks goes from a block on as long as all keys of a block are among the
// n to skip. It returns the block where it stops, and what is left of n.
func (r *reader) skipBlocks(level int, from, n int64) (block, left int64, err error) {
	size := gapStart(level, 1)
	rows, err := r.c.keys.gaps.Query(level, from)
	if err != nil {
		return 0, 0, r.fail(err)
	}
	defer rows.Close()
	block = from
	for rows.Next() {
		var next, gone int64
		if err := rows.Scan(&next, &gone); err != nil {
			return 0, 0, r.fail(err)
		}
		whole := (next - block) * size // those without a row
		if n < whole {
			break
		}
		n -= whole
		block = next
		if n < size-gone {
			return block, n, nil
		}
		n -= size - gone
		block++
	}
	if err := rows.Err(); err != nil {
		return 0, 0, r.fail(err)
	}
	return block + n/size, n % size, nil
}
