package httpapi_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/httpapi"
)

// diagPath fills the path of a diagnostic with what does no harm.
func diagPath(path string) string {
	return strings.NewReplacer("{address}", "0", "{length}", "16").Replace(path)
}

// What every diagnostic answers to nobody in particular, in every state: it is
// open. Of those that break something the module's own tests say more.
func TestDiagIsOpenInEveryState(t *testing.T) {
	want := map[string]int{"/api/diag/corrupt_repo/{address}": 406}
	walkAll := func(p *peer, token *string) {
		t.Helper()
		bad := "bad"
		for _, rt := range httpapi.DiagRoutes() {
			status := want[rt[1]]
			if status == 0 {
				status = 200
			}
			p.expect(rt[0], diagPath(rt[1])+"/more", token, 404)
			p.expect("POST", diagPath(rt[1]), token, 404)
			p.expect(rt[0], diagPath(rt[1]), &bad, 401)
			evil := http.Header{"Origin": {"https://evil.example"}}
			for what, r := range map[int]request{
				412: {header: evil, body: strings.Repeat(" ", 7301), token: &bad}, 413: {body: strings.Repeat(" ", 7301), token: &bad},
				411: {body: "{}", chunked: true, token: &bad},
			} {
				r.method, r.path = rt[0], diagPath(rt[1])
				if a := p.plain().do(r); a.status != what {
					p.t.Errorf("%s: %d, want %d", r.path, a.status, what)
				}
			}
			switch rt[1] {
			case "/api/diag/wipe_config", "/api/diag/break_tls", "/api/diag/break_temp": // tests of their own
			default:
				p.expect(rt[0], diagPath(rt[1]), token, status)
			}
		}
	}
	b := newBackend()
	walkAll(newPeer(t, hemtest.New(t, &hemtest.Options{Diag: true, Fresh: true, ClockUnset: true, TrustedBackends: [][]byte{b.key.Public()}})), nil)
	k := newKeeper(t, &hemtest.Options{Diag: true})
	walkAll(k.peer, nil)
	walkAll(k.plain(), nil)
	walkAll(k.peer, k.as(api.RoleMaster, scopeWrong))
}

// T141: a module that was not started for it has no diagnostics, under whatever
// token or path, nothing of them in its lists, and no mark in its version.
func TestThreat_T141_NoDiagnosticsUnlessAskedFor(t *testing.T) {
	k := newKeeper(t, nil)
	k.create(api.AES128)
	for _, rt := range httpapi.DiagRoutes() {
		for _, token := range []*string{nil, k.as(api.RoleUser, api.ScopeSystemConfig), k.as(api.RoleMaster, api.ScopeSystemConfig)} {
			k.expect(rt[0], diagPath(rt[1]), token, 404)
			k.expect(rt[0], diagPath(rt[1])+"%20", token, 404)
		}
	}
	var v api.Version
	k.get("/api/system/version", &v)
	a := k.do(request{method: "GET", path: "/api/keymgmt/list", token: k.as(api.RoleUser, api.ScopeKeyList)})
	if strings.HasSuffix(v.FWV, "-DIAG") || bytes.Contains(a.body, []byte("_addr")) || bytes.Contains(a.body, []byte("_len")) {
		t.Errorf("%s: %s", v.FWV, a.body)
	}
	d := newPeer(t, hemtest.New(t, &hemtest.Options{Diag: true}))
	d.get("/api/system/version", &v)
	if !strings.HasSuffix(v.FWV, "-DIAG") {
		t.Errorf("a diagnostic build calls itself %s", v.FWV)
	}
}

