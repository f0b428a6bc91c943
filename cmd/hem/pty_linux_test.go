package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A ptyRun is hem running on a terminal of its own.
type ptyRun struct {
	t      *testing.T
	master *os.File // our end of the terminal
	slave  *os.File // the end of the program
	cmd    *exec.Cmd

	mu    sync.Mutex
	shown bytes.Buffer // what the terminal shows
}

// onTerminal starts hem with a pseudo terminal as its controlling terminal and
// standard error; standard output is left out.
func onTerminal(t *testing.T, env []string, args ...string) *ptyRun {
	t.Helper()
	return onTerminalWith(t, env, func(*ptyRun) {}, args...)
}

// onTerminalWith is onTerminal with something done before the start.
func onTerminalWith(t *testing.T, env []string, before func(*ptyRun), args ...string) *ptyRun {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no pseudo terminals here:", err)
	}
	r := &ptyRun{t: t, master: master}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if r.slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	r.cmd = exec.Command("hem", args...)
	r.cmd.Env = append(env, "PATH="+os.Getenv("PATH"), "XDG_STATE_HOME="+t.TempDir())
	r.cmd.Stdin, r.cmd.Stderr = r.slave, r.slave
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	before(r)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.cmd.Process.Kill()
		r.cmd.Wait()
		r.slave.Close()
		r.master.Close()
	})
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			r.mu.Lock()
			r.shown.Write(buf[:n])
			r.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return r
}

func (r *ptyRun) screen() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.shown.String()
}

// waitFor returns once the terminal has shown text n times.
func (r *ptyRun) waitFor(text string, n int) {
	r.t.Helper()
	for end := time.Now().Add(processPatience); strings.Count(r.screen(), text) < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("the terminal does not show %q: %q", text, r.screen())
		}
	}
}

func (r *ptyRun) enter(text string) {
	r.t.Helper()
	if _, err := r.master.WriteString(text); err != nil {
		r.t.Fatal(err)
	}
}

