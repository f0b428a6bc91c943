package server_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"softhem/api"
	"softhem/hem"
)

// With a full disk a login that cannot be recorded is refused with 409, nothing
// that was answered is lost, and once there is room the module works on.
func TestFullDisk(t *testing.T) {
	mount := t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("a small file system cannot be mounted (%v); run this test as root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	})
	ctx := context.Background()
	dir := filepath.Join(mount, "data")
	p := startProcess(t, dir)
	user, master := loadKeys(t)
	client := newClient(t, p, user)
	_, err := client.Init(ctx, hem.InitParams{UserKey: user, MasterKey: master, Config: api.InitConfig{
		User: "full", Hostname: "localhost", Origin: "*", TrustedTS: true,
	}})
	if err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(mount, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	f.Close()
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	login := func() error {
		client.Forget()
		_, err := client.Login(ctx, api.ScopeLoggerGet)
		return err
	}
	var said answered
	said.inited.Add(1)
	for err = nil; err == nil && said.logins.Load() < 50_000; {
		if err = login(); err == nil {
			said.logins.Add(1) // there is room that was taken ahead
		}
	}
	if !errors.Is(err, api.ErrConflict) {
		t.Fatalf("after %d logins on a full disk: %v, want 409", said.logins.Load(), err)
	}
	if _, err := client.Status(ctx); err != nil {
		t.Errorf("what needs no record is refused too: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := login(); err != nil {
		t.Errorf("with room again: %v", err)
	}
	said.logins.Add(1)
	p.kill()
	p = startProcess(t, dir)
	checkFolder(t, dir, p, user, &said)
	p.kill()
}
