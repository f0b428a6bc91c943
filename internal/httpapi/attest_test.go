package httpapi_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
)

const (
	pathAttestation  = "/api/system/config/attestation"
	pathProvisioning = "/api/system/config/provisioning"
)

func (p *peer) attestation(token *string) api.Attestation {
	p.t.Helper()
	var a api.Attestation
	got := p.do(request{method: "GET", path: pathAttestation, token: token})
	if got.status != 200 || json.Unmarshal(got.body, &a) != nil {
		p.t.Fatalf("attestation: %d %s", got.status, got.body)
	}
	return a
}

// A certifier signs certificates for attestation keys.
type certifier struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newCertifier(t testing.TB) *certifier {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Attestation CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &certifier{key, cert}
}

// certify is the certificate for a key, DER, of at least so many bytes.
func (c *certifier) certify(t testing.TB, key any, least int) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "a module", Locality: []string{strings.Repeat("x", least)}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, key, c.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// A module that was given nothing asks for a certificate, with a request that its
// attestation key has signed.
func TestAttestation(t *testing.T) {
	k := newKeeper(t, nil)
	k.expect("GET", pathAttestation, nil, 401)
	var config api.Config
	if err := json.Unmarshal(k.expect("GET", "/api/system/config", k.as(api.RoleUser, api.ScopeSystemConfig), 200).body, &config); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*peer{k.peer, k.plain()} {
		a := p.attestation(k.as(api.RoleMaster, "any"))
		checkGenuine(t, a.Genuine)
		g, err := hem.VerifyGenuine(a.Genuine)
		if err != nil || !g.Fresh(time.Now()) || api.EncodeBase64(g.SKI) != config.GenuineID {
			t.Fatalf("%+v, %v; the configuration has %s", g, err, config.GenuineID)
		}
		block, rest := pem.Decode([]byte(a.CSR))
		if block == nil || len(rest) > 0 || block.Type != "CERTIFICATE REQUEST" {
			t.Fatalf("csr is %q", a.CSR)
		}
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil || csr.CheckSignature() != nil || !g.Key.Equal(csr.PublicKey) || csr.Subject.CommonName != "SoftHEM attestation "+config.DevID {
			t.Errorf("csr %+v, %v", csr, err)
		}
		point, err := g.Key.Bytes()
		if err != nil || a.Key != api.EncodeBase64(point) || a.Crt != "" {
			t.Errorf("key %s, want %x; crt %q", a.Key, point, a.Crt)
		}
	}
}

