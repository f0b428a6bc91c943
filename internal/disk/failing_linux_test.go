package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fail puts another open file under the descriptor of a disk's image, so that
// the kernel itself refuses what comes next.
func fail(t *testing.T, f *os.File, path string) {
	t.Helper()
	other, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := syscall.Dup3(int(other.Fd()), int(f.Fd()), syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
}

// What a client is told to be on disk was synced: where the kernel refuses that,
// the client hears of it, every time from then on, and so does who locks the disk.
// It is locked all the same, and can be unlocked again.
func TestFailedSyncIsTold(t *testing.T) {
	for n := range Count {
		d, dir := newDisks(t)
		unlock(t, d, n, true)
		// It flushes at its end too, and tells by its status whether all went well.
		writes := func(when string, well bool, more ...string) {
			t.Helper()
			out, err := tryTool(t, "qemu-io", append([]string{"-f", "raw", "-t", "writeback", "-c", "write 0 4k"}, append(more, uri(dir, n))...)...)
			if !strings.Contains(out, "wrote 4096/4096 bytes at offset 0") && well || (err == nil) != well {
				t.Errorf("disk %d, %s: %v\n%s", n, when, err, out)
			}
		}
		writes("in order", true, "-c", "flush")
		file := d.disks[n].file
		fail(t, file, "/dev/null") // takes writes, cannot sync
		writes("a flush that fails", false, "-c", "flush")
		fail(t, file, filepath.Join(dir, ImageFile(n))) // the kernel would sync again
		writes("FUA after a flush that failed", false, "-c", "write -f 4k 4k")
		writes("another flush", false, "-c", "flush")
		if err := d.Lock(n); !errors.Is(err, syscall.EINVAL) || d.Mode(n) != Locked {
			t.Errorf("locked, with what was not kept: %v", err)
		}
		unlock(t, d, n, true)
		writes("unlocked again", true, "-c", "flush")
		fail(t, d.disks[n].file, "/dev/full")
		writes("without room", false)
		if err := d.Lock(n); err == nil {
			t.Error("locked as if all were kept")
		}
	}
}
