package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"softhem/api"
	"softhem/internal/session"
	"softhem/internal/suite"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"hem": main})
}

// TestScripts runs the client commands as a person would, in testdata/*.txtar.
// Besides testscript's own, scripts have:
//
//	module [flags]    start hem serve on loopback, without waits at logins; sets HEM_URL,
//	                  HEM_HTTP, HEM_CACERT and EID. A module that runs is ended first
//	module-ended      wait until the module's process has ended with status 0
//	broker            start a broker; sets BROKER, and BROKER_KEY for --trusted-backend
//	refuse N [text]   start a server that refuses all with status N and X-Hem-Error; sets HEM_URL
//	exits N command   like exec, but the command must exit with status N
//	mode PERM GLOB    files must be there and have these permissions
//	files N GLOB      there must be so many files
//	widen GLOB        let others read these files
//	damage GLOB       cut these files in half
//	flip FILE TEXT    change a bit of each place in a file where the text stands
//	first-word NAME F set NAME to the first word of a file
//	normal F TO       copy a file, with what differs from run to run replaced
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("XDG_STATE_HOME", env.WorkDir+"/state")
			env.Setenv("USER", "ada")
			env.Values[moduleKey{}] = &scriptModule{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"module": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Value(moduleKey{}).(*scriptModule).start(ts, args)
			},
			"module-ended": func(ts *testscript.TestScript, _ bool, _ []string) {
				ts.Value(moduleKey{}).(*scriptModule).wait(ts)
			},
			"broker": scriptBroker,
			"refuse": scriptRefuse,
			"exits":  scriptExits,
			"mode":   scriptMode,
			"files":  scriptFiles,
			"widen": func(ts *testscript.TestScript, _ bool, args []string) {
				for _, path := range glob(ts, args[0]) {
					ts.Check(os.Chmod(path, 0o644))
				}
			},
			"damage": func(ts *testscript.TestScript, _ bool, args []string) {
				for _, path := range glob(ts, args[0]) {
					info, err := os.Stat(path)
					ts.Check(err)
					ts.Check(os.Truncate(path, info.Size()/2))
				}
			},
			"flip": func(ts *testscript.TestScript, _ bool, args []string) {
				path := ts.MkAbs(args[0])
				content, err := os.ReadFile(path)
				ts.Check(err)
				if !bytes.Contains(content, []byte(args[1])) {
					ts.Fatalf("%s does not stand in %s", args[1], args[0])
				}
				changed := []byte(args[1])
				changed[len(changed)-1] ^= 1
				ts.Check(os.WriteFile(path, bytes.ReplaceAll(content, []byte(args[1]), changed), 0o600))
			},
			"first-word": func(ts *testscript.TestScript, _ bool, args []string) {
				words := strings.Fields(ts.ReadFile(args[1]))
				if len(words) == 0 {
					ts.Fatalf("%s has no words", args[1])
				}
				ts.Setenv(args[0], words[0])
			},
			"normal": scriptNormal,
		},
	})
}

type moduleKey struct{}

// A scriptModule is the module of one script.
type scriptModule struct {
	cmd    *exec.Cmd
	ended  chan error // gets what Wait returned, once
	stderr bytes.Buffer
}

const processPatience = time.Minute

func (m *scriptModule) start(ts *testscript.TestScript, args []string) {
	m.stop(ts)
	cmd := exec.Command("hem", append([]string{
		"serve", "--http", "127.0.0.1:0", "--https", "127.0.0.1:0",
		"--unsafe-fast-login", "--login-delay", "0s", "--login-penalty", "0s",
	}, args...)...)
	cmd.Dir = ts.Getenv("WORK")
	cmd.Env = []string{"HOME=" + ts.Getenv("WORK"), "TMPDIR=" + ts.Getenv("TMPDIR"), "PATH=" + ts.Getenv("PATH")}
	m.stderr.Reset()
	cmd.Stderr = &m.stderr
	stdout, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ready, ended := make(chan string, 1), make(chan error, 1)
	m.cmd, m.ended = cmd, ended
	go func() {
		line, _ := bufio.NewReader(stdout).ReadString('\n')
		ready <- line
		ended <- cmd.Wait()
	}()
	ts.Defer(func() { m.stop(ts) })

	select {
	case line := <-ready:
		if !strings.HasPrefix(line, "ready ") {
			m.cmd = nil
			ts.Fatalf("hem serve did not get ready: %v\n%s", <-ended, &m.stderr)
		}
		for word := range strings.FieldsSeq(line) {
			switch name, value, _ := strings.Cut(word, "="); name {
			case "https":
				ts.Setenv("HEM_URL", "https://"+value)
			case "http":
				ts.Setenv("HEM_HTTP", "http://"+value)
			case "ca":
				ts.Setenv("HEM_CACERT", value)
			case "eid":
				ts.Setenv("EID", value)
			}
		}
	case <-time.After(processPatience):
		ts.Fatalf("hem serve is not ready")
	}
}

