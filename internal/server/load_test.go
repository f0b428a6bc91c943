package server_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/load"
	"softhem/internal/server"
	"softhem/internal/suite"
)

// The load is internal/load's. Server and load are two processes on one
// machine.

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
	mux, err := load.BareHandler()
	if err != nil {
		panic(err)
	}
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
	fmt.Printf("ready https=%s ca=%s\n", l.Addr(), s.CAFile())
	panic(load.ServeBare(l, mux, s.Certificate))
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

func (g *target) load() load.Target {
	return load.Target{Addr: g.process.ready["https"], TLS: &tls.Config{RootCAs: g.roots, ServerName: "localhost"}, Host: "localhost"}
}

func (g *target) dial(t testing.TB) *load.Conn {
	t.Helper()
	c, err := g.load().Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// local is enough of a target to write requests.
var local = load.Target{Host: "localhost"}

func httpGet(path, bearer string) []byte { return local.Request("GET", path, bearer, nil) }

func httpPost(path, body string) []byte { return local.Request("POST", path, "", []byte(body)) }

// run does b.N operations on n connections and reports rate and 99th
// percentile.
func run(b *testing.B, n int, op func(worker int, i int64) error) {
	b.ReportAllocs() // of the load; the server's are another benchmark
	b.ResetTimer()
	r, err := load.Run(b.Context(), n, load.Bound{Count: int64(b.N)}, op)
	b.StopTimer()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(r.Rate(), "ops/s")
	b.ReportMetric(float64(r.P99)/1e6, "p99-ms")
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
	return personalisedIn(t, t.TempDir()+"/data", env...)
}

func personalisedIn(t testing.TB, dir string, env ...string) *target {
	t.Helper()
	g := startTarget(t, dir, env...)
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
		body, err := c.Do(httpGet("/api/auth/token", ""))
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
