package broker_test

import (
	"sync"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
)

// Who approves can tell their own request from another's: by an address that
// neither who asks nor the broker chooses, and by a code that is shown at both ends.
func TestThreat_T174_WhoAsksIsTold(t *testing.T) {
	w := &world{meddler: startMeddler(t)}
	w.module = w.station.module(hemtest.Options{Clock: w.now})
	w.alice = w.person(t, w.module, w.now)

	var mu sync.Mutex
	codes := map[string]string{} // by scope
	ask := func(scope string) {
		told := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			stranger(t, w.module).LoginRemote(t.Context(), w.client(), hem.RemoteParams{
				Scope: scope, Waiting: func(int, time.Time) { close(told) }, Code: func(digits string) {
					mu.Lock()
					defer mu.Unlock()
					codes[scope] = digits
				},
			})
		}()
		t.Cleanup(func() { <-done })
		select {
		case <-told:
		case <-done:
			t.Fatal("nobody was asked")
		}
	}
	ask(api.ScopeKeyList)
	ask(api.ScopeKeyGen)
	all, err := w.alice.Requests(t.Context())
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	for _, r := range all {
		if r.From != "127.0.0.1" || len(r.Code()) != 8 || r.Code() != codes[r.Scope] {
			t.Errorf("%s from %q with code %q, there %q", r.Scope, r.From, r.Code(), codes[r.Scope])
		}
	}
	if codes[api.ScopeKeyList] == codes[api.ScopeKeyGen] {
		t.Error("two requests have one code")
	}

	// The broker can keep the address back, and do nothing else with it.
	var raw []api.EventData
	w.show(func(_ string, d *api.EventData) { raw = append(raw, *d) })
	if _, err := w.alice.Requests(t.Context()); err != nil || len(raw) != 2 {
		t.Fatalf("%d, %v", len(raw), err)
	}
	bare, swapped, asScope, asFrom := raw[0], raw[0], raw[0], raw[0]
	bare.From, swapped.From, asScope.Scope, asFrom.From = "", raw[1].From, raw[0].From, raw[0].Scope
	w.list(map[string]api.EventData{"a": swapped, "b": asScope, "c": asFrom})
	w.alice.seesNothing(t, hem.ErrRequestForged)
	if len(w.alice.leftOut) != 3 {
		t.Errorf("%d were left out", len(w.alice.leftOut))
	}
	w.list(map[string]api.EventData{"d": bare})
	if all, err := w.alice.Requests(t.Context()); err != nil || len(all) != 1 || all[0].From != "" {
		t.Errorf("%+v, %v", all, err)
	}
	// One that is not bound says no more than its scope, as it always did.
	_, unbound := w.event(t, w.module, api.ScopeKeyList)
	if unbound.From != nil {
		t.Errorf("from %v", unbound.From)
	}
	w.do(nil)
	w.clear()
}
