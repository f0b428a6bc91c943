package httpapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"softhem/api"
	"softhem/hemtest"
)

const pathSelfTest = "/api/system/selftest"

// selfTest polls until there is a result, as a client does.
func (p *peer) selfTest(token *string) api.SelfTest {
	p.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		var s api.SelfTest
		a := p.do(request{method: "GET", path: pathSelfTest, token: token})
		if a.status != 200 || json.Unmarshal(a.body, &s) != nil {
			p.t.Fatalf("self-test: %d %s", a.status, a.body)
		}
		if !s.KATBusy {
			return s
		}
		if time.Now().After(deadline) {
			p.t.Fatal("the self-test does not end")
		}
	}
}

// Any token opens it, whatever its scope and role; none is needed on a fresh module;
// and an EPA has it too.
func TestSelfTest(t *testing.T) {
	for _, profile := range []string{"PPA", "EPA"} {
		k := newKeeper(t, &hemtest.Options{Profile: profile})
		k.expect("GET", pathSelfTest, nil, 401)
		k.plain().expect("GET", pathSelfTest, nil, 401)
		kids := []string{k.create(api.AES128), k.create(api.Ed25519), k.create(api.MLKEM512)}
		k.want("delete", k.delete(kids[1]), 200)
		start := time.Now().Unix()
		var before api.SelfTest
		for i, token := range []*string{k.as(api.RoleUser, "x"), k.as(api.RoleMaster, ""), k.as(api.RoleUser, api.ScopeKeyUse(kids[0]))} {
			p := k.peer
			if i == 1 {
				p = k.plain()
			}
			s := p.selfTest(token)
			stats := api.RepoStats{Total: 2, Deleted: 1, Fragmented: s.RepoStats.Fragmented, FreeSlots: 999_998}
			if s.FLSState != 0 || s.LastFLSState != 0 || s.SelfTestTS < start || s.LastKATTS < s.SelfTestTS || s.LastEntropyTestTS < s.SelfTestTS ||
				s.RepoStats != stats || s.SEState != api.SEUnprovisioned || i > 0 && s.LastSelfTestTS != before.SelfTestTS {
				t.Errorf("%s: %+v after %+v", profile, s, before)
			}
			before = s
		}
		log := k.do(request{method: "GET", path: "/api/logger/tail/0", token: k.as(api.RoleUser, api.ScopeLoggerGet)})
		if u, m := bytes.Count(log.body, []byte("|7|0|U||")), bytes.Count(log.body, []byte("|7|0|M||")); profile == "PPA" && (u != 2 || m != 1) {
			t.Errorf("records: %d of the user, %d of the master: %s", u, m, log.body)
		}
	}
	p := newPeer(t, hemtest.New(t, &hemtest.Options{Fresh: true, ClockUnset: true, TrustedBackends: [][]byte{newBackend().key.Public()}}))
	if s := p.selfTest(nil); s.FLSState != 0 || s.RepoStats.FreeSlots != 1_000_000 {
		t.Errorf("a fresh module: %+v", s)
	}
}

// Faults made by the diagnostics are what the self-test finds, and 08 comes back
// after a reboot; all of it with the tokens of before.
func TestSelfTestFindsFaults(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	k := newKeeper(t, &hemtest.Options{Diag: true, DataDir: dir})
	token, reboot := k.as(api.RoleUser, "any"), k.as(api.RoleUser, api.ScopeSystemConfig)
	k.expect("GET", "/api/diag/break_trng", nil, 200)
	if s := k.selfTest(token); s.FLSState != 0x02 || s.LastFLSState != 0 {
		t.Errorf("with a broken source: %+v", s)
	}
	k.expect("GET", "/api/auth/token", nil, 409)
	k.expect("GET", "/api/system/reboot", reboot, 200)
	clear(k.tokens.held)

	k.create(api.AES128)
	kid := k.create(api.AES128)
	token = k.as(api.RoleUser, "any")
	if s := k.selfTest(token); s.FLSState != 0 {
		t.Errorf("after the reboot: %+v", s)
	}
	v := openVault(t, dir)
	good := v.row(kid)
	list := k.page("").List
	k.expect("GET", fmt.Sprintf("/api/diag/corrupt_repo/%d", list[1].Addr), nil, 200)
	for range 2 {
		if s := k.selfTest(token); s.FLSState != 0x08 || s.RepoStats.Invalid != 1 || s.RepoStats.Total != 2 {
			t.Errorf("with a damaged key: %+v", s)
		}
	}
	// In a fail state nobody logs in, so the reboot wants a token of before.
	v.replace([]string{kid}, good)
	if s := k.selfTest(token); s.FLSState != 0x08 || s.RepoStats.Invalid != 0 {
		t.Errorf("a test ended the fail state: %+v", s)
	}
	k.expect("GET", "/api/diag/disable_selftest", nil, 200)
	k.expect("GET", fmt.Sprintf("/api/diag/corrupt_repo/%d", list[0].Addr), nil, 200)
	if s := k.selfTest(token); s.RepoStats.Invalid != 0 {
		t.Errorf("with the tests off: %+v", s)
	}
}
