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

// subjectPublicKeyInfo is the structure of that name in RFC 5280, section 4.1:
//
//	SEQUENCE { SEQUENCE { OID, parameters ANY OPTIONAL }, BIT STRING }
type subjectPublicKeyInfo struct {
	Algorithm struct {
		OID        asn1.ObjectIdentifier
		Parameters asn1.RawValue `asn1:"optional"`
	}
	Key asn1.BitString
}

// MarshalSPKI writes a raw public key as a SubjectPublicKeyInfo in DER, which is what stands in a
// PEM block "PUBLIC KEY": RFC 5480 for the NIST curves and secp256k1, with the
// uncompressed point, RFC 8410 for Curve25519 to Ed448, and the identifiers that NIST
// assigned to FIPS 203 and FIPS 204 for ML-KEM and ML-DSA, without parameters.
// All 14 asymmetric types are supported. It says nothing of a key's mode.
//
// What is no key of the type is [ErrArgument].
func MarshalSPKI(t api.KeyType, raw []byte) ([]byte, error) {
	if err := checkPublic(t, raw); err != nil {
		return nil, err
	}
	var info subjectPublicKeyInfo
	for _, a := range spkiAlgorithms() {
		if a.t != t {
			continue
		}
		info.Algorithm.OID = a.oid
		if a.curve != nil {
			parameters, err := asn1.Marshal(a.curve)
			if err != nil {
				return nil, err
			}
			info.Algorithm.Parameters.FullBytes = parameters
			if raw, err = uncompressed(t, raw); err != nil {
				return nil, err
			}
		}
	}
	info.Key = asn1.BitString{Bytes: raw, BitLength: 8 * len(raw)}
	return asn1.Marshal(info)
}

// ParseSPKI reads a SubjectPublicKeyInfo in DER, see [MarshalSPKI], and returns the key's type
// and raw form, ready for [Client.ImportKey] and [ParsePublic]. Compressed points are
// taken, too.
//
// Whatever else it is given is [ErrArgument]: other encodings, trailing data, keys that
// no module knows, points that are not on their curve.
func ParseSPKI(der []byte) (api.KeyType, []byte, error) {
	var info subjectPublicKeyInfo
	rest, err := asn1.Unmarshal(der, &info)
	if err != nil || len(rest) > 0 {
		return "", nil, fmt.Errorf("%w: not a public key in DER (SubjectPublicKeyInfo)", ErrArgument)
	}
	t := api.KeyType("")
	for _, a := range spkiAlgorithms() {
		if !a.oid.Equal(info.Algorithm.OID) {
			continue
		}
		var parameters []byte
		if a.curve != nil {
			if parameters, err = asn1.Marshal(a.curve); err != nil {
				return "", nil, err
			}
		}
		if bytes.Equal(parameters, info.Algorithm.Parameters.FullBytes) {
			t = a.t
			break
		}
	}
	if t == "" {
		return "", nil, fmt.Errorf("%w: a public key of a kind that no module knows (%v)", ErrArgument, info.Algorithm.OID)
	}
	raw := info.Key.Bytes
	if info.Key.BitLength != 8*len(raw) {
		return "", nil, badPoint(t)
	}
	if size := scalarSize(t); size > 0 && len(raw) == 1+2*size && raw[0] == 4 {
		raw = compress(raw)
		if point, err := uncompressed(t, raw); err != nil || !bytes.Equal(point, info.Key.Bytes) {
			return "", nil, badPoint(t)
		}
	}
	if _, err := ParsePublic(t, raw); err != nil {
		return "", nil, err
	}
	return t, bytes.Clone(raw), nil
}
