package httpapi_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/session"
	"softhem/internal/suite"
)

// A scene is a module and a broker's session key, for whom the test carries the
// messages.
type scene struct {
	*keeper
	broker persona
}

func newScene(t *testing.T, opts *hemtest.Options) *scene {
	t.Helper()
	return &scene{newKeeper(t, opts), newPersona(suite.Random(32))}
}

// A phone is one authenticator's pairing.
type phone struct {
	persona
	t      testing.TB
	eid    string
	pid    string
	kid    string
	secret *suite.MACKey
}

func (s *scene) newPhone() *phone {
	f := &phone{persona: newPersona(suite.Random(32)), t: s.t, eid: s.module.EID, pid: api.EncodeBase64(suite.Random(32))}
	raw, err := api.DecodeBase64(f.eid)
	if err != nil {
		s.t.Fatal(err)
	}
	shared, err := f.key.Shared(raw)
	if err != nil {
		s.t.Fatal(err)
	}
	f.secret = suite.NewMACKey(shared)
	return f
}

func into[T any](t testing.TB, a answer) (v T) {
	t.Helper()
	if a.status != http.StatusOK {
		t.Fatalf("%d (%s), want 200", a.status, a.header.Get(api.HeaderError))
	}
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// begin asks for the request of a pairing and returns its claims.
func (s *scene) begin() (c api.PairingRequestClaims) {
	s.t.Helper()
	got := into[api.ExtInitAnswer](s.t, s.post("/api/auth/ext/init", api.ScopeExtPair, fields{"epk": s.broker.public()}))
	if _, err := session.OpenEJWT(s.broker.key, got.Request, &c); err != nil {
		s.t.Fatal(err)
	}
	if got.EID != s.module.EID || c.Iss != s.module.EID || c.Aud != s.broker.public() {
		s.t.Errorf("request %+v of %s", c, got.EID)
	}
	return c
}

// reply is what a phone answers to a request.
func (f *phone) reply(c api.PairingRequestClaims, change fields) string {
	f.t.Helper()
	claims := fields{"jti": c.JTI, "iss": f.public(), "aud": f.eid, "epk": c.Aud, "label": "phone"}.but(change)
	return f.sign(f.t, goodHeader, without(claims), f.eid)
}

// without drops the fields that are nil.
func without(f fields) map[string]any {
	for name, value := range f {
		if value == nil {
			delete(f, name)
		}
	}
	return f
}

func (s *scene) validate(pid, reply string) answer {
	s.t.Helper()
	return s.post("/api/auth/ext/validate", api.ScopeExtPair, fields{"pid": pid, "reply": reply})
}

// pair pairs a new phone.
func (s *scene) pair() *phone {
	s.t.Helper()
	f := s.newPhone()
	s.repair(f)
	return f
}

// repair pairs a phone once more.
func (s *scene) repair(f *phone) {
	s.t.Helper()
	reply := f.reply(s.begin(), nil)
	done := into[api.ExtValidateAnswer](s.t, s.validate(f.pid, reply))
	shared, err := s.broker.key.Shared(mustDecode(s.t, s.module.EID))
	if err != nil {
		s.t.Fatal(err)
	}
	if want := api.EncodeBase64(suite.HMACSHA256(shared, []byte(reply))); done.Code != want {
		s.t.Errorf("code %s, want %s", done.Code, want)
	}
	f.kid = done.KID
}

func mustDecode(t testing.TB, text string) []byte {
	t.Helper()
	b, err := api.DecodeBase64(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ask asks for a scope, without any token.
func (s *scene) ask(f fields) answer {
	s.t.Helper()
	return s.do(request{method: "POST", path: "/api/auth/ext/request", body: fields{"epk": s.broker.public(), "scope": "system:config"}.but(f).json(s.t)})
}

func (s *scene) asked(f fields) (c api.AuthReqClaims) {
	s.t.Helper()
	got := into[api.ExtRequestAnswer](s.t, s.ask(f))
	if _, err := session.OpenEJWT(s.broker.key, got.AuthReq, &c); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// shown is the scope as a phone reads it.
func (f *phone) shown(c api.AuthReqClaims) string {
	f.t.Helper()
	scope, err := session.OpenScope(f.secret, nonceOf(f.t, c.JTI), c.Scope[f.pid])
	if err != nil {
		f.t.Fatal(err)
	}
	return scope
}

func nonceOf(t testing.TB, jti string) session.Nonce {
	t.Helper()
	b, ok := session.Decode32(jti)
	if !ok {
		t.Fatal("no nonce")
	}
	return b
}

// allow is the phone's approval of a request, with claims of one's choice.
func (f *phone) allow(c api.AuthReqClaims, change fields) string {
	f.t.Helper()
	claims := fields{
		"aud": f.eid, "jti": c.JTI, "exp": time.Now().Unix() + 900, "iat": time.Now().Unix(), "pid": f.pid, "iss": f.public(), "scope": c.Scope[f.pid],
	}.but(change)
	return f.sign(f.t, goodHeader, without(claims), f.eid)
}

// seal seals a scope for a request as the phone does.
func (f *phone) seal(c api.AuthReqClaims, scope string) string {
	return session.SealScope(f.secret, nonceOf(f.t, c.JTI), scope)
}

func (s *scene) redeem(authreply string, proof []byte) answer {
	s.t.Helper()
	f := fields{"authreply": authreply}
	if proof != nil {
		f["proof"] = proof
	}
	return s.do(request{method: "POST", path: "/api/auth/ext/token", body: f.json(s.t)})
}

// granted is the token of an approval, and its claims.
func (s *scene) granted(authreply string, proof []byte) (token string, c api.TokenClaims) {
	s.t.Helper()
	token = into[api.TokenAnswer](s.t, s.redeem(authreply, proof)).Token
	claimsOfToken(s.t, token, &c)
	return token, c
}
