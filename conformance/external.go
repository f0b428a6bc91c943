package conformance

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"time"

	"softhem/api"
)

// A phone is an authenticator of the suite's, and broker the session that carries
// its messages.
type phone struct {
	key    *party // aid
	broker *party // epk
	pid    string
	kid    string
}

// externalGroup plays broker and authenticator.
func externalGroup() group {
	const pairing, asking, approving = "api.md#post-apiauthextvalidate", "api.md#post-apiauthextrequest", "api.md#post-apiauthexttoken"
	var f *phone
	need := func(s *step) *phone {
		if f == nil || f.kid == "" {
			s.skipf("no authenticator is paired")
		}
		return f
	}
	return group{name: "external", title: "external authenticators, with the suite as broker and authenticator", phase: personal,
		after: func(s *step) {
			for kid, k := range s.keysOf() {
				if bytes.HasPrefix(k.bytes("descr"), []byte(api.PairingPrefix)) {
					s.deleteKey(kid)
				}
			}
		},
		checks: []check{
			{"epk", "A session key that is none, or shares its secret with everybody, is 400", "api.md#external-authenticators", func(s *step) {
				for _, epk := range []any{nil, "", "AAAA", b64(make([]byte, 32)), s.eid} {
					for _, path := range []string{"init", "mac"} {
						s.want(s.post("/api/auth/ext/"+path, claims{"epk": epk}, s.as(api.ScopeExtPair)), 400)
					}
				}
			}},
			{"mac", "The module proves itself to a broker's session", "api.md#post-apiauthextmac", func(s *step) {
				broker, err := newParty(random(32))
				s.must(err, "a key")
				m := s.object(s.want(s.post("/api/auth/ext/mac", claims{"epk": broker.public()}, s.as(api.ScopeExtPair)), 200), "nonce:b64=32 mac:b64=32 eid:b64=32")
				secret, err := broker.shared(s.eid)
				s.must(err, "eid")
				if m.str("eid") != s.eid || m.str("mac") != b64(mac(secret, m.bytes("nonce"))) {
					s.failf("mac is not HMAC-SHA256 of the nonce")
				}
			}},
			{"pair", "A pairing is stored as a key, and confirmed to the broker", pairing, func(s *step) {
				f = s.pair()
				k, ok := s.keysOf()[f.kid]
				if !ok || k.str("type") != "ECDH,CURVE25519" || k.str("label") != "conform phone?" ||
					!bytes.Equal(k.bytes("descr"), append([]byte(api.PairingPrefix), mustBytes(f.pid)...)) {
					s.failf("the pairing is not listed as it should be")
				}
			}},
			{"pair-refused", "A reply that does not hold is 401, one that came before too, and pairings cannot be written by hand", pairing, func(s *step) {
				need(s)
				c := s.extBegin(f.broker)
				reply := f.key.sign(personaHeader, f.reply(s, c).with("jti", b64(random(32))), s.eid)
				s.empty(s.post("/api/auth/ext/validate", claims{"pid": f.pid, "reply": reply}, s.as(api.ScopeExtPair)), 401)
				again := f.key.sign(personaHeader, f.reply(s, s.extBegin(f.broker)), s.eid)
				s.want(s.post("/api/auth/ext/validate", claims{"pid": f.pid, "reply": again}, s.as(api.ScopeExtPair)), 406)
				s.want(s.post("/api/keymgmt/update", claims{"kid": f.kid, "label": "x"}, s.as(api.ScopeKeyUpdate)), 406)
			}},
			{"request", "A request has the scope sealed for the authenticator", asking, func(s *step) {
				need(s)
				c := s.ask(f, claims{"scope": api.ScopeLoggerGet, "note": "a note", "ctx": "context"})
				if scope := f.open(s, c); scope != api.ScopeLoggerGet {
					s.failf("the sealed scope reads %q", scope)
				}
				if c.str("note") != "a note" || c.str("ctx") != "context" || c.int("exp")-c.int("iat") != 3600 {
					s.failf("note, ctx or life is not what it should be")
				}
				kid := s.create(api.Ed25519, "shown to phones")
				c = s.ask(f, claims{"scope": api.ScopeKeyUse(kid)})
				scope, note, _ := strings.Cut(f.open(s, c), "#")
				raw, err := base64.StdEncoding.DecodeString(note)
				s.must(err, "what follows the scope")
				if scope != api.ScopeKeyUse(kid) || !strings.Contains(string(raw), `"l":"shown to phones"`) || c.int("exp")-c.int("iat") != 900 {
					s.failf("the use of a key is to show its label, and to live for 900 s")
				}
				s.deleteKey(kid)
			}},
			{"request-limits", "Scopes with #, or too long, are 400", asking, func(s *step) {
				broker, err := newParty(random(32))
				s.must(err, "a key")
				for _, wrong := range []claims{
					{"scope": nil}, {"scope": ""}, {"scope": "logger:get#x"}, {"scope": "grün"}, {"scope": strings.Repeat("x", 1024)},
					{"note": strings.Repeat("x", 129)}, {"ctx": strings.Repeat("x", 65)}, {"epk": nil},
				} {
					body := claims{"epk": broker.public(), "scope": "x"}
					for k, v := range wrong {
						body = body.with(k, v)
					}
					if a := s.post("/api/auth/ext/request", body, nil); a.status != 400 {
						s.failf("with %s: answered %d, want 400", names(wrong), a.status)
					}
				}
			}},
			{"token", "An approval gives a token of the authenticator's, once", approving, func(s *step) {
				need(s)
				c := s.ask(f, claims{"scope": api.ScopeLoggerGet})
				reply := f.allow(s, c, nil)
				text := s.redeem(reply, 200)
				_, t, err := openJWS(text, nil)
				s.must(err, "token")
				kid, _ := hex.DecodeString(f.kid)
				if t.str("sub") != b64(kid) || t.str("scope") != api.ScopeLoggerGet {
					s.failf("sub is not the kid, or the scope another")
				}
				s.want(s.get("/api/logger/key", &text), 200)
				s.want(s.get("/api/keymgmt/list", &text), 403)
				s.redeem(reply, 401)
			}},
			{"token-refused", "Another scope than was asked for is 406, another's signature 401", approving, func(s *step) {
				need(s)
				c := s.ask(f, claims{"scope": api.ScopeLoggerGet})
				s.redeem(f.allow(s, c, claims{"scope": f.seal(s, c, api.ScopeSystemConfig)}), 406)
				c = s.ask(f, claims{"scope": api.ScopeLoggerGet})
				reply := f.allow(s, c, nil)
				dot := strings.LastIndexByte(reply, '.')
				s.redeem(reply[:dot+1]+segment(make([]byte, 32)), 401)
				stranger := *f
				var err error
				stranger.key, err = newParty(random(32))
				s.must(err, "a key")
				s.redeem(stranger.allow(s, c, claims{"scope": c.str("jti")}), 406)
				s.redeem(f.allow(s, s.ask(f, claims{"scope": "x"}), claims{"jti": b64(random(32))}), 401)
			}},
			{"bind", "A request that was bound is redeemed by who has the secret", approving, func(s *step) {
				need(s)
				secret := random(32)
				digest := sha256.Sum256(secret)
				c := s.ask(f, claims{"scope": api.ScopeLoggerGet, "bind": b64(digest[:])})
				reply := f.allow(s, c, nil)
				s.redeem(reply, 401)
				a := s.post("/api/auth/ext/token", claims{"authreply": reply, "proof": b64(secret)}, nil)
				s.object(s.want(a, 200), "token:str")
			}},
			{"personas", "An authenticator neither pairs nor changes the configuration: 403", "api.md#external-authenticators", func(s *step) {
				need(s)
				text := s.redeem(f.allow(s, s.ask(f, claims{"scope": api.ScopeSystemConfig}), nil), 200)
				s.want(s.post("/api/auth/ext/init", claims{"epk": f.broker.public()}, &text), 403)
				s.want(s.post("/api/system/config", claims{"ctx": 1}, &text), 403)
				s.want(s.get("/api/system/config", &text), 200)
			}},
			{"unpair", "Deleting the key ends the pairing, and its tokens at once", approving, func(s *step) {
				need(s)
				text := s.redeem(f.allow(s, s.ask(f, claims{"scope": api.ScopeLoggerGet}), nil), 200)
				c := s.ask(f, claims{"scope": api.ScopeLoggerGet})
				reply := f.allow(s, c, nil)
				s.empty(s.deleteKey(f.kid), 200)
				s.empty(s.get("/api/logger/key", &text), 401)
				s.redeem(reply, 406)
			}},
		}}
}

