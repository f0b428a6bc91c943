package session

import (
	"encoding/base64"
	"errors"
	"strings"

	"github.com/go-json-experiment/json"

	"softhem/internal/suite"
)

// ErrToken is the one answer to a token that does not hold, whatever is wrong
// with it. The cause wrapped beside it is for the operator's log only.
var ErrToken = errors.New("token refused")

// A refusal is ErrToken with a cause that must not leave the module.
type refusal struct{ cause string }

func (r refusal) Error() string        { return "token refused: " + r.cause }
func (r refusal) Is(target error) bool { return target == ErrToken }

func refuse(cause string) error { return refusal{cause} }

// segments64 is the alphabet of a JWS segment (RFC 7515 section 2): URL-safe,
// no padding, and no spare bits set, so that a segment has one spelling.
var segments64 = base64.RawURLEncoding.Strict()

// A jws is a compact serialisation (RFC 7515 section 3.1) taken apart but not
// yet checked.
type jws struct {
	header string // first segment, still encoded
	signed string // what the MAC covers: first two segments and their dot
	claims []byte // second segment, decoded
	mac    []byte // third segment, decoded
}

func splitJWS(token string) (jws, error) {
	h, rest, ok1 := strings.Cut(token, ".")
	c, m, ok2 := strings.Cut(rest, ".")
	if !ok1 || !ok2 || strings.IndexByte(m, '.') >= 0 {
		return jws{}, refuse("not three segments")
	}
	// encoding/base64 skips line breaks even in strict mode.
	if strings.IndexByte(token, '\n') >= 0 || strings.IndexByte(token, '\r') >= 0 {
		return jws{}, refuse("line break in a segment")
	}
	claims, err := segments64.DecodeString(c)
	if err != nil {
		return jws{}, refuse("claims are not base64url")
	}
	mac, err := segments64.DecodeString(m)
	if err != nil || len(mac) != suite.MACSize {
		return jws{}, refuse("MAC is not 32 bytes of base64url")
	}
	return jws{header: h, signed: token[:len(h)+1+len(c)], claims: claims, mac: mac}, nil
}

func (j jws) verify(key *suite.MACKey) bool {
	mac := key.Sum([]byte(j.signed))
	return suite.Equal(mac[:], j.mac)
}

// sign joins an encoded header and claims and appends the MAC.
func sign(header string, claims any, key *suite.MACKey) (string, error) {
	body, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	out := make([]byte, 0, len(header)+2+segments64.EncodedLen(len(body))+segments64.EncodedLen(suite.MACSize))
	out = append(out, header...)
	out = append(out, '.')
	out = segments64.AppendEncode(out, body)
	mac := key.Sum(out)
	out = append(out, '.')
	out = segments64.AppendEncode(out, mac[:])
	return string(out), nil
}

// decodeClaims reads JSON strictly: names in their exact case, none twice,
// valid UTF-8, nothing after the object. Unknown names are ignored.
func decodeClaims(data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return refuse("claims do not decode")
	}
	return nil
}
