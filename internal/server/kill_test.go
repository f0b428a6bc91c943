package server_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/audit"
)

// answered is what a module said it had done.
type answered struct {
	inited, logins, reboots atomic.Int64
}

func (a *answered) total() int64 { return a.inited.Load() + a.logins.Load() + a.reboots.Load() }

// A module is killed 200 times while it is personalised, logged in to and
// rebooted. Each time its store opens again, nothing it had answered is lost,
// nothing is half done, and every log file verifies.
func TestKilledAtAnyInstant(t *testing.T) {
	rounds, perFolder := 200, 5
	if testing.Short() {
		rounds = 20
	}
	user, err1 := hem.KeyFromSeed([]byte("the seed of the local user ....."))
	master, err2 := hem.KeyFromSeed([]byte("the seed of an administrator ..."))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	var logins, reboots int64
	for folder := range rounds / perFolder {
		dir := filepath.Join(t.TempDir(), "data")
		var said answered
		for range perFolder {
			p := startProcess(t, dir)
			work(t, p, user, master, &said)
		}
		p := startProcess(t, dir)
		checkFolder(t, dir, p, user, &said)
		p.kill()
		if t.Failed() {
			t.Fatalf("folder %d", folder)
		}
		logins, reboots = logins+said.logins.Load(), reboots+said.reboots.Load()
	}
	t.Logf("%d kills, %d logins and %d reboots were answered before them", rounds, logins, reboots)
	// A busy machine does a quarter of a quiet one's: 2 000 logins, 50 reboots.
	if logins < int64(rounds) || reboots < int64(rounds)/20 {
		t.Error("the modules were hardly at work when they were killed")
	}
}

// work keeps a module busy until it is killed at some moment in between.
func work(t *testing.T, p *process, user, master *hem.PersonaKey, said *answered) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	client := newClient(t, p, user)
	personalise := func() {
		_, err := client.Init(ctx, hem.InitParams{UserKey: user, MasterKey: master, Config: api.InitConfig{
			User: "kill", Hostname: "localhost", Origin: "*", TrustedTS: true,
		}})
		if err == nil {
			said.inited.Add(1)
		}
	}
	wg.Go(func() {
		if said.inited.Load() == 0 {
			personalise()
		}
		for ctx.Err() == nil {
			if client.Reboot(ctx) == nil {
				said.reboots.Add(1)
			}
			time.Sleep(time.Duration(rand.N(5)) * time.Millisecond)
		}
	})
	for range 3 {
		c := newClient(t, p, user)
		wg.Go(func() {
			for ctx.Err() == nil {
				c.Forget()
				if _, err := c.Login(ctx, api.ScopeLoggerGet); err == nil {
					said.logins.Add(1)
				}
			}
		})
	}
	// By what was done, not by the clock, so that a slow machine is at work too.
	before, wanted := said.total(), int64(rand.N(15))
	for deadline := time.Now().Add(5 * time.Second); said.total() < before+wanted && time.Now().Before(deadline); {
		time.Sleep(200 * time.Microsecond)
	}
	time.Sleep(time.Duration(rand.N(5_000)) * time.Microsecond)
	p.kill()
	cancel()
	wg.Wait()
}

func newClient(t testing.TB, p *process, key *hem.PersonaKey) *hem.Client {
	t.Helper()
	ca, err := os.ReadFile(p.ready["ca"])
	if err != nil {
		t.Fatal(err)
	}
	c, err := hem.New(hem.Config{URL: "https://" + p.ready["https"], CACert: ca, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// checkFolder holds the log of a folder against what was answered.
func checkFolder(t *testing.T, dir string, p *process, user *hem.PersonaKey, said *answered) {
	t.Helper()
	ctx := context.Background()
	client := newClient(t, p, user)
	status, err := client.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if status.Inited != nil {
		if said.inited.Load() > 0 {
			t.Error("the module had answered its personalisation and is fresh")
		}
		return // killed before anything was done
	}
	config, err := client.Config(ctx)
	if err != nil {
		t.Fatalf("the personas do not fit: %v", err)
	}
	eidSign, err := api.DecodeBase64(config.EIDSign)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "audit", "????????"))
	if err != nil || len(files) < 2 {
		t.Fatalf("log files %v: %v", files, err)
	}
	count := make(map[audit.Type]int64)
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		for e, err := range audit.Entries(f, eidSign) {
			if err != nil {
				t.Errorf("%s: %v", name, err)
				break
			}
			if e.Result == audit.OK {
				count[e.Type]++
			}
		}
		f.Close()
	}
	if n := count[audit.DeviceInited]; n != 1 {
		t.Errorf("the log has %d personalisations of a module that is personalised", n)
	}
	if n, want := count[audit.AuthSuccessInternal], said.logins.Load(); n < want {
		t.Errorf("the log has %d logins, %d were answered", n, want)
	}
	if n, want := count[audit.Reboot], said.reboots.Load(); n < want {
		t.Errorf("the log has %d reboots, %d were answered", n, want)
	}
	if said.logins.Load() > 0 && count[audit.Startup] < int64(len(files)) {
		t.Errorf("%d files, %d boots", len(files), count[audit.Startup])
	}
}
