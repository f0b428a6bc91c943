package hem

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"softhem/api"
)

const (
	defaultRenewBefore = 60 * time.Second

	dialTimeout      = 10 * time.Second
	handshakeTimeout = 10 * time.Second
	idleTimeout      = 90 * time.Second
	maxHeaderBytes   = 64 << 10
	idlePerHost      = 64 // as many as a busy client has calls running
)

// Config says which module to talk to, and as whom. Only URL is required;
// without a credential (Passphrase, Key or Token) only the open endpoints
// answer.
type Config struct {
	// URL is the module's base address, such as https://localhost:8443. A path
	// is kept and put before every endpoint's. Modules manage and use keys over https
	// only, and many take logins over plain http from loopback only.
	URL string

	// HTTPClient, if not nil, does the exchanges; it is copied, and the copy
	// follows no redirects. nil makes one that wants TLS 1.3, keeps connections
	// alive, speaks HTTP/2 and heeds no proxy settings of the environment.
	HTTPClient *http.Client

	// CACert holds PEM certificates. If given, the module's own certificate must
	// come from one of them, and the system's authorities do not count. Not
	// together with HTTPClient.
	CACert []byte

	// InsecureSkipVerify takes any certificate: whoever sits in between can
	// use the tokens and read all data. TokenCache is not used then. Not
	// together with HTTPClient.
	InsecureSkipVerify bool

	// EID, if not empty, is the identity the module must state, base64 of 32
	// bytes; another is [ErrOtherModule]. A module gives no proof of it, so
	// this guards against a mixed-up address, and against being handed a salt of someone's
	// choice, but it does not replace TLS.
	EID string

	// Role is the persona to log in as; empty is [api.RoleUser].
	Role api.Role

	// Passphrase is asked for the persona's passphrase, in UTF-8, whenever a key must be
	// derived: once for each module met, and again after [Client.Forget] or
	// when a login was refused. The result is overwritten after use. Its context ends
	// when no caller waits for the login any more.
	Passphrase func(ctx context.Context, role api.Role) ([]byte, error)

	// Key is the persona's key pair, instead of a passphrase. It stays the caller's:
	// the client never wipes it.
	Key *PersonaKey

	// Token is a bearer token to use for every scope, instead of logging in. It is never
	// replaced: once the module refuses it, calls fail.
	Token Bearer

	// TTL is how long tokens shall live, in whole seconds; 0 leaves it to the
	// module (8 hours). The module may shorten it.
	TTL time.Duration

	// TokenContext, if not empty, is put into the claim ctx of every token, at
	// most [api.MaxContextChars] characters.
	TokenContext string

	// RenewBefore is how long before its end a token is replaced, 0 being 60 s, and
	// never more than half the token's life.
	RenewBefore time.Duration

	// TokenCache, if not nil, keeps tokens beyond the life of the Client.
	TokenCache TokenCache

	// Progress, if not nil, hears what takes time. It is called from any
	// goroutine and must not block.
	Progress func(Stage)

	// Now is the local clock; nil is [time.Now]. It measures how long tokens
	// have been held and need not agree with the module's.
	Now func() time.Time
}

// A Stage is something that takes noticeable time.
type Stage string

const (
	StagePassphrase Stage = "passphrase" // asking for the passphrase
	StageDerive     Stage = "derive"     // deriving the key, some tenths of a second
	StageLogin      Stage = "login"      // the module delays every login by half a second or more
	StageWait       Stage = "wait"       // the module asked to come back later
	StageSelfTest   Stage = "selftest"   // the module tests itself, a moment or minutes with very many keys
)

// A Client talks to one module as one persona. Make it with [New].
type Client struct {
	cfg     Config // with the defaults filled in
	base    *url.URL
	pin     []byte       // decoded Config.EID, or nil
	module  *http.Client // for the module
	backend *http.Client // for the backend of a check-in
	owned   bool         // both clients are ours

	points goodPoints

	logins      flights[Token]       // by scope
	derivations flights[*PersonaKey] // by eid

	mu     sync.Mutex
	epoch  int              // grows whenever secrets are dropped; what began before may not be stored after
	eid    string           // what the module last called itself; all below belongs to it
	tokens map[string]Token // by scope
	key    *PersonaKey      // derived from a passphrase, or nil
}

