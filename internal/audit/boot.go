package audit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"softhem/internal/suite"
)

// A file is named by the time of its first record, 8 hex digits, so names sort
// by age. Beside the files there may be
//
//	<id>.new        a file being made; it counts once renamed
//	<id>.torn       what recovery took out of file <id>
//	<id>.torn.new   the same, being made
//	checkpoint      the last signed checkpoint, and checkpoint.new
const (
	newSuffix  = ".new"
	tornSuffix = ".torn"
)

func formatID(t int64) string { return fmt.Sprintf("%08x", t) }

// parseID returns the time in a file name, and whether it is one.
func parseID(name string) (int64, bool) {
	t, err := strconv.ParseUint(name, 16, 32)
	return int64(t), err == nil && formatID(int64(t)) == name
}

// StartBoot closes the current file and starts the next one with KEY_INIT,
// STARTUP, the records given (the self-test's), and what recovery has to report.
// Nothing comes between them.
//
// On ErrFull the current file goes on.
func (l *Log) StartBoot(ctx context.Context, first ...Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, r := range first {
		if err := r.check(); err != nil {
			return err
		}
	}
	if l.Current() != "" && l.room() { // they belong to the boot they happened in
		l.writeCounted() // what cannot be written stays counted
	}
	l.committing.Lock() // so that the store can be used with the turn held
	defer l.committing.Unlock()
	l.turn.Lock()
	defer l.turn.Unlock()
	if err := l.ready(); err != nil && !errors.Is(err, ErrNoBoot) {
		return err
	}

	start := max(clampTime(l.cfg.Now()), l.prev+1, l.lastTime.Load())
	if start > math.MaxUint32 {
		return errors.New("audit: the file names are used up")
	}
	s := &segment{id: formatID(start)}
	key := suite.Random(keySize)
	lines := fmt.Appendf(nil, "# %s\n", l.cfg.Product)
	header := len(lines)
	lines = s.renderKeyInit(lines, start, key, l.cfg.Sign(key))
	lines = s.render(lines, start, Record{Type: Startup})
	for _, r := range slices.Concat(first, l.carry) {
		lines = s.render(lines, start, r)
	}
	s.end = int64(len(lines))

	// A crash before the rename leaves a .new, which the next Open removes,
	// the report of a recovery still to be made, and maybe what came before a
	// file that is not there, which nobody asks for; after it, the file starts
	// whole. The head is kept last: until then it is the one that a report
	// of load was made from, and makes it again.
	temp := s.id + newSuffix
	var err error
	if s.f, err = l.dir.create(temp); err == nil {
		if s.filled, err = writeNew(s.f, lines, l.dir.chunk()); err != nil {
			s.f.Close()
			l.dir.remove(temp)
		}
	}
	if isFull(err) {
		return ErrFull
	}
	if err != nil {
		return l.fail("making a file", err)
	}
	if err := l.keepPast(ctx, s.id); err != nil {
		s.f.Close()
		l.dir.remove(temp)
		return err
	}
	if l.seg != nil {
		if err := l.finish(); err != nil {
			s.f.Close()
			return err
		}
		l.total += l.seg.end
	}
	if err := l.dir.rename(temp, s.id); err != nil {
		s.f.Close()
		return l.fail("naming a file", err)
	}

	l.seg, l.carry, l.prev = s, nil, start
	l.lastTime.Store(s.time)
	l.syncing.Lock()
	l.active, l.dirty = s.f, false
	l.syncing.Unlock()
	l.mu.Lock()
	l.ids = append(l.ids, s.id)
	l.current = s.id
	l.mu.Unlock()
	leaf := l.tree.size
	l.grow(lines[header:])
	l.tellSink(Written{Leaf: leaf, Header: string(lines[:header-1]), Lines: lines[header:]})
	h, err := l.sign(l.tree, s.id)
	if err == nil {
		l.keepHead(ctx, h)
	}
	return err
}

// writeNew writes the first lines of a file and zeros to the end of the chunk,
// and returns its size.
func writeNew(f file, lines []byte, chunk int64) (int64, error) {
	if _, err := f.WriteAt(lines, 0); err != nil {
		return 0, err
	}
	size := int64(len(lines))
	if chunk > 0 {
		var err error
		if size, err = fill(f, size, size+chunk-size%chunk); err != nil && !isFull(err) {
			return size, err
		}
	}
	return size, f.Sync()
}

// finish cuts the current file to its lines, syncs and closes it. A crash
// before the sync leaves lines that were synced, or zeros after them.
func (l *Log) finish() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	if err := l.seg.f.Truncate(l.seg.end); err != nil {
		return l.fail("cutting the file", err)
	}
	l.dirty = true
	if err := l.syncLocked(); err != nil {
		return err
	}
	l.active = nil
	if err := l.seg.f.Close(); err != nil {
		return l.fail("closing the file", err)
	}
	return nil
}
