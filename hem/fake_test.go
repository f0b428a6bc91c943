package hem

import (
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"softhem/api"
)

// A fake speaks the login protocol with cryptography of its own and can be made
// to misbehave in ways no module can. What a module does right is tested against the real one.
type fake struct {
	t   testing.TB
	url string

	mu       sync.Mutex
	session  *ecdh.PrivateKey
	eid      string
	clock    int64             // the module's time; it does not move
	persona  string            // accepted iss, or "" for any
	nonces   map[string]bool   // issued and unused
	live     map[string]string // token -> scope
	handlers map[string]http.HandlerFunc
	counts   map[string]int // requests by method and path
}

type answerWriter = http.ResponseWriter

type request struct{ *http.Request }

func (r request) decode(t testing.TB, out any) {
	t.Helper()
	if err := json.NewDecoder(r.Body).Decode(out); err != nil {
		t.Error(err)
	}
}

const fakeClock = 1_900_000_000 // far from the local clock, which must not matter

func startFake(t testing.TB) *fake {
	f := &fake{
		t: t, clock: fakeClock, nonces: map[string]bool{}, live: map[string]string{},
		handlers: map[string]http.HandlerFunc{}, counts: map[string]int{},
	}
	f.renew()
	f.reboot()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

// reboot replaces the session key and kills tokens and nonces.
func (f *fake) reboot() {
	f.mu.Lock()
	defer f.mu.Unlock()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	f.session = key
	clear(f.live)
	clear(f.nonces)
}

// renew makes it another module.
func (f *fake) renew() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.eid = randomPoint(f.t)
}

func randomPoint(t testing.TB) string {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return api.EncodeBase64(key.PublicKey().Bytes())
}

// handle replaces or adds an endpoint.
func (f *fake) handle(route string, h func(answerWriter, request)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.handlers[route] = func(w http.ResponseWriter, r *http.Request) { h(w, request{r}) }
}

func (f *fake) count(route string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[route]
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	route := r.Method + " " + r.URL.Path
	f.mu.Lock()
	f.counts[route]++
	h := f.handlers[route]
	f.mu.Unlock()
	if r.Method == http.MethodPost && r.ContentLength < 0 {
		f.t.Errorf("%s without Content-Length", route)
	}
	switch {
	case h != nil:
		h(w, r)
	case route == "GET "+pathToken:
		writeJSON(w, f.challenge())
	case route == "POST "+pathToken:
		f.login(w, r)
	case route == "GET /api/system/config":
		f.guarded(w, r, api.ScopeSystemConfig, api.Config{EID: f.identity(), User: "Ada"})
	case route == "GET /api/logger/key":
		f.guarded(w, r, api.ScopeLoggerGet, api.LoggerKey{Key: "k"})
	case route == "GET /api/system/status":
		writeJSON(w, api.Status{HTTPS: true, Uptime: 7})
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (f *fake) identity() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.eid
}

func (f *fake) challenge() api.Challenge {
	f.mu.Lock()
	defer f.mu.Unlock()
	nonce := make([]byte, 32)
	rand.Read(nonce)
	binary.LittleEndian.PutUint32(nonce, uint32(f.clock))
	jti := api.EncodeBase64(nonce)
	f.nonces[jti] = true
	return api.Challenge{
		Exp: f.clock + 60, SPK: api.EncodeBase64(f.session.PublicKey().Bytes()), JTI: jti, Lbl: "Ada", EID: f.eid,
	}
}

func (f *fake) login(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var body api.AuthRequest
	if json.NewDecoder(r.Body).Decode(&body) != nil {
		w.WriteHeader(400)
		return
	}
	claims, err := f.verify(body.Auth)
	if err != nil {
		f.t.Logf("login refused: %v", err)
		w.WriteHeader(401)
		return
	}
	exp := claims.Exp
	if exp == 0 {
		exp = f.clock + 28800
	}
	token := fakeToken(f.t, api.TokenClaims{Scope: claims.Scope, Sub: "U", Iat: f.clock, Exp: exp, JTI: rand.Text(), Ctx: claims.Ctx})
	f.live[token] = claims.Scope
	writeJSON(w, api.TokenAnswer{Token: token})
}

func (f *fake) verify(auth string) (c api.LoginClaims, err error) {
	parts := strings.Split(auth, ".")
	if len(parts) != 3 {
		return c, fmt.Errorf("%d segments", len(parts))
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return c, err
	}
	iss, err := base64.StdEncoding.DecodeString(c.Iss)
	if err != nil {
		return c, err
	}
	peer, err := ecdh.X25519().NewPublicKey(iss)
	if err != nil {
		return c, err
	}
	key, err := f.session.ECDH(peer)
	if err != nil {
		return c, err
	}
	mac := hmac.New(sha256.New, key)
	io.WriteString(mac, parts[0]+"."+parts[1])
	switch {
	case base64.RawURLEncoding.EncodeToString(mac.Sum(nil)) != parts[2]:
		return c, fmt.Errorf("wrong MAC")
	case !f.nonces[c.JTI]:
		return c, fmt.Errorf("unknown nonce")
	case c.Aud != api.EncodeBase64(f.session.PublicKey().Bytes()):
		return c, fmt.Errorf("wrong aud")
	case f.persona != "" && f.persona != c.Iss:
		return c, fmt.Errorf("wrong iss")
	case c.Iat != f.clock-5:
		return c, fmt.Errorf("iat is %d s off the module's clock", c.Iat-f.clock)
	}
	delete(f.nonces, c.JTI)
	return c, nil
}

func fakeToken(t testing.TB, claims api.TokenClaims) string {
	raw, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return segment([]byte(`{"typ":"JWT","alg":"HS256"}`)) + "." + segment(raw) + "." + segment(make([]byte, 32))
}

func (f *fake) guarded(w http.ResponseWriter, r *http.Request, scope string, answer any) {
	f.mu.Lock()
	held, ok := f.live[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	f.mu.Unlock()
	switch {
	case !ok:
		w.WriteHeader(401)
	case !api.ScopeSatisfies(held, scope):
		w.WriteHeader(403)
	default:
		writeJSON(w, answer)
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func newClient(t testing.TB, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func testKey(t testing.TB) *PersonaKey {
	t.Helper()
	seed := make([]byte, keySize)
	rand.Read(seed)
	k, err := KeyFromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }
