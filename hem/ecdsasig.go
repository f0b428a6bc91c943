package hem

import (
	"bytes"
	"encoding/asn1"
	"fmt"
	"math/big"

	"softhem/api"
)

// scalarSize is the length in bytes of r and s on the curve of t, 0 if it has none.
func scalarSize(t api.KeyType) int {
	switch t {
	case api.SECP256R1, api.SECP384R1, api.SECP521R1, api.SECP256K1:
		return publicSize(t) - 1
	}
	return 0
}

func badSignature(t api.KeyType) error {
	if scalarSize(t) == 0 {
		return fmt.Errorf("%w: keys of type %s make no ECDSA signatures", ErrArgument, t)
	}
	return fmt.Errorf("%w: not an ECDSA signature by a key of type %s", ErrArgument, t)
}

// ECDSAToRaw turns an ECDSA signature from DER, as [Client.Sign] gives it (RFC 3279
// section 2.2.3), into r ‖ s, as JOSE, COSE and many chips have it (RFC 7518 section
// 3.4): both big-endian and of 32, 48, 66 or 32 bytes. t is the type of the key, and need
// not fit the hash.
//
// Other data is [ErrArgument].
func ECDSAToRaw(t api.KeyType, der []byte) ([]byte, error) {
	var sig struct{ R, S *big.Int }
	size := scalarSize(t)
	if _, err := asn1.Unmarshal(der, &sig); err != nil || !isScalar(sig.R, size) || !isScalar(sig.S, size) {
		return nil, badSignature(t)
	}
	// Unmarshal takes more at the end of a SEQUENCE; two texts of one signature would be
	// one here.
	if canonical, err := asn1.Marshal(sig); err != nil || !bytes.Equal(canonical, der) {
		return nil, badSignature(t)
	}
	raw := make([]byte, 2*size)
	sig.R.FillBytes(raw[:size])
	sig.S.FillBytes(raw[size:])
	return raw, nil
}

// ECDSAFromRaw is the inverse of [ECDSAToRaw].
func ECDSAFromRaw(t api.KeyType, raw []byte) ([]byte, error) {
	size := scalarSize(t)
	if size == 0 || len(raw) != 2*size {
		return nil, badSignature(t)
	}
	r, s := new(big.Int).SetBytes(raw[:size]), new(big.Int).SetBytes(raw[size:])
	if !isScalar(r, size) || !isScalar(s, size) {
		return nil, badSignature(t)
	}
	return asn1.Marshal(struct{ R, S *big.Int }{r, s})
}

func isScalar(n *big.Int, size int) bool {
	return n.Sign() > 0 && n.BitLen() <= 8*size
}
