package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
	"softhem/internal/audit"
)

// The claims of docs/threat-model.md that are seen from the wire; each test
// names its claim.

// T184: an endpoint is reached by its path and by no other spelling of it, so that
// who filters paths in front of a module sees what the module sees.
func TestThreat_T184_PathsHaveOneSpelling(t *testing.T) {
	m := hemtest.New(t, nil)
	p := newPeer(t, m)
	token := p.token(api.RoleUser, "logger:get")
	for path, want := range map[string]int{
		"/api/system/status": 200, "/api%2fsystem/status": 404, "/api%2Fsystem%2Fstatus": 404, "/%61pi/system/status": 404,
		"/api/system/statu%73": 404, "/api/system%2fstatus": 404, "/api/./system/status": 404, "/api//system/status": 404,
		"/api/system/status/": 404, "/api/system/../system/status": 404, "/api/system/%2e%2e/system/status": 404, "/api/system/status%00": 404,
		"/api/logger/list/0": 200, "/api/logger/list/%30": 404, "/api/logger/..%2fhem.db": 404,
	} {
		if a := p.do(request{method: "GET", path: path, token: token}); a.status != want {
			t.Errorf("GET %s: %d, want %d", path, a.status, want)
		}
	}
}

// recorder keeps every byte a client sends.
type recorder struct {
	http.RoundTripper
	mu   sync.Mutex
	sent bytes.Buffer
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	raw, err := httputil.DumpRequestOut(req, true)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.sent.Write(raw)
	r.mu.Unlock()
	return r.RoundTripper.RoundTrip(req)
}

