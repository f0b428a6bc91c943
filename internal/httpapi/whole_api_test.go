package httpapi_test

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/httpapi"
)

// The whole API, together with the table walk, which has what every operation
// answers to the emptiest request in every state but these:
//
//   - to a paired authenticator's token with the right scope (external)
//   - to a request that succeeds (good), and with which status (done)
//   - in a fail state that came by itself, to everybody; and on an EPA
//
// Every answer is held against docs/openapi.yaml by peer.check, its body's shape
// included, and operations, routes and both tables against each other. There is no
// state of formatting: the disks are files that are ready as soon as they are there, and a
// status never has the field format.
//
// done is 200 where it is 0.
var wholeAPI = []struct {
	op             string // method and path
	external, done int
	good           func(*stage) request
}{
	{op: "GET /api/auth/token", external: 200, good: plainly("")},
	{op: "POST /api/auth/token", external: 400, good: func(s *stage) request {
		ch := s.challenge()
		return request{body: fields{"auth": s.user().sign(s.t, goodHeader, s.proof(ch), ch.SPK)}.json(s.t)}
	}},
	{op: "GET /api/system/config/attestation", external: 200, good: plainly("any")},
	{op: "POST /api/system/config/provisioning", external: 403, good: func(s *stage) request {
		if s.log == "" { // an EPA
			return request{fresh: true, body: "{}"}
		}
		a := s.fresh.attestation(nil)
		crt := newCertifier(s.t).certify(s.t, certificateKey(s.t, a.Genuine), 0)
		return request{fresh: true, body: fields{"genuine": a.Genuine, "crt": crt}.json(s.t)}
	}},
	{op: "GET /api/auth/init", external: 406, good: func(s *stage) request { return request{fresh: true} }},
	{op: "POST /api/auth/init", external: 406, good: func(s *stage) request {
		claims, cfg := initClaims(s.fresh.initChallenge())
		cfg["gen_csr"] = true
		return request{fresh: true, body: fields{"init": admin().sign(s.t, goodHeader, claims, claims["aud"].(string))}.json(s.t)}
	}},
	{op: "POST /api/auth/ext/init", external: 403, good: func(s *stage) request { return s.body(api.ScopeExtPair, fields{"epk": s.broker.public()}) }},
	{op: "POST /api/auth/ext/validate", external: 403, good: func(s *stage) request {
		f := s.newPhone()
		return s.body(api.ScopeExtPair, fields{"pid": f.pid, "reply": f.reply(s.begin(), nil)})
	}},
	{op: "POST /api/auth/ext/mac", external: 403, good: func(s *stage) request { return s.body(api.ScopeSystemConfig, fields{"epk": s.broker.public()}) }},
	{op: "POST /api/auth/ext/request", external: 400, good: func(s *stage) request {
		return request{body: fields{"epk": s.broker.public(), "scope": "logger:get", "note": "n", "ctx": "c"}.json(s.t)}
	}},
	{op: "POST /api/auth/ext/token", external: 400, good: func(s *stage) request {
		return request{body: fields{"authreply": s.phone.allow(s.asked(nil), nil)}.json(s.t)}
	}},

	{op: "GET /api/system/version", external: 200, good: plainly("any")},
	{op: "GET /api/system/status", external: 200, good: plainly("")},
	{op: "GET /api/system/checkin", external: 200, good: plainly("")},
	{op: "POST /api/system/checkin", external: 400, good: func(s *stage) request {
		var check api.Check
		s.get("/api/system/checkin", &check)
		return request{body: s.backend.checked(s.t, check, time.Now(), nil)}
	}},
	{op: "GET /api/system/config", external: 200, good: plainly(api.ScopeLoggerGet)},
	{op: "POST /api/system/config", external: 403, good: func(s *stage) request {
		return s.body(api.ScopeSystemConfig, fields{"email": "x@example.com", "gen_csr": true})
	}},
	{op: "GET /api/system/selftest", external: 200, good: plainly("any")},
	{op: "POST /api/system/upgrade/upload_fw", external: 413, good: upload("firmware.bin")},
	{op: "POST /api/system/upgrade/upload_ui", external: 413, good: upload("webroot.tar")},
	{op: "GET /api/system/upgrade/check_fw", external: 404, done: 201, good: plainly(api.ScopeSystemUpgrade)},
	{op: "GET /api/system/upgrade/check_ui", external: 404, done: 201, good: plainly(api.ScopeSystemConfig)},
	{op: "GET /api/system/upgrade/install_ui", external: 406, good: verified("ui", "webroot.tar")},
	{op: "GET /api/system/upgrade/usbmode", external: 406, done: 406, good: plainly(api.ScopeSystemUpgrade)}, // never, but with quirks

	{op: "GET /api/logger/key", external: 200, good: plainly(api.ScopeLoggerGet)},
	{op: "GET /api/logger/list", external: 200, good: plainly(api.ScopeLoggerGet)},
	{op: "GET /api/logger/list/{offset}", external: 406, good: at(api.ScopeLoggerGet, "/api/logger/list/1")},
	{op: "GET /api/logger/{id}", external: 404, good: func(s *stage) request {
		return at(api.ScopeLoggerGet, "/api/logger/"+s.log)(s)
	}},
	{op: "GET /api/logger/checkpoint", external: 200, good: plainly(api.ScopeLoggerGet)},
	{op: "GET /api/logger/tail/{leaf}", external: 406, good: at(api.ScopeLoggerGet, "/api/logger/tail/0")},

	{op: "GET /api/storage/unlock", external: 200, good: plainly("storage:disk1")},
	{op: "GET /api/storage/unlock/rw", external: 200, good: plainly("storage:disk1:rw")},
	{op: "GET /api/storage/unlock/ro", external: 200, good: plainly("storage:disk1:rw")},
	{op: "GET /api/storage/lock", external: 200, good: plainly("storage:disk1")},

	{op: "GET /api/keymgmt/list", external: 200, good: plainly(api.ScopeKeyList)},
	{op: "GET /api/keymgmt/list/{offset}", external: 406, good: at(api.ScopeKeyList, "/api/keymgmt/list/1")},
	{op: "GET /api/keymgmt/list/{offset}/{count}", external: 406, good: at(api.ScopeKeyList, "/api/keymgmt/list/1/2")},
	{op: "POST /api/keymgmt/search", external: 400, good: func(s *stage) request {
		return s.body(api.ScopeKeySearch, fields{"descr": "^" + api.EncodeBase64([]byte("found")), "limit": 3})
	}},
	{op: "GET /api/keymgmt/get/{kid}", external: 406, good: func(s *stage) request { return at(api.ScopeKeyGet, "/api/keymgmt/get/"+s.key(api.Ed448))(s) }},
	{op: "POST /api/keymgmt/create", external: 400, good: func(s *stage) request {
		return s.body(api.ScopeKeyGen, fields{"label": "new", "type": api.MLDSA87, "descr": []byte("found")})
	}},
	{op: "POST /api/keymgmt/import", external: 400, good: func(s *stage) request {
		return s.body(api.ScopeKeyImport, fields{"label": "new", "type": api.SECP521R1, "pubkey": freshPublic(s.t, api.SECP521R1)})
	}},
	{op: "POST /api/keymgmt/derive", external: 400, good: func(s *stage) request {
		return s.body(api.ScopeKeyDerive, fields{"kid": s.key(api.Curve25519), "label": "new", "type": api.AES128, "pubkey": freshPublic(s.t, api.Curve25519)})
	}},
	{op: "POST /api/keymgmt/update", external: 400, good: func(s *stage) request {
		return s.body(api.ScopeKeyUpdate, fields{"kid": s.key(api.AES256), "label": "other"})
	}},
	{op: "DELETE /api/keymgmt/delete/{kid}", external: 406, good: func(s *stage) request {
		return at(api.ScopeKeyDelete, "/api/keymgmt/delete/"+s.create(api.AES128))(s)
	}},

	{op: "POST /api/crypto/hmac/hash", external: 400, good: using(api.SHA3x512, fields{"msg": "AAAA"})},
	{op: "POST /api/crypto/hmac/verify", external: 400, good: func(s *stage) request {
		mac := s.made("hmac/hash", api.SHA3x512, fields{"msg": "AAAA"}, "mac")
		return using(api.SHA3x512, fields{"msg": "AAAA", "mac": mac})(s)
	}},
	{op: "POST /api/crypto/exdsa/sign", external: 400, good: using(api.Ed448, fields{"msg": "AAAA", "alg": api.AlgEd448})},
	{op: "POST /api/crypto/exdsa/verify", external: 400, good: func(s *stage) request {
		sign := s.made("exdsa/sign", api.Ed448, fields{"msg": "AAAA", "alg": api.AlgEd448}, "sign")
		return using(api.Ed448, fields{"msg": "AAAA", "alg": api.AlgEd448, "sign": sign})(s)
	}},
	{op: "POST /api/crypto/cipher/encrypt", external: 400, good: using(api.AES256, fields{"msg": "AAAA", "alg": "AES256-GCM"})},
	{op: "POST /api/crypto/cipher/decrypt", external: 400, good: func(s *stage) request {
		f := fields{"msg": "AAAA", "alg": "AES256-CBC"}
		var out api.CipherAnswer
		decode(s.t, s.use("cipher/encrypt", s.key(api.AES256), f), &out)
		return using(api.AES256, f.but(fields{"msg": out.Ciphertext, "iv": out.IV}))(s)
	}},
	{op: "POST /api/crypto/cipher/wrap", external: 400, good: using(api.AES256, fields{"msg": make([]byte, 16)})},
	{op: "POST /api/crypto/cipher/unwrap", external: 400, good: func(s *stage) request {
		return using(api.AES256, fields{"msg": s.made("cipher/wrap", api.AES256, fields{"msg": make([]byte, 16)}, "wrapped")})(s)
	}},
	{op: "POST /api/crypto/ecdh", external: 400, good: func(s *stage) request {
		return using(api.Curve25519, fields{"ext_kid": s.key(api.Curve25519)})(s)
	}},
	{op: "POST /api/crypto/pqc/mlkem/encaps", external: 406, good: using(api.MLKEM512, fields{})},
	{op: "POST /api/crypto/pqc/mlkem/decaps", external: 400, good: func(s *stage) request {
		return using(api.MLKEM512, fields{"ct": s.made("pqc/mlkem/encaps", api.MLKEM512, fields{}, "ct")})(s)
	}},
	{op: "POST /api/crypto/pqc/mldsa/sign", external: 400, good: using(api.MLDSA44, fields{"msg": "AAAA"})},
	{op: "POST /api/crypto/pqc/mldsa/verify", external: 400, good: func(s *stage) request {
		return using(api.MLDSA44, fields{"msg": "AAAA", "sign": s.made("pqc/mldsa/sign", api.MLDSA44, fields{"msg": "AAAA"}, "sign")})(s)
	}},

	{op: "GET /api/system/upgrade/install_fw", external: 406, good: verified("fw", "firmware.bin")},
	{op: "GET /api/system/shutdown", external: 200, good: plainly(api.ScopeSystemShutdown)},
	{op: "GET /api/system/reboot", external: 200, good: plainly(api.ScopeSystemUpgrade)},

	{op: "GET /api/diag/test", external: 200, good: plainly("")},
	{op: "GET /api/diag/test_trng", external: 200, good: plainly("")},
	{op: "GET /api/diag/memdump/{address}/{length}", external: 200, good: at("", "/api/diag/memdump/0/128")},
	{op: "GET /api/diag/corrupt_repo/{address}", external: 406, good: func(s *stage) request {
		list := s.page("/0/1") // by then nobody needs the key
		return at("", "/api/diag/corrupt_repo/"+decimal(list.List[0].Addr))(s)
	}},
	{op: "GET /api/diag/break_trng", external: 200, good: plainly("")},
	{op: "GET /api/diag/disable_selftest", external: 200, good: plainly("")},
	{op: "GET /api/diag/break_temp", external: 200, good: plainly("")},

	{op: "GET /api/diag/break_tls", external: 200, good: plainly("")},
	{op: "GET /api/diag/wipe_config", external: 200, good: plainly("")},
}

