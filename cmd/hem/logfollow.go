package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/audit"
)

func newLogFollowCmd(o *options) *cobra.Command {
	var once, all bool
	var interval time.Duration
	c := &cobra.Command{
		Use:   "follow",
		Short: "Print records as they are written, and watch over the log",
		Long: `Print the records of the log as they are written, one a line, and verify from checkpoint to
checkpoint that the module has changed nothing it said before. If it has, this ends with status 1.

What was seen last is kept under $XDG_STATE_HOME/softhem, so that the next run goes on there: two files
named by the module's identity, .checkpoint with the last checkpoint that held, and .leaves with the
hash of every record, 32 bytes each. The first run reads the whole log, and prints what comes after it.

A record is printed when its line holds, at once, and is sure when the checkpoint after it has been
verified, within --interval. Each read is in the module's log too.`,
		Example: `  hem log follow
  hem log follow --once --all
  hem log verify --checkpoint ~/.local/state/softhem/*.checkpoint`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if interval < 100*time.Millisecond {
				return &usageError{c.CommandPath(), "--interval is shorter than 100ms"}
			}
			return o.with(c.Context(), need{scope: api.ScopeLoggerGet}, func(m *hem.Client) error {
				return o.follow(c.Context(), m, once, all, interval)
			})
		},
	}
	c.Flags().BoolVar(&once, "once", false, "end when all records there are now are verified")
	c.Flags().BoolVar(&all, "all", false, "print the records from before the first run too")
	c.Flags().DurationVar(&interval, "interval", 2*time.Second, "how often to ask the module")
	return c
}

func (o *options) follow(ctx context.Context, m *hem.Client, once, all bool, interval time.Duration) error {
	key, err := loggerKey(ctx, m)
	if err != nil {
		return err
	}
	text, now, err := currentCheckpoint(ctx, m, key)
	if err != nil {
		return err
	}
	w, err := o.openWitness(now.Origin, key)
	if err != nil {
		return err
	}
	defer w.close()
	printing := all || w.v.Size() > 0
	away := false // the module was, when asked last
	for {
		if err == nil {
			err = w.advance(ctx, m, text, now, func(lines []byte) error {
				o.progress.end() // records may go to the same terminal
				if !printing {
					return nil
				}
				_, err := o.t.out.Write(lines)
				return err
			})
		}
		unreachable, ok := errors.AsType[*hem.UnreachableError](err)
		switch {
		case ctx.Err() != nil && !once:
			return nil // it was told to end
		case ok && !once:
			if !away {
				o.note("%v; trying again", unreachable)
			}
			away = true
		case err != nil:
			return asSentence(err)
		case once:
			return nil
		default:
			away, printing = false, true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(interval):
		}
		text, now, err = currentCheckpoint(ctx, m, key)
	}
}

// asSentence says what is wrong with a log that was seen before.
func asSentence(err error) error {
	if fork, ok := errors.AsType[*audit.ForkError](err); ok {
		return fmt.Errorf("the log is not the one that was seen before: the module's checkpoint of %d records does not follow from the %d that were verified; what it says now is not to be believed, and what was kept stays as it is", fork.To, fork.From)
	}
	if cut, ok := errors.AsType[*audit.CutError](err); ok {
		return fmt.Errorf("the log was cut: it has %d records now, and had %d when they were verified", cut.Size, cut.Want)
	}
	if bad, ok := errors.AsType[*audit.BadRecordError](err); ok {
		return fmt.Errorf("a record that the module gives does not hold (record %d of its file): %s", bad.Seq, bad.Why)
	}
	return err
}

// A witness is what was seen of one module's log: verified records, their leaf
// hashes, and the last checkpoint that held.
//
// The hashes are written before the checkpoint that covers them, so a crash
// leaves more hashes than the checkpoint needs; the next run cuts them off.
type witness struct {
	v      *audit.Verification
	path   string   // of the checkpoint
	leaves *os.File // locked while it is open
	size   int64    // records in leaves
}