// T142: no web page reaches the diagnostics of a module on the same host, by
// script, image or link, nor by a name it had bound to loopback; although
// they are open and the module allows all origins.
func TestThreat_T142_NoPageReachesTheDiagnostics(t *testing.T) {
	m := hemtest.New(t, &hemtest.Options{Diag: true})
	p := newPeer(t, m)
	send := func(path, host string, header http.Header) int {
		req, err := http.NewRequest("GET", p.base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		if header != nil {
			req.Header = header
		}
		resp, err := p.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	site := func(s string) http.Header { return http.Header{"Sec-Fetch-Site": {s}} }
	origin := func(s string) http.Header { return http.Header{"Origin": {s}} }
	for _, rt := range httpapi.DiagRoutes() {
		path := diagPath(rt[1])
		for _, path := range []string{path, path + "%20"} {
			for what, got := range map[string]int{
				"a name that is not loopback": send(path, "rebound.example", nil),
				"a page elsewhere":            send(path, "localhost", origin("https://evil.example")),
				"a page without an origin":    send(path, "localhost", origin("null")),
				"an image on a page":          send(path, "localhost", site("cross-site")),
				"an image on the same site":   send(path, "localhost", site("same-site")),
			} {
				if got != 404 && got != 412 {
					t.Errorf("%s from %s: %d", path, what, got)
				}
			}
		}
	}
	var v api.Version
	if p.get("/api/system/version", &v); m.EID == "" || p.get("/api/auth/token", nil).status != 200 {
		t.Fatal("the module was wiped all the same")
	}
	for what, got := range map[string]int{
		"a program":            send("/api/diag/test", "127.0.0.1", nil),
		"a person":             send("/api/diag/test", "localhost", site("none")),
		"the module's console": send("/api/diag/test", "localhost", site("same-origin")),
		"a page of this host":  send("/api/diag/test", "localhost", http.Header{"Origin": {"http://localhost:3000"}, "Sec-Fetch-Site": {"same-site"}}),
	} {
		if got != 200 {
			t.Errorf("%s: %d", what, got)
		}
	}
}

func TestDiagRandom(t *testing.T) {
	p := newPeer(t, hemtest.New(t, &hemtest.Options{Diag: true}))
	var all [2]api.DiagRandom
	for i := range all {
		p.get("/api/diag/test_trng", &all[i])
	}
	b, err := api.DecodeBase64(all[0].Rnd)
	if err != nil || len(b) != 8192 || all[0] == all[1] {
		t.Errorf("%d bytes, %v, the same again: %v", len(b), err, all[0] == all[1])
	}
}

// dump reads the repository's memory.
func (p *peer) dump(address, length int64) []byte {
	p.t.Helper()
	var d api.DiagDump
	a := p.get(fmt.Sprintf("/api/diag/memdump/%d/%d", address, length), &d)
	b, err := api.DecodeBase64(d.Dump)
	if a.status != 200 || err != nil || int64(len(b)) != length || d.Address != address || d.Length != length {
		p.t.Fatalf("memdump: %d, %v: %.80s", a.status, err, a.body)
	}
	return b
}

// A dump shows what is in the store, sealed, whichever piece is asked for, and
// other bytes once the key is gone.
func TestDiagMemory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	k := newKeeper(t, &hemtest.Options{Diag: true, DataDir: dir})
	v := openVault(t, dir)
	material := []byte("sixteen bytes of")
	kids := []string{k.create(api.Ed25519), v.plant(api.AES128, material), k.create(api.MLDSA87)}
	var whole []byte
	list := k.page("")
	for i, info := range list.List {
		sealed := v.row(kids[i]).Sealed
		if info.KID != kids[i] || info.Len != int64(len(sealed)) || !bytes.Equal(k.dump(info.Addr, info.Len), sealed) {
			t.Errorf("%+v is not where it says", info)
		}
		whole = append(whole, sealed...)
	}
	if bytes.Contains(whole, material) {
		t.Error("the repository is not sealed")
	}
	first := list.List[0].Addr
	memory := append(append(make([]byte, first), whole...), make([]byte, 4095)...)
	for _, piece := range [][2]int64{{0, 1}, {0, 4095}, {first - 1, 2}, {first, 384}, {first + 1, 127}, {first + 100, 200}, {first + 383, 1}, {first + 383, 300}, {first + 384, 4095}} {
		if got, want := k.dump(piece[0], piece[1]), memory[piece[0]:min(piece[0]+piece[1], int64(len(memory)))]; !bytes.Equal(got[:len(want)], want) {
			t.Errorf("memdump %v differs", piece)
		}
	}
	k.dump(999999999999999999, 4095)

	if a := k.delete(kids[1]); a.status != 200 {
		t.Fatalf("delete: %d", a.status)
	}
	at := list.List[1]
	if gone := k.dump(at.Addr, at.Len); bytes.Equal(gone, whole[128:256]) {
		t.Error("a deleted key is still there")
	}
	if !bytes.Equal(k.dump(first, 128), whole[:128]) {
		t.Error("another key moved")
	}
	for _, path := range []string{"0/0", "0/4096", "-1/1", "0x0/1", "a/1", "0/b", "0/-1", "1000000000000000000/1", "0/1.0", "%20/1"} {
		k.expect("GET", "/api/diag/memdump/"+path, nil, 400)
	}
	for _, path := range []string{"", "0", "0/", "/1"} {
		k.expect("GET", "/api/diag/memdump/"+path, nil, 404)
	}
	search := k.list(k.search(api.ScopeKeyList, fields{"descr": "^AAAA"}))
	if search.Total != 0 {
		t.Errorf("%+v", search)
	}
}

// Damage to a stored key is found by the self-test of the next boot, and is in
// the log with its cause.
func TestDiagCorruptRepo(t *testing.T) {
	k := newKeeper(t, &hemtest.Options{Diag: true})
	k.create(api.AES128)
	at := k.page("").List[0]
	before := k.dump(at.Addr, at.Len)
	for path, want := range map[string]int{"0": 406, "1": 406, "129": 406, fmt.Sprint(at.Addr + 4): 406, fmt.Sprint(at.Addr + 128): 406, "x": 400, "-1": 400} {
		k.expect("GET", "/api/diag/corrupt_repo/"+path, nil, want)
	}
	var done api.DiagCorrupted
	k.get(fmt.Sprintf("/api/diag/corrupt_repo/%d", at.Addr), &done)
	want := bytes.Clone(before)
	copy(want[4:8], make([]byte, 4))
	if got := k.dump(at.Addr, at.Len); done != (api.DiagCorrupted{Address: at.Addr, Status: "OK"}) || !bytes.Equal(got, want) || bytes.Equal(got, before) {
		t.Errorf("%+v; %x, was %x", done, got, before)
	}
	if fls := k.fls(); fls != 0 {
		t.Errorf("found before anybody looked: %02x", fls)
	}
	log := k.do(request{method: "GET", path: "/api/logger/tail/0", token: k.as(api.RoleUser, api.ScopeLoggerGet)})
	if record := "|8|0||" + b64url([]byte("corrupt_repo")) + "|"; bytes.Count(log.body, []byte(record)) != 1 {
		t.Errorf("no record, or more than one: %s", log.body)
	}
	k.reboot()
	for deadline := time.Now().Add(30 * time.Second); k.fls() != 0x08; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("fail state %02x, want 08", k.fls())
		}
	}
}

