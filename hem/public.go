package hem

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/mlkem"
	"fmt"

	"softhem/api"
)

// A RawPublicKey is a public key that the standard library has no type for: secp256k1,
// Curve448, Ed448, ML-KEM-512 and ML-DSA. Raw is its form on the wire, see [RawPublic].
type RawPublicKey struct {
	Type api.KeyType
	Raw  []byte
}

// Equal tells whether x is the same key.
func (k RawPublicKey) Equal(x crypto.PublicKey) bool {
	other, ok := x.(RawPublicKey)
	return ok && k.Type == other.Type && bytes.Equal(k.Raw, other.Raw)
}

// publicSize is the length of a raw public key in bytes, 0 for a type that has none.
func publicSize(t api.KeyType) int {
	switch t {
	case api.SECP256R1, api.SECP256K1:
		return 33
	case api.SECP384R1:
		return 49
	case api.SECP521R1:
		return 67
	case api.Curve25519, api.Ed25519:
		return 32
	case api.Curve448:
		return 56
	case api.Ed448:
		return 57
	case api.MLKEM512:
		return 800
	case api.MLKEM768:
		return 1184
	case api.MLKEM1024:
		return 1568
	case api.MLDSA44:
		return 1312
	case api.MLDSA65:
		return 1952
	case api.MLDSA87:
		return 2592
	}
	return 0
}

// checkPublic checks type and length.
func checkPublic(t api.KeyType, raw []byte) error {
	switch size := publicSize(t); {
	case size == 0:
		return fmt.Errorf("%w: %q is no type of public keys", ErrArgument, t)
	case len(raw) != size:
		return fmt.Errorf("%w: a public key of type %s has %d bytes, not %d", ErrArgument, t, size, len(raw))
	}
	return nil
}

func badPoint(t api.KeyType) error {
	return fmt.Errorf("%w: not a public key of type %s", ErrArgument, t)
}

// ecCurve is the standard library's curve of a type, or nil.
func ecCurve(t api.KeyType) elliptic.Curve {
	switch t {
	case api.SECP256R1:
		return elliptic.P256()
	case api.SECP384R1:
		return elliptic.P384()
	case api.SECP521R1:
		return elliptic.P521()
	}
	return nil
}

// ParsePublic makes a key of the standard library from one in the protocol's raw form,
// see [RawPublic]:
//
//   - SECP256R1, SECP384R1, SECP521R1: [*ecdsa.PublicKey], whatever the mode; its method
//     ECDH gives the other kind
//   - ED25519: [ed25519.PublicKey]
//   - CURVE25519: [*ecdh.PublicKey]
//   - MLKEM768, MLKEM1024: [*mlkem.EncapsulationKey768] and [*mlkem.EncapsulationKey1024]
//   - the others: [RawPublicKey], of which the length is checked, and for SECP256K1 that
//     the point is on the curve
//
// What is no key of the type is [ErrArgument].
func ParsePublic(t api.KeyType, raw []byte) (crypto.PublicKey, error) {
	if err := checkPublic(t, raw); err != nil {
		return nil, err
	}
	var key crypto.PublicKey
	var err error
	switch t {
	case api.SECP256R1, api.SECP384R1, api.SECP521R1:
		var point []byte
		if point, err = uncompressed(t, raw); err == nil {
			key, err = ecdsa.ParseUncompressedPublicKey(ecCurve(t), point)
		}
	case api.Ed25519:
		return ed25519.PublicKey(bytes.Clone(raw)), nil
	case api.Curve25519:
		key, err = ecdh.X25519().NewPublicKey(raw)
	case api.MLKEM768:
		key, err = mlkem.NewEncapsulationKey768(raw)
	case api.MLKEM1024:
		key, err = mlkem.NewEncapsulationKey1024(raw)
	case api.SECP256K1:
		if _, err = uncompressed(t, raw); err != nil {
			break
		}
		fallthrough
	default:
		return RawPublicKey{Type: t, Raw: bytes.Clone(raw)}, nil
	}
	if err != nil {
		return nil, badPoint(t) // the standard library's error says no more
	}
	return key, nil
}

// RawPublic is the inverse of [ParsePublic]: the type of a key, and its form on the wire,
// which is
//
//   - for a NIST curve and secp256k1 the compressed point (SEC 1, 2.3.3), 33, 49 or 67
//     bytes
//   - for Curve25519 and Curve448 the u coordinate (RFC 7748), 32 and 56 bytes
//   - for Ed25519 and Ed448 the encoded point (RFC 8032), 32 and 57 bytes
//   - for ML-KEM the encapsulation key (FIPS 203), 800, 1184 or 1568 bytes
//   - for ML-DSA the public key (FIPS 204), 1312, 1952 or 2592 bytes
//
// It also takes an [*ecdh.PublicKey] on a NIST curve. Keys that no module knows, such as
// RSA keys, are [ErrArgument].
func RawPublic(key crypto.PublicKey) (api.KeyType, []byte, error) {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		for _, t := range []api.KeyType{api.SECP256R1, api.SECP384R1, api.SECP521R1} {
			if k == nil || k.Curve != ecCurve(t) {
				continue
			}
			point, err := k.Bytes()
			if err != nil {
				return "", nil, badPoint(t)
			}
			return t, compress(point), nil
		}
	case *ecdh.PublicKey:
		if k == nil {
			break
		}
		switch k.Curve() {
		case ecdh.X25519():
			return api.Curve25519, k.Bytes(), nil
		case ecdh.P256():
			return api.SECP256R1, compress(k.Bytes()), nil
		case ecdh.P384():
			return api.SECP384R1, compress(k.Bytes()), nil
		case ecdh.P521():
			return api.SECP521R1, compress(k.Bytes()), nil
		}
	case ed25519.PublicKey:
		if err := checkPublic(api.Ed25519, k); err != nil {
			return "", nil, err
		}
		return api.Ed25519, bytes.Clone(k), nil
	case *mlkem.EncapsulationKey768:
		return api.MLKEM768, k.Bytes(), nil
	case *mlkem.EncapsulationKey1024:
		return api.MLKEM1024, k.Bytes(), nil
	case RawPublicKey:
		if _, err := ParsePublic(k.Type, k.Raw); err != nil {
			return "", nil, err
		}
		return k.Type, bytes.Clone(k.Raw), nil
	}
	return "", nil, fmt.Errorf("%w: a module has no type for a public key that is a %T", ErrArgument, key)
}

// PublicKey is the key's public half as [ParsePublic] gives it. A symmetric key or a
// certificate has none ([ErrKeyType]).
func (k *Key) PublicKey() (crypto.PublicKey, error) {
	if publicSize(k.Type) == 0 {
		return nil, fmt.Errorf("%w: a key of type %s has no public half", ErrKeyType, k.Type)
	}
	return ParsePublic(k.Type, k.Public)
}
