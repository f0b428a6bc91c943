package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"softhem/internal/fsync"
)

// imageFile opens an image, made if there is none. It is never truncated.
func imageFile(dir, name string) (*os.File, error) {
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if err == nil {
		if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
			return nil, errors.Join(fmt.Errorf("%s is not a file", path), err, f.Close())
		}
		return f, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, err
	}
	// A name that is not on disk loses with the power all that was flushed later.
	if err := fsync.Dir(dir); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// image is a disk in clear: byte for byte what is in the file, and zeros from its
// end on. The file is no longer than what was written.
type image struct {
	file *os.File
	size int64

	mu     sync.Mutex
	failed error // of a Sync
}

func (i *image) Size() int64 { return i.size }

func (i *image) ReadAt(p []byte, off int64) (int, error) {
	n, err := i.file.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		clear(p[n:])
		return len(p), nil
	}
	return n, err
}

func (i *image) WriteAt(p []byte, off int64) (int, error) { return i.file.WriteAt(p, off) }

// Sync fails for good when it has failed once: the kernel may call the lost page
// clean and report success the next time. Unlocking the disk again begins anew.
func (i *image) Sync() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.failed == nil {
		i.failed = i.file.Sync()
	}
	return i.failed
}

// Zero makes a hole where there can be one, unless the room is to be kept.
func (i *image) Zero(off, n int64, keep bool) error {
	if !keep {
		done, err := punch(i.file, off, n)
		if done || err != nil {
			return err
		}
	}
	zeros := make([]byte, min(n, zeroChunk))
	for n > 0 {
		chunk := zeros[:min(n, zeroChunk)]
		if _, err := i.file.WriteAt(chunk, off); err != nil {
			return err
		}
		off, n = off+int64(len(chunk)), n-int64(len(chunk))
	}
	return nil
}

const zeroChunk = 256 << 10