// T01: no byte a client sends holds a passphrase or what is derived from it.
func TestThreat_T01_PassphraseStaysWithTheClient(t *testing.T) {
	ctx := context.Background()
	m := hemtest.New(t, &hemtest.Options{Fresh: true})
	const user, master = "the user's passphrase", "the master's passphrase"
	spy := &recorder{RoundTripper: m.HTTPClient().Transport}
	client, err := hem.New(hem.Config{URL: m.URL, HTTPClient: &http.Client{Transport: spy},
		Passphrase: func(context.Context, api.Role) ([]byte, error) { return []byte(user), nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, err = client.Init(ctx, hem.InitParams{UserPassphrase: []byte(user), MasterPassphrase: []byte(master),
		Config: api.InitConfig{User: "T01", Hostname: "localhost", Origin: "*"}})
	if err != nil {
		t.Fatal(err)
	}
	client.Forget()
	if _, err := client.Config(ctx); err != nil {
		t.Fatal(err)
	}
	if err := client.Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	sent := spy.sent.Bytes()
	// Tokens hide what they hold in base64, so their segments are searched too.
	for segment := range strings.FieldsFuncSeq(string(sent), func(r rune) bool { return strings.ContainsRune(".\"{}: \r\n", r) }) {
		if raw, err := base64.RawURLEncoding.DecodeString(segment); err == nil {
			sent = append(sent, raw...)
		}
	}
	if !bytes.Contains(sent, []byte(newPersona(seedOf(t, user, m.EID)).public())) {
		t.Fatal("the search does not find what is sent: the public key")
	}
	for what, secret := range map[string][]byte{
		"the user's passphrase": []byte(user), "the master's passphrase": []byte(master),
		"the user's seed": seedOf(t, user, m.EID), "the master's seed": seedOf(t, master, m.EID),
	} {
		for _, form := range []string{
			string(secret), hex.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret), base64.RawURLEncoding.EncodeToString(secret),
		} {
			if bytes.Contains(sent, []byte(form)) {
				t.Errorf("the client sent %s as %q", what, form)
			}
		}
	}
}

// T08, T45: with a broken log every operation that needs a record is refused
// with 409, a right login like a wrong one; what needs none works on.
func TestThreat_T08_T45_BrokenLog(t *testing.T) {
	b := newBackend()
	dir := filepath.Join(t.TempDir(), "data")
	m := hemtest.New(t, &hemtest.Options{DataDir: dir, TrustedBackends: [][]byte{b.key.Public()}, BrokenLog: true})
	p := newPeer(t, m)
	p.expect("GET", "/api/system/reboot", p.token(api.RoleUser, "system:config"), 200)
	config, logger := p.token(api.RoleUser, "system:config"), p.token(api.RoleUser, "logger:get")
	files, err := filepath.Glob(filepath.Join(dir, "audit", "????????"))
	if err != nil || len(files) != 2 {
		t.Fatalf("log files %v: %v", files, err)
	}
	right, ch := p.user(), p.challenge()
	breakFile(t, files[1])

	if a := p.answerWith(right.sign(t, goodHeader, p.proof(ch), ch.SPK)); a.status != 409 {
		t.Errorf("a right login, which finds the log broken: %d", a.status)
	}
	ch = p.challenge()
	if a := p.answerWith(right.sign(t, goodHeader, p.proof(ch), ch.SPK)); a.status != 409 {
		t.Errorf("a right login: %d", a.status)
	}
	if a := p.answerWith("a.b.c"); a.status != 409 {
		t.Errorf("a wrong login: %d", a.status)
	}
	for _, c := range []struct {
		path  string
		token *string
		want  int
	}{
		{"/api/system/reboot", config, 409}, {"/api/system/shutdown", config, 409}, {"/api/logger/list", logger, 409},
		{"/api/logger/" + filepath.Base(files[0]), logger, 409},
		{"/api/logger/checkpoint", logger, 409}, {"/api/logger/tail/0", logger, 409},
		{"/api/logger/key", config, 409}, // a wrong scope has to be recorded
		{"/api/system/status", nil, 200}, {"/api/system/version", nil, 200}, {"/api/auth/token", nil, 200},
		{"/api/system/config", config, 200}, {"/api/logger/key", logger, 200}, {"/api/system/selftest", logger, 409}, {"/api/system/checkin", nil, 200},
	} {
		p.expect("GET", c.path, c.token, c.want)
	}
}

// breakFile puts /dev/full under the descriptor of an open file: the next write
// to it fails as on a broken disk.
func breakFile(t *testing.T, name string) {
	t.Helper()
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("this system has no /dev/full to break a file with: %v", err)
	}
	defer full.Close()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && target == name {
			var n int
			if _, err := fmt.Sscan(filepath.Base(fd), &n); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Dup3(int(full.Fd()), n, syscall.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("%s is not open", name)
}

// T10: a bad MAC costs nobody a challenge.
func TestThreat_T10_BadMACLeavesTheNonce(t *testing.T) {
	p := newPeer(t, hemtest.New(t, nil))
	ch := p.challenge()
	auth := p.user().sign(t, goodHeader, p.proof(ch), ch.SPK)
	dot := strings.LastIndexByte(auth, '.')
	sameRefusal(t, p.answerWith(auth[:dot+1]+b64url(make([]byte, 32))))
	if a := p.answerWith(auth); a.status != 200 {
		t.Errorf("the right answer after one with a bad MAC: %d", a.status)
	}
}

// T12: who sends the heads of many logins early and their bodies late is slowed
// down all the same, from when each is complete.
func TestThreat_T12_HeldBackBodies(t *testing.T) {
	m := hemtest.New(t, &hemtest.Options{Damping: true})
	const logins = 40
	addr := strings.TrimPrefix(m.HTTPURL, "http://")
	conns := make([]net.Conn, logins)
	body := `{"auth":"a.b.c"}`
	for i := range conns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST /api/auth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", len(body))
		conns[i] = c
	}
	time.Sleep(700 * time.Millisecond)
	var wg sync.WaitGroup
	var mu sync.Mutex
	quick, usual, slowed, refused := 0, 0, 0, 0
	for _, c := range conns {
		wg.Go(func() {
			start := time.Now()
			if _, err := io.WriteString(c, body); err != nil {
				t.Error(err)
				return
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Error(err)
				return
			}
			took := time.Since(start)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case resp.StatusCode == 429:
				refused++
			case took < 499*time.Millisecond:
				quick++
			case took < 1499*time.Millisecond:
				usual++
			default:
				slowed++
			}
		})
	}
	wg.Wait()
	if quick > 0 || usual > 20 || usual+slowed+refused != logins {
		t.Errorf("of %d: %d at once, %d after the usual delay, %d after the penalty, %d refused", logins, quick, usual, slowed, refused)
	}
}

// T19: a token opens exactly the routes whose scope it begins with.
func TestThreat_T19_EveryScopeOnEveryRoute(t *testing.T) {
	opens := map[string][]string{
		"GET /api/system/config": {"system:config", "logger:get", "auth:ext:pair"},
		"GET /api/logger/key":    {"logger:get"}, "GET /api/logger/list": {"logger:get"},
		"GET /api/logger/list/{offset}": {"logger:get"}, "GET /api/logger/{id}": {"logger:get"},
		"GET /api/logger/checkpoint": {"logger:get"}, "GET /api/logger/tail/{leaf}": {"logger:get"},
		"GET /api/keymgmt/list": {"keymgmt:list"}, "GET /api/keymgmt/list/{offset}": {"keymgmt:list"},
		"GET /api/keymgmt/list/{offset}/{count}": {"keymgmt:list"},
		"POST /api/keymgmt/search":               {"keymgmt:search", "keymgmt:list", "auth:ext:pair"},
		"GET /api/keymgmt/get/{kid}":             {"keymgmt:get", "keymgmt:gen"},
		"POST /api/auth/ext/init":                {"auth:ext:pair", "system:config"}, "POST /api/auth/ext/validate": {"auth:ext:pair", "system:config"},
		"POST /api/auth/ext/mac":   {"auth:ext:pair", "system:config"},
		"POST /api/keymgmt/create": {"keymgmt:gen"}, "POST /api/keymgmt/import": {"keymgmt:imp"},
		"POST /api/keymgmt/derive": {"keymgmt:derive", "keymgmt:gen"}, "POST /api/keymgmt/update": {"keymgmt:upd"},
		"DELETE /api/keymgmt/delete/{kid}": {"keymgmt:del"},
		"GET /api/storage/unlock":          {"storage:disk"}, "GET /api/storage/unlock/ro": {"storage:disk"}, // more in T130
		"GET /api/storage/unlock/rw": {"storage:disk"}, "GET /api/storage/lock": {"storage:disk"},
		"GET /api/system/reboot":   {"system:config", "system:upgrade", "system:shutdown"},
		"GET /api/system/shutdown": {"system:config", "system:shutdown"},
	}
	p := newPeer(t, hemtest.New(t, nil))
	const otherKey = "keymgmt:use:00000000000000000000000000000000"
	for _, scope := range append(api.Scopes(), "", scopeWalkUse, strings.ToUpper(scopeWalkUse), otherKey, scopeWrong, "storage:disk1:rw") {
		for _, held := range []string{scope, scope + ":more", strings.TrimSuffix(scope, lastChar(scope))} {
			token := p.token(api.RoleUser, held)
			for _, row := range walk {
				scopes, guarded := opens[row.method+" "+row.path]
				if strings.Contains(row.path, "/storage/") && strings.HasPrefix(held, "storage:disk") {
					continue // what follows decides which disk, and how
				}
				key := strings.HasPrefix(row.path, "/api/crypto/") || row.path == "/api/keymgmt/get/{kid}"
				if !guarded && !key {
					continue
				}
				want := row.wrong
				for _, s := range scopes {
					if strings.HasPrefix(held, s) {
						want = row.user
					}
				}
				if key && held == scopeWalkUse { // to the letter
					want = row.user
				}
				p.expect(row.method, row.path, token, want)
				if strings.HasSuffix(row.path, "/reboot") && want == 200 { // which ended the token
					token = p.token(api.RoleUser, held)
				}
			}
		}
	}
}

func lastChar(s string) string {
	if s == "" {
		return ""
	}
	return s[len(s)-1:]
}

// T21: after a reboot nothing of the old boot is good.
func TestThreat_T21_RebootEndsEverything(t *testing.T) {
	p := newPeer(t, hemtest.New(t, nil))
	before := p.challenge()
	token := p.token(api.RoleUser, "system:config")
	p.expect("GET", "/api/system/reboot", token, 200)
	after := p.challenge()
	if before.SPK == after.SPK {
		t.Error("the session key outlived a reboot")
	}
	p.expect("GET", "/api/system/config", token, 401)
	sameRefusal(t, p.answerWith(p.user().sign(t, goodHeader, p.proof(before), before.SPK)))
	claims := p.proof(before)
	claims["aud"] = after.SPK
	sameRefusal(t, p.answerWith(p.user().sign(t, goodHeader, claims, after.SPK)))
}

// T25: the very first request after the host's clock went back meets new
// secrets, so a token that had ended stays ended.
func TestThreat_T25_ClockBackRevivesNothing(t *testing.T) {
	clock := time.Now()
	var mu sync.Mutex
	now := func() time.Time { mu.Lock(); defer mu.Unlock(); return clock }
	move := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); clock = clock.Add(d) }
	for range 20 {
		p := newPeer(t, hemtest.New(t, &hemtest.Options{Clock: now}))
		token := p.token(api.RoleUser, "system:config")
		ch := p.challenge()
		auth := p.user().sign(t, goodHeader, p.proof(ch), ch.SPK)
		move(9 * time.Hour)
		p.expect("GET", "/api/system/config", token, 401)
		move(-9 * time.Hour)
		var wg sync.WaitGroup
		for range 8 { // all first
			wg.Go(func() { p.expect("GET", "/api/system/config", token, 401) })
		}
		wg.Wait()
		sameRefusal(t, p.answerWith(auth))
	}
}