// Blanks after the path are not noticed, here and nowhere else; the module after
// it is another, and the diagnostics are there again.
func TestDiagWipeConfig(t *testing.T) {
	m := hemtest.New(t, &hemtest.Options{Diag: true})
	p := newPeer(t, m)
	for _, path := range []string{"/api/diag/test%20", "/api/system/status%20", "/api/diag/wipe_config%09", "/api/diag/%20wipe_config", "/api/diag/wipe_config%20/"} {
		p.expect("GET", path, nil, 404)
	}
	resp, err := m.HTTPClient().Get(m.HTTPURL + "/api/diag/wipe_config%20%20%20")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 200 || !resp.Close || len(body) != 0 || err != nil {
		t.Errorf("%d, closed %v, %q, %v", resp.StatusCode, resp.Close, body, err)
	}
	// The old CA is gone; the fresh module is asked over plain HTTP.
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		a := p.plain().do(request{method: "GET", path: "/api/auth/init"})
		var ch api.InitChallenge
		if a.status == 200 && json.Unmarshal(a.body, &ch) == nil && ch.EID != m.EID {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no fresh module: %d", a.status)
		}
	}
	p.plain().expect("GET", "/api/diag/test", nil, 200)
	p.plain().expect("GET", "/api/diag/wipe_config", nil, 200)
}

// A module that is too hot refuses what a fail state refuses, until the next boot.
func TestDiagBreakTemp(t *testing.T) {
	k := newKeeper(t, &hemtest.Options{Diag: true})
	kid := k.create(api.AES128)
	k.as(api.RoleUser, api.ScopeLoggerGet)
	reboot := k.as(api.RoleUser, api.ScopeSystemConfig)
	encrypt := func() answer { return k.use("cipher/encrypt", kid, fields{"msg": "AAAA", "alg": "AES128-GCM"}) }
	k.want("before", encrypt(), 200)
	k.expect("GET", "/api/diag/break_temp", nil, 200)
	if fls := k.fls(); fls != 0x04 {
		t.Errorf("fail state %02x, want 04", fls)
	}
	k.want("a use of a key", encrypt(), 409)
	k.expect("GET", "/api/auth/token", nil, 409)
	k.expect("GET", "/api/diag/test", nil, 200)
	log := k.do(request{method: "GET", path: "/api/logger/tail/0", token: k.as(api.RoleUser, api.ScopeLoggerGet)})
	if record := "|8|0||" + b64url([]byte("break_temp")) + "|"; bytes.Count(log.body, []byte(record)) != 1 {
		t.Errorf("no record, or more than one: %s", log.body)
	}
	k.expect("GET", "/api/system/reboot", reboot, 200)
	if fls := k.fls(); fls != 0 {
		t.Errorf("fail state %02x after the reboot", fls)
	}
}

