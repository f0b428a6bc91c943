package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/httpapi"
	"softhem/internal/suite"
)

// What every route answers in every state, to a caller with nothing but a
// well-formed empty request; where a kid decides about the scope, there is one,
// of a key that does not exist. Columns: a fresh module without a clock, a fresh
// one, a personalised one without a clock, a personalised one, the same over
// plain HTTP, with a token of a wrong scope, with the right one as user and as
// administrator, and the user's in a fail state.
var walk = []struct {
	method, path                                                            string
	freshNoClock, fresh, noClock, ready, plain, wrong, user, master, failed int
	scope                                                                   string
}{
	{"GET", "/api/auth/token", 403, 409, 403, 200, 200, 200, 200, 200, 409, ""},
	{"POST", "/api/auth/token", 403, 409, 403, 400, 400, 400, 400, 400, 409, ""},
	{"GET", "/api/auth/init", 403, 200, 403, 406, 406, 406, 406, 406, 409, ""},
	{"POST", "/api/auth/init", 403, 400, 403, 406, 406, 406, 406, 406, 409, ""},
	{"POST", "/api/auth/ext/init", 409, 409, 401, 401, 401, 403, 400, 403, 409, "auth:ext:pair"},
	{"POST", "/api/auth/ext/validate", 409, 409, 401, 401, 401, 403, 400, 403, 409, "auth:ext:pair"},
	{"POST", "/api/auth/ext/mac", 409, 409, 401, 401, 401, 403, 400, 403, 409, "system:config"},
	{"POST", "/api/auth/ext/request", 403, 409, 403, 400, 400, 400, 400, 400, 409, ""},
	{"POST", "/api/auth/ext/token", 403, 409, 403, 400, 400, 400, 400, 400, 409, ""},
	{"GET", "/api/system/version", 200, 200, 200, 200, 200, 200, 200, 200, 200, ""},
	{"GET", "/api/system/status", 200, 200, 200, 200, 200, 200, 200, 200, 200, ""},
	{"GET", "/api/system/checkin", 200, 200, 200, 200, 200, 200, 200, 200, 200, ""},
	{"POST", "/api/system/checkin", 400, 400, 400, 400, 400, 400, 400, 400, 400, ""},
	{"GET", "/api/system/config", 409, 409, 401, 401, 401, 403, 200, 200, 200, "system:config"},
	{"POST", "/api/system/config", 406, 406, 401, 401, 401, 403, 200, 200, 409, "system:config"},
	{"POST", "/api/system/upgrade/upload_fw", 413, 413, 401, 401, 401, 403, 413, 413, 413, "system:upgrade"},
	{"POST", "/api/system/upgrade/upload_ui", 413, 413, 401, 401, 401, 403, 413, 413, 413, "system:upgrade"},
	{"GET", "/api/system/upgrade/check_fw", 404, 404, 401, 401, 401, 403, 404, 404, 404, "system:upgrade"},
	{"GET", "/api/system/upgrade/check_ui", 404, 404, 401, 401, 401, 403, 404, 404, 404, "system:config"},
	{"GET", "/api/system/config/attestation", 200, 200, 401, 401, 401, 200, 200, 200, 409, "any"},
	{"POST", "/api/system/config/provisioning", 400, 400, 403, 403, 403, 403, 403, 403, 409, "system:config"},
	{"GET", "/api/system/selftest", 200, 200, 401, 401, 401, 200, 200, 200, 200, "any"},
	{"GET", "/api/system/upgrade/install_fw", 406, 406, 401, 401, 401, 403, 406, 406, 406, "system:config"},
	{"GET", "/api/system/upgrade/install_ui", 406, 406, 401, 401, 401, 403, 406, 406, 406, "system:upgrade"},
	{"GET", "/api/system/upgrade/usbmode", 406, 406, 401, 401, 401, 403, 406, 406, 406, "system:upgrade"},
	{"GET", "/api/logger/key", 409, 409, 401, 401, 401, 403, 200, 200, 200, "logger:get"},
	{"GET", "/api/logger/list", 409, 409, 401, 401, 401, 403, 200, 200, 200, "logger:get"},
	{"GET", "/api/logger/list/{offset}", 409, 409, 401, 401, 401, 403, 406, 406, 406, "logger:get"},
	{"GET", "/api/logger/{id}", 409, 409, 401, 401, 401, 403, 404, 404, 404, "logger:get"},
	{"GET", "/api/logger/checkpoint", 409, 409, 401, 401, 401, 403, 200, 200, 200, "logger:get"},
	{"GET", "/api/logger/tail/{leaf}", 409, 409, 401, 401, 401, 403, 406, 406, 406, "logger:get"},
	{"GET", "/api/storage/unlock", 409, 409, 401, 401, 401, 403, 200, 403, 409, "storage:disk1"},
	{"GET", "/api/storage/unlock/rw", 409, 409, 401, 401, 401, 403, 200, 403, 409, "storage:disk1:rw"},
	{"GET", "/api/storage/unlock/ro", 409, 409, 401, 401, 401, 403, 200, 403, 409, "storage:disk1"},
	{"GET", "/api/storage/lock", 409, 409, 401, 401, 401, 403, 200, 403, 409, "storage:disk1"},
	{"GET", "/api/keymgmt/list", 409, 409, 401, 401, 418, 403, 200, 403, 409, "keymgmt:list"},
	{"GET", "/api/keymgmt/list/{offset}", 409, 409, 401, 401, 418, 403, 406, 403, 409, "keymgmt:list"},
	{"GET", "/api/keymgmt/list/{offset}/{count}", 409, 409, 401, 401, 418, 403, 406, 403, 409, "keymgmt:list"},
	{"POST", "/api/keymgmt/search", 409, 409, 401, 401, 418, 403, 400, 403, 409, "keymgmt:search"},
	{"GET", "/api/keymgmt/get/{kid}", 409, 409, 401, 401, 418, 403, 406, 403, 409, "keymgmt:get"},
	{"POST", "/api/keymgmt/create", 409, 409, 401, 401, 418, 403, 400, 403, 409, "keymgmt:gen"},
	{"POST", "/api/keymgmt/import", 409, 409, 401, 401, 418, 403, 400, 403, 409, "keymgmt:imp"},
	{"POST", "/api/keymgmt/derive", 409, 409, 401, 401, 418, 403, 400, 403, 409, "keymgmt:derive"},
	{"POST", "/api/keymgmt/update", 409, 409, 401, 401, 418, 403, 400, 403, 409, "keymgmt:upd"},
	{"DELETE", "/api/keymgmt/delete/{kid}", 409, 409, 401, 401, 418, 403, 406, 403, 409, "keymgmt:del"},
	{"POST", "/api/crypto/hmac/hash", 409, 409, 401, 401, 418, 403, 400, 403, 409, scopeWalkUse},
	{"POST", "/api/crypto/hmac/verify", 409, 409, 401, 401, 418, 403, 400, 403, 409, scopeWalkUse},
	{"POST", "/api/crypto/exdsa/sign", 409, 409, 401, 401, 418, 403, 400, 403, 409, scopeWalkUse},
	{"POST", "/api/crypto/exdsa/verify", 409, 409, 401, 401, 418, 403, 400, 403, 409, scopeWalkUse},
	{"POST", "/api/crypto/cipher/encrypt", 409, 409, 401, 401, 418, 403, 400, 403, 409, scopeWalkUse},
	{"POST", "/api/crypto/cipher/decrypt", 409, 409, 401, 401, 418, 403, 400, 403, 409, scopeWalkUse},
	{"POST", "/api/crypto/cipher/wrap", 409, 409, 401, 401, 418, 403, 400, 403, 409, scopeWalkUse},
	{"POST", "/api/crypto/cipher/unwrap", 409, 409, 401, 401, 418, 403, 400, 403, 409, scopeWalkUse},
	{"POST", "/api/crypto/ecdh", 409, 409, 401, 401, 418, 403, 400, 403, 409, scopeWalkUse},
	{"POST", "/api/crypto/pqc/mlkem/encaps", 409, 409, 401, 401, 418, 403, 406, 403, 409, scopeWalkUse},
	{"POST", "/api/crypto/pqc/mlkem/decaps", 409, 409, 401, 401, 418, 403, 400, 403, 409, scopeWalkUse},
	{"POST", "/api/crypto/pqc/mldsa/sign", 409, 409, 401, 401, 418, 403, 400, 403, 409, scopeWalkUse},
	{"POST", "/api/crypto/pqc/mldsa/verify", 409, 409, 401, 401, 418, 403, 400, 403, 409, scopeWalkUse},
	{"GET", "/api/system/shutdown", 401, 401, 401, 401, 401, 403, 200, 200, 200, "system:shutdown"},
	{"GET", "/api/system/reboot", 200, 200, 401, 401, 401, 403, 200, 200, 200, "system:shutdown"},
}

