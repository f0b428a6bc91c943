package suite

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"softhem/api"
)

// maxMessage is the longest message of the protocol, in bytes.
const maxMessage = api.MaxMessageBytes

var ciphers = []string{
	"AES128-ECB", "AES192-ECB", "AES256-ECB", "AES128-CBC", "AES192-CBC", "AES256-CBC", "AES128-GCM", "AES192-GCM", "AES256-GCM",
}

// flip changes one bit of b, which is not empty, and gives a copy.
func flip(t *rapid.T, b []byte) []byte {
	out := bytes.Clone(b)
	bit := rapid.IntRange(0, len(b)*8-1).Draw(t, "bit")
	out[bit/8] ^= 1 << (bit % 8)
	return out
}

func TestCiphersReverse(t *testing.T) {
	for _, name := range ciphers {
		c, ok := CipherAlgOf(name)
		if !ok {
			t.Fatalf("no cipher %s", name)
		}
		key, all := Random(40), Random(maxMessage)
		for n := range maxMessage + 1 {
			ciphertext, iv, tag, err := c.Encrypt(key, all[:n], all[:n%64])
			if c.Blocks() && n%16 != 0 {
				if !errors.Is(err, ErrMismatch) {
					t.Fatalf("%s: %d bytes: %v", name, n, err)
				}
				continue
			}
			if err != nil || (len(iv) == 16) != c.HasIV() || (len(tag) == 16) != c.HasTag() {
				t.Fatalf("%s: %d bytes: IV of %d, tag of %d, %v", name, n, len(iv), len(tag), err)
			}
			// The leading bytes of the key are the key.
			plain, err := c.Decrypt(key[:c.KeySize()], ciphertext, iv, tag, all[:n%64])
			if err != nil || !bytes.Equal(plain, all[:n]) {
				t.Fatalf("%s: %d bytes do not come back: %v", name, n, err)
			}
		}
	}
}

func TestGCMNoticesChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, _ := CipherAlgOf(rapid.SampledFrom(ciphers[6:]).Draw(t, "cipher"))
		key := rapid.SliceOfN(rapid.Byte(), c.KeySize(), 64).Draw(t, "key")
		plain := rapid.SliceOfN(rapid.Byte(), 1, maxMessage).Draw(t, "plain")
		aad := rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "aad")
		ciphertext, iv, tag, err := c.Encrypt(key, plain, aad)
		if err != nil {
			t.Fatal(err)
		}
		parts := [][]byte{key[:c.KeySize()], ciphertext, iv, tag, aad}
		i := rapid.IntRange(0, len(parts)-1).Draw(t, "part")
		parts[i] = flip(t, parts[i])
		if got, err := c.Decrypt(parts[0], parts[1], parts[2], parts[3], parts[4]); !errors.Is(err, ErrMismatch) || got != nil {
			t.Fatalf("a change of part %d was not noticed: %v", i, err)
		}
	})
}

// Every ending of the last block, against a reading of RFC 5652 that looks at
// one byte after the other.
func TestUnpad(t *testing.T) {
	reference := func(b []byte) bool {
		n := int(b[len(b)-1])
		return n >= 1 && n <= 16 && bytes.HasSuffix(b, bytes.Repeat([]byte{byte(n)}, n))
	}
	check := func(b []byte) {
		got, err := unpad(bytes.Clone(b))
		if reference(b) != (err == nil) || err == nil && len(got) != len(b)-int(b[len(b)-1]) {
			t.Errorf("unpad(%x) = %x, %v", b, got, err)
		}
	}
	for last := range 256 {
		b := bytes.Repeat([]byte{byte(last)}, 32)
		check(b)
		for i := range b {
			b[i] ^= 1
			check(b)
			b[i] ^= 1
		}
	}
}

