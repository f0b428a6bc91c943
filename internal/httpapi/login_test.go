package httpapi_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/suite"
)

// challenge asks for one.
func (p *peer) challenge() api.Challenge {
	p.t.Helper()
	var c api.Challenge
	if a := p.get("/api/auth/token", &c); a.status != 200 {
		p.t.Fatalf("challenge: %d", a.status)
	}
	return c
}

// proof is a right answer to c, to be made wrong in one place.
func (p *peer) proof(c api.Challenge) map[string]any {
	return map[string]any{
		"jti": c.JTI, "aud": c.SPK, "iss": p.user().public(),
		"iat": c.Exp - 65, "exp": c.Exp - 60 + 3600, "scope": "system:config",
	}
}

func (p *peer) answerWith(auth string) answer {
	p.t.Helper()
	body, err := json.Marshal(api.AuthRequest{Auth: auth})
	if err != nil {
		p.t.Fatal(err)
	}
	return p.do(request{method: "POST", path: "/api/auth/token", body: string(body)})
}

func TestLogin(t *testing.T) {
	m := hemtest.New(t, nil)
	p := newPeer(t, m)
	for _, c := range []struct {
		name, passphrase string
		sub              api.Role
		edit             func(map[string]any)
		scope, ctx       string
		life             int64 // 0: as asked for
	}{
		{"user", "user", api.RoleUser, func(map[string]any) {}, "system:config", "", 3600},
		{"master", "master", api.RoleMaster, func(c map[string]any) { c["iss"] = p.persona("master").public() }, "system:config", "", 3600},
		{"no expiry", "user", api.RoleUser, func(c map[string]any) { delete(c, "exp") }, "system:config", "", 28800},
		{"expiry null", "user", api.RoleUser, func(c map[string]any) { c["exp"] = nil }, "system:config", "", 28800},
		{"no scope", "user", api.RoleUser, func(c map[string]any) { delete(c, "scope") }, "", "", 3600},
		{"longest scope", "user", api.RoleUser, func(c map[string]any) { c["scope"] = strings.Repeat("ż", 127) }, strings.Repeat("ż", 127), "", 3600},
		{"context", "user", api.RoleUser, func(c map[string]any) { c["ctx"] = strings.Repeat("x", 63) }, "system:config", strings.Repeat("x", 63), 3600},
		{"eight hours", "user", api.RoleUser, func(c map[string]any) { c["exp"] = c["iat"].(int64) + 5 + 28800 }, "system:config", "", 28800},
		{"a year is shortened to a day", "user", api.RoleUser, func(c map[string]any) { c["exp"] = c["iat"].(int64) + 365*86400 }, "system:config", "", 86400},
		{"iat a minute ahead", "user", api.RoleUser, func(c map[string]any) { c["iat"] = c["iat"].(int64) + 65 }, "system:config", "", 3600},
		{"unknown claims", "user", api.RoleUser, func(c map[string]any) { c["x"] = []int{1} }, "system:config", "", 3600},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := *p
			p.t = t
			ch := p.challenge()
			claims := p.proof(ch)
			c.edit(claims)
			a := p.answerWith(p.persona(c.passphrase).sign(t, goodHeader, claims, ch.SPK))
			if a.status != 200 {
				t.Fatalf("%d", a.status)
			}
			var tok api.TokenAnswer
			if err := json.Unmarshal(a.body, &tok); err != nil {
				t.Fatal(err)
			}
			parts := strings.Split(tok.Token, ".")
			if header, _ := base64.RawURLEncoding.DecodeString(parts[0]); string(header) != `{"typ":"JWT","alg":"HS256"}` {
				t.Errorf("header %s", header)
			}
			payload, err := base64.RawURLEncoding.DecodeString(parts[1])
			if err != nil {
				t.Fatal(err)
			}
			var got api.TokenClaims
			if err := json.Unmarshal(payload, &got); err != nil {
				t.Fatal(err)
			}
			now := ch.Exp - 60
			if got.Scope != c.scope || got.Sub != c.sub || got.Ctx != c.ctx || got.Iat < now || got.Iat > now+2 ||
				got.Exp-now < c.life || got.Exp-now > c.life+2 {
				t.Errorf("claims %s", payload)
			}
			// In the order of the protocol, ctx only when given.
			order := []string{"scope", "sub", "iat", "exp", "jti"}
			if c.ctx != "" {
				order = append(order, "ctx")
			}
			if names := namesOf(t, payload); strings.Join(names, " ") != strings.Join(order, " ") {
				t.Errorf("claims stand as %v, want %v", names, order)
			}
			if _, err := jose.ParseSignedCompact(tok.Token, []jose.SignatureAlgorithm{jose.HS256}); err != nil {
				t.Errorf("go-jose cannot read the token: %v", err)
			}
		})
	}
}

