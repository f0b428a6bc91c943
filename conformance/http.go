package conformance

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"softhem/api"
)

const (
	answerTime = 60 * time.Second // of one request
	maxAnswer  = 64 << 20
)

// A request is what is sent; zero fields are left out.
type request struct {
	method, path string
	body         any     // a string as it is, else as JSON
	token        *string // nil: no header
	header       http.Header
	plain        bool // over plain HTTP
	chunked      bool // without a length
}

// An answer is what came back.
type answer struct {
	status   int
	header   http.Header
	body     []byte
	closed   bool // the module closes the connection
	took     time.Duration
	tls      *tls.ConnectionState
	exchange *Exchange
}

func (w *walk) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: w.host,
		InsecureSkipVerify: true, // VerifyConnection does it, with roots that may change
		VerifyConnection:   w.verify,
	}
}

// transport makes the way to the module. The authorities are looked up at each
// handshake.
func (w *walk) transport() *http.Transport {
	return &http.Transport{TLSClientConfig: w.tlsConfig(), ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 4, TLSHandshakeTimeout: 20 * time.Second}
}

// verify is what the standard library does with a certificate, under the
// authorities of the moment.
func (w *walk) verify(cs tls.ConnectionState) error {
	if w.o.InsecureSkipVerify {
		return nil
	}
	opts := x509.VerifyOptions{DNSName: w.host, Intermediates: x509.NewCertPool()}
	if w.o.CAFile != "" {
		pem, err := os.ReadFile(w.o.CAFile)
		if err != nil {
			return err
		}
		opts.Roots = x509.NewCertPool()
		opts.Roots.AppendCertsFromPEM(pem)
	} else if roots, err := x509.SystemCertPool(); err == nil {
		opts.Roots = roots
	} else {
		opts.Roots = x509.NewCertPool()
	}
	if w.authority != nil {
		opts.Roots.AddCert(w.authority.cert)
	}
	for _, c := range cs.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, err := cs.PeerCertificates[0].Verify(opts)
	return err
}

// send does one exchange. Its error says that there was no answer.
func (w *walk) send(r request) (*answer, error) {
	var text []byte
	switch b := r.body.(type) {
	case nil:
	case string:
		text = []byte(b)
	default:
		var err error
		if text, err = json.Marshal(b); err != nil {
			return nil, err
		}
	}
	var body io.Reader
	if r.body != nil || r.method == http.MethodPost {
		body = bytes.NewReader(text)
		if r.chunked {
			body = struct{ io.Reader }{body}
		}
	}
	base := w.o.URL
	if r.plain {
		base = w.o.PlainURL
	}
	ctx, cancel := context.WithTimeout(w.ctx, answerTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, strings.TrimSuffix(base, "/")+r.path, body)
	if err != nil {
		return nil, err
	}
	if r.chunked {
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil }
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	if text != nil && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.token != nil {
		req.Header.Set("Authorization", "Bearer "+*r.token)
	}
	a := &answer{exchange: &Exchange{
		Request: r.method + " " + redact(req.URL.String()), Body: redact(string(text)), Bearer: r.token != nil,
	}}
	start := time.Now()
	resp, err := w.client.Do(req)
	if err == nil {
		defer resp.Body.Close()
		a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	}
	a.took = time.Since(start)
	if err != nil {
		w.silent++
		return a, err
	}
	w.silent = 0
	a.status, a.header, a.closed, a.tls = resp.StatusCode, resp.Header, resp.Close, resp.TLS
	a.exchange.Status, a.exchange.Reason = a.status, a.header.Get(api.HeaderError)
	a.exchange.Answer = redact(string(a.body))
	w.observe(r, a)
	return a, nil
}

// do is send, and the end of the check when there is no answer.
func (s *step) do(r request) *answer {
	a, err := s.send(r)
	if a != nil {
		s.last = a.exchange
	}
	if err != nil {
		s.failf("no answer: %v", err)
	}
	return a
}

func (s *step) get(path string, token *string) *answer {
	return s.do(request{method: "GET", path: path, token: token})
}

