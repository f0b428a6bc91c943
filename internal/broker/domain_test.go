package broker_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
	"softhem/internal/broker"
	"softhem/internal/suite"
)

const day = 24 * time.Hour

// request gets what a registration takes.
func request(t testing.TB, m *hemtest.Module) api.DomainRegister {
	t.Helper()
	a, err := m.Client().UpdateConfig(context.Background(), api.ConfigUpdate{GenCSR: true})
	if err != nil {
		t.Fatal(err)
	}
	return api.DomainRegister{CSR: a.CSR, Genuine: a.Genuine}
}

func leafOf(t testing.TB, bundle *api.TLSBundle) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(mustDecode(t, bundle.Crt))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// roots are what clients trust who trust the broker's CA.
func (s *station) roots() *x509.CertPool {
	s.t.Helper()
	ca, err := broker.DomainCA(context.Background(), s.db)
	if err != nil {
		s.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		s.t.Fatalf("the CA is %q", ca)
	}
	return pool
}

func install(t testing.TB, m *hemtest.Module, bundle *api.TLSBundle) {
	t.Helper()
	if _, err := m.Client().UpdateConfig(context.Background(), api.ConfigUpdate{TLS: bundle}); err != nil {
		t.Fatal(err)
	}
}

// serial is the serial number a module names at a check-in.
func (s *station) shown(m *hemtest.Module) *x509.Certificate {
	s.t.Helper()
	c := &http.Client{Transport: m.HTTPClient().Transport.(*http.Transport).Clone()}
	tr := c.Transport.(*http.Transport)
	tr.TLSClientConfig.InsecureSkipVerify = true // the test looks at the certificate itself
	tr.DisableKeepAlives = true
	resp, err := c.Get(m.URL + "/api/system/version")
	if err != nil {
		s.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.TLS.PeerCertificates[0]
}

// A name and a certificate for the module's own key, renewed by check-ins before
// its end and after it, and not any more when the operator has released the name.
func TestDomain(t *testing.T) {
	ctx := context.Background()
	s := startBrokerWith(t, "", broker.Config{Domain: "hem.example"})
	m := s.module(hemtest.Options{})
	// What is installed is not from the module's CA, so its client has to trust more.
	c, err := hem.New(hem.Config{URL: m.URL, HTTPClient: &http.Client{Transport: s.trusting(m)}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	if got := s.call("GET", "/domain/check/vault", nil, nil); got != 404 {
		t.Errorf("a free name: %d", got)
	}
	req := request(t, m)
	req.IP, req.CName = "192.0.2.7", "Gate.Example"
	bundle, err := s.client().RegisterDomain(ctx, "Vault", "", req)
	if err != nil || bundle.Key != "" {
		t.Fatalf("%v, with a key: %v", err, bundle)
	}
	if got := s.call("GET", "/domain/check/vault", nil, nil); got != 200 {
		t.Errorf("a taken name: %d", got)
	}
	first := leafOf(t, bundle)
	verify := x509.VerifyOptions{Roots: s.roots(), DNSName: "vault.hem.example"}
	if _, err := first.Verify(verify); err != nil || len(first.DNSNames) != 1 || len(first.IPAddresses) != 0 {
		t.Errorf("%v, names %v", err, first.DNSNames)
	}
	all, err := broker.Domains(ctx, s.db)
	if err != nil || len(all) != 1 || all[0].Name != "vault.hem.example" || all[0].IP != "192.0.2.7" || all[0].CName != "gate.example" || !all[0].Ends.Equal(first.NotAfter) {
		t.Errorf("listed %+v, %v", all, err)
	}
	install(t, m, bundle)

	checkIn := func(after time.Duration, want string) *x509.Certificate {
		t.Helper()
		s.clock.Store(int64(after))
		r, err := c.CheckIn(ctx, s.url)
		if err != nil || r.Status != "OK" || r.NewCrt != want {
			t.Fatalf("check-in after %v: %+v, %v", after, r, err)
		}
		return s.shown(m)
	}
	if got := checkIn(59*day, ""); !got.Equal(first) {
		t.Error("renewed before its time")
	}
	second := checkIn(61*day, "OK")
	if second.Equal(first) || !bytes.Equal(second.RawSubjectPublicKeyInfo, first.RawSubjectPublicKeyInfo) || second.NotAfter.Sub(first.NotAfter) < 60*day {
		t.Errorf("not renewed: until %v, then %v", first.NotAfter, second.NotAfter)
	}
	if got := checkIn(61*day, ""); !got.Equal(second) {
		t.Error("renewed again")
	}
	// Off for half a year, the module still gets its next one.
	third := checkIn(300*day, "OK")
	verify.CurrentTime = time.Now().Add(300 * day)
	if _, err := third.Verify(verify); err != nil {
		t.Error(err)
	}
	if err := broker.ReleaseDomain(ctx, s.db, "vault"); err != nil {
		t.Fatal(err)
	}
	if got := checkIn(380*day, ""); !got.Equal(third) {
		t.Error("renewed after the release")
	}
	if broker.ReleaseDomain(ctx, s.db, "vault") == nil {
		t.Error("released again")
	}
}

// trusting is a way to the module that takes what the broker's CA signed, by
// whatever name it is for.
func (s *station) trusting(m *hemtest.Module) *http.Transport {
	tr := m.HTTPClient().Transport.(*http.Transport).Clone()
	tr.TLSClientConfig.InsecureSkipVerify = true
	return tr
}

// Without a request the broker makes the key, which only the module can open.
func TestDomainMakesTheKey(t *testing.T) {
	s := startBrokerWith(t, "", broker.Config{Domain: "hem.example"})
	m := s.module(hemtest.Options{})
	req := request(t, m)
	req.CSR = ""
	bundle, err := s.client().RegisterDomain(context.Background(), "vault", "", req)
	if err != nil {
		t.Fatal(err)
	}
	leaf := leafOf(t, bundle)
	install(t, m, bundle)
	if got := s.shown(m); !got.Equal(leaf) {
		t.Error("the module shows another certificate")
	}
}

// TestThreat_T160: a name stays its module's, and its proof is good once.
func TestThreat_T160_ANameIsOneModules(t *testing.T) {
	ctx := context.Background()
	s := startBrokerWith(t, "", broker.Config{Domain: "hem.example", DomainKey: "let-me-in"})
	var ahead atomic.Int64 // seconds of the owner's clock: each proof has a second of its own
	owner := s.module(hemtest.Options{Clock: func() time.Time { return time.Now().Add(time.Duration(ahead.Load()) * time.Second) }})
	other := s.module(hemtest.Options{Seed: "other"})
	register := func(m *hemtest.Module, change func(*api.DomainRegister), path string) int {
		t.Helper()
		req := request(t, m)
		change(&req)
		return s.call("POST", "/domain/register/"+path, req, nil)
	}
	as := func(*api.DomainRegister) {}
	for _, path := range []string{"vault", "vault/let-me-i", "vault/let-me-in2", "vault/LET-ME-IN"} {
		if got := register(owner, as, path); got != 401 {
			t.Errorf("%s: %d", path, got)
		}
	}
	req := request(t, owner)
	if got := s.call("POST", "/domain/register/vault/let-me-in", req, nil); got != 200 {
		t.Fatalf("the first: %d", got)
	}
	// The same proof again, and with a thief's key.
	if got := s.call("POST", "/domain/register/vault", req, nil); got != 401 {
		t.Errorf("a proof used again: %d", got)
	}
	if got := register(other, func(r *api.DomainRegister) { r.Genuine = req.Genuine }, "vault/let-me-in"); got != 401 {
		t.Errorf("a proof used again for another key: %d", got)
	}
	if got := register(other, as, "vault/let-me-in"); got != 409 {
		t.Errorf("another module takes the name: %d", got)
	}
	// The owner needs no key, once its clock has gone on.
	ahead.Add(2)
	if got := register(owner, as, "vault"); got != 200 {
		t.Errorf("its owner again: %d", got)
	}
	for name, change := range map[string]func(*api.DomainRegister){
		"no proof":       func(r *api.DomainRegister) { r.Genuine = "" },
		"another's time": func(r *api.DomainRegister) { r.Genuine = moved(t, r.Genuine, 1) },
		"another's certificate": func(r *api.DomainRegister) {
			parts, mine := strings.Split(request(t, other).Genuine, "."), strings.Split(r.Genuine, ".")
			r.Genuine = strings.Join(append(mine[:3], parts[3]), ".")
		},
		"three segments": func(r *api.DomainRegister) { r.Genuine = r.Genuine[:strings.LastIndex(r.Genuine, ".")] },
	} {
		ahead.Add(2)
		if got := register(owner, change, "vault"); got != 401 {
			t.Errorf("%s: %d", name, got)
		}
	}
	for _, old := range []time.Duration{330 * time.Second, -302 * time.Second} {
		s.clock.Store(int64(old))
		ahead.Add(2)
		if got := register(owner, as, "vault"); got != 401 {
			t.Errorf("a proof from %v ago: %d", old, got)
		}
	}
	s.clock.Store(0)
	for _, path := range []string{"-a", "a-", "a_b", "xn--pple-43d", strings.Repeat("a", 64), "a.b", "%20", "ä"} {
		if got := register(other, as, path+"/let-me-in"); got != 400 {
			t.Errorf("%s: %d", path, got)
		}
	}
	edKey := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: requestOn(t, elliptic.P384())})
	for name, change := range map[string]func(*api.DomainRegister){
		"no request":    func(r *api.DomainRegister) { r.CSR = "x" },
		"another curve": func(r *api.DomainRegister) { r.CSR = string(edKey) },
		"an address":    func(r *api.DomainRegister) { r.IP = "192.0.2.300" },
		"a zone":        func(r *api.DomainRegister) { r.IP = "fe80::1%eth0" },
		"a host name":   func(r *api.DomainRegister) { r.CName = "a b.example" },
	} {
		if got := register(other, change, "free/let-me-in"); got != 400 {
			t.Errorf("%s: %d", name, got)
		}
	}
	if all, err := broker.Domains(ctx, s.db); err != nil || len(all) != 1 {
		t.Errorf("names: %+v, %v", all, err)
	}
	none := startBroker(t, "")
	for _, path := range []string{"/domain/check/vault", "/domain/register/vault"} {
		method := map[bool]string{true: "GET", false: "POST"}[strings.Contains(path, "check")]
		if got := none.call(method, path, api.DomainRegister{}, nil); got != 404 {
			t.Errorf("%s without a domain: %d", path, got)
		}
	}
}

// moved is a token that says another time, under the signature it had.
func moved(t testing.TB, token string, by int64) string {
	t.Helper()
	parts := strings.Split(token, ".")
	at, err := strconv.ParseInt(string(mustDecode(t, parts[1])), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	parts[1] = api.EncodeBase64(strconv.AppendInt(nil, at+by, 10))
	return strings.Join(parts, ".")
}

func requestOn(t testing.TB, curve elliptic.Curve) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"vault.hem.example"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestThreat_T161: who trusts the broker's CA trusts it for names under its
// domain, and for nothing else, even if its key is misused.
func TestThreat_T161_TheCAIsForItsDomain(t *testing.T) {
	ctx := context.Background()
	s := startBrokerWith(t, "", broker.Config{Domain: "hem.example"})
	rec := broker.CAForTest(ctx, t, s.db)
	key, err := suite.NewP256Key(rec.Scalar)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(rec.Cert)
	if err != nil {
		t.Fatal(err)
	}
	leafKey, _ := suite.RandomP256Key()
	for _, tc := range []struct {
		dns  string
		ip   net.IP
		ca   bool
		good bool
	}{
		{dns: "vault.hem.example", good: true}, {dns: "bank.example"}, {dns: "hem.example.org"}, {dns: "evilhem.example"},
		{ip: net.IPv4(127, 0, 0, 1)}, {ip: net.ParseIP("2001:db8::1")},
	} {
		template := &x509.Certificate{
			SerialNumber: suite.CertificateSerial(), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		name := tc.dns
		if tc.dns != "" {
			template.DNSNames = []string{tc.dns}
		} else {
			template.IPAddresses, name = []net.IP{tc.ip}, tc.ip.String()
		}
		der, err := x509.CreateCertificate(nil, template, ca, leafKey.Signer().Public(), key.Signer())
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: s.roots(), DNSName: name}); (err == nil) != tc.good {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, domain := range []string{"example", "*.example", "a..b", "-.example", "hem.example/x"} {
		if b, err := broker.New(ctx, broker.Config{DB: s.db, Now: time.Now, Domain: domain}); err == nil {
			b.Close()
			t.Errorf("a broker for %q", domain)
		}
	}
	if b, err := broker.New(ctx, broker.Config{DB: s.db, Now: time.Now, Domain: "other.example"}); err == nil || !strings.Contains(err.Error(), "hem.example") {
		if b != nil {
			b.Close()
		}
		t.Errorf("a broker for another domain than its CA: %v", err)
	}
}

// Whatever length of serial numbers a CA took, the name is found by what a module
// says of it: 16 bytes, which are the last ones, or have zeros before them.
func TestSerialNumbersOfAnyLength(t *testing.T) {
	for number, csn := range map[string]string{
		"0102": "00000000000000000000000000000102", "": "00000000000000000000000000000000",
		"4142434445464748494a4b4c4d4e4f50": "4142434445464748494a4b4c4d4e4f50", "03ff4142434445464748494a4b4c4d4e4f50": "4142434445464748494a4b4c4d4e4f50",
	} {
		if got := broker.SerialIDForTest(mustHex(t, number)); got != csn || broker.SerialIDForTest(mustHex(t, csn)) != csn {
			t.Errorf("%s is looked for as %s", number, got)
		}
	}
}
