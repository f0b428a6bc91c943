package audit

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Failures are counted and written once a second, and never while the reserve
// is touched.
func TestFailures(t *testing.T) {
	st := openStore(t, "")
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Uint64
		free.Store(failureReserve)
		checks := map[int64]int{}
		cfg := config(st, "")
		cfg.FreeSpace = func() (uint64, error) { checks[time.Now().Unix()]++; return free.Load(), nil }
		l := openLog(t, cfg)
		must(t, l.StartBoot(t.Context()))
		fail := func(typ Type, n int) {
			for range n {
				must(t, l.Failure(typ))
			}
			synctest.Wait()
		}
		expect := func(want ...string) {
			t.Helper()
			synctest.Wait()
			got := []string{}
			for _, e := range entries(t, l, l.Current())[2:] {
				got = append(got, fmt.Sprintf("%v %v %q %d", e.Type, e.Result, e.Who, binary.LittleEndian.Uint32(e.Arg)))
			}
			if !slices.Equal(got, want) {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
		const first = `FAILED_SCOPE_CHECK FAILED "" 1`
		fail(FailedScopeCheck, 1)
		expect(first)
		fail(FailedScopeCheck, 500)
		fail(TLSError, 3)
		time.Sleep(999 * time.Millisecond)
		expect(first)
		time.Sleep(2 * time.Millisecond)
		second := []string{first, `TLS_ERROR FAILED "" 3`, `FAILED_SCOPE_CHECK FAILED "" 500`}
		expect(second...)
		time.Sleep(5 * time.Second)
		expect(second...)
		fail(TLSError, 1)
		third := append(second, `TLS_ERROR FAILED "" 1`)
		expect(third...)

		time.Sleep(2 * time.Second)
		free.Store(failureReserve - 1)
		fail(TLSError, 7)
		time.Sleep(10 * time.Second)
		fail(TLSError, 1)
		expect(third...)
		free.Store(failureReserve)
		time.Sleep(time.Second)
		fourth := append(third, `TLS_ERROR FAILED "" 8`)
		expect(fourth...)

		// They belong to the boot they happened in.
		fail(TLSError, 2)
		old := l.Current()
		must(t, l.StartBoot(t.Context()))
		expect()
		if all := entries(t, l, old); all[len(all)-1].Type != TLSError {
			t.Error("counted failures were not written before the boot")
		}
		fail(TLSError, 4)
		last := l.Current()
		must(t, l.Close(t.Context()))
		if all := entries(t, l, last); len(all) != 3 || all[2].Arg[0] != 4 {
			t.Errorf("at Close: %v", all)
		}
		for second, n := range checks {
			if n > 2 { // the clerk's, and one of StartBoot
				t.Errorf("asked for the free space %d times in second %d", n, second)
			}
		}
	})
}

// Under Relaxed a record is synced within a second, and before a commit.
func TestRelaxed(t *testing.T) {
	st := openStore(t, "")
	synctest.Test(t, func(t *testing.T) {
		dir := newFaultyFolder()
		cfg := config(st, "")
		cfg.Durability = Relaxed
		l, err := open(t.Context(), cfg, dir)
		must(t, err)
		must(t, l.StartBoot(t.Context()))
		unsynced := func() int64 {
			f := dir.files[l.Current()]
			size, _ := f.Size()
			return size - f.synced.Load()
		}
		for i := range 40 {
			must(t, l.Append(t.Context(), Record{Type: Reboot}))
			written := unsynced()
			if written == 0 {
				t.Fatal("Append waited for a sync")
			}
			time.Sleep(time.Duration(i) * 37 * time.Millisecond)
			must(t, l.Append(t.Context(), Record{Type: Reboot}))
			time.Sleep(time.Second)
			if n := unsynced(); n != 0 {
				t.Fatalf("%d bytes unsynced after a second", n)
			}
		}
		must(t, l.Append(t.Context(), Record{Type: Reboot}))
		must(t, l.Commit(t.Context(), put("r", "x", Record{Type: KeyImport})))
		tail, err := st.LogTail(t.Context())
		must(t, err)
		if synced := dir.files[l.Current()].synced.Load(); synced < tail.Offset {
			t.Errorf("the store vouches for what follows byte %d, but the log is synced to %d", tail.Offset, synced)
		}
		must(t, l.Append(t.Context(), Record{Type: Reboot}))
		must(t, l.Close(t.Context()))
		for id, f := range maps.All(dir.files) {
			if size, _ := f.Size(); size != f.synced.Load() {
				t.Errorf("%s is not synced after Close", id)
			}
		}
	})
}
