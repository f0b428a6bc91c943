package hem

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"softhem/api"
)

// jwkName is the kty of a key type, and its crv, or its alg for AKP; empty for types that
// JOSE has no settled name for.
func jwkName(t api.KeyType) (kty, name string) {
	switch t {
	case api.SECP256R1:
		return "EC", "P-256"
	case api.SECP384R1:
		return "EC", "P-384"
	case api.SECP521R1:
		return "EC", "P-521"
	case api.SECP256K1:
		return "EC", "secp256k1"
	case api.Curve25519:
		return "OKP", "X25519"
	case api.Curve448:
		return "OKP", "X448"
	case api.Ed25519:
		return "OKP", "Ed25519"
	case api.Ed448:
		return "OKP", "Ed448"
	case api.MLDSA44:
		return "AKP", "ML-DSA-44"
	case api.MLDSA65:
		return "AKP", "ML-DSA-65"
	case api.MLDSA87:
		return "AKP", "ML-DSA-87"
	}
	return "", ""
}

// MarshalJWK writes a raw public key as a JSON Web Key (RFC 7517) in one line, with the
// member kid if kid is not empty, which may be any UTF-8 text:
//
//	{"kty":"EC","crv":"P-256","x":"…","y":"…","kid":"…"}
//	{"kty":"OKP","crv":"Ed25519","x":"…","kid":"…"}
//	{"kty":"AKP","alg":"ML-DSA-65","pub":"…","kid":"…"}
//
// The NIST curves follow RFC 7518, section 6.2, secp256k1 RFC 8812, the four of
// Curve25519 to Ed448 RFC 8037, and ML-DSA RFC 9964, where alg is what names the
// parameters. Otherwise alg is left out, as are use and key_ops: a key's type does not
// tell them.
//
// ML-KEM keys, which have no settled form in JOSE, are [ErrArgument]; so is what is no
// key of the type.
func MarshalJWK(t api.KeyType, raw []byte, kid string) ([]byte, error) {
	kty, name := jwkName(t)
	if kty == "" {
		return nil, fmt.Errorf("%w: there is no JWK of type %q", ErrArgument, t)
	}
	if !utf8.ValidString(kid) {
		return nil, fmt.Errorf("%w: kid is not UTF-8 text", ErrArgument)
	}
	if err := checkPublic(t, raw); err != nil {
		return nil, err
	}
	jwk := struct {
		KTY string `json:"kty"`
		CRV string `json:"crv,omitempty"`
		Alg string `json:"alg,omitempty"`
		X   string `json:"x,omitempty"`
		Y   string `json:"y,omitempty"`
		Pub string `json:"pub,omitempty"`
		KID string `json:"kid,omitempty"`
	}{KTY: kty, KID: kid}
	text := base64.RawURLEncoding.EncodeToString
	switch kty {
	case "EC":
		point, err := uncompressed(t, raw)
		if err != nil {
			return nil, err
		}
		size := scalarSize(t)
		jwk.CRV, jwk.X, jwk.Y = name, text(point[1:1+size]), text(point[1+size:])
	case "OKP":
		jwk.CRV, jwk.X = name, text(raw)
	case "AKP":
		jwk.Alg, jwk.Pub = name, text(raw)
	}
	return json.Marshal(jwk)
}