const (
	scopeWrong   = "storage:nothing" // opens no route there is
	walkKID      = "0382e3eab596598b1f3582ef90b61a0e"
	scopeWalkUse = "keymgmt:use:" + walkKID
)

// concrete fills a route's {…}.
func concrete(path string) string {
	for _, arg := range []string{"offset", "count", "id", "leaf"} {
		path = strings.ReplaceAll(path, "{"+arg+"}", "nothing")
	}
	return strings.ReplaceAll(path, "{kid}", walkKID)
}

func TestWalkHoldsEveryRoute(t *testing.T) {
	want := make(map[[2]string]bool)
	for _, rt := range httpapi.Routes() {
		want[rt] = true
	}
	for _, row := range walk {
		delete(want, [2]string{row.method, row.path})
	}
	for rt := range want {
		t.Errorf("%s %s is served and not walked", rt[0], rt[1])
	}
	if len(walk) != len(httpapi.Routes()) {
		t.Errorf("%d rows for %d routes", len(walk), len(httpapi.Routes()))
	}
}

func TestEveryRouteInEveryState(t *testing.T) {
	b := newBackend()
	opts := func(o hemtest.Options) *hemtest.Options {
		o.TrustedBackends = [][]byte{b.key.Public()}
		return &o
	}
	t.Run("fresh without a clock", func(t *testing.T) {
		p := newPeer(t, hemtest.New(t, opts(hemtest.Options{Fresh: true, ClockUnset: true})))
		for _, row := range walk {
			p.expect(row.method, row.path, nil, row.freshNoClock)
		}
	})
	t.Run("fresh", func(t *testing.T) {
		p := newPeer(t, hemtest.New(t, opts(hemtest.Options{Fresh: true})))
		for _, row := range walk {
			p.expect(row.method, row.path, nil, row.fresh)
		}
	})
	t.Run("personalised without a clock", func(t *testing.T) {
		p := newPeer(t, withoutClock(t, b))
		for _, row := range walk {
			p.expect(row.method, row.path, nil, row.noClock)
		}
	})
	t.Run("personalised", func(t *testing.T) {
		p := newPeer(t, hemtest.New(t, opts(hemtest.Options{})))
		for _, role := range []api.Role{api.RoleUser, api.RoleMaster} {
			wrong := p.token(role, scopeWrong)
			for _, row := range walk {
				p.expect(row.method, row.path, nil, row.ready)
				p.expect(row.method, row.path, wrong, row.wrong)
			}
		}
	})
	t.Run("over plain HTTP", func(t *testing.T) {
		p := newPeer(t, hemtest.New(t, opts(hemtest.Options{})))
		for _, row := range walk {
			p.plain().expect(row.method, row.path, nil, row.plain)
			if row.plain == 418 { // the token does not help
				p.plain().expect(row.method, row.path, p.token(api.RoleUser, row.scope), row.plain)
			}
		}
	})
	t.Run("with the right scope", func(t *testing.T) {
		for _, role := range []api.Role{api.RoleUser, api.RoleMaster} {
			p := newPeer(t, hemtest.New(t, opts(hemtest.Options{})))
			for _, row := range walk {
				want := row.user
				if role == api.RoleMaster {
					want = row.master
				}
				p.expect(row.method, row.path, p.token(role, row.scope), want)
			}
		}
	})
	t.Run("in a fail state", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "data")
		k := newKeeper(t, opts(hemtest.Options{DataDir: dir}))
		for _, row := range walk { // nobody logs in any more then
			k.as(api.RoleUser, row.scope)
		}
		victim := k.create(api.AES128)
		v := openVault(t, dir)
		damaged := v.row(victim)
		damaged.Sealed[0] ^= 1
		v.replace([]string{victim}, damaged)
		k.want("a damaged key", k.do(request{method: "GET", path: "/api/keymgmt/list", token: k.as(api.RoleUser, api.ScopeKeyList)}), 409)
		for _, row := range walk {
			k.expect(row.method, row.path, k.as(api.RoleUser, row.scope), row.failed)
		}
	})
}

