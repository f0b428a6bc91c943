package server_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"testing"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/httpapi"
	"softhem/internal/load"
)

// Figures and what they mean are in docs/performance.md. All of them are to be
// read against the Bare ones of the same run.

const connections = 8

// BenchmarkBareEcho is the ceiling of every request.
func BenchmarkBareEcho(b *testing.B) {
	g := startTarget(b, "", envBare+"=1")
	conns := dialAll(b, g, connections)
	request := httpPost("/echo", `{"Msg":"hello, is there anybody?"}`)
	run(b, connections, func(w int, _ int64) error {
		_, err := conns[w].Do(request)
		return err
	})
}

// BenchmarkBareLogin is the ceiling of an answer to a challenge.
func BenchmarkBareLogin(b *testing.B) {
	g := startTarget(b, "", envBare+"=1")
	answer := personalised(b).answers(b, 1)[0]
	for i := range answer {
		if string(answer[i:i+15]) == "/api/auth/token" {
			answer = append(append(append([]byte{}, answer[:i]...), "/login"...), answer[i+15:]...)
			break
		}
	}
	conns := dialAll(b, g, connections)
	run(b, connections, func(w int, _ int64) error {
		_, err := conns[w].Do(answer)
		return err
	})
}

// BenchmarkAnswer is POST /api/auth/token alone; every answer is to a challenge
// of its own.
func BenchmarkAnswer(b *testing.B) {
	for _, durability := range []string{"strict", "relaxed"} {
		b.Run(durability, func(b *testing.B) {
			g := personalised(b, envRelaxed(durability))
			answers := g.answers(b, b.N)
			conns := dialAll(b, g, connections)
			run(b, connections, func(w int, i int64) error {
				_, err := conns[w].Do(answers[i])
				return err
			})
		})
	}
}

// BenchmarkLogin is challenge and answer by the SDK, the persona's key ready.
func BenchmarkLogin(b *testing.B) {
	for _, durability := range []string{"strict", "relaxed"} {
		b.Run(durability, func(b *testing.B) {
			g := personalised(b, envRelaxed(durability))
			user, _ := loadKeys(b)
			clients := make([]*hem.Client, connections)
			for i := range clients {
				clients[i] = newClient(b, g.process, user)
			}
			run(b, connections, func(w int, _ int64) error {
				clients[w].Forget()
				_, err := clients[w].Login(context.Background(), api.ScopeSystemConfig)
				return err
			})
		})
	}
}

// BenchmarkConfig is an authenticated GET /api/system/config.
func BenchmarkConfig(b *testing.B) {
	g := personalised(b)
	request := httpGet("/api/system/config", g.bearer(b))
	conns := dialAll(b, g, connections)
	run(b, connections, func(w int, _ int64) error {
		_, err := conns[w].Do(request)
		return err
	})
}

// BenchmarkChallenge is GET /api/auth/token.
func BenchmarkChallenge(b *testing.B) {
	g := personalised(b)
	conns := dialAll(b, g, connections)
	run(b, connections, func(w int, _ int64) error {
		_, err := conns[w].Do(httpGet("/api/auth/token", ""))
		return err
	})
}

func dialAll(b *testing.B, g *target, n int) []*load.Conn {
	b.Helper()
	conns := make([]*load.Conn, n)
	for i := range conns {
		conns[i] = g.dial(b)
	}
	return conns
}

// bearer logs in for system:config.
func (g *target) bearer(t testing.TB) string {
	t.Helper()
	body, err := g.dial(t).Do(g.answers(t, 1)[0])
	if err != nil {
		t.Fatal(err)
	}
	var tok api.TokenAnswer
	if err := json.Unmarshal(body, &tok); err != nil {
		t.Fatal(err)
	}
	return tok.Token
}

func envRelaxed(durability string) string {
	return fmt.Sprintf("%s_DURABILITY=%s", envServe, durability)
}

// discard is a response writer that keeps the status alone.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

// BenchmarkHandler is what a request costs beside net/http and TLS, in one
// goroutine: its time and its allocations.
func BenchmarkHandler(b *testing.B) {
	s := start(b, testConfig(""))
	user, master := loadKeys(b)
	ca, err := os.ReadFile(s.CAFile())
	if err != nil {
		b.Fatal(err)
	}
	client, err := hem.New(hem.Config{URL: "https://" + s.Addresses().HTTPS, CACert: ca, Key: user})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	_, err = client.Init(context.Background(), hem.InitParams{UserKey: user, MasterKey: master, Config: api.InitConfig{
		User: "load", Hostname: "localhost", Origin: "*", TrustedTS: true,
	}})
	if err != nil {
		b.Fatal(err)
	}
	token, err := client.Login(context.Background(), api.ScopeSystemConfig)
	if err != nil {
		b.Fatal(err)
	}
	handler := httpapi.New(httpapi.Config{Module: s.Module(), Logger: slog.New(slog.DiscardHandler)})
	serve := func(b *testing.B, r *http.Request) {
		r.RemoteAddr = "127.0.0.1:1"
		w := &discard{header: make(http.Header, 8)}
		handler.ServeHTTP(w, r)
		if w.status != http.StatusOK {
			b.Fatalf("%s %s: %d", r.Method, r.URL, w.status)
		}
	}
	get := func(path string) *http.Request {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "Bearer "+string(token.Bearer))
		return r
	}
	for _, path := range []string{"/api/system/status", "/api/auth/token", "/api/system/config"} {
		b.Run("GET "+path, func(b *testing.B) {
			b.ReportAllocs()
			r := get(path)
			for b.Loop() {
				serve(b, r)
			}
		})
	}
	for _, c := range load.Cases() {
		request, _, err := c.Prepare(context.Background(), local, client, nil)
		if err != nil {
			b.Fatal(err)
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request)))
		if err != nil {
			b.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			b.Fatal(err)
		}
		r.TLS = &tls.ConnectionState{}
		b.Run(c.Name, func(b *testing.B) {
			b.ReportAllocs()
			reader := bytes.NewReader(body)
			r.Body = io.NopCloser(reader)
			for b.Loop() {
				reader.Reset(body)
				serve(b, r)
			}
		})
	}
	b.Run("POST /api/auth/token", func(b *testing.B) {
		g := &target{process: &process{ready: map[string]string{"https": s.Addresses().HTTPS}}, roots: pool(b, s)}
		requests := make([]*http.Request, b.N)
		for i, raw := range g.answers(b, b.N) {
			_, body, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
			requests[i] = httptest.NewRequest("POST", "/api/auth/token", bytes.NewReader(body))
			requests[i].Header.Set("Content-Length", strconv.Itoa(len(body)))
		}
		b.ReportAllocs()
		b.ResetTimer()
		for _, r := range requests {
			serve(b, r)
		}
	})
}
