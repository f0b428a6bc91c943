package audit

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"softhem/internal/store"
)

// A changeBatch shares one transaction of the store.
type changeBatch struct {
	changes []*change
	done    chan struct{} // closed when err and all changes' own are set
	err     error         // of the transaction
}

type change struct {
	ctx  context.Context
	do   func(ctx context.Context, tx store.Tx) ([]Record, error)
	recs []Record
	own  error // its own failure, which concerns no other
}

// Commit changes the store and logs it as one: when it returns nil, the change
// and the records it returned are on disk; when a crash comes between, the
// next Open writes the records if the change was made.
//
// Changes that wait at the same time share a transaction. An error (or panic)
// of one undoes that one alone; only a full or damaged store fails all. change
// runs on another caller's goroutine, must not call Commit, StartBoot or Close,
// and its ctx does not end: an interrupted statement would undo the others too.
func (l *Log) Commit(ctx context.Context, do func(ctx context.Context, tx store.Tx) ([]Record, error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := &change{ctx: ctx, do: do}
	l.mu.Lock()
	if err := l.refused(); err != nil {
		l.mu.Unlock()
		return err
	}
	b := l.changes
	leads := b == nil
	if leads {
		b = &changeBatch{done: make(chan struct{}), err: errAborted}
		l.changes = b
	}
	b.changes = append(b.changes, c)
	l.mu.Unlock()

	if leads {
		l.leadChanges(b)
	} else {
		<-b.done
	}
	if c.own != nil {
		return c.own
	}
	return b.err
}

func (l *Log) leadChanges(b *changeBatch) {
	defer close(b.done)
	l.committing.Lock()
	defer l.committing.Unlock()
	l.mu.Lock()
	l.changes = nil
	err := l.refused()
	l.mu.Unlock()
	if err != nil {
		b.err = err
		return
	}
	b.err = l.commit(b.changes)
}

// commit runs the changes in one transaction and logs them. The changes run
// while others append; the turn is taken only once the records are known, and
// then kept until they are in the file, so that the place the store has noted
// stays theirs.
func (l *Log) commit(changes []*change) error {
	var (
		lines []byte
		next  cursor
		held  bool
	)
	defer func() {
		if held {
			l.turn.Unlock()
		}
	}()
	ctx := context.WithoutCancel(changes[0].ctx)
	err := l.cfg.Store.Update(ctx, func(tx store.Tx) error {
		var recs []Record
		for _, c := range changes {
			if err := l.attempt(tx, c); err != nil {
				return err
			}
			recs = append(recs, c.recs...)
		}
		if len(recs) == 0 {
			return nil
		}
		l.turn.Lock()
		held = true
		if err := l.ready(); err != nil {
			return err
		}
		// The tail set below replaces the one before, whose lines must not
		// need it any more; and the log must reach Offset after a crash.
		if err := l.sync(); err != nil {
			return err
		}
		lines, next = l.render(recs)
		if err := l.reserve(int64(len(lines))); err != nil {
			return err
		}
		return tx.SetLogTail(ctx, store.LogTail{File: l.seg.id, Offset: l.seg.end, Lines: lines})
	})
	if err != nil || !held {
		return err
	}
	// A crash here: the store has the changes and their lines; the next Open
	// puts those in the file. The same if put fails.
	return l.put(lines, next)
}

// attempt runs one change. It returns an error that fails the transaction.
func (l *Log) attempt(tx store.Tx, c *change) error {
	if c.own = c.ctx.Err(); c.own != nil {
		return nil
	}
	ctx := context.WithoutCancel(c.ctx)
	err := tx.Attempt(ctx, func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				l.cfg.Logger.ErrorContext(ctx, "a state change panicked", "panic", p, "stack", string(debug.Stack()))
				err = fmt.Errorf("audit: the change panicked: %v", p)
			}
			c.own = err
		}()
		if c.recs, err = c.do(ctx, tx); err != nil {
			return err
		}
		for _, r := range c.recs {
			if err := r.check(); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		return nil
	}
	c.recs = nil
	// SQLite may have given up the whole transaction on these two, and an
	// error that is not the change's is that of the transaction.
	if c.own == nil || errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrCorrupt) {
		return err
	}
	return nil
}
