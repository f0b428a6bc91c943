// Package suite holds the cryptography: bytes in, bytes out. It is the only
// place of the server that imports primitives. It knows no clock, no store
// and no network, and every function is safe for concurrent use.
package suite

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
)

// Sizes in bytes.
const (
	X25519Size    = 32 // RFC 7748 scalar, point and shared secret
	Ed25519Seed   = ed25519.SeedSize
	Ed25519Public = ed25519.PublicKeySize
	Ed25519Sig    = ed25519.SignatureSize
	MACSize       = sha256.Size // HMAC-SHA256
)

// ErrKey is returned for key material of the wrong length or a point that
// gives no secret (RFC 7748 section 6.1: the all-zero output).
var ErrKey = errors.New("unusable key")

// Random fills and returns n bytes from the operating system. It never fails:
// crypto/rand ends the process instead.
func Random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// An X25519Key is a private scalar with its public point.
type X25519Key struct {
	priv   *ecdh.PrivateKey
	public [X25519Size]byte
}

// NewX25519Key takes a 32-byte scalar; clamping happens inside X25519.
func NewX25519Key(scalar []byte) (*X25519Key, error) {
	priv, err := ecdh.X25519().NewPrivateKey(scalar)
	if err != nil {
		return nil, ErrKey
	}
	k := &X25519Key{priv: priv}
	copy(k.public[:], priv.PublicKey().Bytes())
	return k, nil
}

// Public returns the 32-byte public point.
func (k *X25519Key) Public() []byte { return bytes.Clone(k.public[:]) }

// Shared returns the 32-byte X25519 secret with peer, or ErrKey when peer is
// not 32 bytes or of low order.
func (k *X25519Key) Shared(peer []byte) ([]byte, error) {
	pub, err := ecdh.X25519().NewPublicKey(peer)
	if err != nil {
		return nil, ErrKey
	}
	secret, err := k.priv.ECDH(pub)
	if err != nil {
		return nil, ErrKey
	}
	return secret, nil
}

// HMACSHA256 is HMAC (RFC 2104) over the concatenation of parts.
func HMACSHA256(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// A MACKey is HMAC-SHA256 under one key that is used many times: the key is
// set up once, not for every message.
type MACKey struct{ states *hmacStates }

// NewMACKey sets up key, of which it keeps a copy in its states.
func NewMACKey(key []byte) *MACKey {
	return &MACKey{newHMACStates(sha256.New, key)}
}

// Sum is the MAC of the concatenation of parts.
func (m *MACKey) Sum(parts ...[]byte) (mac [MACSize]byte) {
	m.states.sum(mac[:0], parts...)
	return mac
}

// SHA256 is the digest of b.
func SHA256(b []byte) [sha256.Size]byte { return sha256.Sum256(b) }

// Equal compares in time that depends on the lengths alone.
func Equal(a, b []byte) bool { return hmac.Equal(a, b) }

// An Ed25519Key signs per RFC 8032, plain Ed25519.
type Ed25519Key struct{ priv ed25519.PrivateKey }

// NewEd25519Key takes the 32-byte seed.
func NewEd25519Key(seed []byte) (*Ed25519Key, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, ErrKey
	}
	return &Ed25519Key{ed25519.NewKeyFromSeed(seed)}, nil
}

// Public returns the 32-byte public key.
func (k *Ed25519Key) Public() []byte {
	return bytes.Clone(k.priv[ed25519.SeedSize:])
}

// Sign returns the 64-byte signature of msg.
func (k *Ed25519Key) Sign(msg []byte) []byte { return ed25519.Sign(k.priv, msg) }

// VerifyEd25519 checks a 64-byte signature under a 32-byte public key.
func VerifyEd25519(public, msg, sig []byte) bool {
	return len(public) == ed25519.PublicKeySize && len(sig) == ed25519.SignatureSize &&
		ed25519.Verify(public, msg, sig)
}

// Ed25519KeyFromPKCS8 takes a private key as RFC 8410 has it, the content of OpenSSL's
// PEM files.
func Ed25519KeyFromPKCS8(der []byte) (*Ed25519Key, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, ErrKey
	}
	priv, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, ErrKey
	}
	return &Ed25519Key{priv}, nil
}
