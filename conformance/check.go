package conformance

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// A check is a Check that can be run. It ends at its first difference.
type check struct {
	name  string // within its group
	title string
	spec  string
	run   func(*step)
}

func (c check) public(g group) Check {
	return Check{ID: g.name + "." + c.name, Group: g.name, Title: c.title, Spec: c.spec}
}

// ours tells whether what is checked is a decision of SoftHEM.
func (c check) ours() bool { return strings.HasPrefix(c.spec, "divergences.md") }

// A phase is what a group finds the module in, and leaves it in.
type phase int

const (
	fresh    phase = iota // not personalised
	personal              // personalised, healthy, clock set
	closing               // the module is fresh again, or the walk is over
)

// A group is checks that stand on each other, in this order.
type group struct {
	name, title string
	phase       phase
	// lacking says why the whole group cannot be walked, or nothing.
	lacking func(*walk) string
	// before prepares what its checks share; what fails there fails them all.
	before func(*step)
	// after puts right what the checks leave behind.
	after  func(*step)
	checks []check
}

func groups() []group {
	return []group{
		transportGroup(), freshGroup(), checkinGroup(), provisioningGroup(), initGroup(),
		loginGroup(), tokenGroup(), rolesGroup(), dampingGroup(),
		configGroup(), tlsGroup(), attestationGroup(), keysGroup(), cryptoGroup(), externalGroup(),
		logGroup(), selftestGroup(), storageGroup(), upgradeGroup(), ordersGroup(), diagGroup(),
		wipeGroup(),
		answersGroup(),
	}
}

func groupTitle(name string) string {
	for _, g := range groups() {
		if g.name == name {
			return g.title
		}
	}
	return "what the walk itself needs"
}

// A step is one check being run: what it has to do with, and what it says.
type step struct {
	*walk
	last *Exchange // the last request and answer
}

// A verdict ends a check.
type verdict struct {
	outcome  Outcome
	reason   string
	exchange *Exchange
}

// failf ends the check: the module differs. What was asked last is shown.
func (s *step) failf(format string, args ...any) {
	panic(verdict{Fail, fmt.Sprintf(format, args...), s.last})
}

// failAt is failf for an answer that is not the last.
func (s *step) failAt(a *answer, format string, args ...any) {
	panic(verdict{Fail, fmt.Sprintf(format, args...), a.exchange})
}

// skipf ends the check: it cannot be looked at.
func (s *step) skipf(format string, args ...any) {
	panic(verdict{Skip, fmt.Sprintf(format, args...), nil})
}

// must fails the check for an error of the suite's own work, which only an odd
// answer can have brought about.
func (s *step) must(err error, what string) {
	if err != nil {
		s.failf("%s: %v", what, err)
	}
}

// quirk ends the check where it differs as firmware 1.2.2 does.
func (s *step) quirk(differs bool, what string) {
	switch {
	case !differs:
	case s.o.Quirks == QuirksFW122:
		panic(verdict{Quirk, what, nil})
	default:
		s.failf("%s; firmware 1.2.2 is known for it, and with its quirks allowed this is no failure", what)
	}
}

// try runs f and returns what ended it: a pass unless it said otherwise.
func (w *walk) try(f func(*step)) (v verdict) {
	s := &step{walk: w}
	defer func() {
		if r := recover(); r != nil {
			ended, ok := r.(verdict)
			if !ok {
				panic(r)
			}
			v = ended
		}
	}()
	f(s)
	return verdict{outcome: Pass}
}

// only returns those checks of a group that are asked for.
func (g group) only(patterns []string) []check {
	if len(patterns) == 0 || slices.Contains(patterns, g.name) {
		return g.checks
	}
	var some []check
	for _, c := range g.checks {
		if slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, g.name+"."+c.name); return ok }) {
			some = append(some, c)
		}
	}
	return some
}

// walkGroup runs the checks of a group, if it was asked for.
func (w *walk) walkGroup(g group) {
	checks := g.only(w.o.Only)
	if len(checks) == 0 {
		return
	}
	why := w.unreachable()
	if why == "" && g.phase == personal {
		why = w.ready()
	}
	if why == "" && g.lacking != nil {
		why = g.lacking(w)
	}
	before := verdict{outcome: Pass}
	if why == "" && g.before != nil {
		before = w.try(g.before)
	}
	for _, c := range checks {
		res := Result{Check: c.public(g)}
		start := time.Now()
		v := before
		switch dead := w.unreachable(); {
		case why != "":
			v = verdict{outcome: Skip, reason: why}
		case dead != "":
			v = verdict{outcome: Skip, reason: dead}
		case v.outcome == Fail:
			v.reason = "what the group stands on failed: " + v.reason
		case v.outcome != Pass:
		case c.ours() && !w.softhem:
			v = verdict{outcome: Skip, reason: "a decision of SoftHEM, which this module is not"}
		default:
			v = w.try(c.run)
		}
		res.Outcome, res.Reason, res.Exchange = v.outcome, v.reason, v.exchange
		res.Millis = time.Since(start).Milliseconds()
		w.add(res)
	}
	if why == "" && g.after != nil && w.unreachable() == "" {
		if v := w.try(g.after); v.outcome == Fail {
			w.prepared("after "+g.name, v)
		}
	}
}

// prepared reports that what the walk needs for itself failed.
func (w *walk) prepared(what string, v verdict) {
	w.add(Result{
		Check:   Check{ID: "walk." + strings.ReplaceAll(what, " ", "-"), Group: "walk", Title: "The walk can go on " + what, Spec: "api.md#conventions"},
		Outcome: v.outcome, Reason: v.reason, Exchange: v.exchange,
	})
}

func (w *walk) add(res Result) {
	w.report.add(res)
	if w.o.Progress != nil {
		w.o.Progress(res)
	}
}

// unreachable says why there is no point in going on, or nothing.
func (w *walk) unreachable() string {
	if w.ctx.Err() != nil {
		return "the walk was ended: " + context.Cause(w.ctx).Error()
	}
	if w.silent >= 3 {
		return "the module does not answer any more"
	}
	return ""
}
