package hem

import (
	"bytes"
	"crypto/elliptic"
	"math/big"

	"softhem/api"
)

// Points of the short Weierstrass curves are public: nothing here runs in constant time,
// nor needs to.
//
//	compressed    02|03 ‖ x       02 for an even y
//	uncompressed  04 ‖ x ‖ y

// compress shortens an uncompressed point.
func compress(point []byte) []byte {
	coordinate := len(point) / 2
	short := bytes.Clone(point[:1+coordinate])
	short[0] = 2 | point[len(point)-1]&1
	return short
}

// uncompressed finds the y of a compressed point on the curve of t. Points not on the
// curve are ErrArgument.
func uncompressed(t api.KeyType, raw []byte) ([]byte, error) {
	if err := checkPublic(t, raw); err != nil {
		return nil, err
	}
	size := len(raw) - 1
	var x, y *big.Int
	if curve := ecCurve(t); curve != nil {
		x, y = elliptic.UnmarshalCompressed(curve, raw)
	} else if t == api.SECP256K1 {
		x, y = koblitzPoint(raw)
	}
	if x == nil {
		return nil, badPoint(t)
	}
	point := make([]byte, 1+2*size)
	point[0] = 4
	x.FillBytes(point[1 : 1+size])
	y.FillBytes(point[1+size:])
	return point, nil
}

// koblitzPoint decompresses a point of secp256k1, y² = x³ + 7 modulo p = 2²⁵⁶ − 2³² − 977
// (SEC 2, 2.4.1). It returns nil, nil for what is none.
func koblitzPoint(raw []byte) (x, y *big.Int) {
	one := big.NewInt(1)
	p := new(big.Int).Lsh(one, 256)
	p.Sub(p, new(big.Int).Lsh(one, 32))
	p.Sub(p, big.NewInt(977))
	x = new(big.Int).SetBytes(raw[1:])
	if raw[0]&^1 != 2 || x.Cmp(p) >= 0 {
		return nil, nil
	}
	square := new(big.Int).Exp(x, big.NewInt(3), p)
	square.Add(square, big.NewInt(7)).Mod(square, p)
	if y = new(big.Int).ModSqrt(square, p); y == nil {
		return nil, nil
	}
	if y.Bit(0) != uint(raw[0]&1) {
		y.Sub(p, y) // y is not 0: the curve has no point of order 2
	}
	return x, y
}
