package conformance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"maps"
	"net/http"
	"slices"

	"softhem/api"
	"softhem/hem"
)

// configForm are the fields of the configuration.
func configForm(ppa bool) string {
	form := "iat:int uts:int devid:hex=16 instanceid:str eid:b64=32 eid_sign:b64=32 user:str email:str hostname:str dnsd:bool " +
		"trusted_ts:bool trusted_backend:bool allow_keysearch:bool origin:str ctx:int ip:str http_option_hsts:bool " +
		"http_option_dosprot_mode:int spk:b64=32 nonce:b64=32"
	if ppa {
		form += " genuine_id:str storage_mode:int storage_disk0size:int storage_capacity:int"
	}
	return form
}

const updatedForm = "updated:bool csr?:str genuine?:str reboot_required?:true"

func (s *step) config() object {
	return s.object(s.want(s.get("/api/system/config", s.as(api.ScopeSystemConfig)), 200), configForm(s.ppa))
}

// update changes the configuration as the user and wants it to be done.
func (s *step) update(fields any) object {
	return s.object(s.want(s.post("/api/system/config", fields, s.as(api.ScopeSystemConfig)), 200), updatedForm)
}

func configGroup() group {
	const spec = "api.md#post-apisystemconfig"
	origin := func(s *step, o string) *answer {
		return s.do(request{method: "GET", path: "/api/system/status", header: http.Header{"Origin": {o}}})
	}
	return group{name: "config", title: "reading and changing the configuration", phase: personal,
		after: func(s *step) {
			s.update(claims{"user": userName, "email": "", "origin": "*", "trusted_ts": true, "trusted_backend": true,
				"allow_keysearch": true, "ctx": 42, "http_option_hsts": false, "http_option_dosprot_mode": 0})
		},
		checks: []check{
			{"get", "The configuration has its fields, as the personalisation set them", "api.md#get-apisystemconfig", func(s *step) {
				c := s.config()
				if c.str("user") != userName || c.str("eid") != s.eid || c.int("ctx") != 42 || c.str("origin") != "*" ||
					!c.bool("trusted_ts") || !c.bool("allow_keysearch") || c.str("hostname") != s.host {
					s.failf("a field is not what the module was personalised with")
				}
			}},
			{"update", "Fields are changed together; updated says so, and uts grows", spec, func(s *step) {
				before := s.config()
				fields := claims{"user": "someone", "email": "someone@conform.example", "ctx": 4711, "http_option_dosprot_mode": 4}
				if out := s.update(fields); !out.bool("updated") {
					s.failf("updated is false, and four fields were to change")
				}
				c := s.config()
				if c.str("user") != "someone" || c.str("email") != "someone@conform.example" || c.int("ctx") != 4711 || c.int("http_option_dosprot_mode") != 4 {
					s.failf("not everything was changed")
				}
				if c.int("uts") <= before.int("uts") || c.int("iat") != before.int("iat") {
					s.failf("uts did not grow, or iat changed")
				}
				if s.statusNow().int("ctx") != 4711 || s.challenge().str("lbl") != "someone" {
					s.failf("status or challenge still show the old configuration")
				}
			}},
			{"same", "Where nothing changes, updated is false and uts stays", spec, func(s *step) {
				before := s.config()
				for _, fields := range []any{claims{"ctx": before.int("ctx")}, claims{}, claims{"user": nil, "no such setting": 1}} {
					if s.update(fields).bool("updated") {
						s.failf("updated is true, and nothing was to change")
					}
				}
				if s.config().int("uts") != before.int("uts") {
					s.failf("uts has changed")
				}
			}},
			{"atomic", "One invalid field is 400 with updated: false, and nothing changes", spec, func(s *step) {
				before := s.config()
				invalid := []claims{
					{"user": ""}, {"user": userName + "."}, {"user": 7}, {"origin": "nonsense"}, {"trusted_ts": "yes"}, {"ctx": "x"},
					{"http_option_dosprot_mode": 5}, {"http_option_dosprot_mode": -1}, {"allow_keysearch": 1},
				}
				if s.ppa {
					invalid = append(invalid, claims{"storage_mode": -1}, claims{"dnsd": "x"})
				}
				for _, wrong := range invalid {
					fields := claims{"email": "other@conform.example", "ctx": 1}
					maps.Copy(fields, wrong)
					a := s.post("/api/system/config", fields, s.as(api.ScopeSystemConfig))
					if a.status != 400 {
						s.failf("with %v: answered %d, want 400", slices.Collect(maps.Keys(wrong)), a.status)
					}
					if s.object(a, updatedForm).bool("updated") {
						s.failAt(a, "updated is true in a refusal")
					}
				}
				after := s.config()
				for _, name := range []string{"user", "email", "ctx", "uts", "origin", "trusted_ts"} {
					if after[name] != before[name] {
						s.failf("%s has changed", name)
					}
				}
			}},
			{"fixed", "Name and address cannot be changed", spec, func(s *step) {
				before := s.config()
				s.update(claims{"hostname": "other.example", "ip": "192.0.2.1/24"})
				if after := s.config(); after.str("hostname") != before.str("hostname") || after.str("ip") != before.str("ip") {
					s.failf("hostname or ip was changed")
				}
			}},
			{"origin", "The list of origins holds at once: exact, *.domain, and 412 for others", "api.md#conventions", func(s *step) {
				s.update(claims{"origin": "https://good.example, *.fine.example"})
				for _, o := range []string{"https://good.example", "https://a.fine.example", "https://b.a.fine.example"} {
					if a := s.want(origin(s, o), 200); a.header.Get("Access-Control-Allow-Origin") != o {
						s.failf("the origin is not echoed")
					}
				}
				for _, o := range []string{"https://evil.example", "https://fine.example", "https://notfine.example", "http://good.example", "null"} {
					if a := s.want(origin(s, o), 412); a.header.Get("Access-Control-Allow-Origin") != "" {
						s.failf("a foreign origin is let in by header")
					}
					s.want(s.do(request{method: "OPTIONS", path: "/api/system/status", header: http.Header{"Origin": {o}}}), 412)
				}
				s.update(claims{"origin": "*"})
			}},
			{"trusted-ts", "With trusted time off, status says tts: false", "api.md#get-apisystemstatus", func(s *step) {
				s.update(claims{"trusted_ts": false})
				if !s.statusNow().has("tts") {
					s.failf("status has no tts")
				}
				s.update(claims{"trusted_ts": true})
				if s.statusNow().has("tts") {
					s.failf("status still has tts")
				}
			}},
			{"hsts", "HSTS is sent over TLS when it is on, and only then", spec, func(s *step) {
				const header = "Strict-Transport-Security"
				s.update(claims{"http_option_hsts": true})
				if s.get("/api/system/status", nil).header.Get(header) == "" {
					s.failf("it is not sent")
				}
				s.update(claims{"http_option_hsts": false})
				if s.get("/api/system/status", nil).header.Get(header) != "" {
					s.failf("it is still sent")
				}
			}},
			{"userkey", "Another user key needs its proof, and ends the user's tokens alone", "divergences.md#configuration", (*step).changeUserKey},
			{"malformed", "What is no JSON object is 400", spec, func(s *step) {
				for _, body := range []string{"{", "[]", `"x"`} {
					s.want(s.post("/api/system/config", body, s.as(api.ScopeSystemConfig)), 400)
				}
			}},
		}}
}

