package syslog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"softhem/internal/audit"
)

// An entry is what is queued: the lines of one write of the log, or, without
// lines, a message of our own. It is shared by all sinks and not changed.
type entry struct {
	w      audit.Written
	count  int64 // lines
	at     time.Time
	msgID  string
	text   string
	params []param
	done   chan struct{} // of a flush: closed when all before it is sent; nothing is sent for it
}

func newEntry(w audit.Written) *entry {
	w.Lines = bytes.Clone(w.Lines)
	return &entry{w: w, count: int64(bytes.Count(w.Lines, []byte{'\n'}))}
}

// size is what an entry holds in memory, roughly.
func (e *entry) size() int { return len(e.w.Lines) + len(e.text) + 200 }

// A gap is records in a row that were dropped: from and to, both included.
type gap struct {
	origin   string
	from, to int64
}

func (g gap) entry(at time.Time) *entry {
	n := g.to - g.from + 1
	return &entry{
		w: audit.Written{Origin: g.origin}, at: at, msgID: "GAP",
		text: fmt.Sprintf("records %d..%d missing (%d); they are in the files of the log", g.from, g.to, n),
		params: []param{
			{"from", strconv.FormatInt(g.from, 10)}, {"to", strconv.FormatInt(g.to, 10)}, {"count", strconv.FormatInt(n, 10)},
		},
	}
}

// A stream may break after the kernel took what was written and before the peer
// has it. What was written within resendTime, the end of it up to resendBytes, is
// kept and sent again. A peer that does not acknowledge is given up well before
// (writeTimeout), and one that closes is noticed at once.
const (
	resendTime  = 15 * time.Second
	resendBytes = 1 << 20
	maxWrite    = 64 << 10
)

// A sink is one peer. Its queue is filled by whoever writes the log, under mu,
// which is never held over I/O; run empties it.
type sink struct {
	target Target
	cfg    Config
	head   head
	log    *slog.Logger

	mu       sync.Mutex
	queue    []*entry
	bytes    int   // of the lines in queue
	gaps     []gap // dropped since the queue was last let in to; of one module each
	up       bool
	trying   bool // the first attempt to connect is not over
	ending   bool // nothing more is put in line
	sent     uint64
	dropped  uint64
	failures uint64

	more chan struct{} // something was put in line, or ending
	ctx  context.Context
	cut  context.CancelFunc // ends all I/O

	recent      []written // run's own, as is
	recentBytes int       // their size
}

// written is what a connection took, and when.
type written struct {
	e  *entry
	at time.Time
}

func newSink(cfg Config, t Target) *sink {
	k := &sink{
		target: t, cfg: cfg, head: newHead(cfg.Hostname, cfg.PID),
		log:  cfg.Logger.With("sink", t.String()),
		more: make(chan struct{}, 1), trying: true,
	}
	k.ctx, k.cut = context.WithCancel(context.Background())
	return k
}

// put takes lines in line, or drops them. What was dropped before is said first.
func (k *sink) put(e *entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ending {
		return
	}
	room := k.cfg.QueueBytes
	if len(k.gaps) > 0 {
		room /= 2 // few long gaps are better than many short ones
	}
	if k.bytes+len(e.w.Lines) > room {
		k.drop(e)
		return
	}
	k.sayGaps()
	k.queue = append(k.queue, e)
	k.bytes += len(e.w.Lines)
	k.wake()
}

func (k *sink) drop(e *entry) {
	k.dropped += uint64(e.count)
	last := len(k.gaps) - 1
	if last >= 0 && k.gaps[last].origin == e.w.Origin {
		k.gaps[last].to = e.w.Leaf + e.count - 1
		return
	}
	k.gaps = append(k.gaps, gap{e.w.Origin, e.w.Leaf, e.w.Leaf + e.count - 1})
	k.log.Error("a syslog sink does not keep up; records are dropped there, and are in the files of the log only", "from", e.w.Leaf)
}

// sayGaps puts in line what was dropped. mu is held.
func (k *sink) sayGaps() {
	for _, g := range k.gaps {
		k.log.Error("records were dropped for a syslog sink that did not keep up", "from", g.from, "to", g.to, "count", g.to-g.from+1)
		k.queue = append(k.queue, g.entry(time.Now()))
	}
	k.gaps = nil
}

// say puts a message of our own in line, which always has room.
func (k *sink) say(e *entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ending {
		return
	}
	k.sayGaps()
	k.queue = append(k.queue, e)
	k.wake()
}

// wake is called with mu held.
func (k *sink) wake() {
	select {
	case k.more <- struct{}{}:
	default: // it is awake
	}
}

func (k *sink) flush(ctx context.Context) error {
	k.mu.Lock()
	if !k.up && !k.trying || k.ending {
		k.mu.Unlock()
		return nil
	}
	done := make(chan struct{})
	k.queue = append(k.queue, &entry{done: done})
	k.wake()
	k.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-k.ctx.Done():
		return nil
	}
}

// finish lets nothing more in line; run ends when the line is empty, or the
// connection is down.
func (k *sink) finish() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sayGaps()
	k.ending = true
	k.wake()
	if !k.up && !k.trying {
		k.cut()
	}
}

// lastWord tells the operator what the sink never got.
func (k *sink) lastWord() {
	k.mu.Lock()
	defer k.mu.Unlock()
	var n int64
	for _, e := range k.queue {
		n += e.count
	}
	if n > 0 {
		k.log.Error("a syslog sink has not got all records; they are in the files of the log only", "count", n)
	}
}