// namesOf lists the member names of a JSON object in their order.
func namesOf(t *testing.T, object []byte) (names []string) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(string(object)))
	depth, name := 0, true
	for {
		tok, err := dec.Token()
		if err != nil {
			return names
		}
		switch v := tok.(type) {
		case json.Delim:
			if v == '{' || v == '[' {
				depth++
			} else {
				depth--
			}
			continue
		case string:
			if depth == 1 && name {
				names = append(names, v)
				name = false
				continue
			}
		}
		name = true
	}
}

// Every wrong proof gets one and the same 401, whatever is wrong with it.
func TestEveryWrongProofIsTheSame401(t *testing.T) {
	m := hemtest.New(t, nil)
	p := newPeer(t, m)
	user := p.user()
	other := newPeer(t, hemtest.New(t, &hemtest.Options{Seed: "another module"}))
	set := func(name string, value any) func(api.Challenge) string {
		return func(ch api.Challenge) string {
			c := p.proof(ch)
			if c[name] = value; value == "absent" {
				delete(c, name)
			}
			return user.sign(t, goodHeader, c, ch.SPK)
		}
	}
	header := func(h string) func(api.Challenge) string {
		return func(ch api.Challenge) string { return user.sign(t, h, p.proof(ch), ch.SPK) }
	}
	raw := func(edit func(payload string) string) func(api.Challenge) string {
		return func(ch api.Challenge) string {
			body, _ := json.Marshal(p.proof(ch))
			return user.sign(t, goodHeader, edit(string(body)), ch.SPK)
		}
	}
	clock := newSetClock()
	aged := newPeer(t, hemtest.New(t, &hemtest.Options{Clock: clock.now}))

	for name, forge := range map[string]func(api.Challenge) string{
		"alg none":              header(`{"ecdh":"x25519","alg":"none","typ":"JWT"}`),
		"alg HS512":             header(`{"ecdh":"x25519","alg":"HS512","typ":"JWT"}`),
		"alg in lower case":     header(`{"ecdh":"x25519","alg":"hs256","typ":"JWT"}`),
		"no alg":                header(`{"ecdh":"x25519","typ":"JWT"}`),
		"no ecdh":               header(`{"alg":"HS256","typ":"JWT"}`),
		"ecdh of another curve": header(`{"ecdh":"x448","alg":"HS256","typ":"JWT"}`),
		"header twice alg":      header(`{"ecdh":"x25519","alg":"none","alg":"HS256","typ":"JWT"}`),
		"header is no JSON":     header(`x`),
		"alg none without a MAC": func(ch api.Challenge) string {
			body, _ := json.Marshal(p.proof(ch))
			return b64url([]byte(`{"ecdh":"x25519","alg":"none","typ":"JWT"}`)) + "." + b64url(body) + "."
		},
		// With a point of low order the secret is zero for everybody.
		"low-order iss": func(ch api.Challenge) string {
			c := p.proof(ch)
			c["iss"] = api.EncodeBase64(make([]byte, 32))
			return signWith(t, goodHeader, c, make([]byte, 32))
		},
		"low-order iss, order 8": func(ch api.Challenge) string {
			c := p.proof(ch)
			c["iss"] = "4Ot6fDtBuK4WVuP68Z/EatoJjeucMrH9hmIFFl9JuAA="
			return signWith(t, goodHeader, c, make([]byte, 32))
		},
		"iss absent":             set("iss", "absent"),
		"iss null":               set("iss", nil),
		"iss a number":           set("iss", 7),
		"iss of 31 bytes":        set("iss", api.EncodeBase64(make([]byte, 31))),
		"iss of 33 bytes":        set("iss", api.EncodeBase64(make([]byte, 33))),
		"iss is the session key": func(ch api.Challenge) string { return set("iss", ch.SPK)(ch) },
		"iss is the eid":         set("iss", m.EID),
		"iss of a stranger": func(ch api.Challenge) string {
			s := newPersona(suite.Random(32))
			c := p.proof(ch)
			c["iss"] = s.public()
			return s.sign(t, goodHeader, c, ch.SPK)
		},
		"wrong passphrase": func(ch api.Challenge) string {
			s := p.persona("User")
			c := p.proof(ch)
			c["iss"] = s.public()
			return s.sign(t, goodHeader, c, ch.SPK)
		},
		"signed by a stranger": func(ch api.Challenge) string {
			return newPersona(suite.Random(32)).sign(t, goodHeader, p.proof(ch), ch.SPK)
		},
		"signed for another spk": func(ch api.Challenge) string { return user.sign(t, goodHeader, p.proof(ch), other.challenge().SPK) },
		"jti absent":             set("jti", "absent"),
		"jti null":               set("jti", nil),
		"jti of 31 bytes":        set("jti", api.EncodeBase64(make([]byte, 31))),
		"jti a number":           set("jti", 1),
		"jti with a line break":  func(ch api.Challenge) string { return set("jti", ch.JTI[:20]+"\n"+ch.JTI[20:])(ch) },
		"a foreign nonce":        func(ch api.Challenge) string { return set("jti", other.challenge().JTI)(ch) },
		"a nonce made up":        set("jti", api.EncodeBase64(append([]byte{0, 0, 0, 0x6a}, suite.Random(28)...))),
		"a nonce of the config": func(ch api.Challenge) string {
			var c api.Config
			a := p.expect("GET", "/api/system/config", p.token(api.RoleUser, "system:config"), 200)
			if err := json.Unmarshal(a.body, &c); err != nil {
				t.Fatal(err)
			}
			return set("jti", c.Nonce)(ch)
		},
		"a nonce of the log key": func(ch api.Challenge) string {
			var k api.LoggerKey
			a := p.expect("GET", "/api/logger/key", p.token(api.RoleUser, "logger:get"), 200)
			if err := json.Unmarshal(a.body, &k); err != nil {
				t.Fatal(err)
			}
			return set("jti", k.Nonce)(ch)
		},
		"a token's id": func(ch api.Challenge) string {
			payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(*p.token(api.RoleUser, "x"), ".")[1])
			var c api.TokenClaims
			if err := json.Unmarshal(payload, &c); err != nil {
				t.Fatal(err)
			}
			return set("jti", c.JTI)(ch)
		},
		"a replayed nonce": func(ch api.Challenge) string {
			auth := user.sign(t, goodHeader, p.proof(ch), ch.SPK)
			if a := p.answerWith(auth); a.status != 200 {
				t.Fatalf("the first use: %d", a.status)
			}
			return auth
		},
		"a nonce burnt by a wrong answer": func(ch api.Challenge) string {
			s := newPersona(suite.Random(32))
			c := p.proof(ch)
			c["iss"] = s.public()
			if a := p.answerWith(s.sign(t, goodHeader, c, ch.SPK)); a.status != 401 {
				t.Fatalf("the wrong answer: %d", a.status)
			}
			return user.sign(t, goodHeader, p.proof(ch), ch.SPK)
		},
		"aud absent":              set("aud", "absent"),
		"aud null":                set("aud", nil),
		"aud is the eid":          set("aud", m.EID),
		"aud a list":              func(ch api.Challenge) string { return set("aud", []string{ch.SPK})(ch) },
		"exp zero":                set("exp", 0),
		"exp in the past":         func(ch api.Challenge) string { return set("exp", ch.Exp-60-1)(ch) },
		"exp negative":            set("exp", -1),
		"exp a string":            set("exp", "4102444800"),
		"exp a fraction":          set("exp", 4102444800.5),
		"exp beyond all":          raw(func(s string) string { return strings.Replace(s, `"exp":`, `"exp":1e30,"x":`, 1) }),
		"iat far ahead":           func(ch api.Challenge) string { return set("iat", ch.Exp-60+120)(ch) },
		"scope of 128 characters": set("scope", strings.Repeat("x", 128)),
		"scope a list":            set("scope", []string{"system:config"}),
		"ctx of 64 characters":    set("ctx", strings.Repeat("x", 64)),
		"ctx a number":            set("ctx", 1),
		"claims in another case":  raw(func(s string) string { return strings.Replace(s, `"jti"`, `"JTI"`, 1) }),
		"a claim twice":           raw(func(s string) string { return strings.Replace(s, `{`, `{"scope":"x",`, 1) }),
		"jti twice":               raw(func(s string) string { return strings.Replace(s, `{`, `{"jti":"AA==",`, 1) }),
		"claims no object":        raw(func(string) string { return `[]` }),
		"something after":         raw(func(s string) string { return s + "{}" }),
		"two segments": func(ch api.Challenge) string {
			return strings.Join(strings.Split(header(goodHeader)(ch), ".")[:2], ".")
		},
		"four segments":   func(ch api.Challenge) string { return header(goodHeader)(ch) + ".x" },
		"padded segments": func(ch api.Challenge) string { return header(goodHeader)(ch) + "=" },
		"no token at all": func(api.Challenge) string { return "x" },
	} {
		t.Run(name, func(t *testing.T) {
			ch := p.challenge()
			a := p.answerWith(forge(ch))
			sameRefusal(t, a)
		})
	}
	t.Run("an expired nonce", func(t *testing.T) {
		ch := aged.challenge()
		clock.add(61 * time.Second)
		claims := aged.proof(ch)
		claims["exp"] = clock.now().Unix() + 3600
		sameRefusal(t, aged.answerWith(aged.user().sign(t, goodHeader, claims, ch.SPK)))
		// A moment earlier it would have done.
		ch = aged.challenge()
		clock.add(59 * time.Second)
		if a := aged.answerWith(aged.user().sign(t, goodHeader, aged.proof(ch), ch.SPK)); a.status != 200 {
			t.Errorf("a nonce of 59 seconds: %d", a.status)
		}
	})
	t.Run("a nonce of personalisation", func(t *testing.T) {
		var ch api.InitChallenge
		late := newPeer(t, hemtest.New(t, &hemtest.Options{Fresh: true}))
		late.get("/api/auth/init", &ch)
		if _, err := late.module.Personalise(); err != nil {
			t.Fatal(err)
		}
		sameRefusal(t, late.answerWith(late.user().sign(t, goodHeader, late.proof(api.Challenge{JTI: ch.JTI, SPK: ch.SPK, Exp: ch.Exp}), ch.SPK)))
	})
}

