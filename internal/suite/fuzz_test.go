package suite

import (
	"bytes"
	"testing"
)

// What comes from outside must not panic, whatever it is. Where something is
// taken, it must mean what it says.

func FuzzOpenPublic(f *testing.F) {
	all := Algorithms()
	for i, a := range all {
		if a.PublicSize > 0 {
			f.Add(uint8(i), mustOpen(f, a.Type, counting(1, a.MaterialSize)).Public())
			f.Add(uint8(i), bytes.Repeat([]byte{0xff}, a.PublicSize))
		}
	}
	f.Fuzz(func(t *testing.T, i uint8, public []byte) {
		a := all[int(i)%len(all)]
		k, err := a.OpenPublic(public)
		if err != nil {
			return
		}
		if k.Private() || len(public) != a.PublicSize || !bytes.Equal(k.Public(), public) {
			t.Fatalf("%s: %x was opened as %x", a.Type, public, k.Public())
		}
		// What was opened can be used.
		for _, name := range signatureNames {
			alg, _ := SignatureAlgOf(name)
			k.Verify(alg, []byte("m"), []byte("c"), make([]byte, 64))
			k.Verify(alg, []byte("m"), []byte("c"), make([]byte, 114))
		}
		k.VerifyMLDSA([]byte("m"), nil, make([]byte, 2420))
		k.Encapsulate()
		if a.ECDH {
			mustOpen(t, a.Type, counting(1, a.MaterialSize)).SharedSecret(k)
		}
	})
}

func FuzzVerify(f *testing.F) {
	var keys []*Key
	for _, a := range Algorithms() {
		if a.ExDSA {
			keys = append(keys, mustOpen(f, a.Type, counting(1, a.MaterialSize)))
		}
	}
	for i, k := range keys {
		for j, name := range signatureNames {
			alg, _ := SignatureAlgOf(name)
			if sig, err := k.Sign(alg, []byte("m"), []byte("c")); err == nil {
				f.Add(uint8(i), uint8(j), []byte("m"), []byte("c"), sig)
			}
		}
	}
	f.Fuzz(func(_ *testing.T, i, j uint8, msg, ctx, sig []byte) {
		alg, _ := SignatureAlgOf(signatureNames[int(j)%len(signatureNames)])
		keys[int(i)%len(keys)].Verify(alg, msg, ctx, sig)
	})
}

func FuzzVerifyMLDSA(f *testing.F) {
	var keys []*Key
	for _, a := range Algorithms() {
		if !a.MLDSA {
			continue
		}
		k := mustOpen(f, a.Type, counting(1, a.MaterialSize))
		sig, err := k.SignMLDSA([]byte("m"), []byte("c"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(len(keys)), []byte("m"), []byte("c"), sig)
		f.Add(uint8(len(keys)), []byte("m"), []byte("c"), sig[1:])
		keys = append(keys, k)
	}
	f.Fuzz(func(_ *testing.T, i uint8, msg, ctx, sig []byte) {
		keys[int(i)%len(keys)].VerifyMLDSA(msg, ctx, sig)
	})
}

func FuzzDecapsulate(f *testing.F) {
	var keys []*Key
	var sizes []int
	for _, a := range Algorithms() {
		if !a.KEM {
			continue
		}
		k := mustOpen(f, a.Type, counting(1, a.MaterialSize))
		_, ciphertext, err := k.Encapsulate()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(len(keys)), ciphertext)
		f.Add(uint8(len(keys)), ciphertext[1:])
		keys, sizes = append(keys, k), append(sizes, len(ciphertext))
	}
	f.Fuzz(func(t *testing.T, i uint8, ciphertext []byte) {
		n := int(i) % len(keys)
		secret, err := keys[n].Decapsulate(ciphertext)
		if (err == nil) != (len(ciphertext) == sizes[n]) || err == nil && len(secret) != 32 {
			t.Fatalf("%d bytes give %x, %v", len(ciphertext), secret, err)
		}
	})
}

func FuzzUnwrap(f *testing.F) {
	w, _ := WrapAlgOf("")
	wrapped, err := w.Wrap(counting(1, 32), counting(1, 24), counting(1, 8))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(counting(1, 32), wrapped, counting(1, 8))
	f.Add(counting(1, 32), wrapped, []byte(nil))
	f.Fuzz(func(t *testing.T, kek, wrapped, iv []byte) {
		for _, name := range []string{"AES128", "AES192", "AES256"} {
			w, _ := WrapAlgOf(name)
			plain, err := w.Unwrap(kek, wrapped, iv)
			if err != nil {
				continue
			}
			if again, err := w.Wrap(kek, plain, iv); err != nil || !bytes.Equal(again, wrapped) {
				t.Fatalf("%x unwraps to %x, which wraps to %x, %v", wrapped, plain, again, err)
			}
		}
	})
}

func FuzzDecrypt(f *testing.F) {
	for i, name := range ciphers {
		c, _ := CipherAlgOf(name)
		ciphertext, iv, tag, err := c.Encrypt(counting(1, 32), counting(1, 32), []byte("a"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), counting(1, 32), ciphertext, iv, tag, []byte("a"))
	}
	f.Fuzz(func(t *testing.T, i uint8, key, ciphertext, iv, tag, aad []byte) {
		c, _ := CipherAlgOf(ciphers[int(i)%len(ciphers)])
		plain, err := c.Decrypt(key, ciphertext, iv, tag, aad)
		if err != nil {
			return
		}
		again, sameTag, err := c.encrypt(key, plain, iv, aad)
		if err != nil || !bytes.Equal(again, ciphertext) || c.HasTag() && !bytes.Equal(sameTag, tag) {
			t.Fatalf("%x decrypts to %x, which encrypts to %x, %v", ciphertext, plain, again, err)
		}
	})
}
