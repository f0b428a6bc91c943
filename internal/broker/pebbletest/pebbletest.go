// Package pebbletest runs pebble, Let's Encrypt's ACME server for tests, in a
// process of its own, with the DNS that it asks.
package pebbletest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"softhem/internal/suite"
)

// A CA is a running pebble.
type CA struct {
	Directory string         // ACME, https
	Roots     *x509.CertPool // what its certificates lead to
	CAFile    string         // PEM: whom its API's certificate is from
	TXT       string         // URL; a name follows. PUT and DELETE with a value in the body
	Client    *http.Client   // trusts its API
}

// Start runs a pebble that looks for http-01 on a port of this host, until the
// test ends. It is built from the module in testdata, and for that fetched by go
// as any dependency is; where it cannot be, the test is skipped, or fails if must.
func Start(t testing.TB, httpPort int, must bool) *CA {
	t.Helper()
	dir := t.TempDir()
	program := build(t, dir, must)
	cert, key := pair(t, dir)
	cmd := exec.Command(program, "-http-port", strconv.Itoa(httpPort), "-tls-cert", cert, "-tls-key", key)
	cmd.Env = []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=10"}
	said := &output{}
	cmd.Stderr = said
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("pebble:\n%s", said)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("pebble does not start: %v\n%s", err, said)
	}
	words := map[string]string{}
	for _, w := range strings.Fields(line) {
		k, v, _ := strings.Cut(w, "=")
		words[k] = v
	}
	raw, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(raw)
	ca := &CA{Directory: words["directory"], TXT: words["txt"], CAFile: cert, Roots: x509.NewCertPool(), Client: &http.Client{
		Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}},
	}}
	resp, err := ca.Client.Get(words["roots"])
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if raw, err = io.ReadAll(resp.Body); err != nil || !ca.Roots.AppendCertsFromPEM(raw) {
		t.Fatalf("pebble's root: %v, %q", err, raw)
	}
	return ca
}

// Hook does what a DNS hook does, in this CA's DNS.
func (ca *CA) Hook(ctx context.Context, action, name, value string) error {
	method := map[string]string{"present": http.MethodPut, "cleanup": http.MethodDelete}[action]
	req, err := http.NewRequestWithContext(ctx, method, ca.TXT+name, strings.NewReader(value))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the DNS says %s", resp.Status)
	}
	return nil
}

func build(t testing.TB, dir string, must bool) string {
	t.Helper()
	here, err := exec.Command("go", "list", "-f", "{{.Dir}}", "softhem/internal/broker/pebbletest").Output()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "pebble")
	cmd := exec.Command("go", "build", "-o", program, ".")
	cmd.Dir = filepath.Join(string(bytes.TrimSpace(here)), "testdata", "pebble")
	if out, err := cmd.CombinedOutput(); err != nil {
		text := fmt.Sprintf("pebble cannot be built: %v\n%s\nin %s, with the network: go mod download", err, out, cmd.Dir)
		if must {
			t.Fatal(text)
		}
		t.Skip(text)
	}
	return program
}

// pair is for the API's TLS.
func pair(t testing.TB, dir string) (cert, key string) {
	t.Helper()
	own, scalar := suite.RandomP256Key()
	clear(scalar)
	template := own.Authority("pebble", time.Now())
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	der, err := x509.CreateCertificate(nil, template, template, own.Signer().Public(), own.Signer())
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(own.Signer())
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "pebble.pem"), filepath.Join(dir, "pebble.key")
	for path, block := range map[string]pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(&block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// output is written while it is read.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