func (s *step) post(path string, body any, token *string) *answer {
	return s.do(request{method: "POST", path: path, body: body, token: token})
}

// want fails the check unless the answer has one of the statuses.
func (s *step) want(a *answer, statuses ...int) *answer {
	for _, status := range statuses {
		if a.status == status {
			return a
		}
	}
	texts := make([]string, len(statuses))
	for i, status := range statuses {
		texts[i] = strconv.Itoa(status)
	}
	s.failAt(a, "answered %d, want %s", a.status, strings.Join(texts, " or "))
	return nil
}

// empty is want for an answer without a body.
func (s *step) empty(a *answer, status int) *answer {
	s.want(a, status)
	if len(a.body) != 0 {
		s.failAt(a, "answered with a body, want none")
	}
	return a
}

// A fault is what is wrong with an answer whatever was asked.
type fault struct {
	kind string
	what string
	at   *Exchange
}

// observe holds every answer of the walk against the rules of all answers.
func (w *walk) observe(r request, a *answer) {
	note := func(kind, format string, args ...any) {
		if len(w.faults) < 100 {
			w.faults = append(w.faults, fault{kind, fmt.Sprintf(format, args...), a.exchange})
		}
	}
	if !strings.HasPrefix(r.path, "/api/") {
		return
	}
	kind := a.header.Get("Content-Type")
	text := strings.HasPrefix(r.path, "/api/logger/") && strings.HasPrefix(kind, "text/plain")
	if kind != "application/json" && !text && a.status != http.StatusNoContent {
		note("type", "Content-Type is %q", kind)
	}
	body := len(a.body) != 0
	if a.status >= 300 && body && !(r.path == "/api/system/config" && a.status == http.StatusBadRequest) {
		note("body", "a %d has a body", a.status)
	}
	if a.status == http.StatusUnauthorized && a.header.Get(api.HeaderError) != "" {
		note("reason", "a 401 says why")
	}
	if body && a.status < 300 && !text && !json.Valid(a.body) {
		note("json", "a %d has a body that is no JSON", a.status)
	}
	if r.method == http.MethodPost && r.path == "/api/auth/token" && a.status == http.StatusUnauthorized {
		w.failures = append(w.failures, time.Now())
	}
	w.exchanges++
}

// answersGroup looks at all answers of the walk.
func answersGroup() group {
	none := func(kind string) func(*step) {
		return func(s *step) {
			if s.exchanges == 0 {
				s.skipf("nothing was asked")
			}
			count := 0
			var first *fault
			for i, f := range s.faults {
				if f.kind == kind {
					if count++; first == nil {
						first = &s.faults[i]
					}
				}
			}
			if first != nil {
				s.last = first.at
				s.failf("%s; %d answers of %d are so", first.what, count, s.exchanges)
			}
		}
	}
	return group{
		name: "answers", title: "what holds for every answer of the walk", phase: closing,
		checks: []check{
			{"content-type", "Every answer is application/json, but for log texts", "api.md#conventions", none("type")},
			{"error-bodies", "Errors have no body, but for a refused configuration", "api.md#conventions", none("body")},
			{"json", "What has a body is JSON", "api.md#conventions", none("json")},
			{"silent-401", "No 401 says why", "api.md#conventions", none("reason")},
		},
	}
}

// handshake opens a connection of its own, and returns what the module showed.
// Connections that are being kept show what was there when they were made.
func (s *step) handshake(conf *tls.Config) (tls.ConnectionState, error) {
	u, err := url.Parse(s.o.URL)
	s.must(err, "URL")
	port := u.Port()
	if port == "" {
		port = "443"
	}
	d := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: conf}
	c, err := d.DialContext(s.ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState(), nil
}

// shown is the certificate that a new handshake shows, in DER.
func (s *step) shown() []byte {
	cs, err := s.handshake(s.tlsConfig())
	if err != nil {
		s.failf("no handshake: %v", err)
	}
	return cs.PeerCertificates[0].Raw
}

// sleep waits, unless the walk is ended.
func (w *walk) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-w.ctx.Done():
	}
}

var errNoAnswer = errors.New("the module did not come back in time")