// A stage is a module on which every operation can succeed once, in the order of
// the table, and a fresh one beside it.
type stage struct {
	*scene
	fresh   *peer
	backend backend
	phone   *phone
	log     string // a finished file; none on an EPA
	keys    map[api.KeyType]string
}

func newStage(t *testing.T, profile string) *stage {
	t.Helper()
	b := newBackend()
	o := hemtest.Options{Profile: profile, Diag: profile == "PPA", TrustedBackends: [][]byte{b.key.Public()},
		UpgradeKeys: newVendor(t, 1).trusted(), DataDir: filepath.Join(t.TempDir(), "data")}
	unowned := o
	unowned.Fresh, unowned.Seed, unowned.DataDir = true, "fresh", ""
	s := &stage{scene: newScene(t, &o), fresh: newPeer(t, hemtest.New(t, &unowned)), backend: b, keys: make(map[api.KeyType]string)}
	s.reboot()
	s.phone = s.pair()
	if profile == "PPA" {
		list := into[api.LogList](t, s.do(request{method: "GET", path: "/api/logger/list", token: s.as(api.RoleUser, api.ScopeLoggerGet)}))
		s.log = list.ID[0]
	}
	return s
}

// key is the stage's key of a type.
func (s *stage) key(t api.KeyType) string {
	if s.keys[t] == "" {
		s.keys[t] = s.create(t)
	}
	return s.keys[t]
}

