// Package hemtest runs a HEM inside a test: a real module behind real TLS on
// loopback, with nothing left behind.
//
//	func TestMine(t *testing.T) {
//		module := hemtest.New(t, nil)
//		client := module.Client()
//		…
//	}
//
// The module is the one `hem serve` runs. What differs is what a test wants:
// its state is in memory, its identity is a function of a seed, and logins are
// not slowed down. It works in tests only.
package hemtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/module"
	"softhem/internal/server"
	"softhem/internal/session"
)

// Options says how the module differs from the usual one. The zero value is
// the usual one: personalised, clock set, form factor PPA, state in memory,
// logins not slowed down.
type Options struct {
	// Seed decides the module's identity: same seed, same identity and keys.
	// Modules without one all have the same; give seeds to tell modules apart.
	// A seed not used before in this process costs about a second, for the
	// derivation of its personas' keys.
	Seed string

	// Fresh leaves the module without its personalisation.
	Fresh bool

	// Clock is the host's clock; nil is time.Now. It may be set forward at
	// any time; setting it back by more than a minute ends all tokens.
	Clock func() time.Time

	// ClockUnset makes the module wait for a check-in to know the time, as
	// hardware does. Logins are refused before it.
	ClockUnset bool

	// Profile is the form factor, "PPA" or "EPA".
	Profile string

	// Quirks imitates the faults of a firmware, "fw1.2.2": what a client does
	// with wrong statuses, cut secrets and closed connections. With ClockUnset,
	// the clock that a check-in sets runs 8 % fast.
	Quirks string

	// Diag makes the module a diagnostic build: /api/diag can break it, so that a
	// client can be tried against fail states and broken handshakes.
	Diag bool

	// Damping slows logins down as a module in use does: half a second, and
	// more after failures.
	Damping bool

	// LoginDelay, LoginPenalty and LoginPenaltyWindow, if any is set, slow logins down
	// by these instead: so that a test that measures it need not wait as long. No
	// address is limited then. Not together with Damping.
	LoginDelay, LoginPenalty, LoginPenaltyWindow time.Duration

	// TrustedBackends are X25519 public keys, 32 bytes each, of backends whose
	// check-in is believed.
	TrustedBackends [][]byte

	// Broker is the address of the broker that the module names to its clients.
	Broker string

	// UpgradeKeys are Ed25519 public keys, 32 bytes each, that sign firmware and
	// consoles. Without any, no upgrade verifies.
	UpgradeKeys [][]byte

	// DataDir keeps the state in a folder, so that a second New on it, after
	// Close, continues the first. It must not be readable by others.
	DataDir string

	// Hostname is what the module is personalised with; "localhost" when empty.
	Hostname string

	// Origin is the CORS allow-list the module is personalised with; "*" when
	// empty.
	Origin string

	// NoKeySearch has searches for keys need a token, always.
	NoKeySearch bool

	// MaxKeys is how many keys the module takes; 0 is a million.
	MaxKeys int64

	// AuditCompact records the use of a private key in one line of the log,
	// without KEY_USAGE_PKEY.
	AuditCompact bool

	// UserPassphrase and MasterPassphrase are "user" and "master" when empty.
	UserPassphrase, MasterPassphrase string

	// BrokenLog says that the test is going to break the audit log, so that
	// the module may end with an error.
	BrokenLog bool

	// Logger gets the operator's log; nil drops it.
	Logger *slog.Logger
}

// Module is a running module. After a wipe there is another one at the same
// address, with another identity and CA: CACert, CAFile and EID are brought up to
// date by Follow, and by Personalise, Client, ClientOf and HTTPClient.
type Module struct {
	URL     string // https://127.0.0.1:port
	HTTPURL string // the same over plain HTTP
	CACert  []byte // PEM, what a client has to trust; nil in a DataDir where a TLS pair was installed
	CAFile  string // a file with CACert
	EID     string // identity, base64

	User, UserPassphrase string // name and passphrase of the local user
	MasterPassphrase     string

	t        testing.TB
	origin   string
	hostname string
	broken   bool
	search   bool // personalised with an open key search
	server   *server.Server
	stop     sync.Once
	mu       sync.Mutex // of what Follow changes
}

