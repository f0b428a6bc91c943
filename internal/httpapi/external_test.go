package httpapi_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/audit"
	"softhem/internal/suite"
)

func claimsOfToken(t testing.TB, token string, into any) {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
}

// A whole round: pairing, search, request, approval, token, use, unpairing.
func TestExternalRound(t *testing.T) {
	s := newScene(t, nil)
	f := s.pair()
	key := s.create("ED25519")

	// The pairing is a key that anybody finds by its descr.
	search := request{method: "POST", path: "/api/keymgmt/search", body: `{"descr":"^` + base64.StdEncoding.EncodeToString([]byte(api.PairingPrefix)) + `"}`}
	list := into[api.KeyList](t, s.do(search))
	want := append([]byte(api.PairingPrefix), mustDecode(t, f.pid)...)
	if list.Total != 1 || list.List[0].KID != f.kid || list.List[0].Label != "phone" || list.List[0].Descr != api.EncodeBase64(want) || list.List[0].Type != "ECDH,CURVE25519" {
		t.Errorf("search without a token: %+v", list)
	}
	if sum := suite.SHA1(f.key.Public()); hex.EncodeToString(sum[:16]) != f.kid {
		t.Errorf("kid %s", f.kid)
	}

	c := s.asked(fields{"scope": api.ScopeKeyUse(key), "ctx": "ci", "note": "release 1.0"})
	if c.Exp-c.Iat != 900 || c.Ctx != "ci" || c.Note != "release 1.0" || len(c.Scope) != 1 {
		t.Errorf("request %+v", c)
	}
	shown, note, _ := strings.Cut(f.shown(c), "#")
	if shown != api.ScopeKeyUse(key) || string(mustDecode(t, note)) != `{"t":"ATT,PKEY,ExDSA,ED25519","l":"made"}` {
		t.Errorf("shown %s # %s", shown, mustDecode(t, note))
	}
	exp := time.Now().Unix() + 3600
	token, claims := s.granted(f.allow(c, fields{"exp": exp, "ctx": "phone says"}), nil)
	if claims.Scope != api.ScopeKeyUse(key) || string(claims.Sub) != base64.StdEncoding.EncodeToString(mustHex(t, f.kid)) || claims.Exp != exp || claims.Ctx != "phone says" {
		t.Errorf("token %+v", claims)
	}
	sign := func() int {
		return s.do(request{method: "POST", path: "/api/crypto/exdsa/sign", token: &token,
			body: fields{"kid": key, "msg": []byte("m"), "alg": "Ed25519"}.json(t)}).status
	}
	if got := sign(); got != 200 {
		t.Errorf("sign with the granted token: %d", got)
	}
	// The token is the authenticator's, and dies with the pairing, at once.
	s.want("unpair", s.delete(f.kid), 200)
	if got := sign(); got != 401 {
		t.Errorf("sign after the unpairing: %d", got)
	}
	c = s.asked(nil)
	if len(c.Scope) != 0 {
		t.Errorf("asked nobody: %v", c.Scope)
	}
	// Paired again, the same key has no life in its old tokens.
	s.repair(f)
	if got := sign(); got != 401 {
		t.Errorf("sign after pairing again: %d", got)
	}
	if _, claims = s.granted(f.allow(s.asked(nil), nil), nil); claims.Scope != "system:config" {
		t.Errorf("token %+v", claims)
	}
}

