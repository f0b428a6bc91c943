package hem

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"
	"unicode/utf8"

	"softhem/api"
)

const (
	pathToken = "/api/auth/token"

	challengeSeconds = 60 // a challenge ends this long after the module made it
	iatLeadSeconds   = 5  // claims are dated back by this much

	// A challenge older than this, because someone had to type a
	// passphrase, is replaced by a new one before it is used.
	challengeUse = 30 * time.Second
)

// Challenge asks for a login challenge and checks that it can be one: keys and
// nonce of 32 bytes, no point of low order, the pinned identity. A module
// with an identity other than the last is another module, so the key and
// all tokens in memory are dropped.
//
// Errors: 403 when the module's clock is not set, 409 when it is not
// personalised or has failed, [ErrProtocol], [ErrOtherModule].
func (c *Client) Challenge(ctx context.Context) (*api.Challenge, error) {
	const op = "ask for a challenge"
	var ch api.Challenge
	if err := c.get(ctx, op, pathToken, &ch); err != nil {
		return nil, err
	}
	err := c.points.checkChallenge(ch.Exp, ch.SPK, ch.JTI, ch.EID)
	if err == nil {
		err = c.meet(ch.EID)
	}
	if err != nil {
		return nil, &OpError{Op: op, Path: "GET " + pathToken, Err: err}
	}
	return &ch, nil
}

// checkChallenge refuses what a module never sends and what would weaken a
// login: with an spk of low order anyone knows the MAC key.
func (g *goodPoints) checkChallenge(exp int64, spk, jti, eid string) error {
	if exp <= challengeSeconds || exp > 1<<40 {
		return fmt.Errorf("%w: exp is not a time", ErrProtocol)
	}
	if _, err := decode32("jti", jti); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	for _, point := range []struct{ name, text string }{{"spk", spk}, {"eid", eid}} {
		raw, err := decode32(point.name, point.text)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if err := g.check(raw); err != nil {
			return fmt.Errorf("%w: %s is %w", ErrProtocol, point.name, err)
		}
	}
	return nil
}

// meet notes which module answers.
func (c *Client) meet(eid string) error {
	if err := c.checkPin(eid); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.eid == "" {
		// Tokens from the cache may have come in before anyone answered.
		maps.DeleteFunc(c.tokens, func(_ string, t Token) bool { return t.EID != eid })
	} else if c.eid != eid {
		c.drop()
	}
	c.eid = eid
	return nil
}

func (c *Client) checkPin(eid string) error {
	if c.pin == nil {
		return nil
	}
	if raw, err := api.DecodeBase64(eid); err != nil || !bytes.Equal(raw, c.pin) {
		return fmt.Errorf("%w: it is %s and should be %s", ErrOtherModule, printable(eid), api.EncodeBase64(c.pin))
	}
	return nil
}

// Login returns a token of the given scope, at most [api.MaxScopeChars]
// characters and possibly empty. One that is held and not yet due for renewal is returned as it is;
// [Client.Forget] first makes sure of a new one. Callers who want the same
// scope at the same time share one login, and each of them may leave early
// without disturbing the others. When a renewal fails while the old token still
// lives, the old one is returned.
//
// With a [Config.Token] it returns that, whatever the scope.
//
// Errors: 401 when the passphrase is wrong, 403 when the module's clock is not set, 409 when it
// is not personalised or has failed, 418 when it takes logins over TLS only, 429 when too
// many wait or have failed (after one wait of at most 90 s, if it says how long).
func (c *Client) Login(ctx context.Context, scope string) (Token, error) {
	token, err := c.token(ctx, scope)
	if err == nil && token.Bearer == "" {
		err = &OpError{Op: opLogin, Err: fmt.Errorf("%w: neither Passphrase, Key nor Token is configured", ErrArgument)}
	}
	return token, err
}

const opLogin = "log in"

// canLogin tells whether there is something to log in with.
func (c *Client) canLogin() bool { return c.cfg.Passphrase != nil || c.cfg.Key != nil }

