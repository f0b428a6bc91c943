package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/audit"
)

// Files of checkpoints, and beside them the leaf hashes of the log they are of,
// as far as hem log follow has seen it.
const (
	checkpointSuffix = ".checkpoint"
	leavesSuffix     = ".leaves"
)

// evidence is what a log is held against: checkpoints from outside, or none.
type evidence struct {
	names  []string
	texts  [][]byte
	points []audit.Checkpoint // once the key is known
	v      *audit.Verification
}

func readEvidence(paths []string) (*evidence, error) {
	e := &evidence{names: paths}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		e.texts = append(e.texts, text)
	}
	return e, nil
}

func (e *evidence) given() bool { return len(e.texts) > 0 }

// begin judges the checkpoints under the module's key.
func (e *evidence) begin(eidSign []byte, result *verification) (err error) {
	if e.v, err = audit.NewVerification(eidSign); err != nil {
		return err
	}
	for i, text := range e.texts {
		c, err := audit.ParseCheckpoint(text, eidSign)
		if errors.Is(err, audit.ErrOtherKey) {
			return fmt.Errorf("%s is not signed by this module's key: it is of another module, or the log is now signed by somebody else", clean(e.names[i]))
		}
		if err != nil {
			return fmt.Errorf("%s: %s", clean(e.names[i]), strings.TrimPrefix(err.Error(), "audit: "))
		}
		if len(e.points) > 0 && e.points[0].Origin != c.Origin {
			return fmt.Errorf("%s and %s are of different modules", clean(e.names[0]), clean(e.names[i]))
		}
		e.points = append(e.points, c)
		if err := e.judge(e.v.Expect(c), result); err != nil {
			return err
		}
		if base, ok := strings.CutSuffix(e.names[i], checkpointSuffix); ok {
			if leaves, err := os.Open(base + leavesSuffix); err == nil {
				seen := io.NewSectionReader(leaves, 0, c.Size*32) // closed with the process
				if e.fits(seen, eidSign, c) {
					e.v.Known(seen)
				}
			}
		}
	}
	return nil
}

// fits tells whether leaf hashes are those of the checkpoint, and rewinds them.
func (e *evidence) fits(leaves io.ReadSeeker, eidSign []byte, c audit.Checkpoint) bool {
	v, err := audit.NewVerification(eidSign)
	if err == nil {
		err = v.Resume(leaves, c)
	}
	_, seekErr := leaves.Seek(0, io.SeekStart)
	return err == nil && seekErr == nil
}

// expectNow has the log held against the module's own checkpoint too, and
// returns how many records there are.
func (e *evidence) expectNow(ctx context.Context, m *hem.Client, eidSign []byte) (int64, error) {
	_, now, err := currentCheckpoint(ctx, m, eidSign)
	if err != nil {
		return 0, err
	}
	if len(e.points) > 0 && e.points[0].Origin != now.Origin {
		return 0, fmt.Errorf("%s is of another module: it names %s, and this one %s", clean(e.names[0]), e.points[0].Origin, now.Origin)
	}
	return now.Size, e.v.Expect(now)
}

// currentCheckpoint asks the module for a checkpoint, which must be signed by
// its key.
func currentCheckpoint(ctx context.Context, m *hem.Client, eidSign []byte) ([]byte, audit.Checkpoint, error) {
	text, err := m.LogCheckpoint(ctx)
	if err != nil {
		return nil, audit.Checkpoint{}, err
	}
	c, err := audit.ParseCheckpoint(text, eidSign)
	if err != nil {
		return nil, c, fmt.Errorf("read the log's checkpoint: %w: %s", hem.ErrProtocol, strings.TrimPrefix(err.Error(), "audit: "))
	}
	return text, c, nil
}

// file verifies the next file of the log. An error is r's.
func (e *evidence) file(name string, r io.Reader, result *verification) error {
	report, err := e.v.File(r)
	v := newVerdict(name, report)
	err = e.judgeFile(err, &v, result)
	result.Files = append(result.Files, v)
	return err
}