// setUserKey posts another key for the user. key, if not nil, is what its proof is
// made with, in place of the right one.
func (s *step) setUserKey(to *party, role api.Role, key []byte) *answer {
	c := s.object(s.want(s.get("/api/system/config", s.token(role, api.ScopeSystemConfig)), 200), configForm(s.ppa))
	secret, err := to.shared(c.str("spk"))
	s.must(err, "spk")
	if key != nil {
		secret = key
	}
	return s.post("/api/system/config", claims{
		"userkey": to.public(), "userkey_nonce": c.str("nonce"),
		"userkey_hmac": api.EncodeBase64(mac(secret, c.bytes("nonce"), to.private.PublicKey().Bytes())),
	}, s.token(role, api.ScopeSystemConfig))
}

// changeUserKey gives the user another key, and the first one back.
func (s *step) changeUserKey() {
	first := s.user
	next, err := newParty(random(32))
	s.must(err, "a key")
	s.want(s.setUserKey(next, api.RoleUser, make([]byte, 32)), 401)
	s.want(s.post("/api/system/config", claims{"userkey": next.public()}, s.as(api.ScopeSystemConfig)), 400)
	old, admin := *s.as(api.ScopeSystemConfig), *s.token(api.RoleMaster, api.ScopeSystemConfig)
	s.want(s.setUserKey(next, api.RoleUser, nil), 200)
	s.user, s.tokens = next, map[string]string{string(api.RoleMaster) + " " + api.ScopeSystemConfig: admin}
	s.empty(s.get("/api/system/config", &old), 401)
	s.want(s.get("/api/system/config", &admin), 200)
	s.want(s.get("/api/system/config", s.as(api.ScopeSystemConfig)), 200)
	s.want(s.setUserKey(first, api.RoleMaster, nil), 200)
	s.user, s.tokens = first, map[string]string{}
	s.want(s.get("/api/system/config", s.as(api.ScopeSystemConfig)), 200)
}

