package hem

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"softhem/api"
)

// testPairing is one whose broker is at url.
func testPairing(url string) Pairing {
	return Pairing{Private: make([]byte, 32), EID: "W9bGkhHY88u7Hm8UV4dWHkqJSjAcff7lgnfbm9UdeHc=", PID: strings.Repeat("A", 43) + "=", Broker: url}
}

// A broker that is broken, or no broker, ends in an error that says so, in bounded
// time and memory.
func TestBrokenBrokers(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(other.Close)
	var sent atomic.Int64 // bytes of a long answer
	drip := func(w http.ResponseWriter, r *http.Request, text string, every time.Duration) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, text); err != nil {
				return
			}
			sent.Add(int64(len(text)))
			w.(http.Flusher).Flush()
			time.Sleep(every)
		}
	}
	for name, row := range map[string]struct {
		serve   http.HandlerFunc
		secure  bool
		is      error  // of the result
		says    string // part of its text
		patient bool   // it is only told after a while
	}{
		"hangs":      {serve: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, says: "it did not answer in time", patient: true},
		"drips":      {serve: func(w http.ResponseWriter, r *http.Request) { drip(w, r, " ", 10*time.Millisecond) }, says: "it did not answer in time", patient: true},
		"never ends": {serve: func(w http.ResponseWriter, r *http.Request) { drip(w, r, strings.Repeat(" ", 1<<16), 0) }, is: ErrProtocol, says: "longer than 1048576 bytes"},
		"refuses long": {serve: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			drip(w, r, strings.Repeat("x", 1<<16), 0)
		}, is: ErrProtocol, says: "longer than 1048576 bytes"},
		"redirects": {serve: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}, says: "redirect"},
		"is a web page": {serve: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }, is: ErrProtocol},
		"hangs up":      {serve: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, says: "the connection was closed"},
		"has no certificate of ours": {serve: func(http.ResponseWriter, *http.Request) {}, secure: true,
			says: "an authority that is not trusted here"},
		"says no": {serve: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }, is: api.ErrTooMany},
		"writes on screen": {serve: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(401)
			io.WriteString(w, `{"err":"\u001b[2Jno\u202e"}`)
		}, is: api.ErrUnauthorized, says: "[2Jno"},
		"nests": {serve: func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"eventid":`+strings.Repeat("[", 1<<19))
		}, is: ErrProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body) // or who hangs up is not noticed
				row.serve(w, r)
			}))
			server.Config.ErrorLog = quiet()
			if row.secure {
				server.StartTLS()
			} else {
				server.Start()
			}
			defer func() {
				server.CloseClientConnections()
				server.Close()
			}()
			a, err := NewAuthenticator(testPairing(server.URL), BrokerConfig{Poll: time.Second, Timeout: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			begun := time.Now()
			all, err := a.Requests(t.Context())
			if err == nil || all != nil || row.is != nil && !errors.Is(err, row.is) || !strings.Contains(err.Error(), row.says) {
				t.Fatalf("%v, %v", all, err)
			}
			if strings.ContainsAny(err.Error(), "\x1b\u202e") {
				t.Errorf("it writes on the screen: %q", err)
			}
			if took := time.Since(begun); row.patient && took < 1900*time.Millisecond {
				t.Errorf("given up after %v", took)
			}
			if row.patient && !retriable(err) {
				t.Errorf("%v is not tried again", err)
			}
		})
	}
	t.Cleanup(func() {
		if elsewhere.Load() != 0 {
			t.Error("a redirect was followed")
		}
		if sent.Load() > 64<<20 { // what fits into sockets comes on top of what is read
			t.Errorf("%d bytes were taken", sent.Load())
		}
	})
}

// pages is a broker that says one thing at each path.
type pages func(path string) []byte

func (p pages) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Body: io.NopCloser(bytes.NewReader(p(r.URL.Path))), Header: http.Header{}, Request: r}, nil
}

// Whatever a broker lists and shows, what comes of it is what the module sealed,
// or an error that says that it is no answer.
func FuzzRequestsOf(f *testing.F) {
	now := time.Unix(1767225630, 0)
	jti := api.EncodeBase64(append([]byte{0x00, 0xb9, 0x55, 0x69}, make([]byte, 28)...)) // half a minute ago
	note := "keymgmt:use:" + strings.Repeat("0", 32) + "#" + api.EncodeBase64([]byte(`{"t":"ATT","l":"release"}`))
	var list, shown []byte // what the broker says now
	a, err := NewAuthenticator(testPairing("http://broker"), BrokerConfig{
		Now: func() time.Time { return now }, HTTPClient: &http.Client{Transport: pages(func(path string) []byte {
			if strings.HasSuffix(path, "/allbypid") {
				return list
			}
			return shown
		})},
	})
	if err != nil {
		f.Fatal(err)
	}
	sealed, err := a.sealScope(jti, note)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"eventid":{"a":["x"],"b":null}}`), fmt.Appendf(nil, `{"jti":%q,"scope":%q,"epk":"","exp":1}`, jti, sealed))
	f.Add([]byte(`{"eventid":{"a":[]}}`), fmt.Appendf(nil, `{"jti":%q,"scope":%q,"exp":99999999999,"from":%q}`, jti, sealed, sealed))
	f.Add([]byte(`{"eventid":{"../x?y":["x"]}}`), []byte(`{"jti":"","scope":"A"}`))
	f.Add([]byte(`{"eventid":null}`), []byte(`[]`))
	f.Fuzz(func(t *testing.T, listed, data []byte) {
		list, shown = listed, data
		all, err := a.Requests(t.Context())
		if err != nil && !errors.Is(err, ErrProtocol) {
			t.Errorf("%v", err)
		}
		for _, r := range all {
			if r.Scope+"#" != note[:45] || r.Key == nil || r.Key.Label != "release" || r.From != "" || !r.Expires.After(now) || r.Expires.After(now.Add(870*time.Second)) {
				t.Errorf("shown: %+v of %q", r, shown)
			}
		}
	})
}