// New starts a module and ends it with the test. nil options are valid.
func New(t testing.TB, opts *Options) *Module {
	if !testing.Testing() {
		panic("hemtest: this module is for tests; run hem serve for a real one")
	}
	t.Helper()
	if opts == nil {
		opts = &Options{}
	}
	ctx := context.Background()
	s, err := server.Start(ctx, config(opts))
	if err != nil {
		t.Fatalf("hemtest: the module did not start: %v", err)
	}
	addrs := s.Addresses()
	m := &Module{
		URL: "https://" + addrs.HTTPS, HTTPURL: "http://" + addrs.HTTP,
		User: "hemtest", UserPassphrase: or(opts.UserPassphrase, "user"),
		MasterPassphrase: or(opts.MasterPassphrase, "master"),
		t:                t, server: s, origin: or(opts.Origin, "*"), hostname: or(opts.Hostname, "localhost"), broken: opts.BrokenLog, search: !opts.NoKeySearch,
	}
	t.Cleanup(m.Close)
	if err := m.follow(); err != nil {
		t.Fatalf("hemtest: %v", err)
	}
	if !opts.Fresh && !s.Module().Inited() {
		if opts.ClockUnset {
			t.Fatal("hemtest: a module whose clock is not set cannot be personalised; set Fresh too, and check in")
		}
		if _, err := m.Personalise(); err != nil {
			t.Fatalf("hemtest: personalise: %v", err)
		}
	}
	return m
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func config(opts *Options) server.Config {
	cfg := server.DefaultConfig()
	cfg.HTTPAddr, cfg.HTTPSAddr = "127.0.0.1:0", "127.0.0.1:0"
	cfg.DataDir, cfg.Memory = opts.DataDir, opts.DataDir == ""
	cfg.Seed = []byte("hemtest " + opts.Seed)
	cfg.Broker = opts.Broker
	cfg.TrustedBackends, cfg.UpgradeKeys = opts.TrustedBackends, opts.UpgradeKeys
	if opts.Clock != nil {
		cfg.HostClock = opts.Clock
	}
	if opts.ClockUnset {
		cfg.ClockSource = module.ClockCheckin
	}
	if opts.Profile != "" {
		cfg.Profile = module.Profile(opts.Profile)
	}
	cfg.Quirks, cfg.Diag = module.Quirks(opts.Quirks), opts.Diag
	if opts.MaxKeys != 0 {
		cfg.MaxKeys = opts.MaxKeys
	}
	cfg.AuditCompact = opts.AuditCompact
	if !opts.Damping {
		cfg.Damping = session.Damping{}
	}
	if delay := opts.LoginDelay; delay != 0 || opts.LoginPenalty != 0 || opts.LoginPenaltyWindow != 0 {
		cfg.Damping = session.DefaultDamping()
		cfg.Damping.Delay, cfg.Damping.Penalty, cfg.Damping.Window = delay, opts.LoginPenalty, opts.LoginPenaltyWindow
		cfg.Damping.Limits = false
	}
	if opts.Logger != nil {
		cfg.Logger = opts.Logger
	}
	return cfg
}

// Follow is called after a wipe: it waits until the fresh module has taken the
// place of the wiped one, and makes CACert, CAFile and EID those of it.
func (m *Module) Follow() {
	m.t.Helper()
	if err := m.follow(); err != nil {
		m.t.Fatalf("hemtest: %v", err)
	}
}

// renewal is how long a fresh module may take; a busy machine is slow.
const renewal = 30 * time.Second

func (m *Module) follow() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for deadline := time.Now().Add(renewal); m.server.Module().Wiped(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("no fresh module has taken the place of the wiped one")
		}
	}
	eid := m.server.Module().EID()
	if m.EID == eid { // nothing is written, for others may be reading
		return nil
	}
	var cert []byte
	file := m.server.CAFile()
	if file != "" { // there is none where a pair was installed
		var err error
		if cert, err = os.ReadFile(file); err != nil {
			return err
		}
	}
	m.CACert, m.CAFile, m.EID = cert, file, eid
	return nil
}

// Personalise sets a fresh module up with the passphrases of m: CORS open, and
// key search unless the options say otherwise, check-ins trusted.
func (m *Module) Personalise() (*api.InitAnswer, error) {
	if err := m.follow(); err != nil {
		return nil, err
	}
	client, err := hem.New(hem.Config{URL: m.URL, CACert: m.CACert})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	user, master, err := personas(m.UserPassphrase, m.MasterPassphrase, m.EID)
	if err != nil {
		return nil, err
	}
	return client.Init(context.Background(), hem.InitParams{
		UserKey: user, MasterKey: master,
		Config: api.InitConfig{
			User: m.User, Hostname: m.hostname, Origin: m.origin,
			TrustedTS: true, TrustedBackend: true, AllowKeySearch: m.search,
		},
	})
}

// derived remembers the keys of personas within the process: they depend on
// passphrase and identity alone, and each costs 600 000 rounds.
var derived sync.Map // of passphrase and eid to func() (*hem.PersonaKey, error)

func personas(user, master, eid string) (u, m *hem.PersonaKey, err error) {
	key := func(passphrase string) (*hem.PersonaKey, error) {
		once, _ := derived.LoadOrStore(passphrase+"\x00"+eid, sync.OnceValues(func() (*hem.PersonaKey, error) {
			return hem.DeriveKey([]byte(passphrase), eid)
		}))
		return once.(func() (*hem.PersonaKey, error))()
	}
	var wg sync.WaitGroup
	var errMaster error
	wg.Go(func() { m, errMaster = key(master) })
	u, err = key(user)
	wg.Wait()
	if err == nil {
		err = errMaster
	}
	return u, m, err
}

// Client is a client of the local user, with the user's key at hand: no
// derivation is waited for.
func (m *Module) Client() *hem.Client { return m.ClientOf(api.RoleUser) }

// ClientOf is a client of either persona.
func (m *Module) ClientOf(role api.Role) *hem.Client {
	m.t.Helper()
	m.Follow()
	user, master, err := personas(m.UserPassphrase, m.MasterPassphrase, m.EID)
	if err != nil {
		m.t.Fatalf("hemtest: %v", err)
	}
	cfg := hem.Config{URL: m.URL, CACert: m.CACert, Role: role, Key: user}
	if role == api.RoleMaster {
		cfg.Key = master
	}
	client, err := hem.New(cfg)
	if err != nil {
		m.t.Fatalf("hemtest: %v", err)
	}
	m.t.Cleanup(client.Close)
	return client
}

// HTTPClient is a plain HTTP client that trusts the module's certificate.
func (m *Module) HTTPClient() *http.Client {
	m.t.Helper()
	m.Follow()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(m.CACert)
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13},
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 64,
	}
	m.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

// Close ends the module before the test does.
func (m *Module) Close() {
	m.stop.Do(func() {
		if err := m.server.Stop(context.Background()); err != nil && !m.broken {
			m.t.Error(fmt.Errorf("hemtest: the module did not end well: %w", err))
		}
	})
}