// stop ends the module as an operator does.
func (m *scriptModule) stop(ts *testscript.TestScript) {
	if m.cmd != nil {
		ts.Check(m.cmd.Process.Signal(syscall.SIGTERM))
		m.wait(ts)
	}
}

func (m *scriptModule) wait(ts *testscript.TestScript) {
	process := m.cmd.Process
	m.cmd = nil
	select {
	case err := <-m.ended:
		if err != nil {
			ts.Fatalf("hem serve: %v\n%s", err, &m.stderr)
		}
	case <-time.After(processPatience):
		process.Kill()
		ts.Fatalf("hem serve does not end")
	}
}

// scriptBroker answers check-ins with the time and no orders.
func scriptBroker(ts *testscript.TestScript, _ bool, _ []string) {
	key, err := suite.NewX25519Key(bytes.Repeat([]byte{7}, suite.X25519Size))
	ts.Check(err)
	answer := func(r *http.Request) (string, error) {
		var body api.Check
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			return "", err
		}
		var check api.CheckClaims
		if _, err := session.OpenEJWT(key, body.Check, &check); err != nil {
			return "", err
		}
		qid, err := api.DecodeBase64(check.QID)
		if err != nil {
			return "", err
		}
		module, err := api.DecodeBase64(check.Iss)
		if err != nil {
			return "", err
		}
		secret, err := key.Shared(module)
		if err != nil {
			return "", err
		}
		return session.SignEJWT(secret, api.CheckedClaims{
			JTI: check.JTI, Iat: time.Now().Unix(), Iss: api.EncodeBase64(key.Public()), Aud: check.Iss,
			Status: api.EncodeBase64(suite.HMACSHA256(qid, []byte("OK"))),
		})
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		checked, err := answer(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		json.NewEncoder(w).Encode(api.Checked{Checked: checked})
	}))
	ts.Defer(server.Close)
	ts.Setenv("BROKER", server.URL)
	ts.Setenv("BROKER_KEY", api.EncodeBase64(key.Public()))
}

func scriptRefuse(ts *testscript.TestScript, _ bool, args []string) {
	status, err := strconv.Atoi(args[0])
	ts.Check(err)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(args) > 1 {
			w.Header().Set(api.HeaderError, args[1])
		}
		w.WriteHeader(status)
	}))
	ts.Defer(server.Close)
	ts.Setenv("HEM_URL", server.URL)
}

func scriptExits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		exit, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

func scriptMode(ts *testscript.TestScript, _ bool, args []string) {
	for _, path := range glob(ts, args[1]) {
		info, err := os.Stat(path)
		ts.Check(err)
		if got := fmt.Sprintf("%o", info.Mode().Perm()); got != args[0] {
			ts.Fatalf("%s has mode %s, want %s", path, got, args[0])
		}
	}
}

func scriptFiles(ts *testscript.TestScript, _ bool, args []string) {
	paths, err := filepath.Glob(ts.MkAbs(args[1]))
	ts.Check(err)
	if strconv.Itoa(len(paths)) != args[0] {
		ts.Fatalf("%d files instead of %s: %v", len(paths), args[0], paths)
	}
}

// changing is what differs from run to run or from build to build, and what
// stands for it in goldens. The first that fits wins.
var changing = []struct {
	what *regexp.Regexp
	as   string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`), "INSTANT"},
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`[A-Za-z0-9+/]{86}==`), "BASE64-64"},
	{regexp.MustCompile(`[A-Za-z0-9+/]{43}=`), "BASE64-32"},
	{regexp.MustCompile(`[A-Za-z0-9+/]{27}=`), "BASE64-20"},
	{regexp.MustCompile(`\b[0-9a-f]{32}\b`), "KID"},
	{regexp.MustCompile(`\b[0-9a-f]{16}\b`), "HEX-8"},
	{regexp.MustCompile(`\b20[0-9]{6}-[0-9]{6}\b`), "STAMP"},
	{regexp.MustCompile(`\b1[0-9]{9}\b`), "SECONDS"},
	{regexp.MustCompile(`(127\.0\.0\.1):\d+`), "$1:PORT"},
	{regexp.MustCompile(`softhem v[^\s"]+`), "softhem vVERSION"},
	{regexp.MustCompile(`go1\.[^\s"]+`), "goVERSION"},
	{regexp.MustCompile(`"uptime": \d+`), `"uptime": UPTIME`},
	{regexp.MustCompile(`(running for +)\d.*`), "${1}UPTIME"},
	{regexp.MustCompile(`("temp": |temperature +)-?\d+`), "${1}DEGREES"},
}

func scriptNormal(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	for _, c := range changing {
		text = c.what.ReplaceAllString(text, c.as)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
}

// glob finds at least one file.
func glob(ts *testscript.TestScript, pattern string) []string {
	paths, err := filepath.Glob(ts.MkAbs(pattern))
	ts.Check(err)
	if len(paths) == 0 {
		ts.Fatalf("there is no %s", pattern)
	}
	return paths
}
