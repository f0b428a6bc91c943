package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
)

// Every line to paste works as it is printed, alone, and after the others.
func testServeDev(t *testing.T, p program) {
	r := p.start(t, nil, "--dev", "--dev-user-passphrase", "it's a $HOME secret", "--dev-master-passphrase", "other")
	r.pasteAll(r.devLines())

	// Loopback names only.
	req, err := http.NewRequest(http.MethodGet, "http://"+r.ready["http"]+"/api/system/status", nil)
	must(t, err)
	req.Host = "evil.example"
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("%s for a foreign name", resp.Status)
	}
	master := r.client(hem.Config{Role: api.RoleMaster, Passphrase: fixed("other")})
	if _, err := master.Login(t.Context(), api.ScopeSystemConfig); err != nil {
		t.Error(err)
	}
	r.stop()

	// The usual passphrases, other names, another way in.
	for _, args := range [][]string{{"--tls-name=hem.test"}, {"--https=off"}} {
		r = p.start(t, nil, append([]string{"--dev"}, args...)...)
		lines := r.devLines()
		if !strings.HasPrefix(lines[1], "printf %s user | ") {
			t.Error(lines[1])
		}
		r.pasteAll(lines)
		r.stop()
	}
}

// devLines are the lines to paste: curl, login, config get.
func (r *running) devLines() []string {
	t := r.t
	t.Helper()
	r.says("Ctrl-C ends it")
	said := r.stderr.String()
	var lines []string
	for _, word := range []string{"curl ", "login", "config get"} {
		line := regexp.MustCompile(`(?m)^  (.*\b` + word + `.*)$`).FindStringSubmatch(said)
		if line == nil {
			t.Fatalf("no line with %s in\n%s", word, said)
		}
		lines = append(lines, line[1])
	}
	return lines
}

// pasteAll runs the lines as they are, each in a home that is empty, and the
// last one after the others too.
func (r *running) pasteAll(lines []string) {
	t := r.t
	t.Helper()
	paste := func(home, line string) string {
		t.Helper()
		cmd := exec.Command("sh", "-c", line)
		cmd.Dir = home
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("%s: %v\n%s%s", line, err, out, &stderr)
		}
		return string(out)
	}
	if _, err := exec.LookPath("curl"); err == nil {
		if out := paste(t.TempDir(), lines[0]); !strings.Contains(out, `"jti"`) || !strings.Contains(out, r.ready["eid"]) {
			t.Errorf("%s: %s", lines[0], out)
		}
	} else {
		t.Log("there is no curl here, so its line was not tried")
	}
	together := t.TempDir()
	paste(together, lines[1])
	for _, home := range []string{together, t.TempDir()} {
		if out := paste(home, lines[2]); !strings.Contains(out, r.ready["eid"]) || !strings.Contains(out, devUserName) {
			t.Errorf("%s: %s", lines[2], out)
		}
	}
}

func fixed(passphrase string) func(context.Context, api.Role) ([]byte, error) {
	return func(context.Context, api.Role) ([]byte, error) { return []byte(passphrase), nil }
}

func testServeDevWords(t *testing.T, p program) {
	if text := p.fails(t, 2, nil, "--dev", "--data", t.TempDir()); !strings.Contains(text, "--dev keeps its state in memory") {
		t.Error(text)
	}
	if text := p.fails(t, 1, nil, "--dev", "--https", "0.0.0.0:0"); !strings.Contains(text, "a development module listens on loopback only") {
		t.Error(text)
	}
	if text := p.fails(t, 1, nil, "--dev", "--diag", "--dev-allow-remote", "--https", "0.0.0.0:0"); !strings.Contains(text, "add --diag-allow-remote") {
		t.Error(text)
	}
	r := p.start(t, nil, "--dev", "--dev-allow-remote", "--diag", "--diag-allow-remote", "--https", "0.0.0.0:0")
	r.says("UNSAFE: these diagnostics can be reached from elsewhere")
	r.says("UNSAFE: this development module can be reached from elsewhere")
	r.says("https://localhost:")
	r.stop()
	r = p.start(t, nil, "--dev", "--https=off")
	r.says("URL                    http://127.0.0.1:")
	r.stop()
}

