package hem

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"softhem/api"
)

func TestRefusals(t *testing.T) {
	f := startFake(t)
	c := newClient(t, Config{URL: f.url})
	for _, status := range []int{301, 302, 307, 400, 401, 403, 404, 406, 409, 410, 412, 413, 418, 429, 500, 503} {
		f.handle("GET /api/system/status", func(w answerWriter, _ request) {
			w.Header().Set("Location", f.url+"/elsewhere")
			w.Header().Set(api.HeaderError, "some reason")
			w.WriteHeader(status)
			io.WriteString(w, strings.Repeat("x", 1<<18))
		})
		_, err := c.Status(t.Context())
		var refused *api.Error
		var op *OpError
		if !errors.As(err, &op) || !errors.As(err, &refused) || refused.Status != status || !errors.Is(err, &api.Error{Status: status}) {
			t.Errorf("%d: %v", status, err)
		}
	}
	if f.count("GET /elsewhere") != 0 {
		t.Error("followed a redirect")
	}
	for _, hostile := range []string{"tab\t, C1\x9b and ü", "bell\a"} { // net/http itself refuses the latter
		f.handle("GET /api/system/status", func(w answerWriter, _ request) {
			w.Header().Set(api.HeaderError, hostile+strings.Repeat("y", 1000))
			w.WriteHeader(500)
		})
		if _, err := c.Status(t.Context()); printable(err.Error()[:100]) != err.Error()[:100] || len(err.Error()) > 600 {
			t.Errorf("%q", err)
		}
	}
}

func TestStrangeAnswers(t *testing.T) {
	f := startFake(t)
	c := newClient(t, Config{URL: f.url, Key: testKey(t)})
	for name, body := range map[string]string{
		"empty": "", "page": "<html>", "array": "[1]", "cut": `{"https":true`, "two": "{}{}",
		"huge": `{"hostname":"` + strings.Repeat("x", maxAnswerBytes) + `"}`,
	} {
		f.handle("GET /api/system/status", func(w answerWriter, _ request) { io.WriteString(w, body) })
		if _, err := c.Status(t.Context()); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %.200v", name, err)
		}
	}
	for _, token := range []string{"", "x", "a.b.c", "a b"} {
		f.handle("POST "+pathToken, func(w answerWriter, _ request) { writeJSON(w, api.TokenAnswer{Token: token}) })
		if _, err := c.Login(t.Context(), "s"); !errors.Is(err, ErrProtocol) {
			t.Errorf("token %q: %v", token, err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // the handshakes that fail here are meant to
	secure.StartTLS()
	defer secure.Close()
	plain := startFake(t)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	port := secure.Listener.Addr().(*net.TCPAddr).Port

	for name, tc := range map[string]struct {
		cfg  Config
		hint string
	}{
		"refused":    {Config{URL: "http://" + closed.Addr().String()}, "is the module running"},
		"untrusted":  {Config{URL: secure.URL}, "CA certificate"},
		"other name": {Config{URL: "https://localhost:" + strconv.Itoa(port), CACert: ca}, "another name"},
		"no TLS":     {Config{URL: strings.Replace(plain.url, "http:", "https:", 1)}, "does not speak TLS"},
	} {
		_, err := newClient(t, tc.cfg).Status(t.Context())
		var u *UnreachableError
		if !errors.As(err, &u) || !strings.Contains(u.Hint, tc.hint) {
			t.Errorf("%s: %v", name, err)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	// Without asking a name server, which a test cannot count on.
	err = unreachable("op", "GET /", &url.URL{Scheme: "https", Host: "h"}, &url.Error{Op: "Get", URL: "u", Err: &net.DNSError{Err: "no such host", Name: "h"}})
	if u, ok := errors.AsType[*UnreachableError](err); !ok || u.URL != "https://h" || !strings.Contains(u.Hint, "cannot be resolved") {
		t.Error(err)
	}
	for name, cfg := range map[string]Config{
		"with CA":  {URL: secure.URL, CACert: ca},
		"insecure": {URL: secure.URL, InsecureSkipVerify: true},
	} {
		if _, err := newClient(t, cfg).Status(t.Context()); !errors.Is(err, api.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestContextEnds(t *testing.T) {
	f := startFake(t)
	f.handle("GET /api/system/status", func(_ answerWriter, r request) { <-r.Context().Done() })
	c := newClient(t, Config{URL: f.url})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := c.Status(ctx)
	var u *UnreachableError
	if !errors.As(err, &u) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err = c.Status(ctx); errors.As(err, new(*UnreachableError)) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A transport without a network, so that time can be faked.
type inProcess struct{ http.Handler }

func (h inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

func TestRetryAfter(t *testing.T) {
	for _, tc := range []struct {
		name     string
		header   string
		refusals int
		deadline time.Duration // 0: none
		waited   time.Duration
		ok       bool
	}{
		{"waits", "5", 1, 0, 5 * time.Second, true},
		{"waits once", "5", 2, 0, 5 * time.Second, false},
		{"no header", "", 1, 0, 0, false},
		{"nonsense", "soon", 1, 0, 0, false},
		{"negative", "-5", 1, 0, 0, false},
		{"too long", "3600", 1, 0, 0, false},
		{"deadline is nearer", "5", 1, 4 * time.Second, 0, false},
		{"deadline is farther", "5", 1, 6 * time.Second, 5 * time.Second, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := startFake(t)
			left := tc.refusals
			f.handle("POST "+pathToken, func(w answerWriter, r request) {
				if left--; left < 0 {
					f.login(w, r.Request)
					return
				}
				if tc.header != "" {
					w.Header().Set("Retry-After", tc.header)
				}
				w.WriteHeader(429)
			})
			synctest.Test(t, func(t *testing.T) {
				c := newClient(t, Config{URL: "https://hem.test", HTTPClient: &http.Client{Transport: inProcess{f}}, Key: testKey(t)})
				ctx := context.Context(context.Background())
				if tc.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tc.deadline)
					defer cancel()
				}
				start := time.Now()
				_, err := c.Login(ctx, "s")
				if (err == nil) != tc.ok || err != nil && !errors.Is(err, api.ErrTooMany) {
					t.Errorf("err = %v", err)
				}
				if got := time.Since(start); got != tc.waited {
					t.Errorf("waited %v, want %v", got, tc.waited)
				}
			})
		})
	}
}

// A POST must reach the module whole on the second try, too.
func TestPostIsReplayable(t *testing.T) {
	var bodies []string
	f := startFake(t)
	f.handle("POST /x", func(w answerWriter, r request) {
		body, _ := io.ReadAll(r.Body)
		bodies = append(bodies, strconv.FormatInt(r.ContentLength, 10)+string(body))
		if len(bodies) == 1 {
			w.Header().Set("Retry-After", "5")
			w.WriteHeader(429)
			return
		}
		writeJSON(w, json.RawMessage("{}"))
	})
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{URL: "https://hem.test", HTTPClient: &http.Client{Transport: inProcess{f}}})
		if err := c.post(t.Context(), "x", "/x", map[string]int{"a": 1}, nil); err != nil {
			t.Error(err)
		}
	})
	if want := []string{`7{"a":1}`, `7{"a":1}`}; !slices.Equal(bodies, want) {
		t.Errorf("bodies %q, want %q", bodies, want)
	}
}
