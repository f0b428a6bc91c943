package session

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"softhem/api"
)

// Damping says how logins are slowed down. The zero value slows nothing.
type Damping struct {
	Delay    time.Duration // every answer takes at least this long
	Penalty  time.Duration // and this long after Failures wrong ones in a row
	Window   time.Duration // until this long after the last wrong one
	Failures int           // wrong answers in a row before the penalty
	Waiting  int           // answers that may wait at once
	Limits   bool          // limit single addresses, and all of them under penalty
}

// DefaultDamping is what the protocol prescribes.
func DefaultDamping() Damping {
	return Damping{
		Delay: 500 * time.Millisecond, Penalty: 1500 * time.Millisecond, Window: 15 * time.Second,
		Failures: 3, Waiting: 10_000, Limits: true,
	}
}

// The limits beside the delays; all of them hold only with Damping.Limits.
const (
	penaltyRate      = 80              // answers a second verified under penalty, for addresses never seen to succeed
	penaltyRateKnown = 20              // and for those that did; together 100
	addressFailures  = 10              // failures of one address within addressWindow ...
	addressWindow    = time.Minute     // ... before it is refused for as long
	knownFor         = 24 * time.Hour  // how long a success is remembered
	maxAddresses     = 1 << 16         // addresses remembered, per damper
	addressShards    = 16              // of the table of addresses, each with a lock of its own
	knownShare       = 10              // known addresses have 1/knownShare more waiting places of their own
	addressShare     = 4               // one address holds at most 1/addressShare of the places
	retryFull        = 2 * time.Second // what a 429 advises when all places are taken
)

// A Damper holds back answers to logins so that guessing is slow, without
// holding anything else: a waiting login is a timer and a counter, no lock, no
// transaction.
//
// An answer is worked out when it arrives and then held back, not the other
// way round: so a burst of parallel guesses meets the penalty that its first
// members brought about, and a held answer needs neither its request nor its
// keys any more.
//
// Strangers and addresses that have logged in within the last day draw on
// separate places and separate rates, so that the failures of some never make
// the success of others impossible.
type Damper struct {
	cfg Damping

	waiting      atomic.Int64 // places taken by strangers
	waitingKnown atomic.Int64 // places taken by known addresses
	penaltyUntil atomic.Int64 // nanoseconds since start; 0 before the first penalty
	start        time.Time    // base of the monotonic times here

	mu          sync.Mutex // guards the row of failures; taken once an answer, for a few instructions
	row         int        // failures in a row
	lastFailure time.Duration
	rate        rateWindow // of strangers under penalty
	rateKnown   rateWindow

	addresses [addressShards]addressShard
}

type addressShard struct {
	sync.Mutex
	m map[netip.Prefix]*address
}

// address is what is known of one caller: an IPv4 address or an IPv6 /64.
type address struct {
	waiting     int
	failures    int           // since windowStart
	windowStart time.Duration // since when they are counted
	blocked     time.Duration // refused until then
	knownUntil  time.Duration // counts as known until then
}

// rateWindow counts within the current second.
type rateWindow struct {
	second int64
	count  int
}

func (r *rateWindow) take(now time.Duration, limit int) bool {
	if s := int64(now / time.Second); s != r.second {
		r.second, r.count = s, 0
	}
	if r.count >= limit {
		return false
	}
	r.count++
	return true
}

// NewDamper makes a damper.
func NewDamper(cfg Damping) *Damper {
	d := &Damper{cfg: cfg, start: time.Now()}
	for i := range d.addresses {
		d.addresses[i].m = make(map[netip.Prefix]*address)
	}
	return d
}

// A Place is a login that is being answered. Exactly one of Failed and
// Succeeded may be called on it, and Wait always once.
type Place struct {
	d     *Damper
	key   netip.Prefix
	known bool
	due   time.Time

	penalty bool // was running when it entered
}

// Enter admits a login that arrived now from addr. It returns a 429 when there
// is no place for it; that answer is given at once.
func (d *Damper) Enter(addr netip.Addr) (*Place, error) {
	arrived := time.Now()
	now := arrived.Sub(d.start)
	p := &Place{d: d, key: addressKey(addr)}
	penalty := now < time.Duration(d.penaltyUntil.Load())

	if d.cfg.Limits {
		if err := d.enterAddress(p, now); err != nil {
			return nil, err
		}
	}
	if err := d.takePlace(p); err != nil {
		d.leaveAddress(p)
		return nil, err
	}
	p.penalty = penalty
	delay := d.cfg.Delay
	if penalty {
		delay = d.cfg.Penalty
	}
	p.due = arrived.Add(delay)
	return p, nil
}

func tooMany(reason string, after time.Duration) error {
	e := api.ErrTooMany.Because(reason)
	e.RetryAfter = after
	return e
}

