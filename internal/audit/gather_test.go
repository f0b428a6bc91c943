package audit

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// slowLog is a log whose syncs take two milliseconds and are counted.
func slowLog(t *testing.T) (l *Log, syncs *atomic.Int64) {
	t.Helper()
	dir, syncs := newFaultyFolder(), new(atomic.Int64)
	l, err := open(t.Context(), config(openStore(t, ""), ""), dir)
	must(t, err)
	must(t, l.StartBoot(t.Context()))
	dir.onSync = func() error {
		syncs.Add(1)
		time.Sleep(2 * time.Millisecond)
		return nil
	}
	t.Cleanup(func() { must(t, l.Close(t.Context())) })
	return l, syncs
}

// Appenders who come back at once share one sync, and do not split into groups
// that wait for each other's: those would need twice as many.
func TestGatheringSharesSyncs(t *testing.T) {
	l, syncs := slowLog(t)
	const who, each = 8, 200
	var wg sync.WaitGroup
	for range who {
		wg.Go(func() {
			for range each {
				if err := l.Append(t.Context(), Record{Type: KeyDerive, Who: "U"}); err != nil {
					t.Error(err)
				}
				time.Sleep(50 * time.Microsecond) // as the next request takes its time
			}
		})
	}
	wg.Wait()
	if n := syncs.Load(); n > each*3/2 {
		t.Errorf("%d appenders needed %d syncs for %d appends each", who, n, each)
	}
}

// Who is alone waits once for those who left, and no more; after waits
// in vain more and more batches go without one.
func TestGatheringForNobody(t *testing.T) {
	l, _ := slowLog(t)
	append1 := func() { must(t, l.Append(t.Context(), Record{Type: KeyDerive, Who: "U"})) }
	append1() // so that it is known what a sync takes
	for wait := range 10 {
		l.mu.Lock()
		l.expect = 8
		rested := l.rest
		l.mu.Unlock()
		append1()
		if l.expect != 1 {
			t.Fatalf("alone, %d are expected", l.expect)
		}
		if rested > 0 || l.rest != 1<<min(wait, maxMissed) {
			t.Fatalf("wait %d: %d batches were to rest, and %d now", wait, rested, l.rest)
		}
		for range l.rest {
			l.expect = 8 // they do not wait, or missed would grow
			append1()
		}
	}
	if l.missed != maxMissed {
		t.Errorf("missed %d times", l.missed)
	}
	l.expect, l.rest = 0, 0
	for range 5 {
		append1()
	}
	if l.missed != maxMissed || l.rest != 0 {
		t.Errorf("one who is expected alone waited: %+v", l.gathering)
	}
}
