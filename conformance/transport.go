package conformance

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"net/http"
	"strings"
	"time"

	"softhem/api"
)

const maxBody = 7300 // bytes of a request

// aBadToken has the form of a bearer token and is none.
const aBadToken = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzY29wZSI6InN5c3RlbTpjb25maWciLCJzdWIiOiJVIn0.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

const preflightHeaders = "Content-Type, Cache-Control, Pragma, Expires, Authorization, Content-Disposition"

func transportGroup() group {
	bad := aBadToken
	origin := http.Header{"Origin": {"https://conform.example"}}
	return group{name: "transport", title: "HTTP, TLS, and what any request is checked for", phase: fresh, checks: []check{
		{"version", "Version has its fields, and names the form factor", "api.md#get-apisystemversion", (*step).version},
		{"version-signatures", "The signatures of firmware and boot loader hold", "divergences.md#version-and-status", (*step).versionSignatures},
		{"status", "Status has its fields", "api.md#get-apisystemstatus", func(s *step) {
			st := s.statusNow()
			if st.has("ts") != st.has("time") {
				s.failf("ts and time go together")
			}
			if st.has("ts") {
				ts, err := time.Parse(time.RFC3339, st.str("ts"))
				if err != nil || ts.Unix() != st.int("time") || !strings.HasSuffix(st.str("ts"), "Z") {
					s.failf("ts is not time in RFC 3339 and UTC")
				}
			}
			if s.ppa != st.has("storage") {
				s.failf("storage is there on a PPA, and there alone")
			}
		}},
		{"tls13", "The HTTPS listener speaks TLS 1.3 and nothing older", "api.md#conventions", func(s *step) {
			a := s.get("/api/system/version", nil)
			if a.tls == nil || a.tls.Version != tls.VersionTLS13 {
				s.failf("the connection is not TLS 1.3")
			}
			if _, err := s.handshake(&tls.Config{MaxVersion: tls.VersionTLS12, InsecureSkipVerify: true, ServerName: s.host}); err == nil {
				s.failf("TLS 1.2 is spoken too")
			}
		}},
		{"unknown-path", "Unknown paths are 404", "api.md#conventions", func(s *step) {
			for _, path := range []string{"/api/", "/api/auth", "/api/system/nothing", "/api/keymgmt/nothing", "/api/crypto/nothing"} {
				s.want(s.get(path, nil), 404)
			}
		}},
		{"unknown-method", "A path with a method it does not have is 404", "divergences.md#transport-and-errors", func(s *step) {
			s.want(s.do(request{method: "DELETE", path: "/api/system/status"}), 404)
			s.want(s.do(request{method: "PUT", path: "/api/system/version"}), 404)
			s.want(s.get("/api/crypto/exdsa/sign", nil), 404)
		}},
		{"too-large", "A body of 7301 bytes is 413, one of 7300 is not", "api.md#conventions", func(s *step) {
			s.want(s.post("/api/auth/init", strings.Repeat(" ", maxBody+1), nil), 413)
			if a := s.post("/api/auth/init", strings.Repeat(" ", maxBody), nil); a.status == 413 {
				s.failf("7300 bytes are too many")
			}
		}},
		{"too-large-closes", "A 413 closes the connection", "api.md#conventions", func(s *step) {
			s.needPlain()
			a := s.do(request{method: "POST", path: "/api/auth/init", body: strings.Repeat(" ", maxBody+1), plain: true})
			if s.want(a, 413); !a.closed {
				s.failf("it was kept")
			}
		}},
		{"length-required", "A POST without a length is 411", "api.md#conventions", func(s *step) {
			s.want(s.do(request{method: "POST", path: "/api/auth/init", body: "{}", chunked: true}), 411)
		}},
		{"bad-token", "A token that does not hold is 401, on open paths too", "api.md#conventions", func(s *step) {
			for _, path := range []string{"/api/system/status", "/api/system/version", "/api/system/config"} {
				s.empty(s.get(path, &bad), 401)
			}
			none := ""
			s.want(s.get("/api/system/status", &none), 401)
		}},
		{"order", "404 comes before 413, and that before 401", "api.md#conventions", func(s *step) {
			big := strings.Repeat(" ", maxBody+1)
			s.want(s.post("/api/system/nothing", big, &bad), 404)
			s.want(s.post("/api/auth/init", big, &bad), 413)
		}},
		{"cors-fresh", "A fresh module allows any origin, and says so", "api.md#conventions", func(s *step) {
			a := s.want(s.do(request{method: "GET", path: "/api/system/status", header: origin}), 200)
			if a.header.Get("Access-Control-Allow-Origin") != "https://conform.example" || !strings.Contains(strings.Join(a.header.Values("Vary"), ","), "Origin") {
				s.failf("Access-Control-Allow-Origin does not echo it, or Vary lacks Origin")
			}
		}},
		{"preflight", "OPTIONS answers 204, with what pages may send", "api.md#conventions", func(s *step) {
			for _, path := range []string{"/api/system/status", "/api/system/nothing"} {
				a := s.want(s.do(request{method: "OPTIONS", path: path, header: origin}), 204)
				for name, value := range map[string]string{
					"Methods": "GET, POST, DELETE, OPTIONS", "Headers": preflightHeaders, "Credentials": "true",
				} {
					if got := a.header.Get("Access-Control-Allow-" + name); got != value {
						s.failf("Access-Control-Allow-%s is %q, want %q", name, got, value)
					}
				}
				if got := a.header.Get("Access-Control-Max-Age"); got != "86400" {
					s.failf("Access-Control-Max-Age is %q, want 86400", got)
				}
			}
		}},
		{"plain-refused", "Key management and cryptography refuse plain HTTP with 418", "api.md#keys", func(s *step) {
			s.needPlain()
			s.want(s.do(request{method: "GET", path: "/api/keymgmt/list", plain: true}), 418)
			s.want(s.do(request{method: "POST", path: "/api/crypto/exdsa/sign", body: "{}", plain: true}), 418)
		}},
		{"plain-quirks", "So do deletion and hmac/hash", "divergences.md#keys", func(s *step) {
			s.needPlain()
			a := s.do(request{method: "DELETE", path: "/api/keymgmt/delete/" + noKID, plain: true})
			s.quirk(a.status == 409, "deletion over plain HTTP is 409 and not 418")
			s.want(a, 418)
			a = s.do(request{method: "POST", path: "/api/crypto/hmac/hash", body: "{}", plain: true})
			s.quirk(a.status == 409, "hmac/hash over plain HTTP is 409 and not 418")
			s.want(a, 418)
		}},
		{"form-factor", "A PPA has log files, storage and attestation; on an EPA these, and upgrades, are 404", "api.md#conventions", func(s *step) {
			for _, path := range []string{"/api/logger/list", "/api/storage/unlock", "/api/storage/lock", pathAttestation} {
				if a := s.get(path, nil); (a.status == 404) == s.ppa {
					s.failf("answered %d", a.status)
				}
			}
			if s.ppa {
				return
			}
			for _, path := range []string{"/api/logger/00000000", "/api/system/upgrade/check_fw", "/api/system/upgrade/install_ui"} {
				s.want(s.get(path, nil), 404)
			}
			s.want(s.post(pathProvisioning, "{}", nil), 404)
		}},
		{"keep-alive", "Connections are kept", "divergences.md#transport-and-errors", func(s *step) {
			s.needPlain()
			a := s.want(s.do(request{method: "GET", path: "/api/system/status", plain: true}), 200)
			s.quirk(a.closed, "the connection is closed after each answer")
		}},
	}}
}

