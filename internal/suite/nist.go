package suite

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"sync"
)

// A digestSigner is an ECDSA key (FIPS 186-5). A digest longer than the order
// is cut to the order's length, from the left. Signatures are DER (RFC 3279
// section 2.2.3), and parsed strictly.
type digestSigner interface {
	signDigest(digest []byte) ([]byte, error)
	verifyDigest(digest, sig []byte) bool
}

// nist is one of the curves P-256, P-384 and P-521 (NIST SP 800-186) as both
// of the packages know it that do its arithmetic.
type nist struct {
	curve elliptic.Curve
	ecdh  ecdh.Curve
}

func (n nist) newMaterial() []byte {
	key, err := n.ecdh.GenerateKey(rand.Reader)
	if err != nil {
		panic("suite: generating a key: " + err.Error()) // the randomness never fails
	}
	return key.Bytes()
}

func (n nist) open(material []byte) (opened, error) {
	priv, err := ecdsa.ParseRawPrivateKey(n.curve, material)
	if err != nil {
		return nil, err
	}
	point, err := priv.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	k, err := n.public(point)
	if err != nil {
		return nil, err
	}
	k.private = priv
	// Most keys sign or agree and few do both, so what only ECDH needs, a
	// second form of the scalar, is made when it is first asked for.
	k.privateECDH = sync.OnceValues(priv.ECDH)
	return k, nil
}

func (n nist) openPublic(public []byte) (opened, error) {
	x, y := elliptic.UnmarshalCompressed(n.curve, public)
	if x == nil {
		return nil, ErrKey
	}
	size := len(public) - 1
	point := make([]byte, 1+2*size)
	point[0] = 4
	x.FillBytes(point[1 : 1+size])
	y.FillBytes(point[1+size:])
	k, err := n.public(point)
	if err != nil {
		return nil, err
	}
	return k, nil
}

// public takes the uncompressed point, which both packages check again.
func (n nist) public(point []byte) (*nistKey, error) {
	verify, err := ecdsa.ParseUncompressedPublicKey(n.curve, point)
	if err != nil {
		return nil, err
	}
	agree, err := n.ecdh.NewPublicKey(point)
	if err != nil {
		return nil, err
	}
	return &nistKey{compressed: compress(point), public: verify, publicECDH: agree}, nil
}

// compress turns an uncompressed point into the compressed form of SEC 1
// section 2.3.3: 2 or 3 for an even or odd y, and x.
func compress(point []byte) []byte {
	out := bytes.Clone(point[:(len(point)+1)/2])
	out[0] = 2 | point[len(point)-1]&1
	return out
}

// nistKey has the private parts only if it was opened as a private key.
type nistKey struct {
	compressed  []byte
	public      *ecdsa.PublicKey
	publicECDH  *ecdh.PublicKey
	private     *ecdsa.PrivateKey
	privateECDH func() (*ecdh.PrivateKey, error)
}

func (k *nistKey) wire() []byte { return k.compressed }

func (k *nistKey) shared(peer opened) ([]byte, error) {
	if k.private == nil {
		return nil, ErrKey
	}
	priv, err := k.privateECDH()
	if err != nil {
		return nil, err
	}
	return priv.ECDH(peer.(*nistKey).publicECDH)
}

func (k *nistKey) signDigest(digest []byte) ([]byte, error) {
	if k.private == nil {
		return nil, ErrMismatch
	}
	sig, err := ecdsa.SignASN1(rand.Reader, k.private, digest)
	if err != nil {
		return nil, fmt.Errorf("ecdsa: %w", err)
	}
	return sig, nil
}

func (k *nistKey) verifyDigest(digest, sig []byte) bool {
	return ecdsa.VerifyASN1(k.public, digest, sig)
}
