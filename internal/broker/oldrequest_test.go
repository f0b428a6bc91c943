package broker_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
)

// How old a request is, and whether it has ended, is the module's word and not
// the broker's.
func TestThreat_T170_AnOldRequestIsNotANewOne(t *testing.T) {
	w := &world{meddler: startMeddler(t)}
	w.module = w.station.module(hemtest.Options{Clock: w.now})
	w.alice = w.person(t, w.module, w.now)
	scope := api.ScopeKeyUse("0382e3eab596598b1f3582ef90b61a0e")
	asked := w.now()
	_, use := w.event(t, w.module, scope)
	_, list := w.event(t, w.module, api.ScopeKeyList)
	show := func() {
		fresh := w.now().Unix() + 100_000 // what the broker says
		a, b := data(use, w.alice), data(list, w.alice)
		a.Exp, b.Exp = fresh, fresh
		w.list(map[string]api.EventData{"a": a, "b": b})
	}
	var old []hem.Request
	for _, row := range []struct {
		after time.Duration
		shown int
	}{{0, 2}, {890 * time.Second, 2}, {15 * time.Second, 1}, {2650 * time.Second, 1}, {50 * time.Second, 0}} {
		w.later(row.after)
		show()
		all, err := w.alice.Requests(t.Context())
		if err != nil || len(all) != row.shown {
			t.Fatalf("%v after they were made: %+v, %v, want %d", w.now().Sub(asked).Round(time.Second), all, err, row.shown)
		}
		for _, r := range all {
			if d := r.Asked.Sub(asked); d < -2*time.Second || d > 5*time.Second {
				t.Errorf("asked at %v, not %v", r.Asked, asked)
			}
			if life := r.Expires.Sub(r.Asked); life != time.Duration(api.ExtRequestLifeOf(r.Scope))*time.Second {
				t.Errorf("%s lives %v", r.Scope, life)
			}
		}
		old = append(old, all...)
	}
	for _, r := range old {
		if err := w.alice.Allow(t.Context(), r, time.Hour, ""); !errors.Is(err, hem.ErrRequestEnded) {
			t.Errorf("allowed after its end: %v", err)
		}
	}
}

// A request that was answered is not shown again, under no other id and in no
// other spelling, nor to the next process.
func TestThreat_T171_AnAnsweredRequestIsNotShownAgain(t *testing.T) {
	w := &world{meddler: startMeddler(t)}
	w.module = w.station.module(hemtest.Options{Clock: w.now})
	w.alice = w.person(t, w.module, w.now)
	_, one := w.event(t, w.module, api.ScopeKeyList)
	d, again := data(one, w.alice), data(one, w.alice)
	again.JTI = respelled(t, again.JTI)
	w.list(map[string]api.EventData{"a": d, "b": d, "c": again})
	r := w.alice.see(t, api.ScopeKeyList) // three times the same is once

	// What cannot be kept is not answered, and so it is asked again.
	sent := atomic.Int32{}
	count := func() {
		meddle := w.meddle
		w.do(func(x *meeting) bool {
			if x.is("DELETE", pathData) || x.is("POST", pathData) && !x.is("POST", pathList) {
				sent.Add(1)
			}
			return meddle(x)
		})
	}
	count()
	keep, full := w.alice.Keep, errors.New("disk full")
	w.alice.Keep = func(string, time.Time) error { return full }
	for name, err := range map[string]error{"deny": w.alice.Deny(t.Context(), r), "allow": w.alice.Allow(t.Context(), r, time.Hour, "")} {
		if !errors.Is(err, full) || sent.Load() != 0 {
			t.Errorf("%s: %v, and %d answers were sent", name, err, sent.Load())
		}
	}
	w.alice.see(t, api.ScopeKeyList)
	w.alice.Keep = keep
	if err := w.alice.Deny(t.Context(), r); err != nil || sent.Load() != 1 {
		t.Errorf("deny: %v, %d sent", err, sent.Load())
	}
	w.list(map[string]api.EventData{"a": d, "d": d, "e": again})
	w.alice.seesNothing(t, nil)

	// It is kept with the pairing.
	raw, err := json.Marshal(w.alice.pairing)
	if err != nil {
		t.Fatal(err)
	}
	var kept hem.Pairing
	if err := json.Unmarshal(raw, &kept); err != nil {
		t.Fatal(err)
	}
	next := w.personOf(t, kept, w.now)
	next.seesNothing(t, nil)
	// An answer that got lost can be sent again, and nothing is kept twice.
	if err := next.Deny(t.Context(), r); err != nil || len(next.pairing.Answered) != 1 {
		t.Errorf("deny again: %v, kept %v", err, next.pairing.Answered)
	}
	// What ended long ago is forgotten when the next is answered.
	w.later(30 * time.Hour)
	_, two := w.event(t, w.module, api.ScopeKeyList)
	w.list(map[string]api.EventData{"f": data(two, next)})
	if err := next.Allow(t.Context(), next.see(t, api.ScopeKeyList), time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	if len(next.pairing.Answered) != 1 || next.pairing.Answered[two.JTI] == 0 {
		t.Errorf("kept: %v", next.pairing.Answered)
	}
	next.seesNothing(t, nil)
}

// A broker that shows more than there can be is not listened to any longer.
func TestThreat_T172_AFloodOfRequests(t *testing.T) {
	w := &world{meddler: startMeddler(t)}
	w.module = w.station.module(hemtest.Options{Clock: w.now})
	w.alice = w.person(t, w.module, w.now)
	_, req := w.event(t, w.module, api.ScopeKeyList)
	all := map[string]api.EventData{}
	for i := range 5000 {
		all[fmt.Sprint(i)] = data(req, w.alice)
	}
	w.list(all)
	meddle, read := w.meddle, atomic.Int32{}
	w.do(func(x *meeting) bool {
		if x.is("GET", pathData) {
			read.Add(1)
		}
		return meddle(x)
	})
	w.alice.see(t, api.ScopeKeyList)
	if got := read.Load(); got != api.MaxExtWaiting {
		t.Errorf("%d were read", got)
	}
}
