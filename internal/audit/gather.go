package audit

import "time"

// A gathering decides how long the leader of a batch waits for company.
//
// Appenders who answer a request and come back with the next one soon split
// into two groups that take turns at the disk, each waiting for the other's sync
// and then for its own. Who waits a moment for those whom the last sync let go
// has them all in one batch: 8 appenders get through with half the syncs.
//
// Guarded by Log.mu.
type gathering struct {
	expect int // appenders: let go by the last batch, and in line behind it
	missed int // waits in a row in which they did not come
	rest   int // batches that are not to wait
}

// No wait is meant to be longer than the last sync took, so that it costs at most
// what it might have saved; after waits in vain up to 2^maxMissed batches do
// without. Disks faster than minGather are not waited for: when all is quiet a
// timer may be a millisecond late.
const (
	minGather = 100 * time.Microsecond
	maxGather = time.Millisecond
	maxMissed = 6
)

// gather closes the batch to newcomers: at once, or when as many are in it as
// may be expected to come, or when the time is up. The turn is held.
func (l *Log) gather(b *batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() { l.queue = nil }() // who comes now, waits for the next turn
	g := &l.gathering
	wait := min(time.Duration(l.lastSync.Load()), maxGather)
	if b.callers >= g.expect || wait < minGather || l.cfg.Durability == Relaxed {
		return
	}
	if g.rest > 0 {
		g.rest--
		return
	}
	b.want, b.full = g.expect, make(chan struct{})
	l.mu.Unlock()
	timer := time.NewTimer(wait)
	select {
	case <-b.full:
		timer.Stop()
	case <-timer.C:
	}
	l.mu.Lock()
	if b.callers >= g.expect {
		g.missed = 0
		return
	}
	b.want = 0 // nobody closes full any more
	g.rest = 1 << g.missed
	g.missed = min(g.missed+1, maxMissed)
}

// letGo is called when a batch is done, before its appenders hear of it.
func (l *Log) letGo(b *batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gathering.expect = b.callers
	if l.queue != nil {
		l.gathering.expect += l.queue.callers
	}
}
