package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/suite"
)

// A tokenCache keeps bearer tokens between commands, one file for each URL,
// role, scope and module:
//
//	<URL>-<role and scope>-<eid>.token
//
// each part being 16 bytes of its SHA-256 in hex. The folder has mode 0700 and
// the files 0600; what others can read, or is not ours, is not believed, and removed. Files
// are written beside and renamed, so that concurrent commands see whole ones.
//
// Which module answers at a URL is not known before asking it. So Get offers
// the token that ends last, and Delete removes those of every module.
type tokenCache struct {
	dir  string
	warn func(format string, args ...any)
}

const (
	tokenSuffix  = ".token"
	newSuffix    = ".new" // written, not yet renamed; comes after tokenSuffix
	maxTokenFile = 64 << 10
)

var _ hem.TokenCache = (*tokenCache)(nil)

// A tokenFile is what a file holds. Its name is no proof of what it is about,
// so it says so again.
type tokenFile struct {
	URL     string    `json:"url"`
	Role    api.Role  `json:"role"`
	Scope   string    `json:"scope"`
	EID     string    `json:"eid"`
	Opens   string    `json:"issued_scope"`
	Expires time.Time `json:"expires"`
	Bearer  string    `json:"bearer"`
}

// openCache finds the folder, or makes it.
func (o *options) openCache() (*tokenCache, error) {
	state := o.getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) { // a relative one is to be ignored
		home := o.getenv("HOME")
		if !filepath.IsAbs(home) {
			return nil, errors.New("neither XDG_STATE_HOME nor HOME names a folder")
		}
		state = filepath.Join(home, ".local", "state")
	}
	dir := filepath.Join(state, "softhem")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !private(info) {
		return nil, fmt.Errorf("%s belongs to someone else or is open to others; run: chmod 700 %s", dir, dir)
	}
	return &tokenCache{dir: dir, warn: o.warn}, nil
}

func part(text string) string {
	sum := suite.SHA256([]byte(text))
	return hex.EncodeToString(sum[:16])
}

// prefix is what the names of all files for key begin with.
func prefix(key hem.TokenKey) string {
	return part(key.URL) + "-" + part(string(key.Role)+" "+key.Scope) + "-"
}

// Get implements [hem.TokenCache].
func (c *tokenCache) Get(_ context.Context, key hem.TokenKey) (best hem.Token, found bool) {
	for _, path := range c.files(prefix(key), tokenSuffix) {
		f, ok := c.read(path)
		if !ok || f.URL != key.URL || f.Role != key.Role || f.Scope != key.Scope {
			continue
		}
		if !found || f.Expires.After(best.Expires) {
			best = hem.Token{Bearer: hem.Bearer(f.Bearer), Scope: f.Opens, Role: f.Role, EID: f.EID, Expires: f.Expires}
			found = true
		}
	}
	return best, found
}

// files are the paths whose names begin with prefix and end with suffix.
func (c *tokenCache) files(prefix, suffix string) (paths []string) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && strings.HasSuffix(e.Name(), suffix) {
			paths = append(paths, filepath.Join(c.dir, e.Name()))
		}
	}
	return paths
}

// read returns what a file holds, unless someone else could have read or
// written it, or the token has ended; then the file is removed.
func (c *tokenCache) read(path string) (tokenFile, bool) {
	var content tokenFile
	f, err := os.OpenFile(path, os.O_RDONLY|openNoFollow, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return content, false // another command removed it
	}
	if err != nil {
		c.remove(path)
		return content, false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || !private(info) || info.Size() > maxTokenFile {
		c.warn("%s is removed: it is not ours, or others can read it", path)
		c.remove(path)
		return content, false
	}
	if json.NewDecoder(f).Decode(&content) != nil || !time.Now().Before(content.Expires) {
		c.remove(path)
		return content, false
	}
	return content, true
}

func (c *tokenCache) remove(path string) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.warn("a kept token cannot be removed: %v", err)
	}
}

// Put implements [hem.TokenCache]. A token of the other persona, got with its
// passphrase, is not kept: it would be offered again for what it cannot do. One
// that an authenticator approved is kept as the user's.
func (c *tokenCache) Put(_ context.Context, key hem.TokenKey, t hem.Token) {
	approved := t.Role != api.RoleUser && t.Role != api.RoleMaster && key.Role == api.RoleUser
	if t.Role != key.Role && !approved {
		return
	}
	name := prefix(key) + part(t.EID) + tokenSuffix
	content, err := json.Marshal(tokenFile{
		URL: key.URL, Role: key.Role, Scope: key.Scope, EID: t.EID,
		Opens: t.Scope, Expires: t.Expires, Bearer: string(t.Bearer),
	})
	if err == nil {
		err = writeBeside(filepath.Join(c.dir, name), func(f *os.File) error {
			_, err := f.Write(content)
			return err
		})
	}
	if err != nil {
		c.warn("the token is not kept: %v", err)
	}
}

// Delete implements [hem.TokenCache].
func (c *tokenCache) Delete(_ context.Context, key hem.TokenKey) {
	for _, path := range c.files(prefix(key), tokenSuffix) {
		c.remove(path)
	}
}

// Clear implements [hem.TokenCache].
func (c *tokenCache) Clear(_ context.Context, url string) error {
	return c.clear(part(url) + "-")
}

// clear removes every file whose name begins with prefix, also those a command
// that was killed had not renamed yet.
func (c *tokenCache) clear(prefix string) error {
	var all error
	for _, path := range append(c.files(prefix, tokenSuffix), c.files(prefix, tokenSuffix+newSuffix)...) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = errors.Join(all, err)
		}
	}
	return all
}

// writeBeside has write fill a new file, mode 0600, and gives it its name when that
// went well. A crash leaves the old file or the new one.
func writeBeside(path string, write func(*os.File) error) (err error) {
	base := filepath.Base(path)
	ext := filepath.Ext(base)
	f, err := os.CreateTemp(filepath.Dir(path), strings.TrimSuffix(base, ext)+".*"+ext+newSuffix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// A writeOnly cache makes sure of a new token, which is kept.
type writeOnly struct{ hem.TokenCache }

func (writeOnly) Get(context.Context, hem.TokenKey) (hem.Token, bool) { return hem.Token{}, false }