// noKID is a kid that no key has.
const noKID = "0382e3eab596598b1f3582ef90b61a0e"

func (s *step) needPlain() {
	if s.o.PlainURL == "" {
		s.skipf("no address of the plain HTTP listener was given")
	}
}

func versionForm(ppa, cards bool) string {
	form := "hwv:str fwv:str fwk:b64=32 fws:b64=64 blv:str blk:b64=32 bls:b64=64"
	if ppa {
		form += " uis:b64=32"
	}
	if ppa && cards {
		form += " sd_csd:hex sd_cid:hex"
	}
	return form
}

func (s *step) version() {
	a := s.want(s.get("/api/system/version", nil), 200)
	v := s.object(a, versionForm(s.ppa, true))
	if hwv := v.str("hwv"); strings.Contains(hwv, "PPA") == strings.Contains(hwv, "EPA") {
		s.failf("hwv names neither PPA nor EPA, or both")
	}
}

func (s *step) versionSignatures() {
	v := s.object(s.want(s.get("/api/system/version", nil), 200), versionForm(s.ppa, true))
	for _, image := range [][3]string{{"fwv", "fwk", "fws"}, {"blv", "blk", "bls"}} {
		digest := sha256.Sum256([]byte(strings.TrimSuffix(v.str(image[0]), "-DIAG")))
		if !ed25519.Verify(v.bytes(image[1]), digest[:], v.bytes(image[2])) {
			s.failf("%s is not signed by %s", image[2], image[1])
		}
	}
}

