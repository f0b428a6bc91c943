package hem

import (
	"encoding/hex"
	"fmt"

	"softhem/api"
)

// A KID names a key in a module: 16 bytes, written as 32 hex digits. The kid of an
// imported key is the beginning of SHA-1 over its raw public key, and in SoftHEM so is
// that of every key with a public half; others are random. It is no secret.
//
// KIDs compare with ==, and serve as map keys and as JSON strings.
type KID [api.KIDBytes]byte

// ParseKID reads exactly 32 hex digits of either case. Other text is [ErrArgument].
func ParseKID(s string) (KID, error) {
	var k KID
	err := k.UnmarshalText([]byte(s))
	return k, err
}

// String is the 32 hex digits in lower case.
func (k KID) String() string { return hex.EncodeToString(k[:]) }

// MarshalText implements [encoding.TextMarshaler] with the form of [KID.String]. It never
// fails.
func (k KID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, k[:]), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]; see [ParseKID]. It leaves k alone
// when it fails.
func (k *KID) UnmarshalText(text []byte) error {
	var parsed KID
	if len(text) != hex.EncodedLen(len(parsed)) {
		return fmt.Errorf("%w: a kid has %d hex digits, not %d characters", ErrArgument, hex.EncodedLen(len(parsed)), len(text))
	}
	if _, err := hex.Decode(parsed[:], text); err != nil {
		return fmt.Errorf("%w: a kid has hex digits only", ErrArgument)
	}
	*k = parsed
	return nil
}

// scopeUse is the scope of every operation with key k.
func (k KID) scopeUse() string { return api.ScopeKeyUse(k.String()) }
