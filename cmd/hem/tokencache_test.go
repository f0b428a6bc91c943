package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
)

// A warnings collects what a cache tells the person at the terminal.
type warnings struct {
	mu   sync.Mutex
	text []string
}

func (w *warnings) warn(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, fmt.Sprintf(format, args...))
}

func (w *warnings) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.text)
}

func newTestCache(t *testing.T) (*tokenCache, *warnings) {
	t.Helper()
	w := &warnings{}
	return &tokenCache{dir: privateFolder(t), warn: w.warn}, w
}

func privateFolder(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "softhem")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

var testKey = hem.TokenKey{URL: "https://localhost:8443", Role: api.RoleUser, Scope: api.ScopeLoggerGet}

func testToken(bearer string, life time.Duration) hem.Token {
	return hem.Token{
		Bearer: hem.Bearer(bearer), Scope: testKey.Scope, Role: testKey.Role,
		EID: "eid", Expires: time.Now().Add(life).Truncate(time.Second),
	}
}

// kept is the one file that a cache has.
func kept(t *testing.T, c *tokenCache) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(c.dir, "*"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("the cache has %v, %v", paths, err)
	}
	return paths[0]
}

func wantNone(t *testing.T, c *tokenCache) {
	t.Helper()
	if got, ok := c.Get(t.Context(), testKey); ok {
		t.Errorf("the cache offers a token of %s", got.EID)
	}
	if entries, err := os.ReadDir(c.dir); err != nil || len(entries) > 0 {
		t.Errorf("the cache has %v, %v", entries, err)
	}
}

func TestTokenCacheKeeps(t *testing.T) {
	c, w := newTestCache(t)
	want := testToken("secret.bearer.text", time.Hour)
	c.Put(t.Context(), testKey, want)
	got, ok := c.Get(t.Context(), testKey)
	if !ok || !got.Expires.Equal(want.Expires) {
		t.Fatalf("the token does not come back: %v", ok)
	}
	if got.Expires = want.Expires; got != want {
		t.Error("another token comes back")
	}
	if info, err := os.Stat(kept(t, c)); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if name := filepath.Base(kept(t, c)); strings.Contains(name, "secret") || strings.Contains(name, "logger") {
		t.Errorf("the name %s tells", name)
	}
	for _, other := range []hem.TokenKey{
		{URL: "https://localhost:8444", Role: testKey.Role, Scope: testKey.Scope},
		{URL: testKey.URL, Role: api.RoleMaster, Scope: testKey.Scope},
		{URL: testKey.URL, Role: testKey.Role, Scope: api.ScopeSystemConfig},
	} {
		if _, ok := c.Get(t.Context(), other); ok {
			t.Errorf("a token of %v is offered for %v", testKey, other)
		}
		// A file's name is no proof of what it is about.
		if err := os.Link(kept(t, c), filepath.Join(c.dir, prefix(other)+"x"+tokenSuffix)); err != nil {
			t.Fatal(err)
		}
		if _, ok := c.Get(t.Context(), other); ok {
			t.Errorf("a renamed token of %v is offered for %v", testKey, other)
		}
		c.Delete(t.Context(), other)
	}
	if text := w.all(); text != nil {
		t.Error(text)
	}
}

// What someone else could have read or written is not believed, and goes; so does what is
// damaged or has ended.
func TestTokenCacheRemoves(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(path string) error
		warns bool
	}{
		"group reads":   {func(path string) error { return os.Chmod(path, 0o640) }, true},
		"others read":   {func(path string) error { return os.Chmod(path, 0o604) }, true},
		"group writes":  {func(path string) error { return os.Chmod(path, 0o620) }, true},
		"others search": {func(path string) error { return os.Chmod(path, 0o601) }, true},
		"too large": {func(path string) error {
			return os.Truncate(path, maxTokenFile+1)
		}, true},
		"symbolic link": {func(path string) error {
			elsewhere := filepath.Join(filepath.Dir(filepath.Dir(path)), "elsewhere")
			return errors.Join(os.Rename(path, elsewhere), os.Symlink(elsewhere, path))
		}, false},
		"cut":   {func(path string) error { return os.Truncate(path, 20) }, false},
		"empty": {func(path string) error { return os.Truncate(path, 0) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			c, w := newTestCache(t)
			c.Put(t.Context(), testKey, testToken("secret.bearer.text", time.Hour))
			if err := tc.spoil(kept(t, c)); err != nil {
				t.Fatal(err)
			}
			wantNone(t, c)
			text := strings.Join(w.all(), "\n")
			if (text != "") != tc.warns || strings.Contains(text, "secret") {
				t.Errorf("it says %q", text)
			}
		})
	}
	t.Run("ended", func(t *testing.T) {
		c, _ := newTestCache(t)
		c.Put(t.Context(), testKey, testToken("secret.bearer.text", -time.Second))
		wantNone(t, c)
	})
}

