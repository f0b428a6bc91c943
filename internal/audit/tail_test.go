package audit

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Whoever reads tail after tail gets every record once, whatever their length,
// over all files, while the log grows.
func TestTail(t *testing.T) {
	l := openLog(t, config(openStore(t, ""), t.TempDir()))
	if _, err := l.Tail(t.Context(), 0); !errors.Is(err, ErrNoBoot) {
		t.Errorf("before the first boot: %v", err)
	}
	must(t, l.StartBoot(t.Context()))
	big := make([]byte, maxArg)
	const boots, records = 5, 60
	var wg sync.WaitGroup
	wg.Go(func() {
		for range boots - 1 {
			for range records {
				if err := l.Append(t.Context(), Record{Type: KeyImport, Who: "U", Arg: big}, Record{Type: Reboot}); err != nil {
					t.Error(err)
				}
			}
			if err := l.StartBoot(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	var got []byte
	leaf := int64(0)
	const all = boots*2 + (boots-1)*records*2
	for leaf < all && !t.Failed() {
		tail, err := l.Tail(t.Context(), leaf)
		must(t, err)
		if len(tail) > MaxTail {
			t.Fatalf("%d bytes", len(tail))
		}
		leaf += int64(bytes.Count(tail, []byte("\n")))
		got = append(got, tail...)
	}
	wg.Wait()
	want, _ := leavesOf(t, l)
	if len(want) != all || string(got) != strings.Join(want, "\n")+"\n" {
		t.Errorf("%d records of %d, or others", leaf, len(want))
	}
	// All the same with full tails, now that there is enough.
	again := 0
	for leaf := int64(0); leaf < all; {
		tail, err := l.Tail(t.Context(), leaf)
		must(t, err)
		if leaf += int64(bytes.Count(tail, []byte("\n"))); leaf < all && len(tail) < MaxTail-2*maxArg {
			t.Errorf("a tail of %d bytes before leaf %d is not the end", len(tail), leaf)
		}
		if !bytes.Equal(tail, got[again:again+len(tail)]) {
			t.Fatalf("another tail before leaf %d", leaf)
		}
		again += len(tail)
	}
	if tail, err := l.Tail(t.Context(), all); err != nil || len(tail) != 0 {
		t.Errorf("at the end: %d bytes, %v", len(tail), err)
	}
	for _, leaf := range []int64{-1, all + 1} {
		if _, err := l.Tail(t.Context(), leaf); !errors.Is(err, ErrNoLeaf) {
			t.Errorf("leaf %d: %v", leaf, err)
		}
	}
}

// And who comes at random finds his record.
func TestTailAtRandom(t *testing.T) {
	l := openLog(t, config(openStore(t, ""), ""))
	for range 7 {
		must(t, l.StartBoot(t.Context()))
		for range 20 {
			must(t, l.Append(t.Context(), Record{Type: Reboot, Who: "M"}))
		}
	}
	all, _ := leavesOf(t, l)
	for i := range 500 {
		leaf := i * 97 % len(all)
		tail, err := l.Tail(t.Context(), int64(leaf))
		if want := strings.Join(all[leaf:], "\n") + "\n"; err != nil || string(tail) != want {
			t.Fatalf("leaf %d: %v, %d bytes of %d", leaf, err, len(tail), len(want))
		}
	}
}

// What is asked of a file that was moved away is not there; no other record is
// given in its place.
func TestTailWithoutOldFiles(t *testing.T) {
	for _, gone := range []int{0, 1} {
		dir, st := t.TempDir(), openStore(t, "")
		l := openLog(t, config(st, dir))
		for range 4 {
			must(t, l.StartBoot(t.Context()))
			must(t, l.Append(t.Context(), Record{Type: Reboot, Who: "M"}))
		}
		all, _ := leavesOf(t, l)
		must(t, l.Close(t.Context()))
		must(t, os.Remove(filepath.Join(dir, l.Files()[gone])))
		l = openLog(t, config(st, dir))
		must(t, l.StartBoot(t.Context()))
		for leaf := range all {
			tail, err := l.Tail(t.Context(), int64(leaf))
			switch {
			case leaf/3 == gone && !errors.Is(err, ErrNoLeaf):
				t.Errorf("file %d gone, leaf %d: %v, %s", gone, leaf, err, tail)
			case leaf/3 != gone && (err != nil || !strings.HasPrefix(string(tail), all[leaf]+"\n")):
				t.Errorf("file %d gone, leaf %d: %v, %s", gone, leaf, err, tail)
			}
		}
	}
}
