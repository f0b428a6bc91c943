package conformance_test

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"softhem/api"
	"softhem/conformance"
	"softhem/hemtest"
)

// An exchange is a request and its answer as the proxy sees them.
type exchange struct {
	method, path string
	header       http.Header // of the request
	body         []byte
	plain        bool
	forward      func() // sends the request on and fills in the answer; once

	status int
	answer http.Header
	out    []byte
	closed bool
}

// set puts fields into a JSON answer; nil takes one away.
func (x *exchange) set(pairs ...any) {
	var fields map[string]any
	dec := json.NewDecoder(bytes.NewReader(x.out))
	dec.UseNumber()
	if dec.Decode(&fields) != nil {
		return
	}
	for i := 0; i < len(pairs); i += 2 {
		name := pairs[i].(string)
		if pairs[i+1] == nil {
			delete(fields, name)
		} else if _, here := fields[name]; here {
			fields[name] = pairs[i+1]
		}
	}
	x.out, _ = json.Marshal(fields)
}

func (x *exchange) text(name string) string {
	var fields map[string]any
	if json.Unmarshal(x.out, &fields) != nil {
		return ""
	}
	text, _ := fields[name].(string)
	return text
}

// A faulty module is a real one behind a proxy that changes what it says. mutate
// calls x.forward, or answers by itself. One request is handled at a time.
func faulty(t *testing.T, m *hemtest.Module, o conformance.Options, mutate func(x *exchange)) conformance.Options {
	t.Helper()
	client := &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var one sync.Mutex
	handler := func(base string, plain bool) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			one.Lock()
			defer one.Unlock()
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			x := &exchange{method: r.Method, path: r.URL.Path, header: r.Header, body: body, plain: plain}
			x.forward = func() {
				var in io.Reader = bytes.NewReader(x.body)
				if r.ContentLength < 0 {
					in = struct{ io.Reader }{in}
				}
				req, err := http.NewRequestWithContext(r.Context(), r.Method, base+r.URL.RequestURI(), in)
				if err != nil {
					return
				}
				req.Header = x.header
				resp, err := client.Do(req)
				if err != nil {
					return
				}
				defer resp.Body.Close()
				x.out, _ = io.ReadAll(resp.Body)
				x.status, x.answer, x.closed = resp.StatusCode, resp.Header, plain && resp.StatusCode == 413
			}
			mutate(x)
			for name, values := range x.answer {
				if name != "Content-Length" {
					w.Header()[name] = values
				}
			}
			if x.closed {
				w.Header().Set("Connection", "close")
			}
			if x.status != http.StatusNoContent {
				w.Header().Set("Content-Length", fmt.Sprint(len(x.out)))
			}
			w.WriteHeader(x.status)
			w.Write(x.out)
		})
	}
	secure := httptest.NewUnstartedServer(handler(m.URL, false))
	secure.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	secure.EnableHTTP2 = true
	secure.StartTLS()
	t.Cleanup(secure.Close)
	open := httptest.NewServer(handler(m.HTTPURL, true))
	t.Cleanup(open.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	o.URL, o.PlainURL, o.CAFile = secure.URL, open.URL, ca
	return o
}

// behindProxy fails for everybody who looks at the module's handshakes, and at
// nothing else: they are the proxy's.
func behindProxy() []string {
	return []string{"init.first-tls", "tls.certificate", "tls.key", "tls.newcrt", "tls.survives", "diag.handshakes"}
}

// changed makes a mutation that changes answers to one method and path.
func changed(method, path string, change func(x *exchange)) func() func(*exchange) {
	return func() func(*exchange) {
		return func(x *exchange) {
			if x.forward(); x.method == method && matches(path, x.path) {
				change(x)
			}
		}
	}
}

func matches(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "**"); ok {
		return strings.HasPrefix(name, prefix)
	}
	ok, _ := path.Match(pattern, name)
	return ok
}

// status makes a mutation that answers another status in place of one.
func status(method, path string, from, to int) func() func(*exchange) {
	return changed(method, path, func(x *exchange) {
		if x.status == from {
			x.status, x.out = to, nil
		}
	})
}

