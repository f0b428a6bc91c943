package server_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/seal"
	"softhem/internal/server"
)

// owned is a module with something to lose, and what a search may find of it.
type owned struct {
	client       *hem.Client
	user, master *hem.PersonaKey
	eid          string
	token        hem.Bearer
	kid          hem.KID
	traces       map[string][]byte
}

func own(t *testing.T, client *hem.Client, user, master *hem.PersonaKey) *owned {
	t.Helper()
	ctx := context.Background()
	_, err := client.Init(ctx, hem.InitParams{UserKey: user, MasterKey: master, Config: api.InitConfig{
		User: "Wilhelmina", Email: "wilhelmina@wipe.example", Hostname: "wipe.example", Origin: "*", TrustedTS: true,
	}})
	if err != nil {
		t.Fatal(err)
	}
	conf, err := client.Config(ctx)
	if err != nil {
		t.Fatal(err)
	}
	o := &owned{client: client, user: user, master: master, eid: conf.EID, traces: map[string][]byte{
		"label": []byte("label of a doomed key"), "descr": []byte("descr of a doomed key"), "user": []byte("Wilhelmina"),
	}}
	kid, err := client.CreateKey(ctx, hem.KeySpec{Label: string(o.traces["label"]), Type: api.SECP256R1, Descr: o.traces["descr"]})
	if err != nil {
		t.Fatal(err)
	}
	key, err := client.GetKey(ctx, kid)
	if err != nil {
		t.Fatal(err)
	}
	o.kid, o.traces["public key"], o.traces["kid"] = kid, key.Public, kid[:]
	o.traces["public key of the user"], o.traces["public key of the administrator"] = user.Public(), master.Public()
	for name, text := range map[string]string{"eid": conf.EID, "eid_sign": conf.EIDSign, "genuine id": conf.GenuineID} {
		if o.traces[name], err = api.DecodeBase64(text); err != nil {
			t.Fatal(err)
		}
	}
	token, err := client.Login(ctx, api.ScopeSystemConfig)
	if err != nil {
		t.Fatal(err)
	}
	o.token = token.Bearer
	return o
}

// found lists the traces that stand in a folder, in any spelling.
func (o *owned) found(t *testing.T, dir string, more map[string][]byte) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, traces := range []map[string][]byte{o.traces, more} {
			for name, trace := range traces {
				for _, spelled := range [][]byte{
					trace, []byte(hex.EncodeToString(trace)), []byte(base64.RawStdEncoding.EncodeToString(trace)), []byte(base64.RawURLEncoding.EncodeToString(trace)),
				} {
					if bytes.Contains(content, spelled) {
						all = append(all, name+" in "+d.Name())
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// logLines are the log's lines of now, and its first MAC key.
func logLines(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "audit", "????????"))
	if err != nil || len(files) == 0 {
		t.Fatal("no log", err)
	}
	lines := make(map[string][]byte)
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(strings.TrimRight(string(content), "\x00")) {
			if strings.Count(line, "|") == 6 {
				lines["log line "+line[:10]+filepath.Base(name)] = []byte(strings.TrimSpace(line))
			}
		}
	}
	if len(lines) < 4 {
		t.Fatalf("only %d log lines", len(lines))
	}
	return lines
}

// await is a client of the module that has taken the place of eid's.
func await(t *testing.T, base, caFile, eid string, key *hem.PersonaKey) *hem.Client {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		ca, err := os.ReadFile(caFile)
		if err != nil {
			continue // between the old and the new
		}
		c, err := hem.New(hem.Config{URL: base, CACert: ca, Key: key})
		if err != nil {
			continue
		}
		status, err := c.Status(context.Background())
		if err == nil && status.Inited != nil && !*status.Inited {
			t.Cleanup(c.Close)
			return c
		}
		c.Close()
	}
	t.Fatal("no fresh module came up")
	return nil
}

