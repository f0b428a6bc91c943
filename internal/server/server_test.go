package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"softhem/internal/module"
	"softhem/internal/server"
)

func start(t testing.TB, cfg server.Config) *server.Server {
	t.Helper()
	s, err := server.Start(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func pool(t testing.TB, s *server.Server) *x509.CertPool {
	t.Helper()
	pem, err := os.ReadFile(s.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pem) {
		t.Fatalf("no certificate in %s", pem)
	}
	return p
}

func TestTLS13Only(t *testing.T) {
	s := start(t, testConfig(""))
	for version, ok := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: false, tls.VersionTLS13: true} {
		conn, err := tls.Dial("tcp", s.Addresses().HTTPS, &tls.Config{RootCAs: pool(t, s), MinVersion: version, MaxVersion: version})
		if (err == nil) != ok {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			conn.Close()
		}
	}
	for _, proto := range []string{"h2", "http/1.1"} {
		conn, err := tls.Dial("tcp", s.Addresses().HTTPS, &tls.Config{RootCAs: pool(t, s), NextProtos: []string{proto}, ServerName: "localhost"})
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.ConnectionState().NegotiatedProtocol; got != proto {
			t.Errorf("asked for %s, got %q", proto, got)
		}
		conn.Close()
	}
}

// The pair survives a restart, a change of names makes a new one under the
// same CA.
func TestSelfIssuedPair(t *testing.T) {
	cfg := testConfig(filepath.Join(t.TempDir(), "data"))
	leaf := func(cfg server.Config) (*x509.Certificate, []byte) {
		s, err := server.Start(context.Background(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Stop(context.Background())
		conn, err := tls.Dial("tcp", s.Addresses().HTTPS, &tls.Config{RootCAs: pool(t, s), ServerName: "localhost"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		pem, err := os.ReadFile(s.CAFile())
		if err != nil {
			t.Fatal(err)
		}
		return conn.ConnectionState().PeerCertificates[0], pem
	}
	first, ca1 := leaf(cfg)
	second, ca2 := leaf(cfg)
	if !first.Equal(second) || string(ca1) != string(ca2) {
		t.Error("a restart made a new pair")
	}
	cfg.TLSNames = []string{"localhost", "hem.example", "192.0.2.7"}
	third, ca3 := leaf(cfg)
	if third.Equal(first) || string(ca3) != string(ca1) || third.VerifyHostname("hem.example") != nil || third.VerifyHostname("192.0.2.7") != nil {
		t.Errorf("names changed: %v %v", third.DNSNames, third.IPAddresses)
	}
}

// Files of the data folder are for the module's user alone.
func TestDataFolderIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	start(t, testConfig(dir))
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %04o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Each refusal at start says what to do.
func TestStartRefusals(t *testing.T) {
	used := func(t *testing.T) string { // a folder that a module has run on
		dir := filepath.Join(t.TempDir(), "data")
		s, err := server.Start(context.Background(), testConfig(dir))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Stop(context.Background()); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	write := func(t *testing.T, name string, content []byte, mode os.FileMode) {
		if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, content, mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir string, cfg *server.Config)
		want  []string
	}{
		"a folder others can read": {func(t *testing.T, dir string, _ *server.Config) { os.Chmod(dir, 0o755) }, []string{"others", "chmod 700"}},
		"a wrong root key": {func(t *testing.T, dir string, _ *server.Config) {
			write(t, dir+"/root.key", make([]byte, 32), 0o600)
		}, []string{"root key", "--root-key"}},
		"a root key others can read": {func(t *testing.T, dir string, _ *server.Config) { os.Chmod(dir+"/root.key", 0o644) }, []string{"chmod 600"}},
		"no root key":                {func(t *testing.T, dir string, _ *server.Config) { os.Remove(dir + "/root.key") }, []string{"no root key", "--root-key"}},
		"a root key named and missing": {func(t *testing.T, dir string, cfg *server.Config) {
			cfg.DataDir = filepath.Join(t.TempDir(), "new")
			cfg.RootKey.File = dir + "/nothing"
		}, []string{"no root key", "urandom"}},
		"a lost store": {func(t *testing.T, dir string, _ *server.Config) { os.Remove(dir + "/hem.db") }, []string{"store is empty", "restore"}},
		"a clock beyond all": {func(t *testing.T, _ string, cfg *server.Config) {
			cfg.HostClock = func() time.Time { return time.Unix(1<<32, 0) }
		}, []string{"clock"}},
		"no data key": {func(t *testing.T, dir string, _ *server.Config) { os.Remove(dir + "/data.key") }, []string{"data.key", "restore"}},
		"a newer schema": {func(t *testing.T, dir string, _ *server.Config) {
			db, err := os.OpenFile(dir+"/hem.db", os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			// PRAGMA user_version is the big-endian word at offset 60.
			if _, err := db.WriteAt([]byte{0, 0, 3, 232}, 60); err != nil {
				t.Fatal(err)
			}
		}, []string{"newer"}},
		"no database": {func(t *testing.T, dir string, _ *server.Config) {
			write(t, dir+"/hem.db", []byte(strings.Repeat("no database ", 1000)), 0o600)
		}, []string{"hem.db"}},
		"a second process": {func(t *testing.T, dir string, cfg *server.Config) { start(t, *cfg) }, []string{"another process", "--data"}},
		"an address that is taken": {func(t *testing.T, dir string, cfg *server.Config) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			cfg.HTTPAddr = l.Addr().String()
		}, []string{"cannot listen"}},
		"a pair by half":   {func(t *testing.T, dir string, cfg *server.Config) { cfg.TLSCert = "x.pem" }, []string{"certificate", "key"}},
		"a pair not there": {func(t *testing.T, dir string, cfg *server.Config) { cfg.TLSCert, cfg.TLSKey = "x.pem", "y.pem" }, []string{"x.pem"}},
		"no listener":      {func(t *testing.T, dir string, cfg *server.Config) { cfg.HTTPAddr, cfg.HTTPSAddr = "", "" }, []string{"listeners"}},
		"no data folder":   {func(t *testing.T, dir string, cfg *server.Config) { cfg.DataDir = "" }, []string{"data folder"}},
		"dev on all addresses": {func(t *testing.T, dir string, cfg *server.Config) {
			cfg.LoopbackOnly, cfg.HTTPAddr = true, "0.0.0.0:0"
		}, []string{"loopback"}},
		"diagnostics on all addresses": {func(t *testing.T, dir string, cfg *server.Config) {
			cfg.Diag, cfg.HTTPSAddr = true, "0.0.0.0:0"
		}, []string{"loopback", "--diag-allow-remote"}},
		"diagnostics at a socket that was handed over": {func(t *testing.T, dir string, cfg *server.Config) {
			l, err := net.Listen("tcp", "0.0.0.0:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			cfg.Diag, cfg.HTTPListener = true, l
		}, []string{"loopback", "--diag-allow-remote"}},
		"diagnostics behind a proxy": {func(t *testing.T, dir string, cfg *server.Config) {
			cfg.Diag, cfg.Proxies = true, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		}, []string{"proxy", "--diag-allow-remote"}},
		"diagnostics of an EPA": {func(t *testing.T, dir string, cfg *server.Config) {
			cfg.Diag, cfg.Profile = true, module.EPA
		}, []string{"EPA", "--diag"}},
		"unknown quirks": {func(t *testing.T, dir string, cfg *server.Config) { cfg.Quirks = "fw9" }, []string{"fw9", "fw1.2.2"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := used(t)
			cfg := testConfig(dir)
			c.spoil(t, dir, &cfg)
			s, err := server.Start(context.Background(), cfg)
			if err == nil {
				s.Stop(context.Background())
				t.Fatal("it started")
			}
			for _, word := range c.want {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not say %q", err, word)
				}
			}
		})
	}
	t.Run("and after a refusal the folder is free", func(t *testing.T) {
		dir := used(t)
		os.Chmod(dir+"/root.key", 0o644)
		if _, err := server.Start(context.Background(), testConfig(dir)); err == nil {
			t.Fatal("it started")
		}
		os.Chmod(dir+"/root.key", 0o600)
		start(t, testConfig(dir))
	})
}

func TestSlowAndHugeClients(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the header time-out of ten seconds; run without -short")
	}
	t.Parallel()
	s := start(t, testConfig(""))
	dial := map[string]func() (net.Conn, error){
		"http": func() (net.Conn, error) { return net.Dial("tcp", s.Addresses().HTTP) },
		"https": func() (net.Conn, error) {
			return tls.Dial("tcp", s.Addresses().HTTPS, &tls.Config{RootCAs: pool(t, s)})
		},
	}
	for name, connect := range dial {
		t.Run(name, func(t *testing.T) {
			t.Run("huge header", func(t *testing.T) {
				conn, err := connect()
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				go func() {
					fmt.Fprintf(conn, "GET /api/system/status HTTP/1.1\r\nHost: x\r\n")
					for range 100_000 {
						if _, err := fmt.Fprintf(conn, "X-Filler: %s\r\n", strings.Repeat("x", 100)); err != nil {
							return
						}
					}
				}()
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err == nil && resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
					t.Errorf("status %d", resp.StatusCode)
				}
			})
			for what, head := range map[string]string{
				"slow header": "GET /api/system/status HTTP/1.1\r\nHost: x\r\nX-Slow: ",
				"slow body":   "POST /api/auth/init HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n",
			} {
				t.Run(what, func(t *testing.T) {
					t.Parallel()
					conn, err := connect()
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					begin := time.Now()
					if _, err := io.WriteString(conn, head); err != nil {
						t.Fatal(err)
					}
					// Others are served meanwhile.
					if got := send(t, s.Addresses().HTTP, "GET", "/api/system/status", nil); got != http.StatusOK {
						t.Errorf("another client: %d", got)
					}
					go func() {
						for time.Since(begin) < time.Minute {
							if _, err := io.WriteString(conn, "x"); err != nil {
								return
							}
							time.Sleep(200 * time.Millisecond)
						}
					}()
					conn.SetReadDeadline(begin.Add(40 * time.Second))
					_, err = io.ReadAll(conn)
					if ne, ok := err.(net.Error); ok && ne.Timeout() {
						t.Errorf("a slow client was still served after %v", time.Since(begin))
					}
				})
			}
		})
	}
}

func TestProxiesAreBelievedWhenNamed(t *testing.T) {
	get := func(s *server.Server, header ...string) int {
		t.Helper()
		req, _ := http.NewRequest("GET", "http://"+s.Addresses().HTTP+"/api/auth/token", nil)
		for i := 0; i < len(header); i += 2 {
			req.Header.Add(header[i], header[i+1])
		}
		resp, err := plainClient().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	const passed = 409 // not personalised: the transport was found good enough
	behind := testConfig("")
	behind.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}
	b, direct := start(t, behind), start(t, testConfig(""))
	for _, c := range []struct {
		name   string
		s      *server.Server
		header []string
		want   int
	}{
		{"loopback", direct, nil, passed},
		{"loopback that claims to be elsewhere, not believed", direct, []string{"X-Forwarded-For", "192.0.2.1"}, passed},
		{"a stranger through the proxy over HTTP", b, []string{"X-Forwarded-For", "192.0.2.1"}, 418},
		{"a stranger through the proxy over HTTPS", b, []string{"X-Forwarded-For", "192.0.2.1", "X-Forwarded-Proto", "https"}, passed},
		{"what a stranger wrote himself does not count", b, []string{"X-Forwarded-For", "127.0.0.1, 192.0.2.1"}, 418},
		{"a chain of trusted proxies", b, []string{"X-Forwarded-For", "192.0.2.1, 10.0.0.9"}, 418},
		{"two header lines", b, []string{"X-Forwarded-For", "192.0.2.1", "X-Forwarded-For", "10.0.0.9"}, 418},
		{"the last X-Forwarded-Proto counts", b, []string{"X-Forwarded-For", "192.0.2.1", "X-Forwarded-Proto", "https", "X-Forwarded-Proto", "http"}, 418},
		{"the last of a list counts", b, []string{"X-Forwarded-For", "192.0.2.1", "X-Forwarded-Proto", "https, http"}, 418},
		{"nonsense is nobody known", b, []string{"X-Forwarded-For", "what"}, 418},
		{"an address with a port", b, []string{"X-Forwarded-For", "192.0.2.1:567"}, 418},
		{"loopback behind a proxy on this host", b, []string{"X-Forwarded-For", "[::1]:567"}, passed},
	} {
		if got := get(c.s, c.header...); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	off := testConfig("")
	off.Proxies, off.RequireTLSLogin = behind.Proxies, false
	if got := get(start(t, off), "X-Forwarded-For", "192.0.2.1"); got != passed {
		t.Errorf("without the requirement: %d", got)
	}
}

func TestLoopbackOnly(t *testing.T) {
	cfg := testConfig("")
	cfg.LoopbackOnly = true
	s := start(t, cfg)
	for _, c := range []struct {
		host, origin string
		want         int
	}{
		{"localhost", "", 200}, {"localhost:1234", "", 200}, {"127.0.0.1", "", 200}, {"[::1]:99", "", 200}, {"127.1.2.3", "", 200},
		{"evil.example", "", 404}, {"localhost.evil.example", "", 404}, {"192.0.2.1", "", 404}, {"127.0.0.1.evil.example", "", 404},
		{"localhost", "http://localhost:3000", 200}, {"localhost", "http://127.0.0.1", 200},
		{"localhost", "https://evil.example", 412}, {"localhost", "null", 412}, {"evil.example", "http://evil.example", 404},
	} {
		req, _ := http.NewRequest("GET", "http://"+s.Addresses().HTTP+"/api/system/status", nil)
		req.Host = c.host
		if c.origin != "" {
			req.Header.Set("Origin", c.origin)
		}
		resp, err := plainClient().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("Host %q, Origin %q: %d, want %d", c.host, c.origin, resp.StatusCode, c.want)
		}
	}
}

func TestMetrics(t *testing.T) {
	cfg := testConfig("")
	cfg.MetricsAddr = "127.0.0.1:0"
	s := start(t, cfg)
	get := func(base, path string) (int, string) {
		resp, err := plainClient().Get("http://" + base + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	get(s.Addresses().HTTP, "/api/system/status")
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ok", "/metrics": `softhem_http_requests_total{route="GET /api/system/status",status="200"} 1`} {
		if status, body := get(s.Addresses().Metrics, path); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d, lacks %q", path, status, want)
		}
	}
	// They are not on the API's listeners.
	if status, _ := get(s.Addresses().HTTP, "/metrics"); status != 404 {
		t.Errorf("/metrics on the API's listener: %d", status)
	}
}