// fields makes a mutation that changes fields of a 200.
func fields(method, path string, pairs ...any) func() func(*exchange) {
	return changed(method, path, func(x *exchange) {
		if x.status == 200 {
			x.set(pairs...)
		}
	})
}

// flip changes the last bit of a base64 field.
func flip(name string) func(x *exchange) {
	return func(x *exchange) {
		if raw, err := api.DecodeBase64(x.text(name)); err == nil && len(raw) > 0 {
			raw[len(raw)-1] ^= 1
			x.set(name, api.EncodeBase64(raw))
		}
	}
}

// claimsOf reads a bearer token.
func claimsOf(token string) (c api.TokenClaims) {
	if parts := strings.Split(token, "."); len(parts) == 3 {
		raw, _ := base64.RawURLEncoding.DecodeString(parts[1])
		_ = json.Unmarshal(raw, &c)
	}
	return c
}

// Faults a module could have, each with the checks that have to report it, as path
// patterns: these fail, and no others.
var mutations = []struct {
	name string
	only []string
	make func() func(*exchange)
	want []string
}{
	{"a field is missing in the version", []string{"transport"}, fields("GET", "/api/system/version", "fwk", nil), []string{"transport.version", "transport.version-signatures"}},
	{"the firmware is not signed", []string{"transport"}, changed("GET", "/api/system/version", flip("fws")), []string{"transport.version-signatures"}},
	{"the status has a field of another type", []string{"transport"}, fields("GET", "/api/system/status", "uptime", "1"), []string{"transport.status"}},
	{"the status has a field more", []string{"transport"}, changed("GET", "/api/system/status", func(x *exchange) {
		x.out = bytes.Replace(x.out, []byte("{"), []byte(`{"more":1,`), 1)
	}), []string{"transport.status"}},
	{"unknown paths are found", []string{"transport"}, changed("GET", "/api/system/nothing", func(x *exchange) { x.status = 200 }), []string{"transport.unknown-path"}},
	{"a body that is too large is a 400", []string{"transport"}, status("POST", "/api/**", 413, 400), []string{"transport.too-large*", "transport.order"}},
	{"a body of 7300 bytes is too large", []string{"transport"}, changed("POST", "/api/auth/init", func(x *exchange) {
		if len(x.body) == 7300 {
			x.status = 413
		}
	}), []string{"transport.too-large"}},
	{"bodies without a length are taken", []string{"transport"}, status("POST", "/api/**", 411, 400), []string{"transport.length-required"}},
	{"a bad token is ignored on open paths", []string{"transport"}, func() func(*exchange) {
		return func(x *exchange) {
			if x.path == "/api/system/status" {
				x.header.Del("Authorization")
			}
			x.forward()
		}
	}, []string{"transport.bad-token"}},
	{"the origin is not echoed", []string{"transport"}, changed("GET", "/api/**", func(x *exchange) { x.answer.Del("Access-Control-Allow-Origin") }), []string{"transport.cors-fresh"}},
	{"preflights name other methods", []string{"transport"}, changed("OPTIONS", "/api/**", func(x *exchange) { x.answer.Set("Access-Control-Allow-Methods", "GET") }), []string{"transport.preflight"}},
	{"keys are listed over plain HTTP", []string{"transport"}, status("GET", "/api/keymgmt/list", 418, 401), []string{"transport.plain-refused"}},
	{"errors have a body and another type", []string{"transport", "answers"}, changed("GET", "/api/auth", func(x *exchange) {
		x.out = []byte("not found")
		x.answer.Set("Content-Type", "text/html")
	}), []string{"answers.error-bodies", "answers.content-type"}},
	{"a fresh module shuts down for anybody", []string{"fresh"}, func() func(*exchange) {
		return func(x *exchange) {
			if x.path == "/api/system/shutdown" {
				x.status = 200
				return
			}
			x.forward()
		}
	}, []string{"fresh.shutdown"}},
	{"a fresh module manages keys", []string{"fresh"}, status("POST", "/api/keymgmt/create", 409, 400), []string{"fresh.refused"}},

	{"a check-in can be replayed", []string{"checkin"}, func() func(*exchange) {
		good := make(map[string][]byte)
		return func(x *exchange) {
			x.forward()
			if x.path != "/api/system/checkin" || x.method != "POST" {
				return
			}
			if x.status == 200 {
				good[string(x.body)] = x.out
			} else if out, ok := good[string(x.body)]; ok {
				x.status, x.out = 200, out
			}
		}
	}, []string{"checkin.nonce"}},
	{"any backend is believed", []string{"checkin"}, status("POST", "/api/system/checkin", 401, 200), []string{"checkin.forged", "checkin.stranger", "checkin.nonce"}},
	{"every status is OK", []string{"checkin"}, changed("POST", "/api/system/checkin", func(x *exchange) { x.set("status", "OK") }), []string{"checkin.unknown-status", "checkin.fresh-orders"}},
	{"the check lacks its serial number", []string{"checkin"}, changed("GET", "/api/system/checkin", func(x *exchange) {
		parts := strings.Split(x.text("check"), ".")
		raw, _ := base64.RawURLEncoding.DecodeString(parts[1])
		parts[1] = base64.RawURLEncoding.EncodeToString(bytes.Replace(raw, []byte(`"csn"`), []byte(`"cs_"`), 1))
		x.set("check", strings.Join(parts, "."))
	}), []string{"checkin.check"}},

	{"the challenge of a personalisation lasts a day", []string{"init"}, func() func(*exchange) {
		n := 0
		return func(x *exchange) {
			if x.forward(); x.path == "/api/auth/init" && n < 2 {
				n++
				x.set("exp", time.Now().Unix()+86400)
			}
		}
	}, []string{"init.challenge"}},
	{"an incomplete configuration is a 401", []string{"init"}, status("POST", "/api/auth/init", 400, 401), []string{"init.incomplete", "init.invalid", "init.malformed"}},
	{"a second personalisation is a 409", []string{"init"}, status("GET", "/api/auth/init", 406, 409), []string{"init.twice"}},
	{"the instance id is no UUID", []string{"init"}, changed("POST", "/api/auth/init", func(x *exchange) {
		x.set("instanceid", strings.ReplaceAll(x.text("instanceid"), "-", ""))
	}), []string{"init.ok"}},

	{"the challenge is without the name", []string{"login"}, fields("GET", "/api/auth/token", "lbl", "somebody"), []string{"login.challenge"}},
	{"tokens end at another time", []string{"login"}, func() func(*exchange) {
		return func(x *exchange) {
			x.forward()
			if token := x.text("token"); x.path == "/api/auth/token" && token != "" {
				parts := strings.Split(token, ".")
				raw, _ := base64.RawURLEncoding.DecodeString(parts[1])
				var c map[string]any
				_ = json.Unmarshal(raw, &c)
				end := claimsOf(token).Exp
				raw = bytes.Replace(raw, fmt.Appendf(nil, `"exp":%d`, end), fmt.Appendf(nil, `"exp":%d`, end+1), 1)
				parts[1] = base64.RawURLEncoding.EncodeToString(raw)
				x.set("token", strings.Join(parts, "."))
			}
		}
	}, []string{"login.expiry", "login.user", "login.master", "walk.*"}}, // all but the first use what they got
	{"wrong proofs are told apart", []string{"login", "answers"}, func() func(*exchange) {
		n := 0
		return func(x *exchange) {
			if x.forward(); x.path == "/api/auth/token" && x.status == 401 {
				n++
				x.answer.Set(api.HeaderError, fmt.Sprintf("reason %d", n))
			}
		}
	}, []string{"login.algorithm", "login.claims-wrong", "login.names", "login.audience", "login.times", "answers.silent-401"}},
	{"a challenge is good twice", []string{"login"}, func() func(*exchange) {
		good := make(map[string][]byte)
		return func(x *exchange) {
			x.forward()
			if x.status == 200 && x.method == "POST" {
				good[string(x.body)] = x.out
			} else if out, ok := good[string(x.body)]; ok && x.method == "POST" {
				x.status, x.out = 200, out
			}
		}
	}, []string{"login.replay"}},
	{"low order points are let in", []string{"login"}, changed("POST", "/api/auth/token", func(x *exchange) {
		raw, _ := base64.RawURLEncoding.DecodeString(segmentOf(x.body))
		if x.status == 401 && bytes.Contains(raw, []byte(`"iss":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="`)) {
			x.status, x.out = 200, []byte(`{"token":"a.b.c"}`)
		}
	}), []string{"login.low-order"}},

	{"tampered tokens are taken", []string{"token.[^e]*"}, func() func(*exchange) {
		issued, last := make(map[string]bool), ""
		return func(x *exchange) {
			bearer := strings.TrimPrefix(x.header.Get("Authorization"), "Bearer ")
			if bearer != "" && !issued[bearer] {
				x.header.Set("Authorization", "Bearer "+last)
			}
			x.forward()
			if token := x.text("token"); token != "" {
				issued[token], last = true, token
			}
		}
	}, []string{"token.signature", "token.claims", "token.unsigned"}},
	{"tokens do not end", []string{"token.[em]*"}, func() func(*exchange) {
		return func(x *exchange) {
			x.forward()
			bearer := strings.TrimPrefix(x.header.Get("Authorization"), "Bearer ")
			if end := claimsOf(bearer).Exp; x.status == 401 && end > 0 && end <= time.Now().Unix() {
				x.status, x.out = 200, []byte("{}")
			}
		}
	}, []string{"token.expired"}},
	{"scopes are not looked at", []string{"token.[^e]*"}, status("GET", "/api/system/config", 403, 200), []string{"token.scope", "token.scopes"}},
	{"any key may be used", []string{"token.[^e]*"}, status("POST", "/api/crypto/exdsa/sign", 403, 406), []string{"token.key-scope"}},
	{"tokens outlive a reboot", []string{"token.[^e]*"}, func() func(*exchange) {
		rebooted := false
		return func(x *exchange) {
			x.forward()
			rebooted = rebooted || x.path == "/api/system/reboot" && x.status == 200
			if rebooted && x.path == "/api/system/config" && x.status == 401 {
				x.status, x.out = 200, []byte("{}")
			}
		}
	}, []string{"token.reboot"}},
	{"the administrator uses keys", []string{"roles"}, status("POST", "/api/crypto/ecdh", 403, 406), []string{"roles.crypto"}},
	{"the administrator lists keys", []string{"roles"}, status("GET", "/api/keymgmt/list", 403, 200), []string{"roles.keys"}},
	{"the administrator pairs", []string{"roles"}, status("POST", "/api/auth/ext/mac", 403, 400), []string{"roles.pairing"}},
	{"wrong proofs are answered at once", []string{"damping"}, func() func(*exchange) {
		return func(x *exchange) {
			if x.method == "POST" && x.path == "/api/auth/token" && bytes.Contains(x.body, []byte("a.b.c")) {
				x.status, x.answer = 401, http.Header{"Content-Type": {"application/json"}}
				return
			}
			x.forward()
		}
	}, []string{"damping.delay", "damping.penalty"}},

	{"uts does not grow", []string{"config"}, func() func(*exchange) {
		return func(x *exchange) {
			if x.forward(); x.path == "/api/system/config" && x.method == "GET" {
				x.set("uts", 1)
			}
		}
	}, []string{"config.update"}},
	{"an invalid field says nothing", []string{"config"}, changed("POST", "/api/system/config", func(x *exchange) {
		if x.status == 400 {
			x.out = nil
		}
	}), []string{"config.atomic"}},
	{"half of an update is done", []string{"config"}, func() func(*exchange) {
		n := 0
		return func(x *exchange) {
			if x.forward(); x.path == "/api/system/config" && x.method == "GET" {
				n++
				x.set("email", fmt.Sprint(n))
			}
		}
	}, []string{"config.atomic", "config.update"}},
	{"updates always say that they changed something", []string{"config"}, fields("POST", "/api/system/config", "updated", true), []string{"config.same"}},
	{"foreign origins are served", []string{"config"}, status("GET", "/api/system/status", 412, 200), []string{"config.origin"}},
	{"any user key is taken", []string{"config"}, status("POST", "/api/system/config", 401, 200), []string{"config.userkey"}},
	{"a foreign certificate is taken", []string{"tls"}, status("POST", "/api/system/config", 406, 200), []string{"tls.foreign"}},
	{"the TLS pair can be deleted", []string{"tls"}, status("DELETE", "/api/keymgmt/delete/*", 406, 200), []string{"tls.listed"}},

	{"a key is read without its time", []string{"keys.life-secp256r1", "keys.life-aes128", "keys.[^l]*"}, fields("GET", "/api/keymgmt/get/*", "updated", nil), []string{"keys.life-*", "keys.get-descr", "keys.import", "keys.duplicate"}},
	{"deleted keys are still read", []string{"keys.life-secp256r1", "keys.life-aes128", "keys.[^l]*"}, status("GET", "/api/keymgmt/get/*", 406, 200), []string{"keys.life-*", "keys.kid"}},
	{"kids are not looked at", []string{"keys.k*", "keys.limits"}, status("GET", "/api/keymgmt/get/*", 400, 406), []string{"keys.kid"}},
	{"nothing found is a 406", []string{"keys.s*"}, changed("POST", "/api/keymgmt/search", func(x *exchange) {
		if bytes.Contains(x.out, []byte(`"total":0`)) {
			x.status, x.out = 406, nil
		}
	}), []string{"keys.search"}},
	{"searches need no token", []string{"keys.s*"}, status("POST", "/api/keymgmt/search", 401, 200), []string{"keys.search-open"}},
	{"a page has too many keys", []string{"keys.p*"}, changed("GET", "/api/keymgmt/list/0/*", func(x *exchange) { x.set("listed", 100) }), []string{"keys.pages"}},
	{"offsets that are none are taken", []string{"keys.p*"}, status("GET", "/api/keymgmt/list/**", 406, 200), []string{"keys.pages"}},
	{"labels have no limit", []string{"keys.[lmpk]*"}, status("POST", "/api/keymgmt/create", 400, 406), []string{"keys.limits", "keys.modes"}},
	{"what is no key is imported", []string{"keys.[^l]*"}, status("POST", "/api/keymgmt/import", 406, 200), []string{"keys.import*", "keys.duplicate"}},
	{"modes are listed in another order", []string{"keys.life-secp256r1", "keys.life-ed25519", "keys.m*", "keys.import"}, changed("GET", "/api/keymgmt/list**", func(x *exchange) {
		x.out = bytes.ReplaceAll(x.out, []byte("ECDH,ExDSA,"), []byte("ExDSA,ECDH,"))
	}), []string{"keys.life-secp*", "keys.modes", "keys.import"}},

	{"signatures are wrong", []string{"crypto.sign-[es]*", "crypto.unfit"}, changed("POST", "/api/crypto/exdsa/sign", flip("sign")), []string{"crypto.sign-secp*", "crypto.sign-ed*"}},
	{"every signature is good", []string{"crypto.sign-[es]*", "crypto.unfit"}, status("POST", "/api/crypto/exdsa/verify", 406, 200), []string{"crypto.sign-secp*", "crypto.sign-ed*"}},
	{"every ML-DSA signature is good", []string{"crypto.sign-m*", "crypto.mldsa*"}, status("POST", "/api/crypto/pqc/mldsa/verify", 406, 200), []string{"crypto.sign-mldsa*"}},
	{"MACs are wrong", []string{"crypto.h*", "crypto.unfit"}, changed("POST", "/api/crypto/hmac/hash", flip("mac")), []string{"crypto.hmac-*"}},
	{"MACs may be cut", []string{"crypto.h*"}, status("POST", "/api/crypto/hmac/verify", 406, 200), []string{"crypto.hmac-*"}},
	{"encryption has one IV", []string{"crypto.c*", "crypto.derive-s*", "crypto.wrap*"}, changed("POST", "/api/crypto/cipher/encrypt", func(x *exchange) {
		x.set("iv", "AAAAAAAAAAAAAAAAAAAAAA==")
	}), []string{"crypto.cipher-aes*", "crypto.cipher-peer", "crypto.cipher-longer", "crypto.derive-symmetric"}},
	{"changed ciphertexts are opened", []string{"crypto.c*", "crypto.derive-s*", "crypto.wrap*"}, changed("POST", "/api/crypto/cipher/decrypt", func(x *exchange) {
		if x.status == 406 {
			x.status, x.out = 200, []byte(`{"plaintext":"AAAA"}`)
		}
	}), []string{"crypto.cipher-aes*", "crypto.cipher-peer", "crypto.cipher-longer", "crypto.derive-symmetric"}},
	{"key wrap gives another key back", []string{"crypto.c*", "crypto.wrap*"}, changed("POST", "/api/crypto/cipher/unwrap", flip("unwrapped")), []string{"crypto.wrap*"}},
	{"raw secrets are cut", []string{"crypto.e*", "crypto.d*"}, changed("POST", "/api/crypto/ecdh", func(x *exchange) {
		if raw, err := api.DecodeBase64(x.text("ecdh")); err == nil && len(raw) > 32 && !bytes.Contains(x.body, []byte(`"alg"`)) {
			x.set("ecdh", api.EncodeBase64(raw[:32]))
		}
	}), []string{"crypto.ecdh-secp384r1", "crypto.ecdh-secp521r1", "crypto.ecdh-curve448"}},
	{"decapsulation has another secret", []string{"crypto.ml*"}, changed("POST", "/api/crypto/pqc/mlkem/decaps", flip("ss")), []string{"crypto.mlkem768", "crypto.mlkem1024", "crypto.mlkem512"}},
	{"refusals of cryptography say why", []string{"crypto.unfit", "crypto.sign-[el]*"}, changed("POST", "/api/crypto/exdsa/sign", func(x *exchange) {
		if x.status == 406 {
			x.answer.Set(api.HeaderError, "no such key")
		}
	}), []string{"crypto.unfit", "crypto.sign-*"}},

	{"a line of the log was changed", []string{"log"}, changed("GET", "/api/logger/????????", func(x *exchange) {
		x.out = bytes.Replace(x.out, []byte("|14|0|U|"), []byte("|14|0|M|"), 1)
	}), []string{"log.lines"}},
	{"a line of the log is missing", []string{"log"}, changed("GET", "/api/logger/????????", func(x *exchange) {
		lines := bytes.SplitAfter(x.out, []byte("\n"))
		if len(lines) > 6 {
			x.out = bytes.Join(slices.Delete(lines, 4, 5), nil)
		}
	}), []string{"log.lines"}},
	{"the log ends early", []string{"log"}, changed("GET", "/api/logger/????????", func(x *exchange) {
		if lines := bytes.SplitAfter(x.out, []byte("\n")); len(lines) > 8 {
			x.out = bytes.Join(lines[:6], nil)
		}
	}), []string{"log.records", "log.failed-logins", "log.tail"}},
	{"the log's key signs nothing", []string{"log"}, changed("GET", "/api/logger/key", flip("nonce_signed")), []string{"log.key"}},
	{"the file being written can be read", []string{"log"}, status("GET", "/api/logger/????????", 406, 200), []string{"log.names"}},
	{"the log is of another tree", []string{"log"}, changed("GET", "/api/logger/tail/*", func(x *exchange) {
		x.out = bytes.Replace(x.out, []byte("|14|0|U|"), []byte("|14|0|M|"), 1)
	}), []string{"log.tail", "log.checkpoint"}},
	{"the checkpoint has another root", []string{"log"}, func() func(*exchange) {
		seen := 0
		return func(x *exchange) {
			if x.forward(); x.path == "/api/logger/checkpoint" {
				if seen++; seen > 1 {
					x.out = bytes.Replace(x.out, []byte("\n"), []byte("\n1"), 1)
				}
			}
		}
	}, []string{"log.checkpoint"}},

	{"attestations are not signed", []string{"attestation"}, changed("GET", "/api/system/config/attestation", func(x *exchange) {
		parts := strings.Split(x.text("genuine"), ".")
		if len(parts) == 4 {
			parts[1] = api.EncodeBase64([]byte("1767225600"))
			x.set("genuine", strings.Join(parts, "."))
		}
	}), []string{"attestation.signature"}},
	{"a second certificate is taken", []string{"provisioning"}, status("POST", "/api/system/config/provisioning", 406, 200), []string{"provisioning.refused", "provisioning.once"}},
	{"a personalised module is provisioned", []string{"attestation"}, status("POST", "/api/system/config/provisioning", 403, 406), []string{"attestation.provisioned"}},
	{"the self-test does not know the last run", []string{"selftest"}, fields("GET", "/api/system/selftest", "last_selftest_ts", 1), []string{"selftest.result"}},
	{"the self-test miscounts", []string{"selftest"}, changed("GET", "/api/system/selftest", func(x *exchange) {
		x.out = bytes.Replace(x.out, []byte(`"total":`), []byte(`"total":1`), 1)
	}), []string{"selftest.repository"}},
	{"disks are never locked", []string{"storage"}, changed("GET", "/api/system/status", func(x *exchange) {
		x.out = bytes.ReplaceAll(x.out, []byte(`:-"`), []byte(`:rw"`))
	}), []string{"storage.*"}},
	{"the administrator unlocks disks", []string{"storage"}, status("GET", "/api/storage/unlock**", 403, 200), []string{"storage.scope"}},
	{"read-only disks are unlocked for writing", []string{"storage"}, status("GET", "/api/storage/unlock/rw", 406, 200), []string{"storage.scope", "storage.read-only"}},
	{"unsigned images verify", []string{"upgrade"}, status("GET", "/api/system/upgrade/check_fw", 406, 200), []string{"upgrade.unsigned"}},
	{"unsigned images are installed", []string{"upgrade"}, status("GET", "/api/system/upgrade/install_ui", 406, 200), []string{"upgrade.unsigned", "upgrade.nothing"}},
	{"uploads of any name are taken", []string{"upgrade.n*"}, status("POST", "/api/system/upgrade/upload_fw", 413, 200), []string{"upgrade.name"}},
	{"fail states are not shown", []string{"diag.te*"}, fields("GET", "/api/system/status", "fls_state", 0), []string{"diag.temperature"}},
	{"a broken module makes keys", []string{"diag.te*"}, status("POST", "/api/keymgmt/create", 409, 406), []string{"diag.temperature"}},
	{"deleted keys stay where they lay", []string{"diag.[tm]e*"}, func() func(*exchange) {
		var first []byte
		return func(x *exchange) {
			if x.forward(); matches("/api/diag/memdump/*/*", x.path) && x.status == 200 {
				if first == nil {
					first = x.out
				}
				x.out = first
			}
		}
	}, []string{"diag.memory"}},
	{"random bytes are the same twice", []string{"diag.t*"}, func() func(*exchange) {
		var first []byte
		return func(x *exchange) {
			if x.forward(); x.path == "/api/diag/test_trng" {
				if first == nil {
					first = x.out
				}
				x.out = first
			}
		}
	}, []string{"diag.trng"}},
	{"the module does not prove itself to the broker", []string{"external"}, changed("POST", "/api/auth/ext/mac", flip("mac")), []string{"external.mac"}},
	{"pairings are not confirmed", []string{"external"}, changed("POST", "/api/auth/ext/validate", flip("code")), []string{"external.pair"}},
	{"any session key is taken", []string{"external"}, status("POST", "/api/auth/ext/init", 400, 406), []string{"external.epk"}},
	{"more is granted than was asked for", []string{"external"}, status("POST", "/api/auth/ext/token", 406, 200), []string{"external.token-refused", "external.unpair"}},
	{"approvals are redeemed again, and by anybody", []string{"external"}, status("POST", "/api/auth/ext/token", 401, 200), []string{"external.token", "external.token-refused", "external.bind"}},
	{"authenticators change the configuration", []string{"external"}, status("POST", "/api/system/config", 403, 200), []string{"external.personas"}},
	{"tokens outlive the unpairing", []string{"external"}, status("GET", "/api/logger/key", 401, 200), []string{"external.unpair"}},

	{"orders are obeyed from anybody", []string{"orders"}, changed("POST", "/api/system/checkin", func(x *exchange) {
		if x.text("status") == "???" {
			x.set("status", "R")
		}
	}), []string{"orders.instance", "orders.off", "orders.lock"}}, // the last because orders stay off
	{"a locked module lets the user in", []string{"orders"}, func() func(*exchange) {
		return func(x *exchange) {
			if x.forward(); x.path == "/api/auth/token" && x.status == 401 {
				x.status, x.out = 200, []byte(`{"token":"a.b.c"}`)
			}
		}
	}, []string{"orders.lock", "walk.after-orders"}}, // it stays locked

	{"the identity outlives the wipe", []string{"wipe"}, func() func(*exchange) {
		eid := ""
		return func(x *exchange) {
			if x.forward(); x.path == "/api/auth/init" && x.method == "GET" {
				if now := x.text("eid"); eid == "" {
					eid = now
				}
				x.set("eid", eid)
			}
		}
	}, []string{"wipe.identity"}},
	{"old tokens outlive the wipe", []string{"wipe"}, func() func(*exchange) {
		wiped := false
		return func(x *exchange) {
			x.forward()
			wiped = wiped || bytes.Contains(x.body, []byte("wipeout"))
			if wiped && x.path == "/api/system/status" && x.status == 401 {
				x.status, x.out = 200, []byte("{}")
			}
		}
	}, []string{"wipe.refused", "wipe.empty"}},
}

