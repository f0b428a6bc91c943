package suite

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha512"
	"fmt"
	"math/big"
	"slices"

	"github.com/cloudflare/circl/ecc/goldilocks"
	"github.com/cloudflare/circl/sign/ed448"
)

// An edSigner is a key of EdDSA (RFC 8032), in either of its pre-hash
// variants. ctx has at most 255 bytes. The signature to verify may have any
// length.
type edSigner interface {
	sign(preHash bool, msg, ctx []byte) ([]byte, error)
	verify(preHash bool, msg, ctx, sig []byte) bool
}

// ed25519Scheme are the keys of Ed25519, Ed25519ctx and Ed25519ph.
type ed25519Scheme struct{}

func (ed25519Scheme) newMaterial() []byte { return Random(ed25519.SeedSize) }

func (ed25519Scheme) open(material []byte) (opened, error) {
	priv := ed25519.NewKeyFromSeed(material)
	return &ed25519Key{ed25519.PublicKey(priv[ed25519.SeedSize:]), priv}, nil
}

// openPublic makes a check that crypto/ed25519 makes in every verification and
// offers nowhere else: that the bytes are a point.
func (ed25519Scheme) openPublic(public []byte) (opened, error) {
	if !onEd25519(public) {
		return nil, ErrKey
	}
	return &ed25519Key{bytes.Clone(public), nil}, nil
}

// onEd25519 tells whether the 32 bytes are the canonical encoding of a point
// of edwards25519 (RFC 8032 section 5.1.3): x² = (y²-1)/(dy²+1) has a root,
// which it has when the product of both sides of the fraction has one. The
// input is public, so the time this takes may depend on it.
func onEd25519(public []byte) bool {
	one := big.NewInt(1)
	p := new(big.Int).Lsh(one, 255)
	p.Sub(p, big.NewInt(19))
	d, _ := new(big.Int).SetString("52036cee2b6ffe738cc740797779e89800700a4d4141d8ab75eb4dca135978a3", 16)

	b := bytes.Clone(public)
	slices.Reverse(b)
	oddX := b[0]&0x80 != 0
	b[0] &= 0x7f
	y := new(big.Int).SetBytes(b)
	if y.Cmp(p) >= 0 {
		return false
	}
	yy := y.Mul(y, y)
	num := new(big.Int).Sub(yy, one)
	num.Mod(num, p)
	den := d.Mul(d, yy)
	den.Add(den, one)
	if num.Sign() == 0 {
		return !oddX // x = 0, which is even
	}
	product := num.Mul(num, den)
	return big.Jacobi(product.Mod(product, p), p) >= 0
}

// ed25519Key has a private part only if it was opened as a private key.
type ed25519Key struct {
	public  ed25519.PublicKey
	private ed25519.PrivateKey
}

func (k *ed25519Key) wire() []byte { return k.public }

func ed25519Options(preHash bool, msg, ctx []byte) ([]byte, *ed25519.Options) {
	if !preHash {
		return msg, &ed25519.Options{Context: string(ctx)}
	}
	digest := sha512.Sum512(msg)
	return digest[:], &ed25519.Options{Hash: crypto.SHA512, Context: string(ctx)}
}

func (k *ed25519Key) sign(preHash bool, msg, ctx []byte) ([]byte, error) {
	if k.private == nil {
		return nil, ErrMismatch
	}
	msg, opts := ed25519Options(preHash, msg, ctx)
	sig, err := k.private.Sign(nil, msg, opts)
	if err != nil {
		return nil, fmt.Errorf("ed25519: %w", err)
	}
	return sig, nil
}

func (k *ed25519Key) verify(preHash bool, msg, ctx, sig []byte) bool {
	msg, opts := ed25519Options(preHash, msg, ctx)
	return ed25519.VerifyWithOptions(k.public, msg, sig, opts) == nil
}

// ed448Scheme are the keys of Ed448 and Ed448ph.
type ed448Scheme struct{}

func (ed448Scheme) newMaterial() []byte { return Random(ed448.SeedSize) }

func (ed448Scheme) open(material []byte) (opened, error) {
	priv := ed448.NewKeyFromSeed(material)
	return &ed448Key{ed448.PublicKey(priv[ed448.SeedSize:]), priv}, nil
}

func (ed448Scheme) openPublic(public []byte) (opened, error) {
	if _, err := goldilocks.FromBytes(public); err != nil {
		return nil, err
	}
	return &ed448Key{bytes.Clone(public), nil}, nil
}

// ed448Key has a private part only if it was opened as a private key.
type ed448Key struct {
	public  ed448.PublicKey
	private ed448.PrivateKey
}

func (k *ed448Key) wire() []byte { return k.public }

func (k *ed448Key) sign(preHash bool, msg, ctx []byte) ([]byte, error) {
	switch {
	case k.private == nil:
		return nil, ErrMismatch
	case preHash:
		return ed448.SignPh(k.private, msg, string(ctx)), nil
	default:
		return ed448.Sign(k.private, msg, string(ctx)), nil
	}
}

func (k *ed448Key) verify(preHash bool, msg, ctx, sig []byte) bool {
	if preHash {
		return ed448.VerifyPh(k.public, msg, sig, string(ctx))
	}
	return ed448.Verify(k.public, msg, sig, string(ctx))
}
