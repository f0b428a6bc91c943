package audit

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"softhem/internal/store"
	"softhem/internal/suite"
)

// signer is the eid_sign of all tests.
func signer() *suite.Ed25519Key {
	k, err := suite.NewEd25519Key(bytes.Repeat([]byte{9}, suite.Ed25519Seed))
	if err != nil {
		panic(err)
	}
	return k
}

var testOrigin = Origin(bytes.Repeat([]byte{7}, 32))

// A testSealer seals as little as what the child of a test and its parent both
// can open: it binds what it is given to its kind and id.
type testSealer struct{}

func (testSealer) Seal(kind, id string, plaintext []byte) []byte {
	return append([]byte(kind+"/"+id+" "), plaintext...)
}

func (testSealer) Open(kind, id string, sealed []byte) ([]byte, error) {
	plaintext, ok := bytes.CutPrefix(sealed, []byte(kind+"/"+id+" "))
	if !ok {
		return nil, errors.New("sealed as something else")
	}
	return bytes.Clone(plaintext), nil
}

// A clock is set by hand.
type clock struct{ atomic.Int64 }

func config(st store.Store, dir string) Config {
	return Config{
		Dir: dir, Store: st, Sealer: testSealer{}, Sign: signer().Sign, EIDSign: signer().Public(), Origin: testOrigin,
		Product: "softhem test", Now: func() int64 { return time.Now().Unix() },
	}
}

func openLog(t testing.TB, cfg Config) *Log {
	t.Helper()
	l, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(context.Background()) })
	return l
}

