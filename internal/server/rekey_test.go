package server_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/control"
	"softhem/internal/seal"
	"softhem/internal/server"
)

// After a new root key the old one opens nothing in the folder, before and after
// a restart; the module, its keys and its tokens stay what they were; and a wipe
// afterwards goes on with the new one.
func TestThreat_T155_OldRootKeyOpensNothing(t *testing.T) {
	ctx := t.Context()
	k := keep(t, testConfig(filepath.Join(t.TempDir(), "data")))
	file := filepath.Join(k.cfg.DataDir, "root.key")
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before := k.backup(t)
	if report, err := k.s.Rekey(ctx, control.RekeyRequest{}); err != nil || report.File != file {
		t.Fatalf("%+v, %v", report, err)
	}
	if now, err := os.ReadFile(file); err != nil || bytes.Equal(now, old) || len(now) != seal.KeySize {
		t.Errorf("the root key is the old one: %v", err)
	}
	if _, err := seal.Open(k.cfg.DataDir, old); !errors.Is(err, seal.ErrWrongRootKey) {
		t.Errorf("the old root key, while the module runs: %v", err)
	}
	if _, err := k.client.ListKeys(ctx, 0, 15); err != nil {
		t.Error(err)
	}
	if _, err := k.s.Check(ctx, bytes.NewReader(k.backup(t))); err != nil {
		t.Errorf("a backup with the new one: %v", err)
	}
	k.stop()
	elsewhere := filepath.Join(t.TempDir(), "old")
	if err := os.WriteFile(elsewhere, old, 0o600); err != nil {
		t.Fatal(err)
	}
	wrong := k.cfg
	wrong.RootKey.File = elsewhere
	if s, err := server.Start(context.Background(), wrong); !errors.Is(err, seal.ErrWrongRootKey) {
		if err == nil {
			s.Stop(context.Background())
		}
		t.Fatalf("a start with the old root key: %v", err)
	}
	s, err := server.Start(context.Background(), k.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if s.Module().EID() != k.eid || s.Module().LogRolledBack() {
		t.Error("it is not the module that it was")
	}
	again := &kept{cfg: k.cfg, s: s}
	c := again.connect(t, k.user)
	if keys, err := c.ListKeys(ctx, 0, 15); err != nil || keys.Total != 1 {
		t.Errorf("%d keys, %v", keys.Total, err)
	}
	if _, err := s.Rekey(ctx, control.RekeyRequest{}); err != nil {
		t.Error(err)
	}
	if err := c.Wipe(ctx); err != nil {
		t.Fatal(err)
	}
	await(t, "https://"+s.Addresses().HTTPS, s.CAFile(), k.eid, k.user)
	fresh := s.Module().EID()
	if err := s.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s, err = server.Start(context.Background(), k.cfg); err != nil {
		t.Fatalf("after a wipe: %v", err)
	}
	defer s.Stop(context.Background())
	if s.Module().EID() != fresh {
		t.Error("another fresh module")
	}
	// What was copied away before still is what it was: that cannot be taken back.
	if r := restart(t, before); r.s.Module().EID() != k.eid {
		t.Error("the backup of before is another module")
	}
}

// Clients that sign, make keys and read, while the root key is changed again and
// again and backups are made, see no error.
func TestRekeyIsNotNoticed(t *testing.T) {
	k := keep(t, testConfig(filepath.Join(t.TempDir(), "data")))
	kid, err := k.client.CreateKey(t.Context(), hem.KeySpec{Label: "signer", Type: api.Ed25519})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var done atomic.Int64
	for _, do := range []func(c *hem.Client) error{
		func(c *hem.Client) error {
			_, err := c.Sign(context.Background(), kid, []byte("m"), api.AlgEd25519, nil)
			return err
		},
		func(c *hem.Client) error {
			_, err := c.CreateKey(context.Background(), hem.KeySpec{Label: "new", Type: api.AES256})
			return err
		},
		func(c *hem.Client) error { _, err := c.Config(context.Background()); return err },
		func(*hem.Client) error { return k.s.Backup(context.Background(), io.Discard) },
	} {
		c := k.connect(t, k.user)
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := do(c); err != nil {
					t.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	changes := 0
	for ; (changes < 20 || done.Load() < 100) && !t.Failed(); changes++ {
		if _, err := k.s.Rekey(context.Background(), control.RekeyRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	wg.Wait()
	t.Logf("%d root keys, %d operations", changes, done.Load())
}

// A root key that cannot be replaced stays, and the module with it; and memory
// has none.
func TestRekeyThatFails(t *testing.T) {
	cfg := testConfig(filepath.Join(t.TempDir(), "data"))
	cfg.RootKey.File = filepath.Join(t.TempDir(), "root")
	if err := seal.CreateRoot(cfg.RootKey.File); err != nil {
		t.Fatal(err)
	}
	k := keep(t, cfg)
	away := cfg.RootKey.File + ".away"
	if err := os.Rename(cfg.RootKey.File, away); err != nil {
		t.Fatal(err)
	}
	if _, err := k.s.Rekey(t.Context(), control.RekeyRequest{}); err == nil {
		t.Error("without its file")
	}
	if err := os.Rename(away, cfg.RootKey.File); err != nil {
		t.Fatal(err)
	}
	k.stop()
	s, err := server.Offline(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Rekey(t.Context(), control.RekeyRequest{}); err != nil {
		t.Errorf("offline: %v", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	inMemory, err := server.Start(t.Context(), testConfig(""))
	if err != nil {
		t.Fatal(err)
	}
	defer inMemory.Stop(context.Background())
	if _, err := inMemory.Rekey(t.Context(), control.RekeyRequest{}); err == nil {
		t.Error("a root key in memory")
	}
}

// A module that is killed while it changes its root key comes up again, with
// one root key that opens everything, whatever was answered.
func TestThreat_T156_KilledDuringRekey(t *testing.T) {
	rounds := 10
	if testing.Short() {
		rounds = 5
	}
	user, master := loadKeys(t)
	dir := filepath.Join(t.TempDir(), "data")
	file := filepath.Join(dir, "root.key")
	p := startProcess(t, dir)
	o := own(t, newClient(t, p, user), user, master)
	answered, settled := 0, 0
	var last []byte // the root key that was in use after the latest answer
	for range rounds {
		c, err := control.Dial(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		begun := make(chan struct{})
		wg.Go(func() {
			for i := 0; ; i++ {
				_, err := c.Rekey(context.Background(), control.RekeyRequest{})
				if i == 0 {
					close(begun)
				}
				if err != nil {
					return
				}
				answered++
			}
		})
		<-begun
		time.Sleep(rand.N(20 * time.Millisecond))
		p.kill()
		wg.Wait()
		c.Close()
		if _, err := os.Stat(file + ".rekey"); err == nil {
			settled++
		}
		p = startProcess(t, dir)
		if _, err := os.Stat(file + ".rekey"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a second root key is left: %v", err)
		}
		keys, err := newClient(t, p, user).ListKeys(t.Context(), 0, 15)
		if err != nil || p.ready["eid"] != o.eid || keys.Total != 1 {
			t.Fatalf("after a kill: %v", err)
		}
		now, err := os.ReadFile(file)
		if err != nil || bytes.Equal(now, last) {
			t.Errorf("the root key is still that of the round before: %v", err)
		}
		last = now
	}
	t.Logf("%d kills, %d changes were answered, %d were cut off and settled by the next start", rounds, answered, settled)
	if settled == 0 && !testing.Short() {
		t.Error("no change was cut off")
	}
}
