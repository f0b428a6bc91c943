package audit

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"time"
)

// errAborted is what the others of a batch get if their leader panicked.
var errAborted = errors.New("audit: the write was aborted")

// A batch is what one leader writes and syncs. Whoever finds no batch makes
// one and leads it; those who come while the leader waits for its turn join.
type batch struct {
	recs    []Record
	callers int
	want    int           // callers at whom full is closed; 0 if nobody waits
	full    chan struct{} // see gather
	done    chan struct{} // closed when err is set
	err     error
}

// Append writes records, next to each other, and returns when they are as
// durable as Config.Durability says. ctx counts only until they are in line;
// from then on they are written.
//
// On an error nothing of them is in the log, except with ErrBroken: then they
// may or may not turn up after the next Open.
func (l *Log) Append(ctx context.Context, recs ...Record) error {
	for _, r := range recs {
		if err := r.check(); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	if err := l.refused(); err != nil {
		l.mu.Unlock()
		return err
	}
	b := l.queue
	leads := b == nil
	if leads {
		b = &batch{done: make(chan struct{}), err: errAborted}
		l.queue = b
	}
	b.recs = append(b.recs, recs...)
	if b.callers++; b.callers == b.want {
		close(b.full)
	}
	l.mu.Unlock()

	if leads {
		l.lead(b)
	} else {
		<-b.done
	}
	return b.err
}

func (l *Log) lead(b *batch) {
	defer close(b.done) // after the turn is given on
	l.turn.Lock()
	defer l.turn.Unlock()
	// Those whom the last sync woke get to run and join. With 8 appenders on 2
	// processors: 18 000 to 46 000 appends/s, without it 6 000 to 30 000.
	runtime.Gosched()
	l.gather(b)
	defer l.letGo(b)
	if b.err = l.ready(); b.err != nil {
		return
	}
	b.err = errAborted
	lines, next := l.render(b.recs)
	if err := l.reserve(int64(len(lines))); err != nil {
		b.err = err
		return
	}
	b.err = l.put(lines, next)
}

// render makes the lines for recs where the file ends now, and says where the
// file would end then. Like all below it is called with the turn held.
func (l *Log) render(recs []Record) ([]byte, cursor) {
	next, now := l.seg.cursor, l.cfg.Now()
	l.buf = l.buf[:0]
	for _, r := range recs {
		l.buf = next.render(l.buf, now, r)
	}
	return l.buf, next
}

// reserve sees that n more bytes of lines overwrite zeros that are on disk. A
// full disk is found here, before anything is promised.
func (l *Log) reserve(n int64) error {
	s, chunk := l.seg, l.dir.chunk()
	need := s.end + n
	if chunk == 0 || need <= s.filled {
		return nil
	}
	filled, err := fill(s.f, s.filled, need+chunk-need%chunk)
	s.filled = filled
	if err != nil && !isFull(err) {
		return l.fail("extending the file", err)
	}
	if filled < need {
		l.cfg.Logger.Error("no space left for the audit log", "file", s.id, "error", err)
		return ErrFull
	}
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.dirty = true
	return l.syncLocked()
}

// fill writes zeros to f from one place to another and says how far it came.
func fill(f file, from, to int64) (int64, error) {
	zero := make([]byte, min(to-from, chunkSize))
	for from < to {
		n, err := f.WriteAt(zero[:min(to-from, int64(len(zero)))], from)
		from += int64(n)
		if err != nil {
			return from, err
		}
	}
	return from, nil
}

// put writes rendered lines at the end of the file. What follows the log (the
// tree and the sink) sees every line here, once, in order, but for those that
// StartBoot begins a file with.
func (l *Log) put(lines []byte, next cursor) error {
	s := l.seg
	if _, err := s.f.WriteAt(lines, s.end); err != nil {
		return l.fail("writing", err)
	}
	l.planCheckpoint(next.seq - s.seq)
	s.cursor = next
	s.end += int64(len(lines))
	leaf := l.tree.size
	l.grow(lines)
	l.lastTime.Store(next.time)
	if err := l.settle(); err != nil {
		return err
	}
	l.tellSink(Written{Leaf: leaf, Lines: lines})
	return nil
}

// settle makes what was written as durable as asked for.
func (l *Log) settle() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.dirty = true
	if l.cfg.Durability == Relaxed {
		l.planSync()
		return nil
	}
	return l.syncLocked()
}

// grow adds whole lines to the tree.
func (l *Log) grow(lines []byte) {
	for line := range bytes.Lines(lines) {
		l.tree.add(line[:len(line)-1])
	}
}

// sync makes all that was written durable.
func (l *Log) sync() error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	return l.syncLocked()
}

// syncLocked is called with syncing held. That only one syncs at a time is not
// for speed: the kernel reports a lost write to one fsync only, and a second
// one beside it would be told that all is well.
func (l *Log) syncLocked() error {
	if err := l.Broken(); err != nil {
		return err
	}
	if !l.dirty || l.active == nil {
		return nil
	}
	l.dirty = false // before: a line written meanwhile sets it again
	start := time.Now()
	if err := l.active.Sync(); err != nil {
		return l.fail("syncing", err)
	}
	l.lastSync.Store(int64(time.Since(start)))
	return nil
}

// planSync sees that a sync follows soon.
func (l *Log) planSync() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lateSync != nil || l.closing { // Close syncs too
		return
	}
	l.work.Add(1)
	l.lateSync = time.AfterFunc(relaxedDelay, func() {
		defer l.work.Done()
		l.mu.Lock()
		l.lateSync = nil // a line that comes now may be missed by this sync
		l.mu.Unlock()
		l.sync() // an error is kept as Broken
	})
}
