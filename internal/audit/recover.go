package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"softhem/internal/store"
)

// recovery makes the folder whole again at Open. Only the last file can be
// unfinished: the one before was synced and cut before the last got its name.
//
// A crash leaves zeros after the lines, which are cut; or lines of which only
// a part reached the disk. Nobody was told that those are durable, but there is
// no telling a torn write from a damaged file, so from the first line that does
// not hold to the end everything is moved to <id>.torn and reported, as a
// NON_SECURE_STATE record in the next boot's file.
//
// Then the store's log tail: if the file does not have those lines at that
// place, they are put there. Recovery itself may crash anywhere; done again, it
// comes to the same end.
type recovery struct {
	dir folder
	log *slog.Logger

	tail *store.LogTail // nil: none, or done with
	torn []string       // ids with a .torn file
	told []string       // ids whose .torn is in carry

	carry []Record // for the next boot's file
	ids   []string // of the files, oldest first
	prev  int64    // see Log.prev
	time  int64    // of the last record
}

func (r *recovery) run(ctx context.Context, cfg Config) error {
	if err := r.readNames(); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	if cfg.Dir != "" { // else the tail is of a log that went with its process
		tail, err := cfg.Store.LogTail(ctx)
		if err == nil {
			r.tail = &tail
		} else if !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("audit: reading the log tail: %w", err)
		}
	}
	if r.tail != nil {
		if err := CheckTail(*r.tail); err != nil {
			return err
		}
		t, _ := parseID(r.tail.File)
		r.prev = max(r.prev, t)
		if len(r.ids) > 0 && r.tail.File < r.ids[len(r.ids)-1] {
			r.tail = nil // that file was finished in order, with its lines
		}
	}
	for len(r.ids) > 0 {
		id := r.ids[len(r.ids)-1]
		holds, err := r.repair(id)
		if err != nil {
			return fmt.Errorf("audit: repairing %s: %w", id, err)
		}
		if holds {
			break
		}
		r.log.WarnContext(ctx, "an audit log file without records was removed", "file", id)
		r.report("lost", id, 0, 0)
		if err := r.dir.remove(id); err != nil {
			return fmt.Errorf("audit: %w", err)
		}
		r.ids = r.ids[:len(r.ids)-1]
	}
	if r.tail != nil { // its file is gone
		r.carryTail()
	}
	return r.tellAgain()
}

