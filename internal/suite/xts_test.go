package suite

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
)

// IEEE Std 1619-2007, annex B, vector 10: XTS-AES-256 over one data unit of 512
// bytes, 00 01 … ff twice, whose number is ff.
func TestDiskCipherAgreesWithIEEE1619(t *testing.T) {
	key, err1 := hex.DecodeString("2718281828459045235360287471352662497757247093699959574966967627" +
		"3141592653589793238462643383279502884197169399375105820974944592")
	want, err2 := hex.DecodeString("1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd" +
		"5776926c49a3095eb108fd1098baec70aaa66999a72a82f27d848b21d4a741b0c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca" +
		"2a3e7a7d7df7b10355165c8b9a6d0a7de8b062c4500dc4cd120c0f7418dae3d0b5781c34803fa75421c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f" +
		"93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1a8cc81ec583e9645e07b8d9670655ba5bbcfecc6dc3966380ad8fecb17b6ba02469a020a" +
		"84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1505eb309326d68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae" +
		"9be69a2ffeceb1bec9de244fbe15992b11b77c040f12bd8f6a975a44a0f90c29a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac" +
		"6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f645e8b7e9bfdef33943054ff84011493c27b3429eaedb4ed5376441a77ed4385" +
		"1ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	plain := bytes.Repeat(counting(0, 256), 2)
	c, err := NewDiskCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	sector := bytes.Clone(plain)
	if c.Encrypt(sector, 0xff); !bytes.Equal(sector, want) {
		t.Fatalf("encrypted: %x", sector)
	}
	if c.Decrypt(sector, 0xff); !bytes.Equal(sector, plain) {
		t.Fatalf("decrypted: %x", sector)
	}
}

// What OpenSSL (through pyca/cryptography 48) makes of key 01 02 … 40 and the
// sector 3 + 7i, as SHA-256: numbers of more than 32 bits are those of large
// disks.
func TestDiskCipherNumbersSectors(t *testing.T) {
	c, err := NewDiskCipher(counting(1, DiskKeySize))
	if err != nil {
		t.Fatal(err)
	}
	plain := make([]byte, SectorSize)
	for i := range plain {
		plain[i] = byte(7*i + 3)
	}
	for number, want := range map[uint64]string{
		0x1:           "1db3e0bc603a736e4af72a9582e04b3031e3d5c3a2603bc6305081f179198a97",
		0xff:          "f3c6c784b27381648ff6e5079db4c069d1b5e6ae3b94f7158d41a1413b6b6829",
		0x100000000:   "f9911ffbc52c07b427921cc917a824ff234c93c51b519042373f808ea829f62f",
		0x10000000007: "cfa05c7fe9259914637a7ecfc3c190870c14951ab215b0786c13db55d447e06b",
	} {
		// In the middle of three, so that the numbering within a call counts.
		sectors := bytes.Repeat(plain, 3)
		c.Encrypt(sectors, number-1)
		if digest := SHA256(sectors[SectorSize : 2*SectorSize]); hex.EncodeToString(digest[:]) != want {
			t.Errorf("sector %x: %x", number, digest)
		}
		if c.Decrypt(sectors, number-1); !bytes.Equal(sectors, bytes.Repeat(plain, 3)) {
			t.Errorf("sector %x does not come back", number)
		}
	}
}

func TestDiskKeys(t *testing.T) {
	for name, key := range map[string][]byte{
		"none": nil, "AES-128": counting(1, 32), "too long": counting(1, 65), "equal halves": bytes.Repeat(counting(1, 32), 2),
	} {
		if _, err := NewDiskCipher(key); !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, err := NewDiskCipher(counting(1, DiskKeySize))
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if got := fmt.Sprintf(verb, c); got != "[secret]" {
			t.Errorf("%s prints %q", verb, got)
		}
	}
}

func BenchmarkDiskCipher(b *testing.B) {
	c, err := NewDiskCipher(counting(1, DiskKeySize))
	if err != nil {
		b.Fatal(err)
	}
	sectors := make([]byte, 256<<10)
	b.SetBytes(int64(len(sectors)))
	for b.Loop() {
		c.Encrypt(sectors, 1)
	}
}