// A broken source is told by what it was before.
func TestDiagBreakTRNG(t *testing.T) {
	p := newPeer(t, hemtest.New(t, &hemtest.Options{Diag: true}))
	var was [2]api.DiagTRNGState
	for i := range was {
		p.get("/api/diag/break_trng", &was[i])
	}
	if was[0].Mode != 0 || was[0].LastTS < time.Now().Unix()-3600 || was[1].Mode != api.DiagTRNGBroken || was[0].LastTS > was[1].LastTS {
		t.Errorf("%+v", was)
	}
	log := p.do(request{method: "GET", path: "/api/logger/tail/0", token: p.token(api.RoleUser, api.ScopeLoggerGet)})
	if record := "|8|0||" + b64url([]byte("break_trng")) + "|"; bytes.Count(log.body, []byte(record)) != 2 {
		t.Errorf("no records: %s", log.body)
	}
}

// Five handshakes more, then half of them fail; after a reboot none.
func TestDiagBreakTLS(t *testing.T) {
	k := newKeeper(t, &hemtest.Options{Diag: true})
	shake := func(resume tls.ClientSessionCache) bool {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(k.base, "https://"), &tls.Config{
			InsecureSkipVerify: true, ClientSessionCache: resume})
		if err != nil {
			return false
		}
		// The ticket of a session comes behind the handshake, with the first answer.
		_, err = io.WriteString(conn, "GET /api/system/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
		if err == nil {
			_, err = io.ReadAll(conn)
		}
		conn.Close()
		return err == nil
	}
	reboot := k.as(api.RoleUser, api.ScopeSystemConfig)
	for range 20 {
		if !shake(nil) {
			t.Fatal("a handshake failed before")
		}
	}
	cache := tls.NewLRUClientSessionCache(1)
	shake(cache)
	k.plain().expect("GET", "/api/diag/break_tls", nil, 200)
	for i := range 5 {
		if !shake(nil) {
			t.Errorf("handshake %d of the five failed", i)
		}
	}
	for name, resume := range map[string]tls.ClientSessionCache{"new": nil, "resumed": cache} {
		failed := 0
		const attempts = 100
		for range attempts {
			if !shake(resume) {
				failed++
			}
		}
		// Outside of this by chance once in 10^9 runs.
		if failed < 20 || failed > 80 {
			t.Errorf("%d of %d %s handshakes failed", failed, attempts, name)
		}
	}
	if got := k.plain().do(request{method: "GET", path: "/api/system/status"}); got.status != 200 {
		t.Errorf("plain HTTP: %d", got.status)
	}
	k.plain().expect("GET", "/api/system/reboot", reboot, 200)
	for range 20 {
		if !shake(nil) {
			t.Fatal("a handshake failed after the reboot")
		}
	}
}

// FuzzDiagPaths sends anything as an address and a length. The answers are the
// documented ones, and a dump is as long as was asked for.
func FuzzDiagPaths(f *testing.F) {
	m := hemtest.New(f, &hemtest.Options{Diag: true})
	for _, args := range [][2]string{{"0", "1"}, {"128", "4095"}, {"999999999999999999", "4095"}, {"-1", "0"}, {"9223372036854775807", "1"}, {"٣", "1"}, {"1e3", " 1"}, {"", "/"}} {
		f.Add(args[0], args[1])
	}
	client := m.HTTPClient()
	get := func(t *testing.T, path string) (int, []byte) {
		req, err := http.NewRequest("GET", m.HTTPURL, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Path = path
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err) // no answer is not an answer
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, body
	}
	f.Fuzz(func(t *testing.T, address, length string) {
		status, body := get(t, "/api/diag/memdump/"+address+"/"+length)
		var d api.DiagDump
		switch status {
		case 400, 404, 431:
		case 200:
			if err := json.Unmarshal(body, &d); err != nil || strings.TrimLeft(address, "0") != strings.TrimLeft(fmt.Sprint(d.Address), "0") ||
				strings.TrimLeft(length, "0") != fmt.Sprint(d.Length) {
				t.Fatalf("memdump %q %q: %v %.60s", address, length, err, body)
			}
			if b, err := api.DecodeBase64(d.Dump); err != nil || int64(len(b)) != d.Length {
				t.Fatalf("memdump %q %q: %d bytes, %v", address, length, len(b), err)
			}
		default:
			t.Fatalf("memdump %q %q: %d", address, length, status)
		}
		if status, _ := get(t, "/api/diag/corrupt_repo/"+address); status != 400 && status != 404 && status != 406 && status != 431 {
			t.Fatalf("corrupt_repo %q: %d", address, status)
		}
	})
}
