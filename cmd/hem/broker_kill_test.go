package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"softhem/hem"
)

// A broker that is killed again and again, at any instant, while people ask and
// approve: what it took it keeps. Each request that it accepted ends in its
// token, each is approved once, and none that was answered is asked again.
func testBrokerKilled(t *testing.T, p program) {
	const kills, people, patienceForAll = 6, 6, time.Minute
	h := &household{t: t, p: p, dir: t.TempDir()}
	h.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.dir, "TMPDIR=" + h.dir}
	start := func(addr string) *running {
		return startServe(t, h.command("", "broker", "--data", filepath.Join(h.dir, "broker"), "--http", addr, "--rate=0", "--pairing-rate=0"))
	}
	b := start("127.0.0.1:0")
	addr := b.ready["http"]
	m := p.start(t, nil, "--dev", "--trusted-backend", b.ready["key"], "--unsafe-fast-login", "--login-delay=0", "--login-penalty=0", "--login-penalty-window=0")
	ctx, cancel := context.WithTimeout(t.Context(), patienceForAll)
	defer cancel()
	broker, err := hem.NewBroker(hem.BrokerConfig{URL: "http://" + addr})
	must(t, err)
	var pairing *hem.Pairing
	_, err = m.client(hem.Config{Passphrase: fixed("user")}).Pair(ctx, broker, hem.PairParams{Show: func(offer string, _ time.Time) {
		pairing, _, err = hem.AcceptPairing(ctx, hem.BrokerConfig{}, offer, "desk")
		must(t, err)
	}})
	must(t, err)
	a, err := hem.NewAuthenticator(*pairing, hem.BrokerConfig{Poll: time.Second})
	must(t, err)
	defer a.Close()

	var mu sync.Mutex
	allowed, ended := map[string]int{}, map[string]bool{} // by scope; each request has one of its own
	var accepted, tokens, refused atomic.Int64
	end := make(chan struct{}) // closed: no new requests
	var asking, approving sync.WaitGroup
	for who := range people {
		c := m.client(hem.Config{})
		asking.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-end:
					return
				default:
				}
				scope, taken := fmt.Sprintf("test:%d:%d", who, n), false
				token, err := c.LoginRemote(ctx, broker, hem.RemoteParams{Scope: scope, Waiting: func(int, time.Time) {
					taken = true
					accepted.Add(1)
				}})
				mu.Lock()
				ended[scope] = true
				switch {
				case err == nil && token.Scope == scope && allowed[scope] <= 1:
					tokens.Add(1)
				case err == nil || taken:
					t.Errorf("%s was accepted, and allowed %d times: %q, %v", scope, allowed[scope], token.Scope, err)
				default:
					refused.Add(1) // the broker was not there
				}
				mu.Unlock()
				if err != nil {
					time.Sleep(10 * time.Millisecond) // it is about to start
				}
			}
		})
	}
	watching, stopWatching := context.WithCancel(ctx)
	approving.Go(func() {
		for watching.Err() == nil {
			all, err := a.Requests(watching)
			if err != nil {
				time.Sleep(10 * time.Millisecond)
			}
			for _, r := range all {
				mu.Lock()
				if ended[r.Scope] && allowed[r.Scope] > 0 {
					t.Errorf("%s was answered and is asked again", r.Scope)
				}
				mu.Unlock()
				if a.Allow(watching, r, time.Hour, "") == nil {
					mu.Lock()
					allowed[r.Scope]++
					mu.Unlock()
				}
			}
		}
	})
	for range kills {
		before := tokens.Load()
		eventually(t, "the next tokens", func() bool { return tokens.Load() >= before+people })
		time.Sleep(time.Duration(rand.IntN(20_000)) * time.Microsecond) // any instant
		must(t, b.cmd.Process.Kill())
		<-b.ended
		b = start(addr)
	}
	close(end)
	asking.Wait()
	// Whatever the broker forgot or remembered wrongly would show now.
	b.stop()
	start(addr)
	left, err := a.Requests(ctx)
	must(t, err)
	for _, r := range left {
		if allowed[r.Scope] > 0 {
			t.Errorf("%s was allowed and is asked again", r.Scope)
		}
	}
	stopWatching()
	approving.Wait()
	for scope, n := range allowed {
		if n != 1 || !ended[scope] {
			t.Errorf("%s was allowed %d times; its request has ended: %v", scope, n, ended[scope])
		}
	}
	if accepted.Load() != tokens.Load() {
		t.Errorf("%d requests were accepted, and %d tokens came of them", accepted.Load(), tokens.Load())
	}
	t.Logf("%d kills: %d requests accepted, as many tokens; %d could not be sent", kills, accepted.Load(), refused.Load())
}
