package audit

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"softhem/internal/store"
)

// A faultyFolder is a folder in memory that knows what was synced and can be
// told to fail. What it cannot show (real errors of a kernel) the tests with
// real descriptors below do.
type faultyFolder struct {
	*memFolder
	files    map[string]*faultyFile
	onSync   func() error // called before each sync of data
	onRename func() error
}

type faultyFile struct {
	*memFile
	dir    *faultyFolder
	synced atomic.Int64
}

func newFaultyFolder() *faultyFolder {
	return &faultyFolder{memFolder: newMemFolder(), files: map[string]*faultyFile{}}
}

func (d *faultyFolder) create(name string) (file, error) {
	f, err := d.memFolder.create(name)
	d.files[name] = &faultyFile{memFile: f.(*memFile), dir: d}
	return d.files[name], err
}

func (d *faultyFolder) rename(from, to string) error {
	if d.onRename != nil {
		if err := d.onRename(); err != nil {
			return err
		}
	}
	d.files[to] = d.files[from]
	delete(d.files, from)
	return d.memFolder.rename(from, to)
}

func (f *faultyFile) Sync() error {
	if f.dir.onSync != nil {
		if err := f.dir.onSync(); err != nil {
			return err
		}
	}
	size, err := f.Size()
	f.synced.Store(size)
	return err
}

// expectBroken: all is refused, at once and for good.
func expectBroken(t *testing.T, l *Log) {
	t.Helper()
	for what, err := range map[string]error{
		"Append": l.Append(t.Context(), Record{Type: Reboot}),
		"Commit": l.Commit(t.Context(), func(context.Context, store.Tx) ([]Record, error) {
			t.Error("a change ran")
			return nil, nil
		}),
		"Failure":   l.Failure(TLSError),
		"StartBoot": l.StartBoot(t.Context()),
		"Broken":    l.Broken(),
	} {
		if !errors.Is(err, ErrBroken) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// What is appended before a commit is durable before it, or there is none.
func TestSyncFailsBeforeCommit(t *testing.T) {
	dir, st := newFaultyFolder(), openStore(t, "")
	cfg := config(st, "")
	cfg.Durability = Relaxed
	l, err := open(t.Context(), cfg, dir)
	must(t, err)
	must(t, l.StartBoot(t.Context()))
	must(t, l.Append(t.Context(), Record{Type: Reboot}))
	dir.onSync = func() error { return io.ErrShortWrite }
	if err := l.Commit(t.Context(), put("a", "x", Record{Type: KeyImport})); !errors.Is(err, ErrBroken) || has(t, st, "a") {
		t.Errorf("%v, in the store: %v", err, has(t, st, "a"))
	}
	expectBroken(t, l)
	l.Close(t.Context())
}

func TestStartBootFails(t *testing.T) {
	dir := newFaultyFolder()
	l, err := open(t.Context(), config(openStore(t, ""), ""), dir)
	must(t, err)
	must(t, l.StartBoot(t.Context()))
	old := l.Current()
	dir.onSync = func() error { return syscall.ENOSPC }
	if err := l.StartBoot(t.Context()); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	dir.onSync = nil
	must(t, l.Append(t.Context(), Record{Type: Reboot})) // the old one goes on
	if l.Current() != old || len(dir.memFolder.files) != 1 {
		t.Errorf("current %s, files %v", l.Current(), dir.memFolder.files)
	}
	dir.onRename = func() error { return syscall.EIO }
	if err := l.StartBoot(t.Context()); !errors.Is(err, ErrBroken) {
		t.Fatal(err)
	}
	expectBroken(t, l)
	l.Close(t.Context())
}

// While one syncs, others get in line, and one sync serves them all.
func TestGroupCommit(t *testing.T) {
	dir := newFaultyFolder()
	l, err := open(t.Context(), config(openStore(t, ""), ""), dir)
	must(t, err)
	must(t, l.StartBoot(t.Context()))
	syncs := 0
	entered, release := make(chan struct{}), make(chan struct{})
	dir.onSync = func() error {
		if syncs++; syncs == 1 {
			close(entered)
			<-release
		}
		return nil
	}
	var wg sync.WaitGroup
	appendOne := func() {
		if err := l.Append(t.Context(), Record{Type: Reboot}); err != nil {
			t.Error(err)
		}
	}
	wg.Go(appendOne)
	select {
	case <-entered:
	case <-time.After(10 * time.Second):
		t.Fatal("no sync")
	}
	const others = 50
	for range others {
		wg.Go(appendOne)
	}
	for queued := 0; queued < others; {
		l.mu.Lock()
		if l.queue != nil {
			queued = len(l.queue.recs)
		}
		l.mu.Unlock()
	}
	close(release)
	wg.Wait()
	if syncs != 2 {
		t.Errorf("%d syncs for 1 + %d appends", syncs, others)
	}
	must(t, l.Close(t.Context()))
}
