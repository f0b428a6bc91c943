package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"softhem/internal/records"
	"softhem/internal/store"
)

// What the module keeps of the tree, sealed in its store:
//
//	audit-file/<id>  the tree before the first record of that file, put there
//	                 before the file gets its name; it is why a start reads
//	                 the last file only, and how a leaf is found
//	audit-head/log   size and root of the tree at some moment, put there after
//	                 the records were synced
//
// So the store is never ahead of the log, and no file is ahead of the store.
// After a crash the head is behind the log by what a checkpoint's interval
// allows. Anything else means that one of the two is not what it was: an older
// copy, cut, or written by somebody else.
const (
	kindFile store.Kind = "audit-file"
	kindHead store.Kind = "audit-head"
	idHead              = "log"
)

// Owns tells whether records of a kind are the log's. Without one of them Open
// reads more files, or has nothing to compare the log with.
func Owns(kind store.Kind) bool { return kind == kindFile || kind == kindHead }

// CheckTail says what is wrong with a log tail that Open would not take.
func CheckTail(tail store.LogTail) error {
	if _, ok := parseID(tail.File); !ok || tail.Offset < 0 {
		return fmt.Errorf("audit: log tail for file %q: %w", tail.File, store.ErrCorrupt)
	}
	return nil
}

// Defaults of Config.
const (
	defaultCheckpointRecords  = 10_000
	defaultCheckpointInterval = 10 * time.Second
)

// A past is what came before a file.
type past struct {
	Tree  frontier `json:"tree"`
	Files int      `json:"files"`
	Bytes int64    `json:"bytes"` // of those files
}

// A head is the end of the log at some moment.
type head struct {
	File string    `json:"file"` // the last
	Size int64     `json:"size"` // records in the tree
	Root tlog.Hash `json:"root"`
	// Note is the checkpoint of it, signed.
	Note []byte `json:"note"`
}

