package httpapi_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/suite"
)

const quirksFW122 = "fw1.2.2"

// Each fault of firmware 1.2.2, and that a module without quirks has none.
func TestQuirks(t *testing.T) {
	for _, quirks := range []string{"", quirksFW122} {
		t.Run("quirks="+quirks, func(t *testing.T) {
			k := newKeeper(t, &hemtest.Options{Quirks: quirks})
			pick := func(right, quirk int) int {
				if quirks == quirksFW122 {
					return quirk
				}
				return right
			}
			for _, test := range []struct {
				name string
				run  func(*keeper, func(right, quirk int) int)
			}{
				{"409 over plain HTTP", testQuirkPlain},
				{"795 of a wrong ML-DSA signature", testQuirkMLDSA},
				{"the scope for the algorithm of decaps", testQuirkDecaps},
				{"a short raw secret", testQuirkECDH},
				{"no descr in get", testQuirkDescr},
				{"connections close", testQuirkConnections},
			} {
				t.Run(test.name, func(t *testing.T) { test.run(k.with(t), pick) })
			}
		})
	}
}

func testQuirkPlain(k *keeper, pick func(right, quirk int) int) {
	kid, p := k.create(api.SHA2x256), k.plain()
	token := k.as(api.RoleUser, api.ScopeKeyUse(kid))
	body := fields{"kid": kid, "msg": "AAAA"}.json(k.t)
	p.expect("DELETE", "/api/keymgmt/delete/{kid}", k.as(api.RoleUser, api.ScopeKeyDelete), pick(418, 409))
	for path, want := range map[string]int{
		"/api/crypto/hmac/hash": pick(418, 409), "/api/crypto/hmac/verify": 418, "/api/crypto/cipher/encrypt": 418, "/api/keymgmt/create": 418,
	} {
		k.want(path, p.do(request{method: "POST", path: path, body: body, token: token}), want)
	}
	k.want("over TLS", k.use("hmac/hash", kid, fields{"msg": "AAAA"}), 200)
}

// past is use past the OpenAPI document, which does not describe faults.
func (k *keeper) past(op, kid string, f fields) (status int, body []byte) {
	k.t.Helper()
	req, err := http.NewRequest("POST", k.base+"/api/crypto/"+op, strings.NewReader(f.but(fields{"kid": kid}).json(k.t)))
	if err != nil {
		k.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+*k.as(api.RoleUser, api.ScopeKeyUse(kid)))
	resp, err := k.client.Do(req)
	if err != nil {
		k.t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		k.t.Fatal(err)
	}
	return resp.StatusCode, body
}

func testQuirkMLDSA(k *keeper, pick func(right, quirk int) int) {
	verify := func(kid string, msg, sign []byte) int {
		status, body := k.past("pqc/mldsa/verify", kid, fields{"msg": msg, "sign": sign})
		if len(body) != 0 {
			k.t.Errorf("%d with a body: %q", status, body)
		}
		return status
	}
	msg := []byte("message")
	kid := k.create(api.MLDSA44)
	sign := k.must(k.use("pqc/mldsa/sign", kid, fields{"msg": msg}), "sign")
	if got := verify(kid, msg, sign); got != 200 {
		k.t.Errorf("a good signature: %d", got)
	}
	if got := verify(kid, []byte("another"), sign); got != pick(406, 795) {
		k.t.Errorf("a wrong signature: %d", got)
	}
	if got := verify(kid, msg, nil); got != 400 {
		k.t.Errorf("no signature: %d", got)
	}
	if got := verify(walkKID, msg, sign); got != pick(406, 795) {
		k.t.Errorf("an unknown key: %d", got)
	}
	k.want("a wrong ECDSA signature", k.use("exdsa/verify", k.create(api.Ed25519), fields{"msg": msg, "alg": "Ed25519", "sign": make([]byte, 64)}), 406)

	// The public half alone: another's, since the own one is stored already.
	a, _ := suite.AlgorithmOf(api.MLDSA44)
	other, err := a.Open(a.NewMaterial())
	if err != nil {
		k.t.Fatal(err)
	}
	if sign, err = other.SignMLDSA(msg, nil); err != nil {
		k.t.Fatal(err)
	}
	if got := verify(k.imports(api.MLDSA44, other.Public()), msg, sign); got != pick(200, 795) {
		k.t.Errorf("an imported key: %d", got)
	}
}

