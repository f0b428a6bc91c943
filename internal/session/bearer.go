package session

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"softhem/api"
	"softhem/internal/suite"
)

// A bearer token is a JWT with exactly this header and the claims of
// api.TokenClaims:
//
//	b64url({"typ":"JWT","alg":"HS256"}) "." b64url(claims) "." b64url(HMAC-SHA256(key(sub), header "." claims))
//	key(sub) = HMAC-SHA256(boot secret, "bearer" ‖ 0x00 ‖ sub ‖ 0x00 ‖ generation of sub, 8 bytes little-endian)
//
// so a reboot kills all tokens, and a new generation of a sub exactly its own.
const bearerHeader = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9" // {"typ":"JWT","alg":"HS256"}

// Generations tells the current generation of a sub, and whether the module
// knows that sub at all.
type Generations interface {
	Generation(sub api.Role) (generation uint64, known bool)
}

type bearerID struct {
	sub        api.Role
	generation uint64
}

// bearerKey is called only for subs the module knows, so that no stranger
// decides how many keys are kept.
func (b *Boot) bearerKey(sub api.Role, generation uint64) *suite.MACKey {
	id := bearerID{sub, generation}
	if key, ok := b.bearerKeys.Load(id); ok {
		return key.(*suite.MACKey)
	}
	gen := binary.LittleEndian.AppendUint64(nil, generation)
	raw := b.secret.Sum([]byte("bearer\x00"), []byte(sub), []byte{0}, gen)
	key, _ := b.bearerKeys.LoadOrStore(id, suite.NewMACKey(raw[:]))
	return key.(*suite.MACKey)
}

// IssueToken signs claims for the current generation of their sub.
func (b *Boot) IssueToken(claims api.TokenClaims, g Generations) (string, error) {
	generation, known := g.Generation(claims.Sub)
	if !known {
		return "", refuse("no such sub")
	}
	return sign(bearerHeader, claims, b.bearerKey(claims.Sub, generation))
}

// OpenToken checks a bearer token at the module's time now (Unix seconds) and
// returns its claims. Every failure is [ErrToken].
func (b *Boot) OpenToken(token string, g Generations, now int64) (api.TokenClaims, error) {
	digest := suite.SHA256([]byte(token))
	o, ok := b.tokens.get(digest)
	if !ok {
		var err error
		if o, err = b.openToken(token, g); err != nil {
			return api.TokenClaims{}, err
		}
		b.tokens.put(digest, o)
	}
	if generation, known := g.Generation(o.claims.Sub); !known || generation != o.generation {
		return api.TokenClaims{}, refuse("token of another generation")
	}
	if now >= o.claims.Exp {
		return api.TokenClaims{}, refuse("token has expired")
	}
	return o.claims, nil
}

// openToken does of OpenToken what has the same result every time.
func (b *Boot) openToken(token string, g Generations) (*openedToken, error) {
	j, err := splitJWS(token)
	if err != nil {
		return nil, err
	}
	// The module takes back only what it made itself, to the letter, so there
	// is no header to interpret and no algorithm to be talked into.
	if j.header != bearerHeader {
		return nil, refuse("not a bearer token's header")
	}
	o := new(openedToken)
	if err := decodeClaims(j.claims, &o.claims); err != nil {
		return nil, err
	}
	var known bool
	o.generation, known = g.Generation(o.claims.Sub)
	if !known || !j.verify(b.bearerKey(o.claims.Sub, o.generation)) {
		return nil, refuse("MAC does not verify")
	}
	return o, nil
}

// openedTokens remembers what is in tokens that have been opened, so that one
// that is used a thousand times is decoded once. It knows a token by its
// SHA-256: how long a look takes tells nothing of what is remembered, and no
// token stands in memory for its sake.
type openedTokens struct {
	tokens atomic.Pointer[sync.Map] // of [32]byte to *openedToken
	count  atomic.Int64             // about how many those are
}

type openedToken struct {
	claims     api.TokenClaims
	generation uint64 // of its sub, whose key its MAC was made with
}

// maxOpenedTokens is from when on all are forgotten: a few megabytes. They come
// from logins, which are slow.
const maxOpenedTokens = 8192

func (t *openedTokens) get(digest [32]byte) (*openedToken, bool) {
	tokens := t.tokens.Load()
	if tokens == nil {
		return nil, false
	}
	o, ok := tokens.Load(digest)
	if !ok {
		return nil, false
	}
	return o.(*openedToken), true
}

func (t *openedTokens) put(digest [32]byte, o *openedToken) {
	tokens := t.tokens.Load()
	if tokens == nil || t.count.Load() >= maxOpenedTokens {
		fresh := new(sync.Map)
		if t.tokens.CompareAndSwap(tokens, fresh) {
			t.count.Store(0)
		}
		tokens = t.tokens.Load()
	}
	if _, there := tokens.LoadOrStore(digest, o); !there {
		t.count.Add(1)
	}
}
