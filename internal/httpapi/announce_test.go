package httpapi_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"softhem/api"
	"softhem/hemtest"
)

// What a backend announces is understood or not; it comes to nothing beside a status
// that is not OK, and never to a 401 or a 500.
func TestAnnouncementsOfABackend(t *testing.T) {
	b := newBackend()
	k := newKeeper(t, &hemtest.Options{TrustedBackends: [][]byte{b.key.Public()}})
	epa := newKeeper(t, &hemtest.Options{TrustedBackends: [][]byte{b.key.Public()}, Profile: "EPA"})
	encode := func(n int) string { return api.EncodeBase64(make([]byte, n)) }
	ask := func(k *keeper, edit func(map[string]any)) api.CheckinResult {
		t.Helper()
		var check api.Check
		k.get("/api/system/checkin", &check)
		a := k.do(request{method: "POST", path: "/api/system/checkin", body: b.checked(t, check, time.Now(), edit)})
		var r api.CheckinResult
		if err := json.Unmarshal(a.body, &r); err != nil || a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		return r
	}
	for value, want := range map[string]string{
		encode(64): "OK", strings.TrimRight(encode(64), "="): "OK", encode(63): "ERROR", encode(65): "ERROR", encode(32): "ERROR", "": "", "!": "ERROR", strings.Repeat("A", 3000): "ERROR",
	} {
		if r := ask(k, func(c map[string]any) { c["newfws"] = value }); r != (api.CheckinResult{Status: "OK", NewFWS: want}) {
			t.Errorf("newfws %.20q: %+v", value, r)
		}
	}
	for value, want := range map[string]string{encode(32): "OK", encode(31): "ERROR", encode(64): "ERROR", "": ""} {
		if r := ask(k, func(c map[string]any) { c["newuis"] = value }); r != (api.CheckinResult{Status: "OK", NewUIS: want}) {
			t.Errorf("newuis %.20q: %+v", value, r)
		}
	}
	if r := ask(epa, func(c map[string]any) { c["newuis"], c["newfws"] = encode(32), encode(64) }); r != (api.CheckinResult{Status: "OK", NewUIS: "ERROR", NewFWS: "OK"}) {
		t.Errorf("an EPA: %+v", r)
	}
	if r := ask(k, func(c map[string]any) { c["newfws"], c["status"] = encode(64), encode(32) }); r != (api.CheckinResult{Status: "???"}) {
		t.Errorf("beside a status that is not understood: %+v", r)
	}
}
