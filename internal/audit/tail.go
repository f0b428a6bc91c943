package audit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"

	"softhem/internal/records"
	"softhem/internal/store"
)

// ErrNoLeaf: the log does not have that many records, or the file that had it
// was taken away.
var ErrNoLeaf = errors.New("audit: no such leaf")

// MaxTail is how many bytes a Tail has at most.
const MaxTail = 1 << 20

var errLineTooLong = bufio.ErrBufferFull

func newLineReader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, 2*maxLine) }

// A place is where a leaf begins. Who reads the log in order goes on where the
// last answer ended, instead of counting lines from the start of a file.
type place struct {
	leaf   int64
	file   string
	offset int64
}

const maxPlaces = 16 // readers at a time that are remembered

// Tail returns records from leaf on, each with its newline, of this and the
// following files: as many whole ones as go into MaxTail bytes. They are on
// disk. It is empty when leaf is where the log ends, ErrNoLeaf beyond.
func (l *Log) Tail(ctx context.Context, leaf int64) ([]byte, error) {
	l.turn.Lock()
	if err := l.ready(); err != nil {
		l.turn.Unlock()
		return nil, err
	}
	if err := l.sync(); err != nil { // what is told must not be lost
		l.turn.Unlock()
		return nil, err
	}
	size, current, end := l.tree.size, l.seg.id, l.seg.end
	l.turn.Unlock()
	if leaf < 0 || leaf > size {
		return nil, ErrNoLeaf
	}
	if leaf == size {
		return nil, nil
	}
	l.mu.Lock()
	ids := slices.Clone(l.ids)
	l.mu.Unlock()
	at, err := l.find(ctx, ids, leaf)
	if err != nil {
		return nil, err
	}

	var tail []byte
	next := leaf
	for next < size {
		limit := int64(0)
		if at.file == current {
			limit = end
		}
		full := false
		err := l.eachLeaf(at.file, at.offset, limit, func(line []byte, lineEnd int64) bool {
			if at.leaf >= leaf {
				if len(tail)+len(line)+1 > MaxTail {
					full = true
					return false
				}
				tail = append(append(tail, line...), '\n')
				next++
			}
			at.leaf++
			at.offset = lineEnd
			return true
		})
		if err != nil {
			return nil, fmt.Errorf("audit: reading %s: %w", at.file, err)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if full || at.file == current {
			break
		}
		i := slices.Index(ids, at.file) + 1
		if i == 0 || i == len(ids) {
			break
		}
		at.file, at.offset = ids[i], 0
		first, err := l.firstLeaf(ctx, at.file)
		if err != nil {
			return nil, err
		}
		if first != at.leaf { // the file between is gone
			if next == leaf {
				return nil, ErrNoLeaf
			}
			return tail, nil
		}
	}
	l.remember(at)
	return tail, nil
}

// find returns a place at or before leaf, in the file that has it.
func (l *Log) find(ctx context.Context, ids []string, leaf int64) (place, error) {
	l.mu.Lock()
	best := place{leaf: -1}
	for _, p := range l.places {
		if p.leaf <= leaf && p.leaf > best.leaf {
			best = p
		}
	}
	l.mu.Unlock()
	if best.leaf == leaf {
		return best, nil
	}
	var err error
	start := func(id string) int64 {
		first, loadErr := l.firstLeaf(ctx, id)
		err = errors.Join(err, loadErr)
		return first
	}
	i := sort.Search(len(ids), func(i int) bool { return start(ids[i]) > leaf }) - 1
	if err == nil && i < 0 {
		return best, ErrNoLeaf // of a file that is gone
	}
	if err == nil {
		if first := start(ids[i]); first > best.leaf {
			best = place{leaf: first, file: ids[i]}
		}
	}
	return best, err
}

// firstLeaf is the number of a file's first record.
func (l *Log) firstLeaf(ctx context.Context, id string) (first int64, err error) {
	err = l.cfg.Store.View(ctx, func(r store.Reader) error {
		p, err := records.Load[past](ctx, r, l.cfg.Sealer, kindFile, id)
		first = p.Tree.Size
		return err
	})
	return first, err
}

// remember keeps the place where a reader will go on.
func (l *Log) remember(p place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.places) == maxPlaces {
		l.places = l.places[1:]
	}
	l.places = append(slices.Clone(l.places), p)
}
