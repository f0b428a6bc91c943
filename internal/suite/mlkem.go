package suite

import (
	"bytes"
	"crypto/mlkem"

	"github.com/cloudflare/circl/kem/mlkem/mlkem512"
)

// mlkemScheme is a parameter set of ML-KEM (FIPS 203).
type mlkemScheme struct {
	openSeed  func(seed []byte) (decapsulator, encapsulator, error)
	openBytes func(public []byte) (encapsulator, error)
}

// An encapsulator is a public key, with the methods that crypto/mlkem gives
// its own.
type encapsulator interface {
	Bytes() []byte
	Encapsulate() (secret, ciphertext []byte)
}

// A decapsulator is a private key. It fails for a ciphertext of the wrong
// length only.
type decapsulator interface {
	Decapsulate(ciphertext []byte) ([]byte, error)
}

func mlkem512Scheme() mlkemScheme {
	return mlkemScheme{
		func(seed []byte) (decapsulator, encapsulator, error) {
			pub, priv := mlkem512.NewKeyFromSeed(seed)
			return (*decapsulator512)(priv), (*encapsulator512)(pub), nil
		},
		func(public []byte) (encapsulator, error) {
			pub := new(mlkem512.PublicKey)
			if err := pub.Unpack(public); err != nil {
				return nil, err
			}
			return (*encapsulator512)(pub), nil
		},
	}
}

func mlkem768Scheme() mlkemScheme {
	return mlkemScheme{
		func(seed []byte) (decapsulator, encapsulator, error) {
			priv, err := mlkem.NewDecapsulationKey768(seed)
			if err != nil {
				return nil, nil, err
			}
			return priv, priv.EncapsulationKey(), nil
		},
		func(public []byte) (encapsulator, error) { return mlkem.NewEncapsulationKey768(public) },
	}
}

func mlkem1024Scheme() mlkemScheme {
	return mlkemScheme{
		func(seed []byte) (decapsulator, encapsulator, error) {
			priv, err := mlkem.NewDecapsulationKey1024(seed)
			if err != nil {
				return nil, nil, err
			}
			return priv, priv.EncapsulationKey(), nil
		},
		func(public []byte) (encapsulator, error) { return mlkem.NewEncapsulationKey1024(public) },
	}
}

func (mlkemScheme) newMaterial() []byte { return Random(mlkem.SeedSize) }

func (s mlkemScheme) open(material []byte) (opened, error) {
	priv, pub, err := s.openSeed(material)
	if err != nil {
		return nil, err
	}
	return &mlkemKey{pub.Bytes(), pub, priv}, nil
}

func (s mlkemScheme) openPublic(public []byte) (opened, error) {
	pub, err := s.openBytes(public)
	if err != nil {
		return nil, err
	}
	return &mlkemKey{bytes.Clone(public), pub, nil}, nil
}

// mlkemKey has a private part only if it was opened as a private key.
type mlkemKey struct {
	raw     []byte
	public  encapsulator
	private decapsulator
}

func (k *mlkemKey) wire() []byte { return k.raw }

// Encapsulate makes a fresh 32-byte secret and the ciphertext that carries it
// to the holder of the private key, which may be k itself (ML-KEM.Encaps of
// FIPS 203). It returns ErrMismatch for keys of other types.
func (k *Key) Encapsulate() (secret, ciphertext []byte, err error) {
	m, ok := k.opened().(*mlkemKey)
	if !ok {
		return nil, nil, ErrMismatch
	}
	secret, ciphertext = m.public.Encapsulate()
	return secret, ciphertext, nil
}

// Decapsulate recovers the 32-byte secret from a ciphertext (ML-KEM.Decaps of
// FIPS 203). It returns ErrMismatch if the key is not a private ML-KEM key or
// the ciphertext has not the length of its set. Any other ciphertext gives a
// secret: if it was made for another key or changed on the way, one that
// nobody else can know ("implicit rejection").
func (k *Key) Decapsulate(ciphertext []byte) ([]byte, error) {
	m, ok := k.opened().(*mlkemKey)
	if !ok || m.private == nil {
		return nil, ErrMismatch
	}
	secret, err := m.private.Decapsulate(ciphertext)
	if err != nil {
		return nil, ErrMismatch
	}
	return secret, nil
}

// encapsulator512 and decapsulator512 give the keys of ML-KEM-512, which
// crypto/mlkem does not have, its methods. Their library panics on wrong
// lengths.
type (
	encapsulator512 mlkem512.PublicKey
	decapsulator512 mlkem512.PrivateKey
)

func (e *encapsulator512) Bytes() []byte {
	raw := make([]byte, mlkem512.PublicKeySize)
	(*mlkem512.PublicKey)(e).Pack(raw)
	return raw
}

func (e *encapsulator512) Encapsulate() (secret, ciphertext []byte) {
	secret = make([]byte, mlkem512.SharedKeySize)
	ciphertext = make([]byte, mlkem512.CiphertextSize)
	(*mlkem512.PublicKey)(e).EncapsulateTo(ciphertext, secret, nil)
	return secret, ciphertext
}

func (d *decapsulator512) Decapsulate(ciphertext []byte) ([]byte, error) {
	if len(ciphertext) != mlkem512.CiphertextSize {
		return nil, ErrMismatch
	}
	secret := make([]byte, mlkem512.SharedKeySize)
	(*mlkem512.PrivateKey)(d).DecapsulateTo(secret, ciphertext)
	return secret, nil
}
