package certs

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"softhem/internal/seal"
	"softhem/internal/store/sqlitestore"
)

func open(t *testing.T, edit func(*Config)) (*Manager, *time.Time) {
	t.Helper()
	db, err := sqlitestore.Open(context.Background(), sqlitestore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	now := time.Now()
	cfg := Config{
		Store: db, Sealer: seal.InMemory(), Names: []string{"localhost", "192.0.2.1"},
		Now: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler),
	}
	if edit != nil {
		edit(&cfg)
	}
	m, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m, &now
}

func leaf(t *testing.T, m *Manager) *x509.Certificate {
	t.Helper()
	c, err := m.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf
}

// A client that trusts the CA takes the leaf for its names, for as long as the
// module runs: it is renewed before its end without anybody's doing.
func TestLeafIsValidAndRenewed(t *testing.T) {
	m, now := open(t, nil)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(m.CAPEM())
	serials := make(map[string]bool)
	for range 300 { // days
		cert := leaf(t, m)
		serials[cert.SerialNumber.String()] = true
		for _, name := range []string{"localhost", "192.0.2.1"} {
			if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: *now}); err != nil {
				t.Fatalf("%s at %v: %v", name, *now, err)
			}
		}
		if got := m.Serial(); len(got) != 16 {
			t.Fatalf("serial of %d bytes", len(got))
		}
		*now = now.Add(24 * time.Hour)
	}
	if n := len(serials); n < 4 || n > 6 {
		t.Errorf("%d certificates in 300 days of leaves that live 90 and are renewed after 60", n)
	}
}

func TestRequestIsForTheModulesKey(t *testing.T) {
	m, _ := open(t, nil)
	text, err := m.Request("hem.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || len(rest) != 0 {
		t.Fatalf("not one PEM block: %s", text)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || csr.CheckSignature() != nil {
		t.Fatalf("%v, %v", err, csr.CheckSignature())
	}
	if csr.Subject.CommonName != "hem.example" || len(csr.DNSNames) != 1 {
		t.Errorf("request %+v", csr.Subject)
	}
	if got, want := string(csr.RawSubjectPublicKeyInfo), string(leaf(t, m).RawSubjectPublicKeyInfo); got != want {
		t.Error("the request is for another key than the pair's")
	}
}

// An own pair is read again on reload; what cannot be used leaves the old one.
func TestOwnPairIsReloaded(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write := func(name string) []byte {
		other, _ := open(t, func(c *Config) { c.Names = []string{name} })
		pair, err := other.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		pkcs8, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		for file, block := range map[string]*pem.Block{
			cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: pkcs8},
		} {
			if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return pair.Certificate[0]
	}
	first := write("first.example")
	m, _ := open(t, func(c *Config) { c.CertFile, c.KeyFile = cert, key })
	if m.CAPEM() != nil || string(leaf(t, m).Raw) != string(first) {
		t.Error("the own pair is not in use")
	}
	second := write("second.example")
	if string(leaf(t, m).Raw) != string(first) {
		t.Error("a pair was exchanged without a reload")
	}
	if err := m.Reload(context.Background()); err != nil || string(leaf(t, m).Raw) != string(second) {
		t.Errorf("after the reload: %v", err)
	}
	if err := os.WriteFile(cert, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Reload(context.Background()); err == nil || !strings.Contains(err.Error(), cert) {
		t.Errorf("a broken pair was taken: %v", err)
	}
	if string(leaf(t, m).Raw) != string(second) {
		t.Error("a broken pair replaced the one in use")
	}
}

func TestSerialIsSixteenBytes(t *testing.T) {
	for range 100 {
		raw := newSerial().Bytes()
		if len(raw) != 16 || raw[0]&0x80 != 0 {
			t.Fatalf("serial %x", raw)
		}
	}
}
