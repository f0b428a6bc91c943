// Package backup is the form of a backup before it is encrypted: a tar archive
// of a data folder as it was at one moment.
//
//	softhem-backup.json   the manifest: which files follow, and how long they are
//	data.key              the data key, sealed by the root key
//	root.key              the root key's file as it is, unless it was not at hand
//	audit/6955b900        the log, oldest first, and what repairs took out of it
//	hem.db                the store
//
// Nothing else may be in it, in no other order, and each file has the length
// that the manifest says. Names are these and no others, so an archive that
// somebody else made can write nowhere else; lengths are those of bytes that are
// really there, so it cannot fill a disk with less than a disk.
package backup

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"softhem/internal/audit"
)

// The names in an archive besides those of the log.
const (
	nameManifest = "softhem-backup.json"
	NameDataKey  = "data.key"
	NameRootKey  = "root.key"
	NameStore    = "hem.db"
	DirAudit     = "audit"
)

// Format is the version of this form. Another one is refused.
const Format = 1

// ErrDamaged: the archive is incomplete, was changed, or is none.
var ErrDamaged = errors.New("the backup is damaged, or none")

// A Manifest is what an archive begins with.
type Manifest struct {
	Format  int    `json:"format"`
	Product string `json:"product"`  // the program that made it
	Created int64  `json:"created"`  // Unix seconds
	EID     string `json:"eid"`      // of the module, base64
	RootKey string `json:"root_key"` // RootRaw, RootAge or RootNone
	// Checkpoint is of the log as it was then, signed by the module: the log
	// in the archive ends exactly there.
	Checkpoint string `json:"checkpoint"`
	Files      []File `json:"files"` // in the order in which they follow
}

// What there is of the root key in an archive.
const (
	RootRaw  = "raw"  // 32 bytes: the archive alone gives everything
	RootAge  = "age"  // an age file, which still needs what opens it
	RootNone = "none" // it is elsewhere
)

// A File is one that follows the manifest.
type File struct {
	Name string `json:"name"`
	Size int64  `json:"size"` // in bytes
}

// Bounds of what is read into memory, in bytes.
const (
	maxManifest = 16 << 20 // some 300 000 boots
	maxKeyFile  = 64 << 10
	maxRest     = 1 << 20 // of zeros after the end
)

// Write writes an archive of the files in m, which open gives by name. It does
// not end w.
func Write(ctx context.Context, w io.Writer, m Manifest, open func(name string) (io.ReadCloser, error)) error {
	if err := m.check(); err != nil {
		return err
	}
	head, err := json.Marshal(m)
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	modified := time.Unix(m.Created, 0)
	// GNU, because there a length of any size stands in the header itself.
	header := func(f File) error {
		return t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.Name, Size: f.Size, Mode: 0o600, ModTime: modified, Format: tar.FormatGNU})
	}
	if err := header(File{nameManifest, int64(len(head))}); err != nil {
		return err
	}
	if _, err := t.Write(head); err != nil {
		return err
	}
	for _, f := range m.Files {
		if err := header(f); err != nil {
			return err
		}
		r, err := open(f.Name)
		if err != nil {
			return err
		}
		n, err := io.Copy(t, reader{ctx, io.LimitReader(r, f.Size)})
		r.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		if n != f.Size {
			return fmt.Errorf("%s has become shorter while it was read", f.Name)
		}
	}
	return t.Close()
}

// Read reads an archive to its end, and hands the files to put in their order.
// What put leaves of a file is skipped. The error is ErrDamaged, that of r, or
// that of put; until Read has returned nil, what put got is a part of something.
func Read(ctx context.Context, r io.Reader, put func(m *Manifest, f File, content io.Reader) error) (*Manifest, error) {
	in := reader{ctx, r}
	t := tar.NewReader(in)
	m, err := readManifest(t)
	if err != nil {
		return nil, err
	}
	for _, f := range m.Files {
		if err := next(t, f.Name, f.Size); err != nil {
			return nil, err
		}
		if err := put(m, f, t); err != nil {
			return nil, err
		}
	}
	if _, err := t.Next(); err != io.EOF {
		return nil, damaged("there is more in it than it says", err)
	}
	// What encrypts it knows at its end only that all of it was there.
	n, err := io.Copy(io.Discard, io.LimitReader(in, maxRest+1))
	if err == nil && n > maxRest {
		err = damaged("it does not end", nil)
	}
	return m, err
}

func readManifest(t *tar.Reader) (*Manifest, error) {
	h, err := t.Next()
	if err != nil {
		return nil, orDamaged("it does not begin as a backup does", err)
	}
	if h.Name != nameManifest || h.Size > maxManifest || !plain(h) {
		return nil, damaged("it does not begin as a backup does", nil)
	}
	text, err := io.ReadAll(t)
	if err != nil {
		return nil, orDamaged("it is cut", err)
	}
	m := new(Manifest)
	if err := json.Unmarshal(text, m); err != nil {
		return nil, damaged("its first part cannot be read", nil)
	}
	if m.Format != Format {
		return nil, fmt.Errorf("the backup is of form %d, and this program knows form %d; use the program that made it, %.60q", m.Format, Format, m.Product)
	}
	return m, m.check()
}

// next goes to the file that is to follow.
func next(t *tar.Reader, name string, size int64) error {
	h, err := t.Next()
	if err == io.EOF {
		return damaged("there is less in it than it says", nil)
	}
	if err != nil {
		return orDamaged("it is cut", err)
	}
	if h.Name != name || h.Size != size || !plain(h) {
		return damaged("there is something else in it than it says", nil)
	}
	return nil
}

// plain tells whether an entry is a file of as many bytes as stand there: no
// link, no folder, and nothing sparse, which is a few bytes that become many.
func plain(h *tar.Header) bool { return h.Typeflag == tar.TypeReg && len(h.PAXRecords) == 0 }

// check finds files that an archive must not have, or lacks.
func (m *Manifest) check() error {
	seen := make(map[string]bool)
	logs := 0
	for _, f := range m.Files {
		if !allowed(f.Name) || seen[f.Name] || f.Size < 0 {
			return damaged(fmt.Sprintf("it has a file %.60q", f.Name), nil)
		}
		if (f.Name == NameDataKey || f.Name == NameRootKey) && f.Size > maxKeyFile {
			return damaged(f.Name+" is too long", nil)
		}
		seen[f.Name] = true
		if strings.HasPrefix(f.Name, DirAudit+"/") {
			logs++
		}
	}
	hasRoot := m.RootKey == RootRaw || m.RootKey == RootAge
	if !seen[NameDataKey] || !seen[NameStore] || logs == 0 || seen[NameRootKey] != hasRoot || !hasRoot && m.RootKey != RootNone {
		return damaged("it is not complete", nil)
	}
	return nil
}

// size is that of all files.
func (m *Manifest) size() (sum int64) {
	for _, f := range m.Files {
		sum += min(f.Size, math.MaxInt64-sum)
	}
	return sum
}

func allowed(name string) bool {
	if dir, file := path.Split(name); dir == DirAudit+"/" {
		return audit.IsFileName(file)
	}
	return slices.Contains([]string{NameDataKey, NameRootKey, NameStore}, name)
}

func damaged(why string, err error) error {
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, why, err)
	}
	return fmt.Errorf("%w: %s", ErrDamaged, why)
}

// orDamaged is for what archive/tar returns: errors of its own, and those of
// the reader below, which have their own sentence.
func orDamaged(why string, err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrFieldTooLong) {
		return damaged(why, nil)
	}
	return err
}

// A reader ends with its context.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
