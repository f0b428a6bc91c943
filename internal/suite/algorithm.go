package suite

import (
	"crypto/ecdh"
	"crypto/elliptic"
	"math/big"
	"slices"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"softhem/api"
)

// An Algorithm is a row of the table of key types: what keys of the type are
// made of and what they may do. Rows are shared and not to be modified; two
// keys are of one type if and only if their rows are the same pointer.
type Algorithm struct {
	Type api.KeyType

	// MaterialSize is what is stored of a private or secret key, in bytes:
	// the scalar in big-endian form for the NIST curves and secp256k1, the
	// scalar or seed of RFC 7748 and RFC 8032, the bytes of a symmetric key,
	// d ‖ z of FIPS 203, ξ of FIPS 204.
	MaterialSize int

	// PublicSize is the length of the public key on the wire, 0 for
	// symmetric keys.
	PublicSize int

	// HasMode tells that a key's mode chooses between ECDH and ExDSA. Both
	// fields below are true then.
	HasMode bool

	ECDH, ExDSA, MAC, Cipher, KEM, MLDSA bool

	order         *big.Int // of the group, where material is a scalar in [1, order-1]
	scheme        scheme
	privateMemory int // bytes of heap of an opened private or secret key
	publicMemory  int // and of an opened public one
}

// A scheme turns bytes into opened keys. It is called with the lengths of its
// row only.
type scheme interface {
	newMaterial() []byte
	open(material []byte) (opened, error)
	openPublic(public []byte) (opened, error)
}

// scalarExtra is how many bytes more than the order has are reduced to a
// scalar, so that its distribution is within 2^-128 of uniform (FIPS 186-5
// appendix A.2.1 asks for 64 bits, the protocol for 128).
const scalarExtra = 16

// algorithms is in the order of api.KeyTypes. TestTable holds it against part
// 3 of the protocol, TestMemory the figures of memory against the heap.
var algorithms = [...]*Algorithm{
	curve(api.SECP256R1, 33, elliptic.P256().Params().N, nist{elliptic.P256(), ecdh.P256()}, 1900, 700),
	curve(api.SECP384R1, 49, elliptic.P384().Params().N, nist{elliptic.P384(), ecdh.P384()}, 2200, 800),
	curve(api.SECP521R1, 67, elliptic.P521().Params().N, nist{elliptic.P521(), ecdh.P521()}, 2600, 950),
	curve(api.SECP256K1, 33, secp256k1.Params().N, koblitz{}, 300, 300),
	{Type: api.Curve25519, MaterialSize: 32, PublicSize: 32, ECDH: true, scheme: x25519Scheme{}, privateMemory: 500, publicMemory: 400},
	{Type: api.Curve448, MaterialSize: 56, PublicSize: 56, ECDH: true, scheme: x448Scheme{}, privateMemory: 250, publicMemory: 200},
	{Type: api.Ed25519, MaterialSize: 32, PublicSize: 32, ExDSA: true, scheme: ed25519Scheme{}, privateMemory: 550, publicMemory: 200},
	{Type: api.Ed448, MaterialSize: 57, PublicSize: 57, ExDSA: true, scheme: ed448Scheme{}, privateMemory: 300, publicMemory: 200},
	macKeys(api.SHA2x256, 32),
	macKeys(api.SHA2x384, 48),
	macKeys(api.SHA2x512, 64),
	macKeys(api.SHA3x256, 32),
	macKeys(api.SHA3x384, 48),
	macKeys(api.SHA3x512, 64),
	{Type: api.AES128, MaterialSize: 16, Cipher: true, scheme: plainKeys(16), privateMemory: 150},
	{Type: api.AES192, MaterialSize: 24, Cipher: true, scheme: plainKeys(24), privateMemory: 150},
	{Type: api.AES256, MaterialSize: 32, Cipher: true, scheme: plainKeys(32), privateMemory: 150},
	{Type: api.MLKEM512, MaterialSize: 64, PublicSize: 800, KEM: true, scheme: mlkem512Scheme(), privateMemory: 5800, publicMemory: 4600},
	{Type: api.MLKEM768, MaterialSize: 64, PublicSize: 1184, KEM: true, scheme: mlkem768Scheme(), privateMemory: 17000, publicMemory: 8200},
	{Type: api.MLKEM1024, MaterialSize: 64, PublicSize: 1568, KEM: true, scheme: mlkem1024Scheme(), privateMemory: 27000, publicMemory: 13000},
	{Type: api.MLDSA44, MaterialSize: 32, PublicSize: 1312, MLDSA: true, scheme: mldsa44Scheme(), privateMemory: 58000, publicMemory: 26000},
	{Type: api.MLDSA65, MaterialSize: 32, PublicSize: 1952, MLDSA: true, scheme: mldsa65Scheme(), privateMemory: 86000, publicMemory: 44000},
	{Type: api.MLDSA87, MaterialSize: 32, PublicSize: 2592, MLDSA: true, scheme: mldsa87Scheme(), privateMemory: 122000, publicMemory: 72000},
}

