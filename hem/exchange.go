package hem

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/mlkem"
	"fmt"

	"softhem/api"
)

// An ECDHKey is a private key in a module that stands for an [ecdh.KeyExchanger]: an
// X25519 key, or one on a NIST curve. [crypto/hpke] takes it, for instance.
//
// Every exchange is one call to the module, with the context the ECDHKey was made with.
// It may be used by many goroutines at once.
type ECDHKey struct {
	c      *Client
	ctx    context.Context // the interface has none
	kid    KID
	public *ecdh.PublicKey
}

var _ ecdh.KeyExchanger = (*ECDHKey)(nil)

// ECDHKey reads the public key of kid and makes an ECDHKey of it, with a token for
// keymgmt:use:<kid>. ctx is kept: it is also that of all exchanges.
//
// Errors: those of [Client.GetKey]; [ErrKeyType] when it is not on a curve of package
// ecdh; for Curve448 and secp256k1 there is [Client.ECDH]. That a key on a NIST curve is
// for signatures only shows as a 406 later.
func (c *Client) ECDHKey(ctx context.Context, kid KID) (*ECDHKey, error) {
	const op = "make a key exchanger"
	key, err := c.getKey(ctx, kid, kid.scopeUse())
	if err != nil {
		return nil, err
	}
	switch key.Type {
	case api.Curve25519, api.SECP256R1, api.SECP384R1, api.SECP521R1:
	default:
		return nil, wrongType(op, key.Type)
	}
	public, err := usablePublic(op, key)
	if err != nil {
		return nil, err
	}
	k := &ECDHKey{c: c, ctx: ctx, kid: kid}
	switch p := public.(type) {
	case *ecdh.PublicKey:
		k.public = p
	case *ecdsa.PublicKey:
		if k.public, err = p.ECDH(); err != nil {
			return nil, &OpError{Op: op, Err: err}
		}
	}
	return k, nil
}

// KID is the key's.
func (k *ECDHKey) KID() KID { return k.kid }

// PublicKey implements [ecdh.KeyExchanger].
func (k *ECDHKey) PublicKey() *ecdh.PublicKey { return k.public }

// Curve implements [ecdh.KeyExchanger].
func (k *ECDHKey) Curve() ecdh.Curve { return k.public.Curve() }

// ECDH implements [ecdh.KeyExchanger]: the raw secret, as [ecdh.PrivateKey.ECDH] gives
// it. A secret of another length, such as a P-384 one from firmware 1.2.2, which cuts it,
// is [ErrProtocol].
//
// Errors: those of [Client.ECDH]; [ErrArgument] when remote is on another curve.
func (k *ECDHKey) ECDH(remote *ecdh.PublicKey) ([]byte, error) {
	const op = "compute a shared secret"
	if remote == nil || remote.Curve() != k.Curve() {
		return nil, badArgument(op, "the other key is not on the same curve")
	}
	t, raw, err := RawPublic(remote)
	if err != nil {
		return nil, &OpError{Op: op, Err: err}
	}
	secret, err := k.c.ECDH(k.ctx, k.kid, PeerPublic(raw), "")
	if err != nil {
		return nil, err
	}
	size := keySize
	if n := scalarSize(t); n > 0 {
		size = n
	}
	if len(secret) != size {
		return nil, &OpError{Op: op, Err: fmt.Errorf("%w: the secret has %d bytes, not %d", ErrProtocol, len(secret), size)}
	}
	return secret, nil
}

// A Decapsulator is an ML-KEM-768 or ML-KEM-1024 private key in a module that stands for
// a [crypto.Decapsulator]. [crypto/hpke] takes it, for instance.
//
// Every decapsulation is one call to the module, with the context the Decapsulator was
// made with; encapsulation needs none. It may be used by many goroutines at once.
type Decapsulator struct {
	c      *Client
	ctx    context.Context // the interface has none
	kid    KID
	public crypto.Encapsulator
	size   int // of ciphertexts
}

var _ crypto.Decapsulator = (*Decapsulator)(nil)

// Decapsulator reads the public key of kid and makes a Decapsulator of it, with a token
// for keymgmt:use:<kid>. ctx is kept: it is also that of all decapsulations.
//
// Errors: those of [Client.GetKey]; [ErrKeyType] for other types. ML-KEM-512 is one of
// them, because the standard library cannot encapsulate for it; there are
// [Client.Encapsulate] and [Client.Decapsulate].
func (c *Client) Decapsulator(ctx context.Context, kid KID) (*Decapsulator, error) {
	const op = "make a decapsulator"
	key, err := c.getKey(ctx, kid, kid.scopeUse())
	if err != nil {
		return nil, err
	}
	d := &Decapsulator{c: c, ctx: ctx, kid: kid}
	switch key.Type {
	case api.MLKEM768:
		d.size = mlkem.CiphertextSize768
	case api.MLKEM1024:
		d.size = mlkem.CiphertextSize1024
	default:
		return nil, wrongType(op, key.Type)
	}
	public, err := usablePublic(op, key)
	if err != nil {
		return nil, err
	}
	d.public = public.(crypto.Encapsulator) // what ParsePublic makes of these two types
	return d, nil
}

// KID is the key's.
func (d *Decapsulator) KID() KID { return d.kid }

// Encapsulator implements [crypto.Decapsulator]. It is a [*mlkem.EncapsulationKey768] or
// [*mlkem.EncapsulationKey1024], and works without the module.
func (d *Decapsulator) Encapsulator() crypto.Encapsulator { return d.public }

// Decapsulate implements [crypto.Decapsulator]; see [Client.Decapsulate]. A ciphertext of
// another length is [ErrArgument].
func (d *Decapsulator) Decapsulate(ciphertext []byte) (sharedKey []byte, err error) {
	if len(ciphertext) != d.size {
		return nil, badArgument("decapsulate", "the ciphertext has %d bytes, not %d", len(ciphertext), d.size)
	}
	return d.c.Decapsulate(d.ctx, d.kid, ciphertext)
}
