package suite

import (
	"bytes"
	"encoding/hex"
	"fmt"
)

// SelfTest runs a known answer through every primitive the module uses and
// returns the first that fails. A module whose self-test fails must not work.
//
// The answers come from the named standards, or, for the X25519 and P-256
// ones, from OpenSSL with the inputs that stand here.
func SelfTest() error {
	for _, t := range []struct {
		name string
		pass func() bool
	}{
		{"HMAC-SHA256 (RFC 4231, case 1)", func() bool {
			mac := HMACSHA256(bytes.Repeat([]byte{0x0b}, 20), []byte("Hi There"))
			return bytes.Equal(mac, unhex("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"))
		}},
		{"X25519 (RFC 7748)", func() bool {
			own, err := NewX25519Key(counting(1))
			if err != nil {
				return false
			}
			secret, err := own.Shared(unhex("5714769d116bf76436ae74bc793d2c30ad1903c59ac5273805c7e2698b410c36"))
			return err == nil && bytes.Equal(secret, unhex("c9ea6a3f79a000b60b076d4afc990b272f3f0b5aaa3f0b8713c209273e363863"))
		}},
		{"Ed25519 (RFC 8032 section 7.1, test 3)", func() bool {
			k, err := NewEd25519Key(unhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7"))
			if err != nil {
				return false
			}
			sig := k.Sign(unhex("af82"))
			return bytes.Equal(sig, unhex("6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"+
				"18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a")) &&
				VerifyEd25519(k.Public(), unhex("af82"), sig) && !VerifyEd25519(k.Public(), unhex("af83"), sig)
		}},
		{"ECDSA P-256 with SHA-256 (FIPS 186-5)", func() bool {
			k, err := NewP256Key(counting(1))
			if err != nil {
				return false
			}
			point := unhex("04515c3d6eb9e396b904d3feca7f54fdcd0cc1e997bf375dca515ad0a6c3b4035f" +
				"4536be3a50f318fbf9a5475902a221502bef0d57e08c53b2cc0a56f17d9f9354")
			sig := unhex("304402205f2ce308a354239927fd952e55439e48ce96c376f62f1ee81366e5e0c8860820" +
				"02206725f5bdfed2d1ee7d974f60736dd494f1fd503ce30a8d011ebffedd372e1045")
			return bytes.Equal(k.Point(), point) && VerifyP256(point, []byte("abc"), sig) &&
				VerifyP256(point, []byte("abd"), k.Sign([]byte("abd"))) && !VerifyP256(point, []byte("abd"), sig)
		}},
		{"XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03, A.3.1)", func() bool {
			key := unhex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f")
			aad := unhex("50515253c0c1c2c3c4c5c6c7")
			sealed := unhex("404142434445464748494a4b4c4d4e4f5051525354555657" +
				"bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb" +
				"731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452" +
				"2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9" +
				"21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49")
			plain, err := OpenAEAD(key, sealed, aad)
			return err == nil && string(plain) == "Ladies and Gentlemen of the class of '99: "+
				"If I could offer you only one tip for the future, sunscreen would be it."
		}},
	} {
		if !t.pass() {
			return fmt.Errorf("known answer of %s failed", t.name)
		}
	}
	return nil
}

// counting is the 32 bytes first, first+1, ...
func counting(first byte) []byte {
	b := make([]byte, 32)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

// unhex is for the constants above; wrong hex gives a wrong answer, which the
// test then reports.
func unhex(s string) []byte {
	b, _ := hex.DecodeString(s)
	return b
}