// withoutClock is a personalised module after a reboot, waiting for a check-in.
func withoutClock(t *testing.T, b backend) *hemtest.Module {
	t.Helper()
	m := hemtest.New(t, &hemtest.Options{Fresh: true, ClockUnset: true, TrustedBackends: [][]byte{b.key.Public()}})
	p := newPeer(t, m)
	if a := p.checkIn(b, time.Now()); a.status != 200 {
		t.Fatalf("check-in of a fresh module: %d", a.status)
	}
	if _, err := m.Personalise(); err != nil {
		t.Fatal(err)
	}
	p.expect("GET", "/api/system/reboot", p.token(api.RoleUser, "system:config"), 200)
	return m
}

func (p *peer) expect(method, path string, token *string, want int) answer {
	p.t.Helper()
	a := p.do(request{method: method, path: concrete(path), token: token, body: body(method, path)})
	if a.status != want {
		p.t.Errorf("%s %s: %d, want %d (%s)", method, path, a.status, want, a.header.Get(api.HeaderError))
	}
	return a
}

// The checks before the module's own, on every route.
func TestEveryRouteChecksTheRequestFirst(t *testing.T) {
	b := newBackend()
	m := hemtest.New(t, &hemtest.Options{Origin: "https://good.example, *.fine.example", TrustedBackends: [][]byte{b.key.Public()}})
	p := newPeer(t, m)
	origin := func(o string) http.Header { return http.Header{"Origin": {o}} }
	bad := "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.e30.AAAA"
	empty := ""
	for _, rt := range httpapi.Routes() {
		method, path := rt[0], concrete(rt[1])
		t.Run(method+" "+rt[1], func(t *testing.T) {
			p := *p
			p.t = t
			for _, other := range []string{"HEAD", "PUT", "PATCH", "DELETE", "TRACE", "get", "delete"} {
				if other == method {
					continue
				}
				if a := p.do(request{method: other, path: path}); a.status != 404 {
					t.Errorf("%s: %d, want 404", other, a.status)
				}
			}
			if a := p.do(request{method: method, path: path + "/more/of/it"}); a.status != 404 {
				t.Errorf("a longer path: %d, want 404", a.status)
			}
			// A foreign origin is refused before size, length and token.
			big := strings.Repeat(" ", 7301)
			if a := p.do(request{method: method, path: path, body: big, token: &bad, header: origin("https://evil.example")}); a.status != 412 {
				t.Errorf("foreign origin: %d, want 412", a.status)
			} else if a.header.Get("Access-Control-Allow-Origin") != "" {
				t.Error("a foreign origin was let in by header")
			}
			for _, good := range []string{"https://good.example", "https://a.fine.example", "http://b.a.fine.example:8080"} {
				a := p.do(request{method: method, path: path, token: &bad, header: origin(good)})
				if a.status != 401 || a.header.Get("Access-Control-Allow-Origin") != good || !strings.Contains(a.header.Get("Vary"), "Origin") {
					t.Errorf("origin %s: %d, %v", good, a.status, a.header)
				}
			}
			for _, foreign := range []string{"https://fine.example", "https://notfine.example", "http://good.example", "https://good.example:444", "null"} {
				if a := p.do(request{method: "OPTIONS", path: path, header: origin(foreign)}); a.status != 412 {
					t.Errorf("preflight from %s: %d, want 412", foreign, a.status)
				}
			}
			a := p.do(request{method: "OPTIONS", path: path, header: origin("https://good.example")})
			if a.status != 204 || a.header.Get("Access-Control-Allow-Methods") != "GET, POST, DELETE, OPTIONS" ||
				a.header.Get("Access-Control-Allow-Headers") != "Content-Type, Cache-Control, Pragma, Expires, Authorization, Content-Disposition" ||
				a.header.Get("Access-Control-Max-Age") != "86400" || a.header.Get("Access-Control-Allow-Credentials") != "true" ||
				a.header.Get("Access-Control-Allow-Origin") != "https://good.example" {
				t.Errorf("preflight: %d %v", a.status, a.header)
			}
			// Size and length come before the token.
			if strings.Contains(path, "/upload_") {
				big = "" // it takes 16 MiB; see TestUploadLimits
			} else if a := p.plain().do(request{method: method, path: path, body: big, token: &bad}); a.status != 413 || !a.closed {
				t.Errorf("7301 bytes: %d, closed %v; want 413 and the connection closed", a.status, a.closed)
			}
			if big != "" {
				if a := p.do(request{method: method, path: path, body: big, token: &bad}); a.status != 413 {
					t.Errorf("7301 bytes over HTTP/2: %d, want 413", a.status)
				}
				if a := p.do(request{method: method, path: path, body: big[:7300]}); a.status == 413 || a.status == 411 {
					t.Errorf("7300 bytes: %d", a.status)
				}
			}
			if method == "POST" {
				if a := p.plain().do(request{method: method, path: path, body: "{}", chunked: true, token: &bad}); a.status != 411 {
					t.Errorf("chunked: %d, want 411", a.status)
				}
				if a := p.do(request{method: method, path: path, body: "{}", chunked: true, token: &bad}); a.status != 411 {
					t.Errorf("without a length over HTTP/2: %d, want 411", a.status)
				}
			}
			// A token that is present has to be valid, on open endpoints too.
			for name, token := range map[string]*string{"bad": &bad, "empty": &empty} {
				for _, p := range []peer{p, *p.plain()} { // also where there has to be TLS
					if a := p.do(request{method: method, path: path, token: token, body: body(method, path)}); a.status != 401 {
						t.Errorf("%s token: %d, want 401", name, a.status)
					}
				}
			}
			two := http.Header{"Authorization": {"Bearer " + *p.token(api.RoleUser, "logger:get"), "Bearer x"}}
			if a := p.do(request{method: method, path: path, header: two, body: body(method, path)}); a.status != 401 {
				t.Errorf("two tokens: %d, want 401", a.status)
			}
		})
	}
}

