package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rsc.io/qr"

	"softhem/hem"
)

// A household is the processes of a whole round: broker, module, and the
// commands of a person at each end.
type household struct {
	t   *testing.T
	p   program
	env []string
	dir string
}

// command is hem in the household's environment, without a terminal.
func (h *household) command(stdin string, args ...string) *exec.Cmd {
	cmd := exec.Command(h.p.path, args...)
	cmd.Env = h.env
	cmd.Stdin = strings.NewReader(stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// run runs hem to its end.
func (h *household) run(code int, stdin string, args ...string) (stdout, stderr string) {
	h.t.Helper()
	cmd := h.command(stdin, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	timer := time.AfterFunc(patienceOfTests, func() { cmd.Process.Kill() })
	defer timer.Stop()
	cmd.Wait()
	if cmd.ProcessState.ExitCode() != code {
		h.t.Fatalf("hem %s: %s, want exit code %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), cmd.ProcessState, code, &out, &errs)
	}
	return out.String(), errs.String()
}

// broker starts the broker; its state is kept in the household.
func (h *household) broker(addr string) *running {
	h.t.Helper()
	return startServe(h.t, h.command("", "broker", "--data", filepath.Join(h.dir, "broker"), "--http", addr, "--rate=0", "--pairing-rate=0"))
}

func (h *household) write(name, text string) string {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// The whole round with real processes: serve, broker, pair, authenticator, login
// --remote, and a signature with the granted key; then a denial, a broker that
// is killed, and the unpairing.
func testRemoteApproval(t *testing.T, p program) {
	h := &household{t: t, p: p, dir: t.TempDir()}
	h.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.dir, "TMPDIR=" + h.dir}
	b := h.broker("127.0.0.1:0")
	broker := "http://" + b.ready["http"]
	m := p.start(t, nil, "--dev", "--trusted-backend", b.ready["key"])
	h.env = append(h.env, "HEM_URL=https://"+m.ready["https"], "HEM_CACERT="+m.ready["ca"], "HEM_BROKER="+broker,
		"HEM_AUTHENTICATOR_PASSPHRASE_FILE="+h.write("keys.txt", "a passphrase"))
	user := h.write("user.txt", "user\n")

	if out, _ := h.run(0, "", "checkin"); !strings.Contains(out, "OK") {
		t.Errorf("checkin: %s", out)
	}
	h.run(5, "", "login", "--remote", "--scope", "system:config") // nobody is paired
	if _, errs := h.run(2, "", "login", "--remote", "--scope", "x", "--ttl", "1h"); !strings.Contains(errs, "--ttl") {
		t.Errorf("--remote with --ttl: %s", errs)
	}

	pairing := startServe(t, h.command("", "pair", "--passphrase-file", user))
	offer, _, _ := strings.Cut(pairing.stdout.String(), "\n")
	code, err := qr.Encode(offer, qr.L) // as hem pair shows it
	if err != nil {
		t.Fatal(err)
	}
	kid, _ := h.run(0, "", "authenticator", "pair", "--label", "desk", h.write("screenshot.png", string(code.PNG())))
	kid = strings.TrimSpace(kid)
	select {
	case <-pairing.ended:
	case <-time.After(patienceOfTests):
		t.Fatal("hem pair does not end")
	}
	if !strings.HasSuffix(pairing.stdout.String(), "paired "+kid+"\n") || !strings.Contains(pairing.stderr.String(), "▀") {
		t.Errorf("pair: %s\n%s", pairing.stdout, pairing.stderr)
	}
	if out, _ := h.run(0, "", "authenticator", "list"); !strings.Contains(out, kid) || !strings.Contains(out, "dev@") {
		t.Errorf("list: %s", out)
	}

	created, _ := h.run(0, "", "key", "create", "--type", "ED25519", "--label", "release", "--passphrase-file", user)
	key := kidIn(t, created)
	scope := "keymgmt:use:" + key
	// watch answers one request, and returns what was shown.
	watch := func(answer ...string) func() string {
		w := h.command("", append([]string{"authenticator", "watch", "--once"}, answer...)...)
		var out, errs locked
		out.first, errs.first = make(chan struct{}), make(chan struct{})
		w.Stdout, w.Stderr = &out, &errs
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			w.Wait()
			close(ended)
		}()
		t.Cleanup(func() {
			w.Process.Kill()
			<-ended
		})
		return func() string {
			select {
			case <-ended:
			case <-time.After(patienceOfTests):
				t.Fatalf("watch does not end: %s", &errs)
			}
			return out.String()
		}
	}
	shown := watch("--allow-all=15m")
	_, told := h.run(0, "", "login", "--remote", "--scope", scope)
	text := shown()
	_, digits, _ := strings.Cut(told, ": code ")
	if digits, _, _ = strings.Cut(digits, "\n"); len(digits) != 9 || !strings.Contains(text, digits) || !strings.Contains(text, "127.0.0.1, as the module saw it: its own host") {
		t.Errorf("told:\n%s\nshown:\n%s", told, text)
	}
	if !strings.Contains(text, `"release"`) || !strings.Contains(text, "use the key named") || !strings.Contains(text, " s ago\n") || !strings.Contains(text, "allowed for 15 min") {
		t.Errorf("shown:\n%s", text)
	}
	h.run(0, "message", "sign", "--alg", "Ed25519", key)

	// Less than was asked for: a disk for reading alone.
	shown = watch("--allow-all=15m", "--read-only")
	token, _ := h.run(0, "", "login", "--remote", "--scope", "storage:disk0:rw", "--print-token")
	if text := shown(); !strings.Contains(text, "for reading alone") {
		t.Errorf("shown:\n%s", text)
	}
	if got, err := hem.InspectToken(strings.TrimSpace(token)); err != nil || got.Scope != "storage:disk0" {
		t.Errorf("narrowed: %+v, %v", got, err)
	}

	shown = watch("--deny-all")
	if _, errs := h.run(4, "", "login", "--remote", "--scope", "keymgmt:gen"); !strings.Contains(errs, "denied") {
		t.Errorf("a denial: %s", errs)
	}
	if text := shown(); !strings.Contains(text, "create and derive keys") || !strings.Contains(text, "denied") {
		t.Errorf("shown:\n%s", text)
	}

	// Nobody answers in time.
	if _, errs := h.run(1, "", "login", "--remote", "--scope", "logger:get", "--timeout", "1s"); !strings.Contains(errs, "nobody answered") {
		t.Errorf("a time-out: %s", errs)
	}
	// Who asked changes their mind. Of both requests the authenticator sees
	// nothing any more: it answers the one that comes after.
	asking := h.command("", "login", "--remote", "--scope", "logger:get")
	var said locked
	said.first = make(chan struct{})
	asking.Stderr = &said
	must(t, asking.Start())
	for end := time.Now().Add(patienceOfTests); !strings.Contains(said.String(), "waiting until"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			asking.Process.Kill()
			t.Fatalf("nobody is asked: %s", &said)
		}
	}
	must(t, asking.Process.Signal(syscall.SIGINT))
	if err := asking.Wait(); err == nil {
		t.Error("a login that was interrupted succeeded")
	}
	shown = watch("--allow-all=15m")
	h.run(0, "", "login", "--remote", "--scope", "keymgmt:upd")
	if text := shown(); strings.Contains(text, "logger:get") || !strings.Contains(text, "keymgmt:upd") {
		t.Errorf("shown:\n%s", text)
	}

	// The broker is killed while somebody waits, and comes back.
	shown = watch("--allow-all=1h")
	b.cmd.Process.Kill()
	<-b.ended
	h.broker(b.ready["http"])
	h.run(0, "", "login", "--remote", "--scope", "keymgmt:list", "--note", "after the broker came back")
	shown()

	h.run(0, "", "authenticator", "unpair", kid)
	h.run(5, "", "login", "--remote", "--scope", "system:config")
	if _, errs := h.run(1, "", "authenticator", "watch", "--once", "--deny-all"); !strings.Contains(errs, "no pairing") {
		t.Errorf("watch without pairings: %s", errs)
	}
}

// kidIn finds a kid in what a command printed.
func kidIn(t *testing.T, text string) string {
	t.Helper()
	for word := range strings.FieldsSeq(text) {
		if len(word) == 32 && strings.Trim(word, "0123456789abcdef") == "" {
			return word
		}
	}
	t.Fatalf("no kid in %q", text)
	return ""
}
