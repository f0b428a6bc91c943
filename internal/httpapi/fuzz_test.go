package httpapi_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"softhem/api"
	"softhem/hemtest"
)

// FuzzBodies posts anything to every endpoint that strangers post to. The answers
// are the documented ones; nothing is a 500 and nothing ends the module.
func FuzzBodies(f *testing.F) {
	b := newBackend()
	m := hemtest.New(f, &hemtest.Options{TrustedBackends: [][]byte{b.key.Public()}})
	fresh := hemtest.New(f, &hemtest.Options{Fresh: true, Seed: "fresh"})
	for _, body := range []string{
		"", "{}", `{"auth":"a.b.c"}`, `{"init":"a.b.c"}`, `{"checked":"a.b.c"}`, `{"auth":null}`, `[1,2]`, "\xff\xfe", `{"auth":{"a":[]}}`,
		`{"auth":"eyJlY2RoIjoieDI1NTE5IiwiYWxnIjoiSFMyNTYiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBPSJ9.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`,
	} {
		f.Add(body)
	}
	targets := []struct {
		base, path string
		want       map[int]bool
	}{
		{m.HTTPURL, "/api/auth/token", map[int]bool{400: true, 401: true, 413: true}},
		{fresh.HTTPURL, "/api/auth/init", map[int]bool{400: true, 401: true, 413: true}},
		{m.HTTPURL, "/api/system/checkin", map[int]bool{400: true, 401: true, 413: true}},
	}
	client := m.HTTPClient()
	f.Fuzz(func(t *testing.T, body string) {
		for _, target := range targets {
			resp, err := client.Post(target.base+target.path, "application/json", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || len(rest) != 0 || !target.want[resp.StatusCode] {
				t.Fatalf("POST %s %q: %d %q %v", target.path, body, resp.StatusCode, rest, err)
			}
		}
	})
}

// FuzzRequests sends anything as a path and a bearer token.
func FuzzRequests(f *testing.F) {
	m := hemtest.New(f, nil)
	for _, rt := range [][2]string{
		{"/api/logger/list/0", "a.b.c"}, {"/api/logger/6955b900", ""}, {"/api/system/status", "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.e30.AAAA"},
		{"/api/../", "x"}, {"//", "."}, {"api%2fsystem/status", ""}, {"%61pi/system/status", ""}, {"api/logger/..%2f..%2Fhem.db", ""}, {"/api/system/config", strings.Repeat(".", 300)},
	} {
		f.Add(rt[0], rt[1])
	}
	client := m.HTTPClient()
	f.Fuzz(func(t *testing.T, path, token string) {
		req, err := http.NewRequest("GET", m.HTTPURL, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Path = "/" + path
		if typed, err := url.ParseRequestURI("/" + path); err == nil { // as it stands, %XX and all
			req.URL.Path, req.URL.RawPath = typed.Path, typed.RawPath
		}
		if strings.ContainsFunc(token, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return // net/http sends no such header
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(req)
		if err != nil {
			return // not a request that can be sent
		}
		defer resp.Body.Close()
		rest, err := io.ReadAll(resp.Body)
		if err != nil || len(rest) != 0 || resp.StatusCode != 401 && resp.StatusCode != 404 && resp.StatusCode != 400 && resp.StatusCode != 431 {
			t.Fatalf("GET %q with %q: %d %q %v", path, token, resp.StatusCode, rest, err)
		}
		if req.URL.EscapedPath() != (&url.URL{Path: req.URL.Path}).EscapedPath() && strings.HasPrefix(req.URL.Path, "/api/") && resp.StatusCode == 401 {
			t.Fatalf("GET %s leads to an endpoint", req.URL.RawPath)
		}
		if resp.StatusCode == 401 && resp.Header.Get(api.HeaderError) != "" {
			t.Fatalf("a 401 that tells why: %q", resp.Header.Get(api.HeaderError))
		}
	})
}