// body is the emptiest a route takes.
func body(method, path string) string {
	switch {
	case method != "POST":
		return ""
	case strings.HasPrefix(path, "/api/crypto/"):
		return `{"kid":"` + walkKID + `"}`
	}
	return "{}"
}

func TestUnknownPaths(t *testing.T) {
	p := newPeer(t, hemtest.New(t, nil))
	for _, path := range []string{
		"/", "/api", "/api/", "/api/auth", "/api/auth/token/", "//api/auth/token", "/api//auth/token", "/api/auth/../auth/token",
		"/API/auth/token", "/api/storage", "/api/storage/", "/api/storage/unlock/", "/api/storage/unlock/wo", "/api/storage/lock/0", "/api/system/selftest/", "/api/auth/ext", "/api/auth/ext/init/", "/api/logger/list/0/1",
		"/api/keymgmt", "/api/keymgmt/", "/api/keymgmt/list/", "/api/keymgmt/list//", "/api/keymgmt/list/0/", "/api/keymgmt/list//1", "/api/keymgmt/list/0/1/2",
		"/api/keymgmt/get", "/api/keymgmt/get/", "/api/keymgmt/get/" + walkKID + "/", "/api/keymgmt/delete/" + walkKID, "/api/keymgmt/create",
		"/api/crypto/exdsa/sign", "/api/crypto/exdsa", "/api/crypto/sign", "/api/crypto/ecdh/" + walkKID,
	} {
		if a := p.do(request{method: "GET", path: path}); a.status != 404 {
			t.Errorf("GET %s: %d, want 404", path, a.status)
		}
		if a := p.do(request{method: "OPTIONS", path: path}); a.status != 204 {
			t.Errorf("OPTIONS %s: %d, want 204", path, a.status)
		}
	}
}

