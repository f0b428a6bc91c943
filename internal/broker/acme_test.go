package broker_test

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
	"softhem/internal/broker"
	"softhem/internal/broker/brokerdb"
	"softhem/internal/broker/pebbletest"
)

const acmeDomain = "hem.example"

// TestACME has certificates come from pebble, Let's Encrypt's server for tests.
func TestACME(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ca := pebbletest.Start(t, l.Addr().(*net.TCPAddr).Port, os.Getenv("CI") == "true")
	t.Run("http-01", func(t *testing.T) { testACMEOverHTTP(t, ca, l) })
	t.Run("dns-01", func(t *testing.T) {
		t.Parallel()
		testACMEOverDNS(t, ca)
	})
	t.Run("restart", func(t *testing.T) {
		t.Parallel()
		testACMERestart(t, ca)
	})
	t.Run("failure", func(t *testing.T) {
		t.Parallel()
		testACMEFailure(t, ca)
	})
	t.Run("refusals", func(t *testing.T) {
		t.Parallel()
		testACMERefusals(t, ca)
	})
}

// serveACME is startBrokerWith on a listener, which may be nil, and without an end
// of its own if db is given.
func serveACME(t *testing.T, l net.Listener, cfg broker.ACME, change ...func(*broker.Config)) *station {
	t.Helper()
	db, err := brokerdb.Open(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	s := &station{t: t, db: db}
	s.now = func() time.Time { return time.Now().Add(time.Duration(s.clock.Load())) }
	c := broker.Config{DB: db, Now: s.now, Logger: slog.New(slog.DiscardHandler), Domain: acmeDomain, ACME: cfg}
	for _, f := range change {
		f(&c)
	}
	if s.broker, err = broker.New(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(s.broker.Handler())
	if l != nil {
		server.Listener.Close()
		server.Listener = l
	}
	server.Start()
	s.url = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		s.broker.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// isFromCA checks what a client would of the certificate a module shows.
func isFromCA(t *testing.T, ca *pebbletest.CA, bundle *api.TLSBundle, name string) *x509.Certificate {
	t.Helper()
	chain, err := x509.ParseCertificates(mustDecode(t, bundle.Crt))
	if err != nil || len(chain) < 2 {
		t.Fatalf("a chain of %d, %v", len(chain), err)
	}
	between := x509.NewCertPool()
	between.AddCert(chain[1])
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: ca.Roots, Intermediates: between, DNSName: name}); err != nil {
		t.Error(err)
	}
	return chain[0]
}

// By the broker's own answer, for the key that the module has: the first
// certificate, and the next one by check-ins.
func testACMEOverHTTP(t *testing.T, ca *pebbletest.CA, l net.Listener) {
	ctx := t.Context()
	s := serveACME(t, l, broker.ACME{Directory: ca.Directory, Email: "ops@hem.example", HTTPClient: ca.Client})
	m := s.module(hemtest.Options{Hostname: "Vault." + acmeDomain})
	bundle, err := s.client().RegisterDomain(ctx, "vault", "", request(t, m))
	if err != nil {
		t.Fatal(err)
	}
	first := isFromCA(t, ca, bundle, "vault."+acmeDomain)
	install(t, m, bundle)
	if got := s.shown(m); !got.Equal(first) {
		t.Error("the module shows another certificate")
	}
	if all, err := broker.Domains(ctx, s.db); err != nil || len(all) != 1 || all[0].State != "issued" || !all[0].Ends.Equal(first.NotAfter) {
		t.Errorf("listed %+v, %v", all, err)
	}
	c, err := hem.New(hem.Config{URL: m.URL, HTTPClient: &http.Client{Transport: s.trusting(m)}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	checkIn := func() string {
		t.Helper()
		r, err := c.CheckIn(ctx, s.url)
		if err != nil || r.Status != "OK" {
			t.Fatalf("%+v, %v", r, err)
		}
		return r.NewCrt
	}
	s.clock.Store(int64(59 * day))
	if got := checkIn(); got != "" {
		t.Errorf("before its time: %q", got)
	}
	s.clock.Store(int64(61 * day))
	if got := checkIn(); got != "" { // asks the CA
		t.Errorf("there already: %q", got)
	}
	s.clock.Store(0) // the CA has the right time, by which the next one is not to be renewed too
	for end := time.Now().Add(time.Minute); checkIn() != "OK"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			all, err := broker.Domains(ctx, s.db)
			t.Fatalf("no next certificate: %+v, %v", all, err)
		}
	}
	if next := s.shown(m); next.Equal(first) || string(next.RawSubjectPublicKeyInfo) != string(first.RawSubjectPublicKeyInfo) {
		t.Error("the next certificate is not shown, or for another key")
	}
	if got := checkIn(); got != "" {
		t.Errorf("and once more: %q", got)
	}
	if got := s.call("GET", "/.well-known/acme-challenge/x", nil, nil); got != 404 {
		t.Errorf("a question nobody asked: %d", got)
	}
}

// unsteady fails the first exchange, and one in the middle.
type unsteady struct {
	next http.RoundTripper
	n    atomic.Int64
}

func (u *unsteady) RoundTrip(r *http.Request) (*http.Response, error) {
	if n := u.n.Add(1); n == 1 || n == 7 {
		return nil, errors.New("the line is down")
	}
	return u.next.RoundTrip(r)
}

// By the operator's DNS, over a line that breaks, for a module that has another host
// name and lets the broker make the key.
func testACMEOverDNS(t *testing.T, ca *pebbletest.CA) {
	line := *ca.Client
	line.Transport = &unsteady{next: line.Transport}
	s := serveACME(t, nil, broker.ACME{Directory: ca.Directory, DNSHook: ca.Hook, HTTPClient: &line})
	m := s.module(hemtest.Options{Seed: "dns"})
	req := request(t, m)
	req.CSR = ""
	bundle, err := s.client().RegisterDomain(t.Context(), "dns", "", req)
	if err != nil {
		t.Fatal(err)
	}
	leaf := isFromCA(t, ca, bundle, "dns."+acmeDomain)
	install(t, m, bundle)
	if got := s.shown(m); !got.Equal(leaf) {
		t.Error("the module shows another certificate")
	}
	resp, err := http.Get(ca.TXT + "_acme-challenge.dns." + acmeDomain)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.ContentLength > 1 {
		t.Error("the record was not removed")
	}
}

// A broker that ends while a certificate is under way goes on with the same order.
func testACMERestart(t *testing.T, ca *pebbletest.CA) {
	ctx := t.Context()
	dir := t.TempDir()
	begun := make(chan struct{}, 1)
	stuck := func(ctx context.Context, action, _, _ string) error {
		if action == "present" {
			begun <- struct{}{}
			<-ctx.Done()
		}
		return ctx.Err()
	}
	db, err := brokerdb.Open(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	cfg := broker.Config{
		DB: db, Now: time.Now, Logger: slog.New(slog.DiscardHandler), Domain: acmeDomain,
		ACME: broker.ACME{Directory: ca.Directory, DNSHook: stuck, HTTPClient: ca.Client},
	}
	b, err := broker.New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	var current atomic.Pointer[http.Handler]
	use := func(b *broker.Broker) {
		h := b.Handler()
		current.Store(&h)
	}
	use(b)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*current.Load()).ServeHTTP(w, r) }))
	defer server.Close()
	s := &station{t: t, broker: b, db: db, url: server.URL}
	m := s.module(hemtest.Options{Seed: "restart", Hostname: "again." + acmeDomain})
	var ordered api.DomainOrdered
	req := request(t, m)
	if got := s.call("POST", "/domain/register/again", req, nil); got != 201 {
		t.Fatalf("%d", got)
	}
	<-begun
	order := broker.OrderForTest(ctx, t, db, "again")
	// Its own broker has one name under way, and the proof is used.
	if got := s.call("POST", "/domain/register/again", req, nil); got != 401 {
		t.Errorf("the same proof again: %d", got)
	}
	b.Close()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = brokerdb.Open(ctx, dir); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	cfg.DB, cfg.ACME.DNSHook = db, ca.Hook
	if b, err = broker.New(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	use(b)
	ordered.ID = broker.IssueForTest(ctx, t, db, "again")
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var bundle api.TLSBundle
		switch got := s.call("GET", "/domain/register/"+ordered.ID, nil, &bundle); {
		case got == 200:
			isFromCA(t, ca, &bundle, "again."+acmeDomain)
			install(t, m, &bundle)
			if now := broker.OrderForTest(ctx, t, db, "again"); now != order || order == "" {
				t.Errorf("ordered twice: %q, then %q", order, now)
			}
			return
		case got != 202:
			t.Fatalf("under way: %d", got)
		case time.Now().After(end):
			t.Fatal("no certificate after the restart")
		}
	}
}