func (k *sink) stat() Stat {
	k.mu.Lock()
	defer k.mu.Unlock()
	return Stat{Target: k.target.String(), Up: k.up, QueuedBytes: k.bytes, Sent: k.sent, Dropped: k.dropped, Disconnected: k.failures}
}

// run connects and sends until finish or cut.
func (k *sink) run() {
	wait, told := k.cfg.Backoff, false
	for {
		conn, err := k.target.dial(k.ctx, k.cfg.tls())
		k.setUp(err == nil)
		if err == nil {
			k.log.Info("a syslog sink is connected")
			told = false
			connected := time.Now()
			err = k.serve(conn)
			k.setUp(false)
			conn.Close() // err says what there is to say
			if err == nil {
				return
			}
			if time.Since(connected) > wait { // one that hangs up at once is not asked again at once
				wait = k.cfg.Backoff
			}
		}
		if k.ctx.Err() != nil || k.isEnding() {
			return
		}
		k.mu.Lock()
		k.failures++
		k.mu.Unlock()
		if !told {
			k.log.Error("a syslog sink cannot be reached; records wait, and it is tried again", "error", err)
			told = true
		}
		// Half of it by chance, so that many modules do not come back as one.
		select {
		case <-time.After(wait/2 + rand.N(wait/2+1)):
		case <-k.ctx.Done():
			return
		}
		wait = min(2*wait, k.cfg.MaxBackoff)
	}
}

func (k *sink) setUp(up bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.up, k.trying = up, false
}

func (k *sink) isEnding() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ending
}

// errHungUp is what a sink that closes the connection is reported with.
var errHungUp = errors.New("the sink closed the connection")

// serve sends over one connection until that breaks, which is an error, or
// there is nothing more to send.
func (k *sink) serve(conn net.Conn) error {
	ctx, broken := context.WithCancelCause(k.ctx)
	defer broken(nil)
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })() // a write that waits ends
	if k.target.framed() {
		// A sink has nothing to say: what ends this read is that the peer is gone.
		go func() {
			var b [512]byte
			for {
				if _, err := conn.Read(b[:]); err != nil {
					broken(errHungUp)
					return
				}
			}
		}()
	}
	for {
		batch := k.next(ctx)
		if batch == nil {
			if err := context.Cause(ctx); err != nil {
				k.putBack(k.unsure())
				return err
			}
			return nil
		}
		if sent, err := k.write(ctx, conn, batch); err != nil {
			k.putBack(append(k.unsure(), batch[sent:]...))
			return err
		}
	}
}

// next takes what is in line, up to a write's worth, and waits for it; nil when
// ctx ends or nothing more will come.
func (k *sink) next(ctx context.Context) []*entry {
	for {
		if ctx.Err() != nil {
			return nil
		}
		k.mu.Lock()
		if len(k.queue) == 0 {
			k.sayGaps() // nobody may come who would
		}
		if len(k.queue) > 0 {
			n, size := 0, 0
			for n < len(k.queue) && size < maxWrite {
				size += len(k.queue[n].w.Lines)
				n++
			}
			batch := slices.Clone(k.queue[:n])
			clear(k.queue[:n])
			k.queue = k.queue[n:]
			k.bytes -= size
			k.mu.Unlock()
			return batch
		}
		k.queue = nil // its array is of no more use
		ending := k.ending
		k.mu.Unlock()
		if ending {
			return nil
		}
		select {
		case <-k.more:
		case <-ctx.Done():
		}
	}
}

// putBack puts in line again, at its front, what has to be sent first.
func (k *sink) putBack(es []*entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range es {
		k.bytes += len(e.w.Lines)
	}
	k.queue = append(es, k.queue...)
}

// write sends the messages of a batch, and says how many entries of it are out
// for sure.
func (k *sink) write(ctx context.Context, conn net.Conn, batch []*entry) (sent int, err error) {
	send := func(b []byte) error {
		if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		// Who ended ctx may have set the deadline just before, for nothing.
		if err := context.Cause(ctx); err != nil {
			return err
		}
		_, err := conn.Write(b)
		return err
	}
	one := send
	var frames []byte
	if k.target.framed() {
		one = func(msg []byte) error { frames = appendFrame(frames, msg); return nil }
	}
	for i, e := range batch {
		if err := k.head.each(e, one); err != nil {
			k.isOut(batch[:i])
			return i, err
		}
	}
	if len(frames) > 0 {
		if err := send(frames); err != nil {
			return 0, err
		}
	}
	k.isOut(batch)
	return len(batch), nil
}

// isOut counts what was written, and keeps it where it may be needed again.
func (k *sink) isOut(batch []*entry) {
	now := time.Now()
	for _, e := range batch {
		if e.done != nil {
			close(e.done)
			continue
		}
		k.mu.Lock()
		k.sent += uint64(e.count)
		k.mu.Unlock()
		if k.target.framed() {
			k.recent = append(k.recent, written{e, now})
			k.recentBytes += e.size()
		}
	}
	k.forget(now)
}

// forget drops what need not be sent again.
func (k *sink) forget(now time.Time) {
	for len(k.recent) > 0 && (k.recentBytes > resendBytes || now.Sub(k.recent[0].at) > resendTime) {
		k.recentBytes -= k.recent[0].e.size()
		k.recent[0] = written{}
		k.recent = k.recent[1:]
	}
}

// unsure takes what the peer may not have got of the connection that broke.
func (k *sink) unsure() (es []*entry) {
	k.forget(time.Now())
	for _, w := range k.recent {
		es = append(es, w.e)
	}
	k.recent, k.recentBytes = nil, 0
	return es
}