// sameRefusal holds an answer against the one there is: status, headers, body.
func sameRefusal(t *testing.T, a answer) {
	t.Helper()
	h := maps.Clone(a.header)
	h.Del("Date")
	got := fmt.Sprint(a.status, h, len(a.body))
	const want = `401 map[Cache-Control:[no-store] Content-Length:[0] Content-Type:[application/json] Vary:[Origin] X-Content-Type-Options:[nosniff]] 0`
	if got != want {
		t.Errorf("answer %s\nwant   %s", got, want)
	}
}

func TestLoginBodies(t *testing.T) {
	p := newPeer(t, hemtest.New(t, nil))
	for body, want := range map[string]int{
		``: 400, `x`: 400, `[]`: 400, `"auth"`: 400, `null`: 400, `{}`: 400, `{"auth":null}`: 400, `{"auth":""}`: 400,
		`{"auth":1}`: 400, `{"Auth":"a.b.c"}`: 400, `{"auth":"a.b.c"}{}`: 400, `{"auth":"a.b.c","auth":"d"}`: 400,
		"{\"auth\":\"\xff\"}": 400, `{"auth":"a.b.c"`: 400,
		`{"auth":"a.b.c"}`: 401, ` {"auth":"a.b.c","more":[1]} `: 401,
	} {
		if a := p.do(request{method: "POST", path: "/api/auth/token", body: body}); a.status != want {
			t.Errorf("body %q: %d, want %d", body, a.status, want)
		}
	}
}