func mustHex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Requests: what is asked for and how long it lives, and every field's limits.
func TestExtRequest(t *testing.T) {
	s := newScene(t, nil)
	if got := into[map[string]any](t, s.ask(nil)); got["epk"] != s.broker.public() {
		t.Errorf("answer %v", got)
	}
	if c := s.asked(nil); c.Scope == nil || len(c.Scope) != 0 {
		t.Errorf("without pairings scope is %v, want {}", c.Scope)
	}
	f, g := s.pair(), s.pair()
	unknown := "keymgmt:use:" + strings.Repeat("0", 32)
	for scope, life := range map[string]int64{
		"system:config": 3600, strings.Repeat("x", 1023): 3600, unknown: 900, unknown + "0": 3600, unknown[:40]: 3600, "storage:disk0:rw": 3600, " ~": 3600,
	} {
		c := s.asked(fields{"scope": scope, "exp": 5})
		if c.Exp-c.Iat != life || f.shown(c) != scope || g.shown(c) != scope || c.Scope[f.pid] == c.Scope[g.pid] {
			t.Errorf("%.50s: lives %d s, shown %.50s", scope, c.Exp-c.Iat, f.shown(c))
		}
	}
	low := make([]byte, 32)
	for name, f := range map[string]fields{
		"no scope": {"scope": nil}, "an empty scope": {"scope": ""}, "a long scope": {"scope": strings.Repeat("x", 1024)},
		"a # in the scope": {"scope": "keymgmt:use:" + s.create("AES128") + "#eyJ0IjoiIiwibCI6InJlbGVhc2UifQ=="}, "a line break": {"scope": "a\nb"},
		"a letter that is not ASCII": {"scope": "systém"}, "a DEL": {"scope": "a\x7f"}, "scope as a number": {"scope": 5},
		"a long ctx": {"ctx": strings.Repeat("c", 65)}, "a long note": {"note": strings.Repeat("n", 129)}, "ctx as a number": {"ctx": 1},
		"no epk": {"epk": nil}, "a short epk": {"epk": low[:31]}, "a low-order epk": {"epk": low}, "eid as epk": {"epk": s.module.EID}, "aid as epk": {"epk": f.public()},
		"spk as epk": {"epk": s.challenge().SPK}, "a short bind": {"bind": low[:31]}, "a bind that is no base64": {"bind": "?"},
	} {
		s.want(name, s.ask(f), 400)
	}
	s.want("the longest ctx and note", s.ask(fields{"ctx": strings.Repeat("é", 64), "note": strings.Repeat("n", 128), "bind": low}), 200)
}

