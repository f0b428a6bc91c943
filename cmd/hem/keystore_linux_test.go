package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"softhem/hem"
	"softhem/internal/keystore"
)

// desktopSession starts a D-Bus session with a real GNOME Keyring in it, opened as at a
// login. The processes end with the test.
func desktopSession(t *testing.T) (stopKeyring func()) {
	t.Helper()
	for _, tool := range []string{"dbus-daemon", "gnome-keyring-daemon"} {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		}
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no " + tool + ", which .ci/run installs")
		}
		t.Skip(tool + " (of the Debian packages dbus-daemon and gnome-keyring) is not installed")
	}
	dir := t.TempDir()
	env := append(os.Environ(), "HOME="+dir, "XDG_RUNTIME_DIR="+dir, "XDG_DATA_HOME="+dir)
	start := func(stdin string, name string, args ...string) (*exec.Cmd, *bufio.Reader) {
		cmd := exec.Command(name, args...)
		cmd.Env, cmd.Stdin = env, strings.NewReader(stdin)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
			if t.Failed() {
				t.Logf("%s: %s", name, &errs)
			}
		})
		return cmd, bufio.NewReader(out)
	}
	// A bus that starts nothing by itself, so that what was ended stays ended.
	conf := filepath.Join(dir, "bus.conf")
	err := os.WriteFile(conf, []byte(`<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:tmpdir=/tmp</listen>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, out := start("", "dbus-daemon", "--config-file="+conf, "--nofork", "--nosyslog", "--print-address")
	address, err := out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	env = append(env, "DBUS_SESSION_BUS_ADDRESS="+strings.TrimSpace(address))
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", strings.TrimSpace(address))
	keyring, _ := start("login\n", "gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err = keystore.Get(t.Context(), "nothing"); errors.Is(err, keystore.ErrNone) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the keyring does not answer: %v", err)
		}
	}
	return func() {
		keyring.Process.Kill()
		keyring.Wait()
	}
}

// An authenticator whose keys the system's key store opens, with the real one.
func TestKeystoreOfTheSystem(t *testing.T) {
	stopKeyring := desktopSession(t)
	ctx, end := context.WithTimeout(t.Context(), 2*time.Minute)
	defer end()
	dir := t.TempDir()
	open := func(name string) *pairingsFile {
		return &pairingsFile{path: filepath.Join(dir, name), keystore: keystoreOS}
	}
	add := func(all *keptPairings) { all.Pairings = append(all.Pairings, hem.Pairing{PID: "x"}) }
	if err := open("a.age").change(ctx, add); err != nil {
		t.Fatal(err)
	}
	all, err := open("a.age").load(ctx)
	if err != nil || len(all.Pairings) != 1 {
		t.Fatalf("%d pairings, %v", len(all.Pairings), err)
	}
	// Each file has a passphrase of its own, and none is made for a file that has
	// another already.
	raw, err := os.ReadFile(filepath.Join(dir, "a.age"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "moved.age"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open("moved.age").load(ctx); !errors.Is(err, keystore.ErrNone) {
		t.Errorf("a file from elsewhere: %v", err)
	}
	if err := open("moved.age").change(ctx, add); !errors.Is(err, keystore.ErrNone) {
		t.Errorf("a file from elsewhere is changed: %v", err)
	}
	secret, err := keystore.Get(ctx, "authenticator "+filepath.Join(dir, "a.age"))
	if err != nil || len(secret) < 26 {
		t.Errorf("the passphrase has %d characters, %v", len(secret), err)
	}
	// Of two that make the file at once, one draws its passphrase.
	made := make(chan error)
	for range 2 {
		go func() { made <- open("both.age").change(ctx, add) }()
	}
	if err := errors.Join(<-made, <-made); err != nil {
		t.Errorf("two at once: %v", err)
	}
	if all, err := open("both.age").load(ctx); err != nil || len(all.Pairings) != 2 {
		t.Errorf("of two pairings at once there are %d, %v", len(all.Pairings), err)
	}
	// Without a key store there is a reason, and no passphrase that nobody keeps.
	stopKeyring()
	if err := open("b.age").change(ctx, add); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("without a key store: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "b.age")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was written: %v", err)
	}
}

func TestKeystoreFlag(t *testing.T) {
	o := func(env string) *options {
		return &options{t: terminal{env: func(name string) (string, bool) { return env, name == "HEM_AUTHENTICATOR_KEYSTORE" && env != "" }}}
	}
	for _, row := range []struct {
		flag keystoreFlag
		env  string
		os   bool
		bad  bool
	}{{"", "", false, false}, {"", "os", true, false}, {"file", "os", false, false}, {"os", "", true, false}, {"OS", "", false, true}, {"", "cloud", false, true}} {
		got, err := row.flag.system(o(row.env))
		if got != row.os || (err != nil) != row.bad {
			t.Errorf("%q with %q: %v, %v", row.flag, row.env, got, err)
		}
	}
	f := &pairingsFile{o: o(""), keystore: keystoreOS, passphrase: "file.txt"}
	if err := f.ask(t.Context(), ""); err == nil {
		t.Error("both a passphrase file and the key store are taken")
	}
}