// spellings are the sixteen ways to write 32 bytes in base64.
func spellings(b64 string) (all []string) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	last := strings.IndexByte(alphabet, b64[42])
	for spare := range 4 {
		s := b64[:42] + string(alphabet[last&^3|spare])
		url := strings.NewReplacer("+", "-", "/", "_").Replace(s)
		all = append(all, s, s+"=", url, url+"=")
	}
	return all
}

// A thousand right answers to one challenge, in all spellings of its nonce:
// one token.
func TestParallelAnswersToOneChallenge(t *testing.T) {
	p := newPeer(t, hemtest.New(t, nil))
	p.client = p.module.HTTPClient()
	ch := p.challenge()
	forms := spellings(ch.JTI)
	user := p.user()
	var wg sync.WaitGroup
	var mu sync.Mutex
	statuses := make(map[int]int)
	for i := range 1000 {
		claims := p.proof(ch)
		claims["jti"] = forms[i%len(forms)]
		auth := user.sign(t, goodHeader, claims, ch.SPK)
		wg.Go(func() {
			a := p.answerWith(auth)
			mu.Lock()
			defer mu.Unlock()
			statuses[a.status]++
		})
	}
	wg.Wait()
	if statuses[200] != 1 || statuses[401] != 999 {
		t.Errorf("answers %v, want one 200 and 999 times 401", statuses)
	}
	// And each spelling alone is good.
	for i := range forms {
		ch := p.challenge()
		claims := p.proof(ch)
		claims["jti"] = spellings(ch.JTI)[i]
		if a := p.answerWith(user.sign(t, goodHeader, claims, ch.SPK)); a.status != 200 {
			t.Errorf("spelling %d: %d", i, a.status)
		}
	}
}

