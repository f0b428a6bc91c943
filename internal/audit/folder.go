package audit

import (
	"bytes"
	"io"
	"io/fs"
	"maps"
	"math"
	"slices"
	"sync"
)

// A folder holds the files of a log: on disk, or in memory for a module that
// is not to outlive its process. Names are plain.
type folder interface {
	// list returns all names, in no order.
	list() ([]string, error)
	// create makes an empty file, replacing one of that name.
	create(name string) (file, error)
	// open opens a file for reading and writing; fs.ErrNotExist if none.
	open(name string) (file, error)
	// read opens a file for reading, as long as it is now.
	read(name string) (io.ReadCloser, int64, error)
	// size is the size of a file in bytes.
	size(name string) (int64, error)
	// rename and remove are durable when they return.
	rename(from, to string) error
	remove(name string) error
	// free is the room left for files, in bytes.
	free() (uint64, error)
	// chunk is how far ahead a file is to be filled with zeros, in bytes.
	chunk() int64
	close() error
}

// A file is written at given places. Sync covers the data, and the size if it
// changed; the name is the folder's.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	Truncate(size int64) error
	Sync() error
}

// memFolder is the folder in memory.
type memFolder struct {
	mu    sync.Mutex
	files map[string]*memFile
}

func newMemFolder() *memFolder { return &memFolder{files: make(map[string]*memFile)} }

func (d *memFolder) list() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.files)), nil
}

func (d *memFolder) create(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := new(memFile)
	d.files[name] = f
	return f, nil
}

func (d *memFolder) open(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return f, nil
}

func (d *memFolder) read(name string) (io.ReadCloser, int64, error) {
	f, err := d.open(name)
	if err != nil {
		return nil, 0, err
	}
	m := f.(*memFile)
	m.mu.RLock()
	defer m.mu.RUnlock()
	b := bytes.Clone(m.data)
	return io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil
}

func (d *memFolder) size(name string) (int64, error) {
	f, err := d.open(name)
	if err != nil {
		return 0, err
	}
	return f.Size()
}

func (d *memFolder) rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.files[from]
	if !ok {
		return fs.ErrNotExist
	}
	delete(d.files, from)
	d.files[to] = f
	return nil
}

func (d *memFolder) remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.files, name)
	return nil
}

func (d *memFolder) free() (uint64, error) { return math.MaxUint64, nil }
func (d *memFolder) chunk() int64          { return 0 }
func (d *memFolder) close() error          { return nil }

// memFile is a file in memory.
type memFile struct {
	mu   sync.RWMutex
	data []byte
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if gap := off - int64(len(f.data)); gap > 0 {
		f.data = append(f.data, make([]byte, gap)...)
	}
	n := copy(f.data[off:], p)
	f.data = append(f.data, p[n:]...)
	return len(p), nil
}

func (f *memFile) Size() (int64, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return int64(len(f.data)), nil
}

func (f *memFile) Truncate(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if size < int64(len(f.data)) {
		f.data = f.data[:size]
	}
	return nil
}

func (f *memFile) Sync() error  { return nil }
func (f *memFile) Close() error { return nil }
