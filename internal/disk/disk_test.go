package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"softhem/internal/suite"
)

const sectors = 4096 // 2 MiB

// newDisks has its folder where the names of sockets are short.
func newDisks(t *testing.T) (*Disks, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "disk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return openDisks(t, dir), dir
}

func openDisks(t *testing.T, dir string) *Disks {
	t.Helper()
	d, err := Open(Config{Images: dir, Sockets: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func key() []byte {
	return bytes.Repeat([]byte("a key of 32 bytes and another.."), 3)[:suite.DiskKeySize]
}

func nothing() error { return nil }

func unlock(t *testing.T, d *Disks, n int, writable bool) {
	t.Helper()
	u := Unlocking{Sectors: sectors, Writable: writable}
	if n == 1 {
		u.Key = key()
	}
	if err := d.Unlock(n, u, nothing); err != nil {
		t.Fatal(err)
	}
}

// tool runs one of the programs that know NBD, from packages libnbd-bin and
// qemu-utils.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := tryTool(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func tryTool(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		missing := t.Skipf
		if os.Getenv("CI") == "true" {
			missing = t.Fatalf
		}
		missing("%s is not installed, and with it this would test that others can attach the disks: apt-get install libnbd-bin qemu-utils", name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	return string(out), err
}

func uri(dir string, n int) string {
	return fmt.Sprintf("nbd+unix:///%s?socket=%s", Name(n), filepath.Join(dir, SocketFile(n)))
}

// text is data of the size of a disk that is easy to find again.
func text(t *testing.T) (file string, content []byte) {
	t.Helper()
	for i := 0; len(content) < sectors*SectorSize; i++ {
		content = fmt.Appendf(content, "plaintext of line %d\n", i)
	}
	content = content[:sectors*SectorSize]
	file = filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file, content
}

// Both disks, written by nbdcopy, locked, unlocked, read back by nbdcopy and
// qemu-img; the image of disk 1 shows nothing of it, that of disk 0 all.
func TestRealToolsAttachTheDisks(t *testing.T) {
	d, dir := newDisks(t)
	file, content := text(t)
	for n := range Count {
		unlock(t, d, n, true)
		if info := tool(t, "nbdinfo", uri(dir, n)); !strings.Contains(info, "export-size: 2097152") || !strings.Contains(info, "can_fua: true") {
			t.Errorf("nbdinfo: %s", info)
		}
		tool(t, "nbdcopy", "--flush", file, uri(dir, n))
		if err := d.Lock(n); err != nil {
			t.Fatal(err)
		}
		if out, err := tryTool(t, "nbdinfo", uri(dir, n)); err == nil {
			t.Errorf("a locked disk is served: %s", out)
		}
		image, err := os.ReadFile(filepath.Join(dir, ImageFile(n)))
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 && !bytes.Equal(image, content) {
			t.Error("disk 0 is not what was written")
		}
		if n == 1 && (len(image) != len(content) || bytes.Contains(image, []byte("plain")) || bytes.Contains(image, make([]byte, 16))) {
			t.Error("the image of disk 1 shows what was written")
		}
		unlock(t, d, n, false)
		back := filepath.Join(t.TempDir(), "back")
		tool(t, "nbdcopy", uri(dir, n), back)
		if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, content) {
			t.Errorf("disk %d: something else came back: %v", n, err)
		}
		if out := tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", file, uri(dir, n)); !strings.Contains(out, "identical") {
			t.Error(out)
		}
		if out, err := tryTool(t, "nbdcopy", file, uri(dir, n)); err == nil {
			t.Errorf("a disk that is unlocked read-only was written: %s", out)
		}
	}
	// qemu writes too: with zeros it makes holes, and reads them again.
	unlock(t, d, 1, true)
	out := tool(t, "qemu-io", "-f", "raw", "-t", "writeback", "-c", "write -z 0 1M", "-c", "write -P 0x5a 1M 64k", "-c", "discard 1536k 512k", "-c", "flush",
		"-c", "read -P 0 0 1M", "-c", "read -P 0x5a 1M 64k", "-c", "read -P 0 1536k 512k", uri(dir, 1))
	if strings.Contains(out, "failed") || strings.Count(out, "ops;") < 5 {
		t.Error(out)
	}
}

// An image takes the room of what was written, and a trim gives it back.
func TestImagesAreSparse(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("holes are made on Linux only")
	}
	d, dir := newDisks(t)
	for n := range Count {
		u := Unlocking{Sectors: 16 << 20, Writable: true} // 8 GiB
		if n == 1 {
			u.Key = key()
		}
		if err := d.Unlock(n, u, nothing); err != nil {
			t.Fatal(err)
		}
		used := func() int64 {
			info, err := os.Stat(filepath.Join(dir, ImageFile(n)))
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != 0o600 {
				t.Errorf("mode %v", info.Mode())
			}
			return info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		device, err := d.open(n, u)
		if err != nil {
			t.Fatal(err)
		}
		if got := used(); got > 1<<20 {
			t.Errorf("an empty disk %d takes %d bytes", n, got)
		}
		if _, err := device.WriteAt(bytes.Repeat([]byte("x"), 4<<20), 1<<30+5); err != nil {
			t.Fatal(err)
		}
		full := used()
		if err := device.Zero(1<<29, 1<<30, false); err != nil {
			t.Fatal(err)
		}
		if now := used(); full < 4<<20 || now > full/2 {
			t.Errorf("disk %d takes %d bytes with 4 MiB in it, and %d after they were trimmed", n, full, now)
		}
	}
}

// Both kinds of disk are what a slice of bytes is, whatever is read, written or
// zeroed, wherever it begins and ends, and after they were locked in between.
func TestDisksAreBytes(t *testing.T) {
	d, _ := newDisks(t)
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		size := int64(8 * SectorSize)
		for n = range Count {
			u := Unlocking{Sectors: 8, Writable: true}
			if n == 1 {
				u.Key = key()
			}
			k := &d.disks[n]
			device, err := d.open(n, u)
			if err != nil {
				r.Fatal(err)
			}
			model := make([]byte, size)
			if err := device.Zero(0, size, rapid.Bool().Draw(r, "keep")); err != nil {
				r.Fatal(err)
			}
			for range rapid.IntRange(1, 20).Draw(r, "steps") {
				off := rapid.Int64Range(0, size-1).Draw(r, "off")
				length := rapid.Int64Range(1, size-off).Draw(r, "length")
				p := make([]byte, length)
				switch rapid.IntRange(0, 4).Draw(r, "step") {
				case 0, 1:
					if _, err := device.ReadAt(p, off); err != nil || !bytes.Equal(p, model[off:off+length]) {
						r.Fatalf("disk %d at %d, %d bytes: %x, %v", n, off, length, p, err)
					}
				case 2:
					copy(p, rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(r, "data"))
					given := bytes.Clone(p)
					if _, err := device.WriteAt(p, off); err != nil || !bytes.Equal(p, given) {
						r.Fatal("a write failed, or changed what it was given", err)
					}
					copy(model[off:], p)
				case 3:
					if err := device.Zero(off, length, rapid.Bool().Draw(r, "keep")); err != nil {
						r.Fatal(err)
					}
					clear(model[off : off+length])
				case 4:
					if err := k.release(false); err != nil {
						r.Fatal(err)
					}
					if device, err = d.open(n, u); err != nil {
						r.Fatal(err)
					}
				}
			}
			all := make([]byte, size)
			if _, err := device.ReadAt(all, 0); err != nil || !bytes.Equal(all, model) {
				r.Fatalf("disk %d in the end: %v", n, err)
			}
		}
	})
}

