package hem

import (
	"bytes"
	"encoding/asn1"
	"fmt"

	"softhem/api"
)

// A spkiAlgorithm is how a SubjectPublicKeyInfo names a key type.
type spkiAlgorithm struct {
	t     api.KeyType
	oid   asn1.ObjectIdentifier
	curve asn1.ObjectIdentifier // the parameters, of elliptic curves
}

func spkiAlgorithms() []spkiAlgorithm {
	ec := asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1} // id-ecPublicKey
	nist := func(arc, n int) asn1.ObjectIdentifier {
		return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, arc, n}
	}
	return []spkiAlgorithm{
		{api.SECP256R1, ec, asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}},
		{api.SECP384R1, ec, asn1.ObjectIdentifier{1, 3, 132, 0, 34}},
		{api.SECP521R1, ec, asn1.ObjectIdentifier{1, 3, 132, 0, 35}},
		{api.SECP256K1, ec, asn1.ObjectIdentifier{1, 3, 132, 0, 10}},
		{api.Curve25519, asn1.ObjectIdentifier{1, 3, 101, 110}, nil},
		{api.Curve448, asn1.ObjectIdentifier{1, 3, 101, 111}, nil},
		{api.Ed25519, asn1.ObjectIdentifier{1, 3, 101, 112}, nil},
		{api.Ed448, asn1.ObjectIdentifier{1, 3, 101, 113}, nil},
		{api.MLKEM512, nist(4, 1), nil},
		{api.MLKEM768, nist(4, 2), nil},
		{api.MLKEM1024, nist(4, 3), nil},
		{api.MLDSA44, nist(3, 17), nil},
		{api.MLDSA65, nist(3, 18), nil},
		{api.MLDSA87, nist(3, 19), nil},
	}
}

// spkiHeader names the algorithm of a SubjectPublicKeyInfo (RFC 5280, section 4.1):
//
//	SEQUENCE { SEQUENCE { OID, parameters ANY OPTIONAL }, BIT STRING }
type spkiHeader struct {
	OID        asn1.ObjectIdentifier
	Parameters asn1.RawValue `asn1:"optional"`
}

type subjectPublicKeyInfo struct {
	Algorithm spkiHeader
	Key       asn1.BitString
}

// encode writes key, which is a point of the curve in either form, or a raw key.
func (a spkiAlgorithm) encode(key []byte) ([]byte, error) {
	info := subjectPublicKeyInfo{
		Algorithm: spkiHeader{OID: a.oid},
		Key:       asn1.BitString{Bytes: key, BitLength: 8 * len(key)},
	}
	if a.curve != nil {
		parameters, err := asn1.Marshal(a.curve)
		if err != nil {
			return nil, err
		}
		info.Algorithm.Parameters.FullBytes = parameters
	}
	return asn1.Marshal(info)
}

// MarshalSPKI writes a raw public key as a SubjectPublicKeyInfo in DER, which is what
// stands in a PEM block "PUBLIC KEY": RFC 5480 for the NIST curves and secp256k1, with
// the uncompressed point, RFC 8410 for Curve25519 to Ed448, RFC 9881 for ML-DSA, and for
// ML-KEM in the same way the identifiers that NIST assigned (2.16.840.1.101.3.4.4.1 to
// 3), without parameters. All 14 asymmetric types are supported. It says nothing of a
// key's mode.
//
// What is no key of the type is [ErrArgument].
func MarshalSPKI(t api.KeyType, raw []byte) ([]byte, error) {
	if err := checkPublic(t, raw); err != nil {
		return nil, err
	}
	for _, a := range spkiAlgorithms() {
		if a.t != t {
			continue
		}
		if a.curve != nil {
			var err error
			if raw, err = uncompressed(t, raw); err != nil {
				return nil, err
			}
		}
		return a.encode(raw)
	}
	return nil, badPoint(t)
}

// ParseSPKI reads a SubjectPublicKeyInfo in DER, see [MarshalSPKI], and returns the key's
// type and raw form, ready for [Client.ImportKey] and [ParsePublic]. Compressed points
// are taken, too.
//
// Whatever else it is given is [ErrArgument]: other encodings, more data, keys that no
// module knows, points that are not on their curve.
func ParseSPKI(der []byte) (api.KeyType, []byte, error) {
	var info subjectPublicKeyInfo
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return "", nil, fmt.Errorf("%w: not a public key in DER (SubjectPublicKeyInfo)", ErrArgument)
	}
	key := info.Key.Bytes
	for _, a := range spkiAlgorithms() {
		if !a.oid.Equal(info.Algorithm.OID) {
			continue
		}
		// Encoded again it must be the same: that settles parameters, unused bits and
		// whatever else Unmarshal lets pass.
		if again, err := a.encode(key); err != nil || !bytes.Equal(again, der) {
			continue
		}
		raw := bytes.Clone(key)
		if size := scalarSize(a.t); size > 0 && len(key) == 1+2*size && key[0] == 4 {
			raw = compress(key)
			if point, err := uncompressed(a.t, raw); err != nil || !bytes.Equal(point, key) {
				return "", nil, badPoint(a.t)
			}
		}
		if _, err := ParsePublic(a.t, raw); err != nil {
			return "", nil, err
		}
		return a.t, raw, nil
	}
	return "", nil, fmt.Errorf("%w: a public key of a kind or form that no module knows (%v)", ErrArgument, info.Algorithm.OID)
}