// A token of the other persona would be offered for what it cannot do.
func TestTokenCacheKeepsPersonasApart(t *testing.T) {
	c, _ := newTestCache(t)
	token := testToken("secret.bearer.text", time.Hour)
	token.Role = api.RoleMaster
	c.Put(t.Context(), testKey, token)
	wantNone(t, c)
}

// Two modules that answered at one URL have a file each; the token that ends last is
// offered, and all go together.
func TestTokenCacheTwoModules(t *testing.T) {
	c, _ := newTestCache(t)
	for eid, life := range map[string]time.Duration{"one": time.Hour, "two": 2 * time.Hour, "three": time.Minute} {
		token := testToken("bearer.of."+eid, life)
		token.EID = eid
		c.Put(t.Context(), testKey, token)
	}
	if got, ok := c.Get(t.Context(), testKey); !ok || got.EID != "two" {
		t.Errorf("the token of %q is offered", got.EID)
	}
	c.Delete(t.Context(), testKey)
	wantNone(t, c)
}

// A new token takes the place of the old in one step: who reads meanwhile
// gets the one or the other, whole; and nothing is left over when writing fails.
func TestTokenCacheWritesAtomically(t *testing.T) {
	c, w := newTestCache(t)
	bearers := []string{strings.Repeat("a", 300), strings.Repeat("b", 9000), strings.Repeat("c", 20)}
	c.Put(t.Context(), testKey, testToken(bearers[0], time.Hour))

	done := make(chan struct{})
	var writers, readers sync.WaitGroup
	for i := range 4 {
		writers.Go(func() {
			for n := range 100 {
				c.Put(t.Context(), testKey, testToken(bearers[(i+n)%len(bearers)], time.Hour))
			}
		})
	}
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if got, ok := c.Get(t.Context(), testKey); !ok || !slices.Contains(bearers, string(got.Bearer)) {
					t.Error("half a token, or none")
					return
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	kept(t, c) // and nothing beside it
	if text := w.all(); text != nil {
		t.Error(text)
	}
}

func TestWriteBeside(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "6955b900.log")
	write := func(text string, err error) func(*os.File) error {
		return func(f *os.File) error {
			if _, err := os.Stat(path); text == "first" && err == nil {
				t.Error("the name is given before the file is whole")
			}
			_, werr := f.WriteString(text)
			return errors.Join(werr, err)
		}
	}
	if err := writeBeside(path, write("first", nil)); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if err := writeBeside(path, write("second", broken)); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "first" {
		t.Errorf("a failed write leaves %q, %v", got, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("a failed write leaves %v, %v", entries, err)
	}
}

// Clearing one module's tokens leaves those of others, and takes what a killed command left.
func TestTokenCacheClear(t *testing.T) {
	c, _ := newTestCache(t)
	other := testKey
	other.URL = "https://localhost:8444"
	c.Put(t.Context(), testKey, testToken("one", time.Hour))
	c.Put(t.Context(), other, testToken("two", time.Hour))
	left := filepath.Join(c.dir, prefix(testKey)+"x.123"+tokenSuffix+newSuffix)
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Clear(t.Context(), testKey.URL); err != nil {
		t.Fatal(err)
	}
	if got, ok := c.Get(t.Context(), other); !ok || got.Bearer != "two" {
		t.Error("the token of another module is gone")
	}
	kept(t, c)
	if err := c.clear(""); err != nil {
		t.Fatal(err)
	}
	wantNone(t, c)
}

// The folder is ours alone, or is not used.
func TestOpenCache(t *testing.T) {
	open := func(env map[string]string) (*tokenCache, error) {
		o := &options{t: terminal{env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }}}
		return o.openCache()
	}
	state := t.TempDir()
	c, err := open(map[string]string{"XDG_STATE_HOME": state, "HOME": "/nowhere"})
	if err != nil || c.dir != filepath.Join(state, "softhem") {
		t.Fatal(c, err)
	}
	if info, err := os.Stat(c.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(c.dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := open(map[string]string{"XDG_STATE_HOME": state}); err == nil || !strings.Contains(err.Error(), "chmod 700 ") {
		t.Errorf("a folder open to others: %v", err)
	}
	home := t.TempDir()
	if c, err := open(map[string]string{"XDG_STATE_HOME": "relative", "HOME": home}); err != nil || c.dir != filepath.Join(home, ".local/state/softhem") {
		t.Error(c, err)
	}
	if _, err := open(nil); err == nil {
		t.Error("a folder without HOME")
	}
}
