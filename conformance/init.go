package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"regexp"
	"slices"
	"strings"

	"softhem/api"
	"softhem/hem"
)

func initGroup() group {
	stillFresh := func(s *step) {
		if !isFresh(s.statusNow()) {
			s.failf("the module is personalised now")
		}
	}
	return group{name: "init", title: "personalisation", phase: fresh, before: (*step).clock, checks: []check{
		{"challenge", "The challenge has its fields, and the same identity each time", "api.md#get-apiauthinit", func(s *step) {
			a, b := s.initChallenge(), s.initChallenge()
			if a.str("eid") != b.str("eid") || a.str("spk") != b.str("spk") || a.str("jti") == b.str("jti") {
				s.failf("of two challenges, eid and spk are to be the same and jti another")
			}
			if now := s.statusNow().int("time"); a.int("exp") < now || a.int("exp") > now+61 {
				s.failf("exp is not within a minute")
			}
		}},
		{"first-tls", "A fresh module takes a key with its certificate, and shows them at once", "api.md#post-apisystemconfig", func(s *step) {
			genuine := s.initChallenge().str("genuine")
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			s.must(err, "a key")
			der, err := s.authority.issue(&key.PublicKey, s.host)
			s.must(err, "a certificate")
			emp, sealed, err := hem.SealTLSKey(genuine, key)
			if err != nil {
				s.skipf("genuine does not hold the attestation certificate, so no key can be sealed to it")
			}
			a := s.post("/api/system/config", map[string]any{"tls": api.TLSBundle{Crt: api.EncodeBase64(der), Emp: emp, Key: sealed}}, nil)
			s.empty(a, 200)
			s.shows(der)
			stillFresh(s)
		}},
		{"malformed", "No init, or no JSON, is 400", "api.md#post-apiauthinit", func(s *step) {
			for _, body := range []string{"", "{", "{}", `{"init":null}`} {
				s.want(s.post("/api/auth/init", body, nil), 400)
			}
			stillFresh(s)
		}},
		{"incomplete", "A configuration that lacks a field is 400, and nothing is written", "api.md#post-apiauthinit", func(s *step) {
			for _, name := range []string{"masterkey", "userkey", "user", "email", "hostname", "origin", "trusted_ts", "trusted_backend", "allow_keysearch"} {
				ch := s.initChallenge()
				cfg := maps.Clone(s.initConfig())
				delete(cfg, name)
				if a := s.postInit(ch, s.initProof(ch, cfg)); a.status != 400 {
					s.failf("without %s: answered %d, want 400", name, a.status)
				}
			}
			stillFresh(s)
		}},
		{"invalid", "An invalid field is 400", "api.md#post-apiauthinit", func(s *step) {
			for _, wrong := range []claims{
				{"user": ""}, {"user": userName + "."}, {"userkey": "AAAA"}, {"userkey": api.EncodeBase64(make([]byte, 32))}, {"hostname": "no host"},
				{"origin": "nonsense"}, {"cfg": nil},
			} {
				ch := s.initChallenge()
				cfg := maps.Clone(s.initConfig())
				maps.Copy(cfg, wrong)
				proof := s.initProof(ch, cfg)
				if _, none := wrong["cfg"]; none {
					delete(proof, "cfg")
				}
				if a := s.postInit(ch, proof); a.status != 400 {
					s.failf("with %v: answered %d, want 400", slices.Collect(maps.Keys(wrong)), a.status)
				}
			}
			stillFresh(s)
		}},
		{"forged", "A proof that is not by the master key is 401", "api.md#post-apiauthinit", func(s *step) {
			ch := s.initChallenge()
			proof := s.initProof(ch, s.initConfig())
			post := func(token string) *answer {
				return s.post("/api/auth/init", map[string]string{"init": token}, nil)
			}
			good := s.master.sign(personaHeader, proof, ch.str("spk"))
			dot := strings.LastIndexByte(good, '.')
			s.empty(post(good[:dot+1]+segment(make([]byte, 32))), 401)
			s.empty(post(s.user.sign(personaHeader, proof, ch.str("spk"))), 401)                              // iss is the master
			s.empty(post(s.user.sign(personaHeader, proof.with("iss", s.user.public()), ch.str("spk"))), 401) // masterkey is another
			ch = s.initChallenge()
			s.empty(s.postInit(ch, s.initProof(ch, s.initConfig()).with("jti", api.EncodeBase64(random(32)))), 401)
			s.empty(s.postInit(ch, s.initProof(ch, s.initConfig()).with("aud", s.user.public())), 401)
			stillFresh(s)
		}},
		{"ok", "A right one is taken: instance id, token, certificate request", "api.md#post-apiauthinit", func(s *step) {
			out := s.personalise()
			if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`).MatchString(out.str("instanceid")) {
				s.failf("instanceid is no UUID")
			}
			_, t, err := openJWS(out.str("token"), nil)
			s.must(err, "token")
			if t.str("scope") != api.ScopeSystemConfig || t.str("sub") != "U" || t.int("exp")-t.int("iat") != 28_800 {
				s.failf("the token is not for system:config, role U, eight hours")
			}
			token := out.str("token")
			s.want(s.get("/api/system/config", &token), 200)
			s.request(out.str("csr"))
			if s.statusNow().has("inited") {
				s.failf("status still has inited")
			}
		}},
		{"twice", "A second time is 406", "api.md#post-apiauthinit", func(s *step) {
			s.want(s.get("/api/auth/init", nil), 406)
			s.want(s.post("/api/auth/init", "{}", nil), 406)
		}},
	}}
}

// request looks at a certificate request of the module's TLS key.
func (s *step) request(text string) *x509.CertificateRequest {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		s.failf("csr is no certificate request in PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	s.must(err, "csr")
	if err := csr.CheckSignature(); err != nil {
		s.failf("csr is not signed by its own key")
	}
	if key, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		s.failf("csr is not for a P-256 key")
	}
	return csr
}

// shows wants new handshakes to bring this certificate.
func (s *step) shows(der []byte) {
	if string(s.shown()) != string(der) {
		s.failf("a new handshake does not show the new certificate")
	}
}
