package broker_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
)

// A module whose clock runs 8 % fast since a check-in, as firmware 1.2.2 does:
// whenever its clock is ahead of the broker's, the client checks in once and goes
// on, however long the last check-in was ago. While the two agree to a few
// seconds, it does not check in.
func TestClockEightPercentFast(t *testing.T) {
	ctx := context.Background()
	s := startBroker(t, "")
	m := s.module(hemtest.Options{Quirks: "fw1.2.2", Fresh: true, ClockUnset: true, Clock: s.now})
	c := stranger(t, m)
	if _, err := c.CheckIn(ctx, s.url); err != nil { // it starts to gain here
		t.Fatal(err)
	}
	if _, err := m.Personalise(); err != nil {
		t.Fatal(err)
	}
	_, pairing := s.pair(m)
	a, err := hem.NewAuthenticator(*pairing, hem.BrokerConfig{Poll: 5 * time.Second, Now: s.now})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()

	// The broker as the client sees it, counting its check-ins.
	base, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	var checkins atomic.Int64
	pass := httputil.NewSingleHostReverseProxy(base)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/checkin" {
			checkins.Add(1)
		}
		pass.ServeHTTP(w, r)
	}))
	defer front.Close()
	b, err := hem.NewBroker(hem.BrokerConfig{URL: front.URL, Now: s.now})
	if err != nil {
		t.Fatal(err)
	}
	ahead := func() int64 {
		t.Helper()
		right := s.now().Unix() // before, so that a slow machine does not take from it
		st, err := c.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return *st.Time - right
	}
	for _, tc := range []struct {
		after    time.Duration // since the last check-in or login
		checkins int64
		ahead    int64 // seconds, at least, before it
	}{
		{0, 0, -1}, {30 * time.Second, 0, 1},
		{100 * time.Second, 1, 6}, {5 * time.Minute, 1, 22}, {10 * time.Minute, 1, 46}, {12 * time.Minute, 1, 55}, // the clock goes on, and requests carry the right time
		{13 * time.Minute, 1, 61}, {90 * time.Minute, 1, 430}, {9 * time.Hour, 1, 2590}, // set back
		{3 * time.Minute, 1, 12}, {40 * time.Second, 0, 0},
	} {
		s.clock.Add(int64(tc.after))
		if got := ahead(); got < tc.ahead {
			t.Errorf("%v: the module is %d s ahead, and should be %d", tc.after, got, tc.ahead)
		}
		checkins.Store(0)
		allowed := make(chan error, 1)
		token, err := c.LoginRemote(ctx, b, hem.RemoteParams{Scope: api.ScopeSystemConfig, Waiting: func(int, time.Time) {
			go func() { allowed <- a.Allow(ctx, next(t, a), time.Hour, "") }()
		}})
		if err != nil {
			t.Fatalf("after %v: %v", tc.after, err)
		}
		if err := <-allowed; err != nil {
			t.Errorf("after %v: %v", tc.after, err)
		}
		if _, err := c.Config(ctx); err != nil || token.Scope != api.ScopeSystemConfig {
			t.Errorf("after %v, the token: %+v, %v", tc.after, token, err)
		}
		if n := checkins.Load(); n != tc.checkins {
			t.Errorf("after %v: %d check-ins, want %d", tc.after, n, tc.checkins)
		}
	}
}
