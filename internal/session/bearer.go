package session

import (
	"encoding/binary"

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
	j, err := splitJWS(token)
	if err != nil {
		return api.TokenClaims{}, err
	}
	// The module takes back only what it made itself, to the letter, so there
	// is no header to interpret and no algorithm to be talked into.
	if j.header != bearerHeader {
		return api.TokenClaims{}, refuse("not a bearer token's header")
	}
	var claims api.TokenClaims
	if err := decodeClaims(j.claims, &claims); err != nil {
		return api.TokenClaims{}, err
	}
	generation, known := g.Generation(claims.Sub)
	if !known || !j.verify(b.bearerKey(claims.Sub, generation)) {
		return api.TokenClaims{}, refuse("MAC does not verify")
	}
	if now >= claims.Exp {
		return api.TokenClaims{}, refuse("token has expired")
	}
	return claims, nil
}
