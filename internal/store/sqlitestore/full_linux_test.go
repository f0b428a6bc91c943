package sqlitestore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"softhem/internal/store"
)

// smallDisk mounts a file system of 2 MiB and returns its folder, and what
// frees a quarter of it.
func smallDisk(t *testing.T) (dir string, makeRoom func()) {
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("no right to mount a small file system (%v); \"page limit\" stands in", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 512<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, func() {
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
}

// fullDisk is the part of TestFullDisk that needs a small file system.
func fullDisk(t *testing.T) {
	dir, makeRoom := smallDisk(t)
	closed := filepath.Join(dir, "closed.db")
	if err := open(t, closed).Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s.db")
	s := open(t, path)
	fillUp(t, s, func() {
		// To the last byte, so that the store is refused even a page.
		f, err := os.Create(filepath.Join(dir, "rest"))
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = f.Write(make([]byte, 512))
		}
		if !errors.Is(err, syscall.ENOSPC) || !diskFull(dir) {
			t.Fatalf("the disk is not full: %v", err)
		}
		// Room inside the store's own files may still serve a few.
		for n := 0; err == nil || errors.Is(err, syscall.ENOSPC); n++ {
			err = s.Update(t.Context(), func(tx store.Tx) error {
				return tx.Put(t.Context(), "k", fmt.Sprint("new", n), make([]byte, 20000))
			})
		}
		if !errors.Is(err, store.ErrFull) {
			t.Errorf("Update on a disk full to the last byte: %v", err)
		}
		// A second store cannot even begin.
		if _, err := Open(t.Context(), Config{Path: filepath.Join(dir, "second.db")}); !errors.Is(err, store.ErrFull) {
			t.Errorf("Open on a full disk: %v", err)
		}
		// Nor can one that is there be opened: SQLite calls that an I/O error.
		if _, err := Open(t.Context(), Config{Path: closed}); !errors.Is(err, store.ErrFull) {
			t.Errorf("Open of a store on a full disk: %v", err)
		}
		if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
			t.Fatal(err)
		}
		makeRoom()
		if diskFull(dir) {
			t.Error("the disk counts as full with 512 KiB free")
		}
	})
}