// token is Login, except that without a credential it returns an empty Token: the
// module then decides whether it wants one.
func (c *Client) token(ctx context.Context, scope string) (Token, error) {
	if utf8.RuneCountInString(scope) > api.MaxScopeChars {
		return Token{}, &OpError{Op: opLogin, Err: fmt.Errorf("%w: the scope has more than %d characters", ErrArgument, api.MaxScopeChars)}
	}
	if c.cfg.Token != "" {
		return c.fixedToken(), nil
	}
	held, ok := c.held(ctx, scope)
	if ok && !held.due(c.cfg.Now(), c.cfg.RenewBefore) {
		return held, nil
	}
	if !c.canLogin() {
		return held, nil // perhaps none, perhaps about to end: nothing better will come
	}
	attempt := func(ctx context.Context) (Token, error) {
		// Whoever was waiting for the same scope may have finished just before.
		if t, ok := c.held(ctx, scope); ok && !t.due(c.cfg.Now(), c.cfg.RenewBefore) {
			return t, nil
		}
		return c.login(ctx, scope)
	}
	fresh, err := c.logins.do(ctx, scope, attempt)
	if c.waitRetry(ctx, err) {
		// Outside the shared attempt, so that everyone waits by their own
		// deadline; a new attempt also gets a new nonce.
		fresh, err = c.logins.do(ctx, scope, attempt)
	}
	switch {
	case err == nil:
		return fresh, nil
	case ctx.Err() != nil:
		return Token{}, unreachable(opLogin, "POST "+pathToken, c.base, ctx.Err())
	case ok && c.cfg.Now().Before(held.Expires) && !errors.Is(err, ErrOtherModule):
		return held, nil // a module in a fail state refuses logins, yet honours its tokens
	}
	return Token{}, err
}

// fixedToken is Config.Token with what can be read from it.
func (c *Client) fixedToken() Token {
	t := Token{Bearer: c.cfg.Token}
	if claims, err := InspectToken(string(t.Bearer)); err == nil {
		t.Scope, t.Role, t.Expires = claims.Scope, claims.Sub, time.Unix(claims.Exp, 0)
	}
	return t
}

// login gets a new token and keeps it.
func (c *Client) login(ctx context.Context, scope string) (Token, error) {
	for again := true; ; again = false {
		began := c.cfg.Now()
		ch, err := c.Challenge(ctx)
		if err != nil {
			return Token{}, err
		}
		epoch := c.currentEpoch()
		key, err := c.persona(ctx, ch.EID)
		if err != nil {
			return Token{}, err
		}
		if again && c.cfg.Now().Sub(began) > challengeUse {
			continue
		}
		c.cfg.Progress(StageLogin)
		text, err := c.prove(ctx, key, ch, scope)
		if err != nil {
			if errors.Is(err, api.ErrUnauthorized) {
				c.doubt(key)
			}
			return Token{}, err
		}
		token, err := newToken(text, ch.EID, began, ch.Exp-challengeSeconds)
		if err != nil {
			return Token{}, &OpError{Op: opLogin, Path: "POST " + pathToken, Err: err}
		}
		c.keep(ctx, scope, token, epoch)
		return token, nil
	}
}

// prove answers a challenge. All times are the module's: its challenge says
// what it takes for now, and a local clock that is wrong by more than a minute would
// have every login refused, or give tokens of the wrong length.
func (c *Client) prove(ctx context.Context, key *PersonaKey, ch *api.Challenge, scope string) (string, error) {
	spk, err := decode32("spk", ch.SPK)
	if err != nil {
		return "", err
	}
	now := ch.Exp - challengeSeconds
	claims := api.LoginClaims{
		JTI: ch.JTI, Aud: ch.SPK, Iat: now - iatLeadSeconds, Iss: api.EncodeBase64(key.Public()),
		Scope: scope, Ctx: c.cfg.TokenContext,
	}
	if c.cfg.TTL > 0 {
		claims.Exp = now + int64(c.cfg.TTL/time.Second)
	}
	auth, err := signEJWT(key, spk, claims)
	if err != nil {
		return "", &OpError{Op: opLogin, Err: err}
	}
	r := call{op: opLogin, method: http.MethodPost, path: pathToken}
	if r.body, err = json.Marshal(api.AuthRequest{Auth: auth}); err != nil {
		return "", r.fail(err)
	}
	// Not send: a second try needs a new nonce.
	resp, err := c.exchange(ctx, c.module, c.base, r, "")
	var answer api.TokenAnswer
	if err := c.read(resp, err, c.base, r, &answer); err != nil {
		return "", err
	}
	return answer.Token, nil
}