// abandon ends a log as a crash does, but for what the kernel would lose.
func abandon(l *Log) {
	l.turn.Lock()
	defer l.turn.Unlock()
	l.mu.Lock()
	l.closing, l.closed, l.broken = true, true, ErrClosed
	l.stopTimers()
	l.mu.Unlock()
	close(l.quit)
	l.work.Wait()
	if l.seg != nil {
		l.seg.f.Close()
	}
	l.dir.close()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// entries reads a file of the log's folder, finished or not, which must verify.
func entries(t testing.TB, l *Log, id string) []Entry {
	t.Helper()
	f, _, err := l.dir.read(id)
	must(t, err)
	defer f.Close()
	var all []Entry
	for e, err := range Entries(f, signer().Public()) {
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		all = append(all, e)
	}
	if len(all) == 0 || formatID(all[0].Time) != id {
		t.Fatalf("%s does not start at its name", id)
	}
	return all
}

func brief(all []Entry) (s string) {
	for _, e := range all {
		s += fmt.Sprintf("%v %v %q %q\n", e.Type, e.Result, e.Who, e.Arg)
	}
	return s
}

const boot = "STARTUP OK \"\" \"\"\n"

// since is what a file holds after its KEY_INIT.
func since(t testing.TB, l *Log, id string) string { t.Helper(); return brief(entries(t, l, id)[1:]) }

func TestNamesAndTimes(t *testing.T) {
	var now clock
	dir := filepath.Join(t.TempDir(), "log")
	st := openStore(t, "")
	cfg := config(st, dir)
	cfg.Now = now.Load
	l := openLog(t, cfg)
	if got := l.LastTime(); got != 0 {
		t.Errorf("LastTime of nothing = %d", got)
	}
	if err := l.Append(t.Context(), Record{Type: Reboot}); !errors.Is(err, ErrNoBoot) {
		t.Errorf("Append before StartBoot: %v", err)
	}

	now.Store(0x1000)
	must(t, l.StartBoot(t.Context()))
	must(t, l.StartBoot(t.Context())) // in the same second
	now.Store(0x1010)
	must(t, l.Append(t.Context(), Record{Type: SelftestPassed}))
	now.Store(0x0500) // behind, but nobody said it was set
	must(t, l.Append(t.Context(), Record{Type: Reboot, Who: "U"}))
	now.Store(0x0800)
	l.ClockSet()
	must(t, l.Append(t.Context(), Record{Type: RTCSet, Arg: []byte("x")}))
	if got := l.LastTime(); got != 0x800 {
		t.Errorf("LastTime = %#x", got)
	}
	var times []int64
	for _, e := range entries(t, l, l.Current()) {
		times = append(times, e.Time)
	}
	if want := []int64{0x1001, 0x1001, 0x1010, 0x1010, 0x800}; !slices.Equal(times, want) {
		t.Errorf("times %x, want %x", times, want)
	}
	must(t, l.StartBoot(t.Context())) // names only grow
	now.Store(0x2000)
	must(t, l.Append(t.Context(), Record{Type: Reboot, Who: "U"}))
	must(t, l.Close(t.Context()))

	now.Store(3)
	l = openLog(t, cfg)
	if got := l.LastTime(); got != 0x2000 {
		t.Errorf("LastTime after opening = %#x", got)
	}
	must(t, l.StartBoot(t.Context()))
	if got, want := l.Files(), []string{"00001000", "00001001", "00001002", "00002000"}; !slices.Equal(got, want) {
		t.Errorf("files %v, want %v", got, want)
	}
	now.Store(1 << 40)
	must(t, l.Append(t.Context(), Record{Type: Reboot})) // the last there is a form for
	if got := entries(t, l, l.Current()); got[len(got)-1].Time != 0xffffffff {
		t.Errorf("time %x", got[len(got)-1].Time)
	}
	must(t, l.StartBoot(t.Context()))
	if err := l.StartBoot(t.Context()); err == nil {
		t.Error("a file named after ffffffff")
	}
}

func TestFilesOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "README"), []byte("x"), 0o600))
	l := openLog(t, config(openStore(t, ""), dir))
	must(t, l.StartBoot(t.Context()))
	must(t, l.Append(t.Context(), Record{Type: SelftestPassed}))
	first := l.Current()
	mode := func(path string) os.FileMode {
		info, err := os.Stat(path)
		must(t, err)
		return info.Mode().Perm()
	}
	if mode(dir) != 0o700 || mode(filepath.Join(dir, first)) != 0o600 {
		t.Errorf("modes %v %v", mode(dir), mode(filepath.Join(dir, first)))
	}
	if info, err := os.Stat(filepath.Join(dir, first)); err != nil || info.Size() != chunkSize {
		t.Errorf("not filled ahead: %v %v", info.Size(), err)
	}
	if _, _, err := l.OpenFile(first); !errors.Is(err, ErrCurrent) {
		t.Errorf("current file: %v", err)
	}
	for _, id := range []string{"", "README", "../log/" + first, "00000000"} {
		if _, _, err := l.OpenFile(id); !errors.Is(err, ErrNoFile) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if _, err := Open(t.Context(), l.cfg); err == nil {
		t.Error("two logs in one folder")
	}
	must(t, l.StartBoot(t.Context()))
	f, size, err := l.OpenFile(first)
	must(t, err)
	b, err := io.ReadAll(f)
	must(t, errors.Join(err, f.Close()))
	rep, err := VerifyFile(bytes.NewReader(b), signer().Public())
	must(t, err)
	if int64(len(b)) != size || bytes.IndexByte(b, 0) >= 0 || rep.Records != 3 || rep.Product != "softhem test" {
		t.Errorf("%d of %d bytes, %+v", len(b), size, rep)
	}
	must(t, l.Close(t.Context()))
	last := l.Files()[1]
	if b, err := os.ReadFile(filepath.Join(dir, last)); err != nil || bytes.IndexByte(b, 0) >= 0 {
		t.Errorf("not cut at Close: %d bytes, %v", len(b), err)
	}
	for _, err := range []error{l.Append(t.Context(), Record{Type: Reboot}), l.StartBoot(t.Context()), l.Failure(TLSError),
		l.Commit(t.Context(), func(context.Context, store.Tx) ([]Record, error) { return nil, nil })} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// More than a chunk, in records larger than a page.
func TestExtending(t *testing.T) {
	l := openLog(t, config(openStore(t, ""), t.TempDir()))
	must(t, l.StartBoot(t.Context()))
	big := make([]byte, maxArg)
	for range 20 {
		must(t, l.Append(t.Context(), slices.Repeat([]Record{{Type: KeyImport, Who: "U", Arg: big}}, 10)...))
	}
	if got := len(entries(t, l, l.Current())); got != 202 {
		t.Errorf("%d records", got)
	}
}

func TestConcurrentAppends(t *testing.T) {
	for _, d := range []Durability{Strict, Relaxed} {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			before := runtime.NumGoroutine()
			cfg := config(openStore(t, ""), t.TempDir())
			cfg.Durability = d
			l := openLog(t, cfg)
			must(t, l.StartBoot(t.Context()))
			const who, each = 64, 50
			var wg sync.WaitGroup
			for i := range who {
				wg.Go(func() {
					for j := range each {
						var arg [4]byte
						binary.LittleEndian.PutUint16(arg[:], uint16(i))
						binary.LittleEndian.PutUint16(arg[2:], uint16(j))
						if err := l.Append(t.Context(), Record{Type: KeyDerive, Who: "U", Arg: arg[:]}, Record{Type: Shutdown}); err != nil {
							t.Error(err)
						}
						if i == 0 && j%10 == 9 {
							if err := l.StartBoot(t.Context()); err != nil {
								t.Error(err)
							}
						}
					}
				})
			}
			wg.Wait()
			seen := map[string]bool{}
			order := map[uint16]uint16{} // of each appender, next j
			for _, id := range l.Files() {
				all := entries(t, l, id) // seq is dense, or it does not verify
				for i, e := range all {
					if e.Type != KeyDerive {
						continue
					}
					who, j := binary.LittleEndian.Uint16(e.Arg), binary.LittleEndian.Uint16(e.Arg[2:])
					if seen[string(e.Arg)] || order[who] != j || all[i+1].Type != Shutdown {
						t.Fatalf("%s: record %d is out of place", id, i)
					}
					seen[string(e.Arg)] = true
					order[who]++
				}
			}
			if len(seen) != who*each {
				t.Errorf("%d records, want %d", len(seen), who*each)
			}
			must(t, l.Close(t.Context()))
			for range 100 { // those of database/sql end a little later
				if runtime.NumGoroutine() <= before+1 {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
			t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		})
	}
}

func newTextLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
