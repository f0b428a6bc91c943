package conformance

import (
	"encoding/base64"
	"strings"
	"time"

	"softhem/api"
)

func tokenGroup() group {
	const spec = "api.md#conventions"
	return group{name: "token", title: "tokens that were changed, have ended, or open something else", phase: personal, checks: []check{
		{"missing", "No token is 401", spec, func(s *step) {
			for _, path := range []string{"/api/system/config", "/api/logger/key", "/api/keymgmt/list", "/api/keymgmt/get/" + noKID} {
				s.empty(s.get(path, nil), 401)
			}
			s.empty(s.post("/api/crypto/exdsa/sign", map[string]string{"kid": noKID}, nil), 401)
			s.empty(s.get("/api/system/reboot", nil), 401)
		}},
		{"signature", "A changed signature is 401", spec, func(s *step) {
			good := *s.as(api.ScopeSystemConfig)
			dot := strings.LastIndexByte(good, '.')
			raw, err := base64.RawURLEncoding.DecodeString(good[dot+1:])
			s.must(err, "token")
			for _, at := range []int{0, len(raw) / 2, len(raw) - 1} {
				raw[at] ^= 1
				s.tampered(good[:dot+1] + segment(raw))
				raw[at] ^= 1
			}
			s.tampered(good[:dot+1] + segment(raw[:len(raw)/2]))
			s.tampered(good[:dot+1])
			s.want(s.get("/api/system/config", &good), 200)
		}},
		{"claims", "Changed claims are 401", spec, func(s *step) {
			parts := strings.Split(*s.as(api.ScopeLoggerGet), ".")
			raw, err := base64.RawURLEncoding.DecodeString(parts[1])
			s.must(err, "token")
			for _, change := range [][2]string{{`"logger:get"`, `"system:config"`}, {`"sub":"U"`, `"sub":"M"`}} {
				changed := strings.Replace(string(raw), change[0], change[1], 1)
				if changed == string(raw) {
					s.failf("the token does not hold %s", change[0])
				}
				s.tampered(parts[0] + "." + segment([]byte(changed)) + "." + parts[2])
			}
		}},
		{"unsigned", "A token without an algorithm, or of another, is 401", spec, func(s *step) {
			payload := strings.Split(*s.as(api.ScopeSystemConfig), ".")[1]
			for _, header := range []string{`{"typ":"JWT","alg":"none"}`, `{"typ":"JWT","alg":"None"}`, `{"alg":"none"}`} {
				s.tampered(segment([]byte(header)) + "." + payload + ".")
			}
			ch := s.challenge() // a proof is no token
			s.tampered(s.user.sign(personaHeader, s.proof(ch, api.RoleUser, api.ScopeSystemConfig), ch.str("spk")))
		}},
		{"expired", "A token that has ended is 401", spec, func(s *step) {
			life := 5 * time.Second
			if s.o.Accelerated {
				life = 2 * time.Second
			}
			var token string
			var ends time.Time
			for range 5 { // a slow machine may use up its life before it is there
				ch := s.challenge()
				end := ch.int("exp") - 60 + int64(life/time.Second)
				a := s.answerWith(s.user.sign(personaHeader, s.proof(ch, api.RoleUser, api.ScopeSystemConfig).with("exp", end), ch.str("spk")))
				if a.status == 401 {
					life += time.Second
					continue
				}
				token, ends = s.object(s.want(a, 200), "token:str").str("token"), time.Now().Add(life)
				if s.get("/api/system/config", &token).status == 200 {
					break
				}
				life += time.Second
			}
			if token == "" {
				s.failf("no token could be had that lives for some seconds")
			}
			s.sleep(time.Until(ends) + 1100*time.Millisecond)
			s.empty(s.get("/api/system/config", &token), 401)
			s.empty(s.get("/api/system/status", &token), 401)
		}},
		{"scope", "A scope that does not begin with what is wanted is 403, one that goes on is not", spec, func(s *step) {
			for scope, want := range map[string]int{
				"system:config": 200, "system:config:and more": 200, "logger:get": 200, "auth:ext:pair": 200,
				"": 403, "system:confi": 403, "SYSTEM:CONFIG": 403, " system:config": 403, "keymgmt:list": 403,
			} {
				s.want(s.get("/api/system/config", s.as(scope)), want)
			}
		}},
		{"scopes", "Each operation wants its own scope: 403", spec, func(s *step) {
			wrong := s.as("system:shutdow")
			for _, path := range []string{"/api/system/config", "/api/system/reboot", "/api/system/shutdown", "/api/logger/key", "/api/keymgmt/list"} {
				s.want(s.get(path, wrong), 403)
			}
			for _, path := range []string{"create", "import", "derive", "update"} {
				s.want(s.post("/api/keymgmt/"+path, "{}", wrong), 403)
			}
			s.want(s.do(request{method: "DELETE", path: "/api/keymgmt/delete/" + noKID, token: wrong}), 403)
		}},
		{"key-scope", "A key is used with the scope of exactly this key", "api.md#cryptography", func(s *step) {
			body := map[string]string{"kid": noKID, "msg": "AAAA", "alg": api.AlgEd25519}
			right := api.ScopeKeyUse(noKID)
			s.want(s.post("/api/crypto/exdsa/sign", body, s.as(right)), 406) // there is no such key
			for _, scope := range []string{right + "0", right[:len(right)-1], "keymgmt:use:", "keymgmt:use:00000000000000000000000000000000", api.ScopeKeyGen} {
				s.want(s.post("/api/crypto/exdsa/sign", body, s.as(scope)), 403)
			}
			s.want(s.post("/api/crypto/exdsa/sign", map[string]string{"kid": "short"}, s.as(right)), 400)
		}},
		{"reboot", "A reboot ends all tokens, and makes another session key", "api.md#get-apisystemreboot", func(s *step) {
			before := s.challenge()
			old := *s.as(api.ScopeSystemConfig)
			s.reboot()
			s.empty(s.get("/api/system/config", &old), 401)
			after := s.challenge()
			if before.str("spk") == after.str("spk") || before.str("eid") != after.str("eid") {
				s.failf("after a reboot spk is to be another, and eid the same")
			}
			s.empty(s.answerWith(s.user.sign(personaHeader, s.proof(before, api.RoleUser, "x"), before.str("spk"))), 401)
		}},
	}}
}