// A name that cannot be proven gets no certificate: who asked hears that there is
// none, the operator why, and the CA is left alone for a while.
func testACMEFailure(t *testing.T, ca *pebbletest.CA) {
	ctx := t.Context()
	var right atomic.Bool
	hook := func(ctx context.Context, action, name, value string) error {
		if !right.Load() {
			value = "something else"
		}
		return ca.Hook(ctx, action, name, value)
	}
	s := serveACME(t, nil, broker.ACME{Directory: ca.Directory, DNSHook: hook, HTTPClient: ca.Client})
	var ahead atomic.Int64
	m := s.module(hemtest.Options{Seed: "failure", Hostname: "wrong." + acmeDomain, Clock: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	later := func(d time.Duration) {
		ahead.Add(int64(d))
		s.clock.Add(int64(d))
	}
	_, err := s.client().RegisterDomain(ctx, "wrong", "", request(t, m))
	if !isStatus(err, 410) || !strings.Contains(err.Error(), "the operator of the broker can see why") {
		t.Errorf("a name that was not proven: %v", err)
	}
	all, err := broker.Domains(ctx, s.db)
	if err != nil || len(all) != 1 || all[0].State != "failed" || !strings.Contains(all[0].Why, "prove the name") || all[0].Name != "wrong."+acmeDomain || !all[0].Ends.IsZero() {
		t.Errorf("listed %+v, %v", all, err)
	}
	right.Store(true)
	later(2 * time.Second)
	if _, err := s.client().RegisterDomain(ctx, "wrong", "", request(t, m)); !isStatus(err, 503) {
		t.Errorf("at once again: %v", err)
	}
	later(16 * time.Minute)
	bundle, err := s.client().RegisterDomain(ctx, "wrong", "", request(t, m))
	if err != nil {
		t.Fatal(err)
	}
	isFromCA(t, ca, bundle, "wrong."+acmeDomain)
}

// What would spend the CA's patience, or cannot come to anything, is refused
// before it is asked.
func testACMERefusals(t *testing.T, ca *pebbletest.CA) {
	ctx := t.Context()
	asked := make(chan string, 10)
	hook := func(ctx context.Context, action, name, _ string) error {
		if action == "present" {
			asked <- name
			<-ctx.Done()
		}
		return ctx.Err()
	}
	s := serveACME(t, nil, broker.ACME{Directory: ca.Directory, DNSHook: hook, HTTPClient: ca.Client, PerHour: 1})
	var ahead atomic.Int64
	m := s.module(hemtest.Options{Seed: "refusals", Hostname: "one." + acmeDomain, Clock: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	register := func(prefix string) int {
		t.Helper()
		ahead.Add(int64(2 * time.Second)) // each proof has a second of its own
		return s.call("POST", "/domain/register/"+prefix, request(t, m), nil)
	}
	if got := register("another"); got != 400 {
		t.Errorf("a request for another name: %d", got)
	}
	if got := register("one"); got != 201 {
		t.Fatalf("the first: %d", got)
	}
	if got := register("one"); got != 409 {
		t.Errorf("while it is under way: %d", got)
	}
	second := s.module(hemtest.Options{Seed: "refusals 2", Hostname: "two." + acmeDomain})
	if got := s.call("POST", "/domain/register/two", request(t, second), nil); got != 503 {
		t.Errorf("the second in an hour: %d", got)
	}
	if name := <-asked; name != "_acme-challenge.one."+acmeDomain || len(asked) != 0 {
		t.Errorf("the hook was called for %s, and %d more", name, len(asked))
	}
	if got := s.call("GET", "/domain/register/"+strings.Repeat("A", 43), nil, nil); got != 404 {
		t.Errorf("an id nobody was given: %d", got)
	}
	for name, cfg := range map[string]broker.Config{
		"no domain": {ACME: broker.ACME{Directory: ca.Directory}},
		"no TLS":    {Domain: acmeDomain, ACME: broker.ACME{Directory: "http://ca.test/dir"}},
	} {
		cfg.DB, cfg.Now, cfg.Logger = s.db, time.Now, slog.New(slog.DiscardHandler)
		if b, err := broker.New(ctx, cfg); err == nil {
			b.Close()
			t.Errorf("a broker with %s", name)
		}
	}
}
