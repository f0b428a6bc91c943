package module

import (
	"sync"
	"sync/atomic"
	"time"
)

// A ClockSource says where the module's clock (RTC) comes from.
type ClockSource int

const (
	ClockSystem  ClockSource = iota // the host's clock, set from boot on
	ClockCheckin                    // unset after every boot until a check-in sets it
)

// backwardsGrace is how far, in seconds, time may be behind the clock without
// anything happening: a check-in leaves the clock alone, a host's clock is
// waited for. Anything larger is a step back.
const backwardsGrace = 60

// agreement is how far, in seconds, the time that others are told may be ahead of
// a check-in's: both ends round.
const agreement = 2

// clock is the module's RTC. It never runs backwards by itself; a step back is
// reported, because nonces and tokens that ended would come to life again.
type clock struct {
	host   func() time.Time
	source ClockSource
	gain   int64 // percent by which it runs fast once a check-in has set it

	mu    sync.Mutex // guards setting; readers take anchor
	boot  time.Time  // host time at boot
	base  int64      // module time at boot while unset: continues from the audit log
	set   atomic.Pointer[anchor]
	floor atomic.Int64 // the latest second handed out from the host's clock
}

// anchor ties module time to host time. The difference of host times is
// monotonic where the host's clock is time.Now.
type anchor struct {
	unix int64
	at   time.Time
	gain int64 // percent
	lag  int64 // seconds that the time is behind, by a check-in that left the clock alone
}

func (a *anchor) now(host time.Time) int64 {
	passed := host.Sub(a.at)
	return a.unix + int64((passed+passed/100*time.Duration(a.gain))/time.Second)
}

// start begins a boot: an unset clock continues from last.
func (c *clock) start(last int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.boot, c.base = c.host(), last
	c.set.Store(nil)
}

// now is the module's time in Unix seconds, whether it is set, and whether the
// host's clock has stepped back, which stays so until stepBack. trusted is the
// trusted-time option.
func (c *clock) now(trusted bool) (unix int64, set, steppedBack bool) {
	host := c.host()
	if c.source == ClockCheckin {
		if a := c.set.Load(); a != nil {
			return a.now(host), true, false
		}
		if trusted {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.base + int64(host.Sub(c.boot)/time.Second), false, false
		}
	}
	unix = host.Unix()
	for {
		floor := c.floor.Load()
		switch {
		case unix == floor:
			return unix, true, false
		case unix > floor:
			if c.floor.CompareAndSwap(floor, unix) {
				return unix, true, false
			}
		case floor-unix <= backwardsGrace:
			return floor, true, false
		default:
			return unix, true, true
		}
	}
}

// time is the time to tell others who have a clock of their own: a check-in that
// left this one alone said how far it is ahead. Nothing ends by it.
func (c *clock) time(trusted bool) int64 {
	if a := c.set.Load(); a != nil && c.source == ClockCheckin {
		return a.now(c.host()) - a.lag
	}
	unix, _, _ := c.now(trusted)
	return unix
}

// stepBack lets the host's clock be earlier than it was.
func (c *clock) stepBack(unix int64) { c.floor.Store(unix) }

// peek is now for the audit log: it changes nothing and reports no step back,
// because the log asks while it holds its own lock.
func (c *clock) peek(trusted bool) int64 {
	if c.source == ClockCheckin {
		unix, _, _ := c.now(trusted)
		return unix
	}
	unix := c.host().Unix()
	if floor := c.floor.Load(); floor > unix && floor-unix <= backwardsGrace {
		return floor
	}
	return unix
}

// A setting is what a check-in does to a clock of source ClockCheckin, and can be
// unmade.
type setting struct {
	old         int64 // the time before
	changes     bool  // the time is another from here on
	stepsBack   bool
	before, new *anchor
}

// plan works out what setting the clock to unix means. The time was read by a
// backend at some moment of the last elapsed seconds, which whoever carries it
// can draw out; so the true time lies between unix and unix+elapsed, and a set
// clock that agrees with that, or is up to a minute ahead of it, is left alone. Else
// a stranger could set the clock back, and end all tokens, by delivering late.
func (c *clock) plan(unix, elapsed int64, trusted bool) setting {
	old, _, _ := c.now(trusted)
	before := c.set.Load()
	s := setting{old: old, before: before, new: before}
	if c.source != ClockCheckin {
		return s
	}
	ahead := old - (unix + elapsed)
	if before == nil || old < unix || ahead > backwardsGrace {
		s.changes, s.stepsBack = true, ahead > backwardsGrace
		s.new = &anchor{unix: unix, at: c.host(), gain: c.gain}
		return s
	}
	if told := old - before.lag; told < unix || told > unix+elapsed+agreement {
		learnt := *before
		learnt.lag = max(ahead, 0)
		s.new = &learnt
	}
	return s
}

func (c *clock) apply(s setting)  { c.set.Store(s.new) }
func (c *clock) revert(s setting) { c.set.Store(s.before) }