// extBegin begins a pairing, and opens the request as the broker.
func (s *step) extBegin(broker *party) object {
	a := s.object(s.want(s.post("/api/auth/ext/init", claims{"epk": broker.public()}, s.as(api.ScopeExtPair)), 200), "request:str eid:b64=32")
	return s.fromModule(broker, a.str("request"))
}

// fromModule opens an eJWT that the module made for a session of the broker's.
func (s *step) fromModule(broker *party, text string) object {
	secret, err := broker.shared(s.eid)
	s.must(err, "eid")
	_, c, err := openJWS(text, secret)
	s.must(err, "what the module signed for the broker")
	if c.str("iss") != s.eid || c.str("aud") != broker.public() {
		s.failf("iss is not the module, or aud not the broker")
	}
	return c
}

// pair pairs a new phone.
func (s *step) pair() *phone {
	key, err := newParty(random(32))
	s.must(err, "a key")
	broker, err := newParty(random(32))
	s.must(err, "a key")
	f := &phone{key: key, broker: broker, pid: b64(random(32))}
	reply := key.sign(personaHeader, f.reply(s, s.extBegin(broker)), s.eid)
	a := s.object(s.want(s.post("/api/auth/ext/validate", claims{"pid": f.pid, "reply": reply}, s.as(api.ScopeExtPair)), 200), "kid:hex=32 code:b64=32")
	secret, err := broker.shared(s.eid)
	s.must(err, "eid")
	if a.str("code") != b64(mac(secret, []byte(reply))) {
		s.failf("code is not HMAC-SHA256 of the reply")
	}
	f.kid = a.str("kid")
	return f
}

