package audit

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A Frozen is the log as it was at one moment: whole records, all on disk. The
// log goes on meanwhile; what was written does not change any more.
type Frozen struct {
	// Files are those of the log, oldest first, and then what repairs took out.
	Files []FrozenFile
	// Records is how many there are, and Checkpoint the signed checkpoint of
	// exactly these.
	Records    int64
	Checkpoint []byte

	dir folder
}

// A FrozenFile is one of the files, of which the first Size bytes count.
type FrozenFile struct {
	Name string
	Size int64
}

// Freeze says where the log ends, and calls hold at that moment: until it
// returns, no record is written and nothing is committed. So the state of the
// store that hold fixes is the one that the log tells of. hold must not call the
// log, and must be short: every operation waits for it.
//
// Nothing is held when Freeze returns.
func (l *Log) Freeze(ctx context.Context, hold func() error) (*Frozen, error) {
	ids, current, t, err := l.freeze(ctx, hold)
	if err != nil {
		return nil, err
	}
	h, err := l.sign(t, current.Name)
	if err != nil {
		return nil, err
	}
	f := &Frozen{Records: h.Size, Checkpoint: h.Note, dir: l.dir}
	names, err := l.dir.list()
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	slices.Sort(names)
	for _, name := range names { // no file of an earlier boot is written again
		if id, ok := strings.CutSuffix(name, tornSuffix); ok && isID(id) {
			ids = append(ids, name)
		}
	}
	for _, name := range ids {
		file := current
		if name != current.Name {
			if file.Size, err = l.dir.size(name); err != nil {
				return nil, fmt.Errorf("audit: %w", err)
			}
			file.Name = name
		}
		f.Files = append(f.Files, file)
	}
	return f, nil
}

func (l *Log) freeze(ctx context.Context, hold func() error) (ids []string, current FrozenFile, t tree, err error) {
	l.committing.Lock()
	defer l.committing.Unlock()
	l.turn.Lock()
	defer l.turn.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, current, t, err
	}
	if err := l.ready(); err != nil {
		return nil, current, t, err
	}
	if err := l.sync(); err != nil { // as with any checkpoint, see checkpoint
		return nil, current, t, err
	}
	if err := hold(); err != nil {
		return nil, current, t, err
	}
	return l.Files(), FrozenFile{l.seg.id, l.seg.end}, l.tree, nil
}

// Open reads a file as far as it counts.
func (f *Frozen) Open(file FrozenFile) (io.ReadCloser, error) {
	r, size, err := f.dir.read(file.Name)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if size < file.Size {
		r.Close()
		return nil, fmt.Errorf("audit: %s has become shorter", file.Name)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(r, file.Size), r}, nil
}

func isID(name string) bool {
	_, ok := parseID(name)
	return ok
}

// IsFileName tells whether a name is that of a file of a log, or of what a
// repair took out of one.
func IsFileName(name string) bool { return isID(strings.TrimSuffix(name, tornSuffix)) }