// readNames sorts the folder's names and removes files that were being made.
func (r *recovery) readNames() error {
	names, err := r.dir.list()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		base, ext, _ := strings.Cut(name, ".")
		t, ok := parseID(base)
		if !ok {
			continue // not ours
		}
		switch "." + ext {
		case ".":
			if name == base {
				r.ids = append(r.ids, base)
				r.prev = max(r.prev, t)
			}
		case tornSuffix:
			r.torn = append(r.torn, base)
			r.prev = max(r.prev, t)
		case newSuffix, tornSuffix + newSuffix:
			if err := r.dir.remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// repair makes one file whole and tells whether it holds any record.
func (r *recovery) repair(id string) (bool, error) {
	f, err := r.dir.open(id)
	if err != nil {
		return false, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return false, err
	}
	used, err := trimZeros(f, size)
	if err != nil {
		return false, err
	}
	whole, err := scan(io.NewSectionReader(f, 0, used))
	if err != nil {
		return false, err
	}

	keep := whole.end
	if whole.seq == 0 {
		keep = 0 // a header alone says nothing
	}
	if r.tail != nil && r.tail.File == id {
		completed, cut, err := r.place(f, keep, used)
		if err != nil {
			return false, err
		}
		if completed != nil {
			whole, keep, used = completed, completed.end, cut
		}
		r.tail = nil
	}
	if keep < used {
		if err := r.move(id, f, keep, used); err != nil {
			return false, err
		}
	}
	if keep != size {
		// A crash before the sync: the torn bytes are in both places, and
		// are found to be saved already.
		if err := f.Truncate(keep); err != nil {
			return false, err
		}
		if err := f.Sync(); err != nil {
			return false, err
		}
	}
	if keep == 0 {
		return false, nil
	}
	r.time = whole.time
	return true, nil
}

// place sees that the tail's lines stand at their offset, given that the file
// holds up to keep and has bytes up to used. It returns the state of the file
// after them if it had to write them, and the end of what is left to move.
func (r *recovery) place(f file, keep, used int64) (*scanner, int64, error) {
	tail := r.tail
	end := tail.Offset + int64(len(tail.Lines))
	there := make([]byte, max(0, min(used, end)-tail.Offset))
	if len(there) > 0 {
		if _, err := f.ReadAt(there, tail.Offset); err != nil && err != io.EOF {
			return nil, 0, err
		}
	}
	if end <= keep && bytes.Equal(there, tail.Lines) {
		return nil, 0, nil // the usual case
	}
	fits := false
	var completed *scanner
	if tail.Offset <= used {
		var err error
		completed, err = scan(io.MultiReader(io.NewSectionReader(f, 0, tail.Offset), bytes.NewReader(tail.Lines)))
		if err != nil {
			return nil, 0, err
		}
		fits = completed.end == end
	}
	// The lines' own write, torn: each byte is theirs, or still zero. There is
	// nothing after it, as nobody writes before that write is synced.
	own := used <= end
	for i, b := range there {
		own = own && (b == 0 || b == tail.Lines[i])
	}
	switch {
	case fits && own:
	case fits && keep == tail.Offset:
		if err := r.move(tail.File, f, keep, used); err != nil {
			return nil, 0, err
		}
	default:
		// The lines before are damaged, or others hold the place: the store
		// said no, yet it had committed.
		r.carryTail()
		return nil, 0, nil
	}
	r.log.Warn("the audit log was completed from the store", "file", tail.File, "offset", tail.Offset, "length", len(tail.Lines))
	if used > end {
		if err := f.Truncate(end); err != nil {
			return nil, 0, err
		}
	}
	if _, err := f.WriteAt(tail.Lines, tail.Offset); err != nil {
		return nil, 0, err
	}
	return completed, end, f.Sync()
}

// carryTail logs the tail's records anew in the next boot's file, where they
// cannot stand in theirs. Should a crash come before that boot, the tail is
// still in the store and all is found as it was.
func (r *recovery) carryTail() {
	tail := r.tail
	r.tail = nil
	r.log.Warn("the end of the audit log is missing; its records are logged again",
		"file", tail.File, "offset", tail.Offset, "length", len(tail.Lines))
	r.report("tail", tail.File, tail.Offset, int64(len(tail.Lines)))
	for line := range bytes.Lines(tail.Lines) {
		e, err := Parse(bytes.TrimSuffix(line, []byte{'\n'}))
		if err == nil && e.check() == nil {
			r.carry = append(r.carry, e.Record)
		}
	}
}

// move saves f[from:to] in <id>.torn. The caller cuts it off then.
func (r *recovery) move(id string, f file, from, to int64) error {
	data := make([]byte, to-from)
	if _, err := f.ReadAt(data, from); err != nil && err != io.EOF {
		return err
	}
	name := id + tornSuffix
	old, err := r.readAll(name)
	if err != nil {
		return err
	}
	if !bytes.HasSuffix(old, data) { // else saved before a crash
		t, err := r.dir.create(name + newSuffix)
		if err != nil {
			return err
		}
		_, err = t.WriteAt(append(old, data...), 0)
		if err = errors.Join(err, t.Sync(), t.Close()); err != nil {
			return err
		}
		if err := r.dir.rename(name+newSuffix, name); err != nil {
			return err
		}
	}
	r.log.Warn("a damaged end of the audit log was moved", "file", id, "to", name, "offset", from, "length", len(data))
	r.report("torn", id, from, int64(len(data)))
	r.told = append(r.told, id)
	return nil
}

func (r *recovery) readAll(name string) ([]byte, error) {
	if id, _, _ := strings.Cut(name, "."); !slices.Contains(r.torn, id) {
		return nil, nil
	}
	f, _, err := r.dir.read(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// tellAgain reports a .torn file that was saved at an earlier Open and that no
// boot has reported: there has been none since, or its file came later.
func (r *recovery) tellAgain() error {
	for _, id := range r.torn {
		if slices.Contains(r.told, id) || len(r.ids) > 0 && id < r.ids[len(r.ids)-1] {
			continue
		}
		size := func(name string) (int64, error) {
			f, n, err := r.dir.read(name)
			if err != nil {
				return 0, err
			}
			return n, f.Close()
		}
		length, err := size(id + tornSuffix)
		if err != nil {
			return fmt.Errorf("audit: %w", err)
		}
		var offset int64
		if slices.Contains(r.ids, id) {
			if offset, err = size(id); err != nil {
				return fmt.Errorf("audit: %w", err)
			}
		}
		r.report("torn", id, offset, length)
	}
	return nil
}

func (r *recovery) report(what, id string, offset, length int64) {
	r.carry = append(r.carry, Record{Type: NonSecureState, Result: Error, Arg: fmt.Appendf(nil, "%s %s %d %d", what, id, offset, length)})
}

// scan reads lines as long as they hold. Signatures are not looked at.
func scan(in io.Reader) (*scanner, error) {
	s := newScanner(in, nil)
	for {
		_, _, err := s.next()
		if _, bad := errors.AsType[*BadRecordError](err); bad || err == io.EOF {
			return s, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// trimZeros returns the size of f without the zeros at its end.
func trimZeros(f io.ReaderAt, size int64) (int64, error) {
	buf := make([]byte, 64<<10)
	for size > 0 {
		b := buf[:min(size, int64(len(buf)))]
		if _, err := f.ReadAt(b, size-int64(len(b))); err != nil && err != io.EOF {
			return 0, err
		}
		n := len(bytes.TrimRight(b, "\x00"))
		if n > 0 {
			return size - int64(len(b)-n), nil
		}
		size -= int64(len(b))
	}
	return 0, nil
}
