package upgrade

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"softhem/internal/suite"
)

// Limits of a console archive. It is not compressed, so its files are no longer
// than itself.
const (
	maxFiles    = 4096
	maxFileName = 255
)

// tarBlock is the length of a header of a tar archive; see isTar.
const tarBlock = 512

// isTar tells whether a file that begins so is a tar archive (POSIX ustar, or GNU).
func isTar(head []byte) bool {
	return len(head) >= tarBlock && bytes.Equal(head[257:262], []byte("ustar"))
}

// Files are the files of a web console, held in memory: nothing of an archive is
// ever written to a disk by a name it has chosen. They do not change.
type Files struct {
	Hash  [32]byte // SHA-256 of the archive
	files map[string][]byte
}

// Get returns the file that stands at the path of a URL; a folder is its
// index.html.
func (f *Files) Get(urlPath string) (name string, content []byte, ok bool) {
	if f == nil {
		return "", nil, false
	}
	name, ok = strings.CutPrefix(urlPath, "/")
	if name == "" || strings.HasSuffix(name, "/") {
		name += indexFile
	}
	content, found := f.files[name]
	return name, content, ok && found
}

// ConsoleHash is what a module with these files shows as uis; without any, the hash
// of nothing.
func (f *Files) ConsoleHash() [32]byte {
	if f == nil {
		return suite.SHA256(nil)
	}
	return f.Hash
}

const indexFile = "index.html"

// readArchive reads a console's payload: a tar archive of regular files and
// folders, none of them compressed, with an index.html.
func readArchive(payload io.Reader) (*Files, error) {
	archive, err := io.ReadAll(io.LimitReader(payload, MaxImage+1))
	if err != nil {
		return nil, err
	}
	if len(archive) > MaxImage || !isTar(archive) {
		return nil, fmt.Errorf("%w: it is no tar archive", ErrImage)
	}
	f := &Files{Hash: suite.SHA256(archive), files: make(map[string][]byte)}
	left := int64(len(archive))
	for r, n := tar.NewReader(bytes.NewReader(archive)), 0; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrImage, err)
		}
		if n == maxFiles {
			return nil, fmt.Errorf("%w: it has more than %d entries", ErrImage, maxFiles)
		}
		name, isFile, err := entryName(h)
		if err != nil {
			return nil, err
		}
		if !isFile {
			continue
		}
		// A sparse file can be longer than the archive it stands in.
		if left -= h.Size; left < 0 {
			return nil, fmt.Errorf("%w: its files are longer than the archive", ErrImage)
		}
		if _, twice := f.files[name]; twice {
			return nil, fmt.Errorf("%w: %q stands in it twice", ErrImage, name)
		}
		content := make([]byte, h.Size)
		if _, err := io.ReadFull(r, content); err != nil {
			return nil, fmt.Errorf("%w: %q: %w", ErrImage, name, err)
		}
		f.files[name] = content
	}
	if _, ok := f.files[indexFile]; !ok {
		return nil, fmt.Errorf("%w: there is no %s in it", ErrImage, indexFile)
	}
	return f, nil
}

// entryName is the name of a file as it stands in a URL, without a leading slash.
// Whatever is neither a file nor a folder is refused, and so is a name that means
// another place than the one it seems to.
func entryName(h *tar.Header) (name string, isFile bool, err error) {
	switch h.Typeflag {
	case tar.TypeReg:
		isFile = true
	case tar.TypeDir:
	case tar.TypeXGlobalHeader: // what git archive begins with
		return "", false, nil
	default:
		return "", false, fmt.Errorf("%w: %q is neither a file nor a folder", ErrImage, h.Name)
	}
	name = strings.TrimPrefix(h.Name, "./")
	if !isFile {
		if name == "" { // of ./
			return "", false, nil
		}
		name = strings.TrimSuffix(name, "/")
	}
	bad := strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' })
	if bad || len(name) > maxFileName || name == "." || !fs.ValidPath(name) {
		return "", false, fmt.Errorf("%w: a file must not be called %q", ErrImage, h.Name)
	}
	return name, isFile, nil
}
