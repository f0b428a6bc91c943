package suite

import (
	"bytes"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
)

// koblitz is secp256k1 (SEC 2 section 2.4.1).
//
// Its library multiplies points in a time that depends on the scalar: the
// private key when a secret is agreed on, the nonce when something is signed.
// Whoever can time many operations of one key finely enough may learn from it.
// The scalar arithmetic itself is constant-time, and the nonce is that of RFC
// 6979, so the same digest always takes the same path.
type koblitz struct{}

func (koblitz) newMaterial() []byte {
	key, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		panic("suite: generating a key: " + err.Error()) // the randomness never fails
	}
	return key.Serialize()
}

func (koblitz) open(material []byte) (opened, error) {
	var d secp256k1.ModNScalar
	if overflow := d.SetByteSlice(material); overflow || d.IsZero() {
		return nil, ErrKey
	}
	priv := secp256k1.NewPrivateKey(&d)
	pub := priv.PubKey()
	return &koblitzKey{pub.SerializeCompressed(), pub, priv}, nil
}

func (koblitz) openPublic(public []byte) (opened, error) {
	pub, err := secp256k1.ParsePubKey(public)
	if err != nil {
		return nil, err
	}
	return &koblitzKey{bytes.Clone(public), pub, nil}, nil
}

// koblitzKey has a private part only if it was opened as a private key.
type koblitzKey struct {
	compressed []byte
	public     *secp256k1.PublicKey
	private    *secp256k1.PrivateKey
}

func (k *koblitzKey) wire() []byte { return k.compressed }

func (k *koblitzKey) shared(peer opened) ([]byte, error) {
	if k.private == nil {
		return nil, ErrKey
	}
	return secp256k1.GenerateSharedSecret(k.private, peer.(*koblitzKey).public), nil
}

// signDigest gives the signature with the lower of the two possible s, as the
// library always does. verifyDigest takes both: FIPS 186-5 knows no such rule.
func (k *koblitzKey) signDigest(digest []byte) ([]byte, error) {
	if k.private == nil {
		return nil, ErrMismatch
	}
	return ecdsa.Sign(k.private, leftmost(digest)).Serialize(), nil
}

func (k *koblitzKey) verifyDigest(digest, sig []byte) bool {
	s, err := ecdsa.ParseDERSignature(sig)
	return err == nil && s.Verify(leftmost(digest), k.public)
}

// leftmost cuts a digest to the 32 bytes of the order. The library does the
// same, but says so nowhere.
func leftmost(digest []byte) []byte { return digest[:min(len(digest), 32)] }
