package broker_test

import (
	"strings"
	"testing"
	"time"

	"softhem/internal/load"
)

// Hundreds of authenticators wait, by polling and by streams, while requests
// come: each request is shown to its authenticator once, allowed once, and
// answered with its own approval.
func TestManyPollers(t *testing.T) {
	s := startBroker(t, t.TempDir())
	p := &load.Pollers{Target: load.Target{Addr: strings.TrimPrefix(s.url, "http://"), Host: "broker"}, N: 300, Rate: 100, Time: 3 * time.Second, Stream: true}
	defer p.Close()
	if err := p.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := p.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Events != 300 || r.Taken != 300 || r.Lost != 0 || r.Twice != 0 || r.Failed != 0 || r.Delivered.Count != 300 {
		t.Errorf("%+v", r)
	}
	t.Logf("%d approvals, p50 %v, p99 %v, worst %v", r.Delivered.Count, r.Delivered.P50, r.Delivered.P99, r.Delivered.Worst)
}
