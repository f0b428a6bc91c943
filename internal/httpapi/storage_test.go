package httpapi_test

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/audit"
)

const (
	pathUnlock   = "/api/storage/unlock"
	pathUnlockRW = "/api/storage/unlock/rw"
	pathUnlockRO = "/api/storage/unlock/ro"
	pathLock     = "/api/storage/lock"

	sizeShown = "8388608:" // of both disks of a fresh module
)

// disks checks what the status shows, and that the sockets are as it says.
func (k *keeper) disks(want0, want1 string) {
	k.t.Helper()
	var s api.Status
	k.get("/api/system/status", &s)
	if want := []string{sizeShown + want0, sizeShown + want1}; !slices.Equal(s.Storage, want) {
		k.t.Errorf("the status shows %v, want %v", s.Storage, want)
	}
	for n, mode := range []string{want0, want1} {
		conn, err := k.attach(n)
		if (err == nil) != (mode != "-") {
			k.t.Errorf("disk %d is %s, and attaching it: %v", n, mode, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

// attach connects to a disk and waits for its greeting.
func (k *keeper) attach(n int) (net.Conn, error) {
	k.t.Helper()
	// Beside the CA: the data folder, or what a module in memory has instead.
	conn, err := net.Dial("unix", filepath.Join(filepath.Dir(k.module.CAFile), []string{"disk0.sock", "disk1.sock"}[n]))
	if err != nil {
		return nil, err
	}
	k.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	greeting := make([]byte, 18)
	if _, err := io.ReadFull(conn, greeting); err != nil {
		return nil, err
	}
	if string(greeting[:8]) != "NBDMAGIC" {
		k.t.Fatalf("disk %d greets with %q", n, greeting)
	}
	return conn, nil
}

// cutOff checks that the other end has gone.
func cutOff(t *testing.T, when string, conn net.Conn) {
	t.Helper()
	if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: still attached (%v)", when, err)
	}
}

func (k *keeper) storage(path, scope string, status int) {
	k.t.Helper()
	a := k.do(request{method: "GET", path: path, token: k.as(api.RoleUser, scope)})
	if k.want(path+" with "+scope, a, status); len(a.body) > 0 {
		k.t.Errorf("%s answers %q", path, a.body)
	}
}

// T130: a disk is opened by a token for this disk, and for writing by one that
// says so to the last byte; nobody opens one as administrator, and no scope
// opens a disk whose number it only begins with.
func TestThreat_T130_DisksAreOpenedByTheirScope(t *testing.T) {
	k := newKeeper(t, nil)
	for _, c := range []struct {
		scope                    string
		unlock, rw, ro, lock     int
		afterUnlock, afterEither string // mode of disk 1
	}{
		{"storage:disk1", 200, 406, 200, 200, "ro", "ro"},
		{"storage:disk1:rw", 200, 200, 200, 200, "rw", "ro"},
		{"storage:disk1:rw:more", 200, 406, 200, 200, "ro", "ro"},
		{"storage:disk1:RW", 200, 406, 200, 200, "ro", "ro"},
		{"storage:disk1:r", 200, 406, 200, 200, "ro", "ro"},
		{"storage:disk1rw", 200, 406, 200, 200, "ro", "ro"},
		{"storage:disk1 for the backup", 200, 406, 200, 200, "ro", "ro"},
		{"storage:disk10", 406, 406, 406, 406, "-", "-"},
		{"storage:disk10:rw", 406, 406, 406, 406, "-", "-"},
		{"storage:disk2:rw", 406, 406, 406, 406, "-", "-"},
		{"storage:disk", 406, 406, 406, 406, "-", "-"},
		{"storage:disk:rw", 406, 406, 406, 406, "-", "-"},
		{"storage:disk-1", 406, 406, 406, 406, "-", "-"},
		{"storage:disk 1:rw", 406, 406, 406, 406, "-", "-"},
		{"storage:dis", 403, 403, 403, 403, "-", "-"},
		{"storage:Disk1:rw", 403, 403, 403, 403, "-", "-"},
		{"storage:", 403, 403, 403, 403, "-", "-"},
		{"system:config", 403, 403, 403, 403, "-", "-"},
		{" storage:disk1", 403, 403, 403, 403, "-", "-"},
	} {
		k.storage(pathUnlock, c.scope, c.unlock)
		k.disks("ro", c.afterUnlock)
		k.storage(pathUnlockRW, c.scope, c.rw)
		k.storage(pathUnlockRO, c.scope, c.ro)
		k.disks("ro", c.afterEither)
		k.storage(pathLock, c.scope, c.lock)
		k.disks("ro", "-")
		for _, path := range []string{pathUnlock, pathUnlockRW, pathUnlockRO, pathLock} {
			k.expect("GET", path, k.as(api.RoleMaster, c.scope), 403)
		}
	}
}

// Unlocking, changing and locking, and what of it is recorded. The same again
// leaves who has the disk attached alone.
func TestStorage(t *testing.T) {
	k := newKeeper(t, nil)
	k.disks("ro", "-") // storage_mode 81
	for _, step := range []struct{ path, scope, after0, after1, arg string }{
		{pathLock, "storage:disk0", "-", "-", "disk0:-"},
		{pathLock, "storage:disk0", "-", "-", "disk0:-"},
		{pathUnlock, "storage:disk1:rw", "-", "rw", "disk1:rw"},
		{pathUnlockRW, "storage:disk1:rw", "-", "rw", "disk1:rw"},
		{pathUnlock, "storage:disk0", "ro", "rw", "disk0:ro"},
		{pathUnlockRO, "storage:disk1:rw", "ro", "ro", "disk1:ro"},
		{pathUnlockRW, "storage:disk0:rw", "rw", "ro", "disk0:rw"},
		{pathLock, "storage:disk1", "rw", "-", "disk1:-"},
		{pathLock, "storage:disk0", "-", "-", "disk0:-"},
		{pathUnlock, "storage:disk1", "-", "ro", "disk1:ro"},
	} {
		k.storage(step.path, step.scope, 200)
		k.disks(step.after0, step.after1)
	}
	conn, err := k.attach(1)
	if err != nil {
		t.Fatal(err)
	}
	k.storage(pathUnlock, "storage:disk1", 200)
	if _, err := conn.Write([]byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x03\x00\x00\x00\x00")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 20)); err != nil {
		t.Error("the same again cut the client off", err)
	}
	k.storage(pathUnlockRW, "storage:disk1", 406)
	k.storage(pathUnlock, "storage:disk7", 406)

	var got []string
	for _, e := range k.lastBoot() {
		if e.Type == audit.ConfigUpdated {
			got = append(got, line(e.Type, e.Result, e.Who, string(e.Arg)))
		}
	}
	want := []string{
		"disk0:-", "disk0:-", "disk1:rw", "disk1:rw", "disk0:ro", "disk1:ro", "disk0:rw", "disk1:-", "disk0:-", "disk1:ro", "disk1:ro",
	}
	for i := range want {
		want[i] = line(audit.ConfigUpdated, audit.OK, "U", want[i])
	}
	want = append(want, line(audit.ConfigUpdated, audit.Failed, "U", "disk1:rw"), line(audit.ConfigUpdated, audit.Failed, "U", "storage:disk"))
	if !slices.Equal(got, want) {
		t.Errorf("recorded\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// T131: a reboot locks disk 1 and brings disk 0 back as the configuration says,
// with the sizes it says.
func TestThreat_T131_DisksAreLockedAtBoot(t *testing.T) {
	k := newKeeper(t, nil)
	k.storage(pathUnlock, "storage:disk1:rw", 200)
	k.storage(pathUnlock, "storage:disk0:rw", 200)
	zero, err0 := k.attach(0)
	one, err1 := k.attach(1)
	if err := errors.Join(err0, err1); err != nil {
		t.Fatal(err)
	}
	k.reboot()
	cutOff(t, "after a reboot", zero)
	cutOff(t, "after a reboot", one)
	k.disks("ro", "-")

	update := func(body string) {
		t.Helper()
		a := k.do(request{method: "POST", path: "/api/system/config", token: k.as(api.RoleUser, api.ScopeSystemConfig), body: body})
		var u api.ConfigUpdated
		if err := json.Unmarshal(a.body, &u); err != nil || !u.RebootRequired {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	update(`{"storage_mode":80}`)
	k.disks("ro", "-") // until the reboot
	k.reboot()
	k.disks("-", "-")
	update(`{"storage_disk0size":16}`)
	k.disks("-", "-")
	k.reboot()
	var s api.Status
	if k.get("/api/system/status", &s); !slices.Equal(s.Storage, []string{"16:-", "16777200:-"}) {
		t.Errorf("after a change of the size: %v", s.Storage)
	}
	update(`{"storage_disk0size":0,"storage_mode":81}`)
	k.reboot()
	if k.get("/api/system/status", &s); !slices.Equal(s.Storage, []string{"0:-", "16777216:-"}) {
		t.Errorf("without disk 0: %v", s.Storage)
	}
	k.storage(pathUnlock, "storage:disk0", 409)
}

// T132: in a fail state there is no storage. Who has a disk attached is cut off
// at the next command, and nothing opens one again before a reboot.
func TestThreat_T132_NoStorageInAFailState(t *testing.T) {
	k := newKeeper(t, &hemtest.Options{Diag: true})
	k.storage(pathUnlock, "storage:disk1:rw", 200)
	conn, err := k.attach(1)
	if err != nil {
		t.Fatal(err)
	}
	// Attached, and one read that is answered.
	if _, err := conn.Write([]byte("\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x00")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	read := "\x25\x60\x95\x13\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x08"
	if _, err := io.WriteString(conn, read); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 16+8)); err != nil {
		t.Fatal(err)
	}
	config := k.as(api.RoleUser, api.ScopeSystemConfig)
	k.expect("GET", "/api/diag/break_temp", nil, 200)
	if k.failState() == 0 {
		t.Fatal("not in a fail state")
	}
	k.disks("-", "-")
	if _, err := io.WriteString(conn, read); err == nil {
		cutOff(t, "in a fail state", conn)
	}
	for _, path := range []string{pathUnlock, pathUnlockRO, pathUnlockRW, pathLock} {
		k.storage(path, "storage:disk1:rw", 409)
	}
	k.expect("GET", "/api/system/reboot", config, 200)
	clear(k.tokens.held)
	k.disks("ro", "-")
	k.storage(pathUnlock, "storage:disk1:rw", 200)
	k.disks("ro", "rw")
}

// T133: an order to lock or to block the module, and a wipe, take the disks away
// from who has them attached.
func TestThreat_T133_OrdersAndWipesTakeTheDisks(t *testing.T) {
	for _, what := range []string{"L", "B", "W", "wipeout"} {
		t.Run(what, func(t *testing.T) {
			b := newBackend()
			k := newKeeper(t, &hemtest.Options{TrustedBackends: [][]byte{b.key.Public()}})
			k.storage(pathUnlock, "storage:disk1:rw", 200)
			zero, err0 := k.attach(0)
			one, err1 := k.attach(1)
			if err := errors.Join(err0, err1); err != nil {
				t.Fatal(err)
			}
			if what == "wipeout" {
				k.want(what, k.do(request{method: "POST", path: "/api/system/config", token: k.as(api.RoleUser, api.ScopeSystemConfig), body: `{"wipeout":true}`}), 200)
			} else if got := ownerOf(t, b, k).order(t, k.peer, what); got != what {
				t.Fatal(got)
			}
			cutOff(t, what, zero)
			cutOff(t, what, one)
			switch what {
			case "L":
				k.disks("-", "-")
			case "B":
				if _, err := k.attach(0); err == nil {
					t.Error("a blocked module serves a disk")
				}
			}
		})
	}
}