// rest reads what follows the finished files, up to record size.
func (e *evidence) rest(ctx context.Context, m *hem.Client, current string, size int64, result *verification) error {
	if current == "" {
		current = "tail"
	}
	var report audit.Report
	var err error
	for leaf := e.v.Size(); leaf < size && err == nil; {
		lines, tailErr := m.LogTail(ctx, leaf)
		if tailErr != nil {
			return tailErr
		}
		before := report.Records
		err = e.v.Tail(lines, &report)
		if report.Records == before && err == nil {
			return fmt.Errorf("read the end of the log: %w: it is empty before the module's checkpoint", hem.ErrProtocol)
		}
		leaf += int64(report.Records - before)
	}
	v := newVerdict(current, report)
	err = e.judgeFile(err, &v, result)
	if v.Records > 0 || !v.OK {
		result.Files = append(result.Files, v)
	}
	return err
}

func newVerdict(name string, r audit.Report) verdict {
	return verdict{
		File: name, OK: true, Records: r.Records, Keys: r.Keys, Failed: r.Failed, Errors: r.Errors,
		SetBack: r.SetBack, First: r.First, Last: r.Last,
	}
}

// judgeFile takes up what is wrong with a file; what is no such thing it
// returns.
func (e *evidence) judgeFile(err error, v *verdict, result *verification) error {
	if bad, ok := errors.AsType[*audit.BadRecordError](err); ok {
		v.OK, v.Bad = false, &badRecord{Line: bad.Line, Record: bad.Seq, Offset: bad.Offset, Why: bad.Why}
		return nil
	}
	return e.judge(err, result)
}

// judge takes up what is wrong with the log as a whole; the first of it counts.
func (e *evidence) judge(err error, result *verification) error {
	if fork, ok := errors.AsType[*audit.ForkError](err); ok {
		if result.Another == nil {
			result.Another = &recordSpan{From: fork.From, To: fork.To}
		}
		return nil
	}
	if cut, ok := errors.AsType[*audit.CutError](err); ok {
		if result.Missing == nil {
			result.Missing = &recordSpan{From: cut.Size, To: cut.Want}
		}
		return nil
	}
	return err
}

// end sums up.
func (e *evidence) end(result *verification) error {
	if !e.given() {
		return nil
	}
	result.Records = e.v.Size()
	for _, v := range result.Files {
		if !v.OK {
			return nil // that says more than what is missing after it
		}
	}
	if result.Another != nil {
		return nil
	}
	if err := e.judge(e.v.End(), result); err != nil {
		return err
	}
	if _, ok := e.v.Held(); !ok || result.Missing != nil {
		return nil
	}
	result.TamperEvident = true
	for _, c := range e.points {
		result.Covered = max(result.Covered, c.Size)
	}
	return nil
}

func newLogCheckpointCmd(o *options) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "checkpoint",
		Short: "Get a signed checkpoint of the log, for keeping",
		Long: `Get a checkpoint of the log as it is now: how many records it has, the root of a Merkle tree
over them, and the module's signature. Keep it where whoever may change the log cannot change it,
on paper if need be: hem log verify --checkpoint finds whether the log was changed since.

It has the form of a C2SP tlog-checkpoint, so that witnesses who know that form can sign it too.`,
		Example: `  hem log checkpoint
  hem log checkpoint -o yesterday.checkpoint`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.with(c.Context(), need{scope: api.ScopeLoggerGet}, func(m *hem.Client) error {
				key, err := loggerKey(c.Context(), m)
				if err != nil {
					return err
				}
				text, _, err := currentCheckpoint(c.Context(), m, key)
				if err != nil {
					return err
				}
				o.progress.end()
				if output == "" || output == "-" {
					_, err = o.t.out.Write(text)
					return err
				}
				err = writeBeside(output, func(f *os.File) error { _, err := f.Write(text); return err })
				if err == nil {
					o.note("written to %s", output)
				}
				return err
			})
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "`file` to write to instead of standard output")
	return c
}
