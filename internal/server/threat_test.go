package server_test

import (
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
)

// The claims of docs/threat-model.md that concern the server as a whole.

// send does a request over plain HTTP and returns the status.
func send(t testing.TB, base, method, path string, edit func(*http.Request)) int {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+base+path, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(req)
	}
	resp, err := plainClient().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// operations are method and path of everything docs/openapi.yaml documents.
func operations(t *testing.T) (all [][2]string) {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("../../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			all = append(all, [2]string{method, regexp.MustCompile(`\{\w+\}`).ReplaceAllString(path, "0")})
		}
	}
	return all
}

// T27: none of the operations that lead to a token without one is done for
// another host over plain HTTP; from this host they are.
func TestThreat_T27_NoLoginOverPlainHTTP(t *testing.T) {
	cfg := testConfig("")
	cfg.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	s := start(t, cfg)
	for _, op := range [][2]string{{"GET", "/api/auth/token"}, {"POST", "/api/auth/token"}, {"GET", "/api/auth/init"}, {"POST", "/api/auth/init"},
		{"POST", "/api/auth/ext/request"}, {"POST", "/api/auth/ext/token"}} {
		far := send(t, s.Addresses().HTTP, op[0], op[1], func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.1") })
		near := send(t, s.Addresses().HTTP, op[0], op[1], nil)
		if far != 418 || near == 418 {
			t.Errorf("%s %s: %d from another host, %d from this one", op[0], op[1], far, near)
		}
	}
}

// T30: a name or origin that is not loopback reaches nothing of a development
// module.
func TestThreat_T30_DevAnswersToLoopbackNamesOnly(t *testing.T) {
	cfg := testConfig("")
	cfg.LoopbackOnly, cfg.Diag = true, true // with all the paths there are
	s := start(t, cfg)
	for _, op := range append(operations(t), [2]string{"OPTIONS", "/api/auth/token"}) {
		if got := send(t, s.Addresses().HTTP, op[0], op[1], func(r *http.Request) { r.Host = "rebound.example" }); got != 404 {
			t.Errorf("%s %s under another name: %d", op[0], op[1], got)
		}
		if got := send(t, s.Addresses().HTTP, op[0], op[1], func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }); got != 412 {
			t.Errorf("%s %s from a page elsewhere: %d", op[0], op[1], got)
		}
	}
}

// T36: of processes started on one folder at the same instant, one runs.
func TestThreat_T36_OneProcessOnAFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	const processes = 5
	var wg sync.WaitGroup
	var mu sync.Mutex
	ready, refused := 0, 0
	for range processes {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), envServe+"="+dir)
		out, stderr := new(lockedBuffer), new(lockedBuffer)
		cmd.Stdout, cmd.Stderr = out, stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
				select {
				case <-ended:
					mu.Lock()
					defer mu.Unlock()
					if strings.Contains(stderr.text(), "another process") {
						refused++
					} else {
						t.Errorf("a process ended with %q", stderr.text())
					}
					return
				default:
				}
				if strings.HasPrefix(out.text(), "ready ") {
					mu.Lock()
					ready++
					mu.Unlock()
					time.Sleep(500 * time.Millisecond) // it runs on beside the others
					select {
					case <-ended:
						t.Error("the one that ran ended")
					default:
						_ = cmd.Process.Kill()
						<-ended
					}
					return
				}
			}
			_ = cmd.Process.Kill()
			t.Error("a process neither ran nor ended")
		})
	}
	wg.Wait()
	if ready != 1 || refused != processes-1 {
		t.Errorf("%d ran, %d were refused; want 1 and %d", ready, refused, processes-1)
	}
}

// T43: while logins wait, everything else goes on, what writes to the log
// included.
func TestThreat_T43_WaitingLoginsHoldNothing(t *testing.T) {
	const logins = 1000
	g := personalised(t, envServe+"_DAMPING=3s")
	bearer := g.bearer(t)
	base := g.process.ready["http"]
	answered := make(chan int, logins)
	for range logins {
		go func() {
			resp, err := plainClient().Post("http://"+base+"/api/auth/token", "application/json", strings.NewReader(`{"auth":"a.b.c"}`))
			if err != nil {
				t.Error(err)
				answered <- 0
				return
			}
			resp.Body.Close()
			answered <- resp.StatusCode
		}()
	}
	time.Sleep(500 * time.Millisecond)
	authorised := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+bearer) }
	begin := time.Now()
	for _, c := range []struct {
		path string
		want int
	}{
		{"/api/system/status", 200}, {"/api/system/config", 200}, {"/api/logger/list", 403}, // the 403 is recorded first
	} {
		if got := send(t, base, "GET", c.path, authorised); got != c.want {
			t.Errorf("GET %s while logins wait: %d", c.path, got)
		}
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("the rest took %v while logins waited", took)
	}
	for range logins {
		if status := <-answered; status != 401 {
			t.Errorf("a waiting login was answered %d", status)
		}
	}
}