// curve is the row of a curve with two uses, where material is a scalar.
func curve(t api.KeyType, publicSize int, order *big.Int, s scheme, privateMemory, publicMemory int) *Algorithm {
	return &Algorithm{
		Type: t, MaterialSize: (order.BitLen() + 7) / 8, PublicSize: publicSize, HasMode: true, ECDH: true, ExDSA: true,
		order: order, scheme: s, privateMemory: privateMemory, publicMemory: publicMemory,
	}
}

// macKeys is the row of the HMAC keys named by their hash.
func macKeys(t api.KeyType, size int) *Algorithm {
	hash, _ := HashOf(string(t))
	return &Algorithm{Type: t, MaterialSize: size, MAC: true, scheme: hmacScheme{hash, size}, privateMemory: 450}
}

// Algorithms lists the table in the order of api.KeyTypes.
func Algorithms() []*Algorithm { return slices.Clone(algorithms[:]) }

// AlgorithmOf finds the row of a key type.
func AlgorithmOf(t api.KeyType) (*Algorithm, bool) {
	for _, a := range algorithms {
		if a.Type == t {
			return a, true
		}
	}
	return nil, false
}

// NewMaterial makes fresh key material of MaterialSize bytes from the
// operating system's randomness. Open takes it.
func (a *Algorithm) NewMaterial() []byte { return a.scheme.newMaterial() }

// DerivedSize is how many bytes of derived key MaterialFrom takes: those of
// the order and 16 more where they are reduced to a scalar, MaterialSize
// otherwise, and 0 for the post-quantum types, which cannot be derived.
func (a *Algorithm) DerivedSize() int {
	switch {
	case a.KEM || a.MLDSA:
		return 0
	case a.order != nil:
		return a.MaterialSize + scalarExtra
	default:
		return a.MaterialSize
	}
}

// MinSecret is the length in bytes of the shortest ECDH secret that a key of
// this type may be derived from.
func (a *Algorithm) MinSecret() int { return a.MaterialSize }

// MaterialFrom turns derived bytes into key material. For the NIST curves and
// secp256k1 the scalar is (okm mod (n-1)) + 1 with okm read in big-endian
// order (FIPS 186-5 appendix A.2.1); the other types take okm as it is. It
// returns ErrKey unless okm has DerivedSize bytes, and always for the
// post-quantum types.
//
// The reduction uses math/big, whose time depends on the operands. It happens
// once in the life of a key, never again while the key is used.
func (a *Algorithm) MaterialFrom(okm []byte) ([]byte, error) {
	if a.DerivedSize() == 0 || len(okm) != a.DerivedSize() {
		return nil, ErrKey
	}
	if a.order == nil {
		return slices.Clone(okm), nil
	}
	one := big.NewInt(1)
	d := new(big.Int).SetBytes(okm)
	d.Mod(d, new(big.Int).Sub(a.order, one))
	d.Add(d, one)
	return d.FillBytes(make([]byte, a.MaterialSize)), nil
}

// Open expands private or secret key material, of which it keeps a copy. It
// returns ErrKey for a wrong length or a scalar outside [1, n-1].
func (a *Algorithm) Open(material []byte) (*Key, error) {
	if len(material) != a.MaterialSize {
		return nil, ErrKey
	}
	o, err := a.scheme.open(material)
	if err != nil {
		return nil, ErrKey
	}
	return newKey(a, true, o), nil
}

// OpenPublic reads a public key in the form of the wire: compressed X9.62
// points for the NIST curves and secp256k1, the raw encodings of RFC 7748, RFC
// 8032, FIPS 203 and FIPS 204. It returns ErrKey for symmetric types, a wrong
// length, and bytes that are not the one encoding of a point on the curve or
// of a vector over the field. X25519 and X448 are the exception, as RFC 7748
// has it: there any bytes are a point, and SharedSecret refuses the bad ones.
//
// Points of low order on the curves of Ed25519 and Ed448 are taken, as RFC 8032
// takes them: who imports such a key has one under which signatures mean
// nothing.
func (a *Algorithm) OpenPublic(public []byte) (*Key, error) {
	if a.PublicSize == 0 || len(public) != a.PublicSize {
		return nil, ErrKey
	}
	o, err := a.scheme.openPublic(public)
	if err != nil {
		return nil, ErrKey
	}
	return newKey(a, false, o), nil
}
