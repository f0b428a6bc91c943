package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"softhem/internal/suite"
)

// A Verification reads a log from its first record on and holds it against
// checkpoints that were kept outside the module. With one of them, no record
// that it covers can have been changed, dropped, added, moved or written anew
// unnoticed, whoever had the files and the MAC keys in them.
//
// Which record it was, the lines tell by themselves when they do not hold; see
// VerifyFile. When all hold, somebody wrote them with their keys, and then a
// checkpoint can only tell that it happened before it, and after the last
// checkpoint that holds; Known tells the record.
type Verification struct {
	eidSign []byte
	tree    tree
	points  []Checkpoint // still to come, by size
	held    int64        // records under the last checkpoint that held
	proven  bool         // one did
	failed  bool         // the tree is not the checkpoints' any more
	fork    error        // found, and not yet told
	known   *bufio.Reader
	tail    lineCheck
	midway  bool // tail was taken up within a file whose key is not known
}

// A ForkError says that the records From to To-1 are not those that were there
// when the checkpoint of To records was signed.
type ForkError struct{ From, To int64 }

func (e *ForkError) Error() string {
	return fmt.Sprintf("audit: the first %d records are not those of the checkpoint; the first that is another is between record %d and record %d of the log",
		e.To, e.From, e.To-1)
}

// A CutError says that the log ends before a checkpoint that was signed.
type CutError struct{ Size, Want int64 }

func (e *CutError) Error() string {
	return fmt.Sprintf("audit: the log has %d records, and had %d when the checkpoint was signed: those from record %d of the log on are gone",
		e.Size, e.Want, e.Size)
}

// NewVerification starts with nothing. eidSign is the module's, 32 bytes, from
// a source that is trusted.
func NewVerification(eidSign []byte) (*Verification, error) {
	if len(eidSign) != suite.Ed25519Public {
		return nil, errors.New("audit: eid_sign is not 32 bytes")
	}
	return &Verification{eidSign: eidSign, tail: lineCheck{eidSign: eidSign}}, nil
}

// Expect says that the log must have been as c says when it had c.Size
// records. It fails at once when that is past.
func (v *Verification) Expect(c Checkpoint) error {
	switch {
	case c.Size == v.tree.size:
		return v.compare(c)
	case c.Size < v.tree.size:
		return &CutError{Size: c.Size, Want: v.tree.size}
	}
	i, _ := slices.BinarySearchFunc(v.points, c, func(a, b Checkpoint) int { return int(a.Size - b.Size) })
	v.points = slices.Insert(v.points, i, c)
	return nil
}

// Known gives the leaf hashes of the log as somebody saw it before, 32 bytes
// each from the first record on. They prove nothing, and name the first record
// that is another now.
func (v *Verification) Known(leaves io.Reader) {
	v.known = bufio.NewReaderSize(leaves, 64<<10)
}

// Size is how many records were read.
func (v *Verification) Size() int64 { return v.tree.size }

// Held is how many records the last checkpoint covers that held, and whether
// there was one.
func (v *Verification) Held() (records int64, ok bool) { return v.held, v.proven }

func (v *Verification) compare(c Checkpoint) error {
	if v.tree.root() != c.Root {
		v.failed = true
		return &ForkError{From: v.held, To: c.Size}
	}
	v.held, v.proven = c.Size, true
	return nil
}

// leaf takes the next record of the log. It is a *BadRecordError without a
// place when the record is known to have been another.
func (v *Verification) leaf(line []byte) error {
	if v.failed {
		return nil // it was said where
	}
	leaf := tlog.RecordHash(line)
	if v.known != nil {
		var was tlog.Hash
		if _, err := io.ReadFull(v.known, was[:]); err != nil {
			v.known = nil // as far as it was seen
		} else if was != leaf {
			v.failed = true
			return &BadRecordError{Why: fmt.Sprintf("record %d of the log was another when it was seen before", v.tree.size)}
		}
	}
	v.tree.addHash(leaf)
	for len(v.points) > 0 && v.points[0].Size == v.tree.size {
		c := v.points[0]
		v.points = v.points[1:]
		if err := v.compare(c); err != nil {
			v.fork = err
			break
		}
	}
	return nil
}

// told is the fork once, after the lines were judged to their end.
func (v *Verification) told() error {
	err := v.fork
	v.fork = nil
	return err
}

// File reads the next file of the log, whole. The error is a *BadRecordError,
// a *ForkError, or that of r. After one, the files that follow are judged by
// their lines alone.
func (v *Verification) File(r io.Reader) (Report, error) {
	rep, err := verifyFile(r, v.eidSign, v.leaf)
	if err != nil {
		v.failed = true
		return rep, err
	}
	return rep, v.told()
}

// Tail reads records that follow what was read so far, as the module gives
// them: whole lines, without headers. It adds what holds to rep. The error is
// as that of File, its line and offset being those in lines.
func (v *Verification) Tail(lines []byte, rep *Report) error {
	n, offset := 0, int64(0)
	for line := range bytes.Lines(lines) {
		n++
		bad := func(why string) error {
			v.failed = true
			return &BadRecordError{Line: n, Seq: v.tail.seq, Offset: offset, Why: why}
		}
		text, ok := bytes.CutSuffix(line, []byte{'\n'})
		if !ok {
			return bad("the line does not end")
		}
		e, err := Parse(text)
		if err != nil {
			return bad(err.Error())
		}
		switch {
		case e.Seq == 0: // a file begins
			v.tail, v.midway = lineCheck{eidSign: v.eidSign}, false
		case v.midway:
			// The MAC cannot be judged before the next key; the tree is what counts.
			v.tail.seq, v.midway = e.Seq, !e.isKeyInit()
		}
		if v.midway {
			v.tail.seq++
		} else if _, why := v.tail.check(text); why != "" {
			return bad(why)
		}
		if err := v.leaf(text); err != nil {
			if at, ok := errors.AsType[*BadRecordError](err); ok {
				at.Line, at.Seq, at.Offset = n, e.Seq, offset
			}
			return err
		}
		rep.count(e)
		offset += int64(len(line))
	}
	return v.told()
}

// End says that nothing follows. It is a *CutError when a checkpoint covers
// more than there is.
func (v *Verification) End() error {
	if v.failed || len(v.points) == 0 {
		return nil
	}
	return &CutError{Size: v.tree.size, Want: v.points[len(v.points)-1].Size}
}

// Resume takes up a log after records that were verified before, of which the
// leaf hashes were kept; c is the last checkpoint that held, and must hold for
// them.
func (v *Verification) Resume(leaves io.Reader, c Checkpoint) error {
	r := bufio.NewReaderSize(leaves, 64<<10)
	var leaf tlog.Hash
	for v.tree.size < c.Size {
		if _, err := io.ReadFull(r, leaf[:]); err != nil {
			return fmt.Errorf("audit: fewer leaf hashes than the checkpoint's %d records: %w", c.Size, err)
		}
		v.tree.addHash(leaf)
	}
	v.midway = c.Size > 0
	return v.compare(c)
}

// LeafHash is what Known and Resume take for a line, its newline left out.
func LeafHash(line []byte) [32]byte { return tlog.RecordHash(line) }
