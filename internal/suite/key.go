package suite

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// ErrMismatch is returned when a key and an algorithm do not fit, and when a
// signature, tag, padding or integrity check is wrong. It does not say which,
// and whoever answers a client must not either.
var ErrMismatch = errors.New("key, algorithm or data do not fit")

// A Key is opened key material with everything expanded that its operations
// need more than once. It is safe for concurrent use.
//
// A Key does not show itself: fmt, log/slog and every encoder that asks for
// text see "[key]". Where fmt calls no methods, which is on unexported fields
// of other structs, it sees the address of a function: what is behind one, no
// reflection reaches.
type Key struct {
	alg     *Algorithm
	private bool
	opened  func() opened
}

func newKey(a *Algorithm, private bool, o opened) *Key {
	return &Key{a, private, func() opened { return o }}
}

// opened is a key in the form of its library. Beside wire it has the methods of what it can do: agreer,
// digestSigner, edSigner, macker, encapsulator or messageSigner.
type opened interface {
	// wire is the public key on the wire, nil for symmetric keys.
	wire() []byte
}

// An agreer computes a shared secret with another key of its algorithm. It
// fails if it is public itself or if the two give no secret.
type agreer interface {
	shared(peer opened) ([]byte, error)
}

// A secretHolder has the bytes of a symmetric key.
type secretHolder interface{ secret() []byte }

// Algorithm is the row of the key's type.
func (k *Key) Algorithm() *Algorithm { return k.alg }

// Private tells whether the key holds private or secret material.
func (k *Key) Private() bool { return k.private }

// Public is the public key on the wire, nil for symmetric keys. It is shared
// and not to be modified.
func (k *Key) Public() []byte { return k.opened().wire() }

// Secret is the bytes of a symmetric key, nil for all others. They are shared
// and not to be modified.
func (k *Key) Secret() []byte {
	if s, ok := k.opened().(secretHolder); ok {
		return s.secret()
	}
	return nil
}

// MemoryBytes is about what the opened key takes on the heap: a measure for
// caches with a bound, right within a factor of two.
func (k *Key) MemoryBytes() int {
	if k.private {
		return k.alg.privateMemory
	}
	return k.alg.publicMemory
}

// SharedSecret is the whole ECDH secret with peer, which may be a public or a
// private key: the x coordinate in the length of the field for the NIST curves
// and secp256k1 (SEC 1 section 3.3.1), the output of RFC 7748 for the others.
// It returns ErrKey if k is not private, the types differ or cannot agree, or
// the two give no secret: with a point of low order the output of X25519 and
// X448 would be zero whatever the private key. On the other curves, which have
// no such points, an x coordinate of zero is a secret like any other.
func (k *Key) SharedSecret(peer *Key) ([]byte, error) {
	a, ok := k.opened().(agreer)
	if !ok || !k.private || peer == nil || peer.alg != k.alg {
		return nil, ErrKey
	}
	secret, err := a.shared(peer.opened())
	if err != nil {
		return nil, ErrKey
	}
	return secret, nil
}

const redacted = "[key]"

func (*Key) String() string   { return redacted }
func (*Key) GoString() string { return redacted }

// Format answers every verb, also those that String does not serve, such as
// %x and %d.
func (*Key) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

func (*Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (*Key) LogValue() slog.Value         { return slog.StringValue(redacted) }
