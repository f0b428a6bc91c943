package httpapi_test

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
)

// FuzzKeyBodies posts anything to every endpoint of keys and their use, with a
// token that opens it. The answers are the documented ones: nothing is a 500,
// nothing latches a fail state. In a body KID stands for a key of the type that
// the endpoint wants, PEER for a public key.
func FuzzKeyBodies(f *testing.F) {
	m := hemtest.New(f, &hemtest.Options{MaxKeys: 500})
	client := m.Client()
	create := func(keys api.KeyType) string {
		kid, err := client.CreateKey(f.Context(), hem.KeySpec{Label: "fuzz", Type: keys, Mode: api.ModeBoth})
		if err != nil {
			f.Fatal(err)
		}
		return kid.String()
	}
	type endpoint struct {
		path, kid, token string
	}
	var endpoints []endpoint
	login := func(scope string) string {
		token, err := client.Login(f.Context(), scope)
		if err != nil {
			f.Fatal(err)
		}
		return string(token.Bearer)
	}
	x25519 := create(api.Curve25519)
	crypto := map[string][]api.KeyType{
		"hmac/hash": {api.SHA3x384, api.SECP384R1}, "hmac/verify": {api.SHA2x256},
		"exdsa/sign": {api.SECP521R1, api.SECP256K1, api.Ed25519, api.Ed448}, "exdsa/verify": {api.SECP256R1, api.SECP256K1, api.Ed448},
		"cipher/encrypt": {api.AES256, api.Curve448}, "cipher/decrypt": {api.AES256, api.SECP521R1}, "cipher/wrap": {api.AES192}, "cipher/unwrap": {api.AES256, api.Curve25519},
		"ecdh":             {api.SECP256R1, api.SECP384R1, api.SECP521R1, api.SECP256K1, api.Curve25519, api.Curve448},
		"pqc/mlkem/encaps": {api.MLKEM512}, "pqc/mlkem/decaps": {api.MLKEM512, api.MLKEM768},
		"pqc/mldsa/sign": {api.MLDSA44}, "pqc/mldsa/verify": {api.MLDSA44},
	}
	for _, path := range slices.Sorted(maps.Keys(crypto)) { // in an order, which findings depend on
		for _, t := range crypto[path] {
			kid := create(t)
			endpoints = append(endpoints, endpoint{"/api/crypto/" + path, kid, login(api.ScopeKeyUse(kid))})
		}
	}
	for _, e := range [][2]string{
		{"search", api.ScopeKeySearch}, {"create", api.ScopeKeyGen}, {"import", api.ScopeKeyImport}, {"derive", api.ScopeKeyDerive}, {"update", api.ScopeKeyUpdate},
	} {
		endpoints = append(endpoints, endpoint{"/api/keymgmt/" + e[0], x25519, login(e[1])})
	}
	endpoints = append(endpoints, endpoint{path: "/api/keymgmt/search"}) // without a token
	for i, body := range []string{
		"", "{}", `{"kid":"KID"}`, `{"kid":"KID","msg":"AAECAwQFBgcICQoLDA0ODw=="}`, `{"kid":"KID","msg":"AAECAwQFBgcICQoLDA0ODw==","mac":"AAAA"}`,
		`{"kid":"KID","msg":"AAECAwQFBgcICQoLDA0ODw==","alg":"AES128-GCM","iv":"AAECAwQFBgcICQoLDA0ODw==","tag":"AAECAwQFBgcICQoLDA0ODw==","aad":"AA=="}`,
		`{"kid":"KID","msg":"AAECAwQFBgcICQoLDA0ODw==","alg":"AES256-CBC","iv":"AAECAwQFBgcICQoLDA0ODw==","ext_kid":"KID","ctx":"AA=="}`,
		`{"kid":"KID","msg":"AAECAwQFBgcICQoLDA0ODw==","alg":"SHA512WithECDSA","sign":"MAYCAQECAQE="}`, `{"kid":"KID","msg":"AA==","alg":"Ed448ph","ctx":"AA=="}`,
		`{"kid":"KID","msg":"AA==","alg":"SHA2-512","pubkey":"PEER"}`, `{"kid":"KID","pubkey":"PEER","alg":"SHA3-256"}`, `{"kid":"KID","ct":"AAAA"}`, `{"kid":"KID","msg":"AA==","sign":"AAAA"}`,
		`{"label":"x","type":"AES128","descr":"AAAA"}`, `{"label":"x","type":"CURVE25519","pubkey":"PEER"}`, `{"kid":"KID","label":"x","type":"SECP521R1","mode":"ECDH,ExDSA","pubkey":"PEER"}`,
		`{"kid":"KID","label":"y","descr":"RVhUQUlE"}`, `{"descr":"^AAAAAAAA$","offset":1,"limit":2}`, `{"kid":null,"msg":[]}`, `{"kid":"KID","kid":"KID"}`, "\xff\xfe", `[{"kid":"KID"}]`,
	} {
		f.Add(uint8(i*7), body) // of all kinds; the fuzzer does the rest
	}
	peer, err := client.GetKey(f.Context(), hem.KID(mustKID(f, x25519)))
	if err != nil {
		f.Fatal(err)
	}
	fill := strings.NewReplacer("PEER", api.EncodeBase64(peer.Public))
	https := m.HTTPClient()
	f.Fuzz(func(t *testing.T, which uint8, body string) {
		e := endpoints[int(which)%len(endpoints)]
		sent := strings.ReplaceAll(fill.Replace(body), "KID", e.kid)
		req, err := http.NewRequest("POST", m.URL+e.path, strings.NewReader(sent))
		if err != nil {
			t.Fatal(err)
		}
		if e.token != "" {
			req.Header.Set("Authorization", "Bearer "+e.token)
		}
		resp, err := https.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case resp.StatusCode == 200:
			if len(answer) > 0 && !json.Valid(answer) {
				t.Fatalf("POST %s %q: %q", e.path, sent, answer)
			}
		case len(answer) > 0:
			t.Fatalf("POST %s %q: %d with a body, %q", e.path, sent, resp.StatusCode, answer)
		case resp.StatusCode == 400, resp.StatusCode == 406, resp.StatusCode == 413:
		case resp.StatusCode == 403 && strings.HasPrefix(e.path, "/api/crypto/"): // a kid of no key of ours
		case resp.StatusCode == 401 && e.token == "":
		default:
			t.Fatalf("POST %s %q: %d %s", e.path, sent, resp.StatusCode, resp.Header.Get(api.HeaderError))
		}
		s, err := client.Status(t.Context())
		if err != nil || s.FLSState != 0 {
			t.Fatalf("after %q: %+v, %v", body, s, err)
		}
	})
}
