package httpapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/audit"
)

const pathConfig = "/api/system/config"

// configuration reads the configuration.
func (k *keeper) configuration() (c api.Config) {
	k.t.Helper()
	a := k.do(request{method: "GET", path: pathConfig, token: k.as(api.RoleUser, api.ScopeSystemConfig)})
	if err := json.Unmarshal(a.body, &c); err != nil || a.status != 200 {
		k.t.Fatalf("GET config: %d %v", a.status, err)
	}
	return c
}

// settings is the configuration without what differs at each reading.
func (k *keeper) settings() api.Config {
	k.t.Helper()
	c := k.configuration()
	c.Nonce = ""
	return c
}

// update posts a change and reads the answer, if there is a body.
func (k *keeper) update(role api.Role, body string) (answer, api.ConfigUpdated) {
	k.t.Helper()
	a := k.do(request{method: "POST", path: pathConfig, body: body, token: k.as(role, api.ScopeSystemConfig)})
	var u api.ConfigUpdated
	if len(a.body) > 0 {
		if err := json.Unmarshal(a.body, &u); err != nil {
			k.t.Fatalf("%s: %v", a.body, err)
		}
	}
	return a, u
}

// Every setting is taken, reported and kept over a reboot; uts grows exactly
// when something changed; what is ignored changes nothing.
func TestConfigUpdateOfEverySetting(t *testing.T) {
	k := newKeeper(t, nil)
	field := func(c api.Config, name string) any { // by its JSON name
		raw, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var all map[string]any
		if err := json.Unmarshal(raw, &all); err != nil {
			t.Fatal(err)
		}
		return all[name]
	}
	roles := []api.Role{api.RoleUser, api.RoleMaster}
	for i, tc := range []struct {
		name   string
		value  any
		reboot bool
	}{
		{"user", "Grace", false}, {"user", strings.Repeat("x", 64), false}, {"email", "grace@example.org", false}, {"email", "", false},
		{"origin", "https://a.example, *.b.example", false}, {"origin", "*", false}, {"trusted_ts", false, false}, {"trusted_ts", true, false},
		{"trusted_backend", false, false}, {"allow_keysearch", false, false}, {"ctx", float64(-7), false}, {"ctx", float64(1 << 40), false},
		{"http_option_hsts", true, false}, {"http_option_dosprot_mode", float64(4), false}, {"http_option_dosprot_mode", float64(0), false},
		{"dnsd", true, true}, {"storage_mode", float64(7), true}, {"storage_disk0size", float64(4096), true},
	} {
		role := roles[i%2]
		body, _ := json.Marshal(map[string]any{tc.name: tc.value})
		before := k.settings()
		a, u := k.update(role, string(body))
		changes := !reflect.DeepEqual(field(before, tc.name), tc.value)
		after := k.settings()
		if a.status != 200 || u.Updated != changes || u.RebootRequired != (tc.reboot && changes) || u.CSR != "" || u.Genuine != "" {
			t.Errorf("%s: %d %+v", body, a.status, u)
		}
		if got := field(after, tc.name); !reflect.DeepEqual(got, tc.value) {
			t.Errorf("%s: reads as %v", body, got)
		}
		if changes != (after.Uts > before.Uts) {
			t.Errorf("%s: uts was %d and is %d", body, before.Uts, after.Uts)
		}
		// The same again changes nothing.
		a, u = k.update(role, string(body))
		if a.status != 200 || u != (api.ConfigUpdated{}) || !reflect.DeepEqual(k.settings(), after) {
			t.Errorf("%s again: %d %+v", body, a.status, u)
		}
	}
	before := k.settings()
	for _, body := range []string{
		"{}", `{"user":null,"email":null,"tls":null,"userkey":null,"gen_csr":null,"wipeout":null}`, `{"wipeout":false,"gen_csr":false}`,
		`{"hostname":"other.example","ip":"10.0.0.1/8","iat":1,"uts":2,"eid":"x","instanceid":5,"unknown":{"a":[]}}`,
	} {
		if a, u := k.update(api.RoleUser, body); a.status != 200 || u != (api.ConfigUpdated{}) || string(a.body) != `{"updated":false}` {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	if after := k.settings(); !reflect.DeepEqual(before, after) {
		t.Errorf("what is ignored changed the configuration:\n%+v\n%+v", before, after)
	}
	k.reboot()
	after := k.settings()
	if after.SPK == before.SPK {
		t.Fatal("no reboot")
	}
	before.SPK = after.SPK
	if !reflect.DeepEqual(before, after) {
		t.Errorf("after a reboot:\n%+v\n%+v", before, after)
	}
}

// Within one second every change still gives another uts.
func TestUtsGrowsWithinASecond(t *testing.T) {
	now := time.Now()
	k := newKeeper(t, &hemtest.Options{Clock: func() time.Time { return now }})
	last := k.configuration().Uts
	for i := range 5 {
		k.update(api.RoleUser, fmt.Sprintf(`{"ctx":%d}`, i+1))
		if uts := k.configuration().Uts; uts != last+1 {
			t.Fatalf("uts %d after %d", uts, last)
		} else {
			last = uts
		}
	}
}

// One field that is wrong, by value or by type, is a 400 with the answer's form,
// and none of the others is taken.
func TestConfigUpdateIsAllOrNothing(t *testing.T) {
	k := newKeeper(t, nil)
	before := k.settings()
	good := fields{"user": "Grace", "email": "grace@example.org", "ctx": 99, "http_option_hsts": true, "trusted_ts": false, "gen_csr": true}
	for _, bad := range []fields{
		{"user": ""}, {"user": strings.Repeat("x", 65)}, {"user": 7}, {"user": []string{"Grace"}}, {"email": strings.Repeat("x", 255)}, {"email": false},
		{"origin": "not an origin"}, {"origin": "https://a.example/path"}, {"origin": strings.Repeat("*", 1025)}, {"origin": 1},
		{"trusted_ts": "true"}, {"trusted_ts": 1}, {"trusted_backend": "x"}, {"allow_keysearch": 0}, {"ctx": 1.5}, {"ctx": "7"}, {"ctx": 1e30},
		{"http_option_hsts": 1}, {"http_option_dosprot_mode": 5}, {"http_option_dosprot_mode": -1}, {"http_option_dosprot_mode": true},
		{"dnsd": "yes"}, {"storage_mode": 256}, {"storage_mode": -1}, {"storage_mode": "81"}, {"storage_disk0size": -1}, {"storage_disk0size": 16777217},
		{"storage_disk0size": 1e40}, {"gen_csr": "yes"}, {"wipeout": "true"}, {"wipeout": 1},
		{"tls": "x"}, {"tls": fields{}}, {"tls": fields{"crt": "!"}}, {"tls": fields{"crt": "AAAA"}}, {"tls": fields{"crt": 7}}, {"tls": []int{}},
		{"userkey": "AAAA"}, {"userkey": 7}, {"userkey_nonce": "AAAA"}, {"userkey_hmac": "AAAA"},
	} {
		body := good.but(bad).json(t)
		a, u := k.update(api.RoleUser, body)
		if a.status != 400 || u != (api.ConfigUpdated{}) || string(a.body) != `{"updated":false}` || a.header.Get(api.HeaderError) == "" {
			t.Errorf("%v: %d %s (%s)", bad, a.status, a.body, a.header.Get(api.HeaderError))
		}
	}
	for _, body := range []string{"", "[]", "{", "7", `{"user":"a","user":"b"}`, "\xff"} {
		if a, _ := k.update(api.RoleUser, body); a.status != 400 || len(a.body) != 0 {
			t.Errorf("%q: %d %s", body, a.status, a.body)
		}
	}
	if after := k.settings(); !reflect.DeepEqual(before, after) {
		t.Errorf("a refused change changed:\n%+v\n%+v", before, after)
	}
	if a, u := k.update(api.RoleUser, good.json(t)); a.status != 200 || !u.Updated || u.CSR == "" {
		t.Errorf("the good part alone: %d %+v (%s)", a.status, u, a.header.Get(api.HeaderError))
	}
}

// Each update that was let in and understood leaves one record with the role.
func TestRecordsOfConfigUpdates(t *testing.T) {
	k := newKeeper(t, nil)
	k.update(api.RoleUser, `{"user":"Grace"}`)
	k.update(api.RoleMaster, `{"user":"Grace"}`) // nothing new, and a 200
	k.update(api.RoleUser, `{"user":""}`)        // 400: no record
	k.update(api.RoleMaster, `{"tls":{"crt":"`+api.EncodeBase64(someCertificate(t))+`"}}`)
	k.expect("POST", pathConfig, k.as(api.RoleUser, "logger:get"), 403)
	got := k.recordsOf(audit.ConfigUpdated, audit.FailedScopeCheck)
	if want := []string{"CONFIG_UPDATED OK U", "CONFIG_UPDATED OK M", "CONFIG_UPDATED FAILED M", "FAILED_SCOPE_CHECK FAILED U"}; !slices.Equal(got, want) {
		t.Errorf("records %q, want %q", got, want)
	}
}

// recordsOf reboots and returns the records of these types of the boot that
// ended.
func (k *keeper) recordsOf(types ...audit.Type) (lines []string) {
	k.t.Helper()
	k.reboot()
	token := k.as(api.RoleUser, api.ScopeLoggerGet)
	var list api.LogList
	if err := json.Unmarshal(k.do(request{method: "GET", path: "/api/logger/list", token: token}).body, &list); err != nil || len(list.ID) < 2 {
		k.t.Fatalf("logs %v, %v", list.ID, err)
	}
	file := k.do(request{method: "GET", path: "/api/logger/" + list.ID[len(list.ID)-2], token: token})
	eidSign, err := api.DecodeBase64(k.configuration().EIDSign)
	if err != nil {
		k.t.Fatal(err)
	}
	for e, err := range audit.Entries(bytes.NewReader(file.body), eidSign) {
		if err != nil {
			k.t.Fatal(err)
		}
		if slices.Contains(types, e.Type) {
			lines = append(lines, line(e.Type, e.Result, e.Who, ""))
		}
	}
	return lines
}

// On the form factor without storage its settings are unknown names.
func TestConfigUpdateOnAnEPA(t *testing.T) {
	k := newKeeper(t, &hemtest.Options{Profile: "EPA"})
	before := k.settings()
	if a, u := k.update(api.RoleUser, `{"storage_mode":-1,"storage_disk0size":"x","dnsd":7}`); a.status != 200 || u.Updated {
		t.Errorf("%d %+v", a.status, u)
	}
	if after := k.settings(); !reflect.DeepEqual(before, after) {
		t.Errorf("changed: %+v", after)
	}
}

// The list of origins, HSTS and the time limit count from the next request on.
func TestSettingsOfTheTransportTakeEffectAtOnce(t *testing.T) {
	k := newKeeper(t, nil)
	status := func(p *peer, origin string) answer {
		return p.do(request{method: "GET", path: "/api/system/status", header: http.Header{"Origin": {origin}}})
	}
	if a := status(k.peer, "https://evil.example"); a.status != 200 {
		t.Fatalf("with *: %d", a.status)
	}
	k.update(api.RoleUser, `{"origin":"https://good.example"}`)
	if a := status(k.peer, "https://evil.example"); a.status != 412 {
		t.Errorf("an origin that was taken off the list: %d", a.status)
	}
	if a := status(k.peer, "https://good.example"); a.status != 200 {
		t.Errorf("an origin that was put on the list: %d", a.status)
	}

	const hsts = "Strict-Transport-Security"
	for _, on := range []bool{false, true, false} {
		k.update(api.RoleUser, fmt.Sprintf(`{"http_option_hsts":%v}`, on))
		want := ""
		if on {
			want = "max-age=31536000"
		}
		for name, a := range map[string]answer{
			"success": status(k.peer, "https://good.example"), "refusal": status(k.peer, "https://evil.example"),
			"no such path": k.do(request{method: "GET", path: "/api/nothing"}), "preflight": k.do(request{method: "OPTIONS", path: "/api/nothing"}),
		} {
			if got := a.header.Get(hsts); got != want {
				t.Errorf("HSTS %v, %s: %q", on, name, got)
			}
		}
		// RFC 6797 section 7.2: never over plain HTTP.
		if got := status(k.plain(), "https://good.example").header.Get(hsts); got != "" {
			t.Errorf("HSTS over plain HTTP: %q", got)
		}
	}
}

// A slow body is cut off after http_option_dosprot_mode x 0.5 s, and not before.
func TestTimeLimitOfRequests(t *testing.T) {
	k := newKeeper(t, &hemtest.Options{TrustedBackends: [][]byte{newBackend().key.Public()}})
	send := func(base string, pause time.Duration) (cut bool, took time.Duration) {
		t.Helper()
		body, w := io.Pipe()
		req, err := http.NewRequest("POST", base+"/api/system/checkin", body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = 2
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.Write([]byte("{"))
			time.Sleep(pause)
			w.Write([]byte("}"))
			w.Close()
		}()
		start := time.Now()
		resp, err := k.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		took = time.Since(start)
		resp.Body.Close()
		body.Close() // lets the writer go
		<-done
		if resp.StatusCode != 400 { // whole, {} is a 400 as well
			t.Errorf("%s: %d", base, resp.StatusCode)
		}
		return strings.Contains(resp.Header.Get(api.HeaderError), "arrive within"), took
	}
	for _, base := range []string{k.module.HTTPURL, k.module.URL} { // HTTP/1.1 and HTTP/2
		if cut, took := send(base, 1200*time.Millisecond); cut || took < 1200*time.Millisecond {
			t.Errorf("%s, no limit: cut off %v after %v", base, cut, took)
		}
	}
	k.update(api.RoleUser, `{"http_option_dosprot_mode":2}`)
	for _, base := range []string{k.module.HTTPURL, k.module.URL} {
		if cut, took := send(base, 4*time.Second); !cut || took < 900*time.Millisecond || took > 3900*time.Millisecond {
			t.Errorf("%s, limit of 1 s: cut off %v after %v", base, cut, took)
		}
		if cut, _ := send(base, 0); cut {
			t.Errorf("%s: a quick body was cut off", base)
		}
	}
}

// The limit is for the request to arrive, not for its answer.
func TestTimeLimitSparesAnswersThatAreHeldBack(t *testing.T) {
	m := hemtest.New(t, &hemtest.Options{Damping: true, Seed: "limit"})
	k := keeperOf(t, m)
	if a, u := k.update(api.RoleUser, `{"http_option_dosprot_mode":1}`); a.status != 200 || !u.Updated {
		t.Fatal(a.status)
	}
	for range 4 { // the last ones wait for 1.5 s
		if a := k.plain().do(request{method: "POST", path: "/api/auth/token", body: `{"auth":"a.b.c"}`}); a.status != 401 {
			t.Fatalf("a login: %d", a.status)
		}
	}
}
