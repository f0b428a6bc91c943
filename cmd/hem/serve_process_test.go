package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"softhem/hem"
)

// program is the built hem.
type program struct{ path string }

const patienceOfTests = 30 * time.Second

// command is hem serve in an environment of its own, on ports of its own,
// without a terminal.
func (p program) command(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(p.path, append([]string{"serve", "--http=127.0.0.1:0", "--https=127.0.0.1:0"}, args...)...)
	home := t.TempDir()
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// fails runs a hem serve that must not come up, and returns what it says.
func (p program) fails(t *testing.T, code int, env []string, args ...string) string {
	t.Helper()
	cmd := p.command(t, env, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(patienceOfTests, func() { cmd.Process.Kill() })
	defer timer.Stop()
	cmd.Wait()
	if cmd.ProcessState.ExitCode() != code || stdout.Len() > 0 {
		t.Fatalf("%s, want exit code %d\nstdout: %s\nstderr: %s", cmd.ProcessState, code, &stdout, &stderr)
	}
	return stderr.String()
}

// running is a hem serve that came up.
type running struct {
	t      testing.TB
	cmd    *exec.Cmd
	ready  map[string]string // the ready line
	stdout *locked
	stderr *locked
	ended  chan struct{}
}

// locked is a buffer that is written and read at once.
type locked struct {
	sync.Mutex
	buf   bytes.Buffer
	first chan struct{} // closed after the first whole line
	once  sync.Once
}

func (l *locked) Write(b []byte) (int, error) {
	l.Lock()
	defer l.Unlock()
	l.buf.Write(b)
	if bytes.Contains(l.buf.Bytes(), []byte("\n")) {
		l.once.Do(func() { close(l.first) })
	}
	return len(b), nil
}

func (l *locked) String() string {
	l.Lock()
	defer l.Unlock()
	return l.buf.String()
}

func (p program) start(t *testing.T, env []string, args ...string) *running {
	t.Helper()
	return startServe(t, p.command(t, env, args...))
}

func startServe(t testing.TB, cmd *exec.Cmd) *running {
	t.Helper()
	r := &running{
		t: t, cmd: cmd, ended: make(chan struct{}), ready: make(map[string]string),
		stdout: &locked{first: make(chan struct{})}, stderr: &locked{first: make(chan struct{})},
	}
	cmd.Stdout, cmd.Stderr = r.stdout, r.stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		cmd.Wait()
		close(r.ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-r.ended
		if t.Failed() {
			t.Logf("stderr:\n%s", r.stderr)
		}
	})
	select {
	case <-r.stdout.first:
	case <-r.ended:
		t.Fatalf("%s before it was ready", cmd.ProcessState)
	case <-time.After(patienceOfTests):
		t.Fatal("not ready")
	}
	words := strings.Fields(r.stdout.String())
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		r.ready[k] = v
	}
	return r
}

func (r *running) signal(s os.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

// waitEnd wants the process to end with the exit code. Nothing but the ready
// line may have gone to its standard output.
func (r *running) waitEnd(code int) {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(patienceOfTests):
		r.t.Fatal("it does not end")
	}
	if r.cmd.ProcessState.ExitCode() != code {
		r.t.Errorf("%s, want exit code %d", r.cmd.ProcessState, code)
	}
	if out := r.stdout.String(); strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, "ready ") {
		r.t.Errorf("stdout: %q", out)
	}
}

// stop ends it as an operator does.
func (r *running) stop() {
	r.t.Helper()
	r.signal(syscall.SIGTERM)
	r.waitEnd(0)
}

// says waits for a text on standard error.
func (r *running) says(text string) {
	r.t.Helper()
	eventually(r.t, "standard error says "+text, func() bool { return strings.Contains(r.stderr.String(), text) })
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patienceOfTests); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

func (r *running) client(cfg hem.Config) *hem.Client {
	r.t.Helper()
	var err error
	if cfg.CACert, err = os.ReadFile(r.ready["ca"]); err != nil {
		r.t.Fatal(err)
	}
	cfg.URL = "https://" + r.ready["https"]
	c, err := hem.New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.Close)
	return c
}

// privateTemp is a folder that may hold a module's state.
func privateTemp(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}
