package main

import (
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
)

// A module whose clock runs 8 % fast, as firmware 1.2.2 does, and a broker and a
// command that have the right time: hem login --remote checks in and goes on.
func testRemoteFastClock(t *testing.T, p program) {
	h := &household{t: t, p: p, dir: t.TempDir()}
	h.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.dir, "TMPDIR=" + h.dir}
	b := h.broker("127.0.0.1:0")
	url := "http://" + b.ready["http"]
	key, err := api.DecodeBase64(b.ready["key"])
	must(t, err)
	var ahead atomic.Int64
	m := hemtest.New(t, &hemtest.Options{
		Fresh: true, ClockUnset: true, Quirks: "fw1.2.2", TrustedBackends: [][]byte{key},
		Clock: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	h.env = append(h.env, "HEM_URL="+m.URL, "HEM_CACERT="+h.write("ca.pem", string(m.CACert)), "HEM_BROKER="+url)
	h.run(0, "", "checkin")
	_, err = m.Personalise()
	must(t, err)
	broker, err := hem.NewBroker(hem.BrokerConfig{URL: url})
	must(t, err)
	var pairing *hem.Pairing
	_, err = m.Client().Pair(t.Context(), broker, hem.PairParams{Show: func(offer string, _ time.Time) {
		pairing, _, err = hem.AcceptPairing(t.Context(), hem.BrokerConfig{}, offer, "desk")
		must(t, err)
	}})
	must(t, err)
	a, err := hem.NewAuthenticator(*pairing, hem.BrokerConfig{Poll: time.Second})
	must(t, err)
	t.Cleanup(a.Close)
	for _, after := range []time.Duration{10 * time.Second, 50 * time.Second, 2 * time.Hour} {
		ahead.Add(int64(after)) // and 8 % of it
		done := make(chan error, 1)
		go func() {
			for {
				all, err := a.Requests(t.Context())
				if err == nil && len(all) == 0 {
					continue
				}
				if err == nil {
					err = a.Allow(t.Context(), all[0], time.Hour, "")
				}
				done <- err
				return
			}
		}()
		out, _ := h.run(0, "", "login", "--remote", "--scope", "system:config", "--print-token")
		if err := <-done; err != nil || strings.Count(out, ".") != 2 {
			t.Errorf("%v ahead: %q, %v", after, out, err)
		}
	}
}