// openWitness finds what was kept of the module of that origin, or starts
// anew.
func (o *options) openWitness(origin string, eidSign []byte) (*witness, error) {
	cache, err := o.openCache() // the folder is the same, and private
	if err != nil {
		return nil, err
	}
	base := filepath.Join(cache.dir, strings.TrimPrefix(origin, "softhem/"))
	w := &witness{path: base + checkpointSuffix}
	if w.v, err = audit.NewVerification(eidSign); err != nil {
		return nil, err
	}
	if w.leaves, err = os.OpenFile(base+leavesSuffix, os.O_RDWR|os.O_CREATE|openNoFollow, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(w.leaves.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		w.close()
		return nil, fmt.Errorf("another hem log follow runs for this module: %s is in use", w.leaves.Name())
	}
	text, err := os.ReadFile(w.path)
	if errors.Is(err, os.ErrNotExist) {
		return w, nil
	}
	if err == nil {
		err = w.resume(text, origin, eidSign)
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// resume takes up what was kept. If hashes are missing the log is read again
// from its first record, and must come to the checkpoint.
func (w *witness) resume(text []byte, origin string, eidSign []byte) error {
	c, err := audit.ParseCheckpoint(text, eidSign)
	if errors.Is(err, audit.ErrOtherKey) || err == nil && c.Origin != origin {
		return fmt.Errorf("the module has another key than when its log was seen last: %s is not signed by it; the log may have been signed anew by somebody else", w.path)
	}
	if err != nil {
		return fmt.Errorf("%s is damaged: %s; move it away to start anew, which believes what the module says now", w.path, strings.TrimPrefix(err.Error(), "audit: "))
	}
	if err := w.v.Resume(io.NewSectionReader(w.leaves, 0, c.Size*32), c); err == nil {
		w.size = c.Size
		return nil
	}
	if w.v, err = audit.NewVerification(eidSign); err != nil {
		return err
	}
	return w.v.Expect(c)
}

func (w *witness) close() { w.leaves.Close() }

// advance reads the records up to a checkpoint, shows them, and keeps the
// checkpoint when it holds.
func (w *witness) advance(ctx context.Context, m *hem.Client, text []byte, c audit.Checkpoint, show func(lines []byte) error) error {
	kept, ok := w.v.Held()
	if err := w.v.Expect(c); err != nil {
		return err
	}
	if ok && kept == c.Size {
		return w.v.End() // nothing new
	}
	var report audit.Report
	for w.v.Size() < c.Size {
		lines, err := m.LogTail(ctx, w.v.Size())
		if err != nil {
			return err
		}
		lines = firstLines(lines, c.Size-w.v.Size()) // what follows is under no checkpoint yet
		if len(lines) == 0 {
			return fmt.Errorf("read the end of the log: %w: it is empty before the module's checkpoint", hem.ErrProtocol)
		}
		if err := w.v.Tail(lines, &report); err != nil {
			return err
		}
		var hashes []byte
		for line := range bytes.Lines(lines) {
			h := audit.LeafHash(bytes.TrimSuffix(line, []byte("\n")))
			hashes = append(hashes, h[:]...)
		}
		if _, err := w.leaves.WriteAt(hashes, w.size*32); err != nil {
			return err
		}
		w.size += int64(len(hashes) / 32)
		if err := show(lines); err != nil {
			return err
		}
	}
	if err := w.v.End(); err != nil { // a checkpoint before this one had more
		return err
	}
	if err := errors.Join(w.leaves.Truncate(w.size*32), w.leaves.Sync()); err != nil {
		return err
	}
	return writeBeside(w.path, func(f *os.File) error {
		_, err := f.Write(text)
		return errors.Join(err, f.Sync())
	})
}

// firstLines is at most n lines of text.
func firstLines(text []byte, n int64) []byte {
	end := 0
	for line := range bytes.Lines(text) {
		if n == 0 {
			break
		}
		n--
		end += len(line)
	}
	return text[:end]
}