// segmentOf is the claims of the eJWT in a login.
func segmentOf(body []byte) string {
	if parts := strings.Split(string(body), "."); len(parts) == 3 {
		return parts[1]
	}
	return ""
}

// The suite finds faults: each is reported by the checks that are about it, and by
// no others. Without a fault nothing is reported behind the same proxy.
func TestMutations(t *testing.T) {
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		failing(t, nil, func(x *exchange) { x.forward() }, nil)
	})
	for _, mut := range mutations {
		t.Run(mut.name, func(t *testing.T) {
			t.Parallel()
			failing(t, mut.only, mut.make(), mut.want)
		})
	}
}

// failing walks a faulty module and compares what failed with the patterns.
func failing(t *testing.T, only []string, mutate func(*exchange), want []string) {
	t.Helper()
	m, o := module(t, func(o *hemtest.Options) {
		if !slices.Contains(only, "damping") {
			o.LoginDelay, o.LoginPenalty, o.LoginPenaltyWindow = 0, 0, 0
		}
	})
	o.Only = only
	report := run(t, faulty(t, m, o, mutate))
	found := make(map[string]bool)
	for _, res := range report.Results {
		if res.Outcome != conformance.Fail {
			continue
		}
		fits := func(pattern string) bool { ok, _ := path.Match(pattern, res.ID); return ok }
		if i := slices.IndexFunc(want, fits); i >= 0 {
			found[want[i]] = true
		} else if !slices.Contains(behindProxy(), res.ID) {
			t.Errorf("%s fails too: %s", res.ID, res.Reason)
		}
	}
	for _, pattern := range want {
		if !found[pattern] {
			t.Errorf("%s does not fail", pattern)
		}
	}
	var text strings.Builder
	if err := report.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if raw, err := json.Marshal(report); err != nil || bytes.Contains(raw, []byte("eyJ")) || strings.Contains(text.String(), "eyJ") {
		t.Errorf("the report holds a token, or cannot be made: %v", err)
	}
}
