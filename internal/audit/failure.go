package audit

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"slices"
	"time"
)

// failureReserve is the disk space in bytes that anonymous failures leave
// alone: they can be caused by anyone, and the module stops without a log.
const failureReserve = 64 << 20

// failureWindow is how often a record of anonymous failures may be written.
const failureWindow = time.Second

// Failure counts a failed attempt of someone unknown. The first is written at
// once, those of the following second when it ends: one record for each type,
// result FAILED, its argument the count in 4 bytes, little-endian. It does not
// wait for the disk. Without space the counts are kept until there is some.
//
// It returns ErrBroken or ErrClosed if the failure cannot be logged.
func (l *Log) Failure(t Type) error {
	if err := (Record{Type: t, Result: Failed}).check(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refused(); err != nil {
		return err
	}
	if l.closing {
		return ErrClosed
	}
	l.count(t, 1)
	if !l.clerk {
		l.clerk = true
		l.work.Add(1)
		go l.seeToFailures()
	}
	return nil
}

// count is called under mu. It stops at the largest number there is a form for.
func (l *Log) count(t Type, n uint32) {
	l.failures[t] += min(n, math.MaxUint32-l.failures[t])
}

// seeToFailures writes what is counted once a window and ends after one in
// which nothing was.
func (l *Log) seeToFailures() {
	defer l.work.Done()
	for {
		if l.room() {
			if _, err := l.writeCounted(); errors.Is(err, ErrBroken) {
				return // for good: Failure refuses from now on
			}
		}
		select {
		case <-l.quit:
			return
		case <-time.After(failureWindow):
		}
		l.mu.Lock()
		if len(l.failures) == 0 {
			l.clerk = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
	}
}

// room tells whether the reserve is free. Not knowing counts as no.
func (l *Log) room() bool {
	free, err := l.cfg.FreeSpace()
	if err != nil {
		l.cfg.Logger.Error("cannot tell the free space of the audit log", "error", err)
		return false
	}
	return free >= failureReserve
}

// writeCounted writes what is counted and returns how much that was. What
// cannot be written stays counted.
func (l *Log) writeCounted() (int, error) {
	l.mu.Lock()
	counted := l.failures
	l.failures = make(map[Type]uint32)
	l.mu.Unlock()
	if len(counted) == 0 {
		return 0, nil
	}
	total := 0
	var recs []Record
	for _, t := range slices.Sorted(maps.Keys(counted)) {
		total += int(counted[t])
		recs = append(recs, Record{Type: t, Result: Failed, Arg: binary.LittleEndian.AppendUint32(nil, counted[t])})
	}
	err := l.Append(context.Background(), recs...)
	if err != nil {
		l.mu.Lock()
		for t, n := range counted {
			l.count(t, n)
		}
		l.mu.Unlock()
	}
	return total, err
}
