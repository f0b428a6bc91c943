package httpapi_test

import (
	"bytes"
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/suite"
)

// A peer talks to a module by hand and holds every answer against
// docs/openapi.yaml and the rules of the protocol.
type peer struct {
	t      *testing.T
	module *hemtest.Module
	base   string
	client *http.Client
	router routers.Router
}

func newPeer(t *testing.T, m *hemtest.Module) *peer {
	t.Helper()
	return &peer{t: t, module: m, base: m.URL, client: m.HTTPClient(), router: documented(t)}
}

// documented finds the operation of a request in docs/openapi.yaml.
func documented(t testing.TB) routers.Router {
	t.Helper()
	loader := openapi3.NewLoader()
	doc, err := loader.LoadFromFile("../../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		t.Fatalf("docs/openapi.yaml: %v", err)
	}
	doc.Servers = nil
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return router
}

// plain is the same peer over plain HTTP.
func (p *peer) plain() *peer {
	c := *p
	c.base = p.module.HTTPURL
	return &c
}

// request is what a peer sends; zero fields are left out.
type request struct {
	method, path string
	body         string
	token        *string
	header       http.Header
	chunked      bool

	// Of rows of tables, which do not send it themselves.
	scope string // for which the token is to be
	fresh bool   // for the module that is not personalised
}

type answer struct {
	status int
	header http.Header
	body   []byte
	closed bool
}

// do sends r and checks what holds for every answer of the API.
func (p *peer) do(r request) answer {
	p.t.Helper()
	var body io.Reader
	if r.body != "" || r.method == http.MethodPost {
		body = strings.NewReader(r.body)
		if r.chunked {
			body = struct{ io.Reader }{body} // its length is unknown
		}
	}
	req, err := http.NewRequest(r.method, p.base+r.path, body)
	if err != nil {
		p.t.Fatal(err)
	}
	if r.chunked { // so that it can go over another connection when this one is being closed, as after a 413
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(r.body)), nil }
	}
	if r.header != nil {
		req.Header = r.header.Clone()
	}
	if r.token != nil {
		req.Header.Set("Authorization", "Bearer "+*r.token)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		p.t.Fatalf("%s %s: %v", r.method, r.path, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatalf("%s %s: %v", r.method, r.path, err)
	}
	a := answer{resp.StatusCode, resp.Header, raw, resp.Close}
	p.check(req, a)
	return a
}

// check holds an answer against the protocol's rules and the OpenAPI document.
func (p *peer) check(req *http.Request, a answer) {
	p.t.Helper()
	where := req.Method + " " + req.URL.Path
	update := where == "POST /api/system/config"
	if a.status >= 300 && len(a.body) != 0 && req.Method != http.MethodHead && !(update && a.status == http.StatusBadRequest) {
		p.t.Errorf("%s: an error with a body: %q", where, a.body)
	}
	if got := a.header.Get("Content-Type"); got != "application/json" && !strings.HasPrefix(got, "text/plain") {
		p.t.Errorf("%s: Content-Type %q", where, got)
	}
	if a.status == http.StatusUnauthorized && a.header.Get(api.HeaderError) != "" {
		p.t.Errorf("%s: a 401 that tells why: %q", where, a.header.Get(api.HeaderError))
	}
	if req.Method == http.MethodOptions || a.status == http.StatusNotFound {
		return // not in the document
	}
	if update && len(a.body) == 0 && (a.status == http.StatusOK || a.status == http.StatusBadRequest) {
		return // the document cannot say: this JSON, or nothing
	}
	route, params, err := p.router.FindRoute(req)
	if err != nil {
		p.t.Errorf("%s is not in docs/openapi.yaml: %v", where, err)
		return
	}
	input := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route},
		Status:                 a.status, Header: a.header, Body: io.NopCloser(bytes.NewReader(a.body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	}
	if err := openapi3filter.ValidateResponse(context.Background(), input); err != nil {
		p.t.Errorf("%s answered %d against docs/openapi.yaml: %v\n%s", where, a.status, err, a.body)
	}
}