// freshGroup is what a module without an owner does and refuses.
func freshGroup() group {
	return group{name: "fresh", title: "a module that is not personalised", phase: fresh, checks: []check{
		{"status", "Status says that it is not initialised", "api.md#get-apisystemstatus", func(s *step) {
			if st := s.statusNow(); !isFresh(st) || st.int("fls_state") != 0 {
				s.failf("inited is not false, or the module is in a fail state")
			}
		}},
		{"refused", "What needs a personalised module is 409", "api.md#conventions", func(s *step) {
			for _, r := range []request{
				{method: "GET", path: "/api/system/config"}, {method: "GET", path: "/api/logger/key"},
				{method: "GET", path: "/api/keymgmt/list"}, {method: "POST", path: "/api/keymgmt/create", body: "{}"},
				{method: "POST", path: "/api/crypto/exdsa/sign", body: "{}"}, {method: "POST", path: "/api/auth/ext/init", body: "{}"},
			} {
				s.want(s.do(r), 409)
			}
		}},
		{"login", "There is no login: 409, or 403 while the clock is not set", "api.md#get-apiauthtoken", func(s *step) {
			want := 409
			if !s.statusNow().has("time") {
				want = 403
			}
			s.want(s.get("/api/auth/token", nil), want)
			s.want(s.post("/api/auth/token", "{}", nil), want)
		}},
		{"shutdown", "Shutting down needs a token", "api.md#get-apisystemshutdown", func(s *step) {
			s.want(s.get("/api/system/shutdown", nil), 401)
		}},
		{"config", "It takes a TLS pair, and nothing else", "api.md#post-apisystemconfig", func(s *step) {
			s.want(s.post("/api/system/config", map[string]any{"user": "somebody"}, nil), 406)
			s.want(s.post("/api/system/config", "{", nil), 400)
			if !isFresh(s.statusNow()) {
				s.failf("the module is not fresh any more")
			}
		}},
		{"selftest", "The self-test is open", "api.md#get-apisystemselftest", func(s *step) { s.selftest(nil) }},
		{"reboot", "Rebooting is open", "api.md#get-apisystemreboot", func(s *step) {
			before := s.statusNow().int("uptime")
			s.empty(s.get("/api/system/reboot", nil), 200)
			s.client.CloseIdleConnections()
			s.back(func(st object) bool { return st.int("uptime") <= before || st.int("uptime") < 5 })
			if !isFresh(s.statusNow()) {
				s.failf("the module is not fresh any more")
			}
		}},
	}}
}

// unlike fails the check unless all answers look the same from outside.
func (s *step) alike(first, a *answer) {
	if a.status != first.status || string(a.body) != string(first.body) || a.header.Get(api.HeaderError) != first.header.Get(api.HeaderError) {
		s.failAt(a, "this refusal can be told from others")
	}
}