func TestEPAHasNoLogFiles(t *testing.T) {
	p := newPeer(t, hemtest.New(t, &hemtest.Options{Profile: "EPA"}))
	token := p.token(api.RoleUser, "logger:get")
	p.expect("GET", "/api/logger/list", token, 404)
	p.expect("GET", "/api/logger/6955b900", token, 404)
	p.expect("GET", "/api/logger/key", token, 200)
	p.expect("GET", "/api/logger/tail/0", token, 404)
	p.expect("GET", "/api/logger/checkpoint", token, 200)
	var v api.Version
	p.get("/api/system/version", &v)
	if !strings.Contains(v.HWV, "EPA") || v.UIS != "" {
		t.Errorf("version of an EPA: %+v", v)
	}
	var s map[string]any
	p.get("/api/system/status", &s)
	if _, ok := s["storage"]; ok {
		t.Error("an EPA shows storage")
	}
}

func TestStatusShowsOnlyWhatItShould(t *testing.T) {
	names := func(p *peer) map[string]any {
		var s map[string]any
		p.get("/api/system/status", &s)
		return s
	}
	has := func(s map[string]any, want ...string) {
		t.Helper()
		for _, n := range want {
			if _, ok := s[n]; !ok {
				t.Errorf("status lacks %s: %v", n, s)
			}
		}
		if len(s) != len(want) {
			t.Errorf("status has more or less than %v: %v", want, s)
		}
	}
	always := []string{"https", "ctx", "uptime", "temp", "fls_state", "storage"}
	b := newBackend()

	p := newPeer(t, hemtest.New(t, nil))
	has(names(p), append(always, "ts", "time", "hostname")...) // asked by address, its name is localhost
	p.base = strings.Replace(p.base, "127.0.0.1", "localhost", 1)
	s := names(p)
	has(s, append(always, "ts", "time")...)
	ts, err := time.Parse(time.RFC3339, s["ts"].(string))
	if err != nil || ts.Unix() != int64(s["time"].(float64)) || s["https"] != true {
		t.Errorf("ts %v, time %v, https %v: %v", s["ts"], s["time"], s["https"], err)
	}

	p = newPeer(t, hemtest.New(t, &hemtest.Options{Fresh: true, ClockUnset: true, TrustedBackends: [][]byte{b.key.Public()}}))
	has(names(p), append(always, "inited", "hostname")...)
	if names(p)["inited"] != false {
		t.Error("inited is not false on a fresh module")
	}
	if a := p.checkIn(b, time.Unix(1767225600, 0)); a.status != 200 {
		t.Fatalf("check-in: %d", a.status)
	}
	s = names(p)
	has(s, append(always, "inited", "hostname", "ts", "time")...)
	if s["ts"] != "2026-01-01T00:00:00Z" && s["ts"] != "2026-01-01T00:00:01Z" {
		t.Errorf("after the check-in ts is %v", s["ts"])
	}
}