// Pairing: who may, what is checked, and what is kept.
func TestExtPairing(t *testing.T) {
	s := newScene(t, nil)
	f := s.newPhone()
	endpoints := map[string]fields{"init": {"epk": s.broker.public()}, "mac": {"epk": s.broker.public()}, "validate": {"pid": f.pid, "reply": "x"}}
	for name, body := range endpoints {
		path := "/api/auth/ext/" + name
		s.want(name+" without a token", s.do(request{method: "POST", path: path, body: body.json(t)}), 401)
		for _, scope := range []string{api.ScopeExtPair, api.ScopeSystemConfig} {
			s.want(name+" as the administrator", s.do(request{method: "POST", path: path, body: body.json(t), token: s.as(api.RoleMaster, scope)}), 403)
		}
		for _, scope := range []string{"auth:ext", api.ScopeKeyGen, ""} {
			s.want(name+" with scope "+scope, s.post(path, scope, body), 403)
		}
	}
	s.want("init with system:config", s.post("/api/auth/ext/init", api.ScopeSystemConfig, endpoints["init"]), 200)
	for _, name := range []string{"init", "mac"} {
		for _, epk := range []any{nil, "", "AAAA", make([]byte, 32), s.module.EID, s.challenge().SPK} {
			s.want(fmt.Sprint(name, " with epk ", epk), s.post("/api/auth/ext/"+name, api.ScopeExtPair, fields{"epk": epk}), 400)
		}
	}
	mac := into[api.ExtMACAnswer](t, s.post("/api/auth/ext/mac", api.ScopeExtPair, endpoints["mac"]))
	shared, err := s.broker.key.Shared(mustDecode(t, s.module.EID))
	if err != nil {
		t.Fatal(err)
	}
	if want := suite.HMACSHA256(shared, mustDecode(t, mac.Nonce)); mac.MAC != api.EncodeBase64(want) || mac.EID != s.module.EID {
		t.Errorf("mac %+v", mac)
	}
	if c := s.begin(); c.Exp < time.Now().Unix()+86_395 || c.Exp > time.Now().Unix()+86_400 {
		t.Errorf("request ends at %d", c.Exp)
	}

	for _, pid := range []any{nil, "", "AAAA", 5} {
		s.want(fmt.Sprint("pid ", pid), s.post("/api/auth/ext/validate", api.ScopeExtPair, fields{"pid": pid, "reply": "x"}), 400)
	}
	s.want("no reply", s.post("/api/auth/ext/validate", api.ScopeExtPair, fields{"pid": f.pid}), 400)
	other := newPersona(suite.Random(32))
	for name, reply := range map[string]string{
		"no eJWT": "x.y.z", "signed for another module": f.sign(t, goodHeader, map[string]any{"jti": s.begin().JTI, "iss": f.public(), "epk": s.broker.public(), "label": "x"}, other.public()),
		"another aud": f.reply(s.begin(), fields{"aud": other.public()}), "another epk": f.reply(s.begin(), fields{"epk": other.public()}),
		"no epk": f.reply(s.begin(), fields{"epk": nil}), "no label": f.reply(s.begin(), fields{"label": nil}), "a label that is a number": f.reply(s.begin(), fields{"label": 5}),
		"a foreign nonce": f.reply(s.begin(), fields{"jti": suite.Random(32)}), "the nonce of a login": f.reply(s.begin(), fields{"jti": s.challenge().JTI}),
		"the nonce of ext/mac": f.reply(s.begin(), fields{"jti": mac.Nonce}), "no nonce": f.reply(s.begin(), fields{"jti": nil}),
	} {
		if a := s.validate(f.pid, reply); a.status != 401 {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	// aud need not be there, and a broker that makes itself the authenticator of
	// its own session key is found out.
	s.broker.key, other.key = other.key, s.broker.key
	s.want("the broker as authenticator", s.validate(f.pid, (&phone{persona: s.broker, t: t, eid: s.module.EID}).reply(s.begin(), nil)), 401)
	reply := f.reply(s.begin(), fields{"aud": nil, "label": "Téléphone de mon ami qui a un nom trop long", "kp": "x"})
	done := into[api.ExtValidateAnswer](t, s.validate(f.pid, reply))
	s.want("the same reply again", s.validate(f.pid, reply), 401)
	list := into[api.KeyList](t, s.do(request{method: "GET", path: "/api/keymgmt/list", token: s.as(api.RoleUser, api.ScopeKeyList)}))
	for _, k := range list.List {
		if k.KID == done.KID && k.Label != "T?l?phone de mon ami qui a un no" {
			t.Errorf("label %q", k.Label)
		}
	}
	// The same authenticator, the same pid, and a key that is stored already.
	g := s.newPhone()
	for name, a := range map[string]answer{
		"the same key": s.validate(g.pid, f.reply(s.begin(), nil)), "the same pid": s.validate(f.pid, g.reply(s.begin(), nil)),
		"an imported key": func() answer {
			s.imports("CURVE25519", g.key.Public())
			return s.validate(g.pid, g.reply(s.begin(), nil))
		}(),
	} {
		if a.status != 406 || a.header.Get(api.HeaderError) != "refused" {
			t.Errorf("%s: %d %q", name, a.status, a.header.Get(api.HeaderError))
		}
	}
	s.want("a pairing's descr is kept", s.post("/api/keymgmt/update", api.ScopeKeyUpdate, fields{"kid": done.KID, "label": "x"}), 406)
}

// Eight pairings are all there are, also for many who come at once.
func TestThreat_T91_TheNinthPairing(t *testing.T) {
	s := newScene(t, nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	count := map[int]int{}
	type try struct {
		f     *phone
		reply string
	}
	var tries []try
	for range 12 {
		f := s.newPhone()
		tries = append(tries, try{f, f.reply(s.begin(), nil)})
	}
	for _, one := range tries {
		wg.Go(func() {
			a := s.validate(one.f.pid, one.reply)
			mu.Lock()
			defer mu.Unlock()
			count[a.status]++
			if a.status == 200 {
				var done api.ExtValidateAnswer
				if json.Unmarshal(a.body, &done) == nil {
					one.f.kid = done.KID
				}
			} else if a.header.Get(api.HeaderError) != "refused" {
				t.Errorf("reason %q", a.header.Get(api.HeaderError))
			}
		})
	}
	wg.Wait()
	if count[200] != api.MaxPairings || count[406] != 4 {
		t.Fatalf("answers %v", count)
	}
	c := s.asked(nil)
	if len(c.Scope) != api.MaxPairings {
		t.Errorf("%d are asked", len(c.Scope))
	}
	for _, one := range tries {
		if one.f.kid == "" {
			if a := s.redeem(one.f.allow(s.asked(nil), fields{"scope": one.f.seal(c, "system:config")}), nil); a.status != 406 {
				t.Errorf("approval of one who was not paired: %d", a.status)
			}
			continue
		}
		if got := one.f.shown(c); got != "system:config" {
			t.Errorf("shown %q", got)
		}
	}
	for _, one := range tries {
		if one.f.kid != "" {
			s.want("make room", s.delete(one.f.kid), 200)
			break
		}
	}
	s.pair()
}

// What an approval can be wrong in, and what each of it is answered.
func TestExtToken(t *testing.T) {
	s := newScene(t, nil)
	f, g := s.pair(), s.pair()
	stranger := s.newPhone()
	key := s.create("ED25519")
	now := time.Now().Unix()

	type wrong struct {
		name   string
		status int
		reply  func(c api.AuthReqClaims) string
	}
	with := func(change fields) func(api.AuthReqClaims) string {
		return func(c api.AuthReqClaims) string { return f.allow(c, change) }
	}
	sealed := func(scope string) func(api.AuthReqClaims) string {
		return func(c api.AuthReqClaims) string { return f.allow(c, fields{"scope": f.seal(c, scope)}) }
	}
	for _, w := range []wrong{
		{"no eJWT", 401, func(api.AuthReqClaims) string { return "a.b.c" }},
		{"signed for another module", 401, func(c api.AuthReqClaims) string {
			other := *f
			other.eid = newPersona(suite.Random(32)).public()
			return other.allow(c, nil)
		}},
		{"another aud", 401, with(fields{"aud": s.broker.public()})},
		{"no aud", 401, with(fields{"aud": nil})},
		{"a foreign nonce", 401, with(fields{"jti": suite.Random(32)})},
		{"the nonce of a login", 401, with(fields{"jti": s.challenge().JTI})},
		{"the nonce of a pairing", 401, with(fields{"jti": s.begin().JTI})},
		{"no nonce", 401, with(fields{"jti": nil})},
		{"an end in the past", 401, with(fields{"exp": now - 1})},
		{"a long ctx", 401, with(fields{"ctx": strings.Repeat("c", 65)})},
		{"exp as a text", 401, with(fields{"exp": "never"})},
		{"another iss", 401, with(fields{"iss": g.public()})},
		{"a stranger", 406, func(c api.AuthReqClaims) string {
			return stranger.allow(c, fields{"scope": stranger.seal(c, "system:config")})
		}},
		{"another pid", 406, with(fields{"pid": g.pid})},
		{"no pid", 406, with(fields{"pid": nil})},
		{"an unknown scheme", 406, func(c api.AuthReqClaims) string { return f.allow(c, fields{"scope": "B" + c.Scope[f.pid][1:]}) }},
		{"the scope sealed for another", 406, func(c api.AuthReqClaims) string { return f.allow(c, fields{"scope": c.Scope[g.pid]}) }},
		{"no scope", 406, with(fields{"scope": nil})},
		{"another scope", 406, sealed("keymgmt:gen")},
		{"a longer scope", 406, sealed("system:configuration")},
		{"a shorter scope", 406, sealed("system:")},
		{"a scope with rw", 406, sealed("system:config:rw")},
	} {
		c := s.asked(nil)
		a := s.redeem(w.reply(c), nil)
		reason := ""
		if w.status == 406 {
			reason = "refused"
		}
		if a.status != w.status || a.header.Get(api.HeaderError) != reason {
			t.Errorf("%s: %d %q, want %d", w.name, a.status, a.header.Get(api.HeaderError), w.status)
		}
	}
	for _, body := range []string{"", "{}", `{"authreply":null}`, `{"authreply":5}`, `{"authreply":"x","proof":"?"}`, `{"authreply":"x","proof":"` + api.EncodeBase64(make([]byte, 129)) + `"}`} {
		s.want("body "+body, s.do(request{method: "POST", path: "/api/auth/ext/token", body: body}), 400)
	}

	// What is right: exp as given, 8 hours without one, no more than the limit.
	for name, row := range map[string]struct {
		change fields
		least  int64
		most   int64
	}{
		"no exp": {fields{"exp": nil}, 28_800, 28_802}, "exp 0": {fields{"exp": 0}, 28_800, 28_802},
		"a week": {fields{"exp": now + 7*86_400}, 86_400, 86_402}, "no iat": {fields{"iat": nil}, 899, 902}, "iat far ahead": {fields{"iat": now + 5000}, 899, 902},
	} {
		_, c := s.granted(f.allow(s.asked(nil), row.change), nil)
		if life := c.Exp - now; life < row.least || life > row.most+5 {
			t.Errorf("%s: lives %d s", name, life)
		}
	}
	// Narrowing: a disk less its rw, and nothing else.
	for _, row := range []struct {
		asked, granted string
		status         int
	}{
		{"storage:disk0:rw", "storage:disk0", 200}, {"storage:disk0:rw", "storage:disk0:rw", 200}, {"storage:disk0", "storage:disk0", 200},
		{"storage:disk0", "storage:disk0:rw", 406}, {"storage:disk0:rw", "storage:disk1", 406}, {"storage:disk0:rw", "storage:disk", 406},
		{"storage:disk0:rw", "storage:disk0:r", 406}, {"storage:diskx:rw", "storage:diskx", 406}, {"keymgmt:gen:rw", "keymgmt:gen", 406},
		{api.ScopeKeyUse(key), api.ScopeKeyUse(key) + "#" + "anything", 200}, {api.ScopeKeyUse(key), api.ScopeKeyUse(key), 200},
		{api.ScopeKeyUse(key), api.ScopeKeyUse(f.kid), 406}, {"system:config", "system:config#x", 200},
	} {
		c := s.asked(fields{"scope": row.asked})
		a := s.redeem(f.allow(c, fields{"scope": f.seal(c, row.granted)}), nil)
		if a.status != row.status {
			t.Errorf("%s granted for %s: %d, want %d", row.granted, row.asked, a.status, row.status)
		}
		if a.status == 200 {
			var c api.TokenClaims
			claimsOfToken(t, into[api.TokenAnswer](t, a).Token, &c)
			if scope, _, _ := strings.Cut(row.granted, "#"); c.Scope != scope {
				t.Errorf("%s granted for %s: token for %s", row.granted, row.asked, c.Scope)
			}
		}
	}
	// An authenticator cannot pair others, whatever it was granted.
	token, _ := s.granted(f.allow(s.asked(nil), nil), nil)
	s.want("init as an authenticator", s.do(request{method: "POST", path: "/api/auth/ext/init", token: &token, body: fields{"epk": s.broker.public()}.json(t)}), 403)
	s.want("config as an authenticator", s.do(request{method: "GET", path: "/api/system/config", token: &token}), 200)
}

// One request gives one token: not twice to one, not one to each of two, and
// none after an approval that failed. A wrong MAC or a stranger spends nothing.
func TestThreat_T92_AnApprovalIsGoodOnce(t *testing.T) {
	s := newScene(t, nil)
	f, g, stranger := s.pair(), s.pair(), s.newPhone()
	c := s.asked(nil)
	s.want("a stranger first", s.redeem(stranger.allow(c, fields{"scope": stranger.seal(c, "system:config")}), nil), 406)
	reply := f.allow(c, nil)
	s.want("a changed MAC", s.redeem(reply[:len(reply)-2]+"AA", nil), 401)
	s.want("the approval", s.redeem(reply, nil), 200)
	s.want("the same again", s.redeem(reply, nil), 401)
	s.want("the other authenticator's", s.redeem(g.allow(c, nil), nil), 401)

	c = s.asked(nil)
	s.want("for another scope", s.redeem(f.allow(c, fields{"scope": f.seal(c, "keymgmt:gen")}), nil), 406)
	s.want("after that", s.redeem(f.allow(c, nil), nil), 401)

	c = s.asked(nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	count := map[int]int{}
	for i := range 100 {
		reply := []*phone{f, g}[i%2].allow(c, nil)
		wg.Go(func() {
			status := s.redeem(reply, nil).status
			mu.Lock()
			defer mu.Unlock()
			count[status]++
		})
	}
	wg.Wait()
	if count[200] != 1 || count[401] != 99 {
		t.Errorf("of 100 at once: %v", count)
	}
	// And none after a reboot, or after the pairing has ended.
	before := s.asked(nil)
	s.reboot()
	s.want("after a reboot", s.redeem(f.allow(before, nil), nil), 401)
	reply = f.allow(s.asked(nil), nil)
	s.want("unpair", s.delete(f.kid), 200)
	s.want("approval of one unpaired", s.redeem(reply, nil), 406)
}

// A bound request gives its token to who holds the secret, and to nobody else.
func TestThreat_T93_ABoundApproval(t *testing.T) {
	s := newScene(t, nil)
	f := s.pair()
	secret := suite.Random(32)
	digest := suite.SHA256(secret)
	c := s.asked(fields{"bind": digest[:]})
	reply := f.allow(c, nil)
	s.want("without proof", s.redeem(reply, nil), 401)
	s.want("with another proof", s.redeem(reply, suite.Random(32)), 401)
	s.want("with the bind itself", s.redeem(reply, digest[:]), 401)
	s.want("with the proof", s.redeem(reply, secret), 200)
	s.want("again", s.redeem(reply, secret), 401)
	s.want("a proof nobody asked for", s.redeem(f.allow(s.asked(nil), nil), secret), 401)
}

// Approvals are held back like logins, and counted apart from them.
func TestThreat_T94_ApprovalsAreDamped(t *testing.T) {
	s := newScene(t, &hemtest.Options{Damping: true})
	took := func(a func() answer) time.Duration {
		start := time.Now()
		a()
		return time.Since(start)
	}
	wrong := func() answer { return s.redeem("a.b.c", nil) }
	for range 3 {
		if d := took(wrong); d < 500*time.Millisecond {
			t.Errorf("a wrong approval is answered after %v", d)
		}
	}
	if d := took(wrong); d < 1500*time.Millisecond {
		t.Errorf("the fourth is answered after %v", d)
	}
	// Under the penalty of the others none could be sooner than that; on a busy
	// machine one of them may be late.
	soonest := time.Hour
	for range 8 {
		c := s.challenge()
		proof := s.user().sign(t, goodHeader, s.proof(c), c.SPK)
		d := took(func() answer { return s.answerWith(proof) })
		if d < 500*time.Millisecond {
			t.Errorf("a login beside them is answered after %v", d)
		}
		if soonest = min(soonest, d); soonest < 1500*time.Millisecond {
			return
		}
	}
	t.Errorf("the soonest login beside them is answered after %v", soonest)
}

// What the log says of pairings and approvals.
func TestRecordsOfExternal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := newScene(t, &hemtest.Options{DataDir: dir})
	f := s.pair()
	s.want("a wrong reply", s.validate(f.pid, "x"), 401)
	s.want("once more", s.validate(api.EncodeBase64(suite.Random(32)), f.reply(s.begin(), nil)), 406)
	token, _ := s.granted(f.allow(s.asked(fields{"scope": "keymgmt:gen"}), nil), nil)
	created := s.kid(s.do(request{method: "POST", path: "/api/keymgmt/create", token: &token, body: `{"label":"x","type":"AES128"}`}))
	s.want("a wrong approval", s.redeem("x", nil), 401)
	s.want("denied", s.do(request{method: "GET", path: "/api/keymgmt/list", token: &token}), 403)
	s.want("unpair", s.delete(f.kid), 200)
	s.reboot()
	logger := s.as(api.RoleUser, api.ScopeLoggerGet)
	list := into[api.LogList](t, s.do(request{method: "GET", path: "/api/logger/list", token: logger}))
	file := s.do(request{method: "GET", path: "/api/logger/" + list.ID[len(list.ID)-2], token: logger})
	verifyLog(t, s.peer, logger, file.body)
	key := into[api.LoggerKey](t, s.do(request{method: "GET", path: "/api/logger/key", token: logger}))
	var got []string
	for e, err := range audit.Entries(bytes.NewReader(file.body), mustDecode(t, key.Key)) {
		if err != nil {
			t.Fatal(err)
		}
		switch e.Type {
		case audit.AuthPairedExternal, audit.AuthSuccessExternal, audit.KeyGeneration, audit.KeyDelete, audit.FailedScopeCheck:
			got = append(got, line(e.Type, e.Result, e.Who, hex.EncodeToString(e.Arg)))
		}
	}
	// Failures of strangers are written when their second is over, wherever that is.
	failure := "AUTH_SUCCESS_EXTERNAL FAILED  01000000"
	if i := slices.Index(got, failure); i < 0 {
		t.Errorf("the log does not say %s", failure)
	} else {
		got = slices.Delete(got, i, i+1)
	}
	want := []string{
		"AUTH_PAIRED_EXTERNAL OK U " + f.kid, "AUTH_PAIRED_EXTERNAL FAILED U", "AUTH_PAIRED_EXTERNAL FAILED U " + f.kid,
		"AUTH_SUCCESS_EXTERNAL OK " + f.kid, "KEY_GENERATION OK " + f.kid + " " + created,
		"FAILED_SCOPE_CHECK FAILED " + f.kid, "KEY_DELETE OK U " + f.kid,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("the log says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A pairing outlives the process, and its tokens do not.
func TestPairingIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := newScene(t, &hemtest.Options{DataDir: dir})
	f, gone := s.pair(), s.pair()
	s.want("unpair", s.delete(gone.kid), 200)
	token, _ := s.granted(f.allow(s.asked(nil), nil), nil)
	s.module.Close()
	again := &scene{newKeeper(t, &hemtest.Options{DataDir: dir}), s.broker}
	if a := again.do(request{method: "GET", path: "/api/system/config", token: &token}); a.status != http.StatusUnauthorized {
		t.Errorf("a token of the last process: %d", a.status)
	}
	c := again.asked(nil)
	if len(c.Scope) != 1 || f.shown(c) != "system:config" {
		t.Errorf("asked %v", c.Scope)
	}
	again.want("approval", again.redeem(f.allow(c, nil), nil), 200)
}