func TestWrapsReverse(t *testing.T) {
	all := Random(maxMessage)
	for _, name := range []string{"AES128", "AES192", "AES256", ""} {
		w, ok := WrapAlgOf(name)
		if !ok {
			t.Fatalf("no wrap %q", name)
		}
		kek := Random(40)
		for n := range maxMessage + 1 {
			var iv []byte
			if n%16 == 0 {
				iv = Random(8)
			}
			wrapped, err := w.Wrap(kek, all[:n], iv)
			if n < 16 || n%8 != 0 {
				if !errors.Is(err, ErrMismatch) {
					t.Fatalf("%d bytes: %v", n, err)
				}
				if _, err := w.Unwrap(kek, all[:n], iv); !errors.Is(err, ErrMismatch) {
					t.Fatalf("unwrap %d bytes: %v", n, err)
				}
				continue
			}
			if err != nil || len(wrapped) != n+8 {
				t.Fatalf("%d bytes: %d wrapped, %v", n, len(wrapped), err)
			}
			plain, err := w.Unwrap(kek[:w.KeySize()], wrapped, iv)
			if err != nil || !bytes.Equal(plain, all[:n]) {
				t.Fatalf("%d bytes do not come back: %v", n, err)
			}
		}
	}
}

func TestUnwrapNoticesChanges(t *testing.T) {
	w, _ := WrapAlgOf("")
	rapid.Check(t, func(t *rapid.T) {
		kek, iv := Random(32), Random(8)
		plain := Random(8 * rapid.IntRange(2, 40).Draw(t, "halves"))
		wrapped, err := w.Wrap(kek, plain, iv)
		if err != nil {
			t.Fatal(err)
		}
		parts := [][]byte{kek, wrapped, iv}
		i := rapid.IntRange(0, 2).Draw(t, "part")
		parts[i] = flip(t, parts[i])
		if got, err := w.Unwrap(parts[0], parts[1], parts[2]); !errors.Is(err, ErrMismatch) || got != nil {
			t.Fatalf("a change of part %d was not noticed: %v", i, err)
		}
		if got, err := w.Unwrap(kek, wrapped, nil); !errors.Is(err, ErrMismatch) || got != nil {
			t.Fatalf("the default initial value was taken: %v", err)
		}
	})
}

// What one side agrees on with the other, the other agrees on with it.
func TestAgreementIsMutual(t *testing.T) {
	for _, a := range Algorithms() {
		if !a.ECDH {
			continue
		}
		one, other := mustOpen(t, a.Type, a.NewMaterial()), mustOpen(t, a.Type, a.NewMaterial())
		want, err := one.SharedSecret(other)
		if err != nil || len(want) != a.MaterialSize {
			t.Errorf("%s: a secret of %d bytes, %v", a.Type, len(want), err)
		}
		for _, pair := range [][2]*Key{{other, one}, {one, mustOpenPublic(t, a.Type, other.Public())}, {other, mustOpenPublic(t, a.Type, one.Public())}} {
			if got, err := pair[0].SharedSecret(pair[1]); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %x, %v; want %x", a.Type, got, err, want)
			}
		}
		if _, err := one.SharedSecret(one); err != nil {
			t.Errorf("%s: a key with itself: %v", a.Type, err)
		}
	}
}

// signers gives an algorithm of exdsa, or the empty name for ML-DSA, and what
// signs and verifies with it.
type signer struct {
	name    string
	context bool
	sign    func(msg, ctx []byte) ([]byte, error)
	verify  func(msg, ctx, sig []byte) error // under the public key
}

func signers(t testing.TB) []signer {
	var all []signer
	for _, a := range Algorithms() {
		k := (*Key)(nil)
		if a.ExDSA || a.MLDSA {
			k = mustOpen(t, a.Type, a.NewMaterial())
		}
		if a.MLDSA {
			pub := mustOpenPublic(t, a.Type, k.Public())
			all = append(all, signer{string(a.Type), true, k.SignMLDSA, pub.VerifyMLDSA})
		}
		if !a.ExDSA {
			continue
		}
		pub := mustOpenPublic(t, a.Type, k.Public())
		for _, name := range signatureNames {
			alg, _ := SignatureAlgOf(name)
			if _, err := k.Sign(alg, nil, []byte("c")); err != nil {
				continue // TestMismatches says which fit
			}
			all = append(all, signer{string(a.Type) + " " + name, alg.TakesContext(),
				func(msg, ctx []byte) ([]byte, error) { return k.Sign(alg, msg, ctx) },
				func(msg, ctx, sig []byte) error { return pub.Verify(alg, msg, ctx, sig) }})
		}
	}
	return all
}

