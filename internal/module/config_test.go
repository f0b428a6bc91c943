package module

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"softhem/api"
	"softhem/internal/session"
	"softhem/internal/suite"
)

// postConfig posts a body as whoever holds token would.
func postConfig(m *Module, token, body string) (ConfigOutcome, error) {
	ctx := context.Background()
	p, err := m.Enter(ctx, OpConfigUpdate, Caller{Addr: netip.MustParseAddr("127.0.0.1"), TLS: true, Bearer: token, HasBearer: token != ""})
	if err != nil {
		return ConfigOutcome{}, err
	}
	var req ConfigUpdate
	if err := json.Unmarshal([]byte(body), &req); err != nil {
		return ConfigOutcome{}, err
	}
	return m.ConfigUpdate(ctx, p, req)
}

func TestUserKeyVector(t *testing.T) {
	var v struct {
		SPKPrivate string `json:"spk_private"`
		Nonce      string
		UserKey    string
		HMAC       string `json:"userkey_hmac"`
	}
	readVectors(t, "userkey_change.json", &v)
	scalar, err := api.DecodeBase64(v.SPKPrivate)
	if err != nil {
		t.Fatal(err)
	}
	spk, err := suite.NewX25519Key(scalar)
	if err != nil {
		t.Fatal(err)
	}
	public, ok1 := session.Decode32(v.UserKey)
	nonce, ok2 := session.Decode32(v.Nonce)
	secret, err := spk.Shared(public[:])
	if err != nil || !ok1 || !ok2 {
		t.Fatal(err)
	}
	if got := api.EncodeBase64(userKeyMAC(secret, nonce, public)); got != v.HMAC {
		t.Errorf("userkey_hmac %s, want %s", got, v.HMAC)
	}
}

// In a fail state nothing of the configuration changes; a wipe goes on, with a
// token, and not without.
func TestConfigUpdateInAFailState(t *testing.T) {
	m := open(t, nil)
	token := personalise(t, m, api.ScopeSystemConfig)
	m.state.Load().fail.Store(flsKnownAnswer)
	for body, want := range map[string]error{
		"{}": api.ErrConflict, `{"user":"Grace"}`: api.ErrConflict, `{"user":""}`: api.ErrConflict, `{"gen_csr":true}`: api.ErrConflict,
		`{"wipeout":false}`: api.ErrConflict, `{"wipeout":"true"}`: api.ErrConflict,
	} {
		if _, err := postConfig(m, token, body); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", body, err, want)
		}
	}
	if _, err := postConfig(m, "", `{"wipeout":true}`); !errors.Is(err, api.ErrUnauthorized) {
		t.Errorf("a wipe without a token: %v", err)
	}
	if out, err := postConfig(m, token, `{"wipeout":true,"user":""}`); err != nil || !out.Wiped {
		t.Errorf("a wipe in a fail state: %+v %v", out, err)
	}
	fresh := open(t, nil)
	fresh.state.Load().fail.Store(flsKnownAnswer)
	if _, err := postConfig(fresh, "", `{"tls":{"crt":"AAAA"}}`); !errors.Is(err, api.ErrConflict) {
		t.Errorf("a TLS pair for a fresh module in a fail state: %v", err)
	}
}

// Once wiped, a module answers nothing but 409, whatever is asked and by whom;
// what was under way finds the same.
func TestAWipedModuleRefusesEverything(t *testing.T) {
	ctx := context.Background()
	m := open(t, nil)
	token := personalise(t, m, api.ScopeSystemConfig)
	caller := Caller{Addr: netip.MustParseAddr("127.0.0.1"), TLS: true, Bearer: token, HasBearer: true}
	reboot, err1 := m.Enter(ctx, OpReboot, caller)
	change, err2 := m.Enter(ctx, OpConfigUpdate, caller)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if out, err := postConfig(m, token, `{"wipeout":true}`); err != nil || !out.Wiped {
		t.Fatal(out, err)
	}
	for op := range opCount {
		for _, c := range []Caller{{}, caller} {
			if _, err := m.Enter(ctx, op, c); !errors.Is(err, api.ErrConflict) {
				t.Errorf("operation %d: %v", op, err)
			}
		}
	}
	if err := m.Reboot(ctx, reboot); !errors.Is(err, api.ErrConflict) {
		t.Errorf("a reboot that came late: %v", err)
	}
	if _, err := m.ConfigUpdate(ctx, change, ConfigUpdate{}); !errors.Is(err, api.ErrConflict) {
		t.Errorf("a change that came late: %v", err)
	}
	if m.FailState() != 0 {
		t.Errorf("the wipe latched fail state %02x", m.FailState())
	}
	if _, err := m.loadState(ctx); err == nil {
		t.Error("the state can still be read")
	}
}

