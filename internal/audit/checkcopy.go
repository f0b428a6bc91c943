package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"softhem/internal/records"
	"softhem/internal/store"
)

// A Copy is a log at rest beside the store that it belongs to: nobody writes
// either.
type Copy struct {
	Dir     string
	Store   store.Store
	Sealer  records.Sealer
	EIDSign []byte // 32 bytes
	Origin  string // see [Origin]
}

// Check reads the whole log and holds it against a checkpoint, which must be
// of its very end, and against what the store has kept of it; so a start on it
// finds nothing to repair and nothing to report. The error tells what does
// not fit. It returns how many records there are.
func (c Copy) Check(ctx context.Context, checkpoint []byte) (int64, error) {
	end, err := ParseCheckpoint(checkpoint, c.EIDSign)
	if err != nil {
		return 0, err
	}
	if end.Origin != c.Origin {
		return 0, fmt.Errorf("audit: the checkpoint is of another log: %s", end.Origin)
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return 0, fmt.Errorf("audit: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if isID(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	if len(ids) == 0 {
		return 0, errors.New("audit: the log has no files")
	}
	slices.Sort(ids)

	v, err := NewVerification(c.EIDSign)
	if err != nil {
		return 0, err
	}
	kept, err := c.kept(ctx, ids, v)
	if err != nil {
		return 0, err
	}
	for _, point := range append(kept, end) {
		if err := v.Expect(point); err != nil {
			return 0, err
		}
	}
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := c.file(v, id); err != nil {
			return 0, fmt.Errorf("audit: the log file %s: %w", id, err)
		}
	}
	if err := v.End(); err != nil {
		return 0, err
	}
	if v.Size() != end.Size {
		return 0, fmt.Errorf("audit: the log has %d records, and its checkpoint is of %d", v.Size(), end.Size)
	}
	return v.Size(), nil
}

func (c Copy) file(v *Verification, id string) error {
	f, err := os.Open(filepath.Join(c.Dir, id))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = v.File(f)
	return err
}

// kept brings v to where the first file begins, which earlier ones may have
// been taken away before, and returns the checkpoint that the store has, if it
// is of what follows.
func (c Copy) kept(ctx context.Context, ids []string, v *Verification) (points []Checkpoint, err error) {
	err = c.Store.View(ctx, func(r store.Reader) error {
		first, err := records.Load[past](ctx, r, c.Sealer, kindFile, ids[0])
		if err != nil {
			return fmt.Errorf("audit: what came before %s: %w", ids[0], err)
		}
		if v.tree, err = first.Tree.tree(); err != nil {
			return err
		}
		for _, id := range ids[1:] { // else a start would call the store put back
			if _, err := records.Load[past](ctx, r, c.Sealer, kindFile, id); err != nil {
				return fmt.Errorf("audit: what came before %s: %w", id, err)
			}
		}
		h, err := records.Load[head](ctx, r, c.Sealer, kindHead, idHead)
		if err != nil {
			return fmt.Errorf("audit: the kept checkpoint: %w", err)
		}
		point, err := ParseCheckpoint(h.Note, c.EIDSign)
		if err == nil && point.Size >= v.tree.size {
			points = append(points, point)
		}
		return err
	})
	return points, err
}
