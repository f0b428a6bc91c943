package hem

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"softhem/api"
)

func TestOneLoginHoweverManyCallers(t *testing.T) {
	f := startFake(t)
	gate := make(chan struct{})
	f.handle("POST "+pathToken, func(w answerWriter, r request) {
		<-gate
		f.login(w, r.Request)
	})
	asked := 0 // not guarded: the race detector would see two derivations at once
	c := newClient(t, Config{URL: f.url, Passphrase: func(context.Context, api.Role) ([]byte, error) {
		asked++
		return []byte("x"), nil
	}})
	var wg sync.WaitGroup
	leaving, leave := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { // the one who begins it, and does not stay
		_, err := c.Login(leaving, "a")
		first <- err
	}()
	waitFor(t, func() bool { return c.logins.waiters("a") == 1 })
	for range 50 {
		for _, scope := range []string{"a", "b"} {
			wg.Go(func() {
				if _, err := c.Login(t.Context(), scope); err != nil {
					t.Error(err)
				}
			})
		}
	}
	waitFor(t, func() bool { return c.logins.waiters("a") == 51 && c.logins.waiters("b") == 50 })
	leave()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(gate)
	wg.Wait()
	if got := f.count("POST " + pathToken); got != 2 || asked != 1 {
		t.Errorf("%d logins and %d questions, want 2 and 1", got, asked)
	}
}

// Many calls on an expired session renew it once and all succeed.
func TestManyCallsAfterAReboot(t *testing.T) {
	f := startFake(t)
	c := newClient(t, Config{URL: f.url, Key: testKey(t)})
	if _, err := c.Config(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.reboot()
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			if _, err := c.Config(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := f.count("POST " + pathToken); got != 2 {
		t.Errorf("%d logins, want 2", got)
	}
}

func TestForgetDuringLogin(t *testing.T) {
	f := startFake(t)
	c := newClient(t, Config{URL: f.url, Key: testKey(t)})
	f.handle("POST "+pathToken, func(w answerWriter, r request) {
		c.Forget()
		f.login(w, r.Request)
	})
	if _, err := c.Login(t.Context(), "s"); err != nil {
		t.Error(err)
	}
	if len(c.tokens) != 0 {
		t.Error("a token was kept after Forget")
	}
}

func TestFlightEndsWithItsLastCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g flights[int]
		cancelled := make(chan struct{})
		hang := func(ctx context.Context) (int, error) {
			<-ctx.Done()
			time.Sleep(time.Second) // does not stop at once
			close(cancelled)
			return 0, ctx.Err()
		}
		ctx1, cancel1 := context.WithTimeout(t.Context(), time.Second)
		defer cancel1()
		ctx2, cancel2 := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel2()
		start := time.Now()
		go g.do(ctx1, "k", hang)
		synctest.Wait()
		if _, err := g.do(ctx2, "k", hang); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		// While the cancelled one is still winding down, a new caller begins anew.
		v, err := g.do(t.Context(), "k", func(context.Context) (int, error) { return 7, nil })
		if v != 7 || err != nil {
			t.Errorf("%d, %v", v, err)
		}
		<-cancelled
		synctest.Wait()
		if len(g.running) != 0 {
			t.Error("a flight was left behind")
		}
	})
}

func (g *flights[V]) waiters(key string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f := g.running[key]; f != nil {
		return f.waiting
	}
	return 0
}

func waitFor(t *testing.T, ready func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ready(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited too long")
		}
	}
}
