package hem

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"softhem/api"
)

type externalVector struct {
	EIDPrivate string `json:"eid_private"`
	EID        string
	AIDPrivate string `json:"aid_private"`
	AID        string
	EPK        string
	PID        string
	PIDPath    string `json:"pid_path"`
	Pairing    struct {
		Request, Reply, FID string
		PostMAC             string `json:"post_mac"`
	}
	Events []struct {
		Name, JTI, Wanted, Granted, Authreq, Authreply string
		ReplyMAC                                       string `json:"reply_mac"`
		TokenExp                                       int64  `json:"token_exp"`
	}
	Tampered string `json:"tampered_scope_mac"`
	Unpair   struct{ Nonce, MAC string }
}

// The authenticator signs and seals the vectors to the byte, and opens what the
// module sealed.
func TestAuthenticatorVectors(t *testing.T) {
	var v externalVector
	readVector(t, "external.json", &v)
	seed := unbase64(t, v.AIDPrivate)
	a, err := NewAuthenticator(Pairing{Private: seed, EID: v.EID, PID: v.PID, Broker: "http://localhost"}, BrokerConfig{
		Now: func() time.Time { return time.Unix(1767225630, 0) }, // half a minute after the requests
	})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	epk := unbase64(t, v.EPK)
	var req api.PairingRequestClaims
	if err := readClaims(v.Pairing.Request, &req); err != nil {
		t.Fatal(err)
	}
	reply, err := signEJWT(a.key, a.eid, api.PairingReplyClaims{JTI: req.JTI, Iss: v.AID, Aud: v.EID, EPK: v.EPK, Label: "Pixel (Android)"})
	if err != nil || reply != v.Pairing.Reply {
		t.Errorf("reply\n%s, want\n%s, %v", reply, v.Pairing.Reply, err)
	}
	if mac, err := brokerMAC(a.key, a.eid, epk, []byte(reply), []byte(v.Pairing.FID)); err != nil || mac != v.Pairing.PostMAC {
		t.Errorf("mac of the reply %s, want %s, %v", mac, v.Pairing.PostMAC, err)
	}
	if mac, err := brokerMAC(a.key, a.eid, epk, unbase64(t, v.Unpair.Nonce)); err != nil || mac != v.Unpair.MAC {
		t.Errorf("mac of the unpairing %s, want %s, %v", mac, v.Unpair.MAC, err)
	}
	if got := a.path("x"); got != "/notify/event/data/x/"+v.PIDPath {
		t.Errorf("path %s", got)
	}
	for _, e := range v.Events {
		var req api.AuthReqClaims
		if err := readClaims(e.Authreq, &req); err != nil {
			t.Fatal(err)
		}
		r, err := a.open("id", api.EventData{JTI: req.JTI, Scope: req.Scope[v.PID], EPK: req.Aud, Exp: req.Exp})
		if scope, _, _ := strings.Cut(e.Wanted, "#"); err != nil || r.Scope != scope || !r.Expires.Equal(time.Unix(req.Exp, 0)) || !r.Asked.Equal(time.Unix(req.Iat, 0)) {
			t.Errorf("%s: request %+v, %v", e.Name, r, err)
		}
		if strings.Contains(e.Wanted, "#") != (r.Key != nil) || r.Key != nil && (r.Key.Label != "release" || r.Key.Type != "ATT,PKEY,ExDSA,ED25519") {
			t.Errorf("%s: key %+v", e.Name, r.Key)
		}
		sealed := r.sealed
		if e.Granted != e.Wanted {
			if sealed, err = a.sealScope(r.jti, e.Granted); err != nil {
				t.Fatal(err)
			}
		}
		reply, err := signEJWT(a.key, a.eid, api.AuthReplyClaims{
			Aud: v.EID, JTI: e.JTI, Exp: e.TokenExp, Iat: 1767225600, PID: v.PID, Iss: v.AID, Scope: sealed,
		})
		if err != nil || reply != e.Authreply {
			t.Errorf("%s: approval\n%s, want\n%s, %v", e.Name, reply, e.Authreply, err)
		}
		if mac, err := brokerMAC(a.key, a.eid, epk, []byte(reply)); err != nil || mac != e.ReplyMAC {
			t.Errorf("%s: mac %s, want %s, %v", e.Name, mac, e.ReplyMAC, err)
		}
	}
	var tampered api.AuthReplyClaims
	if err := readClaims(v.Tampered, &tampered); err != nil {
		t.Fatal(err)
	}
	if _, err := a.openScope(tampered.JTI, tampered.Scope); err == nil {
		t.Error("a tampered scope opens")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, a.p); strings.Contains(text, v.AIDPrivate) || strings.Contains(text, fmt.Sprint(seed)) {
			t.Errorf("%s shows the key: %s", verb, text)
		}
	}
}

// FuzzOpenRequest shows an authenticator anything: it is not opened.
func FuzzOpenRequest(f *testing.F) {
	a, err := NewAuthenticator(Pairing{Private: make([]byte, 32), EID: "W9bGkhHY88u7Hm8UV4dWHkqJSjAcff7lgnfbm9UdeHc=", PID: strings.Repeat("A", 43) + "=", Broker: "http://localhost"}, BrokerConfig{})
	if err != nil {
		f.Fatal(err)
	}
	jti := strings.Repeat("A", 43) + "="
	own, err := a.sealScope(jti, "system:config")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(jti, own)
	f.Add(jti, "A"+strings.Repeat("A", 64))
	f.Add("", "A")
	f.Fuzz(func(t *testing.T, nonce, sealed string) {
		scope, err := a.openScope(nonce, sealed)
		if err == nil && scope != "system:config" {
			t.Fatalf("%q opens as %q", sealed, scope)
		}
	})
}

// A broker that says the module's key is its own gets no MAC under the secret that
// scopes are sealed with: with one over a nonce it could write requests that open
// as the module's.
func TestABrokerWithTheModulesKey(t *testing.T) {
	var v externalVector
	readVector(t, "external.json", &v)
	eid := unbase64(t, v.EID)
	spelled := bytes.Clone(eid)
	spelled[31] |= 0x80 // the same point, RFC 7748, section 5
	for name, tc := range map[string]struct {
		epk     []byte
		deletes int32
	}{
		"another key": {unbase64(t, v.EPK), 1}, "the module's": {eid, 0}, "the module's in another spelling": {spelled, 0},
	} {
		var deletes atomic.Int32
		broker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/notify/subscribers/delete" {
				deletes.Add(1)
				return
			}
			fmt.Fprintf(w, `{"epk":%q}`, api.EncodeBase64(tc.epk))
		}))
		a, err := NewAuthenticator(Pairing{Private: unbase64(t, v.AIDPrivate), EID: v.EID, PID: v.PID, Broker: broker.URL}, BrokerConfig{})
		if err != nil {
			t.Fatal(err)
		}
		err = a.Unpair(t.Context())
		if deletes.Load() != tc.deletes || (err == nil) != (tc.deletes > 0) || err != nil && !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v, and %d proofs were sent", name, err, deletes.Load())
		}
		a.Close()
		broker.Close()
	}
}
