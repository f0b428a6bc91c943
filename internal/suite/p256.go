package suite

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"
)

// A P256Key signs with ECDSA on NIST P-256 (FIPS 186-5). It is used for
// certificates and attestation.
type P256Key struct{ priv *ecdsa.PrivateKey }

// P256ScalarSize is the length of a P-256 private key in bytes.
const P256ScalarSize = 32

// NewP256Key takes the 32-byte scalar, which must be in [1, n-1].
func NewP256Key(scalar []byte) (*P256Key, error) {
	priv, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
	if err != nil {
		return nil, ErrKey
	}
	return &P256Key{priv}, nil
}

// RandomP256Key makes a key. Who gets the scalar keeps or clears it.
func RandomP256Key() (key *P256Key, scalar []byte) {
	for {
		scalar := Random(P256ScalarSize)
		if key, err := NewP256Key(scalar); err == nil { // else it is outside [1, n-1], with odds of 2^-32
			return key, scalar
		}
	}
}

// CertificateSerial draws a serial number: 16 random bytes of which the top bit
// is clear and the next set, so that the DER integer is positive and 16 bytes
// long too.
func CertificateSerial() *big.Int {
	b := Random(16)
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b)
}

// authorityLife is that of a CA's certificate.
const authorityLife = 10 * 365 * 24 * time.Hour

// Authority is a template for the key's own certificate as a CA that signs for
// TLS servers and for no further CA. The name says whose CA it is.
func (k *P256Key) Authority(name string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          CertificateSerial(),
		Subject:               pkix.Name{CommonName: fmt.Sprintf("%s %x", name, k.KeyID()[:4])},
		SubjectKeyId:          k.KeyID(),
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

// Signer gives the key to crypto/x509 and crypto/tls.
func (k *P256Key) Signer() crypto.Signer { return k.priv }

// Point is the public key in uncompressed X9.62 form, 65 bytes.
func (k *P256Key) Point() []byte {
	b, err := k.priv.PublicKey.Bytes()
	if err != nil {
		panic("suite: a parsed P-256 key has no point")
	}
	return b
}

// Compressed is the public key in compressed X9.62 form, 33 bytes.
func (k *P256Key) Compressed() []byte {
	point := k.Point()
	return append([]byte{2 | point[len(point)-1]&1}, point[1:1+P256ScalarSize]...)
}

// Shared is the x coordinate of ECDH (SP 800-56A section 5.7.1.2) with an
// uncompressed point, 32 bytes. Who gets it clears it.
func (k *P256Key) Shared(point []byte) ([]byte, error) {
	peer, err := ecdh.P256().NewPublicKey(point)
	if err != nil {
		return nil, ErrKey
	}
	priv, err := k.priv.ECDH()
	if err != nil {
		return nil, ErrKey
	}
	return priv.ECDH(peer)
}

// KeyID is the SHA-1 of the uncompressed point, 20 bytes: the usual subject
// key identifier (RFC 5280 section 4.2.1.2). SHA-1 names the key here and
// secures nothing.
func (k *P256Key) KeyID() []byte {
	id := sha1.Sum(k.Point())
	return id[:]
}

// Sign returns the DER signature of the SHA-256 of msg.
func (k *P256Key) Sign(msg []byte) []byte {
	digest := sha256.Sum256(msg)
	sig, err := ecdsa.SignASN1(rand.Reader, k.priv, digest[:])
	if err != nil {
		panic("suite: ECDSA signing failed: " + err.Error())
	}
	return sig
}

// VerifyP256 checks a DER signature over the SHA-256 of msg under an
// uncompressed point.
func VerifyP256(point, msg, sig []byte) bool {
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return false
	}
	digest := sha256.Sum256(msg)
	return ecdsa.VerifyASN1(pub, digest[:], sig)
}