// tampered wants a token to be refused, where one is needed and where none is.
func (s *step) tampered(token string) {
	s.empty(s.get("/api/system/config", &token), 401)
	s.empty(s.get("/api/system/status", &token), 401)
}

// rolesGroup is what the administrator may, and may not.
func rolesGroup() group {
	const spec = "api.md#conventions"
	master := func(s *step, scope string) *string { return s.token(api.RoleMaster, scope) }
	return group{name: "roles", title: "what the administrator may and may not", phase: personal, checks: []check{
		{"config", "The administrator reads and changes the configuration, and reads the log", spec, func(s *step) {
			s.want(s.get("/api/system/config", master(s, api.ScopeSystemConfig)), 200)
			s.want(s.post("/api/system/config", "{}", master(s, api.ScopeSystemConfig)), 200)
			s.want(s.get("/api/logger/key", master(s, api.ScopeLoggerGet)), 200)
		}},
		{"keys", "Key management is 403 for the administrator", spec, func(s *step) {
			s.want(s.get("/api/keymgmt/list", master(s, api.ScopeKeyList)), 403)
			s.want(s.get("/api/keymgmt/get/"+noKID, master(s, api.ScopeKeyGet)), 403)
			for path, scope := range map[string]string{
				"search": api.ScopeKeySearch, "create": api.ScopeKeyGen, "import": api.ScopeKeyImport, "derive": api.ScopeKeyDerive, "update": api.ScopeKeyUpdate,
			} {
				s.want(s.post("/api/keymgmt/"+path, "{}", master(s, scope)), 403)
			}
			s.want(s.do(request{method: "DELETE", path: "/api/keymgmt/delete/" + noKID, token: master(s, api.ScopeKeyDelete)}), 403)
		}},
		{"crypto", "So is all cryptography", spec, func(s *step) {
			token := master(s, api.ScopeKeyUse(noKID))
			for _, path := range []string{
				"hmac/hash", "hmac/verify", "exdsa/sign", "exdsa/verify", "cipher/encrypt", "cipher/decrypt", "cipher/wrap", "cipher/unwrap", "ecdh",
				"pqc/mlkem/encaps", "pqc/mlkem/decaps", "pqc/mldsa/sign", "pqc/mldsa/verify",
			} {
				s.want(s.post("/api/crypto/"+path, map[string]string{"kid": noKID}, token), 403)
			}
		}},
		{"pairing", "So is pairing authenticators", "api.md#post-apiauthextinit", func(s *step) {
			for _, path := range []string{"init", "validate", "mac"} {
				s.want(s.post("/api/auth/ext/"+path, "{}", master(s, api.ScopeExtPair)), 403)
			}
		}},
	}}
}
