package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"softhem/api"
)

var home = netip.MustParseAddr("192.0.2.1")

// enterVerified enters and asks to verify, as a login with a proof does.
func enterVerified(d *Damper, addr netip.Addr) (*Place, error) {
	p, err := d.Enter(addr)
	if err == nil {
		if err = p.Verify(); err != nil {
			_ = p.Wait(context.Background()) // it is due at once
		}
	}
	return p, err
}

// login enters, ends as told, waits, and returns how long the answer took.
func login(t *testing.T, d *Damper, addr netip.Addr, right bool) time.Duration {
	t.Helper()
	start := time.Now()
	p, err := enterVerified(d, addr)
	if err != nil {
		t.Fatalf("no place for a login: %v", err)
	}
	if right {
		p.Succeeded()
	} else {
		p.Failed()
	}
	if err := p.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	return time.Since(start)
}

func TestDampingByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const usual, penalty = 500 * time.Millisecond, 1500 * time.Millisecond
		d := NewDamper(DefaultDamping())
		expect := func(step string, right bool, want time.Duration) {
			t.Helper()
			if got := login(t, d, home, right); got != want {
				t.Errorf("%s: answered after %v, want %v", step, got, want)
			}
		}
		expect("right", true, usual)
		expect("first wrong", false, usual)
		expect("second wrong", false, usual)
		expect("a right one between", true, usual)
		expect("first wrong in a row", false, usual)
		expect("second", false, usual)
		expect("third", false, usual)
		expect("after three, even right", true, penalty)
		// The last failure was answered at 500 ms and recorded when it arrived.
		time.Sleep(15*time.Second - usual - penalty - time.Millisecond)
		expect("a millisecond before the end", true, penalty)
		expect("after it", true, usual)
		expect("a single wrong one later", false, usual)
		expect("does not bring the penalty back", false, usual)
	})
}

// A failure under penalty begins the 15 seconds anew.
func TestPenaltyLastsFromTheLastFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDamper(DefaultDamping())
		for range 3 {
			login(t, d, home, false)
		}
		time.Sleep(10 * time.Second)
		login(t, d, home, false)
		time.Sleep(10 * time.Second)
		if got := login(t, d, home, true); got != 1500*time.Millisecond {
			t.Errorf("11.5 s after the last failure: %v", got)
		}
	})
}

// A success between does not keep a failure under penalty from lengthening it.
func TestFailureUnderPenaltyAfterASuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDamper(DefaultDamping())
		for range 3 {
			login(t, d, home, false)
		}
		login(t, d, home, true)
		time.Sleep(8 * time.Second)
		login(t, d, home, false)
		time.Sleep(10 * time.Second)
		if got := login(t, d, home, true); got != 1500*time.Millisecond {
			t.Errorf("11.5 s after the last failure: %v", got)
		}
	})
}

// The same by the wall clock, once.
func TestDampingByTheWallClock(t *testing.T) {
	t.Parallel()
	d := NewDamper(DefaultDamping())
	near := func(got, want time.Duration) bool { return got >= want && got < want+700*time.Millisecond }
	for range 3 {
		if got := login(t, d, home, false); !near(got, 500*time.Millisecond) {
			t.Errorf("a wrong answer came after %v", got)
		}
	}
	last := time.Now().Add(-500 * time.Millisecond)
	if got := login(t, d, home, true); !near(got, 1500*time.Millisecond) {
		t.Errorf("after three failures an answer came after %v", got)
	}
	time.Sleep(time.Until(last.Add(15*time.Second + 50*time.Millisecond)))
	if got := login(t, d, home, true); !near(got, 500*time.Millisecond) {
		t.Errorf("15 s after the last failure an answer came after %v", got)
	}
}

// What the burst's first members did is felt by the rest of it.
func TestAParallelBurstMeetsThePenalty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDamper(DefaultDamping())
		verified, refused := 0, 0
		for i := range 1000 { // all in one instant, from a thousand addresses
			p, err := enterVerified(d, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
			if err != nil {
				if !errors.Is(err, api.ErrTooMany) {
					t.Fatal(err)
				}
				refused++
				continue
			}
			verified++
			p.Failed()
			go p.Wait(t.Context())
		}
		if verified != 3+penaltyRate || verified+refused != 1000 {
			t.Errorf("%d guesses were verified and %d refused; want %d and the rest", verified, refused, 3+penaltyRate)
		}
		time.Sleep(2 * time.Second)
		if n := d.Waiting(); n != 0 {
			t.Errorf("%d places are still taken", n)
		}
	})
}