// Writers of neighbouring bytes of one sector do not undo each other.
func TestWritersOfOneSector(t *testing.T) {
	d, _ := newDisks(t)
	device, err := d.open(1, Unlocking{Sectors: 2, Key: key()})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for round := range 50 {
				if _, err := device.WriteAt([]byte{byte(i), byte(round)}, int64(508+2*(i-2))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got := make([]byte, 16)
	if _, err := device.ReadAt(got, 504); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		if got[2*i] != byte(i) || got[2*i+1] != 49 {
			t.Fatalf("%x", got)
		}
	}
}

// Another key, or a sector in another's place, gives nothing readable.
func TestSealedSectorsAreBoundToTheirPlace(t *testing.T) {
	d, dir := newDisks(t)
	device, err := d.open(1, Unlocking{Sectors: 4, Key: key()})
	if err != nil {
		t.Fatal(err)
	}
	same := bytes.Repeat([]byte("the same"), 64)
	for i := range 4 {
		if _, err := device.WriteAt(same, int64(i*SectorSize)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, ImageFile(1))
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(raw[:512], raw[512:1024]) {
		t.Error("equal sectors look alike")
	}
	if err := os.WriteFile(path, append(bytes.Clone(raw[512:1024]), raw[512:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 512)
	if _, err := device.ReadAt(got, 0); err != nil || bytes.Contains(got, []byte("same")) {
		t.Errorf("a moved sector is readable: %v", err)
	}
	other := key()
	other[63] ^= 1
	if err := d.disks[1].release(false); err != nil {
		t.Fatal(err)
	}
	if device, err = d.open(1, Unlocking{Sectors: 4, Key: other}); err != nil {
		t.Fatal(err)
	}
	if _, err := device.ReadAt(got, 512); err != nil || bytes.Contains(got, []byte("same")) {
		t.Errorf("readable with another key: %v", err)
	}
}

func TestUnlockAndLock(t *testing.T) {
	d, dir := newDisks(t)
	errNo := errors.New("not recorded")
	refuse := func() error { return errNo }
	writable := Unlocking{Sectors: sectors, Writable: true}
	socket := filepath.Join(dir, SocketFile(0))
	mustBe := func(want Mode) {
		t.Helper()
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		if got := d.Mode(0); got != want || (err == nil) != (want != Locked) {
			t.Fatalf("mode %q, %v; want %q", got, err, want)
		}
	}
	mustBe(Locked)
	if err := d.Lock(0); err != nil {
		t.Fatal(err)
	}
	if err := d.Unlock(0, writable, refuse); !errors.Is(err, errNo) {
		t.Fatal(err)
	}
	mustBe(Locked)
	if err := d.Unlock(0, Unlocking{}, nothing); err == nil {
		t.Fatal("unlocked a disk of no size")
	}
	unlock(t, d, 0, true)
	mustBe(Writable)
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	// The same again leaves clients alone, recorded or not.
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := d.Unlock(0, writable, refuse); !errors.Is(err, errNo) {
		t.Fatal(err)
	}
	unlock(t, d, 0, true)
	mustBe(Writable)
	if _, err := conn.Read(make([]byte, 18)); err != nil {
		t.Error(err)
	}
	// Another mode cuts them off, and one that is not recorded locks.
	unlock(t, d, 0, false)
	mustBe(ReadOnly)
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := conn.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("not cut off", err)
	}
	if err := d.Unlock(0, writable, refuse); !errors.Is(err, errNo) {
		t.Fatal(err)
	}
	mustBe(Locked)
	// A disk whose module fails is locked, whatever the process still has.
	var fails atomic.Bool
	unlocking := writable
	unlocking.Allowed = func() bool { return !fails.Load() }
	if err := d.Unlock(0, unlocking, nothing); err != nil {
		t.Fatal(err)
	}
	mustBe(Writable)
	fails.Store(true)
	if got := d.Mode(0); got != Locked {
		t.Errorf("mode %q in a fail state", got)
	}
	if err := d.Drop(); err != nil {
		t.Fatal(err)
	}
	mustBe(Locked)
}

// A new key is not laid over an image of another one, and an image that was
// begun when its key was not stored yet is no such.
func TestAnImageWithoutItsKeyIsKept(t *testing.T) {
	d, dir := newDisks(t)
	fresh := Unlocking{Sectors: sectors, Writable: true, Key: key(), NewKey: true}
	path := filepath.Join(dir, ImageFile(1))
	if err := d.Unlock(1, fresh, func() error { return errors.New("power lost") }); err == nil {
		t.Fatal("not refused")
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 0 {
		t.Fatal(info, err)
	}
	if err := d.Unlock(1, fresh, nothing); err != nil {
		t.Fatal(err)
	}
	if err := d.Lock(1); err != nil {
		t.Fatal(err)
	}
	if err := d.Unlock(1, fresh, nothing); err != nil { // nothing was written
		t.Fatal(err)
	}
	if err := d.Lock(1); err != nil {
		t.Fatal(err)
	}
	device, err := d.open(1, Unlocking{Sectors: sectors, Key: key()})
	if err == nil {
		_, err = device.WriteAt([]byte("x"), 0)
	}
	if err = errors.Join(err, d.disks[1].release(false)); err != nil {
		t.Fatal(err)
	}
	if err := d.Unlock(1, fresh, nothing); !errors.Is(err, ErrKeyLost) {
		t.Error(err)
	}
	if d.Mode(1) != Locked {
		t.Error("unlocked")
	}
}

func TestWhatIsInTheWay(t *testing.T) {
	d, dir := newDisks(t)
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, ImageFile(0))); err != nil {
		t.Fatal(err)
	}
	if err := d.Unlock(0, Unlocking{Sectors: 1, Writable: true}, nothing); err == nil {
		t.Error("followed a link")
	}
	if err := os.Mkdir(filepath.Join(dir, ImageFile(1)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Unlock(1, Unlocking{Sectors: 1, Writable: true}, nothing); err == nil {
		t.Error("took a folder for an image")
	}
	// A socket of a process that was killed is no obstacle.
	left, err := net.Listen("unix", filepath.Join(dir, SocketFile(0)))
	if err != nil {
		t.Fatal(err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	left.Close()
	if err := os.Remove(filepath.Join(dir, ImageFile(0))); err != nil {
		t.Fatal(err)
	}
	unlock(t, openDisks(t, dir), 0, false)

	long := filepath.Join(dir, strings.Repeat("long", 30))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := openDisks(t, long).Unlock(0, Unlocking{Sectors: 1}, nothing); !errors.Is(err, ErrSocketPath) {
		t.Errorf("in a folder with a long name: %v", err)
	}
}

// In memory a disk keeps its contents while it is locked, and leaves no file.
func TestDisksInMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux keeps disks in memory")
	}
	dir, err := os.MkdirTemp("", "disk")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	d, err := Open(Config{Sockets: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	file, content := text(t)
	for n := range Count {
		unlock(t, d, n, true)
		tool(t, "nbdcopy", file, uri(dir, n))
		if err := d.Lock(n); err != nil {
			t.Fatal(err)
		}
		unlock(t, d, n, false)
		back := filepath.Join(t.TempDir(), "back")
		tool(t, "nbdcopy", uri(dir, n), back)
		if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, content) {
			t.Errorf("disk %d: something else came back: %v", n, err)
		}
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			t.Errorf("%s lies there", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d.disks[0].file != nil {
		t.Error("the memory is still taken")
	}
}
