package conformance

import (
	"encoding/binary"
	"strings"
	"time"

	"softhem/api"
)

func loginGroup() group {
	const spec = "api.md#post-apiauthtoken"
	return group{name: "login", title: "challenge, proof, bearer token", phase: personal, checks: []check{
		{"challenge", "The challenge has its fields: name, identity, a minute", "api.md#get-apiauthtoken", func(s *step) {
			a, b := s.challenge(), s.challenge()
			now := s.statusNow().int("time")
			if a.int("exp") < now+30 || a.int("exp") > now+61 {
				s.failf("exp is not a minute from now")
			}
			if a.str("lbl") != userName || a.str("eid") != s.eid {
				s.failf("lbl is not the user's name, or eid another than before")
			}
			if a.str("spk") != b.str("spk") || a.str("jti") == b.str("jti") {
				s.failf("of two challenges, spk is to be the same and jti another")
			}
			if made := int64(binary.LittleEndian.Uint32(a.bytes("jti"))); made < a.int("exp")-62 || made > a.int("exp")-58 {
				s.failf("jti does not begin with the module's clock, little-endian")
			}
		}},
		{"malformed", "No auth, or no JSON, is 400", spec, func(s *step) {
			for _, body := range []string{"{", "{}", `{"auth":null}`} {
				s.want(s.post("/api/auth/token", body, nil), 400)
			}
		}},
		{"user", "The user's key gives a token of role U", spec, func(s *step) { s.issued(api.RoleUser) }},
		{"master", "The master's key gives one of role M", spec, func(s *step) { s.issued(api.RoleMaster) }},
		{"expiry", "The token ends when it was asked to, and after eight hours when nothing was asked", spec, func(s *step) {
			ch := s.challenge()
			wanted := ch.int("exp") + 1234
			if t := s.granted(ch, s.proof(ch, api.RoleUser, "x").with("exp", wanted)); t.int("exp") != wanted {
				s.failf("exp is %d, and %d was asked for", t.int("exp"), wanted)
			}
			ch = s.challenge()
			if t := s.granted(ch, s.proof(ch, api.RoleUser, "x").with("exp", nil)); t.int("exp")-t.int("iat") != 28_800 {
				s.failf("without exp it lives for %d s, not for 28800", t.int("exp")-t.int("iat"))
			}
		}},
		{"claims", "Scope and context are copied; both may be absent", spec, func(s *step) {
			ch := s.challenge()
			t := s.granted(ch, s.proof(ch, api.RoleUser, strings.Repeat("s", 127)).with("ctx", strings.Repeat("c", 63)))
			if t.str("scope") != strings.Repeat("s", 127) || t.str("ctx") != strings.Repeat("c", 63) {
				s.failf("scope or ctx is not what was asked for")
			}
			ch = s.challenge()
			if t := s.granted(ch, s.proof(ch, api.RoleUser, "").with("scope", nil)); t.str("scope") != "" || !t.has("scope") || t.has("ctx") {
				s.failf("an absent scope is not an empty one, or there is a ctx nobody asked for")
			}
		}},
		{"header", "The names of the header may come in any order", spec, func(s *step) {
			for _, header := range []string{backendHeader, `{"alg":"HS256","typ":"JWT","ecdh":"x25519"}`} {
				ch := s.challenge()
				a := s.answerWith(s.user.sign(header, s.proof(ch, api.RoleUser, "x"), ch.str("spk")))
				s.want(a, 200)
			}
		}},
		{"mac", "A wrong MAC is refused, and leaves the challenge good", spec, func(s *step) {
			ch := s.challenge()
			good := s.user.sign(personaHeader, s.proof(ch, api.RoleUser, "x"), ch.str("spk"))
			dot := strings.LastIndexByte(good, '.')
			s.empty(s.answerWith(good[:dot+1]+segment(make([]byte, 32))), 401)
			s.want(s.answerWith(good), 200)
		}},
		{"replay", "A challenge is good once", spec, func(s *step) {
			ch := s.challenge()
			good := s.user.sign(personaHeader, s.proof(ch, api.RoleUser, "x"), ch.str("spk"))
			s.want(s.answerWith(good), 200)
			s.empty(s.answerWith(good), 401)
		}},
		{"algorithm", "Another alg or ecdh is refused", spec, func(s *step) {
			s.refused(func(ch object) string {
				head, rest, _ := strings.Cut(s.user.sign(`{"ecdh":"x25519","alg":"none","typ":"JWT"}`, s.proof(ch, api.RoleUser, "x"), ch.str("spk")), ".")
				claims, _, _ := strings.Cut(rest, ".")
				return head + "." + claims + "."
			}, s.headed(`{"ecdh":"x25519","alg":"none","typ":"JWT"}`), s.headed(`{"ecdh":"x25519","alg":"hs256","typ":"JWT"}`),
				s.headed(`{"ecdh":"x448","alg":"HS256","typ":"JWT"}`), s.headed(`{"alg":"HS256","typ":"JWT"}`))
		}},
		{"claims-wrong", "Claims that lack, or are of another form, are refused", spec, func(s *step) {
			s.refused(s.claiming("jti", nil), s.claiming("aud", nil), s.claiming("iss", nil), s.claiming("exp", "tomorrow"),
				s.claiming("iss", api.EncodeBase64(random(31))), s.claiming("jti", api.EncodeBase64(random(31))), s.claiming("scope", strings.Repeat("s", 128)))
		}},
		{"names", "Names in another case, or twice, are refused", spec, func(s *step) {
			s.refused(s.claiming("jti", nil, "JTI", "x"), func(ch object) string {
				p := s.proof(ch, api.RoleUser, "x")
				text := `{"jti":"` + ch.str("jti") + `","aud":"` + ch.str("spk") + `","iss":"` + s.user.public() + `","scope":"a","scope":"system:config","iat":0}`
				_ = p
				return s.user.sign(personaHeader, text, ch.str("spk"))
			})
		}},
		{"audience", "Another aud, another's nonce and a stranger's key are refused", spec, func(s *step) {
			stranger, err := newParty(random(32))
			s.must(err, "a key")
			s.refused(s.claiming("aud", s.eid), s.claiming("jti", api.EncodeBase64(random(32))), func(ch object) string {
				return stranger.sign(personaHeader, s.proof(ch, api.RoleUser, "x").with("iss", stranger.public()), ch.str("spk"))
			})
		}},
		{"low-order", "A point that shares its secret with everybody is refused", spec, func(s *step) {
			s.refused(func(ch object) string {
				zero := make([]byte, 32)
				return jws(personaHeader, s.proof(ch, api.RoleUser, "x").with("iss", api.EncodeBase64(zero)), zero)
			})
		}},
		{"times", "An end in the past, and an iat ahead, are refused", spec, func(s *step) {
			s.refused(func(ch object) string { return s.claiming("exp", ch.int("exp")-120)(ch) }, s.claiming("exp", 0),
				func(ch object) string { return s.claiming("iat", ch.int("exp")+300)(ch) })
		}},
		{"plain", "Logins over plain HTTP are taken from this host alone", "divergences.md#login-and-tokens", func(s *step) {
			s.needPlain()
			a := s.do(request{method: "GET", path: "/api/auth/token", plain: true})
			if s.host == "127.0.0.1" || s.host == "localhost" || s.host == "::1" {
				s.want(a, 200)
			} else {
				s.want(a, 418, 200) // the second with --require-tls-login=false
			}
		}},
	}}
}