// gone checks that nothing that opened the old module opens what is there now.
func (o *owned) gone(t *testing.T, base string, fresh *hem.Client) {
	t.Helper()
	ctx := context.Background()
	if _, err := fresh.Login(ctx, api.ScopeSystemConfig); !errors.Is(err, api.ErrConflict) {
		t.Errorf("a login with the old key: %v, want 409", err)
	}
	held, err := hem.New(hem.Config{URL: base, Token: o.token, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := held.Reboot(ctx); !errors.Is(err, api.ErrUnauthorized) { // open on a fresh module, but not with a bad token
		t.Errorf("the old token: %v, want 401", err)
	}
}

// replaced checks that nothing of the old module works once the fresh one belongs
// to somebody else, whose client this is.
func (o *owned) replaced(t *testing.T, base, caFile string, other *hem.Client) {
	t.Helper()
	ctx := context.Background()
	ca, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	for role, key := range map[api.Role]*hem.PersonaKey{api.RoleUser: o.user, api.RoleMaster: o.master} {
		old, err := hem.New(hem.Config{URL: base, CACert: ca, Role: role, Key: key})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := old.Login(ctx, api.ScopeSystemConfig); !errors.Is(err, api.ErrUnauthorized) {
			t.Errorf("the old key of role %s: %v, want 401", role, err)
		}
		old.Close()
	}
	held, err := hem.New(hem.Config{URL: base, CACert: ca, Token: o.token})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if _, err := held.Config(ctx); !errors.Is(err, api.ErrUnauthorized) {
		t.Errorf("the old token: %v, want 401", err)
	}
	if _, err := other.GetKey(ctx, o.kid); !errors.Is(err, api.ErrNotAcceptable) {
		t.Errorf("the old stored key: %v, want 406", err)
	}
}

// A wipe leaves a fresh module behind the same listeners, with another identity
// and another CA, and nothing of the old one in the folder; what was not the
// module's stays.
func TestWipe(t *testing.T) {
	ctx := context.Background()
	for _, where := range []string{"in a folder", "in memory", "in a folder, with the root key elsewhere and gone"} {
		t.Run(where, func(t *testing.T) {
			cfg := testConfig("")
			if where != "in memory" {
				cfg = testConfig(filepath.Join(t.TempDir(), "data"))
			}
			if strings.HasSuffix(where, "gone") {
				cfg.RootKey.File = filepath.Join(t.TempDir(), "root")
				if err := seal.CreateRoot(cfg.RootKey.File); err != nil {
					t.Fatal(err)
				}
			}
			s, err := server.Start(ctx, cfg)
			if err != nil {
				t.Fatal(err)
			}
			stop := sync.OnceFunc(func() {
				if err := s.Stop(ctx); err != nil {
					t.Error(err)
				}
			})
			t.Cleanup(stop)
			user, master := loadKeys(t)
			base := "https://" + s.Addresses().HTTPS
			first := await(t, base, s.CAFile(), "", user)
			o := own(t, first, user, master)
			oldCA, err := os.ReadFile(s.CAFile())
			if err != nil {
				t.Fatal(err)
			}
			var lines map[string][]byte
			theirs := filepath.Join(cfg.DataDir, "theirs")
			if !cfg.Memory {
				lines = logLines(t, cfg.DataDir)
				if err := os.WriteFile(theirs, []byte("not the module's"), 0o600); err != nil {
					t.Fatal(err)
				}
				if len(o.found(t, cfg.DataDir, lines)) < 3 {
					t.Fatal("the search does not find what is there")
				}
			}
			if cfg.RootKey.File != "" {
				if err := os.Remove(cfg.RootKey.File); err != nil {
					t.Fatal(err)
				}
			}
			if err := o.client.Wipe(ctx); err != nil {
				t.Fatal(err)
			}
			fresh := await(t, base, s.CAFile(), o.eid, user)
			o.gone(t, base, fresh)
			if s.Module().EID() == o.eid {
				t.Error("the identity is the old one")
			}
			if newCA, err := os.ReadFile(s.CAFile()); err != nil || bytes.Equal(newCA, oldCA) {
				t.Errorf("the CA is the old one: %v", err)
			}
			if !cfg.Memory {
				if found := o.found(t, cfg.DataDir, lines); len(found) > 0 {
					t.Errorf("after the wipe: %v", found)
				}
				if _, err := os.Stat(theirs); err != nil {
					t.Errorf("what is not the module's: %v", err)
				}
			}
			// It is a module like any other: owned again, by others, and wiped again.
			newUser, newMaster := otherKeys(t)
			again := own(t, await(t, base, s.CAFile(), o.eid, newUser), newUser, newMaster)
			o.replaced(t, base, s.CAFile(), again.client)
			if err := again.client.Wipe(ctx); err != nil {
				t.Fatal(err)
			}
			third := await(t, base, s.CAFile(), again.eid, newUser)
			again.gone(t, base, third)
			if cfg.Memory || cfg.RootKey.File != "" {
				return
			}
			third = await(t, base, s.CAFile(), again.eid, user)
			own(t, third, user, master)
			eid := s.Module().EID()
			stop()
			s2, err := server.Start(ctx, cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer s2.Stop(ctx)
			if s2.Module().EID() != eid || !s2.Module().Inited() {
				t.Error("a restart after the wipes is another module")
			}
		})
	}
}

// otherKeys are those of other people than loadKeys'.
func otherKeys(t *testing.T) (user, master *hem.PersonaKey) {
	t.Helper()
	user, err := hem.KeyFromSeed([]byte("the seed of somebody else ......"))
	if err != nil {
		t.Fatal(err)
	}
	if master, err = hem.KeyFromSeed([]byte("the seed of another master .....")); err != nil {
		t.Fatal(err)
	}
	return user, master
}

// A wipe that was cut off anywhere is finished by the next start.
func TestInterruptedWipeIsFinished(t *testing.T) {
	ctx := context.Background()
	user, master := loadKeys(t)
	for name, interrupted := range map[string]func(dir string) error{
		"after the rename": func(string) error { return nil },
		"log removed":      func(dir string) error { return os.RemoveAll(filepath.Join(dir, "audit")) },
		"store removed":    func(dir string) error { return os.Remove(filepath.Join(dir, "hem.db")) },
		"new data key half made": func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "hem.db")), os.WriteFile(filepath.Join(dir, "data.key.new"), []byte("HEMK"), 0o600))
		},
	} {
		cfg := testConfig(filepath.Join(t.TempDir(), "data"))
		s, err := server.Start(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		o := own(t, await(t, "https://"+s.Addresses().HTTPS, s.CAFile(), "", user), user, master)
		if err := s.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		lines := logLines(t, cfg.DataDir)
		key := filepath.Join(cfg.DataDir, "data.key")
		if err := errors.Join(os.Rename(key, key+".gone"), interrupted(cfg.DataDir)); err != nil {
			t.Fatal(err)
		}
		if s, err = server.Start(ctx, cfg); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if s.Module().Inited() || s.Module().EID() == o.eid {
			t.Errorf("%s: not a fresh module", name)
		}
		if found := o.found(t, cfg.DataDir, lines); len(found) > 0 {
			t.Errorf("%s: %v", name, found)
		}
		if _, err := os.Stat(key + ".gone"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the mark of the wipe is left: %v", name, err)
		}
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
	}
}

