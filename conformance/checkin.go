package conformance

import (
	"encoding/binary"
	"strings"
	"time"

	"softhem/api"
)

const checkClaimsForm = "jti:b64=32 iss:b64=32 qid:b64=32 aud:b64=32 fws:b64=64 bls:b64=64 uis?:b64=32 csn:b64=16"

// needBackend skips what only a backend can look at.
func needBackend(w *walk) string {
	if w.backend == nil {
		return "no private key of a backend was given that the module trusts"
	}
	return ""
}

func checkinGroup() group {
	post := func(s *step, token string) *answer {
		return s.post("/api/system/checkin", map[string]string{"checked": token}, nil)
	}
	return group{name: "checkin", title: "check-in, with the suite as the backend", phase: fresh, lacking: needBackend, checks: []check{
		{"check", "The check is an eJWT for the backend, with its claims", "api.md#get-and-post-apisystemcheckin", func(s *step) {
			text, c := s.check()
			secret, err := s.backend.shared(c.str("iss"))
			s.must(err, "iss")
			header, c, err := openJWS(text, secret)
			if err != nil {
				s.failf("check is not signed for the backend's key: %v; is it the first that the module trusts?", err)
			}
			if header.str("alg") != "HS256" || header.str("ecdh") != "x25519" || header.str("typ") != "JWT" || !order(text, 0, "ecdh", "typ", "alg") {
				s.failf("the header is not that of a module")
			}
			if why := c.fits(checkClaimsForm, s.softhem); why != "" {
				s.failf("in the claims of check: %s", why)
			}
			if c.str("aud") != s.backend.public() || s.ppa != c.has("uis") {
				s.failf("aud is not the backend, or uis is not there on a PPA alone")
			}
		}},
		{"qid", "qid is made with 16 zero bytes on a fresh module", "divergences.md#clock-and-check-in", func(s *step) {
			_, c := s.check()
			if want := mac(make([]byte, 16), c.bytes("jti")); c.str("qid") != api.EncodeBase64(want) {
				s.failf("qid is not HMAC-SHA256(16 zero bytes, jti)")
			}
		}},
		{"malformed", "No checked, or no JSON, is 400", "api.md#get-and-post-apisystemcheckin", func(s *step) {
			for _, body := range []string{"", "{", "[]", "{}", `{"checked":null}`, `{"checked":1}`, `{"CHECKED":"a.b.c"}`} {
				s.want(s.post("/api/system/checkin", body, nil), 400)
			}
		}},
		{"forged", "A MAC that does not hold is 401", "api.md#get-and-post-apisystemcheckin", func(s *step) {
			_, c := s.check()
			good := s.backend.sign(backendHeader, s.checked(c), c.str("iss"))
			dot := strings.LastIndexByte(good, '.')
			s.empty(post(s, good[:dot+1]+segment(make([]byte, 32))), 401)
			s.empty(post(s, "a.b.c"), 401)
			s.empty(post(s, strings.Replace(good, segment([]byte(backendHeader)), segment([]byte(`{"ecdh":"x25519","typ":"JWT","alg":"none"}`)), 1)), 401)
			s.want(post(s, good), 200) // the nonce was not used up by these
		}},
		{"stranger", "A backend that is not trusted is 401", "api.md#get-and-post-apisystemcheckin", func(s *step) {
			_, c := s.check()
			other, err := newParty(random(32))
			s.must(err, "a key")
			s.empty(post(s, other.sign(backendHeader, s.checked(c).with("iss", other.public()), c.str("iss"))), 401)
		}},
		{"nonce", "A nonce of another's, and one used before, are 401", "api.md#get-and-post-apisystemcheckin", func(s *step) {
			_, c := s.check()
			foreign := s.checked(c).with("jti", api.EncodeBase64(random(32)))
			s.empty(post(s, s.backend.sign(backendHeader, foreign, c.str("iss"))), 401)
			good := s.backend.sign(backendHeader, s.checked(c), c.str("iss"))
			s.want(post(s, good), 200)
			s.empty(post(s, good), 401)
		}},
		{"ok", "No order is answered OK, and the clock is set from then on", "api.md#get-and-post-apisystemcheckin", func(s *step) {
			if out := s.checkIn(nil); out.str("status") != "OK" {
				s.failf("status is %q", out.str("status"))
			}
			st := s.statusNow()
			if off := st.int("time") - time.Now().Unix(); !st.has("time") || off < -120 || off > 120 {
				s.failf("the clock is not set to the time of the check-in")
			}
		}},
		{"unknown-status", "A status that is not understood is ???", "api.md#get-and-post-apisystemcheckin", func(s *step) {
			out := s.checkIn(func(_ object, c claims) claims { return c.with("status", api.EncodeBase64(random(32))) })
			if out.str("status") != "???" {
				s.failf("status is %q", out.str("status"))
			}
		}},
		{"fresh-orders", "A fresh module takes no orders", "divergences.md#clock-and-check-in", func(s *step) {
			for _, letter := range []string{"W", "B", "L"} {
				out := s.checkIn(func(c object, out claims) claims {
					return out.with("status", api.EncodeBase64(mac(make([]byte, 16), []byte(letter), c.bytes("jti"))))
				})
				if out.str("status") != "???" {
					s.failf("the order %s was answered %q", letter, out.str("status"))
				}
			}
		}},
		{"nonce-clock", "A nonce begins with the module's clock, little-endian", "api.md#get-and-post-apisystemcheckin", func(s *step) {
			_, c := s.check()
			now := s.statusNow().int("time")
			made := int64(binary.LittleEndian.Uint32(c.bytes("jti")))
			if made < now-30 || made > now+30 {
				s.failf("it reads as %d, and the clock is %d", made, now)
			}
		}},
	}}
}