func (d *Damper) takePlace(p *Place) error {
	counter, limit := &d.waiting, int64(d.cfg.Waiting)
	if p.known {
		// Own places first; when they are full, those of everyone.
		own := max(int64(d.cfg.Waiting/knownShare), 1)
		if d.waitingKnown.Add(1) <= own {
			return nil
		}
		d.waitingKnown.Add(-1)
		p.known = false
	}
	if counter.Add(1) > limit && limit > 0 {
		counter.Add(-1)
		return tooMany("too many logins are waiting", retryFull)
	}
	return nil
}

func (d *Damper) underRate(p *Place, now time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.known {
		return d.rateKnown.take(now, penaltyRateKnown)
	}
	return d.rate.take(now, penaltyRate)
}

// Verify asks to verify a proof. Under penalty only so many are in a second;
// the error is a 429, and the answer then need not wait.
func (p *Place) Verify() error {
	if !p.penalty || !p.d.cfg.Limits || p.d.underRate(p, time.Since(p.d.start)) {
		return nil
	}
	p.due = time.Time{}
	return tooMany("too many logins after failures", time.Second)
}

// Failed records a wrong answer.
func (p *Place) Failed() {
	d := p.d
	now := time.Since(d.start)
	d.mu.Lock()
	if now-d.lastFailure >= d.cfg.Window {
		d.row = 0 // the last penalty, if any, is over
	}
	d.row++
	d.lastFailure = now
	penalty := now < time.Duration(d.penaltyUntil.Load()) // then every failure makes it last
	if d.cfg.Failures > 0 && (penalty || d.row >= d.cfg.Failures) {
		d.penaltyUntil.Store(int64(now + d.cfg.Window))
	}
	d.mu.Unlock()

	d.withAddress(p, func(a *address) {
		if now-a.windowStart >= addressWindow {
			a.failures, a.windowStart = 0, now
		}
		if a.failures++; a.failures >= addressFailures {
			a.blocked = now + addressWindow
			a.failures, a.windowStart = 0, now
		}
	})
}

// Succeeded records a right answer. It ends the row of failures, but not a
// penalty that runs: that ends by time alone.
func (p *Place) Succeeded() {
	d := p.d
	d.mu.Lock()
	d.row = 0
	d.mu.Unlock()
	d.withAddress(p, func(a *address) { a.knownUntil = time.Since(d.start) + knownFor })
}

// Wait holds the answer back until it is due and frees the place. It returns
// early, with the context's error, when the caller has gone.
func (p *Place) Wait(ctx context.Context) error {
	defer p.d.leave(p)
	left := time.Until(p.due)
	if left <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Waiting is how many logins hold a place now.
func (d *Damper) Waiting() int { return int(d.waiting.Load() + d.waitingKnown.Load()) }

func (d *Damper) leave(p *Place) {
	if p.known {
		d.waitingKnown.Add(-1)
	} else {
		d.waiting.Add(-1)
	}
	d.leaveAddress(p)
}

// addressKey is what counts as one caller.
func addressKey(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap()
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	key, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no address: all such callers count as one
	}
	return key
}

func (d *Damper) shard(key netip.Prefix) *addressShard {
	raw := key.Addr().As16()
	var h byte
	for _, b := range raw {
		h = h*31 + b
	}
	return &d.addresses[h%addressShards]
}

func (d *Damper) enterAddress(p *Place, now time.Duration) error {
	s := d.shard(p.key)
	s.Lock()
	defer s.Unlock()
	a := s.m[p.key]
	if a == nil {
		if len(s.m) >= maxAddresses/addressShards && !s.forget(now) {
			return tooMany("too many addresses", addressWindow)
		}
		a = &address{windowStart: now}
		s.m[p.key] = a
	}
	if now < a.blocked {
		return tooMany("too many failures from this address", a.blocked-now)
	}
	if limit := max(d.cfg.Waiting/addressShare, 1); d.cfg.Waiting > 0 && a.waiting >= limit {
		return tooMany("too many logins of this address are waiting", retryFull)
	}
	a.waiting++
	p.known = now < a.knownUntil
	return nil
}

// forget makes room for one address: it drops some stranger of whom nothing
// has to be remembered, and tells whether it found one. A caller with many
// addresses can push out others of the kind, never one that is blocked, waits,
// or has succeeded.
func (s *addressShard) forget(now time.Duration) bool {
	for key, a := range s.m { // Go ranges over a map in random order
		if a.waiting == 0 && now >= a.blocked && now >= a.knownUntil {
			delete(s.m, key)
			return true
		}
	}
	return false
}

func (d *Damper) leaveAddress(p *Place) { d.withAddress(p, func(a *address) { a.waiting-- }) }

// withAddress changes what is known of p's caller. An address with a waiting
// login is never forgotten, so it is there while p holds its place.
func (d *Damper) withAddress(p *Place, change func(*address)) {
	if !d.cfg.Limits {
		return
	}
	s := d.shard(p.key)
	s.Lock()
	defer s.Unlock()
	if a := s.m[p.key]; a != nil {
		change(a)
	}
}