// T80: the attestation key is certified on a fresh module, once, for this key and by
// who has a token of this module; the certificate stays until a wipe.
func TestThreat_T80_ProvisionedOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	m := hemtest.New(t, &hemtest.Options{DataDir: dir, Fresh: true})
	other := newPeer(t, hemtest.New(t, &hemtest.Options{Seed: "another", Fresh: true})).attestation(nil)
	p := newPeer(t, m)
	before := p.attestation(nil)
	g, err := hem.VerifyGenuine(before.Genuine)
	if err != nil {
		t.Fatal(err)
	}
	ca := newCertifier(t)
	leaf := ca.certify(t, g.Key, 0)
	chain := api.EncodeBase64(append(bytes.Clone(leaf), ca.cert.Raw...))
	provision := func(genuine, crt string) int {
		t.Helper()
		return p.do(request{method: "POST", path: pathProvisioning, body: fields{"genuine": genuine, "crt": crt}.json(t)}).status
	}
	forged := strings.Split(before.Genuine, ".")
	forged[1] = api.EncodeBase64([]byte("1767225600"))
	for name, c := range map[string]struct {
		genuine, crt string
		want         int
	}{
		"nothing":                          {"", "", 400},
		"no genuine":                       {"", chain, 400},
		"no crt":                           {before.Genuine, "", 400},
		"no token":                         {"a.b", chain, 400},
		"no base64":                        {"!." + before.Genuine[2:], chain, 400},
		"no certificate":                   {before.Genuine, "AAAA", 400},
		"a certificate, and more":          {before.Genuine, api.EncodeBase64(append(bytes.Clone(leaf), 0)), 400},
		"too long":                         {before.Genuine, api.EncodeBase64(ca.certify(t, g.Key, 2048)), 400},
		"another module's token":           {other.Genuine, chain, 406},
		"a token whose time was changed":   {strings.Join(forged, "."), chain, 406},
		"a certificate for another key":    {before.Genuine, api.EncodeBase64(ca.cert.Raw), 406},
		"the other's key in this one's":    {before.Genuine, other.Key, 400},
		"a certificate for the other's":    {before.Genuine, api.EncodeBase64(ca.certify(t, certificateKey(t, other.Genuine), 0)), 406},
		"a certificate on another curve":   {before.Genuine, api.EncodeBase64(ca.certify(t, otherCurve(t), 0)), 406},
		"chain in the wrong order":         {before.Genuine, api.EncodeBase64(append(bytes.Clone(ca.cert.Raw), leaf...)), 406},
		"nine certificates instead of one": {before.Genuine, api.EncodeBase64(bytes.Repeat(leaf, 9)), 400},
	} {
		if got := provision(c.genuine, c.crt); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	if a := p.attestation(nil); a.Crt != "" || a.CSR == "" {
		t.Fatalf("something was taken: %+v", a)
	}
	if got := provision(before.Genuine, chain); got != 200 {
		t.Fatalf("provisioning: %d", got)
	}
	for _, crt := range []string{chain, api.EncodeBase64(leaf)} {
		if got := provision(before.Genuine, crt); got != 406 {
			t.Errorf("again: %d, want 406", got)
		}
	}
	certified := func(p *peer, token *string) {
		t.Helper()
		a := p.attestation(token)
		g, err := hem.VerifyGenuine(a.Genuine)
		if err != nil || a.Crt != chain || a.CSR != "" || a.Key != "" || !bytes.Equal(g.Certificate.Raw, leaf) {
			t.Errorf("%+v, %v", a, err)
		}
		if s := p.selfTest(token); s.SEState != api.SEProvisioned {
			t.Errorf("se_state %d", s.SEState)
		}
	}
	certified(p, nil)
	if _, err := m.Personalise(); err != nil {
		t.Fatal(err)
	}
	if got := provision(before.Genuine, chain); got != 403 {
		t.Errorf("on a personalised module: %d, want 403", got)
	}
	m.Close()
	m = hemtest.New(t, &hemtest.Options{DataDir: dir, Seed: "of what comes after the wipe"})
	k := keeperOf(t, m)
	certified(k.peer, k.as(api.RoleUser, "any"))
	u := k.post("/api/system/config", api.ScopeSystemConfig, fields{"gen_csr": true})
	var updated api.ConfigUpdated
	if err := json.Unmarshal(u.body, &updated); err != nil {
		t.Fatal(err)
	}
	if g, err := hem.VerifyGenuine(updated.Genuine); err != nil || !bytes.Equal(g.Certificate.Raw, leaf) {
		t.Errorf("genuine of a request has another certificate: %v", err)
	}
	if got := k.post("/api/system/config", api.ScopeSystemConfig, fields{"wipeout": true}); got.status != 200 {
		t.Fatalf("wipe: %d", got.status)
	}
	for deadline := time.Now().Add(30 * time.Second); k.plain().do(request{method: "GET", path: pathAttestation}).status != 200; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no fresh module")
		}
	}
	after := k.plain().attestation(nil)
	if fresh, err := hem.VerifyGenuine(after.Genuine); err != nil || after.Crt != "" || after.CSR == "" || bytes.Equal(fresh.SKI, g.SKI) {
		t.Errorf("after the wipe: %+v, %v", after, err)
	}
}

func certificateKey(t testing.TB, genuine string) *ecdsa.PublicKey {
	t.Helper()
	g, err := hem.VerifyGenuine(genuine)
	if err != nil {
		t.Fatal(err)
	}
	return g.Key
}

func otherCurve(t testing.TB) *ecdsa.PublicKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &key.PublicKey
}

// FuzzProvisioning sends anything as token and certificate to a fresh module. It
// takes nothing but what is its own, and answers as documented.
func FuzzProvisioning(f *testing.F) {
	m := hemtest.New(f, &hemtest.Options{Fresh: true})
	client := m.HTTPClient()
	resp, err := client.Get(m.HTTPURL + pathAttestation)
	if err != nil {
		f.Fatal(err)
	}
	var a api.Attestation
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		f.Fatal(err)
	}
	resp.Body.Close()
	ca := newCertifier(f)
	f.Add([]byte(`{"genuine":"`+a.Genuine+`"}`), []byte{})
	f.Add([]byte(`{"genuine":"`+a.Genuine+`","crt":"`+api.EncodeBase64(ca.cert.Raw)+`"}`), []byte{})
	f.Add([]byte(`{"genuine":"a.b.c.d","crt":"AA=="}`), []byte{})
	f.Add([]byte(`{"genuine":7,"crt":[]}`), []byte{})
	f.Add([]byte(a.Genuine), ca.cert.Raw)
	f.Add([]byte("..."), []byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, genuine, crt []byte) {
		body := string(genuine)
		if len(crt) > 0 {
			body = fields{"genuine": string(genuine), "crt": api.EncodeBase64(crt)}.json(t)
		}
		resp, err := client.Post(m.HTTPURL+pathProvisioning, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 400 && resp.StatusCode != 406 && resp.StatusCode != 413 {
			t.Fatalf("%d", resp.StatusCode)
		}
	})
}
