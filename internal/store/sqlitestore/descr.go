package sqlitestore

import (
	"bytes"
	"fmt"
	"slices"

	"softhem/internal/store"
)

// packShift: a row of key_packed is of 256 consecutive seqs. More in one would
// be read a little faster still, but is made anew when one of its keys changes.
const packShift = 8

func packBlock(seq int64) int64   { return seq >> packShift }
func packStart(block int64) int64 { return block << packShift }

// unpacked is the first seq whose block has no row in key_packed yet.
func (t *totals) unpacked() int64 { return packStart(packBlock(t.last + 1)) }

// packEnding packs the block that ends with seq, if one does.
func (t *tx) packEnding(seq int64) error {
	if block := packBlock(seq); packBlock(seq+1) != block {
		return t.pack(block)
	}
	return nil
}

// pack makes the row of a block in key_packed anew.
func (t *tx) pack(block int64) error {
	rows, err := t.c.keys.descrs.Query(packStart(block), packStart(block+1)-1)
	if err != nil {
		return t.fail(err)
	}
	defer rows.Close()
	var packed []byte
	for rows.Next() {
		var seq int64
		var descr []byte
		if err := rows.Scan(&seq, &descr); err != nil {
			return t.fail(err)
		}
		packed = append(packed, byte(seq-packStart(block)), byte(len(descr)))
		packed = append(packed, descr...)
	}
	if err := rows.Err(); err != nil {
		return t.fail(err)
	}
	if len(packed) == 0 {
		_, err = t.c.keys.removePacked.Exec(block)
	} else {
		_, err = t.c.keys.putPacked.Exec(block, packed)
	}
	if err != nil {
		return t.fail(err)
	}
	return nil
}

// reindexDescr is called when the row of a key has got another descr, or is
// gone. SQLite itself keeps the index for the beginning.
func (t *tx) reindexDescr(seq int64, was, is []byte) error {
	if bytes.Equal(was, is) {
		return nil
	}
	if len(was) > 0 {
		if _, err := t.c.keys.removeSuffix.Exec(reversed(was), seq); err != nil {
			return t.fail(err)
		}
	}
	if len(is) > 0 {
		if _, err := t.c.keys.addSuffix.Exec(reversed(is), seq); err != nil {
			return t.fail(err)
		}
	}
	if err := t.loadTotals(); err != nil {
		return err
	}
	if seq < t.totals.unpacked() {
		return t.pack(packBlock(seq))
	}
	return nil
}

// A packedDescr is an entry of key_packed:
//
//	0       1        2           2+length
//	┌───────┬────────┬───────────┐
//	│ index │ length │ descr     │   index: seq & 255
//	└───────┴────────┴───────────┘
type packedDescr struct {
	index byte
	descr []byte
}

// unpack takes the first entry off packed, which is not empty.
func unpack(packed []byte) (e packedDescr, rest []byte, err error) {
	if len(packed) < 2 || len(packed) < 2+int(packed[1]) {
		return e, nil, fmt.Errorf("%w: a block of descr ends in the middle of one; restore a backup", store.ErrCorrupt)
	}
	end := 2 + int(packed[1])
	return packedDescr{packed[0], packed[2:end]}, packed[end:], nil
}

func reversed(b []byte) []byte {
	r := slices.Clone(b)
	slices.Reverse(r)
	return r
}

// prefixEnd is the least value after all descr that begin with prefix.
func prefixEnd(prefix []byte) []byte {
	end := slices.Clone(prefix)
	for len(end) > 0 && end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	if len(end) == 0 { // nothing but 0xff: what is greater than any descr
		return bytes.Repeat([]byte{0xff}, maxDescr+1)
	}
	end[len(end)-1]++
	return end
}