// granted answers a challenge and returns the claims of the token.
func (s *step) granted(ch object, p claims) object {
	a := s.want(s.answerWith(s.user.sign(personaHeader, p, ch.str("spk"))), 200)
	_, t, err := openJWS(s.object(a, "token:str").str("token"), nil)
	s.must(err, "token")
	return t
}

// issued logs in and looks at the form of the token.
func (s *step) issued(role api.Role) {
	text := s.login(role, api.ScopeLoggerGet)
	header, t, err := openJWS(text, nil)
	s.must(err, "token")
	if header.str("typ") != "JWT" || header.str("alg") != "HS256" || len(header) != 2 {
		s.failf("its header is not that of a bearer token")
	}
	if why := t.fits("scope:str sub:str iat:int exp:int jti:b64=32", true); why != "" {
		s.failf("in the token: %s", why)
	}
	if !order(text, 1, "scope", "sub", "iat", "exp", "jti") {
		s.failf("the claims are not in the order scope, sub, iat, exp, jti")
	}
	now := s.statusNow().int("time")
	if t.str("scope") != api.ScopeLoggerGet || t.str("sub") != string(role) || t.int("iat") < now-60 || t.int("iat") > now+1 {
		s.failf("scope, sub or iat is not what it should be")
	}
	s.want(s.get("/api/logger/key", &text), 200)
}

