package httpapi_test

import (
	"encoding/json"
	"strings"
	"testing"

	"softhem/api"
	"softhem/hemtest"
)

// ppaOnly tells whether only a PPA has a path: storage, log files, upgrade,
// attestation, diagnostics.
func ppaOnly(path string) bool {
	switch path {
	case "/api/logger/key", "/api/logger/checkpoint":
		return false
	}
	for _, part := range []string{"/api/logger/", "/api/storage/", "/api/diag/", "/attestation", "/provisioning", "upgrade", "_fw", "_ui", "usbmode"} {
		if strings.Contains(path, part) {
			return true
		}
	}
	return false
}

// An EPA answers 404 where it has no such part, whoever asks and in whichever
// state, and everything else as a PPA does.
func TestEPALacksWhatOnlyAPPAHas(t *testing.T) {
	b := newBackend()
	walkAll := func(p *peer, token func(scope string) *string, want func(row int) int) {
		for i, row := range walk {
			status := want(i)
			if ppaOnly(row.path) {
				status = 404
			}
			p.expect(row.method, row.path, token(row.scope), status)
		}
	}
	nobody := func(string) *string { return nil }
	opts := hemtest.Options{Profile: "EPA", TrustedBackends: [][]byte{b.key.Public()}}

	fresh := opts
	fresh.Fresh = true
	walkAll(newPeer(t, hemtest.New(t, &fresh)), nobody, func(i int) int { return walk[i].fresh })
	k := newKeeper(t, &opts)
	walkAll(k.peer, nobody, func(i int) int { return walk[i].ready })
	walkAll(k.peer, func(scope string) *string { return k.token(api.RoleUser, scope) }, func(i int) int { return walk[i].user })
	for _, path := range []string{"/api/storage/unlock", "/api/storage/lock", "/api/system/config/attestation", "/api/diag/test"} {
		k.expect("GET", path, nil, 404)
	}
}

// What a PPA tells of itself beside those endpoints, an EPA does not have, and
// its settings are unknown names at the personalisation too.
func TestEPAShowsNoPartsOfAPPA(t *testing.T) {
	m := hemtest.New(t, &hemtest.Options{Profile: "EPA", Fresh: true})
	p := newPeer(t, m)
	claims, cfg := initClaims(p.initChallenge())
	cfg["dnsd"], cfg["storage_mode"], cfg["storage_disk0size"], cfg["ip"] = true, -1, -1, "no address"
	a := p.postInit(admin().sign(t, goodHeader, claims, claims["aud"].(string)))
	var answer map[string]any
	if err := json.Unmarshal(a.body, &answer); a.status != 200 || err != nil {
		t.Fatalf("init: %d %s", a.status, a.header.Get(api.HeaderError))
	}
	if answer["reboot_required"] != nil {
		t.Error("a setting that an EPA does not have asks for a reboot")
	}
	token := answer["token"].(string)
	for path, lacks := range map[string][]string{
		"/api/system/config":  {"genuine_id", "storage_mode", "storage_disk0size", "storage_capacity"},
		"/api/system/version": {"uis", "sd_csd", "sd_cid"},
		"/api/system/status":  {"storage", "format"},
	} {
		var shown map[string]any
		if err := json.Unmarshal(p.expect("GET", path, &token, 200).body, &shown); err != nil {
			t.Fatal(err)
		}
		for _, name := range lacks {
			if _, ok := shown[name]; ok {
				t.Errorf("%s of an EPA has %s", path, name)
			}
		}
		if path == "/api/system/config" && shown["dnsd"] != false {
			t.Errorf("dnsd %v", shown["dnsd"])
		}
	}
}