// Tokens die with the boot, at their end, and open only what they are for.
func TestTokenLife(t *testing.T) {
	clock := newSetClock()
	p := newPeer(t, hemtest.New(t, &hemtest.Options{Clock: clock.now}))
	token := p.token(api.RoleUser, "system:config")
	p.expect("GET", "/api/system/config", token, 200)
	clock.add(8*time.Hour - time.Second)
	p.expect("GET", "/api/system/config", token, 200)
	clock.add(time.Second)
	p.expect("GET", "/api/system/config", token, 401)
	p.expect("GET", "/api/system/status", token, 401)

	token = p.token(api.RoleUser, "system:config")
	p.expect("GET", "/api/system/reboot", token, 200)
	p.expect("GET", "/api/system/config", token, 401)

	// A clock set back a little is waited for; set back a lot it ends all tokens.
	token = p.token(api.RoleUser, "system:config")
	clock.add(-30 * time.Second)
	p.expect("GET", "/api/system/config", token, 200)
	clock.add(-time.Hour)
	p.expect("GET", "/api/system/status", nil, 200)
	p.expect("GET", "/api/system/config", token, 401)
}

// A setClock is a module's clock that a test sets forward and back. The module
// reads it at any time, also in the background.
type setClock struct{ unixNano atomic.Int64 }

func newSetClock() *setClock {
	c := new(setClock)
	c.unixNano.Store(time.Now().UnixNano())
	return c
}

func (c *setClock) now() time.Time      { return time.Unix(0, c.unixNano.Load()) }
func (c *setClock) add(d time.Duration) { c.unixNano.Add(int64(d)) }
