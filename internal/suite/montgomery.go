package suite

import (
	"bytes"
	"crypto/ecdh"

	"github.com/cloudflare/circl/dh/x448"
)

// x25519Scheme are the keys of X25519 (RFC 7748). Any 32 bytes are a private key,
// clamped inside, and any 32 bytes a public one: what a point of low order
// gives is refused when the secret is computed (section 6.1).
type x25519Scheme struct{}

func (x25519Scheme) newMaterial() []byte { return Random(X25519Size) }

func (x25519Scheme) open(material []byte) (opened, error) {
	priv, err := ecdh.X25519().NewPrivateKey(material)
	if err != nil {
		return nil, err
	}
	pub := priv.PublicKey()
	return &x25519Key{pub.Bytes(), pub, priv}, nil
}

func (x25519Scheme) openPublic(public []byte) (opened, error) {
	pub, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	return &x25519Key{pub.Bytes(), pub, nil}, nil
}

// x25519Key has a private part only if it was opened as a private key.
type x25519Key struct {
	raw     []byte
	public  *ecdh.PublicKey
	private *ecdh.PrivateKey
}

func (k *x25519Key) wire() []byte { return k.raw }

func (k *x25519Key) shared(peer opened) ([]byte, error) {
	if k.private == nil {
		return nil, ErrKey
	}
	return k.private.ECDH(peer.(*x25519Key).public)
}

// x448Scheme are the keys of X448 (RFC 7748), under the same rules as X25519.
type x448Scheme struct{}

func (x448Scheme) newMaterial() []byte { return Random(x448.Size) }

func (x448Scheme) open(material []byte) (opened, error) {
	private := x448.Key(material)
	public := new(x448.Key)
	x448.KeyGen(public, &private)
	return &x448Key{public, &private}, nil
}

func (x448Scheme) openPublic(public []byte) (opened, error) {
	point := x448.Key(public)
	return &x448Key{&point, nil}, nil
}

// x448Key has a private part only if it was opened as a private key.
type x448Key struct{ public, private *x448.Key }

func (k *x448Key) wire() []byte { return k.public[:] }

func (k *x448Key) shared(peer opened) ([]byte, error) {
	var secret x448.Key
	if k.private == nil || !x448.Shared(&secret, k.private, peer.(*x448Key).public) {
		return nil, ErrKey
	}
	return bytes.Clone(secret[:]), nil
}
