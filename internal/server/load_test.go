package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/server"
	"softhem/internal/suite"
)

// The load: connections that send prepared requests over TLS 1.3 and read just
// enough of each answer, so that what is measured is the server. Server and
// load are two processes on one machine.

// envBare makes the test's own binary the ceiling: net/http handlers over the
// same TLS that do only what cannot be left out.
const envBare = "SOFTHEM_TEST_BARE"

// serveBare serves /echo, which decodes and encodes a JSON object, and /login,
// which does to an answer what no login can do without: decode it, X25519,
// HMAC.
func serveBare() {
	session, err := suite.NewX25519Key(suite.Random(32))
	if err != nil {
		panic(err)
	}
	token := strings.Repeat("t", 280) // as long as a bearer token
	reply := func(w http.ResponseWriter, v any) {
		body, _ := json.Marshal(v)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		var v struct{ Msg string }
		if json.NewDecoder(r.Body).Decode(&v) == nil {
			reply(w, v)
		}
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		var v api.AuthRequest
		if json.NewDecoder(r.Body).Decode(&v) != nil {
			return
		}
		parts := strings.Split(v.Auth, ".")
		payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
		var c api.LoginClaims
		if json.Unmarshal(payload, &c) != nil {
			return
		}
		iss, _ := api.DecodeBase64(c.Iss)
		secret, err := session.Shared(iss)
		if err != nil {
			return
		}
		mac, _ := base64.RawURLEncoding.DecodeString(parts[2])
		_ = suite.Equal(mac, suite.HMACSHA256(secret, []byte(parts[0]+"."+parts[1])))
		reply(w, api.TokenAnswer{Token: token})
	})
	// Its certificate is a module's, so that handshakes cost the same.
	s, err := server.Start(context.Background(), testConfig(""))
	if err != nil {
		panic(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	srv := &http.Server{Handler: mux, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: s.Certificate}}
	fmt.Printf("ready https=%s ca=%s\n", l.Addr(), s.CAFile())
	panic(srv.ServeTLS(l, "", ""))
}

// A target is a process under load.
type target struct {
	process *process
	roots   *x509.CertPool
}

func startTarget(t testing.TB, dir string, env ...string) *target {
	t.Helper()
	p := startProcess(t, dir, env...)
	pem, err := os.ReadFile(p.ready["ca"])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &target{process: p, roots: roots}
}

// conn is one keep-alive connection of the load.
type conn struct {
	net.Conn
	r *bufio.Reader
}

func (g *target) dial(t testing.TB) *conn {
	t.Helper()
	c, err := tls.Dial("tcp", g.process.ready["https"], &tls.Config{RootCAs: g.roots, ServerName: "localhost", NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &conn{c, bufio.NewReader(c)}
}

// do sends a prepared request and returns the body of a 200.
func (c *conn) do(request []byte) ([]byte, error) {
	if _, err := c.Write(request); err != nil {
		return nil, err
	}
	status, err := c.r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	ok := len(status) > 12 && string(status[9:12]) == "200"
	line := string(status)
	length := 0
	for {
		h, err := c.r.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		if len(h) <= 2 {
			break
		}
		if v, found := strings.CutPrefix(string(h), "Content-Length: "); found {
			if length, err = strconv.Atoi(strings.TrimSpace(v)); err != nil {
				return nil, err
			}
		}
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(c.r, body); err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("answer %q", strings.TrimSpace(line))
	}
	return body, nil
}

func httpGet(path, bearer string) []byte {
	s := "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n"
	if bearer != "" {
		s += "Authorization: Bearer " + bearer + "\r\n"
	}
	return []byte(s + "\r\n")
}

func httpPost(path, body string) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

// run does b.N operations on n connections and reports rate and 99th
// percentile.
func run(b *testing.B, n int, op func(worker int, i int64) error) {
	b.ReportAllocs() // of the load; the server's are another benchmark
	took := make([]time.Duration, b.N)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for w := range n {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				start := time.Now()
				if err := op(w, i); err != nil {
					b.Errorf("operation %d: %v", i, err)
					return
				}
				took[i] = time.Since(start)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	b.ReportMetric(float64(took[len(took)*99/100])/1e6, "p99-ms")
}

func loadKeys(t testing.TB) (user, master *hem.PersonaKey) {
	t.Helper()
	user, err := hem.KeyFromSeed([]byte(userSeed))
	if err != nil {
		t.Fatal(err)
	}
	master, err = hem.KeyFromSeed([]byte("the seed of an administrator ..."))
	if err != nil {
		t.Fatal(err)
	}
	return user, master
}

const userSeed = "the seed of the local user ....."

// personalised is a module under load, ready for logins.
func personalised(t testing.TB, env ...string) *target {
	t.Helper()
	g := startTarget(t, t.TempDir()+"/data", env...)
	user, master := loadKeys(t)
	_, err := newClient(t, g.process, user).Init(context.Background(), hem.InitParams{UserKey: user, MasterKey: master, Config: api.InitConfig{
		User: "load", Hostname: "localhost", Origin: "*", TrustedTS: true,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// answers are n prepared right answers to n challenges.
func (g *target) answers(t testing.TB, n int) [][]byte {
	t.Helper()
	key, err := suite.NewX25519Key([]byte(userSeed))
	if err != nil {
		t.Fatal(err)
	}
	c := g.dial(t)
	var secret []byte
	iss := api.EncodeBase64(key.Public())
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"ecdh":"x25519","alg":"HS256","typ":"JWT"}`))
	out := make([][]byte, n)
	for i := range out {
		body, err := c.do(httpGet("/api/auth/token", ""))
		if err != nil {
			t.Fatal(err)
		}
		var ch api.Challenge
		if err := json.Unmarshal(body, &ch); err != nil {
			t.Fatal(err)
		}
		if secret == nil {
			spk, _ := api.DecodeBase64(ch.SPK)
			if secret, err = key.Shared(spk); err != nil {
				t.Fatal(err)
			}
		}
		claims, err := json.Marshal(api.LoginClaims{JTI: ch.JTI, Aud: ch.SPK, Iss: iss, Iat: ch.Exp - 65, Exp: ch.Exp + 3600, Scope: "system:config"})
		if err != nil {
			t.Fatal(err)
		}
		signed := header + "." + base64.RawURLEncoding.EncodeToString(claims)
		mac := base64.RawURLEncoding.EncodeToString(suite.HMACSHA256(secret, []byte(signed)))
		out[i] = httpPost("/api/auth/token", `{"auth":"`+signed+"."+mac+`"}`)
	}
	return out
}