// An address that logged in within the last day gets through, however many
// strangers fail.
func TestStrangersDoNotLockOutTheKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDamper(DefaultDamping())
		login(t, d, home, true)
		for second := range 30 {
			for i := range 500 {
				p, err := enterVerified(d, netip.AddrFrom4([4]byte{10, byte(second), byte(i >> 8), byte(i)}))
				if err == nil {
					p.Failed()
					go p.Wait(t.Context())
				}
			}
			if got := login(t, d, home, true); got > 1500*time.Millisecond {
				t.Fatalf("second %d: %v", second, got)
			}
		}
	})
}

func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultDamping()
		cfg.Waiting = 100
		d := NewDamper(cfg)
		login(t, d, home, true) // known from here on
		enter := func(addr netip.Addr) (*Place, error) {
			p, err := d.Enter(addr)
			if err == nil {
				go p.Wait(t.Context())
			}
			return p, err
		}
		for i := range 100 {
			addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(i / 25)})
			if _, err := enter(addr); err != nil {
				t.Fatalf("place %d: %v", i, err)
			}
			if i == 24 { // a quarter is held by one address
				if _, err := enter(addr); !errors.Is(err, api.ErrTooMany) {
					t.Errorf("one address holds more than a quarter: %v", err)
				}
			}
		}
		_, err := enter(netip.MustParseAddr("10.0.0.9"))
		var told *api.Error
		if !errors.As(err, &told) || told.Status != 429 || told.RetryAfter <= 0 {
			t.Errorf("all places taken: %v, want 429 with a Retry-After", err)
		}
		if _, err := enter(home); err != nil {
			t.Errorf("a known address has no place of its own: %v", err)
		}
		time.Sleep(time.Second)
		if _, err := enter(netip.MustParseAddr("10.0.0.9")); err != nil {
			t.Errorf("places are not given back: %v", err)
		}
	})
}

func TestAddressIsBlockedAfterTenFailuresInAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDamper(DefaultDamping())
		v6 := func(host int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", host)) }
		for i := range 10 { // one /64 is one address
			login(t, d, v6(i+1), false)
		}
		if _, err := d.Enter(v6(99)); !errors.Is(err, api.ErrTooMany) {
			t.Errorf("after ten failures: %v, want 429", err)
		}
		if _, err := d.Enter(netip.MustParseAddr("2001:db8:0:1::1")); err != nil {
			t.Errorf("the next /64: %v", err)
		}
		time.Sleep(time.Minute)
		login(t, d, v6(1), true)
	})
}

func TestWhoHangsUpFreesThePlaceAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDamper(DefaultDamping())
		p, err := d.Enter(home)
		if err != nil {
			t.Fatal(err)
		}
		ctx, hangUp := context.WithCancel(t.Context())
		start := time.Now()
		go func() { time.Sleep(10 * time.Millisecond); hangUp() }()
		if err := p.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Wait = %v", err)
		}
		if took := time.Since(start); took != 10*time.Millisecond || d.Waiting() != 0 {
			t.Errorf("freed after %v, %d waiting", took, d.Waiting())
		}
	})
}

func TestManyAddressesAreNotRememberedForEver(t *testing.T) {
	d := NewDamper(DefaultDamping())
	known := netip.MustParseAddr("2001:db8:ffff::1")
	p, err := d.Enter(known)
	if err != nil {
		t.Fatal(err)
	}
	p.Succeeded()
	d.leave(p)
	for i := range 3 * maxAddresses {
		p, err := d.Enter(netip.AddrFrom16([16]byte{0x20, 1, byte(i >> 16), byte(i >> 8), byte(i), 9: 1}))
		if err != nil {
			t.Fatalf("newcomer %d: %v", i, err)
		}
		d.leave(p)
	}
	held := 0
	for i := range d.addresses {
		held += len(d.addresses[i].m)
	}
	if held > maxAddresses {
		t.Errorf("%d addresses are remembered, at most %d may be", held, maxAddresses)
	}
	if p, err := d.Enter(known); err != nil || !p.known {
		t.Errorf("a known address was pushed out: %v", err)
	}
}

// Waiting is a timer and a few words, not a thread, lock or transaction.
func TestWaitingIsCheap(t *testing.T) {
	const logins = 10_000
	d := NewDamper(Damping{Delay: 5 * time.Second, Waiting: logins}) // time enough to start them all
	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	done := make(chan error, logins)
	for range logins {
		p, err := d.Enter(home)
		if err != nil {
			t.Fatal(err)
		}
		go func() { done <- p.Wait(context.Background()) }()
	}
	if n := d.Waiting(); n != logins {
		t.Fatalf("%d wait", n)
	}
	if _, err := d.Enter(home); !errors.Is(err, api.ErrTooMany) {
		t.Errorf("one more than the places: %v", err)
	}
	runtime.ReadMemStats(&during)
	if each := (during.Sys - before.Sys) / logins; each > 8<<10 {
		t.Errorf("a waiting login takes %d bytes", each)
	}
	for range logins {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
