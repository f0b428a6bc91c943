package session

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"softhem/api"
	"softhem/internal/suite"
)

// externalVectors are the pairing and the approvals of testdata/external.json.
type externalVectors struct {
	EIDPrivate string `json:"eid_private"`
	EID        string
	AIDPrivate string `json:"aid_private"`
	AID        string
	EPKPrivate string `json:"epk_private"`
	EPK        string
	PID        string
	Events     []struct {
		Name, JTI, Wanted, Granted, Authreq, Authreply string
		TokenScope                                     string `json:"token_scope"`
		TokenExp                                       int64  `json:"token_exp"`
	}
	Tampered string `json:"tampered_scope_mac"`
}

func secretOf(t testing.TB, private, public string) *suite.MACKey {
	t.Helper()
	scalar, err1 := api.DecodeBase64(private)
	peer, err2 := api.DecodeBase64(public)
	key, err3 := suite.NewX25519Key(scalar)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	secret, err := key.Shared(peer)
	if err != nil {
		t.Fatal(err)
	}
	return suite.NewMACKey(secret)
}

// The vectors' scopes are sealed to the byte and opened, from either end.
func TestSealedScopeVectors(t *testing.T) {
	var v externalVectors
	readVectors(t, "external.json", &v)
	if len(v.Events) == 0 {
		t.Fatal("no events")
	}
	module, phone := secretOf(t, v.EIDPrivate, v.AID), secretOf(t, v.AIDPrivate, v.EID)
	for _, e := range v.Events {
		jti, ok := Decode32(e.JTI)
		if !ok {
			t.Fatalf("%s: jti", e.Name)
		}
		var req struct{ Scope map[string]string }
		var reply struct{ Scope string }
		payload(t, e.Authreq, &req)
		payload(t, e.Authreply, &reply)
		if got := SealScope(module, jti, e.Wanted); got != req.Scope[v.PID] {
			t.Errorf("%s: sealed %s, want %s", e.Name, got, req.Scope[v.PID])
		}
		if got := SealScope(phone, jti, e.Granted); got != reply.Scope {
			t.Errorf("%s: sealed by the authenticator %s, want %s", e.Name, got, reply.Scope)
		}
		if got, err := OpenScope(phone, jti, req.Scope[v.PID]); err != nil || got != e.Wanted {
			t.Errorf("%s: opens as %q, %v", e.Name, got, err)
		}
		if got, err := OpenScope(module, jti, reply.Scope); err != nil || got != e.Granted {
			t.Errorf("%s: the granted opens as %q, %v", e.Name, got, err)
		}
		other := jti
		other[31] ^= 1
		if _, err := OpenScope(module, other, reply.Scope); !errors.Is(err, ErrToken) {
			t.Errorf("%s opens under another nonce: %v", e.Name, err)
		}
	}
	var tampered struct{ JTI, Scope string }
	payload(t, v.Tampered, &tampered)
	jti, _ := Decode32(tampered.JTI)
	if _, err := OpenScope(module, jti, tampered.Scope); !errors.Is(err, ErrToken) {
		t.Errorf("a tampered scope opens: %v", err)
	}
}

// No bit of a sealed scope can be changed, nothing can be cut off or added.
func TestSealedScopeIsWhole(t *testing.T) {
	secret := suite.NewMACKey(make([]byte, 32))
	for _, scope := range []string{"", "logger:get", "auth:ext:pair::x", strings.Repeat("x", 1023)} {
		sealed := SealScope(secret, Nonce{}, scope)
		if got, err := OpenScope(secret, Nonce{}, sealed); err != nil || got != scope {
			t.Fatalf("%q opens as %q, %v", scope, got, err)
		}
		raw, err := api.DecodeBase64(sealed[1:])
		if err != nil {
			t.Fatal(err)
		}
		for i := range raw {
			raw[i] ^= 0x10
			if _, err := OpenScope(secret, Nonce{}, "A"+api.EncodeBase64(raw)); err == nil {
				t.Fatalf("%q: byte %d can be changed", scope, i)
			}
			raw[i] ^= 0x10
		}
		for _, bad := range []string{"", "A", "B" + sealed[1:], sealed[1:], "a" + sealed[1:], "A" + api.EncodeBase64(raw[:len(raw)-16]), "A" + api.EncodeBase64(append(raw, 0)), sealed + "\n"} {
			if _, err := OpenScope(secret, Nonce{}, bad); !errors.Is(err, ErrToken) {
				t.Errorf("%.20q opens: %v", bad, err)
			}
		}
	}
}

// The nonce of a request tells whose it is, and for which scope.
func TestRequestNonces(t *testing.T) {
	const now = 1_800_000_000
	b := NewBoot()
	bind, other := []byte(strings.Repeat("b", 32)), []byte(strings.Repeat("o", 32))
	for _, p := range []Purpose{PurposeRequest(), PurposeKeyUseRequest()} {
		n := b.NewRequestNonce(p, "logger:get", bind, now)
		if got, ok := b.OwnRequest(n, bind, now); !ok || got != p {
			t.Errorf("own nonce of %v: %v, %v", p, got, ok)
		}
		if !b.CheckRequest(p, "logger:get", bind, n, now+p.life-1) {
			t.Errorf("%v: refused within its life", p)
		}
		if _, ok := b.OwnRequest(n, bind, now+p.life); ok || b.CheckRequest(p, "logger:get", bind, n, now+p.life) {
			t.Errorf("%v: taken after its life", p)
		}
		for _, wrong := range [][]byte{nil, other} {
			if _, ok := b.OwnRequest(n, wrong, now); ok || b.CheckRequest(p, "logger:get", wrong, n, now) {
				t.Errorf("%v: taken with another bind", p)
			}
		}
		if b.CheckRequest(p, "logger:ge", bind, n, now) || b.CheckRequest(p, "logger:get\x00", bind[1:], n, now) {
			t.Errorf("%v: taken for another scope", p)
		}
		if _, ok := NewBoot().OwnRequest(n, bind, now); ok {
			t.Errorf("%v: another boot takes it for its own", p)
		}
		if b.CheckNonce(PurposeLogin(), nil, n, now) {
			t.Errorf("%v: taken for a login", p)
		}
	}
	if _, ok := b.OwnRequest(b.NewNonce(PurposeLogin(), nil, now), nil, now); ok {
		t.Error("the nonce of a login is taken for one of a request")
	}
}

// FuzzOpenScope opens anything: it is refused, or is what would be sealed.
func FuzzOpenScope(f *testing.F) {
	secret := suite.NewMACKey(make([]byte, 32))
	f.Add(SealScope(secret, Nonce{}, "system:config"))
	f.Add("A")
	f.Add("")
	f.Add("AsAPSUPBJbl1hikp1b8v5WLmDMLtLf0az7nKeLVeIC7w83O45hYb54HEmcQ2T7mjc")
	f.Fuzz(func(t *testing.T, sealed string) {
		scope, err := OpenScope(secret, Nonce{}, sealed)
		if err != nil {
			if !errors.Is(err, ErrToken) {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		again := SealScope(secret, Nonce{}, scope)
		one, _ := api.DecodeBase64(sealed[1:])
		two, _ := api.DecodeBase64(again[1:])
		if string(one) != string(two) {
			t.Fatalf("%q opens as %q, which is sealed as %q", sealed, scope, again)
		}
	})
}

// payload decodes the claims of a token without checking it.
func payload(t testing.TB, token string, into any) {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
}