// T29: what a foreign origin sends is no failed login.
func TestThreat_T29_ForeignOriginIsNoFailure(t *testing.T) {
	p := newPeer(t, hemtest.New(t, &hemtest.Options{Damping: true, Origin: "https://good.example"}))
	for range 20 {
		a := p.do(request{method: "POST", path: "/api/auth/token", body: `{"auth":"a.b.c"}`, header: http.Header{"Origin": {"https://evil.example"}}})
		if a.status != 412 {
			t.Fatalf("foreign origin: %d", a.status)
		}
	}
	start := time.Now()
	if a := p.answerWith("a.b.c"); a.status != 401 {
		t.Errorf("a login from here: %d", a.status)
	}
	if took := time.Since(start); took > 1400*time.Millisecond {
		t.Errorf("it took %v: the page's attempts were counted", took)
	}
}

// T50: every 403 for a scope stands in the log, with who asked.
func TestThreat_T50_EveryForbiddenScopeIsRecorded(t *testing.T) {
	p := newPeer(t, hemtest.New(t, nil))
	forbidden := 0
	for _, role := range []api.Role{api.RoleUser, api.RoleMaster} {
		token := p.token(role, scopeWrong)
		for _, row := range walk {
			if row.wrong == 403 {
				p.expect(row.method, row.path, token, 403)
				forbidden++
			}
		}
	}
	p.expect("GET", "/api/system/reboot", p.token(api.RoleUser, "system:config"), 200)
	token := p.token(api.RoleUser, "logger:get")
	var list api.LogList
	if err := json.Unmarshal(p.expect("GET", "/api/logger/list", token, 200).body, &list); err != nil {
		t.Fatal(err)
	}
	var key api.LoggerKey
	if err := json.Unmarshal(p.expect("GET", "/api/logger/key", token, 200).body, &key); err != nil {
		t.Fatal(err)
	}
	eidSign, err := api.DecodeBase64(key.Key)
	if err != nil {
		t.Fatal(err)
	}
	file := p.do(request{method: "GET", path: "/api/logger/" + list.ID[0], token: token})
	who := make(map[string]int)
	for e, err := range audit.Entries(bytes.NewReader(file.body), eidSign) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == audit.FailedScopeCheck && e.Result == audit.Failed {
			who[e.Who]++
		}
	}
	if forbidden == 0 || who["U"] != forbidden/2 || who["M"] != forbidden/2 {
		t.Errorf("%d requests were forbidden, the log has %v", forbidden, who)
	}
}

