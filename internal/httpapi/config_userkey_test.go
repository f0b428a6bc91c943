package httpapi_test

import (
	"context"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
	"softhem/internal/suite"
)

// proof is the triple of a user-key change.
func (p persona) proof(t testing.TB, c api.Config, edit func(mac *[]byte)) fields {
	t.Helper()
	spk, err := api.DecodeBase64(c.SPK)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := p.key.Shared(spk)
	if err != nil {
		t.Fatal(err)
	}
	nonce, err := api.DecodeBase64(c.Nonce)
	if err != nil {
		t.Fatal(err)
	}
	mac := suite.HMACSHA256(secret, nonce, p.key.Public())
	if edit != nil {
		edit(&mac)
	}
	return fields{"userkey": p.public(), "userkey_hmac": api.EncodeBase64(mac), "userkey_nonce": c.Nonce}
}

// The user's key is replaced by either role, with proof; the user's tokens end
// and the master's do not.
func TestUserKeyChange(t *testing.T) {
	for _, role := range []api.Role{api.RoleUser, api.RoleMaster} {
		m := hemtest.New(t, nil)
		k := keeperOf(t, m)
		user, master := k.as(api.RoleUser, "system:config"), k.as(api.RoleMaster, "system:config")
		list := k.as(api.RoleUser, "keymgmt:list")
		before := k.configuration()
		body := newPersona(seedOf(t, "another passphrase", m.EID)).proof(t, before, nil).but(fields{"email": "with@it.example"}).json(t)
		a, u := k.update(role, body)
		if a.status != 200 || u != (api.ConfigUpdated{Updated: true}) {
			t.Fatalf("%s: %d %+v (%s)", role, a.status, u, a.header.Get(api.HeaderError))
		}
		k.expect("GET", pathConfig, user, 401)
		k.expect("GET", "/api/keymgmt/list", list, 401)
		k.expect("GET", pathConfig, master, 200)
		old := m.Client()
		if _, err := old.Login(context.Background(), "x"); err == nil {
			t.Errorf("%s: the old passphrase still opens", role)
		}
		m.UserPassphrase = "another passphrase"
		k = keeperOf(t, m)
		if c := k.configuration(); c.Uts <= before.Uts || c.Email != "with@it.example" {
			t.Errorf("%s: uts %d, then %d; email %q", role, before.Uts, c.Uts, c.Email)
		}
		// Used once: not again, also not by who holds the new key.
		if a, _ := k.update(api.RoleMaster, body); a.status != 401 {
			t.Errorf("%s: the same proof again: %d", role, a.status)
		}
		k.reboot()
		k.configuration() // the new key is the one that is kept
	}
}

func TestUserKeyChangeWantsProof(t *testing.T) {
	now := time.Now()
	k := newKeeper(t, &hemtest.Options{Clock: func() time.Time { return now }})
	fresh := newPersona(suite.Random(32))
	change := func(edit func(f fields)) int {
		t.Helper()
		f := fresh.proof(t, k.configuration(), nil)
		if edit != nil {
			edit(f)
		}
		a, _ := k.update(api.RoleMaster, f.but(fields{"email": "x@y.example"}).json(t))
		return a.status
	}
	for name, tc := range map[string]struct {
		status int
		edit   func(f fields)
	}{
		"a bit of the MAC": {401, func(f fields) { f["userkey_hmac"] = flip(t, f["userkey_hmac"].(string)) }},
		"another key":      {401, func(f fields) { f["userkey"] = newPersona(suite.Random(32)).public() }},
		"another nonce":    {401, func(f fields) { f["userkey_nonce"] = k.configuration().Nonce }},
		"a login's nonce": {401, func(f fields) {
			var ch api.Challenge
			k.get("/api/auth/token", &ch)
			c := k.configuration()
			c.Nonce = ch.JTI
			for name, v := range fresh.proof(t, c, nil) {
				f[name] = v
			}
		}},
		"a foreign nonce": {401, func(f fields) {
			c := k.configuration()
			c.Nonce = api.EncodeBase64(suite.Random(32))
			for name, v := range fresh.proof(t, c, nil) {
				f[name] = v
			}
		}},
		"no MAC":       {400, func(f fields) { delete(f, "userkey_hmac") }},
		"no nonce":     {400, func(f fields) { f["userkey_nonce"] = nil }},
		"no key":       {400, func(f fields) { delete(f, "userkey") }},
		"low order":    {400, func(f fields) { f["userkey"] = api.EncodeBase64(make([]byte, 32)) }},
		"short key":    {400, func(f fields) { f["userkey"] = "AAAA" }},
		"short MAC":    {400, func(f fields) { f["userkey_hmac"] = "AAAA" }},
		"short nonce":  {400, func(f fields) { f["userkey_nonce"] = "AAAA" }},
		"wrong type":   {400, func(f fields) { f["userkey"] = 7 }},
		"too late":     {401, func(fields) { now = now.Add(61 * time.Second) }},
		"beside a bad": {400, func(f fields) { f["user"] = "" }},
	} {
		if got := change(tc.edit); got != tc.status {
			t.Errorf("%s: %d, want %d", name, got, tc.status)
		}
	}
	if k.configuration().Email != "" {
		t.Error("a setting was taken beside a key that was not proven")
	}
	if _, err := k.module.Client().Login(context.Background(), "x"); err != nil {
		t.Errorf("the old key opens no more: %v", err)
	}
	if got := change(nil); got != 200 {
		t.Errorf("the right proof: %d", got)
	}
}

func flip(t *testing.T, b64 string) string {
	t.Helper()
	raw, err := api.DecodeBase64(b64)
	if err != nil {
		t.Fatal(err)
	}
	raw[0] ^= 1
	return api.EncodeBase64(raw)
}

// The SDK's way, with a passphrase and with a key.
func TestUserKeyChangeByTheSDK(t *testing.T) {
	ctx := context.Background()
	m := hemtest.New(t, nil)
	client := m.Client()
	if err := client.ChangeUserKey(ctx, []byte("by the SDK"), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Config(ctx); err == nil {
		t.Error("the client's old key still opens")
	}
	m.UserPassphrase = "by the SDK"
	if _, err := m.Client().Config(ctx); err != nil {
		t.Error(err)
	}
	key, err := hem.KeyFromSeed(suite.Random(32))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.ClientOf(api.RoleMaster).ChangeUserKey(ctx, nil, key); err != nil {
		t.Fatal(err)
	}
	last, err := hem.New(hem.Config{URL: m.URL, CACert: m.CACert, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	if _, err := last.UpdateConfig(ctx, api.ConfigUpdate{HTTPOptionHSTS: ptr(true)}); err != nil {
		t.Error(err)
	}
}
