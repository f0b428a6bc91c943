package certs

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"softhem/internal/seal"
	"softhem/internal/store"
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
	// Beside the files nothing can be installed, not even the same.
	commit := func(func(context.Context, store.Tx) error) error {
		t.Error("a pair was kept that would not be used")
		return nil
	}
	if err := m.Install(nil, [][]byte{second}, 1, commit); !errors.Is(err, ErrRefused) || string(leaf(t, m).Raw) != string(second) {
		t.Errorf("a pair beside the operator's: %v", err)
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

// An installed pair stays in use over restarts, is not renewed and not replaced
// because of its names; the operator's files win, and when they are taken away it
// is there again. What cannot be kept is not used.
func TestInstalledPairStays(t *testing.T) {
	ctx := context.Background()
	var cfg Config
	m, now := open(t, func(c *Config) { cfg = *c })
	first := leaf(t, m)
	other, _ := open(t, nil) // a pair of another module, key and all
	pair, chain := other.pair, other.pair.Chain
	keep := func(save func(context.Context, store.Tx) error) error {
		return cfg.Store.Update(ctx, func(tx store.Tx) error { return save(ctx, tx) })
	}
	failed := errors.New("no room")
	for name, tc := range map[string]struct {
		scalar []byte
		chain  [][]byte
		commit func(func(context.Context, store.Tx) error) error
		want   error
	}{
		"another key":     {nil, chain, keep, ErrRefused},
		"no certificate":  {pair.Scalar, nil, keep, ErrRefused},
		"rubbish":         {pair.Scalar, [][]byte{{1, 2}}, keep, ErrRefused},
		"no scalar":       {make([]byte, 32), chain, keep, ErrRefused},
		"cannot be kept":  {pair.Scalar, chain, func(func(context.Context, store.Tx) error) error { return failed }, failed},
		"wrong chain end": {pair.Scalar, [][]byte{first.Raw}, keep, ErrRefused},
	} {
		if err := m.Install(tc.scalar, tc.chain, 100, tc.commit); !errors.Is(err, tc.want) || !leaf(t, m).Equal(first) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
		if _, ok := m.Installed(); ok {
			t.Errorf("%s: shown as installed", name)
		}
	}
	if err := m.Install(pair.Scalar, chain, 100, keep); err != nil {
		t.Fatal(err)
	}
	shown, ok := m.Installed()
	if !ok || shown.Since != 100 || m.CAPEM() != nil || string(leaf(t, m).Raw) != string(chain[0]) {
		t.Errorf("installed: %v %+v", ok, shown.Since)
	}
	*now = now.Add(85 * 24 * time.Hour)
	if string(leaf(t, m).Raw) != string(chain[0]) {
		t.Error("an installed pair was renewed")
	}
	cfg.Names = []string{"other.example"}
	again, err := Open(ctx, cfg)
	if err != nil || string(leaf(t, again).Raw) != string(chain[0]) {
		t.Errorf("after a restart: %v", err)
	}
	dir := t.TempDir()
	files := cfg
	files.CertFile, files.KeyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	third, _ := open(t, nil)
	own, _ := third.GetCertificate(nil)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		os.WriteFile(files.CertFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate[0]}), 0o600),
		os.WriteFile(files.KeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if again, err = Open(ctx, files); err != nil || !leaf(t, again).Equal(own.Leaf) {
		t.Errorf("with files: %v", err)
	}
	if _, ok := again.Installed(); ok {
		t.Error("a pair that is not in use is shown")
	}
	if again, err = Open(ctx, cfg); err != nil || string(leaf(t, again).Raw) != string(chain[0]) {
		t.Errorf("without the files again: %v", err)
	}
	// The same second twice still shows that it is another.
	if err := again.Install(nil, chain, 100, keep); err != nil {
		t.Fatal(err)
	}
	if shown, _ := again.Installed(); shown.Since != 101 {
		t.Errorf("since %d", shown.Since)
	}
}