func testQuirkDecaps(k *keeper, pick func(right, quirk int) int) {
	kid := k.create(api.MLKEM512)
	enc := k.use("pqc/mlkem/encaps", kid, fields{})
	status, body := k.past("pqc/mlkem/decaps", kid, fields{"ct": k.must(enc, "ct")})
	var answer api.DecapsAnswer
	if err := json.Unmarshal(body, &answer); err != nil || status != 200 {
		k.t.Fatalf("%d, %v: %s", status, err, body)
	}
	if answer.SS != api.EncodeBase64(k.must(enc, "ss")) {
		k.t.Error("the secrets differ")
	}
	want := []string{"MLKEM512", api.ScopeKeyUse(kid)}[pick(0, 1)]
	if answer.Alg != want {
		k.t.Errorf("alg %q, want %q", answer.Alg, want)
	}
}

func testQuirkECDH(k *keeper, pick func(right, quirk int) int) {
	for keys, size := range map[api.KeyType]int{api.SECP521R1: 66, api.Curve448: 56, api.SECP384R1: 48, api.Curve25519: 32} {
		kid := k.create(keys)
		peer := fields{"pubkey": freshPublic(k.t, keys)}
		secret := k.must(k.use("ecdh", kid, peer), "ecdh")
		if len(secret) != pick(size, 32) {
			k.t.Errorf("%s: %d bytes", keys, len(secret))
		}
		// What is hashed is the whole of it.
		digest := k.must(k.use("ecdh", kid, peer.but(fields{"alg": "SHA2-256"})), "ecdh")
		sum := suite.SHA256(secret)
		if same := bytes.Equal(digest, sum[:]); same != (len(secret) == size) {
			k.t.Errorf("%s: the digest is of the whole secret: %v", keys, !same)
		}
	}
}

func testQuirkDescr(k *keeper, pick func(right, quirk int) int) {
	kid := k.kid(k.post("/api/keymgmt/create", api.ScopeKeyGen, fields{"label": "x", "type": "AES128", "descr": []byte("described")}))
	if got, want := k.key(kid).Descr, []string{"ZGVzY3JpYmVk", ""}[pick(0, 1)]; got != want {
		k.t.Errorf("descr %q, want %q", got, want)
	}
	list := k.list(k.search(api.ScopeKeyList, fields{"descr": "^ZGVzY3JpYmVk$"}))
	if list.Total != 1 || list.List[0].Descr != "ZGVzY3JpYmVk" {
		k.t.Errorf("the list: %+v", list)
	}
}

func testQuirkConnections(k *keeper, pick func(right, quirk int) int) {
	for name, p := range map[string]*peer{"TLS": k.peer, "HTTP": k.plain()} {
		for _, r := range []request{
			{method: "GET", path: "/api/system/status"},
			{method: "GET", path: "/api/unknown"},
			{method: "OPTIONS", path: "/api/system/status"},
			{method: "GET", path: "/api/system/config"},
		} {
			if a := p.do(r); a.closed != (pick(0, 1) == 1) {
				k.t.Errorf("%s %s %s: closed %v", name, r.method, r.path, a.closed)
			}
		}
	}
}

// A clock that a check-in set runs 8 % fast, and a certificate that came with it
// is acknowledged and dropped.
func TestQuirksOfTheCheckin(t *testing.T) {
	for _, quirks := range []string{"", quirksFW122} {
		t.Run("quirks="+quirks, func(t *testing.T) {
			ca, b := newAuthority(t), newBackend()
			var passed atomic.Int64
			start := time.Now()
			host := func() time.Time { return start.Add(time.Duration(passed.Load())) }
			k := newKeeper(t, &hemtest.Options{Quirks: quirks, TrustedBackends: [][]byte{b.key.Public()},
				Fresh: true, ClockUnset: true, Clock: host})
			first := k.shown()
			leaf := ca.sign(t, first.PublicKey, "new", false)
			var check api.Check
			k.get("/api/system/checkin", &check)
			a := k.do(request{method: "POST", path: "/api/system/checkin", body: b.checked(t, check, start, func(c map[string]any) {
				c["newcrt"] = api.EncodeBase64(append(bytes.Clone(leaf.Raw), ca.cert.Raw...))
			})})
			var result api.CheckinResult
			if err := json.Unmarshal(a.body, &result); err != nil || result != (api.CheckinResult{Status: "OK", NewCrt: "OK"}) {
				t.Fatalf("check-in: %d, %v: %s", a.status, err, a.body)
			}
			if dropped := k.shown().Equal(first); dropped != (quirks == quirksFW122) {
				t.Errorf("the certificate was dropped: %v", dropped)
			}
			if quirks == "" {
				k.trust(ca)
			}
			passed.Store(int64(1000 * time.Second))
			var s api.Status
			k.get("/api/system/status", &s)
			want := start.Unix() + 1000
			if quirks == quirksFW122 {
				want += 80
			}
			if s.Time == nil || *s.Time != want {
				t.Errorf("after 1000 s the clock says %v, want %d", s.Time, want)
			}
		})
	}
}