// ordersGroup gives the orders that the walk survives; what stops a module for good
// is left out.
func ordersGroup() group {
	const spec = "divergences.md#clock-and-check-in"
	answered := func(s *step, letter, want string) {
		if got := s.order(letter).str("status"); got != want {
			s.failf("the order %s was answered %q, want %q", letter, got, want)
		}
	}
	return group{name: "orders", title: "orders that come with a check-in", phase: personal, lacking: needBackend,
		after: func(s *step) { s.update(claims{"trusted_backend": true}) },
		checks: []check{
			{"report", "An order to report is answered R, and changes nothing", spec, func(s *step) {
				token := s.as(api.ScopeSystemConfig)
				answered(s, "R", "R")
				s.want(s.get("/api/system/config", token), 200)
				if s.statusNow().int("fls_state") != 0 {
					s.failf("the module is in a fail state")
				}
			}},
			{"instance", "Who does not know the instance id orders nothing", spec, func(s *step) {
				right := s.instance
				s.instance = random(16)
				defer func() { s.instance = right }()
				for _, letter := range []string{"L", "W", "R", "B", "U"} {
					answered(s, letter, "???")
				}
			}},
			{"off", "With trusted_backend off nothing is obeyed", spec, func(s *step) {
				s.update(claims{"trusted_backend": false})
				for _, letter := range []string{"L", "W", "R"} {
					answered(s, letter, "???")
				}
				s.update(claims{"trusted_backend": true})
				if s.statusNow().int("fls_state") != 0 {
					s.failf("the module is in a fail state")
				}
			}},
			{"lock", "A locked module is the administrator's alone, until there is a new user key", spec, (*step).lock},
		}}
}

// lock has the module locked, and unlocks it.
func (s *step) lock() {
	const locked = 0x40
	user := *s.as(api.ScopeSystemConfig)
	if got := s.order("L").str("status"); got != "L" {
		s.failf("the order L was answered %q", got)
	}
	s.tokens = make(map[string]string)
	fls := func(want int64) {
		if got := s.statusNow().int("fls_state"); got != want {
			s.failf("fls_state is %02x, want %02x", got, want)
		}
	}
	fls(locked)
	s.empty(s.get("/api/system/config", &user), 401)
	ch := s.challenge()
	s.empty(s.answerWith(s.user.sign(personaHeader, s.proof(ch, api.RoleUser, "x"), ch.str("spk"))), 401)
	master := s.token(api.RoleMaster, api.ScopeSystemConfig)
	s.empty(s.get("/api/system/reboot", master), 200)
	s.rebooted()
	fls(locked)
	s.want(s.post("/api/system/config", claims{"ctx": 9}, s.token(api.RoleMaster, api.ScopeSystemConfig)), 409)
	s.want(s.setUserKey(s.user, api.RoleMaster, nil), 200)
	s.empty(s.get("/api/system/reboot", s.token(api.RoleMaster, api.ScopeSystemConfig)), 200)
	s.rebooted()
	fls(0)
	s.want(s.get("/api/system/config", s.as(api.ScopeSystemConfig)), 200)
}