func TestVersionIsSigned(t *testing.T) {
	p := newPeer(t, hemtest.New(t, nil))
	var v api.Version
	p.get("/api/system/version", &v)
	for _, image := range [][3]string{{v.FWV, v.FWK, v.FWS}, {v.BLV, v.BLK, v.BLS}} {
		key, err1 := api.DecodeBase64(image[1])
		sig, err2 := api.DecodeBase64(image[2])
		digest := suite.SHA256([]byte(image[0]))
		if err1 != nil || err2 != nil || !suite.VerifyEd25519(key, digest[:], sig) {
			t.Errorf("the signature of %q does not hold", image[0])
		}
	}
	if v.SDCID != "" {
		t.Error("card registers are shown to strangers")
	}
	a := p.do(request{method: "GET", path: "/api/system/version", token: p.token(api.RoleUser, "x")})
	if !strings.Contains(string(a.body), `"sd_cid"`) {
		t.Error("card registers are not shown to a token")
	}
}

func TestConfig(t *testing.T) {
	m := hemtest.New(t, nil)
	p := newPeer(t, m)
	for _, scope := range []string{"system:config", "logger:get", "auth:ext:pair", "system:config:more"} {
		a := p.expect("GET", "/api/system/config", p.token(api.RoleMaster, scope), 200)
		var c api.Config
		if err := json.Unmarshal(a.body, &c); err != nil {
			t.Fatal(err)
		}
		if c.EID != m.EID || c.User != m.User || c.Hostname != "localhost" || c.Origin != "*" || c.Iat == 0 || len(c.DevID) != 16 {
			t.Errorf("config %+v", c)
		}
	}
	for _, scope := range []string{"", "system:", "system:confi", "logger:getx"[:9], "keymgmt:list"} {
		p.expect("GET", "/api/system/config", p.token(api.RoleUser, scope), 403)
	}
}

