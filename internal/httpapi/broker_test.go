package httpapi_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
)

// A module that was told of a broker names it beside its version, in a header:
// the bodies, and all other answers, are those of one that was not.
func TestTheBrokerIsNamed(t *testing.T) {
	const broker = "https://broker.test:8090/b"
	named, other := hemtest.New(t, &hemtest.Options{Broker: broker}), hemtest.New(t, nil)
	for _, m := range []*hemtest.Module{named, other} {
		want := map[*hemtest.Module]string{named: broker}[m]
		for _, path := range []string{"/api/system/version", "/api/system/status", "/api/auth/token"} {
			req, err := http.NewRequest("GET", m.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Origin", "https://page.test")
			resp, err := m.HTTPClient().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if path != "/api/system/version" {
				want = ""
			}
			if got := resp.Header.Get("X-Hem-Broker"); got != want || resp.StatusCode != 200 {
				t.Errorf("%s: %s, broker %q, want %q", path, resp.Status, got, want)
			}
			if !strings.Contains(resp.Header.Get("Access-Control-Expose-Headers"), "X-Hem-Broker") {
				t.Errorf("%s: no page can read it", path)
			}
		}
		want = map[*hemtest.Module]string{named: broker}[m]
		if got, err := m.Client().BrokerURL(t.Context()); err != nil || got != want {
			t.Errorf("the client finds %q, %v", got, err)
		}
	}
}

// TestThreat_T164: what is no address of a broker is taken for none, whoever names it.
func TestThreat_T164_AWrongBrokerIsRefused(t *testing.T) {
	for _, text := range []string{"broker.test", "ftp://broker.test", "https://user@broker.test", "https://broker.test/?x=1", "javascript:alert(1)", "https://"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(api.HeaderBroker, text)
			_, _ = w.Write([]byte("{}"))
		}))
		c, err := hem.New(hem.Config{URL: s.URL})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.BrokerURL(t.Context()); err == nil || got != "" {
			t.Errorf("%s: %q", text, got)
		}
		c.Close()
		s.Close()
	}
}
