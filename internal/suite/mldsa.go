package suite

import (
	"bytes"
	"fmt"

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
)

// mldsaSeedSize is the length of ξ in bytes.
const mldsaSeedSize = 32

// mldsaScheme is a parameter set of ML-DSA (FIPS 204), as the functions of the
// package that has it. Pub and Priv are that package's keys, expanded: the
// matrix A and the secret vectors in the form in which they are multiplied.
type mldsaScheme[Pub, Priv any] struct {
	signatureSize int // bytes
	fromSeed      func(*[mldsaSeedSize]byte) (*Pub, *Priv)
	sign          func(priv *Priv, msg, ctx []byte, hedged bool, sig []byte) error
	verify        func(pub *Pub, msg, ctx, sig []byte) bool
	pack          func(*Pub) []byte
	unpack        func(*Pub, []byte) error
}

func mldsa44Scheme() scheme {
	return &mldsaScheme[mldsa44.PublicKey, mldsa44.PrivateKey]{
		mldsa44.SignatureSize, mldsa44.NewKeyFromSeed, mldsa44.SignTo, mldsa44.Verify,
		(*mldsa44.PublicKey).Bytes, (*mldsa44.PublicKey).UnmarshalBinary,
	}
}

func mldsa65Scheme() scheme {
	return &mldsaScheme[mldsa65.PublicKey, mldsa65.PrivateKey]{
		mldsa65.SignatureSize, mldsa65.NewKeyFromSeed, mldsa65.SignTo, mldsa65.Verify,
		(*mldsa65.PublicKey).Bytes, (*mldsa65.PublicKey).UnmarshalBinary,
	}
}

func mldsa87Scheme() scheme {
	return &mldsaScheme[mldsa87.PublicKey, mldsa87.PrivateKey]{
		mldsa87.SignatureSize, mldsa87.NewKeyFromSeed, mldsa87.SignTo, mldsa87.Verify,
		(*mldsa87.PublicKey).Bytes, (*mldsa87.PublicKey).UnmarshalBinary,
	}
}

func (*mldsaScheme[Pub, Priv]) newMaterial() []byte { return Random(mldsaSeedSize) }

func (s *mldsaScheme[Pub, Priv]) open(material []byte) (opened, error) {
	pub, priv := s.fromSeed((*[mldsaSeedSize]byte)(material))
	return &mldsaKey[Pub, Priv]{s, s.pack(pub), pub, priv}, nil
}

func (s *mldsaScheme[Pub, Priv]) openPublic(public []byte) (opened, error) {
	pub := new(Pub)
	if err := s.unpack(pub, public); err != nil {
		return nil, err
	}
	return &mldsaKey[Pub, Priv]{s, bytes.Clone(public), pub, nil}, nil
}

// mldsaKey has a private part only if it was opened as a private key.
type mldsaKey[Pub, Priv any] struct {
	scheme  *mldsaScheme[Pub, Priv]
	raw     []byte
	public  *Pub
	private *Priv
}

// A messageSigner is a key of ML-DSA. ctx has at most 255 bytes. A signature
// that is not hedged is the same for the same message each time.
type messageSigner interface {
	signMessage(msg, ctx []byte, hedged bool) ([]byte, error)
	verifyMessage(msg, ctx, sig []byte) bool
}

func (k *mldsaKey[Pub, Priv]) wire() []byte { return k.raw }

func (k *mldsaKey[Pub, Priv]) signMessage(msg, ctx []byte, hedged bool) ([]byte, error) {
	if k.private == nil {
		return nil, ErrMismatch
	}
	sig := make([]byte, k.scheme.signatureSize)
	if err := k.scheme.sign(k.private, msg, ctx, hedged, sig); err != nil {
		return nil, fmt.Errorf("mldsa: %w", err)
	}
	return sig, nil
}

func (k *mldsaKey[Pub, Priv]) verifyMessage(msg, ctx, sig []byte) bool {
	return k.scheme.verify(k.public, msg, ctx, sig)
}

// SignMLDSA signs msg with ML-DSA (FIPS 204 algorithm 2): pure, that is not
// hashed before, and hedged, that is with fresh randomness in every signature.
// It returns ErrMismatch if the key is not a private ML-DSA key or ctx has
// more than 255 bytes.
func (k *Key) SignMLDSA(msg, ctx []byte) ([]byte, error) {
	m, ok := k.opened().(messageSigner)
	if !ok || len(ctx) > maxContext {
		return nil, ErrMismatch
	}
	return m.signMessage(msg, ctx, true)
}

// VerifyMLDSA checks a pure ML-DSA signature (FIPS 204 algorithm 3) under a
// private or public key. It returns ErrMismatch unless it is valid.
func (k *Key) VerifyMLDSA(msg, ctx, sig []byte) error {
	m, ok := k.opened().(messageSigner)
	if !ok || len(ctx) > maxContext || !m.verifyMessage(msg, ctx, sig) {
		return ErrMismatch
	}
	return nil
}