func (r *ptyRun) echoes() bool {
	r.t.Helper()
	state, err := unix.IoctlGetTermios(int(r.slave.Fd()), unix.TCGETS)
	if err != nil {
		r.t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

func (r *ptyRun) exit(code int) {
	r.t.Helper()
	r.cmd.Wait()
	// What the program wrote may still be on its way; what is written after it
	// comes after it.
	const end = "(end of the run)"
	if _, err := r.slave.WriteString(end); err != nil {
		r.t.Fatal(err)
	}
	r.waitFor(end, 1)
	if got := r.cmd.ProcessState.ExitCode(); got != code {
		r.t.Errorf("exit status %d, want %d: %q", got, code, r.screen())
	}
	if !r.echoes() {
		r.t.Error("the terminal is left without echo")
	}
}

// plainModule starts a module and returns the environment to reach it.
func plainModule(t *testing.T, flag string) []string {
	t.Helper()
	cmd := exec.Command("hem", "serve", flag, "--http", "127.0.0.1:0", "--https", "off")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	var address, rest string
	if _, err := fmt.Fscanf(stdout, "ready http=%s %s", &address, &rest); err != nil {
		t.Fatal(err)
	}
	return []string{"HEM_URL=http://" + address}
}

func TestPassphrasePrompt(t *testing.T) {
	env := plainModule(t, "--dev")

	t.Run("no echo", func(t *testing.T) {
		r := onTerminal(t, env, "login", "--scope", "logger:get")
		r.waitFor("Passphrase of the user for "+strings.TrimPrefix(env[0], "HEM_URL=")+": ", 1)
		if r.echoes() {
			t.Error("the terminal echoes while the prompt stands")
		}
		r.enter("user\n")
		r.exit(0)
		screen := r.screen()
		_, after, _ := strings.Cut(screen, ": ")
		if first, _, _ := strings.Cut(after, "\n"); strings.Trim(first, "\r") != "" {
			t.Errorf("after the prompt the terminal shows %q", first)
		}
		for _, want := range []string{"hem: deriving the key from the passphrase ...", "hem: logging in ...", "\r\x1b[K", "hem: logged in"} {
			if !strings.Contains(screen, want) {
				t.Errorf("the terminal does not show %q: %q", want, screen)
			}
		}
		if !strings.Contains(screen, "\r\x1b[Khem: logged in") {
			t.Errorf("the progress is not taken away: %q", screen)
		}
	})

	t.Run("interrupted", func(t *testing.T) {
		r := onTerminal(t, env, "login", "--scope", "logger:get")
		r.waitFor("Passphrase of the user", 1)
		r.enter("hunter2\x03")
		r.exit(1)
		if screen := r.screen(); strings.Contains(screen, "hunter2") || !strings.Contains(screen, "hem: interrupted") {
			t.Errorf("the terminal shows %q", screen)
		}
	})

	t.Run("wrong", func(t *testing.T) {
		r := onTerminal(t, env, "config", "get", "--role", "master")
		r.waitFor("Passphrase of the master", 1)
		r.enter("hunter2\n")
		r.exit(3)
		if strings.Contains(r.screen(), "hunter2") {
			t.Errorf("the terminal shows %q", r.screen())
		}
	})

	t.Run("no terminal", func(t *testing.T) {
		cmd := exec.Command("hem", "login", "--scope", "logger:get")
		cmd.Env = append(env, "XDG_STATE_HOME="+t.TempDir())
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != 2 || !bytes.Contains(out, []byte("--passphrase-file FILE")) {
			t.Errorf("exit status %d: %s", code, out)
		}
		if bytes.ContainsRune(out, '\x1b') || bytes.Contains(out, []byte("...")) {
			t.Errorf("progress without a terminal: %q", out)
		}
	})
}

func TestInitPrompts(t *testing.T) {
	env := plainModule(t, "--memory")

	r := onTerminal(t, env, "init")
	r.waitFor("New passphrase of the user: ", 1)
	r.enter("correct horse battery\n")
	r.waitFor("The same again: ", 1)
	r.enter("correct horse bakery\n")
	r.exit(1)
	r.waitFor("the two entries of the user's passphrase differ", 1)

	r = onTerminal(t, env, "init")
	for i, persona := range []string{"user", "master"} {
		r.waitFor("New passphrase of the "+persona+": ", 1)
		r.enter("the " + persona + "'s passphrase\n")
		r.waitFor("The same again: ", i+1)
		r.enter("the " + persona + "'s passphrase\n")
	}
	r.exit(0)
	if strings.Contains(r.screen(), "'s passphrase") {
		t.Errorf("the terminal shows %q", r.screen())
	}

	r = onTerminal(t, env, "init")
	r.exit(5) // before anyone has to think of passphrases
	if strings.Contains(r.screen(), "New passphrase") {
		t.Errorf("the terminal shows %q", r.screen())
	}
}

func TestWipeAndPasswdPrompts(t *testing.T) {
	env := plainModule(t, "--dev")

	r := onTerminal(t, env, "passwd")
	r.waitFor("Passphrase of the user", 1)
	r.enter("user\n")
	r.waitFor("New passphrase of the user: ", 1)
	if r.echoes() {
		t.Error("the terminal echoes while the prompt stands")
	}
	r.enter("another passphrase\n")
	r.waitFor("The same again: ", 1)
	r.enter("another passphrase\n")
	r.exit(0)
	if strings.Contains(r.screen(), "another passphrase\r") {
		t.Errorf("the terminal shows %q", r.screen())
	}

	wipe := func(typed string, code int, says string) {
		t.Helper()
		r := onTerminal(t, env, "wipe", "--role", "master")
		r.waitFor("Passphrase of the master", 1)
		r.enter("master\n")
		r.waitFor("Type its host name, localhost, to do so: ", 1)
		r.enter(typed)
		r.exit(code)
		r.waitFor(says, 1)
	}
	wipe("yes\n", 1, "not the module's host name: nothing was done")
	wipe("\x03", 1, "interrupted")
	wipe("localhost\n", 0, "was wiped")
}
