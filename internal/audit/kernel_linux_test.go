package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"softhem/internal/store"
)

// replace puts another open file under the descriptor of the log's, so that
// the kernel itself refuses what comes next.
func replace(t *testing.T, l *Log, path string) {
	t.Helper()
	other, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer other.Close()
	must(t, syscall.Dup3(int(other.Fd()), int(l.seg.f.(diskFile).Fd()), syscall.O_CLOEXEC))
}

func TestFailedSyncIsFinal(t *testing.T) {
	dir, st := t.TempDir(), openStore(t, "")
	l := openLog(t, config(st, dir))
	must(t, l.StartBoot(t.Context()))
	must(t, l.Append(t.Context(), Record{Type: SelftestPassed}))
	replace(t, l, "/dev/null") // takes the write, cannot sync
	if err := l.Append(t.Context(), Record{Type: Reboot}); !errors.Is(err, ErrBroken) || !errors.Is(err, syscall.EINVAL) {
		t.Errorf("Append: %v", err)
	}
	expectBroken(t, l)
	if err := l.Close(t.Context()); !errors.Is(err, ErrBroken) {
		t.Errorf("Close: %v", err)
	}
	l = openLog(t, config(st, dir))
	if got, want := since(t, l, l.Files()[0]), boot+"SELFTEST_PASSED OK \"\" \"\"\n"; got != want {
		t.Errorf("got\n%s", got)
	}
	must(t, l.StartBoot(t.Context()))
	must(t, l.Append(t.Context(), Record{Type: SelftestPassed}))
}

func TestFailedWriteIsFinal(t *testing.T) {
	l := openLog(t, config(openStore(t, ""), t.TempDir()))
	must(t, l.StartBoot(t.Context()))
	replace(t, l, "/dev/full")
	// ENOSPC on room already taken: the disk broke its word.
	if err := l.Append(t.Context(), Record{Type: Reboot}); !errors.Is(err, ErrBroken) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Append: %v", err)
	}
	expectBroken(t, l)
}

// The store commits and the append fails: the caller gets an error, and the
// next Open brings the record to the change.
func TestAppendFailsAfterCommit(t *testing.T) {
	dir, st := t.TempDir(), openStore(t, "")
	l := openLog(t, config(st, dir))
	must(t, l.StartBoot(t.Context()))
	err := l.Commit(t.Context(), func(ctx context.Context, tx store.Tx) ([]Record, error) {
		replace(t, l, "/dev/full")
		return []Record{{Type: KeyImport, Who: "M", Arg: []byte("k")}}, tx.Put(ctx, "key", "k", []byte("v"))
	})
	if !errors.Is(err, ErrBroken) {
		t.Fatal(err)
	}
	expectBroken(t, l)
	l.Close(t.Context())
	if !has(t, st, "k") {
		t.Fatal("the test needs a change that was made")
	}
	for range 2 { // it stays so
		l = openLog(t, config(st, dir))
		if got, want := since(t, l, l.Files()[0]), boot+"KEY_IMPORT OK \"M\" \"k\"\n"; got != want {
			t.Errorf("got\n%s", got)
		}
		must(t, l.Close(t.Context()))
	}
}

// A full disk refuses and loses nothing; with space the log works on.
func TestFullDisk(t *testing.T) {
	mnt := t.TempDir()
	if err := syscall.Mount("tmpfs", mnt, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("no tmpfs can be mounted here: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(mnt, 0) })
	st := openStore(t, "")
	cfg := config(st, filepath.Join(mnt, "log"))
	l := openLog(t, cfg)
	must(t, l.StartBoot(t.Context()))
	ballast := filepath.Join(mnt, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 2<<20), 0o600))

	answered := map[string]bool{}
	fillUp := func() {
		for i := 0; ; i++ {
			arg := fmt.Appendf(bytes.Repeat([]byte{'.'}, 9000), "%d-%d", len(answered), i)
			err := l.Append(t.Context(), Record{Type: KeyDerive, Arg: arg})
			if errors.Is(err, ErrFull) {
				return
			}
			must(t, err)
			answered[string(arg)] = true
			if len(answered) > 10_000 {
				t.Fatal("the disk does not get full")
			}
		}
	}
	fillUp()
	must(t, l.Broken())
	big := Record{Type: KeyDerive, Arg: make([]byte, maxArg)}
	if err := l.Commit(t.Context(), put("full", "x", big)); !errors.Is(err, ErrFull) || has(t, st, "full") {
		t.Errorf("Commit: %v", err)
	}
	if err := l.StartBoot(t.Context()); !errors.Is(err, ErrFull) {
		t.Errorf("StartBoot: %v", err)
	}
	must(t, l.Broken())
	must(t, l.Failure(FailedScopeCheck)) // counted, and not written: 64 MiB are not free
	must(t, os.Remove(ballast))
	n := len(answered)
	fillUp()
	if len(answered) == n {
		t.Error("nothing could be written to the free space")
	}
	found := 0
	for _, e := range entries(t, l, l.Current()) {
		if e.Type == FailedScopeCheck {
			t.Error("an anonymous failure took space of the reserve")
		}
		if answered[string(e.Arg)] {
			found++
		}
	}
	if found != len(answered) {
		t.Errorf("%d of %d records", found, len(answered))
	}
}