// A check-in that is delivered late does not set the clock back, and so ends no
// token; a stranger can carry one.
func TestLateCheckinChangesNothing(t *testing.T) {
	b := newBackend()
	host := time.Now()
	m := hemtest.New(t, &hemtest.Options{Fresh: true, ClockUnset: true, TrustedBackends: [][]byte{b.key.Public()},
		Clock: func() time.Time { return host }})
	p := newPeer(t, m)
	p.checkIn(b, host)
	if _, err := m.Personalise(); err != nil {
		t.Fatal(err)
	}
	token := p.token(api.RoleUser, "system:config")
	var check api.Check
	p.get("/api/system/checkin", &check)
	late := b.checked(t, check, host, nil)
	host = host.Add(9 * time.Minute)
	if a := p.do(request{method: "POST", path: "/api/system/checkin", body: late}); a.status != 200 {
		t.Fatalf("a late check-in: %d", a.status)
	}
	p.expect("GET", "/api/system/config", token, 200)
	var s api.Status
	if p.get("/api/system/status", &s); *s.Time != host.Unix() {
		t.Errorf("the clock is %d s off", *s.Time-host.Unix())
	}
}

// A login whose head came before a reboot and whose body after it belongs to
// the boot that is over.
func TestLoginAcrossAReboot(t *testing.T) {
	m := hemtest.New(t, nil)
	p := newPeer(t, m)
	ch := p.challenge()
	auth := `{"auth":"` + p.user().sign(t, goodHeader, p.proof(ch), ch.SPK) + `"}`
	c, err := net.Dial("tcp", strings.TrimPrefix(m.HTTPURL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /api/auth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", len(auth))
	time.Sleep(50 * time.Millisecond)
	p.expect("GET", "/api/system/reboot", p.token(api.RoleUser, "system:config"), 200)
	if _, err := io.WriteString(c, auth); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 401 {
		t.Errorf("answered %v, %v", resp, err)
	}
}

// Who closes the sending half of the connection gets no answer rather than an
// empty 200, which would read as a success.
func TestHalfClosedConnectionGetsNo200(t *testing.T) {
	m := hemtest.New(t, &hemtest.Options{Damping: true})
	c, err := net.Dial("tcp", strings.TrimPrefix(m.HTTPURL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	body := `{"auth":"a.b.c"}`
	fmt.Fprintf(c, "POST /api/auth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(c)
	if err == nil && bytes.Contains(raw, []byte("200")) {
		t.Errorf("answered %q", raw)
	}
}
