package session

import (
	"strings"

	"softhem/api"
	"softhem/internal/suite"
)

// A sealed scope carries a scope between the module and one authenticator
// through the broker, which can neither read nor change it. There is one
// scheme, A:
//
//	K      = HMAC-SHA256(X25519(aid, eid), jti)
//	sealed = "A" ‖ base64(AES-128-CBC(key K[0:16], iv K[16:32], scope, PKCS #7) ‖ HMAC-SHA256(K, scope))
//
// jti is the nonce of the authorisation request, 32 bytes, so K serves one
// request: for the scope that was asked for, and for the one that was granted.
//
// Where a request came from is sealed in the same way under a key of its own, so that
// neither opens as the other:
//
//	K = HMAC-SHA256(X25519(aid, eid), jti ‖ "from")
const (
	scopeScheme = "A"
	fromLabel   = "from"
)

// SealScope seals a scope. secret is set up with X25519(aid, eid).
func SealScope(secret *suite.MACKey, jti Nonce, scope string) string {
	return sealText(secret.Sum(jti[:]), scope)
}

// SealFrom seals the address that a request came from.
func SealFrom(secret *suite.MACKey, jti Nonce, address string) string {
	return sealText(secret.Sum(jti[:], []byte(fromLabel)), address)
}

func sealText(k [suite.MACSize]byte, text string) string {
	defer clear(k[:])
	ciphertext := suite.EncryptCBC128([16]byte(k[:16]), [16]byte(k[16:]), []byte(text))
	return scopeScheme + api.EncodeBase64(append(ciphertext, suite.HMACSHA256(k[:], []byte(text))...))
}

// OpenScope opens a sealed scope, or returns [ErrToken].
//
// The MAC is over the plaintext, so the padding is looked at first; both
// failures look the same, and only the authenticator itself can make a reply
// whose own MAC lets it come this far.
func OpenScope(secret *suite.MACKey, jti Nonce, sealed string) (string, error) {
	text, ok := strings.CutPrefix(sealed, scopeScheme)
	if !ok {
		return "", refuse("sealed by an unknown scheme")
	}
	raw, err := api.DecodeBase64(text)
	if err != nil || len(raw) < suite.MACSize {
		return "", refuse("a sealed scope that is none")
	}
	k := secret.Sum(jti[:])
	defer clear(k[:])
	ciphertext, mac := raw[:len(raw)-suite.MACSize], raw[len(raw)-suite.MACSize:]
	plain, err := suite.DecryptCBC128([16]byte(k[:16]), [16]byte(k[16:]), ciphertext)
	if err != nil || !suite.Equal(mac, suite.HMACSHA256(k[:], plain)) {
		return "", refuse("a sealed scope that does not open")
	}
	return string(plain), nil
}