// Whatever a broker says to who takes an offer, they are paired with the module
// whose request the offer has the hash of, or with nobody.
func FuzzAcceptPairing(f *testing.F) {
	request := func(claims string) string { return "e30." + base64URL(claims) + ".AAAA" }
	good := request(`{"jti":"x","exp":1,"aud":"+NWjDIJpayTrpQyAWnZQ/JIiQCId2uoMfm+tB6aqlW4=","iss":"W9bGkhHY88u7Hm8UV4dWHkqJSjAcff7lgnfbm9UdeHc="}`)
	const link = "http://broker/notify/register/challenge/rid"
	offer := fmt.Sprintf(`{"link":%q,"hash":%q,"user":"u","k":"AAAAAAAAAAAAAAAAAAAAAA=="}`, link, hashOf(good))
	pid := `{"pid":"` + strings.Repeat("A", 43) + `="}`
	for _, o := range []string{offer, link, "{", "javascript:alert(1)", "http://[::1/notify/register/challenge/"} {
		f.Add(o, fmt.Appendf(nil, `{"request":%q}`, good), []byte(pid))
	}
	f.Add(offer, fmt.Appendf(nil, `{"request":%q}`, request(`{"iss":5}`)), []byte(`{"pid":"x"}`))
	f.Fuzz(func(t *testing.T, offer string, challenge, pid []byte) {
		gets := 0
		p, proven, err := AcceptPairing(t.Context(), BrokerConfig{HTTPClient: &http.Client{Transport: pages(func(string) []byte {
			if gets++; gets == 1 {
				return challenge
			}
			return pid
		})}}, offer, "label")
		if err != nil {
			if p != nil || !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrArgument) && !errors.Is(err, ErrPairingForged) && !isUnreachable(err) {
				t.Errorf("%+v, %v", p, err)
			}
			return
		}
		if proven && !bytes.Contains(challenge, []byte(good)) && strings.Contains(offer, hashOf(good)) {
			t.Errorf("paired by %q", challenge)
		}
		if _, err := NewAuthenticator(*p, BrokerConfig{}); err != nil {
			t.Errorf("a pairing that is of no use: %v", err)
		}
	})
}

func base64URL(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return api.EncodeBase64(sum[:])
}

func isUnreachable(err error) bool {
	_, lost := errors.AsType[*UnreachableError](err)
	return lost
}

// quiet drops what a server logs about clients that it treats badly.
func quiet() *log.Logger { return log.New(io.Discard, "", 0) }