// reply are the claims that answer a pairing. The name has a character that is
// none of a label.
func (f *phone) reply(s *step, c object) claims {
	return claims{"jti": c.str("jti"), "iss": f.key.public(), "aud": s.eid, "epk": f.broker.public(), "label": "conform phoneü"}
}

// ask asks for a scope, and opens the request as the broker.
func (s *step) ask(f *phone, fields claims) object {
	a := s.object(s.want(s.post("/api/auth/ext/request", fields.with("epk", f.broker.public()), nil), 200), "authreq:str epk:b64=32")
	return s.fromModule(f.broker, a.str("authreq"))
}

// sealing are the keys of a sealed scope: MAC, then AES and IV.
func (f *phone) sealing(s *step, c object) []byte {
	secret, err := f.key.shared(s.eid)
	s.must(err, "eid")
	return mac(secret, c.bytes("jti"))
}

// open reads the scope that was sealed for the phone.
func (f *phone) open(s *step, c object) string {
	all, _ := c["scope"].(map[string]any)
	text, _ := all[f.pid].(string)
	sealed, found := strings.CutPrefix(text, "A")
	raw, err := base64.StdEncoding.DecodeString(sealed)
	if !found || err != nil || len(raw) < aes.BlockSize+sha256.Size || len(raw)%aes.BlockSize != 0 {
		s.failf("there is no sealed scope for the authenticator")
	}
	k := f.sealing(s, c)
	block, err := aes.NewCipher(k[:16])
	s.must(err, "AES")
	plain := bytes.Clone(raw[:len(raw)-sha256.Size])
	cipher.NewCBCDecrypter(block, k[16:]).CryptBlocks(plain, plain)
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > aes.BlockSize {
		s.failf("the sealed scope does not open")
	}
	plain = plain[:len(plain)-pad]
	if !bytes.Equal(mac(k, plain), raw[len(raw)-sha256.Size:]) {
		s.failf("the MAC of the sealed scope is wrong")
	}
	return string(plain)
}

// seal seals a scope as the phone does.
func (f *phone) seal(s *step, c object, scope string) string {
	k := f.sealing(s, c)
	block, err := aes.NewCipher(k[:16])
	s.must(err, "AES")
	pad := aes.BlockSize - len(scope)%aes.BlockSize
	text := append([]byte(scope), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, k[16:]).CryptBlocks(text, text)
	return "A" + base64.StdEncoding.EncodeToString(append(text, mac(k, []byte(scope))...))
}

// allow is the phone's approval.
func (f *phone) allow(s *step, c object, change claims) string {
	all, _ := c["scope"].(map[string]any)
	now := time.Now().Unix()
	if st := s.statusNow(); st.has("time") {
		now = st.int("time")
	}
	reply := claims{"aud": s.eid, "jti": c.str("jti"), "exp": now + 900, "iat": now, "pid": f.pid, "iss": f.key.public(), "scope": all[f.pid]}
	for k, v := range change {
		reply[k] = v
	}
	return f.key.sign(personaHeader, reply, s.eid)
}

// redeem turns an approval into a token, or wants it to be refused.
func (s *step) redeem(reply string, want int) string {
	a := s.want(s.post("/api/auth/ext/token", claims{"authreply": reply}, nil), want)
	if want != 200 {
		s.empty(a, want)
		return ""
	}
	return s.object(a, "token:str").str("token")
}
