package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// A keyModule is a module with TLS, which keys want, and a user who is asked
// for nothing.
type keyModule struct {
	t   *testing.T
	env []string // with a folder for tokens: a login for every command takes long
}

func newKeyModule(t *testing.T) *keyModule {
	t.Helper()
	cmd := exec.Command("hem", "serve", "--dev", "--http", "off", "--https", "127.0.0.1:0",
		"--unsafe-fast-login", "--login-delay", "0s", "--login-penalty", "0s")
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
	var address, ca, rest string
	if _, err := fmt.Fscanf(stdout, "ready https=%s ca=%s %s", &address, &ca, &rest); err != nil {
		t.Fatal(err)
	}
	passphrase := filepath.Join(t.TempDir(), "user")
	if err := os.WriteFile(passphrase, []byte("user"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &keyModule{t, []string{"HEM_URL=https://" + address, "HEM_CACERT=" + ca, "HEM_PASSPHRASE_FILE=" + passphrase, "XDG_STATE_HOME=" + t.TempDir()}}
}

// run is a command without a terminal that must succeed.
func (m *keyModule) run(stdin []byte, args ...string) []byte {
	m.t.Helper()
	cmd := exec.Command("hem", args...)
	cmd.Env = m.env
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("hem %v: %v\n%s", args, err, &stderr)
	}
	return out
}

// onTerminal is a command with a terminal to ask on.
func (m *keyModule) onTerminal(args ...string) *ptyRun {
	m.t.Helper()
	return onTerminalWith(m.t, m.env, func(r *ptyRun) { r.cmd.Env = append(r.cmd.Env, m.env...) }, args...)
}

// onScreen is a command whose standard output is the terminal, too.
func (m *keyModule) onScreen(columns int, args ...string) *ptyRun {
	m.t.Helper()
	return onTerminalWith(m.t, m.env, func(r *ptyRun) {
		r.cmd.Stdout, r.cmd.Env = r.slave, append(r.cmd.Env, m.env...)
		size := &unix.Winsize{Row: 40, Col: uint16(columns)}
		if err := unix.IoctlSetWinsize(int(r.slave.Fd()), unix.TIOCSWINSZ, size); err != nil {
			m.t.Fatal(err)
		}
	}, args...)
}

// lines are what stayed on the screen.
func (r *ptyRun) lines() []string {
	text := strings.ReplaceAll(r.screen(), "\r\n", "\n")
	text = regexp.MustCompile(`hem: [^\n]* \.\.\.\r\x1b\[K`).ReplaceAllString(text, "")
	text, _, _ = strings.Cut(text, "(end of the run)")
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

func TestKeyTableFitsTheTerminal(t *testing.T) {
	m := newKeyModule(t)
	kids := []string{}
	for _, args := range [][]string{
		{"--type", "ED25519", "--label", "a", "--descr", "short"},
		{"--type", "SECP521R1", "--mode", "ECDH,ExDSA", "--label", "a-label-of-thirty-two-characters", "--descr", strings.Repeat("long ", 12)},
		{"--type", "AES256", "--label", "binary", "--descr-hex", "1b5b324a00"},
		{"--type", "AES128", "--label", "wide", "--descr", "日本語のせつめい"},
	} {
		kids = append(kids, strings.TrimSpace(string(m.run(nil, append([]string{"key", "create"}, args...)...))))
	}
	for _, columns := range []int{220, 120, 100, 80, 60, 40, 25, 12} {
		r := m.onScreen(columns, "key", "list")
		r.exit(0)
		lines := r.lines()
		if len(lines) != 1+len(kids) {
			t.Fatalf("%d columns: %q", columns, lines)
		}
		for i, line := range lines {
			if n := cells(line); n > columns || !utf8.ValidString(line) {
				t.Errorf("%d columns: %d are used by %q", columns, n, line)
			}
			if strings.ContainsRune(line, '\x1b') {
				t.Errorf("%d columns: a descr reaches the terminal: %q", columns, line)
			}
			if i > 0 && !strings.HasPrefix(line, kids[i-1][:8]) {
				t.Errorf("%d columns: %q does not begin with its kid", columns, line)
			}
		}
		whole := columns >= 220
		for i, kid := range kids {
			if got := strings.Contains(lines[i+1], kid); got != whole && columns != 120 && columns != 100 {
				t.Errorf("%d columns: the kid is whole: %v: %q", columns, got, lines[i+1])
			}
		}
		if whole {
			for _, want := range []string{"KID", "LABEL", "TYPE", "CREATED", "DESCR"} {
				if !strings.Contains(lines[0], want) {
					t.Errorf("no %s in %q", want, lines[0])
				}
			}
			if !strings.Contains(lines[2], strings.TrimSpace(strings.Repeat("long ", 12))) || !strings.Contains(lines[3], "base64:G1sySgA=") {
				t.Errorf("%d columns: a descr is cut: %q", columns, lines)
			}
		}
	}

	// What the narrow table shows of a kid names the key.
	shown := m.onScreen(60, "key", "show", kids[1][:8])
	shown.exit(0)
	if !strings.Contains(shown.screen(), "a-label-of-thirty-two-characters") {
		t.Errorf("the screen shows %q", shown.screen())
	}

	// No keys, no table.
	none := m.onScreen(80, "key", "search", "nothing like it")
	none.exit(0)
	if got := none.lines(); len(got) != 1 || got[0] != "hem: there are none" {
		t.Errorf("the screen shows %q", got)
	}
}

func TestDeleteAsks(t *testing.T) {
	m := newKeyModule(t)
	m.run(nil, "key", "create", "--type", "AES256", "--label", "precious")
	m.run(nil, "key", "create", "--type", "AES128", "--label", "old")

	for _, answer := range []string{"no\n", "\n", "y\n", "\x04"} {
		r := m.onTerminal("key", "delete", "precious")
		r.waitFor("Type yes: ", 1)
		if !strings.Contains(r.screen(), "(AES256, precious)") || !strings.Contains(r.screen(), "Destroy this key?") {
			t.Errorf("the terminal shows %q", r.screen())
		}
		r.enter(answer)
		r.exit(1)
		r.waitFor("hem: nothing was deleted", 1)
	}
	r := m.onTerminal("key", "delete", "precious")
	r.waitFor("Type yes: ", 1)
	r.enter("\x03")
	r.exit(1)
	r.waitFor("hem: interrupted", 1)

	r = m.onTerminal("key", "delete", "nobody")
	r.exit(5) // without asking
	if strings.Contains(r.screen(), "Type yes") {
		t.Errorf("the terminal shows %q", r.screen())
	}
	if n := bytes.Count(m.run(nil, "key", "list"), []byte("\n")); n != 2 {
		t.Fatalf("%d keys are left", n)
	}

	r = m.onTerminal("key", "delete", "old", "precious")
	r.waitFor("Destroy these 2 keys?", 1)
	r.waitFor("Type yes: ", 1)
	r.enter("yes\n")
	r.exit(0)
	if left := m.run(nil, "key", "list"); len(left) > 0 {
		t.Errorf("left: %s", left)
	}
}

// A terminal is not steered by what was encrypted, and not flooded by what is no text.
func TestTerminalIsShownText(t *testing.T) {
	m := newKeyModule(t)
	m.run(nil, "key", "create", "--type", "AES256", "--label", "aes")
	dir := t.TempDir()
	sealed := func(name, text string, more ...string) string {
		path := filepath.Join(dir, name)
		m.run([]byte(text), append([]string{"encrypt", "aes", "-o", path}, more...)...)
		return path
	}
	const hostile = "all is well\x1b[2J"
	long := strings.Repeat("größer als der Rest\n", 5000)

	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"text":              {[]string{"decrypt", "aes", sealed("text", "all is well\n")}, 0, "all is well"},
		"envelope":          {[]string{"decrypt", "aes", sealed("long", long)}, 0, strings.ReplaceAll(long, "\n", "\r\n")},
		"hostile":           {[]string{"decrypt", "aes", sealed("hostile", hostile)}, 1, "use -o FILE, or --format base64"},
		"hostile envelope":  {[]string{"decrypt", "aes", sealed("hostile.age", hostile, "--envelope")}, 1, "use -o FILE, or --format base64"},
		"meant":             {[]string{"decrypt", "aes", sealed("meant", "\x07\n"), "--format", "raw"}, 0, "\x07"},
		"base64":            {[]string{"decrypt", "aes", sealed("b", hostile), "--format", "base64"}, 0, "YWxsIGlzIHdlbGwbWzJK"},
		"an envelope shown": {[]string{"encrypt", "aes", "--envelope", "--text", "x"}, 2, "an envelope is not for a terminal: use -o FILE"},
		"armor":             {[]string{"encrypt", "aes", "--envelope", "--text", "x", "--format", "base64"}, 0, "END AGE ENCRYPTED FILE"},
		"no data":           {[]string{"encrypt", "aes"}, 2, "there is no data: name a file, or - to type it"},
	} {
		t.Run(name, func(t *testing.T) {
			r := m.onScreen(200, c.args...)
			r.exit(c.code)
			r.waitFor(c.want, 1)
			if strings.Contains(r.screen(), "\x1b[2J") {
				t.Errorf("the terminal got %q", r.screen())
			}
		})
	}

	t.Run("typed", func(t *testing.T) {
		r := m.onScreen(80, "encrypt", "aes", "-")
		r.waitFor("type the data, then press Enter and Ctrl-D", 1)
		r.enter("hello\n\x04")
		r.exit(0)
		if !regexp.MustCompile(`\n[0-9A-Za-z+/]+=*\r\n`).MatchString(r.screen()) {
			t.Errorf("the terminal shows %q", r.screen())
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		r := m.onScreen(80, "encrypt", "aes", "-")
		r.waitFor("type the data", 1)
		r.enter("hel\x03")
		r.exit(1)
		r.waitFor("hem: interrupted", 1)
	})
}