func (p *peer) get(path string, into any) answer {
	p.t.Helper()
	a := p.do(request{method: "GET", path: path})
	if into != nil && a.status == http.StatusOK {
		if err := json.Unmarshal(a.body, into); err != nil {
			p.t.Fatalf("GET %s: %v", path, err)
		}
	}
	return a
}

// token logs in through the SDK and returns a bearer token.
func (p *peer) token(role api.Role, scope string) *string {
	p.t.Helper()
	tok, err := p.module.ClientOf(role).Login(context.Background(), scope)
	if err != nil {
		p.t.Fatalf("login as %s for %s: %v", role, scope, err)
	}
	text := string(tok.Bearer)
	return &text
}

// persona is a key pair that signs proofs in every right and wrong way.
type persona struct{ key *suite.X25519Key }

func newPersona(seed []byte) persona {
	k, err := suite.NewX25519Key(seed)
	if err != nil {
		panic(err)
	}
	return persona{k}
}

const goodHeader = `{"ecdh":"x25519","alg":"HS256","typ":"JWT"}`

func b64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// sign makes an eJWT for spk with a header and claims of one's choice.
func (p persona) sign(t testing.TB, header string, claims any, spk string) string {
	t.Helper()
	peer, err := api.DecodeBase64(spk)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := p.key.Shared(peer)
	if err != nil {
		t.Fatal(err)
	}
	return signWith(t, header, claims, secret)
}

func signWith(t testing.TB, header string, claims any, secret []byte) string {
	t.Helper()
	body, ok := claims.(string)
	if !ok {
		raw, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		body = string(raw)
	}
	signed := b64url([]byte(header)) + "." + b64url([]byte(body))
	return signed + "." + b64url(suite.HMACSHA256(secret, []byte(signed)))
}

func (p persona) public() string { return api.EncodeBase64(p.key.Public()) }

// user is the module's local user, by the key the passphrase gives.
func (p *peer) user() persona { return p.persona(p.module.UserPassphrase) }

func (p *peer) persona(passphrase string) persona {
	return newPersona(seedOf(p.t, passphrase, p.module.EID))
}

// backend plays a check-in authority.
type backend struct{ persona }

func newBackend() backend { return backend{newPersona(suite.Random(32))} }

// checked answers a check at a time, with a status made from the instance id.
func (b backend) checked(t testing.TB, check api.Check, now time.Time, edit func(claims map[string]any)) string {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(check.Check, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var c api.CheckClaims
	if err := json.Unmarshal(payload, &c); err != nil {
		t.Fatal(err)
	}
	qid, err := api.DecodeBase64(c.QID)
	if err != nil {
		t.Fatal(err)
	}
	claims := map[string]any{
		"jti": c.JTI, "iat": now.Unix(), "iss": b.public(), "aud": c.Iss,
		"status": api.EncodeBase64(suite.HMACSHA256(qid, []byte("OK"))),
	}
	if edit != nil {
		edit(claims)
	}
	body, err := json.Marshal(api.Checked{Checked: b.sign(t, goodHeader, claims, c.Iss)})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// checkIn does a whole check-in and returns the last answer.
func (p *peer) checkIn(b backend, now time.Time) answer {
	p.t.Helper()
	var check api.Check
	if a := p.get("/api/system/checkin", &check); a.status != http.StatusOK {
		p.t.Fatalf("GET checkin: %d", a.status)
	}
	return p.do(request{method: "POST", path: "/api/system/checkin", body: b.checked(p.t, check, now, nil)})
}

// seeds remembers derivations: each costs 600 000 rounds.
var seeds sync.Map

func seedOf(t testing.TB, passphrase, eid string) []byte {
	t.Helper()
	if seed, ok := seeds.Load(passphrase + "|" + eid); ok {
		return seed.([]byte)
	}
	seed, err := pbkdf2.Key(sha256.New, passphrase, []byte(eid), 600_000, 32)
	if err != nil {
		t.Fatal(err)
	}
	seeds.Store(passphrase+"|"+eid, seed)
	return seed
}