// A data key that is merely lost is no wipe: nothing is removed.
func TestLostDataKeyIsNoWipe(t *testing.T) {
	ctx := context.Background()
	cfg := testConfig(filepath.Join(t.TempDir(), "data"))
	s, err := server.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(cfg.DataDir, "data.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Start(ctx, cfg); err == nil || !strings.Contains(err.Error(), "no data.key") {
		t.Errorf("it starts without its data key: %v", err)
	}
	if _, err := os.Stat(filepath.Join(cfg.DataDir, "hem.db")); err != nil {
		t.Error(err)
	}
}

// A process that is killed at any instant of a wipe is after it either the old
// module as a whole, or a fresh one beside which nothing of the old can be
// found; the latter always, if the wipe was answered.
func TestKilledDuringWipe(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 12
	}
	user, master := loadKeys(t)
	ctx := context.Background()
	before, after := 0, 0
	for round := range rounds {
		dir := filepath.Join(t.TempDir(), "data")
		p := startProcess(t, dir)
		o := own(t, newClient(t, p, user), user, master)
		lines := logLines(t, dir)
		var wg sync.WaitGroup
		answered := false
		wg.Go(func() { answered = o.client.Wipe(ctx) == nil })
		within := 2 * time.Millisecond // about the point of no return
		if round%2 == 0 {
			within = 25 * time.Millisecond // while the fresh module is made
		}
		time.Sleep(rand.N(within))
		p.kill()
		wg.Wait()

		p = startProcess(t, dir)
		client := newClient(t, p, user)
		status, err := client.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if status.Inited == nil { // the old module, whole
			before++
			if answered {
				t.Error("the wipe was answered, and did not happen")
			}
			keys, err := client.ListKeys(ctx, 0, 15)
			if err != nil || p.ready["eid"] != o.eid || keys.Total != 1 {
				t.Errorf("the old module is not whole: %v", err)
			}
		} else {
			after++
			if p.ready["eid"] == o.eid {
				t.Error("a fresh module with the old identity")
			}
			o.gone(t, "https://"+p.ready["https"], client)
			if found := o.found(t, dir, lines); len(found) > 0 {
				t.Errorf("after the wipe: %v", found)
			}
		}
		p.kill()
		if t.Failed() {
			return
		}
	}
	t.Logf("%d kills during a wipe: %d before, %d after", rounds, before, after)
	if before == 0 || after == 0 {
		t.Error("all kills fell on one side")
	}
}

// A process that is killed while its configuration changes has all of the last
// change that was answered, or of the one after it, and nothing in between.
func TestKilledDuringConfigUpdate(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	user, master := loadKeys(t)
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "data")
	p := startProcess(t, dir)
	own(t, newClient(t, p, user), user, master)
	var said int64
	for range rounds {
		client := newClient(t, p, user)
		var wg sync.WaitGroup
		start := make(chan struct{})
		wg.Go(func() {
			for n := said + 1; ; n++ {
				name, dos := strings.Repeat("x", int(n%60)+1), int(n%5)
				_, err := client.UpdateConfig(ctx, api.ConfigUpdate{User: &name, Ctx: &n, HTTPOptionDoS: &dos, StorageDisk0Size: &n})
				if err != nil {
					return
				}
				if said = n; n%3 == 0 {
					select {
					case start <- struct{}{}:
					default:
					}
				}
			}
		})
		<-start
		time.Sleep(time.Duration(rand.N(8_000)) * time.Microsecond)
		p.kill()
		wg.Wait()
		p = startProcess(t, dir)
		conf, err := newClient(t, p, user).Config(ctx)
		if err != nil {
			t.Fatal(err)
		}
		n := conf.Ctx
		if n != said && n != said+1 {
			t.Errorf("change %d was answered, and %d is there", said, n)
		}
		if len(conf.User) != int(n%60)+1 || conf.HTTPOptionDoS != int(n%5) || *conf.StorageDisk0Size != n {
			t.Errorf("a configuration in between: %+v", conf)
		}
		said = n
	}
	t.Logf("%d kills, %d changes", rounds, said)
}

// A process that is killed while the user gets another key has the old or the
// new one: one of them logs in, and the other is refused.
func TestKilledDuringUserKeyChange(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 3
	}
	user, master := loadKeys(t)
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "data")
	p := startProcess(t, dir)
	own(t, newClient(t, p, user), user, master)
	// Key n of the user; only the last two matter.
	key := func(n int) *hem.PersonaKey {
		if n == 0 {
			return user
		}
		k, err := hem.KeyFromSeed(fmt.Appendf(nil, "the seed of user key %11d", n))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	said, before, after := 0, 0, 0
	for range rounds {
		ca, err := os.ReadFile(p.ready["ca"])
		if err != nil {
			t.Fatal(err)
		}
		owner, err := hem.New(hem.Config{URL: "https://" + p.ready["https"], CACert: ca, Role: api.RoleMaster, Key: master})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := owner.Config(ctx); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		start := make(chan struct{})
		wg.Go(func() {
			close(start)
			for owner.ChangeUserKey(ctx, nil, key(said+1)) == nil {
				said++
			}
		})
		<-start
		time.Sleep(rand.N(20 * time.Millisecond))
		p.kill()
		wg.Wait()
		owner.Close()
		p = startProcess(t, dir)
		works := func(n int) bool {
			_, err := newClient(t, p, key(n)).Login(ctx, api.ScopeSystemConfig)
			if err != nil && !errors.Is(err, api.ErrUnauthorized) {
				t.Fatal(err)
			}
			return err == nil
		}
		old, next := works(said), works(said+1)
		switch {
		case old == next:
			t.Fatalf("change %d was answered; its key works: %v, the next: %v", said, old, next)
		case next:
			after++
			said++
		default:
			before++
		}
		if said > 0 && works(said-1) {
			t.Errorf("the key before number %d still works", said)
		}
	}
	t.Logf("%d kills, %d changes; the last one was lost %d times and done %d times", rounds, said, before, after)
}