// New checks cfg and makes a Client. It does not connect.
func New(cfg Config) (*Client, error) {
	bad := func(format string, args ...any) (*Client, error) {
		return nil, fmt.Errorf("hem.Config: %w: "+format, append([]any{ErrArgument}, args...)...)
	}
	base, err := parseBase(cfg.URL)
	if err != nil {
		return bad("URL %w", err)
	}
	c := &Client{base: base, tokens: make(map[string]Token)}
	if cfg.EID != "" {
		if c.pin, err = decode32("EID", cfg.EID); err != nil {
			return bad("%w", err)
		}
	}
	switch cfg.Role {
	case "":
		cfg.Role = api.RoleUser
	case api.RoleUser, api.RoleMaster:
	default:
		return bad("Role is neither %q nor %q", api.RoleUser, api.RoleMaster)
	}
	credentials := 0
	for _, given := range []bool{cfg.Passphrase != nil, cfg.Key != nil, cfg.Token != ""} {
		if given {
			credentials++
		}
	}
	if credentials > 1 {
		return bad("only one of Passphrase, Key and Token can be used")
	}
	if !cfg.Token.plausible() {
		return bad("Token has characters that no token has (a line break at its end?)")
	}
	if cfg.TTL < 0 || cfg.TTL%time.Second != 0 {
		return bad("TTL is not a whole number of seconds")
	}
	if cfg.RenewBefore < 0 {
		return bad("RenewBefore is negative")
	}
	if cfg.RenewBefore == 0 {
		cfg.RenewBefore = defaultRenewBefore
	}
	if utf8.RuneCountInString(cfg.TokenContext) > api.MaxContextChars {
		return bad("TokenContext has more than %d characters", api.MaxContextChars)
	}
	if cfg.InsecureSkipVerify {
		cfg.TokenCache = nil
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Progress == nil {
		cfg.Progress = func(Stage) {}
	}
	if cfg.HTTPClient != nil {
		if len(cfg.CACert) > 0 || cfg.InsecureSkipVerify {
			return bad("CACert and InsecureSkipVerify belong into HTTPClient when one is given")
		}
		c.module = unredirected(*cfg.HTTPClient)
		c.backend = c.module
	} else if err := c.makeHTTPClients(cfg); err != nil {
		return bad("%w", err)
	}
	c.cfg = cfg
	return c, nil
}

// makeHTTPClients makes one client for the module and one for the backend. They
// differ in whom they believe: naming a CA narrows the module's choice
// to it, but a backend on the internet has a certificate of its own.
func (c *Client) makeHTTPClients(cfg Config) error {
	var modulePool, backendPool *x509.CertPool
	if len(cfg.CACert) > 0 {
		modulePool = x509.NewCertPool()
		if !modulePool.AppendCertsFromPEM(cfg.CACert) {
			return fmt.Errorf("CACert holds no PEM certificate")
		}
		var err error
		if backendPool, err = x509.SystemCertPool(); err != nil {
			backendPool = x509.NewCertPool()
		}
		backendPool.AppendCertsFromPEM(cfg.CACert)
	}
	transport := func(pool *x509.CertPool) *http.Client {
		return unredirected(http.Client{Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout: handshakeTimeout,
			TLSClientConfig: &tls.Config{
				MinVersion:         tls.VersionTLS13,
				RootCAs:            pool,
				InsecureSkipVerify: cfg.InsecureSkipVerify,
			},
			// HTTP/1.1, unless an HTTPClient is given: a call over HTTP/2 costs a
			// third more on both ends, and a client has few calls at a time.
			ForceAttemptHTTP2:      false,
			MaxIdleConnsPerHost:    idlePerHost,
			IdleConnTimeout:        idleTimeout,
			MaxResponseHeaderBytes: maxHeaderBytes,
			DisableCompression:     true, // bodies are small, and sizes must not depend on secrets in them
		}})
	}
	c.module, c.backend, c.owned = transport(modulePool), transport(backendPool), true
	return nil
}

// unredirected makes a client that hands redirects out as answers.
func unredirected(h http.Client) *http.Client {
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &h
}

// parseBase reads a base URL. Its errors do not repeat the text, which may hold
// a password someone put there.
func parseBase(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot be read")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("does not begin with https:// or http://")
	case u.Host == "":
		return nil, fmt.Errorf("has no host")
	case u.User != nil, u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return nil, fmt.Errorf("has more than scheme, host, port and path")
	}
	return &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host), Path: strings.TrimRight(u.Path, "/")}, nil
}

// Format implements [fmt.Formatter]: address and role, whatever the verb, and no token.
func (c *Client) Format(s fmt.State, _ rune) {
	if c == nil || c.base == nil {
		io.WriteString(s, "hem.Client(nil)")
		return
	}
	fmt.Fprintf(s, "hem.Client(%s as %s)", c.base, c.cfg.Role)
}

// Forget wipes the derived key and all tokens in memory, and leaves
// [Config.TokenCache] and [Config.Key] alone. The Client stays usable: the next
// call that needs a token asks for the passphrase again.
func (c *Client) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop()
}

// drop forgets everything that belongs to c.eid. c.mu is held.
func (c *Client) drop() {
	c.epoch++
	clear(c.tokens)
	if c.key != nil {
		c.key.Wipe()
		c.key = nil
	}
}

// Logout is [Client.Forget] together with what [Config.TokenCache] keeps for this
// module's URL, of all roles. The module is not told: it has no way to
// be, and the tokens stay valid there until they end or it reboots.
func (c *Client) Logout(ctx context.Context) error {
	c.Forget()
	if c.cfg.TokenCache == nil {
		return nil
	}
	if err := c.cfg.TokenCache.Clear(ctx, c.base.String()); err != nil {
		return &OpError{Op: "log out", Err: err}
	}
	return nil
}

// Close forgets like [Client.Forget] and closes idle connections, unless they
// belong to a [Config.HTTPClient].
func (c *Client) Close() {
	c.Forget()
	if c.owned {
		c.module.CloseIdleConnections()
		c.backend.CloseIdleConnections()
	}
}