// persona returns the key for the module eid, deriving it if need be.
func (c *Client) persona(ctx context.Context, eid string) (*PersonaKey, error) {
	if c.cfg.Key != nil {
		return c.cfg.Key, nil
	}
	return c.derivations.do(ctx, eid, func(ctx context.Context) (*PersonaKey, error) {
		c.mu.Lock()
		key, epoch := c.key, c.epoch
		if c.eid != eid {
			key = nil
		}
		c.mu.Unlock()
		if key != nil {
			return key, nil
		}
		c.cfg.Progress(StagePassphrase)
		passphrase, err := c.cfg.Passphrase(ctx, c.cfg.Role)
		defer clear(passphrase)
		if err == nil {
			err = ctx.Err() // nobody waits any more
		}
		if err != nil {
			return nil, &OpError{Op: "ask for the passphrase", Err: err}
		}
		c.cfg.Progress(StageDerive)
		if key, err = DeriveKey(passphrase, eid); err != nil {
			return nil, &OpError{Op: "derive the key", Err: err}
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.epoch == epoch && c.eid == eid {
			c.key = key
		}
		return key, nil
	})
}

// doubt drops a derived key that the module did not accept, so that a mistyped
// passphrase is asked for again. It is not wiped: logins for other scopes may be
// signing with it, and should fail with the same 401.
func (c *Client) doubt(key *PersonaKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.key == key {
		c.key = nil
	}
}

// currentEpoch is what [Client.keep] wants to know of a login's beginning.
func (c *Client) currentEpoch() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.epoch
}

// keep stores a token, unless everything was forgotten since epoch.
func (c *Client) keep(ctx context.Context, scope string, t Token, epoch int) {
	c.mu.Lock()
	stale := c.epoch != epoch || c.eid != t.EID
	if !stale {
		// Who uses many keys gets a token for each; those that ended would pile up.
		now := c.cfg.Now()
		maps.DeleteFunc(c.tokens, func(_ string, old Token) bool { return !now.Before(old.Expires) })
		c.tokens[scope] = t
	}
	c.mu.Unlock()
	if !stale && c.cfg.TokenCache != nil {
		c.cfg.TokenCache.Put(ctx, c.tokenKey(scope), t)
	}
}

func (c *Client) tokenKey(scope string) TokenKey {
	return TokenKey{URL: c.base.String(), Role: c.cfg.Role, Scope: scope}
}

// held returns the token of scope that is known here, or else in the cache.
func (c *Client) held(ctx context.Context, scope string) (Token, bool) {
	c.mu.Lock()
	t, ok := c.tokens[scope]
	eid, epoch := c.eid, c.epoch
	c.mu.Unlock()
	if c.cfg.TokenCache == nil || ok && !t.due(c.cfg.Now(), c.cfg.RenewBefore) {
		return t, ok
	}
	// Another process may have logged in meanwhile.
	cached, found := c.cfg.TokenCache.Get(ctx, c.tokenKey(scope))
	if !found || cached.Bearer == "" || !cached.Bearer.plausible() || c.checkPin(cached.EID) != nil ||
		eid != "" && eid != cached.EID || ok && !cached.Expires.After(t.Expires) {
		return t, ok
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch == epoch {
		c.tokens[scope] = cached
	}
	return cached, true
}

// discard drops a token the module refused, here and in the cache, unless it
// was replaced already.
func (c *Client) discard(ctx context.Context, scope string, bad Token) {
	c.mu.Lock()
	if c.tokens[scope].Bearer == bad.Bearer {
		delete(c.tokens, scope)
	}
	c.mu.Unlock()
	if cache := c.cfg.TokenCache; cache != nil {
		if t, ok := cache.Get(ctx, c.tokenKey(scope)); ok && t.Bearer == bad.Bearer {
			cache.Delete(ctx, c.tokenKey(scope))
		}
	}
}
