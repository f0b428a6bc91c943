package hem

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"softhem/api"
)

func TestNewValidates(t *testing.T) {
	ask := func(context.Context, api.Role) ([]byte, error) { return nil, nil }
	key := testKey(t)
	const ok = "https://hem.test"
	for name, cfg := range map[string]Config{
		"no URL":           {},
		"scheme":           {URL: "ftp://hem.test"},
		"no scheme":        {URL: "hem.test:8443"},
		"no host":          {URL: "https:///x"},
		"password":         {URL: "https://user:hunter2@hem.test"},
		"query":            {URL: "https://hem.test?token=hunter2"},
		"fragment":         {URL: "https://hem.test#hunter2"},
		"unreadable":       {URL: "https://hunter2\x7f"},
		"EID":              {URL: ok, EID: "AAAA"},
		"role":             {URL: ok, Role: "X"},
		"two credentials":  {URL: ok, Passphrase: ask, Key: key},
		"token and key":    {URL: ok, Token: "a.b.c", Key: key},
		"token line break": {URL: ok, Token: "hunter2\n"},
		"TTL":              {URL: ok, TTL: time.Millisecond},
		"negative TTL":     {URL: ok, TTL: -time.Second},
		"renew":            {URL: ok, RenewBefore: -1},
		"context":          {URL: ok, TokenContext: strings.Repeat("ü", api.MaxContextChars+1)},
		"CA":               {URL: ok, CACert: []byte("hunter2")},
		"CA and client":    {URL: ok, CACert: []byte("x"), HTTPClient: http.DefaultClient},
		"insecure, client": {URL: ok, InsecureSkipVerify: true, HTTPClient: http.DefaultClient},
	} {
		_, err := New(cfg)
		if !errors.Is(err, ErrArgument) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v repeats what may be secret", name, err)
		}
	}
	c := newClient(t, Config{URL: "HTTPS://HEM.test:8443/a/"})
	if got := c.base.String(); got != "https://hem.test:8443/a" {
		t.Errorf("base = %s", got)
	}
}