// made is a field of the answer to a crypto operation.
func (s *stage) made(op string, t api.KeyType, f fields, field string) string {
	s.t.Helper()
	return api.EncodeBase64(s.must(s.use(op, s.key(t), f), field))
}

func decode(t *testing.T, a answer, into any) {
	t.Helper()
	if err := json.Unmarshal(a.body, into); a.status != 200 || err != nil {
		t.Fatalf("%d, %v", a.status, err)
	}
}

// body is a good request with a token for a scope.
func (s *stage) body(scope string, f fields) request {
	return request{scope: scope, body: f.json(s.t)}
}

// plainly is a good request without anything in it; at, one for another path than
// the table's, which has {…}.
func plainly(scope string) func(*stage) request { return at(scope, "") }

func at(scope, path string) func(*stage) request {
	return func(*stage) request { return request{scope: scope, path: path} }
}

func using(t api.KeyType, f fields) func(*stage) request {
	return func(s *stage) request {
		kid := s.key(t)
		return s.body(api.ScopeKeyUse(kid), fields{"kid": kid}.but(f))
	}
}

func upload(name string) func(*stage) request {
	return func(s *stage) request {
		return request{scope: api.ScopeSystemUpgrade, header: disposition(name), body: strings.Repeat("x", 100)}
	}
}