// headed makes a proof under another header.
func (s *step) headed(header string) func(object) string {
	return func(ch object) string {
		return s.user.sign(header, s.proof(ch, api.RoleUser, "x"), ch.str("spk"))
	}
}

// claiming makes a proof with other claims.
func (s *step) claiming(pairs ...any) func(object) string {
	return func(ch object) string {
		return s.user.sign(personaHeader, s.proof(ch, api.RoleUser, "x").with(pairs...), ch.str("spk"))
	}
}

// refused wants each of these proofs to be a 401 that looks like any other. A good
// login between them keeps the penalty away.
func (s *step) refused(proofs ...func(ch object) string) {
	var first *answer
	for i, make := range proofs {
		if i%2 == 0 {
			s.login(api.RoleUser, "x")
		}
		a := s.empty(s.answerWith(make(s.challenge())), 401)
		if first == nil {
			first = a
		}
		s.alike(first, a)
	}
}

// dampingGroup measures how guesses are slowed down.
func dampingGroup() group {
	const spec = "api.md#post-apiauthtoken"
	slow := func(w *walk) string {
		if w.o.Damping.Delay == 0 {
			return "the module was said to run without delays"
		}
		return ""
	}
	wrong := func(s *step) *answer { return s.empty(s.answerWith("a.b.c"), 401) }
	right := func(s *step) time.Duration {
		ch := s.challenge()
		a := s.want(s.answerWith(s.user.sign(personaHeader, s.proof(ch, api.RoleUser, "x"), ch.str("spk"))), 200)
		return a.took
	}
	return group{name: "damping", title: "how guessing is slowed down", phase: personal, lacking: slow,
		before: func(s *step) { s.calm(0); s.sleep(s.o.Damping.Window); right(s) },
		checks: []check{
			{"delay", "No login is answered sooner than the delay, right or wrong", spec, func(s *step) {
				if took := right(s); took < s.o.Damping.Delay {
					s.failf("a right one was answered after %v, sooner than %v", took, s.o.Damping.Delay)
				}
				if a := wrong(s); a.took < s.o.Damping.Delay {
					s.failf("a wrong one was answered after %v, sooner than %v", a.took, s.o.Damping.Delay)
				}
				right(s)
			}},
			{"penalty", "After three failures in a row the penalty begins, for all", spec, func(s *step) {
				for range 3 {
					wrong(s)
				}
				if a := wrong(s); a.took < s.o.Damping.Penalty {
					s.failf("the fourth wrong one was answered after %v, sooner than %v", a.took, s.o.Damping.Penalty)
				}
			}},
			{"window", "It ends when the window is over", spec, func(s *step) {
				s.sleep(s.o.Damping.Window + 100*time.Millisecond)
				best := right(s)
				for range 4 { // a busy machine is no penalty
					if best < s.o.Damping.Penalty {
						return
					}
					best = min(best, right(s))
				}
				s.failf("a right login still took %v", best)
			}},
		}}
}