func TestConfigLogsInOncePerScope(t *testing.T) {
	f := startFake(t)
	c := newClient(t, Config{URL: f.url, Key: testKey(t)})
	for range 3 {
		conf, err := c.Config(t.Context())
		if err != nil || conf.User != "Ada" {
			t.Fatal(conf, err)
		}
	}
	if _, err := c.LoggerKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.count("POST " + pathToken); got != 2 {
		t.Errorf("%d logins, want 2", got)
	}
	c.Forget()
	if _, err := c.Config(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.count("POST " + pathToken); got != 3 {
		t.Errorf("%d logins after Forget, want 3", got)
	}
}

func TestPassphraseIsAskedOnceAndWiped(t *testing.T) {
	f := startFake(t)
	var asked [][]byte
	var stages []Stage
	c := newClient(t, Config{
		URL: f.url, Role: api.RoleMaster,
		Passphrase: func(_ context.Context, role api.Role) ([]byte, error) {
			if role != api.RoleMaster {
				t.Errorf("asked for role %s", role)
			}
			asked = append(asked, []byte("correct horse"))
			return asked[len(asked)-1], nil
		},
		Progress: func(s Stage) { stages = append(stages, s) },
	})
	for _, scope := range []string{"a", "b"} {
		if _, err := c.Login(t.Context(), scope); err != nil {
			t.Fatal(err)
		}
	}
	if len(asked) != 1 || !bytes.Equal(asked[0], make([]byte, len(asked[0]))) {
		t.Errorf("asked %d times, passphrase now %q", len(asked), asked)
	}
	if want := []Stage{StagePassphrase, StageDerive, StageLogin, StageLogin}; !slices.Equal(stages, want) {
		t.Errorf("stages %v, want %v", stages, want)
	}

	// Another module at the same address: new salt, new key, no old token.
	first := c.key
	old, _ := c.Login(t.Context(), "a")
	f.renew()
	if _, err := c.Login(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	now, err := c.Login(t.Context(), "a")
	if err != nil || now.Bearer == old.Bearer || now.EID != f.identity() {
		t.Errorf("token of the old module survived (%v)", err)
	}
	if len(asked) != 2 {
		t.Errorf("asked %d times after a change of module, want 2", len(asked))
	}
	if _, err := first.shared(first.Public()); !errors.Is(err, ErrForgotten) {
		t.Error("key for the old module was not wiped")
	}
	if _, ok := c.tokens["c"]; !ok {
		t.Error("token of the new module was not kept")
	}
}

func TestWrongPassphraseIsAskedAgain(t *testing.T) {
	f := startFake(t)
	right, err := DeriveKey([]byte("right"), f.identity())
	if err != nil {
		t.Fatal(err)
	}
	f.persona = api.EncodeBase64(right.Public())
	answers := []string{"wrong", "right"}
	c := newClient(t, Config{URL: f.url, Passphrase: func(context.Context, api.Role) ([]byte, error) {
		p := answers[0]
		answers = answers[1:]
		return []byte(p), nil
	}})
	if _, err = c.Login(t.Context(), "s"); !errors.Is(err, api.ErrUnauthorized) {
		t.Fatal(err)
	}
	if got := f.count("POST " + pathToken); got != 1 {
		t.Errorf("a wrong passphrase was sent %d times", got)
	}
	if _, err = c.Login(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	failing := newClient(t, Config{URL: f.url, Passphrase: func(context.Context, api.Role) ([]byte, error) {
		return nil, io.ErrClosedPipe
	}})
	if _, err = failing.Login(t.Context(), "s"); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

func TestReauthenticatesOnce(t *testing.T) {
	f := startFake(t)
	c := newClient(t, Config{URL: f.url, Key: testKey(t)})
	if _, err := c.Config(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.reboot()
	if _, err := c.Config(t.Context()); err != nil {
		t.Errorf("after a reboot: %v", err)
	}
	f.handle("GET /api/system/config", func(w answerWriter, _ request) { w.WriteHeader(401) })
	before := f.count("GET /api/system/config")
	_, err := c.Config(t.Context())
	var op *OpError
	if !errors.Is(err, api.ErrUnauthorized) || !errors.As(err, &op) || op.Path != "GET /api/system/config" {
		t.Errorf("%v", err)
	}
	if got := f.count("GET /api/system/config") - before; got != 2 {
		t.Errorf("tried %d times, want 2", got)
	}
	if got := f.count("POST " + pathToken); got != 3 {
		t.Errorf("%d logins, want 3", got)
	}
}

func TestFixedTokenIsNeverReplaced(t *testing.T) {
	f := startFake(t)
	text := fakeToken(t, api.TokenClaims{Scope: api.ScopeSystemConfig, Sub: "U", Exp: 99})
	c := newClient(t, Config{URL: f.url, Token: Bearer(text)})
	if _, err := c.Config(t.Context()); !errors.Is(err, api.ErrUnauthorized) {
		t.Errorf("%v", err)
	}
	if f.count("GET /api/system/config") != 1 || f.count("GET "+pathToken) != 0 {
		t.Errorf("requests: %v", f.counts)
	}
	f.mu.Lock()
	f.live[text] = api.ScopeSystemConfig
	f.mu.Unlock()
	if _, err := c.Config(t.Context()); err != nil {
		t.Error(err)
	}
	tok, err := c.Login(t.Context(), "whatever")
	want := Token{Bearer: Bearer(text), Scope: api.ScopeSystemConfig, Role: api.RoleUser, Expires: time.Unix(99, 0)}
	if diff := cmp.Diff(want, tok); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

func TestWithoutCredential(t *testing.T) {
	f := startFake(t)
	c := newClient(t, Config{URL: f.url})
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := c.Config(t.Context()); !errors.Is(err, api.ErrUnauthorized) {
		t.Error(err)
	}
	if _, err := c.Login(t.Context(), "s"); !errors.Is(err, ErrArgument) {
		t.Error(err)
	}
	if _, err := c.Login(t.Context(), strings.Repeat("s", api.MaxScopeChars+1)); !errors.Is(err, ErrArgument) {
		t.Error(err)
	}
	if got := f.count("GET " + pathToken); got != 0 {
		t.Errorf("%d challenges for nothing", got)
	}
}

// The fake's clock is years away from the local one.
func TestExpiryAndRenewal(t *testing.T) {
	for _, tc := range []struct {
		ttl, renew  time.Duration
		life, fresh time.Duration // how long the token lives, and is used
	}{
		{0, 0, 8 * time.Hour, 8*time.Hour - time.Minute},
		{10 * time.Minute, 0, 10 * time.Minute, 9 * time.Minute},
		{10 * time.Minute, 3 * time.Minute, 10 * time.Minute, 7 * time.Minute},
		{time.Minute, 0, time.Minute, 30 * time.Second},
	} {
		f := startFake(t)
		start := time.Unix(1_000_000_000, 0)
		now := start
		c := newClient(t, Config{URL: f.url, Key: testKey(t), TTL: tc.ttl, RenewBefore: tc.renew, Now: func() time.Time { return now }})
		tok, err := c.Login(t.Context(), "s")
		if err != nil {
			t.Fatal(err)
		}
		if got := tok.Expires.Sub(start); got != tc.life {
			t.Errorf("%v: lives %v, want %v", tc.ttl, got, tc.life)
		}
		now = start.Add(tc.fresh - time.Second)
		if same, _ := c.Login(t.Context(), "s"); same.Bearer != tok.Bearer {
			t.Errorf("%v: renewed before %v", tc.ttl, tc.fresh)
		}
		now = start.Add(tc.fresh)
		if other, err := c.Login(t.Context(), "s"); err != nil || other.Bearer == tok.Bearer {
			t.Errorf("%v: not renewed at %v (%v)", tc.ttl, tc.fresh, err)
		}
	}
}

func TestFailedRenewalUsesTheLivingToken(t *testing.T) {
	f := startFake(t)
	now := time.Unix(1_000_000_000, 0)
	c := newClient(t, Config{URL: f.url, Key: testKey(t), TTL: 10 * time.Minute, Now: func() time.Time { return now }})
	if _, err := c.Config(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.handle("GET "+pathToken, func(w answerWriter, _ request) { w.WriteHeader(409) }) // a fail state
	now = now.Add(9*time.Minute + 30*time.Second)
	if _, err := c.Config(t.Context()); err != nil {
		t.Errorf("the token lives another 30 s: %v", err)
	}
	now = now.Add(30 * time.Second)
	if _, err := c.Config(t.Context()); !errors.Is(err, api.ErrConflict) {
		t.Errorf("the token has ended: %v", err)
	}
}

func TestChallengeIsChecked(t *testing.T) {
	f := startFake(t)
	good := f.challenge()
	zero := api.EncodeBase64(make([]byte, 32))
	one := make([]byte, 32)
	one[0] = 1
	for name, spoil := range map[string]func(*api.Challenge){
		"spk zero":      func(c *api.Challenge) { c.SPK = zero },
		"spk one":       func(c *api.Challenge) { c.SPK = api.EncodeBase64(one) },
		"spk short":     func(c *api.Challenge) { c.SPK = "AAAA" },
		"spk absent":    func(c *api.Challenge) { c.SPK = "" },
		"eid zero":      func(c *api.Challenge) { c.EID = zero },
		"eid absent":    func(c *api.Challenge) { c.EID = "" },
		"eid long":      func(c *api.Challenge) { c.EID = api.EncodeBase64(make([]byte, 64)) },
		"jti short":     func(c *api.Challenge) { c.JTI = api.EncodeBase64(make([]byte, 31)) },
		"jti no base64": func(c *api.Challenge) { c.JTI = strings.Repeat("*", 44) },
		"exp zero":      func(c *api.Challenge) { c.Exp = 0 },
		"exp negative":  func(c *api.Challenge) { c.Exp = -1 },
		"exp huge":      func(c *api.Challenge) { c.Exp = 1 << 62 },
	} {
		ch := good
		spoil(&ch)
		f.handle("GET "+pathToken, func(w answerWriter, _ request) { writeJSON(w, ch) })
		f.handle("GET "+pathInit, func(w answerWriter, _ request) {
			writeJSON(w, api.InitChallenge{Exp: ch.Exp, SPK: ch.SPK, JTI: ch.JTI, EID: ch.EID})
		})
		c := newClient(t, Config{URL: f.url, Key: testKey(t)})
		if _, err := c.Login(t.Context(), "s"); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: login: %v", name, err)
		}
		if _, err := c.Init(t.Context(), InitParams{MasterKey: testKey(t), UserKey: testKey(t)}); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: init: %v", name, err)
		}
	}
	if f.count("POST "+pathToken)+f.count("POST "+pathInit) != 0 {
		t.Error("signed for a bad challenge")
	}
}

func TestPin(t *testing.T) {
	f := startFake(t)
	c := newClient(t, Config{URL: f.url, Key: testKey(t), EID: strings.TrimRight(f.identity(), "=")})
	if _, err := c.Config(t.Context()); err != nil {
		t.Error(err)
	}
	f.renew()
	c.Forget()
	if _, err := c.Config(t.Context()); !errors.Is(err, ErrOtherModule) {
		t.Error(err)
	}
	if got := f.count("POST " + pathToken); got != 1 {
		t.Errorf("%d logins, want 1", got)
	}
}

func TestInit(t *testing.T) {
	f := startFake(t)
	master, user := testKey(t), testKey(t)
	f.handle("GET "+pathInit, func(w answerWriter, _ request) {
		ch := f.challenge()
		writeJSON(w, api.InitChallenge{Exp: ch.Exp, SPK: ch.SPK, JTI: ch.JTI, EID: ch.EID, Genuine: "a.b.c"})
	})
	token := fakeToken(t, api.TokenClaims{Scope: api.ScopeSystemConfig, Sub: "U", Iat: fakeClock, Exp: fakeClock + 28800})
	f.handle("POST "+pathInit, func(w answerWriter, r request) {
		var body api.InitRequest
		r.decode(t, &body)
		f.mu.Lock()
		defer f.mu.Unlock()
		if _, err := f.verify(body.Init); err != nil {
			t.Error(err)
		}
		var claims api.InitClaims
		if err := readSegment(strings.Split(body.Init, ".")[1], &claims); err != nil {
			t.Error(err)
		}
		want := api.InitConfig{
			MasterKey: api.EncodeBase64(master.Public()), UserKey: api.EncodeBase64(user.Public()),
			User: "Ada & <Bob>", Hostname: "hem.test", Origin: "*",
		}
		if diff := cmp.Diff(want, claims.Cfg); diff != "" || claims.Exp != fakeClock+60 || claims.Iss != want.MasterKey {
			t.Errorf("claims %+v\n%s", claims, diff)
		}
		f.live[token] = api.ScopeSystemConfig
		writeJSON(w, api.InitAnswer{InstanceID: "i", Token: token})
	})
	c := newClient(t, Config{URL: f.url})
	config := api.InitConfig{User: "Ada & <Bob>", Hostname: "hem.test", Origin: "*"}
	answer, err := c.Init(t.Context(), InitParams{MasterKey: master, UserKey: user, Config: config})
	if err != nil || answer.InstanceID != "i" {
		t.Fatal(answer, err)
	}
	if _, err := c.Config(t.Context()); err != nil {
		t.Errorf("the token of the answer was not used: %v", err)
	}
	for _, bad := range []InitParams{{}, {MasterKey: master}, {MasterKey: master, UserKey: user, UserPassphrase: []byte{}}} {
		if _, err := c.Init(t.Context(), bad); !errors.Is(err, ErrArgument) {
			t.Error(err)
		}
	}
}

func TestSlowPassphraseGetsAFreshChallenge(t *testing.T) {
	f := startFake(t)
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, Config{
			URL: "https://hem.test", HTTPClient: &http.Client{Transport: inProcess{f}},
			Passphrase: func(context.Context, api.Role) ([]byte, error) {
				time.Sleep(5 * time.Minute)
				f.mu.Lock()
				clear(f.nonces) // their minute is over
				f.mu.Unlock()
				return []byte("x"), nil
			},
		})
		if _, err := c.Login(t.Context(), "s"); err != nil {
			t.Error(err)
		}
	})
	if got := f.count("GET " + pathToken); got != 2 {
		t.Errorf("%d challenges, want 2", got)
	}
}
