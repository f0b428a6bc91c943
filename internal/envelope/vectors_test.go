package envelope

import (
	"crypto/ecdh"
	"crypto/hpke"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"softhem/api"
)

// Envelopes that another implementation made from the description of the format
// alone, testdata/vectors.py. They must open for ever.
func TestKnownAnswers(t *testing.T) {
	counting := func(from, n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(from + i)
		}
		return b
	}
	const kid = "0123456789abcdef0123456789abcdef"
	private := func(kem hpke.KEM, raw []byte) Key {
		return Key{KID: kid, Private: func(api.KeyType) (hpke.PrivateKey, error) { return kem.NewPrivateKey(raw) }}
	}
	keys := map[string]Key{
		"AES128":     aesKey(t, kid, api.AES128).from,
		"AES192":     aesKey(t, kid, api.AES192).from,
		"AES256":     aesKey(t, kid, api.AES256).from,
		"CURVE25519": private(hpke.DHKEM(ecdh.X25519()), counting(1, 32)),
		"MLKEM768":   private(hpke.MLKEM768(), counting(0, 64)),
	}
	files, err := filepath.Glob("testdata/*.age")
	if err != nil || len(files) != len(keys) {
		t.Fatalf("%d files for %d keys, %v", len(files), len(keys), err)
	}
	for _, path := range files {
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(path), ".age")
		if got, err := open(file, keys[name]); err != nil || string(got) != "known answer\n" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
