package hem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"softhem/api"
)

// A Bearer is the text of a bearer token. Who has it can do what its scope
// opens, so it prints as a placeholder and cannot be marshalled; string(b) is the text.
type Bearer string

// Format implements [fmt.Formatter].
func (b Bearer) Format(s fmt.State, _ rune) {
	if b == "" {
		io.WriteString(s, "no token")
		return
	}
	io.WriteString(s, "[bearer token]")
}

// LogValue implements [slog.LogValuer].
func (b Bearer) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(b)) }

// MarshalText implements [encoding.TextMarshaler]; it always fails, so that no
// token ends up in JSON by accident.
func (b Bearer) MarshalText() ([]byte, error) {
	return nil, errors.New("a bearer token is not marshalled; convert it to a string first")
}

// plausible tells whether b can stand in an Authorization header.
func (b Bearer) plausible() bool {
	for _, r := range []byte(b) {
		if r <= ' ' || r > '~' {
			return false
		}
	}
	return true
}

// A Token is a bearer token and what it is good for. Expires is when it ends on
// the local clock, computed from how long the module said it would live, so that the
// two clocks need not agree.
type Token struct {
	Bearer  Bearer
	Scope   string
	Role    api.Role // as the module says; U when user and administrator share a key
	EID     string   // the module that issued it; empty for a [Config.Token]
	Expires time.Time
}

// newToken reads what a module issued. exchanged is the local time before the
// module's clock was read as moduleTime.
func newToken(text, eid string, exchanged time.Time, moduleTime int64) (Token, error) {
	claims, err := InspectToken(text)
	if err != nil || !Bearer(text).plausible() {
		return Token{}, fmt.Errorf("%w: it issued no bearer token", ErrProtocol)
	}
	const century = 100 * 365 * 24 * 60 * 60 // keeps the arithmetic of time.Duration from overflowing
	life := min(max(claims.Exp-moduleTime, 0), century)
	return Token{
		Bearer: Bearer(text), Scope: claims.Scope, Role: claims.Sub, EID: eid,
		// Without its monotonic part, which stands still while a laptop sleeps.
		Expires: exchanged.Round(0).Add(time.Duration(life) * time.Second),
	}, nil
}

// due tells whether t should be replaced before it is used again.
func (t Token) due(now time.Time, renewBefore time.Duration) bool {
	// A short-lived token would otherwise be due as soon as it is issued.
	if claims, err := InspectToken(string(t.Bearer)); err == nil {
		half := time.Duration(min(max(claims.Exp-claims.Iat, 0), 1<<32)) * time.Second / 2
		renewBefore = min(renewBefore, half)
	}
	return !now.Before(t.Expires.Add(-renewBefore))
}

// A TokenKey is what a [TokenCache] files a token under. The module's identity is
// part of the [Token] instead: which module answers at a URL is not known
// before asking it.
type TokenKey struct {
	URL   string // the module's, in the form of Config.URL without a slash at its end
	Role  api.Role
	Scope string
}

// A TokenCache keeps tokens between runs of a program. Tokens are secrets; the
// cache must keep other users from reading them. All methods are called by many
// goroutines at once, and should not block for long.
//
// A cache that fails only costs a login, so the first three methods return no
// error: it reports its own troubles.
type TokenCache interface {
	Get(ctx context.Context, key TokenKey) (Token, bool)
	Put(ctx context.Context, key TokenKey, t Token)
	Delete(ctx context.Context, key TokenKey)
	// Clear removes everything kept for one URL.
	Clear(ctx context.Context, url string) error
}
