package suite

import (
	"bytes"
	"math/big"
	"slices"
	"testing"

	"filippo.io/mldsa"
	"github.com/cloudflare/circl/dh/x25519"
	"github.com/cloudflare/circl/kem"
	"github.com/cloudflare/circl/kem/mlkem/mlkem1024"
	"github.com/cloudflare/circl/kem/mlkem/mlkem768"
	circl25519 "github.com/cloudflare/circl/sign/ed25519"

	"softhem/api"
)

// These tests hold the libraries in use against others for the same thing.

// The ML-DSA here is circl's; filippo.io/mldsa is the code of Go's own
// crypto/mldsa.
func TestMLDSAAgreesWithGo(t *testing.T) {
	for keys, set := range map[api.KeyType]mldsa.Parameters{
		api.MLDSA44: mldsa.MLDSA44(), api.MLDSA65: mldsa.MLDSA65(), api.MLDSA87: mldsa.MLDSA87(),
	} {
		for i := range 4 {
			seed := Random(mldsaSeedSize)
			k := mustOpen(t, keys, seed)
			theirs, err := mldsa.NewPrivateKey(set, seed)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(k.Public(), theirs.PublicKey().Bytes()) {
				t.Fatalf("%s: other public keys from seed %x", keys, seed)
			}
			msg, ctx := Random(100*i), Random(85*i)
			opts := &mldsa.Options{Context: string(ctx)}

			want, err := theirs.SignDeterministic(msg, opts)
			if err != nil {
				t.Fatal(err)
			}
			got, err := k.opened().(messageSigner).signMessage(msg, ctx, false)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: other deterministic signatures from seed %x: %v", keys, seed, err)
			}
			hedged, err := k.SignMLDSA(msg, ctx)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(hedged, got) {
				t.Errorf("%s: the signature is not hedged", keys)
			}
			if err := mldsa.Verify(theirs.PublicKey(), msg, hedged, opts); err != nil {
				t.Errorf("%s: the other library refuses a signature: %v", keys, err)
			}
			if sig, err := theirs.Sign(nil, msg, opts); err != nil || k.VerifyMLDSA(msg, ctx, sig) != nil {
				t.Errorf("%s: the other library's signature is refused: %v", keys, err)
			}
		}
	}
}

// The ML-KEM of 768 and 1024 here is Go's.
func TestMLKEMAgreesWithCIRCL(t *testing.T) {
	for keys, set := range map[api.KeyType]kem.Scheme{api.MLKEM768: mlkem768.Scheme(), api.MLKEM1024: mlkem1024.Scheme()} {
		seed := Random(set.SeedSize())
		k := mustOpen(t, keys, seed)
		pub, priv := set.DeriveKeyPair(seed)
		if raw, err := pub.MarshalBinary(); err != nil || !bytes.Equal(k.Public(), raw) {
			t.Fatalf("%s: other public keys from seed %x: %v", keys, seed, err)
		}
		secret, ciphertext, err := mustOpenPublic(t, keys, k.Public()).Encapsulate()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := set.Decapsulate(priv, ciphertext); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%s: the other library gets %x, %v; want %x", keys, got, err, secret)
		}
		ciphertext, secret, err = set.Encapsulate(pub)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.Decapsulate(ciphertext); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%s: %x, %v from the other library's ciphertext; want %x", keys, got, err, secret)
		}
		ciphertext[7] ^= 1 // rejected the same way
		want, err := set.Decapsulate(priv, ciphertext)
		if got, err2 := k.Decapsulate(ciphertext); err != nil || err2 != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: another secret for a wrong ciphertext", keys)
		}
	}
}

// The Ed25519 and X25519 here are Go's. OpenSSL 3.0 does not know the ph and
// ctx variants.
func TestCurve25519AgreesWithCIRCL(t *testing.T) {
	for range 8 {
		seed, msg, ctx := Random(32), Random(50), Random(20)
		k, theirs := mustOpen(t, api.Ed25519, seed), circl25519.NewKeyFromSeed(seed)
		for name, want := range map[string][]byte{
			api.AlgEd25519:    circl25519.Sign(theirs, msg),
			api.AlgEd25519ctx: circl25519.SignWithCtx(theirs, msg, string(ctx)),
			api.AlgEd25519ph:  circl25519.SignPh(theirs, msg, string(ctx)),
		} {
			alg, _ := SignatureAlgOf(name)
			if got, err := k.Sign(alg, msg, ctx); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %x, %v; with the other library %x", name, got, err, want)
			}
		}
		var public, secret, shared, peer x25519.Key
		copy(secret[:], seed)
		x25519.KeyGen(&public, &secret)
		copy(peer[:], Random(32))
		ours := mustOpen(t, api.Curve25519, seed)
		ok := x25519.Shared(&shared, &secret, &peer)
		got, err := ours.SharedSecret(mustOpenPublic(t, api.Curve25519, peer[:]))
		if !bytes.Equal(ours.Public(), public[:]) || ok != (err == nil) || ok && !bytes.Equal(got, shared[:]) {
			t.Errorf("X25519: %x, %v; with the other library %x, %t", got, err, shared, ok)
		}
	}
}

// A point of Ed25519 is one where x can be computed and fits the equation. The
// encodings are random, and those of RFC 8032 section 5.1.3 that must fail.
func TestEd25519Points(t *testing.T) {
	p, _ := new(big.Int).SetString("7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed", 16)
	d := new(big.Int).ModInverse(big.NewInt(121666), p)
	d.Mul(d, big.NewInt(-121665)).Mod(d, p)
	one := big.NewInt(1)
	isPoint := func(b []byte) bool {
		be := slices.Clone(b)
		slices.Reverse(be)
		be[0] &= 0x7f
		y := new(big.Int).SetBytes(be)
		if y.Cmp(p) >= 0 {
			return false
		}
		yy := new(big.Int).Mul(y, y)
		den := new(big.Int).Mul(d, yy)
		den.Add(den, one).ModInverse(den.Mod(den, p), p)
		xx := new(big.Int).Sub(yy, one)
		xx.Mul(xx, den).Mod(xx, p)
		x := new(big.Int).ModSqrt(xx, p)
		return x != nil && (x.Sign() != 0 || b[31]&0x80 == 0)
	}
	a := mustAlgorithm(t, api.Ed25519)
	check := func(b []byte) {
		_, err := a.OpenPublic(b)
		if want := isPoint(b); want != (err == nil) {
			t.Errorf("%x: %v, want a point: %t", b, err, want)
		}
	}
	for range 300 {
		check(Random(32))
	}
	for low := range 256 { // y from 2^255-256: the last 19 are not canonical
		for _, high := range []byte{0x7f, 0xff} {
			b := bytes.Repeat([]byte{0xff}, 32)
			b[0], b[31] = byte(low), high
			check(b)
			b = make([]byte, 32)
			b[0], b[31] = byte(low), high&0x80
			check(b)
		}
	}
}
