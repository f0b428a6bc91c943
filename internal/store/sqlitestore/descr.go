package sqlitestore

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"softhem/internal/store"
)

// blockShift: a block is 64 consecutive seqs.
const blockShift = 6

// indexDescr makes the descr of a key findable by its end and by any part.
// SQLite itself sees to the beginning.
func (t *tx) indexDescr(seq int64, descr []byte) error {
	if len(descr) == 0 {
		return nil
	}
	if _, err := t.c.keys.addSuffix.Exec(reversed(descr), seq); err != nil {
		return t.fail(err)
	}
	entry := make([]byte, 0, 2+len(descr))
	entry = append(entry, packedIndex(seq), byte(len(descr)))
	entry = append(entry, descr...)
	if _, err := t.c.keys.addPacked.Exec(seq>>blockShift, entry); err != nil {
		return t.fail(err)
	}
	return nil
}

// unindexDescr undoes indexDescr.
func (t *tx) unindexDescr(seq int64, descr []byte) error {
	if len(descr) == 0 {
		return nil
	}
	if _, err := t.c.keys.removeSuffix.Exec(reversed(descr), seq); err != nil {
		return t.fail(err)
	}
	block := seq >> blockShift
	var packed []byte
	if err := t.c.keys.getPacked.QueryRow(block).Scan(&packed); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return t.fail(err)
	}
	for rest := packed; len(rest) > 0; {
		e, after, err := unpack(rest)
		if err != nil {
			return t.fail(err)
		}
		if e.index != packedIndex(seq) {
			rest = after
			continue
		}
		at := len(packed) - len(rest)
		packed = slices.Delete(packed, at, len(packed)-len(after))
		if len(packed) == 0 {
			_, err = t.c.keys.removePacked.Exec(block)
		} else {
			_, err = t.c.keys.putPacked.Exec(packed, block)
		}
		if err != nil {
			return t.fail(err)
		}
		return nil
	}
	return t.fail(fmt.Errorf("%w: the descr of key %d is not in its block; restore a backup", store.ErrCorrupt, seq))
}

// A packedDescr is an entry of key_packed:
//
//	0       1        2           2+length
//	┌───────┬────────┬───────────┐
//	│ index │ length │ descr     │   index: seq & 63
//	└───────┴────────┴───────────┘
type packedDescr struct {
	index byte
	descr []byte
}

func packedIndex(seq int64) byte { return byte(seq & (1<<blockShift - 1)) }

// unpack takes the first entry off packed, which is not empty.
func unpack(packed []byte) (e packedDescr, rest []byte, err error) {
	if len(packed) < 2 || len(packed) < 2+int(packed[1]) {
		return e, nil, fmt.Errorf("%w: a block of descr ends in the middle of one; restore a backup", store.ErrCorrupt)
	}
	end := 2 + int(packed[1])
	return packedDescr{packed[0], packed[2:end]}, packed[end:], nil
}

// matches tells whether the needle is in descr, at its place.
func matches(n store.Needle, descr []byte) bool {
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
