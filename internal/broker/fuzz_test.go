package broker_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/broker"
	"softhem/internal/suite"
)

// serve gives the broker a request and checks that it has an answer: not a
// failure of its own, and JSON or nothing.
func serve(t testing.TB, b *broker.Broker, method, path string, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "/", bytes.NewReader(body))
	r.URL = &url.URL{Path: path}
	if decoded, err := url.PathUnescape(path); err == nil {
		r.URL = &url.URL{Path: decoded, RawPath: path}
	}
	if path == "/notify/event/stream" { // its query is the body; it ends after the first list
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		r = r.WithContext(ctx)
		r.URL.RawQuery = string(body)
	}
	w := httptest.NewRecorder()
	b.Handler().ServeHTTP(w, r)
	if w.Code >= 500 || w.Body.Len() > 0 && w.Code < 300 && w.Header().Get("Content-Type") == "application/json" && !json.Valid(w.Body.Bytes()) {
		t.Errorf("%s %q with %q: %d %s", method, path, body, w.Code, w.Body)
	}
	return w
}

// Every route, with an id and a body of anybody's choice.
func FuzzRequests(f *testing.F) {
	s := startBrokerWith(f, "", broker.Config{Domain: "hem.example"})
	id := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	routes := []string{
		"POST /checkin", "GET /notify/session", "POST /notify/session", "POST /notify/register/init",
		"GET /notify/register/challenge/ID", "POST /notify/register/challenge/ID", "DELETE /notify/register/challenge/ID",
		"GET /notify/register/check/ID", "POST /notify/register/finalise/ID", "POST /notify/event/new",
		"GET /notify/event/check/ID", "DELETE /notify/event/ID", "POST /notify/event/data/allbypid",
		"GET /notify/event/data/" + id + "/ID", "POST /notify/event/data/" + id + "/ID", "DELETE /notify/event/data/ID/" + id,
		"POST /notify/subscribers/delete", "POST /notify/subscribers/token",
		"GET /notify/event/stream", "GET /domain/check/ID", "POST /domain/register/ID", "POST /domain/register/ID/ID",
		"GET /domain/register/ID", "GET /.well-known/acme-challenge/ID",
	}
	f.Add(uint8(18), "", []byte("pid="+id+"&pid="+id))
	for i := range routes {
		f.Add(uint8(i), id, []byte(`{"check":"a.b.c","eid":"`+id+`","epk":"`+id+`","request":"a.b.c","reply":"a.b.c","aid":"`+id+`","mac":"`+id+`","pid":["`+id+`"],"authreq":"a.b.c"}`))
		f.Add(uint8(i), "vault", []byte(`{"pid":"`+id+`","aid":"`+id+`","nonce":"`+id+`","genuine":"a.b.c.d","csr":"x","ip":"::1","cname":"a.b"}`))
	}
	f.Fuzz(func(t *testing.T, route uint8, id string, body []byte) {
		method, path, _ := strings.Cut(routes[int(route)%len(routes)], " ")
		serve(t, s.broker, method, strings.ReplaceAll(path, "ID", url.PathEscape(id)), body)
	})
}

// Messages under the right MAC, so that their claims are read: anybody can make
// those, with a key of their own.
func FuzzClaims(f *testing.F) {
	s := startBroker(f, "")
	own := newKey(f, bytes.Repeat([]byte{7}, 32))
	eid := api.EncodeBase64(own.Public())
	var anonymous, bound api.BrokerSession
	s.call("GET", "/notify/session", nil, &anonymous)
	s.call("POST", "/notify/session", api.BrokerSessionFor{EID: eid}, &bound)
	to := []string{s.broker.Key(), anonymous.EPK, bound.EPK}
	for which, claims := range []string{
		`{"jti":"` + eid + `","iss":"` + eid + `","qid":"` + eid + `","aud":"` + s.broker.Key() + `","csn":"QAAAAAAAAAAAAAAAAAAAAA=="}`,
		`{"jti":"` + eid + `","iss":"` + eid + `","aud":"x","iat":1700000000,"exp":4000000000,"scope":{"a":"b","` + eid + `":"A"}}`,
		`{"jti":"` + eid + `","iss":"` + eid + `","aud":"x","exp":4000000000}`,
	} {
		f.Add(uint8(which), []byte(claims))
	}
	f.Fuzz(func(t *testing.T, which uint8, claims []byte) {
		peer := to[int(which)%len(to)]
		token := signRaw(t, own, peer, claims)
		var body any
		var path string
		switch int(which) % len(to) {
		case 0:
			path, body = "/checkin", api.Check{Check: token}
		case 1:
			path, body = "/notify/event/new", api.EventNew{AuthReq: token, EPK: peer}
		default:
			path, body = "/notify/register/init", api.RegisterInit{Request: token, EPK: peer, EID: eid}
		}
		raw, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		w := serve(t, s.broker, http.MethodPost, path, raw)
		if w.Code != 200 {
			return
		}
		// What was taken says who made it, or its MAC would be another's.
		var c map[string]any
		if json.Unmarshal(claims, &c) != nil {
			t.Fatalf("taken, and no JSON: %q", claims)
		}
		said, _ := c["iss"].(string)
		if iss, err := api.DecodeBase64(said); err != nil || !bytes.Equal(iss, own.Public()) {
			t.Errorf("taken from %q: %q", said, claims)
		}
	})
}

// Attestation tokens and certificate requests: none earns a certificate but one
// that its key signed, within its time.
func FuzzDomain(f *testing.F) {
	s := startBrokerWith(f, "", broker.Config{Domain: "hem.example"})
	m := s.module(hemtest.Options{})
	good := request(f, m)
	f.Add("vault", good.CSR, good.Genuine, "192.0.2.1", "gate.example")
	f.Add("vault", "", good.Genuine, "", "")
	f.Add("v", strings.Replace(good.CSR, "M", "N", 1), strings.Replace(good.Genuine, ".", "..", 1), "::", "a")
	f.Fuzz(func(t *testing.T, prefix, csr, genuine, ip, cname string) {
		raw, err := json.Marshal(api.DomainRegister{CSR: csr, Genuine: genuine, IP: ip, CName: cname})
		if err != nil {
			t.Fatal(err)
		}
		w := serve(t, s.broker, http.MethodPost, "/domain/register/"+url.PathEscape(prefix), raw)
		if w.Code == 200 && genuineWords(t, genuine) != genuineWords(t, good.Genuine) {
			t.Errorf("a certificate for %q with the proof %q", prefix, genuine)
		}
	})
}

// genuineWords is what a token says, whatever its spelling: base64 has several.
func genuineWords(t testing.TB, token string) string {
	t.Helper()
	signed, _, _ := strings.Cut(token, ".")
	raw, err := api.DecodeBase64(signed)
	if err != nil {
		t.Fatalf("a certificate was given to a token that is not base64: %q", token)
	}
	sum := suite.SHA256(raw)
	return string(sum[:])
}
