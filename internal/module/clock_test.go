package module

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestClockOfTheHost(t *testing.T) {
	host := time.Unix(1_000_000, 0)
	c := clock{host: func() time.Time { return host }}
	c.start(5)
	for _, step := range []struct {
		name  string
		move  time.Duration
		want  int64
		steps bool
	}{
		{"at boot", 0, 1_000_000, false},
		{"forward", 100 * time.Second, 1_000_100, false},
		{"back within the grace: it waits", -60 * time.Second, 1_000_100, false},
		{"still waiting", 30 * time.Second, 1_000_100, false},
		{"caught up", 31 * time.Second, 1_000_101, false},
		{"back by more: a step", -61 * time.Second, 1_000_040, true},
		{"reported once", 0, 1_000_040, false},
	} {
		host = host.Add(step.move)
		got, set, back := c.now(true)
		if back {
			c.stepBack(got)
		}
		if got != step.want || !set || back != step.steps {
			t.Errorf("%s: %d, set %v, step back %v; want %d, %v", step.name, got, set, back, step.want, step.steps)
		}
		if peek := c.peek(true); peek != step.want {
			t.Errorf("%s: the log sees %d", step.name, peek)
		}
	}
	if c.plan(5, 0, true).changes {
		t.Error("a check-in moved the host's clock")
	}
}

func TestClockSetByCheckin(t *testing.T) {
	host := time.Unix(1_000_000, 0)
	c := clock{host: func() time.Time { return host }, source: ClockCheckin}
	c.start(500)
	host = host.Add(7 * time.Second)
	if now, set, _ := c.now(true); now != 507 || set {
		t.Errorf("unset: %d, %v; want it to continue from the log", now, set)
	}
	if now, set, _ := c.now(false); now != 1_000_007 || !set {
		t.Errorf("without trusted time: %d, %v; want the host's clock", now, set)
	}
	for _, step := range []struct {
		name          string
		to, old       int64
		changed, back bool
	}{
		{"first", 2000, 507, true, false},
		{"forward", 3000, 2000, true, false},
		{"the same", 3000, 3000, false, false},
		{"a minute behind is left alone", 2940, 3000, false, false},
		{"a second forward", 3001, 3000, true, false},
		{"more than a minute behind", 2940, 3001, true, true},
	} {
		s := c.plan(step.to, 0, true)
		if s.old != step.old || s.changes != step.changed || s.stepsBack != step.back {
			t.Errorf("%s: %+v", step.name, s)
		}
		if s.changes {
			c.apply(s)
			c.revert(s)
			if now, _, _ := c.now(true); now != step.old {
				t.Errorf("%s: unmade, the clock is %d", step.name, now)
			}
			c.apply(s)
		}
	}
	// Delivered ten minutes late, it is the time of ten minutes ago.
	if s := c.plan(2940-600, 600, true); s.changes {
		t.Errorf("a time that was held back sets the clock: %+v", s)
	}
	host = host.Add(10 * time.Second)
	if now, set, _ := c.now(true); now != 2950 || c.time(true) != 2950 || !set {
		t.Errorf("it runs from where it was set: %d, %v", now, set)
	}
	c.start(2950)
	if _, set, _ := c.now(true); set {
		t.Error("still set after a reboot")
	}
}

// A clock that a check-in finds ahead by no more than a minute is left alone, but
// others are told the time that the check-in said from then on.
func TestClockTellsTheTimeOfTheCheckin(t *testing.T) {
	host := time.Unix(1_000_000, 0)
	c := clock{host: func() time.Time { return host }, source: ClockCheckin, gain: 8}
	c.start(0)
	check := func(unix, elapsed int64, changes, back bool) {
		t.Helper()
		s := c.plan(unix, elapsed, true)
		if s.changes != changes || s.stepsBack != back {
			t.Errorf("told %d to %d: %+v", unix, unix+elapsed, s)
		}
		c.apply(s)
	}
	is := func(now, told int64) {
		t.Helper()
		if got, _, _ := c.now(true); got != now || c.time(true) != told || c.peek(true) != now {
			t.Errorf("it is %d and tells %d; want %d and %d", got, c.time(true), now, told)
		}
	}
	check(1000, 0, true, false)
	host = host.Add(500 * time.Second) // it gained 40 s
	is(1540, 1540)
	check(1497, 3, false, false) // of which the later end is true
	is(1540, 1500)
	host = host.Add(25 * time.Second)
	is(1567, 1527)
	check(1525, 0, false, false) // two seconds more are nothing
	is(1567, 1527)
	check(1460, 90, false, false) // it may be that late
	is(1567, 1527)
	check(1535, 0, false, false) // the broker's clock was put right
	is(1567, 1535)
	check(1567-60, 0, false, false)
	is(1567, 1507)
	check(1567-61, 0, true, true)
	is(1506, 1506)
	check(1600, 0, true, false)
	is(1600, 1600)
}

// Whatever a backend with the right time says, and however slowly that is carried:
// between two steps back, at which all tokens end, the clock does not run
// backwards, and what others are told is not ahead of it nor far behind.
func TestClockNeverRunsBackwards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		host, right := time.Unix(1_000_000, 0), int64(5000)
		c := clock{host: func() time.Time { return host }, source: ClockCheckin, gain: rapid.SampledFrom([]int64{0, 8}).Draw(t, "gain")}
		c.start(0)
		last := int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			passed := rapid.Int64Range(0, 200).Draw(t, "passed")
			host, right = host.Add(time.Duration(passed)*time.Second), right+passed
			now, set, _ := c.now(true)
			if set && now < last {
				t.Fatalf("it ran from %d back to %d", last, now)
			}
			if told := c.time(true); set && (told > now || told < now-backwardsGrace) {
				t.Fatalf("it is %d and tells %d", now, told)
			}
			last = now
			ago := rapid.Int64Range(0, 60).Draw(t, "read so long ago")
			s := c.plan(right-ago, ago+rapid.Int64Range(0, 60-ago).Draw(t, "under way before"), true)
			c.apply(s)
			if now, _, _ = c.now(true); s.stepsBack || s.before == nil {
				last = now
			}
			if !s.changes && now != last {
				t.Fatalf("left alone, it went from %d to %d", last, now)
			}
		}
	})
}