// With its clock set by check-ins, a development module has a backend to start
// with, beside those it was told of.
func testServeDevCheckin(t *testing.T, p program) {
	for _, args := range [][]string{nil, {"--trusted-backend", backend}} {
		r := p.start(t, nil, append([]string{"--dev", "--rtc", "checkin"}, args...)...)
		r.says("Ctrl-C ends it")
		url := regexp.MustCompile(`backend for check-ins +(http://127\.0\.0\.1:\d+)\n`).FindStringSubmatch(r.stderr.String())
		if url == nil {
			t.Fatal("no backend is named")
		}
		login := func() error {
			_, err := r.client(hem.Config{Passphrase: fixed("user")}).Login(t.Context(), api.ScopeSystemConfig)
			return err
		}
		must(t, r.client(hem.Config{Passphrase: fixed("user")}).Reboot(t.Context()))
		eventually(t, "the clock is not set after a reboot", func() bool { return hasStatus(login(), http.StatusForbidden) })
		result, err := r.client(hem.Config{}).CheckIn(t.Context(), url[1])
		if err != nil || result.Status != "OK" {
			t.Error(result, err)
		}
		must(t, login())
		resp, err := http.Post(url[1]+"/checkin", "application/json", strings.NewReader(`{"check":"a.b.c"}`))
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Error(resp.Status)
		}
		r.stop()
	}
}

func hasStatus(err error, status int) bool {
	refused, ok := errors.AsType[*api.Error](err)
	return ok && refused.Status == status
}

// A development module with a broker inside checks in with it, trusts it, and is
// paired and approved for through it; the lines it prints lead there.
func testServeWithBroker(t *testing.T, p program) {
	if text := p.fails(t, 1, nil, "--dev", "--with-broker=0.0.0.0:0"); !strings.Contains(text, "--dev-allow-remote") {
		t.Error(text)
	}
	r := p.start(t, nil, "--dev", "--rtc", "checkin", "--with-broker=127.0.0.1:0")
	url := r.ready["broker"]
	r.says("broker                 " + url)
	r.says("login --remote")
	user := r.client(hem.Config{Passphrase: fixed("user")})
	result, err := user.CheckIn(t.Context(), url)
	if err != nil || result.Status != "OK" {
		t.Fatal(result, err)
	}
	if named, err := r.client(hem.Config{}).BrokerURL(t.Context()); err != nil || named != url {
		t.Errorf("the module names %q, %v", named, err)
	}
	b, err := hem.NewBroker(hem.BrokerConfig{URL: url, Poll: 5 * time.Second})
	must(t, err)
	var pairing *hem.Pairing
	_, err = user.Pair(t.Context(), b, hem.PairParams{Show: func(offer string, _ time.Time) {
		var proven bool
		pairing, proven, err = hem.AcceptPairing(t.Context(), hem.BrokerConfig{}, offer, "desk")
		if err != nil || !proven {
			t.Errorf("proven %v, %v", proven, err)
		}
	}})
	must(t, err)
	a, err := hem.NewAuthenticator(*pairing, hem.BrokerConfig{Poll: 5 * time.Second})
	must(t, err)
	defer a.Close()
	allowed := make(chan error, 1)
	token, err := r.client(hem.Config{}).LoginRemote(t.Context(), b, hem.RemoteParams{Scope: api.ScopeSystemConfig, Waiting: func(int, time.Time) {
		go func() {
			asked, err := a.Requests(t.Context())
			if err == nil && len(asked) != 1 {
				err = fmt.Errorf("%d requests", len(asked))
			}
			if err == nil {
				err = a.Allow(t.Context(), asked[0], time.Hour, "")
			}
			allowed <- err
		}()
	}})
	must(t, <-allowed)
	if err != nil || token.Scope != api.ScopeSystemConfig {
		t.Error(token, err)
	}
	r.stop()
}
