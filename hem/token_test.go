package hem

import (
	"context"
	"errors"
	"sync"
	"testing"

	"softhem/api"
)

type memCache struct {
	mu sync.Mutex
	m  map[TokenKey]Token
}

func (m *memCache) Get(_ context.Context, k TokenKey) (Token, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.m[k]
	return t, ok
}

func (m *memCache) Put(_ context.Context, k TokenKey, t Token) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.m[k] = t
}

func (m *memCache) Delete(_ context.Context, k TokenKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.m, k)
}

func (m *memCache) Clear(_ context.Context, url string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range m.m {
		if k.URL == url {
			delete(m.m, k)
		}
	}
	return nil
}

func TestTokenCache(t *testing.T) {
	f := startFake(t)
	cache := &memCache{m: map[TokenKey]Token{}}
	cfg := Config{URL: f.url + "/", Key: testKey(t), TokenCache: cache}
	logins := func() int { return f.count("POST " + pathToken) }
	check := func(what string, c *Client, want int) {
		t.Helper()
		if _, err := c.Config(t.Context()); err != nil || logins() != want {
			t.Errorf("%s: %d logins, want %d (%v)", what, logins(), want, err)
		}
	}
	check("first", newClient(t, cfg), 1)
	key := TokenKey{URL: f.url, Role: api.RoleUser, Scope: api.ScopeSystemConfig}
	first, ok := cache.m[key]
	if !ok || first.EID != f.identity() {
		t.Fatalf("cache holds %v", cache.m)
	}

	second := newClient(t, cfg)
	check("second process", second, 1)
	if got := f.count("GET " + pathToken); got != 1 {
		t.Errorf("%d challenges, want 1", got)
	}
	onlyCache := cfg
	onlyCache.Key = nil
	check("no credential", newClient(t, onlyCache), 1)
	master := cfg
	master.Role = api.RoleMaster
	check("other role", newClient(t, master), 2)
	delete(cache.m, TokenKey{URL: f.url, Role: api.RoleMaster, Scope: api.ScopeSystemConfig})

	// A second client meeting the module must keep what came from the cache.
	if _, err := second.LoggerKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("after meeting the module", second, 3)

	f.reboot()
	check("after a reboot", newClient(t, cfg), 4)
	check("another process renewed it", second, 4)

	f.reboot()
	if _, err := newClient(t, onlyCache).Config(t.Context()); !errors.Is(err, api.ErrUnauthorized) {
		t.Error(err)
	}
	check("dead token", newClient(t, cfg), 5)

	pinned := cfg
	pinned.EID = randomPoint(t)
	if _, err := newClient(t, pinned).Config(t.Context()); !errors.Is(err, ErrOtherModule) {
		t.Errorf("a token of another module was used: %v", err)
	}
	insecure := cfg
	insecure.InsecureSkipVerify = true
	check("insecure", newClient(t, insecure), 6)

	if err := second.Logout(t.Context()); err != nil || len(cache.m) != 0 {
		t.Errorf("after Logout: %v, %v", cache.m, err)
	}
	check("after Logout", second, 7)
}