// The paths of a log file: being written, unknown, finished.
func TestLogEndpoints(t *testing.T) {
	m := hemtest.New(t, nil)
	p := newPeer(t, m)
	p.expect("GET", "/api/system/reboot", p.token(api.RoleUser, "system:config"), 200)
	token := p.token(api.RoleUser, "logger:get")
	a := p.expect("GET", "/api/logger/list", token, 200)
	var list api.LogList
	if err := json.Unmarshal(a.body, &list); err != nil {
		t.Fatal(err)
	}
	if list.Total != 2 || len(list.ID) != 2 || list.ID[0] >= list.ID[1] {
		t.Fatalf("list %+v, want two files, oldest first", list)
	}
	get := func(path string) answer { return p.do(request{method: "GET", path: path, token: token}) }
	for path, want := range map[string]int{
		"/api/logger/list/0": 200, "/api/logger/list/2": 200, "/api/logger/list/3": 406, "/api/logger/list/-1": 406,
		"/api/logger/list/x": 406, "/api/logger/list/00000000000000000000": 200, "/api/logger/" + list.ID[1]: 406,
		"/api/logger/00000000": 404, "/api/logger/0000000": 404, "/api/logger/zzzzzzzz": 404,
		"/api/logger/" + strings.ToUpper(list.ID[0]): 404, "/api/logger/..%2fhem.db": 404,
	} {
		if path == "/api/logger/"+strings.ToUpper(list.ID[0]) && strings.ToUpper(list.ID[0]) == list.ID[0] {
			want = 200 // a name without letters
		}
		if a := get(path); a.status != want {
			t.Errorf("GET %s: %d, want %d", path, a.status, want)
		}
	}
	file := get("/api/logger/" + list.ID[0])
	if file.status != 200 || !strings.HasPrefix(file.header.Get("Content-Type"), "text/plain") ||
		file.header.Get("Content-Length") != fmt.Sprint(len(file.body)) || !strings.HasPrefix(string(file.body), "# softhem v") {
		t.Fatalf("log file: %d %v %.40q", file.status, file.header, file.body)
	}
	verifyLog(t, p, token, file.body)
}
