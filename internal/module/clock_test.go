package module

import (
	"testing"
	"time"
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
	if now, set, _ := c.now(true); now != 2950 || !set {
		t.Errorf("it runs from where it was set: %d, %v", now, set)
	}
	c.start(2950)
	if _, set, _ := c.now(true); set {
		t.Error("still set after a reboot")
	}
}