// verified has an image uploaded and checked, so that it can be installed.
func verified(kind, name string) func(*stage) request {
	return func(s *stage) request {
		if s.log != "" { // an EPA has no upgrade
			payload := webroot(s.t, "index.html", "x")
			if kind == "fw" {
				payload = "#!/bin/sh"
			}
			image := newVendor(s.t, 1).image(s.t, payload)
			status := 409 // while the check of the row before goes on
			for range 1000 {
				if status = s.upload(api.RoleUser, kind, name, image).status; status != 409 {
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
			if status != 200 {
				s.t.Fatalf("upload: %d", status)
			}
			if got := s.checked(kind); got != 200 {
				s.t.Fatalf("check: %d", got)
			}
		}
		return request{scope: api.ScopeSystemConfig}
	}
}

// external is a paired authenticator's token.
func (s *scene) external(f *phone, scope string) *string {
	s.t.Helper()
	if scope == "" {
		return nil
	}
	token, _ := s.granted(f.allow(s.asked(fields{"scope": scope}), nil), nil)
	return &token
}

// Operations of docs/openapi.yaml, routes, and rows of both tables are the same.
func TestWholeAPIIsInTheTables(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromFile("../../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sets := map[string]map[string]bool{"docs/openapi.yaml": {}, "the routes": {}, "the table walk": {}, "the table wholeAPI": {}}
	put := func(name, op string) {
		if sets[name][op] {
			t.Errorf("%s: %s is there twice", name, op)
		}
		sets[name][op] = true
	}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			put("docs/openapi.yaml", method+" "+path)
		}
	}
	for _, rt := range slices.Concat(httpapi.Routes(), httpapi.DiagRoutes()) {
		put("the routes", rt[0]+" "+rt[1])
	}
	for _, row := range walk {
		put("the table walk", row.method+" "+row.path)
	}
	for _, rt := range httpapi.DiagRoutes() { // open in every state: TestDiagIsOpenInEveryState
		put("the table walk", rt[0]+" "+rt[1])
	}
	for _, row := range wholeAPI {
		put("the table wholeAPI", row.op)
	}
	all := make(map[string]bool)
	for _, set := range sets {
		maps.Copy(all, set)
	}
	for op := range all {
		for name, set := range sets {
			if !set[op] {
				t.Errorf("%s lacks %s", name, op)
			}
		}
	}
	if len(all) < 60 {
		t.Errorf("%d operations in all: that is not the whole API", len(all))
	}
}

// Every operation succeeds once, on both form factors, by the user and by an
// authenticator where it may. So every body of a success has been seen.
func TestWholeAPISucceeds(t *testing.T) {
	for _, profile := range []string{"PPA", "EPA"} {
		for _, by := range []string{"user", "authenticator"} {
			t.Run(profile+" by the "+by, func(t *testing.T) {
				s := newStage(t, profile)
				for _, row := range wholeAPI {
					method, path, _ := strings.Cut(row.op, " ")
					if profile == "EPA" && strings.Contains(path, "/api/diag/") {
						s.expect(method, diagPath(path), nil, 404)
						continue
					}
					r := row.good(s)
					want := row.done
					switch {
					case profile == "EPA" && ppaOnly(path):
						want = 404
					case by == "authenticator" && row.external == 403 && !r.fresh:
						want = 403
					case want == 0:
						want = 200
					}
					r.method = method
					if r.path == "" {
						r.path = path
					}
					if r.token = s.as(api.RoleUser, r.scope); r.scope == "" {
						r.token = nil
					} else if by == "authenticator" {
						r.token = s.external(s.phone, r.scope)
					}
					p := s.peer
					if r.fresh {
						p = s.fresh
					}
					a := p.do(r)
					if a.status != want {
						t.Errorf("%s: %d, want %d (%s)", row.op, a.status, want, a.header.Get(api.HeaderError))
					}
					if strings.HasSuffix(path, "/reboot") || strings.HasSuffix(path, "/install_fw") {
						s.forget()
					}
					if path == "/api/system/status" && strings.Contains(string(a.body), "format") {
						t.Error("the status speaks of formatting, and there is none")
					}
				}
			})
		}
	}
}

// An authenticator's token opens what its scope says, but pairing and the
// configuration; and no more than a person's where the scope is another.
func TestWholeAPIByAnAuthenticator(t *testing.T) {
	b := newBackend()
	s := newScene(t, &hemtest.Options{TrustedBackends: [][]byte{b.key.Public()}})
	f := s.pair()
	wrong := s.external(f, scopeWrong)
	for _, row := range walk {
		want := externalOf(t, row.method, row.path)
		s.expect(row.method, row.path, wrong, row.wrong)
		s.expect(row.method, row.path, s.external(f, row.scope), want)
		if row.wrong == 200 && want != 200 && row.scope != "" {
			t.Errorf("%s %s is open, and not to authenticators?", row.method, row.path)
		}
	}
}

func externalOf(t *testing.T, method, path string) int {
	t.Helper()
	for _, row := range wholeAPI {
		if row.op == method+" "+path {
			return row.external
		}
	}
	t.Fatalf("%s %s is not in the table", method, path)
	return 0
}

// A fail state that came by itself, too hot here, is 409 where the state counts,
// for everybody and before it is asked who they are; and nothing else is changed by it.
func TestWholeAPIInAFailState(t *testing.T) {
	b := newBackend()
	s := newScene(t, &hemtest.Options{Diag: true, TrustedBackends: [][]byte{b.key.Public()}})
	f := s.pair()
	tokens := make(map[string]*string) // nobody logs in any more then
	for _, row := range walk {
		if tokens[row.scope] == nil {
			tokens[row.scope] = s.external(f, row.scope)
		}
		s.as(api.RoleUser, row.scope)
		s.as(api.RoleMaster, row.scope)
	}
	wrong := s.as(api.RoleUser, scopeWrong)
	s.expect("GET", "/api/diag/break_temp", nil, 200)
	if s.fls() != 4 {
		t.Fatalf("fail state %02x", s.fls())
	}
	for _, row := range walk {
		healthy := row.failed == 409
		or409 := func(otherwise int) int {
			if healthy {
				return 409
			}
			return otherwise
		}
		none, scope := or409(row.ready), or409(row.wrong)
		external := or409(externalOf(t, row.method, row.path))
		if row.method+" "+row.path == "POST /api/system/config" { // the body tells whether the state counts
			none, scope, external = 401, 403, 403
		}
		s.expect(row.method, row.path, nil, none)
		s.expect(row.method, row.path, wrong, scope)
		if !strings.HasSuffix(row.path, "/reboot") { // which ends the fail state, and all tokens
			s.expect(row.method, row.path, s.as(api.RoleMaster, row.scope), or409(row.master))
			s.expect(row.method, row.path, tokens[row.scope], external)
		}
		s.expect(row.method, row.path, s.as(api.RoleUser, row.scope), row.failed)
	}
}
