package server_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"softhem/api"
	"softhem/hem"
)

// With a full disk a change of keys that cannot be kept is refused with 409 or
// 500, also when many ask at once; nothing that was answered is lost, nothing
// that was refused is there, and once there is room the module works on.
func TestFullDiskAndKeys(t *testing.T) {
	mount := t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=6m"); err != nil {
		t.Skipf("a small file system cannot be mounted (%v); run this test as root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	ctx := t.Context()
	dir := filepath.Join(mount, "data")
	p := startProcess(t, dir)
	user, master := loadKeys(t)
	said := newKeysSaid()
	source := readyForKeys(t, p, user, master, said)
	c := newClient(t, p, user)
	spec := hem.KeySpec{Label: "full", Type: api.MLDSA87, Descr: make([]byte, 64)} // the largest rows
	small := hem.KeySpec{Label: "small", Type: api.AES256}
	create := func(c *hem.Client, spec hem.KeySpec) error {
		kid, err := c.CreateKey(ctx, spec)
		said.add(kid, spec.Label, err)
		return err
	}
	for range 20 {
		if err := create(c, small); err != nil {
			t.Fatal(err)
		}
	}
	// With all the tokens it is going to need: a login is recorded too.
	if kid, ok := said.victim(); !ok || c.DeleteKey(ctx, kid) != nil {
		t.Fatal("a key cannot be deleted")
	} else {
		said.deleted[kid] = true
	}
	if _, err := c.ListKeys(ctx, 0, 0); err != nil {
		t.Fatal(err)
	}
	status := func(err error) int {
		if refused, ok := errors.AsType[*api.Error](err); ok {
			return refused.Status
		}
		return 0
	}
	storm := func(room int64) (int64, int64) {
		var wg sync.WaitGroup
		var done, refused atomic.Int64
		for n := range 8 {
			wg.Go(func() {
				for range 10 {
					var err error
					if kid, ok := said.victim(); ok && n%4 == 0 {
						if err = c.DeleteKey(ctx, kid); err == nil {
							said.mu.Lock()
							said.deleted[kid] = true
							said.mu.Unlock()
						}
					} else {
						err = create(c, spec)
					}
					if err == nil {
						done.Add(1)
					} else {
						refused.Add(1)
					}
					if s := status(err); err != nil && s != 409 && s != 500 {
						t.Errorf("with room for %d bytes: %v, want 409 or 500", room, err)
					}
				}
			})
		}
		wg.Wait()
		return done.Load(), refused.Load()
	}
	for round := range 2 {
		// To the last byte.
		filler := filepath.Join(mount, "filler")
		f, err := os.Create(filler)
		if err != nil {
			t.Fatal(err)
		}
		for size := 4096; err == nil || size > 1; {
			if _, err = f.Write(make([]byte, size)); err != nil && size > 1 {
				size, err = size/2, nil
			}
		}
		f.Close()
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("the disk is not full: %v", err)
		}
		created := 0
		for err = nil; err == nil && created < 20_000; {
			if err = create(c, spec); err == nil {
				created++ // there is room that was taken ahead
			}
		}
		if s := status(err); s != 409 && s != 500 {
			t.Fatalf("round %d: after %d keys on a full disk: %v, want 409 or 500", round, created, err)
		}
		t.Logf("round %d: %d keys found room on a full disk, then %v", round, created, err)
		// Whatever is asked now, by many, is done and answered or neither, also
		// where the room ends in the middle of it.
		for _, room := range []int64{0, 4 << 10, 40 << 10, 150 << 10} {
			info, err := os.Stat(filler)
			if err == nil {
				err = os.Truncate(filler, info.Size()-room)
			}
			if err != nil {
				t.Fatal(err)
			}
			done, refused := storm(room)
			t.Logf("round %d: with room for %d bytes %d changes were done, %d refused", round, room, done, refused)
			if refused == 0 && room < 100<<10 {
				t.Error("nothing was refused")
			}
		}
		if page, err := c.ListKeys(ctx, 0, 0); err != nil || page.Total == 0 {
			t.Errorf("a list on a full disk: %+v, %v", page, err)
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if err := create(c, small); err != nil {
				t.Errorf("round %d, with room again: %v", round, err)
			}
		}
		kid, _ := said.victim()
		if err := c.DeleteKey(ctx, kid); err != nil {
			t.Errorf("round %d, with room again: %v", round, err)
		}
		said.deleted[kid] = true
		if _, err := c.ECDH(ctx, source, hem.PeerKey(source), ""); err != nil {
			t.Errorf("round %d, with room again: %v", round, err)
		}
		checkKeys(t, dir, p, user, said)
	}
	p.kill()
	p = startProcess(t, dir)
	checkKeys(t, dir, p, user, said)
	p.kill()
}