var signatureNames = []string{
	api.SHA256WithECDSA, api.SHA384WithECDSA, api.SHA512WithECDSA,
	api.AlgEd25519, api.AlgEd25519ph, api.AlgEd25519ctx, api.AlgEd448, api.AlgEd448ph,
}

func TestSignaturesNoticeChanges(t *testing.T) {
	all := signers(t)
	if len(all) != 4*3+5+3 {
		t.Errorf("%d ways to sign, want 20", len(all))
	}
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			rounds := 0
			rapid.Check(t, func(t *rapid.T) {
				if rounds++; rounds > 20 { // P-521 takes milliseconds
					return
				}
				msg := Random(rapid.IntRange(1, maxMessage).Draw(t, "length"))
				ctx := Random(rapid.IntRange(1, 255).Draw(t, "context"))
				sig, err := s.sign(msg, ctx)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.verify(msg, ctx, sig); err != nil {
					t.Fatal(err)
				}
				parts := [][]byte{msg, sig, ctx}
				i := rapid.IntRange(0, 2).Draw(t, "part")
				parts[i] = flip(t, parts[i])
				err = s.verify(parts[0], parts[2], parts[1])
				if want := i != 2 || s.context; want != errors.Is(err, ErrMismatch) {
					t.Fatalf("part %d was changed: %v", i, err)
				}
			})
		})
	}
}

func TestKEMLaws(t *testing.T) {
	for _, a := range Algorithms() {
		if !a.KEM {
			continue
		}
		k := mustOpen(t, a.Type, a.NewMaterial())
		pub := mustOpenPublic(t, a.Type, k.Public())
		rapid.Check(t, func(t *rapid.T) {
			from := rapid.SampledFrom([]*Key{k, pub}).Draw(t, "key")
			secret, ciphertext, err := from.Encapsulate()
			if err != nil || len(secret) != 32 {
				t.Fatalf("a secret of %d bytes, %v", len(secret), err)
			}
			if got, err := k.Decapsulate(ciphertext); err != nil || !bytes.Equal(got, secret) {
				t.Fatalf("%x, %v; want %x", got, err, secret)
			}
			// Another ciphertext gives another secret, the same each time.
			wrong := flip(t, ciphertext)
			one, err := k.Decapsulate(wrong)
			if err != nil || len(one) != 32 || bytes.Equal(one, secret) {
				t.Fatalf("a changed ciphertext gives %x, %v", one, err)
			}
			if two, err := k.Decapsulate(wrong); err != nil || !bytes.Equal(one, two) {
				t.Fatalf("a changed ciphertext gives %x and %x, %v", one, two, err)
			}
			n := rapid.IntRange(0, maxMessage).Draw(t, "length")
			if _, err := k.Decapsulate(make([]byte, n)); (err == nil) != (n == len(ciphertext)) {
				t.Fatalf("a ciphertext of %d bytes: %v", n, err)
			}
		})
	}
}

// Keys are used by many requests at once; this is for the race detector.
func TestKeysAreConcurrent(t *testing.T) {
	for _, s := range signers(t) {
		t.Run(s.name, func(t *testing.T) {
			for range 3 {
				t.Run("", func(t *testing.T) {
					t.Parallel()
					sig, err := s.sign([]byte("m"), []byte("c"))
					if err != nil || s.verify([]byte("m"), []byte("c"), sig) != nil {
						t.Error(err)
					}
				})
			}
		})
	}
	for _, a := range Algorithms() {
		k := mustOpen(t, a.Type, a.NewMaterial())
		for range 3 {
			t.Run(string(a.Type), func(t *testing.T) {
				t.Parallel()
				k.MAC([]byte("m"))
				k.SharedSecret(k)
				if _, ciphertext, err := k.Encapsulate(); err == nil {
					k.Decapsulate(ciphertext)
				}
			})
		}
	}
}