// tlsGroup has the module show certificates of the suite's.
func tlsGroup() group {
	const spec = "api.md#post-apisystemconfig"
	host := func(s *step, public *ecdsa.PublicKey) []byte {
		der, err := s.authority.issue(public, s.host)
		s.must(err, "a certificate")
		return der
	}
	requested := func(s *step) (*ecdsa.PublicKey, string) {
		out := s.update(claims{"gen_csr": true})
		key, ok := s.request(out.str("csr")).PublicKey.(*ecdsa.PublicKey)
		if !ok {
			s.failf("csr is not for a P-256 key")
		}
		return key, out.str("genuine")
	}
	other := func(s *step) *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		s.must(err, "a key")
		return key
	}
	return group{name: "tls", title: "TLS by API: request, certificate, key, and by check-in", phase: personal, checks: []check{
		{"certificate", "A certificate for the module's key is shown by the next handshake", spec, func(s *step) {
			key, _ := requested(s)
			der := host(s, key)
			if out := s.update(claims{"tls": api.TLSBundle{Crt: api.EncodeBase64(der)}}); !out.bool("updated") || !out.has("reboot_required") {
				s.failf("updated is not true, or reboot_required is missing")
			}
			s.shows(der)
		}},
		{"listed", "The pair is listed as two keys, and cannot be deleted", "api.md#keys", func(s *step) {
			list := s.object(s.want(s.get("/api/keymgmt/list", s.as(api.ScopeKeyList)), 200), pageForm)
			types := map[string]string{"TLS PrivateKey": "ATT,PKEY,GENERIC_DER", "TLS Certificate": "CERT,GENERIC_DER"}
			found := 0
			for _, k := range list.objects("list") {
				if want, ok := types[k.str("label")]; ok {
					found++
					if k.str("type") != want || string(k.bytes("descr")) != "DNS:"+s.host {
						s.failf("%s is listed as %s, or its descr is not DNS: and the name", k.str("label"), k.str("type"))
					}
					s.want(s.do(request{method: "DELETE", path: "/api/keymgmt/delete/" + k.str("kid"), token: s.as(api.ScopeKeyDelete)}), 406)
				}
			}
			if found != 2 {
				s.failf("%d of the two are listed", found)
			}
		}},
		{"foreign", "A certificate for another key is 406, what is none 400", spec, func(s *step) {
			der := host(s, &other(s).PublicKey)
			s.want(s.post("/api/system/config", claims{"tls": api.TLSBundle{Crt: api.EncodeBase64(der)}}, s.as(api.ScopeSystemConfig)), 406)
			a := s.post("/api/system/config", claims{"tls": api.TLSBundle{Crt: "AAAA"}, "ctx": 9}, s.as(api.ScopeSystemConfig))
			s.object(s.want(a, 400), updatedForm)
		}},
		{"key", "A key that comes sealed with its certificate is shown too", "divergences.md#configuration", func(s *step) {
			_, genuine := requested(s)
			key := other(s)
			emp, sealed, err := hem.SealTLSKey(genuine, key)
			s.must(err, "genuine")
			der := host(s, &key.PublicKey)
			s.update(claims{"tls": api.TLSBundle{Crt: api.EncodeBase64(der), Emp: emp, Key: sealed}})
			s.shows(der)
			broken := append(slices.Clone([]byte(sealed[:len(sealed)-4])), "AAA="...)
			s.want(s.post("/api/system/config", claims{"tls": api.TLSBundle{Crt: api.EncodeBase64(der), Emp: emp, Key: string(broken)}}, s.as(api.ScopeSystemConfig)), 400, 406)
		}},
		{"newcrt", "A certificate that comes with a check-in is installed if it fits, and ERROR if not", "divergences.md#clock-and-check-in", func(s *step) {
			if why := needBackend(s.walk); why != "" {
				s.skipf("%s", why)
			}
			bring := func(der []byte) string {
				return s.checkIn(func(_ object, c claims) claims { return c.with("newcrt", api.EncodeBase64(der)) }).str("newcrt")
			}
			key, _ := requested(s)
			der := host(s, key)
			if got := bring(der); got != "OK" {
				s.failf("newcrt is %q for a certificate of the module's key", got)
			}
			s.quirk(string(s.shown()) != string(der), "newcrt is answered OK, and dropped")
			if got := bring(host(s, &other(s).PublicKey)); got != "ERROR" {
				s.failf("newcrt is %q for a certificate of another key", got)
			}
		}},
		{"survives", "The pair survives a reboot", spec, func(s *step) {
			key, _ := requested(s)
			der := host(s, key)
			s.update(claims{"tls": api.TLSBundle{Crt: api.EncodeBase64(der)}})
			s.reboot()
			s.shows(der)
		}},
	}}
}
