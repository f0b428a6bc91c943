package main

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A module gets a name and a certificate from a broker, which clients trust by
// the broker's CA; its operator lists and releases the name.
func testDomain(t *testing.T, p program) {
	h := &household{t: t, p: p, dir: t.TempDir()}
	h.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.dir, "TMPDIR=" + h.dir}
	data, key := filepath.Join(h.dir, "broker"), h.write("key.txt", "let-me-in\n")
	user, wrong := h.write("user.txt", "user\n"), h.write("wrong.txt", "let-me-out\n")
	h.run(1, "", "broker", "domain", "list", "--data", data) // there is none yet
	if _, errs := h.run(2, "", "broker", "--domain-key-file", key); !strings.Contains(errs, "goes with --domain") {
		t.Errorf("a key without a domain: %s", errs)
	}
	if _, errs := h.run(1, "", "broker", "--memory", "--domain", "example"); !strings.Contains(errs, "two labels") {
		t.Errorf("a domain of one label: %s", errs)
	}
	b := startServe(t, h.command("", "broker", "--data", data, "--http", "127.0.0.1:0", "--domain", "hem.example", "--domain-key-file", key))
	m := p.start(t, nil, "--dev", "--trusted-backend", b.ready["key"])
	h.env = append(h.env, "HEM_URL=https://"+m.ready["https"], "HEM_CACERT="+m.ready["ca"], "HEM_BROKER=http://"+b.ready["http"], "HEM_PASSPHRASE_FILE="+user)

	if _, errs := h.run(3, "", "config", "domain", "vault", "--domain-key-file", wrong); !strings.Contains(errs, "--domain-key-file") || strings.Contains(errs, "let-me-out") {
		t.Errorf("a wrong key: %s", errs)
	}
	h.run(0, "", "config", "domain", "vault", "--domain-key-file", key, "--ip", "192.0.2.7")
	ca, _ := h.run(0, "", "broker", "domain", "ca", "--data", data)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(ca)) {
		t.Fatalf("the CA: %q", ca)
	}
	conn, err := tls.Dial("tcp", m.ready["https"], &tls.Config{RootCAs: roots, ServerName: "vault.hem.example"})
	if err != nil {
		t.Fatalf("a client that trusts the broker's CA: %v", err)
	}
	conn.Close()
	if out, _ := h.run(0, "", "broker", "domain", "list", "--data", data); !strings.HasPrefix(out, "vault.hem.example\t") || !strings.HasSuffix(out, "\t192.0.2.7\n") {
		t.Errorf("list: %q", out)
	}
	if out, _ := h.run(0, "", "broker", "domain", "list", "--data", data, "--json"); !strings.Contains(out, `"name": "vault.hem.example"`) {
		t.Errorf("list --json: %q", out)
	}
	h.run(0, "", "broker", "domain", "release", "vault", "--data", data)
	if out, _ := h.run(0, "", "broker", "domain", "list", "--data", data); out != "" {
		t.Errorf("list after the release: %q", out)
	}
	if _, errs := h.run(1, "", "broker", "domain", "release", "vault", "--data", data); !strings.Contains(errs, "domain list") {
		t.Errorf("released again: %s", errs)
	}
}
