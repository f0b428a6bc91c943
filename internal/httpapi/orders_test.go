package httpapi_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/suite"
)

// An owner knows the instance id and gives orders through a backend.
type owner struct {
	backend
	instance [16]byte
}

// order checks in with a letter and returns the answer's status.
func (o owner) order(t *testing.T, p *peer, letter string) string {
	t.Helper()
	var check api.Check
	if a := p.get("/api/system/checkin", &check); a.status != http.StatusOK {
		t.Fatalf("GET checkin: %d", a.status)
	}
	a := p.do(request{method: "POST", path: "/api/system/checkin", body: o.checked(t, check, time.Now(), func(c map[string]any) {
		jti, err := api.DecodeBase64(c["jti"].(string))
		if err != nil {
			t.Fatal(err)
		}
		c["status"] = api.EncodeBase64(suite.HMACSHA256(o.instance[:], []byte(letter), jti))
	})})
	var r api.CheckinResult
	if err := json.Unmarshal(a.body, &r); err != nil || a.status != http.StatusOK || r.NewCrt != "" {
		t.Fatalf("order %s: %d %s", letter, a.status, a.body)
	}
	return r.Status
}

func ownerOf(t *testing.T, b backend, k *keeper) owner {
	t.Helper()
	id, err := uuid.Parse(k.configuration().InstanceID)
	if err != nil {
		t.Fatal(err)
	}
	return owner{b, id}
}

func (p *peer) failState() int {
	p.t.Helper()
	var s api.Status
	p.get("/api/system/status", &s)
	return s.FLSState
}

// No order is taken by a module that is fresh, or whose owner did not allow any,
// nor one that was made without its instance id.
func TestThreat_T110_OrdersThatAreNotTaken(t *testing.T) {
	b := newBackend()
	backends := [][]byte{b.key.Public()}
	fresh := newPeer(t, hemtest.New(t, &hemtest.Options{Fresh: true, TrustedBackends: backends}))
	k := newKeeper(t, &hemtest.Options{TrustedBackends: backends})
	right := ownerOf(t, b, k)
	wrong := right
	wrong.instance[0] ^= 1
	for _, letter := range []string{"L", "W", "R", "B", "U"} {
		if got := (owner{backend: b}).order(t, fresh, letter); got != "???" {
			t.Errorf("fresh, %s: %s", letter, got)
		}
		if got := wrong.order(t, k.peer, letter); got != "???" {
			t.Errorf("another's instance id, %s: %s", letter, got)
		}
	}
	if got := right.order(t, k.peer, "X"); got != "???" {
		t.Errorf("X: %s", got)
	}
	if a, _ := k.update(api.RoleUser, `{"trusted_backend":false}`); a.status != 200 {
		t.Fatal(a.status)
	}
	for _, letter := range []string{"L", "W", "R", "B", "U"} {
		if got := right.order(t, k.peer, letter); got != "???" {
			t.Errorf("not allowed, %s: %s", letter, got)
		}
	}
	if k.failState() != 0 || fresh.failState() != 0 || k.configuration().EID != k.module.EID {
		t.Error("something was done")
	}
}

func TestOrdersToReportAndUpgrade(t *testing.T) {
	b := newBackend()
	k := newKeeper(t, &hemtest.Options{TrustedBackends: [][]byte{b.key.Public()}})
	o, before := ownerOf(t, b, k), k.settings()
	for _, letter := range []string{"R", "U"} {
		if got := o.order(t, k.peer, letter); got != letter {
			t.Errorf("%s: %s", letter, got)
		}
	}
	if !reflect.DeepEqual(k.settings(), before) || k.failState() != 0 {
		t.Error("something changed")
	}
}

