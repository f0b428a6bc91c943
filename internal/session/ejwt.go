package session

import (
	"encoding/base64"

	"softhem/api"
	"softhem/internal/suite"
)

// An eJWT is a compact JWS whose MAC key is an X25519 secret between the
// issuer and the party it is for:
//
//	header  = {"ecdh":"x25519","alg":"HS256","typ":"JWT"}   names in any order
//	MAC key = X25519(own private key, peer public key), 32 raw bytes
//	token   = b64url(header) "." b64url(claims) "." b64url(HMAC-SHA256(key, header "." claims))
//
// The issuer's public key stands in the claims, so the claims have to be
// looked into before the MAC can be checked; [OpenEJWT] lets nothing of them
// out unless it holds.

// The header in the order personas and authenticators write it, and in the
// order modules and backends do.
const (
	personaHeader = `{"ecdh":"x25519","alg":"HS256","typ":"JWT"}`
	moduleHeader  = `{"ecdh":"x25519","typ":"JWT","alg":"HS256"}`
)

// SignEJWT signs claims as the module does, under secret = X25519(own, peer).
func SignEJWT(secret []byte, claims any) (string, error) {
	return sign(base64.RawURLEncoding.EncodeToString([]byte(moduleHeader)), claims, suite.NewMACKey(secret))
}

// OpenEJWT checks token's form and header, derives the MAC key from the
// issuer it names with own, checks the MAC, and decodes the claims into
// claims. It returns the issuer's public key. Every failure is [ErrToken].
func OpenEJWT(own *suite.X25519Key, token string, claims any) (issuer [32]byte, err error) {
	return openEJWT(token, claims, func(issuer [32]byte) (*suite.MACKey, error) { return macKey(own, issuer) })
}

// OpenEJWTUnder is [OpenEJWT] with the MAC keys of some issuers at hand: known
// returns nil for all others.
func OpenEJWTUnder(own *suite.X25519Key, known func(issuer [32]byte) *suite.MACKey, token string, claims any) (issuer [32]byte, err error) {
	return openEJWT(token, claims, func(issuer [32]byte) (*suite.MACKey, error) {
		if key := known(issuer); key != nil {
			return key, nil
		}
		return macKey(own, issuer)
	})
}

// macKey is the MAC key between own and an issuer.
func macKey(own *suite.X25519Key, issuer [32]byte) (*suite.MACKey, error) {
	secret, err := own.Shared(issuer[:])
	if err != nil {
		return nil, refuse("iss is a point of low order")
	}
	defer clear(secret)
	return suite.NewMACKey(secret), nil
}

func openEJWT(token string, claims any, keyOf func(issuer [32]byte) (*suite.MACKey, error)) (issuer [32]byte, err error) {
	j, err := splitJWS(token)
	if err != nil {
		return issuer, err
	}
	if err := checkEJWTHeader(j.header); err != nil {
		return issuer, err
	}
	var who struct {
		Iss string `json:"iss"`
	}
	if err := decodeClaims(j.claims, &who); err != nil {
		return issuer, err
	}
	issuer, ok := Decode32(who.Iss)
	if !ok {
		return issuer, refuse("iss is not 32 bytes")
	}
	key, err := keyOf(issuer)
	if err != nil {
		return issuer, err
	}
	if !j.verify(key) {
		return issuer, refuse("MAC does not verify")
	}
	return issuer, decodeClaims(j.claims, claims)
}

func checkEJWTHeader(segment string) error {
	raw, err := segments64.DecodeString(segment)
	if err != nil {
		return refuse("header is not base64url")
	}
	if s := string(raw); s == personaHeader || s == moduleHeader {
		return nil
	}
	var h struct {
		Alg  string `json:"alg"`
		ECDH string `json:"ecdh"`
		Crit any    `json:"crit"`
	}
	if err := decodeClaims(raw, &h); err != nil {
		return refuse("header does not decode")
	}
	if h.Alg != "HS256" || h.ECDH != "x25519" {
		return refuse("alg or ecdh is not the one there is")
	}
	if h.Crit != nil {
		// RFC 7515 section 4.1.11: an extension that is not understood.
		return refuse("header has critical extensions")
	}
	return nil
}

// Decode32 reads a base64 field that must hold exactly 32 bytes.
func Decode32(s string) (b [32]byte, ok bool) {
	raw, err := api.DecodeBase64(s)
	if err != nil || len(raw) != len(b) {
		return b, false
	}
	return [32]byte(raw), true
}
