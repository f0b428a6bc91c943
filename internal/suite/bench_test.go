package suite

import (
	"testing"

	"softhem/api"
)

// benchKey opens the key that the self-test uses of a type.
func benchKey(b *testing.B, t api.KeyType) *Key {
	b.Helper()
	k := newTestKeys().open(t)
	if k == nil {
		b.Fatalf("%s cannot be opened", t)
	}
	return k
}

// perOperation runs op once, for what is only made once, and then measures it.
func perOperation(b *testing.B, name string, op func() error) {
	b.Run(name, func(b *testing.B) {
		if err := op(); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			op()
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	for _, a := range Algorithms() {
		material := counting(1, a.MaterialSize)
		perOperation(b, string(a.Type), func() error { _, err := a.Open(material); return err })
	}
}

func BenchmarkOpenPublic(b *testing.B) {
	for _, a := range Algorithms() {
		if a.PublicSize == 0 {
			continue
		}
		public := benchKey(b, a.Type).Public()
		perOperation(b, string(a.Type), func() error { _, err := a.OpenPublic(public); return err })
	}
}

func BenchmarkSharedSecret(b *testing.B) {
	for _, a := range Algorithms() {
		if !a.ECDH {
			continue
		}
		k := benchKey(b, a.Type)
		peer, err := a.Open(a.NewMaterial())
		if err != nil {
			b.Fatal(err)
		}
		perOperation(b, string(a.Type), func() error { _, err := k.SharedSecret(peer); return err })
	}
}

// signatures are an algorithm of exdsa for every type that signs.
var signatures = []struct {
	keys api.KeyType
	alg  string
}{
	{api.SECP256R1, api.SHA256WithECDSA},
	{api.SECP384R1, api.SHA384WithECDSA},
	{api.SECP521R1, api.SHA512WithECDSA},
	{api.SECP256K1, api.SHA256WithECDSA},
	{api.Ed25519, api.AlgEd25519},
	{api.Ed25519, api.AlgEd25519ph},
	{api.Ed448, api.AlgEd448},
}

func BenchmarkSign(b *testing.B) {
	msg := make([]byte, 256)
	for _, s := range signatures {
		k := benchKey(b, s.keys)
		alg, _ := SignatureAlgOf(s.alg)
		perOperation(b, string(s.keys)+"/"+s.alg, func() error { _, err := k.Sign(alg, msg, nil); return err })
	}
}

func BenchmarkVerify(b *testing.B) {
	msg := make([]byte, 256)
	for _, s := range signatures {
		k := benchKey(b, s.keys)
		alg, _ := SignatureAlgOf(s.alg)
		sig, err := k.Sign(alg, msg, nil)
		if err != nil {
			b.Fatal(err)
		}
		perOperation(b, string(s.keys)+"/"+s.alg, func() error { return k.Verify(alg, msg, nil, sig) })
	}
}

func BenchmarkMAC(b *testing.B) {
	msg := make([]byte, 256)
	for _, a := range Algorithms() {
		if !a.MAC {
			continue
		}
		k := benchKey(b, a.Type)
		perOperation(b, string(a.Type), func() error { _, err := k.MAC(msg); return err })
	}
}

func BenchmarkCipher(b *testing.B) {
	key, plain, aad := counting(1, 32), make([]byte, 256), make([]byte, 16)
	for _, name := range []string{"AES256-ECB", "AES256-CBC", "AES256-GCM"} {
		c, _ := CipherAlgOf(name)
		ciphertext, iv, tag, err := c.Encrypt(key, plain, aad)
		if err != nil {
			b.Fatal(err)
		}
		perOperation(b, name+"/encrypt", func() error { _, _, _, err := c.Encrypt(key, plain, aad); return err })
		perOperation(b, name+"/decrypt", func() error { _, err := c.Decrypt(key, ciphertext, iv, tag, aad); return err })
	}
}

func BenchmarkWrap(b *testing.B) {
	kek, plain := counting(1, 32), make([]byte, 32)
	w, _ := WrapAlgOf("")
	wrapped, err := w.Wrap(kek, plain, nil)
	if err != nil {
		b.Fatal(err)
	}
	perOperation(b, "wrap", func() error { _, err := w.Wrap(kek, plain, nil); return err })
	perOperation(b, "unwrap", func() error { _, err := w.Unwrap(kek, wrapped, nil); return err })
}

func BenchmarkMLKEM(b *testing.B) {
	for _, a := range Algorithms() {
		if !a.KEM {
			continue
		}
		k := benchKey(b, a.Type)
		_, ciphertext, err := k.Encapsulate()
		if err != nil {
			b.Fatal(err)
		}
		perOperation(b, string(a.Type)+"/encapsulate", func() error { _, _, err := k.Encapsulate(); return err })
		perOperation(b, string(a.Type)+"/decapsulate", func() error { _, err := k.Decapsulate(ciphertext); return err })
	}
}

func BenchmarkMLDSA(b *testing.B) {
	msg := make([]byte, 256)
	for _, a := range Algorithms() {
		if !a.MLDSA {
			continue
		}
		k := benchKey(b, a.Type)
		sig, err := k.SignMLDSA(msg, nil)
		if err != nil {
			b.Fatal(err)
		}
		perOperation(b, string(a.Type)+"/sign", func() error { _, err := k.SignMLDSA(msg, nil); return err })
		perOperation(b, string(a.Type)+"/verify", func() error { return k.VerifyMLDSA(msg, nil, sig) })
	}
}

func BenchmarkSelfTest(b *testing.B) {
	perOperation(b, "all", SelfTest)
}
