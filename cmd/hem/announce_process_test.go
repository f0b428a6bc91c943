package main

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/suite"
)

// testAnnounce has a broker announce a program and a console to a module.
func testAnnounce(t *testing.T, p program) {
	ctx, home := context.Background(), t.TempDir()
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(p.path, append([]string{"broker", "--memory", "--http", "127.0.0.1:0"}, args...)...)
		cmd.Env = []string{"HOME=" + home}
		return cmd
	}
	b := startServe(t, command("--announce-fws", api.EncodeBase64(suite.Random(64)), "--announce-uis", api.EncodeBase64(suite.Random(32))))
	m := p.start(t, nil, "--memory", "--trusted-backend", b.ready["key"])
	got, err := m.client(hem.Config{}).CheckIn(ctx, "http://"+b.ready["http"])
	must(t, err)
	if *got != (api.CheckinResult{Status: "OK", NewFWS: "OK", NewUIS: "OK"}) {
		t.Errorf("%+v", got)
	}
	m.says("announces something to upgrade to")
	out, err := exec.Command(p.path, "--url", "https://"+m.ready["https"], "--cacert", m.ready["ca"], "checkin", "--broker", "http://"+b.ready["http"], "--json").Output()
	if err != nil || !strings.Contains(string(out), `"newfws": "OK"`) {
		t.Errorf("%s, %v", out, err)
	}
	for _, args := range [][]string{{"--announce-fws", "AAAA"}, {"--announce-uis", api.EncodeBase64(make([]byte, 64))}, {"--announce-uis", "!"}} {
		cmd := command(args...)
		if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 2 {
			t.Errorf("%v: %v", args, err)
		}
	}
}
