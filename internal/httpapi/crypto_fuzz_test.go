package httpapi_test

import (
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
)

// FuzzKeysAndCrypto sends one request to an endpoint of keys, with a token that
// opens it, or one that does not: any path below the endpoint's, any body. What
// is answered is in docs/openapi.yaml to the last field, and no 500.
//
// In path and body $ stands for a key that the endpoint may use, & for another.
func FuzzKeysAndCrypto(f *testing.F) {
	m := hemtest.New(f, &hemtest.Options{MaxKeys: 300})
	client := m.Client()
	type endpoint struct{ method, path, kid, token string }
	var all []endpoint
	add := func(method, path string, keys api.KeyType, scope string) {
		kid, err := client.CreateKey(f.Context(), hem.KeySpec{Label: "fuzz", Type: keys, Mode: api.ModeBoth})
		if err != nil {
			f.Fatal(err)
		}
		if scope == "" {
			scope = api.ScopeKeyUse(kid.String())
		}
		token, err := client.Login(f.Context(), scope)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, endpoint{method, "/api/" + path, kid.String(), string(token.Bearer)})
	}
	for _, o := range operations() {
		if o.path == "" || o.path == derive {
			continue
		}
		fits := keyRows[slices.IndexFunc(keyRows, o.own)] // the first type that does it
		if !slices.ContainsFunc(all, func(e endpoint) bool { return e.path == "/api/crypto/"+o.path }) {
			add("POST", "crypto/"+o.path, fits.keys, "")
		}
	}
	add("GET", "keymgmt/list", api.AES256, api.ScopeKeyList)
	add("GET", "keymgmt/get", api.SECP521R1, api.ScopeKeyGet)
	add("POST", "keymgmt/search", api.AES256, api.ScopeKeySearch)
	add("POST", "keymgmt/create", api.AES256, api.ScopeKeyGen)
	add("POST", "keymgmt/import", api.AES256, api.ScopeKeyImport)
	add("POST", "keymgmt/derive", api.Curve448, api.ScopeKeyDerive)
	add("POST", "keymgmt/update", api.AES256, api.ScopeKeyUpdate)
	add("DELETE", "keymgmt/delete", api.AES256, api.ScopeKeyDelete)
	seeds := [][2]string{
		{"", `{"kid":"$","msg":"AAECAwQFBgcICQoLDA0ODw==","alg":"SHA256WithECDSA"}`}, {"/$", ""},
		{"", `{"label":"x","type":"SECP256R1","mode":"ECDH","descr":"^AAAA$"}`}, {"/0/1", `{"kid":"&"}`},
		{"", `{"kid":"$","ext_kid":"$","label":"x","type":"ED448"}`},
	}
	for n := range all { // two each: ten seconds should go beyond them
		for _, seed := range [][2]string{seeds[n%5], seeds[(n+2)%5]} {
			f.Add(byte(n), byte(n), seed[0], seed[1])
		}
	}
	https, router := m.HTTPClient(), documented(f)
	f.Fuzz(func(t *testing.T, which, with byte, below, body string) {
		e, other := all[int(which)%len(all)], all[int(with)%len(all)]
		fill := strings.NewReplacer("$", e.kid, "&", other.kid)
		full := e.path + fill.Replace(below)
		if path.Clean(full) != full {
			return // the document's router cleans paths; the module does not
		}
		if e.method == "DELETE" && slices.ContainsFunc(all, func(e endpoint) bool { return strings.Contains(strings.ToLower(full), e.kid) }) {
			return // it is still needed
		}
		p := &peer{t: t, module: m, base: m.URL, client: https, router: router}
		a := p.do(request{method: e.method, path: (&url.URL{Path: full}).EscapedPath(), body: fill.Replace(body), token: &other.token})
		switch a.status {
		case 200, 400, 403, 404, 406, 413:
		default:
			t.Fatalf("%s %s %q: %d %s", e.method, full, body, a.status, a.header.Get(api.HeaderError))
		}
		var s api.Status
		if p.get("/api/system/status", &s); s.FLSState != 0 {
			t.Fatalf("%s %s %q: fail state %02x", e.method, full, body, s.FLSState)
		}
	})
}