// load brings the tree to where the files end, and compares it with what is
// kept. What does not fit is reported like what recovery finds.
func (l *Log) load(ctx context.Context) error {
	var (
		kept    head
		hasHead bool
		pasts   = make(map[string]past) // of the last file; of those before it that have none
		from    int
		behind  string // the first file that the store knows nothing of
	)
	sizes, err := l.sizes()
	if err != nil {
		return err
	}
	err = l.cfg.Store.View(ctx, func(r store.Reader) error {
		if l.cfg.Dir == "" {
			return nil // what is kept is of a log that went with its process
		}
		if kept, err = records.Load[head](ctx, r, l.cfg.Sealer, kindHead, idHead); err == nil {
			hasHead = true
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		for i := len(l.ids) - 1; i >= 0; i-- {
			p, err := records.Load[past](ctx, r, l.cfg.Sealer, kindFile, l.ids[i])
			if err == nil {
				from, pasts[l.ids[i]] = i, p
				return nil
			}
			if !errors.Is(err, store.ErrNotFound) {
				return err
			}
			behind = l.ids[i]
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("audit: what is kept of the log: %w", err)
	}

	var t tree
	var total int64 // bytes of the files before
	for _, n := range sizes[:from] {
		total += n
	}
	if len(l.ids) > 0 {
		if p, ok := pasts[l.ids[from]]; ok {
			if t, err = p.Tree.tree(); err != nil {
				return err
			}
			if p.Files != from {
				l.mismatch("files", l.ids[from], int64(p.Files), int64(from))
			} else if p.Bytes != total {
				l.mismatch("bytes", l.ids[from], p.Bytes, total)
			}
		}
	}
	if hasHead && behind != "" {
		l.mismatch("ahead", behind, kept.Size, 0)
	}
	adopted := make(map[string]past)
	fits := !hasHead || t.size > kept.Size || t.size == kept.Size && t.root() == kept.Root
	for i := from; i < len(l.ids); i++ {
		if _, ok := pasts[l.ids[i]]; !ok {
			adopted[l.ids[i]] = past{Tree: t.frontier(), Files: i, Bytes: total}
		}
		err := l.eachLeaf(l.ids[i], 0, 0, func(line []byte, _ int64) bool {
			t.add(line)
			fits = fits || t.size == kept.Size && t.root() == kept.Root
			return true
		})
		if err != nil {
			return fmt.Errorf("audit: reading %s: %w", l.ids[i], err)
		}
		total += sizes[i]
	}
	switch {
	case t.size < kept.Size:
		l.mismatch("short", kept.File, kept.Size, t.size)
	case !fits:
		l.mismatch("other", kept.File, kept.Size, t.size)
	}
	l.tree, l.total, l.adopted = t, total, adopted
	if len(adopted) > 0 {
		l.cfg.Logger.InfoContext(ctx, "the tree over the audit log was made from its files", "files", len(adopted), "records", t.size)
	}
	return nil
}

// mismatch reports that the log is not the one that was kept. The module
// serves on: to refuse would hand whoever can change a file the means to stop
// it, and would help nobody who reads the report. What went on before, the
// last checkpoint outside shows.
func (l *Log) mismatch(what, id string, kept, found int64) {
	l.rolledBack = true
	l.cfg.Logger.Error("THE AUDIT LOG IS NOT THE ONE THIS MODULE KEPT: the log or the store was put back to an older state, cut, or changed; verify it with the last checkpoint you have",
		"what", what, "file", id, "kept", kept, "found", found)
	l.carry = append(l.carry, rollbackRecord(what, id, kept, found))
}

func rollbackRecord(what, id string, kept, found int64) Record {
	return Record{Type: NonSecureState, Result: Error, Arg: fmt.Appendf(nil, "%s %s %d %d", what, id, kept, found)}
}

// RolledBack tells whether Open found a log that is not the one that was kept.
func (l *Log) RolledBack() bool { return l.rolledBack }

// sizes are those of the files, in bytes.
func (l *Log) sizes() ([]int64, error) {
	sizes := make([]int64, len(l.ids))
	for i, id := range l.ids {
		n, err := l.dir.size(id)
		if err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
		sizes[i] = n
	}
	return sizes, nil
}

// keepPast keeps the tree before a file that is about to begin. It is called
// with committing and the turn held, so nobody in the store waits for either.
func (l *Log) keepPast(ctx context.Context, id string) error {
	l.mu.Lock()
	p := past{Tree: l.tree.frontier(), Files: len(l.ids), Bytes: l.total}
	l.mu.Unlock()
	if l.seg != nil {
		p.Bytes += l.seg.end
	}
	return l.cfg.Store.Update(ctx, func(tx store.Tx) error {
		return records.Save(ctx, tx, l.cfg.Sealer, kindFile, id, p)
	})
}

// checkpoint is the signed checkpoint of all records so far, which are on disk
// when it returns: one of a record that a crash then takes away would look
// like a log that was cut.
func (l *Log) checkpoint() (head, error) {
	l.turn.Lock()
	if err := l.ready(); err != nil {
		l.turn.Unlock()
		return head{}, err
	}
	if err := l.sync(); err != nil {
		l.turn.Unlock()
		return head{}, err
	}
	t, id := l.tree, l.seg.id
	l.turn.Unlock()
	return l.sign(t, id)
}

func (l *Log) sign(t tree, id string) (head, error) {
	c := Checkpoint{Origin: l.cfg.Origin, Size: t.size, Root: t.root()}
	note, err := c.signed(l.cfg.EIDSign, l.cfg.Sign)
	return head{File: id, Size: c.Size, Root: c.Root, Note: note}, err
}

// Checkpoint returns a signed checkpoint of all records so far.
func (l *Log) Checkpoint(ctx context.Context) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h, err := l.checkpoint()
	return h.Note, err
}

// planCheckpoint sees that a checkpoint follows n more records: at once when
// there are enough, else within the interval.
func (l *Log) planCheckpoint(n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing { // Close makes one
		return
	}
	l.uncovered += n
	if l.lateHead == nil {
		l.work.Add(1)
		l.lateHead = time.AfterFunc(l.cfg.CheckpointInterval, func() {
			defer l.work.Done()
			l.mu.Lock()
			l.lateHead, l.uncovered = nil, 0 // a record that comes now may be missed by this one
			l.mu.Unlock()
			l.committing.Lock() // one head at a time, the later after the earlier
			defer l.committing.Unlock()
			if h, err := l.checkpoint(); err == nil {
				l.keepHead(context.Background(), h)
			}
		})
	}
	if l.uncovered >= uint64(l.cfg.CheckpointRecords) && l.lateHead.Stop() {
		l.lateHead.Reset(0)
	}
}

// keepHead keeps and publishes a checkpoint, and with the first what came
// before the files that had to be read: a report of theirs is in the log now.
// It is called with committing held. If the store cannot take it the next one will do; what is kept is
// older then, and no less true.
func (l *Log) keepHead(ctx context.Context, h head) {
	err := l.cfg.Store.Update(ctx, func(tx store.Tx) error {
		for id, p := range l.adopted {
			if err := records.Save(ctx, tx, l.cfg.Sealer, kindFile, id, p); err != nil {
				return err
			}
		}
		return records.Save(ctx, tx, l.cfg.Sealer, kindHead, idHead, h)
	})
	if err == nil {
		l.adopted = nil
		err = l.publish(h.Note)
	}
	if err != nil {
		l.cfg.Logger.ErrorContext(ctx, "the checkpoint of the audit log could not be kept", "records", h.Size, "error", err)
	}
}

// checkpointFile has the latest checkpoint, beside the files, for whoever
// takes it to another machine. Nobody here reads it, so it is not synced.
const checkpointFile = "checkpoint"

func (l *Log) publish(note []byte) error {
	if l.cfg.Dir == "" {
		return nil
	}
	f, err := l.dir.create(checkpointFile + newSuffix)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(note, 0)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return l.dir.rename(checkpointFile+newSuffix, checkpointFile)
}

// eachLeaf calls yield with each line of a file that is a leaf, from the
// offset of a line on, and with the offset of its end; until yield returns
// false. Offset 0 is the header. limit, if not 0, is where the file ends. What
// is no whole line is no leaf.
func (l *Log) eachLeaf(id string, offset, limit int64, yield func(line []byte, end int64) bool) error {
	f, err := l.dir.open(id)
	if err != nil {
		return err
	}
	defer f.Close()
	if limit == 0 {
		if limit, err = f.Size(); err != nil {
			return err
		}
	}
	r := newLineReader(io.NewSectionReader(f, offset, limit-offset))
	for {
		line, err := r.ReadSlice('\n')
		switch {
		case err == io.EOF, errors.Is(err, errLineTooLong):
			return nil
		case err != nil:
			return err
		}
		header := offset == 0
		offset += int64(len(line))
		if !header && !yield(line[:len(line)-1], offset) {
			return nil
		}
	}
}