// A wipe whose first step fails is a 406, and the module works on.
func TestAWipeThatFailsChangesNothing(t *testing.T) {
	m := open(t, func(c *Config) { c.Destroy = func() error { return errors.New("no way") } })
	token := personalise(t, m, api.ScopeSystemConfig)
	before := m.state.Load().config
	if out, err := postConfig(m, token, `{"wipeout":true}`); !errors.Is(err, api.ErrNotAcceptable) || out.Wiped {
		t.Fatal(out, err)
	}
	if out, err := postConfig(m, token, `{"user":"Grace"}`); err != nil || !out.Answer.Updated {
		t.Errorf("after it: %+v %v", out, err)
	}
	if st, err := m.loadState(context.Background()); err != nil || st.config.Iat != before.Iat || st.config.User != "Grace" {
		t.Errorf("%v", err)
	}
}

// A log that takes no records stops every operation but a wipe.
func TestAWipeNeedsNoLog(t *testing.T) {
	m := open(t, nil)
	token := personalise(t, m, api.ScopeSystemConfig)
	if err := m.audit.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := postConfig(m, token, `{"user":"Grace"}`); err == nil {
		t.Error("a change without its record")
	}
	if out, err := postConfig(m, token, `{"wipeout":true}`); err != nil || !out.Wiped {
		t.Error(out, err)
	}
}

// An authenticator, whose role is a kid, does not change the configuration.
func TestConfigIsChangedByPersonasAlone(t *testing.T) {
	m := open(t, nil)
	personalise(t, m, api.ScopeSystemConfig)
	rule := ruleOf(OpConfigUpdate)
	for role, want := range map[api.Role]bool{api.RoleUser: true, api.RoleMaster: true, "0382e3eab596598b1f3582ef90b61a0e": false} {
		p := &Pass{op: OpConfigUpdate, state: m.state.Load(), claims: &api.TokenClaims{Sub: role, Scope: api.ScopeSystemConfig}}
		if err := m.scoped(context.Background(), p, &rule, ""); (err == nil) != want || err != nil && !errors.Is(err, api.ErrForbidden) {
			t.Errorf("role %q: %v", role, err)
		}
	}
}

// What let a caller in is looked at again when its turn comes: a user key that
// was changed meanwhile has ended the token.
func TestATokenThatDiesWhileItsRequestWaits(t *testing.T) {
	ctx := context.Background()
	m := open(t, nil)
	token := personalise(t, m, api.ScopeSystemConfig)
	p, err := m.Enter(ctx, OpConfigUpdate, Caller{TLS: true, Bearer: token, HasBearer: true})
	if err != nil {
		t.Fatal(err)
	}
	m.replace(func(st *state) { st.user.Generation++ })
	req := ConfigUpdate{User: given[string]{here: true, value: "Mallory"}}
	if _, err := m.ConfigUpdate(ctx, p, req); !errors.Is(err, api.ErrUnauthorized) {
		t.Errorf("a token of the old key: %v", err)
	}
	if m.state.Load().config.User == "Mallory" {
		t.Error("it changed the configuration")
	}
}

// Trusted time that is turned on, on a clock that waits for a check-in, sets the
// time back to where the log ended: tokens and nonces end with it.
func TestTrustedTimeThatSetsTheClockBack(t *testing.T) {
	var now atomic.Int64
	now.Store(1_800_000_000)
	m := open(t, func(c *Config) {
		c.ClockSource = ClockCheckin
		c.HostClock = func() time.Time { return time.Unix(now.Load(), 0) }
	})
	personalise(t, m, api.ScopeSystemConfig)
	m.replace(func(st *state) { st.config.TrustedTS = false })
	st := m.state.Load()
	token, err := st.boot.IssueToken(api.TokenClaims{Sub: api.RoleUser, Scope: api.ScopeSystemConfig, Iat: now.Load(), Exp: now.Load() + 60}, st)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := postConfig(m, token, `{"trusted_ts":true}`); err != nil || !out.Answer.Updated {
		t.Fatal(out, err)
	}
	after, set := m.now(m.state.Load())
	if set || after > now.Load()-backwardsGrace {
		t.Fatalf("the clock says %d, set %v: it was not set back", after, set)
	}
	if _, err := postConfig(m, token, `{}`); !errors.Is(err, api.ErrUnauthorized) {
		t.Errorf("a token that would live longer: %v", err)
	}
}