// Locked: nobody but role M gets in, over reboots, until M gives the user a key.
func TestThreat_T111_OrderToLock(t *testing.T) {
	ctx, b := context.Background(), newBackend()
	s := newScene(t, &hemtest.Options{TrustedBackends: [][]byte{b.key.Public()}})
	f := s.pair()
	held, _ := s.granted(f.allow(s.asked(nil), nil), nil)
	user, master := s.as(api.RoleUser, api.ScopeSystemConfig), s.as(api.RoleMaster, api.ScopeSystemConfig)
	waiting := f.allow(s.asked(nil), nil) // approved before, redeemed after
	if got := ownerOf(t, b, s.keeper).order(t, s.peer, "L"); got != "L" {
		t.Fatal(got)
	}
	locked := func(when string) {
		t.Helper()
		if got := s.failState(); got != 0x40 {
			t.Errorf("%s: fail state %02x", when, got)
		}
		s.expect("GET", pathConfig, user, 401)
		s.expect("GET", pathConfig, &held, 401)
		if _, err := s.module.Client().Login(ctx, api.ScopeSystemConfig); err == nil {
			t.Errorf("%s: the user logged in", when)
		}
		s.want(when+", an approval", s.redeem(waiting, nil), 409)
		s.want(when+", a request", s.ask(nil), 409)
	}
	locked("at once")
	s.expect("GET", pathConfig, master, 200)
	s.expect("GET", "/api/system/reboot", s.token(api.RoleMaster, api.ScopeSystemConfig), 200)
	clear(s.tokens.held)
	locked("after a reboot")

	var c api.Config
	a := s.do(request{method: "GET", path: pathConfig, token: s.as(api.RoleMaster, api.ScopeSystemConfig)})
	if err := json.Unmarshal(a.body, &c); err != nil || a.status != 200 {
		t.Fatal(a.status, err)
	}
	if a, _ := s.update(api.RoleMaster, `{"email":"x@it.example"}`); a.status != 409 {
		t.Errorf("another setting while locked: %d", a.status)
	}
	next := newPersona(seedOf(t, "the next user", s.module.EID))
	a, u := s.update(api.RoleMaster, next.proof(t, c, nil).json(t))
	if a.status != 200 || u != (api.ConfigUpdated{Updated: true, RebootRequired: true}) {
		t.Fatalf("a new key: %d %+v (%s)", a.status, u, a.header.Get(api.HeaderError))
	}
	s.module.UserPassphrase = "the next user"
	locked("until the reboot")
	s.expect("GET", "/api/system/reboot", s.as(api.RoleMaster, api.ScopeSystemConfig), 200)
	clear(s.tokens.held)
	if got := s.failState(); got != 0 {
		t.Errorf("after the lock: fail state %02x", got)
	}
	s.expect("GET", pathConfig, s.as(api.RoleUser, api.ScopeSystemConfig), 200)
	s.expect("GET", pathConfig, &held, 401)
	s.granted(f.allow(s.asked(nil), nil), nil)
}

func TestThreat_T112_OrderToWipe(t *testing.T) {
	b := newBackend()
	k := newKeeper(t, &hemtest.Options{TrustedBackends: [][]byte{b.key.Public()}})
	user := k.as(api.RoleUser, api.ScopeSystemConfig)
	if got := ownerOf(t, b, k).order(t, k.peer, "W"); got != "W" {
		t.Fatal(got)
	}
	deadline := time.Now().Add(time.Minute)
	for k.do(request{method: "GET", path: "/api/auth/init"}).status != 200 { // 409 while it is wiped
		if time.Now().After(deadline) {
			t.Fatal("no fresh module")
		}
		time.Sleep(5 * time.Millisecond)
	}
	var login api.InitChallenge
	if k.get("/api/auth/init", &login); login.EID == k.module.EID {
		t.Error("the same identity")
	}
	k.expect("GET", pathConfig, user, 401)
}

// Blocked: both listeners are closed, and a new start on the same data serves.
func TestThreat_T113_OrderToBlock(t *testing.T) {
	b, dir := newBackend(), t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	opts := &hemtest.Options{TrustedBackends: [][]byte{b.key.Public()}, DataDir: dir}
	m := hemtest.New(t, opts)
	k := keeperOf(t, m)
	if got := ownerOf(t, b, k).order(t, k.peer, "B"); got != "B" {
		t.Fatal(got)
	}
	deadline := time.Now().Add(time.Minute)
	for _, base := range []string{m.URL, m.HTTPURL} {
		u, err := url.Parse(base)
		if err != nil {
			t.Fatal(err)
		}
		for {
			conn, err := net.Dial("tcp", u.Host)
			if err != nil && strings.Contains(err.Error(), "refused") {
				break
			}
			if err == nil {
				conn.Close()
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s still takes connections", base)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	m.Close()
	k = newKeeper(t, opts)
	if k.failState() != 0 || k.configuration().EID != m.EID {
		t.Error("the module did not come back as it was")
	}
}
