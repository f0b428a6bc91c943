package main

import (
	"bytes"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"softhem/internal/broker/pebbletest"
)

// A broker whose certificates come from a CA, here pebble, proves names by a hook
// program, and is killed while that waits: started again, it goes on, and the
// command that waited through it all installs the certificate.
func testACMEBroker(t *testing.T, p program) {
	ca := pebbletest.Start(t, 80, os.Getenv("CI") == "true")
	h := &household{t: t, p: p, dir: t.TempDir()}
	h.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.dir, "TMPDIR=" + h.dir}
	data, user := filepath.Join(h.dir, "broker"), h.write("user.txt", "user\n")
	master := h.write("master.txt", "master\n")
	let := filepath.Join(h.dir, "let")
	hook := h.write("hook", `#!/bin/sh
echo "$1 $2" >> `+h.dir+`/called
case "$1" in
present) while [ ! -e `+let+` ]; do sleep 0.1; done; exec curl -sS -f -X PUT --data-raw "$3" "`+ca.TXT+`$2" ;;
cleanup) exec curl -sS -f -X DELETE --data-raw "$3" "`+ca.TXT+`$2" ;;
esac
`)
	must(t, os.Chmod(hook, 0o700))
	broker := func(addr string) *running {
		return startServe(t, h.command("", "broker", "--data", data, "--http", addr, "--domain", "hem.example",
			"--acme", ca.Directory, "--acme-agree-tos", "--acme-ca", ca.CAFile, "--acme-dns-hook", hook))
	}
	for _, tc := range []struct{ args, want string }{
		{"--acme-email x@y.example", "goes with --acme"},
		{"--acme https://ca.test/dir --acme-agree-tos", "goes with --domain"},
		{"--domain hem.example --acme https://ca.test/dir", "--acme-agree-tos"},
		{"--domain hem.example --acme https://ca.test/dir --acme-agree-tos --acme-rate 0", "at least 1"},
	} {
		if _, errs := h.run(2, "", append([]string{"broker", "--memory"}, strings.Fields(tc.args)...)...); !strings.Contains(errs, tc.want) {
			t.Errorf("%s: %s", tc.args, errs)
		}
	}
	for _, args := range []string{"--acme-dns-hook /nowhere/hook", "--acme-ca /nowhere/ca.pem", "--acme http://ca.test/dir"} {
		h.run(1, "", append([]string{"broker", "--memory", "--domain", "hem.example", "--acme", "https://ca.test/dir", "--acme-agree-tos"}, strings.Fields(args)...)...)
	}
	b := broker("127.0.0.1:0")
	m := p.start(t, nil, "--memory", "--trusted-backend", b.ready["key"], "--broker", "http://"+b.ready["http"])
	h.env = append(h.env, "HEM_URL=https://"+m.ready["https"], "HEM_CACERT="+m.ready["ca"])
	h.run(0, "", "init", "--hostname", "vault.hem.example", "--user-passphrase-file", user, "--master-passphrase-file", master)

	waiting := h.command("", "config", "domain", "vault", "--passphrase-file", user)
	var errs bytes.Buffer
	waiting.Stderr = &errs
	must(t, waiting.Start())
	ended := make(chan error, 1)
	go func() { ended <- waiting.Wait() }()
	t.Cleanup(func() { _ = waiting.Process.Kill() })
	called := func(n int) func() bool {
		return func() bool {
			raw, _ := os.ReadFile(filepath.Join(h.dir, "called"))
			return strings.Count(string(raw), "present _acme-challenge.vault.hem.example\n") == n
		}
	}
	eventually(t, "the hook is called", called(1))
	must(t, b.cmd.Process.Kill())
	<-b.ended
	broker(b.ready["http"])
	eventually(t, "the hook is called again", called(2))
	if out, _ := h.run(0, "", "broker", "domain", "list", "--data", data); out != "vault.hem.example\t-\t-\tunder way\n" {
		t.Errorf("list: %q", out)
	}
	must(t, os.WriteFile(let, nil, 0o600))
	select {
	case err := <-ended:
		if err != nil {
			t.Fatalf("hem config domain: %v\n%s", err, &errs)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("hem config domain does not end")
	}
	conn, err := tls.Dial("tcp", m.ready["https"], &tls.Config{RootCAs: ca.Roots, ServerName: "vault.hem.example"})
	if err != nil {
		t.Fatalf("a client that trusts the CA: %v", err)
	}
	conn.Close()
	if out, _ := h.run(0, "", "broker", "domain", "list", "--data", data); !strings.HasSuffix(out, "\t-\tissued\n") {
		t.Errorf("list: %q", out)
	}
	if _, errs := h.run(1, "", "broker", "domain", "ca", "--data", data); !strings.Contains(errs, "without --acme") {
		t.Errorf("the CA of a broker that has none: %s", errs)
	}
}
