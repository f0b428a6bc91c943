package suite

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func TestSelfTestPasses(t *testing.T) {
	if err := SelfTest(); err != nil {
		t.Fatal(err)
	}
}

// The points of order 1, 2, 4 and 8 on Curve25519 and its twist give no secret
// (RFC 7748 section 6.1); accepting one would let anybody compute the MAC key.
func TestSharedRefusesLowOrderPoints(t *testing.T) {
	k, err := NewX25519Key(counting(1, 32))
	if err != nil {
		t.Fatal(err)
	}
	for _, point := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		if secret, err := k.Shared(unhex(point)); !errors.Is(err, ErrKey) {
			t.Errorf("Shared(%s) = %x, %v; want ErrKey", point, secret, err)
		}
	}
	for _, n := range []int{0, 31, 33} {
		if _, err := k.Shared(make([]byte, n)); !errors.Is(err, ErrKey) {
			t.Errorf("Shared of %d bytes: %v, want ErrKey", n, err)
		}
	}
}

func TestWrongLengthsAreRefused(t *testing.T) {
	if _, err := NewX25519Key(make([]byte, 31)); !errors.Is(err, ErrKey) {
		t.Error("X25519: 31 bytes taken")
	}
	if _, err := NewEd25519Key(make([]byte, 64)); !errors.Is(err, ErrKey) {
		t.Error("Ed25519: 64 bytes taken as a seed")
	}
	if _, err := NewP256Key(make([]byte, 32)); !errors.Is(err, ErrKey) {
		t.Error("P-256: zero taken as a scalar")
	}
}

func TestAEADLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), AEADKeySize, AEADKeySize).Draw(t, "key")
		plain := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "plain")
		aad := rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "aad")
		sealed := SealAEAD(key, plain, aad)
		if got, err := OpenAEAD(key, sealed, aad); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("open(seal(x)) = %x, %v", got, err)
		}
		bit := rapid.IntRange(0, len(sealed)*8-1).Draw(t, "bit")
		sealed[bit/8] ^= 1 << (bit % 8)
		if _, err := OpenAEAD(key, sealed, aad); !errors.Is(err, ErrOpen) {
			t.Fatalf("a flipped bit was not noticed: %v", err)
		}
	})
}
func TestSerialIsSixteenBytes(t *testing.T) {
	for range 100 {
		raw := CertificateSerial().Bytes()
		if len(raw) != 16 || raw[0]&0x80 != 0 {
			t.Fatalf("serial %x", raw)
		}
	}
}
