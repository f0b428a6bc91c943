package hem_test

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"testing"

	"filippo.io/mldsa"
	"github.com/cloudflare/circl/dh/x448"
	"github.com/cloudflare/circl/kem/mlkem/mlkem512"
	"github.com/cloudflare/circl/sign/ed448"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	koblitz "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	josecipher "github.com/go-jose/go-jose/v4/cipher"

	"softhem/api"
	"softhem/hem"
)

func algorithms(typ api.KeyType) []string {
	switch typ {
	case api.Ed25519:
		return []string{api.AlgEd25519, api.AlgEd25519ph, api.AlgEd25519ctx}
	case api.Ed448:
		return []string{api.AlgEd448, api.AlgEd448ph}
	}
	return []string{api.SHA256WithECDSA, api.SHA384WithECDSA, api.SHA512WithECDSA}
}

func digest(h func() hash.Hash, msg []byte) []byte {
	d := h()
	d.Write(msg)
	return d.Sum(nil)
}

// verifies checks a signature without the module.
func verifies(t *testing.T, typ api.KeyType, raw, msg, sig []byte, alg string, sigctx []byte) bool {
	t.Helper()
	hashes := map[string]func() hash.Hash{api.SHA256WithECDSA: sha256.New, api.SHA384WithECDSA: sha512.New384, api.SHA512WithECDSA: sha512.New}
	switch typ {
	case api.Ed448:
		if alg == api.AlgEd448ph {
			return ed448.VerifyPh(raw, msg, sig, string(sigctx))
		}
		return ed448.Verify(raw, msg, sig, string(sigctx))
	case api.Ed25519:
		o := &ed25519.Options{Context: string(sigctx)}
		if alg == api.AlgEd25519ph {
			o.Hash = crypto.SHA512
			msg = digest(sha512.New, msg)
		}
		return ed25519.VerifyWithOptions(raw, msg, sig, o) == nil
	case api.SECP256K1:
		point, err := secp256k1.ParsePubKey(raw)
		if err != nil {
			t.Fatal(err)
		}
		s, err := koblitz.ParseDERSignature(sig)
		return err == nil && s.Verify(digest(hashes[alg], msg), point)
	}
	key, err := hem.ParsePublic(typ, raw)
	if err != nil {
		t.Fatal(err)
	}
	return ecdsa.VerifyASN1(key.(*ecdsa.PublicKey), digest(hashes[alg], msg), sig)
}

// useSign signs and verifies with all algorithms of the type; for types that have none,
// it tries one.
func useSign(t *testing.T, c *hem.Client, typ api.KeyType, kid hem.KID) error {
	ctx := t.Context()
	for _, alg := range algorithms(typ) {
		for _, size := range []int{1, 2048} {
			msg := random(size)
			var sigctx []byte
			switch alg {
			case api.AlgEd25519ph, api.AlgEd25519ctx, api.AlgEd448, api.AlgEd448ph:
				sigctx = random(size)[:min(size, 255)]
			}
			sig, err := c.Sign(ctx, kid, msg, alg, sigctx)
			if err != nil {
				return err
			}
			if !verifies(t, typ, public(t, c, kid), msg, sig, alg, sigctx) {
				return fmt.Errorf("a signature by %s is wrong", alg)
			}
			if err := c.Verify(ctx, kid, msg, sig, alg, sigctx); err != nil {
				return err
			}
			msg[0] ^= 1
			if err := c.Verify(ctx, kid, msg, sig, alg, sigctx); !errors.Is(err, hem.ErrVerification) {
				return fmt.Errorf("of a changed message: %w", err)
			}
		}
	}
	if _, err := c.Sign(ctx, kid, []byte("msg"), "Ed25519x", nil); !errors.Is(err, api.ErrBadRequest) {
		t.Errorf("%s: an unknown algorithm: %v", typ, err)
	}
	return nil
}

func useMLDSA(t *testing.T, c *hem.Client, typ api.KeyType, kid hem.KID) error {
	ctx := t.Context()
	for _, sigctx := range [][]byte{nil, random(255)} {
		msg := random(700) // with the longest signature a request has room for no more
		sig, err := c.SignMLDSA(ctx, kid, msg, sigctx)
		if err != nil {
			return err
		}
		parameters := map[api.KeyType]mldsa.Parameters{api.MLDSA44: mldsa.MLDSA44(), api.MLDSA65: mldsa.MLDSA65(), api.MLDSA87: mldsa.MLDSA87()}
		key, err := mldsa.NewPublicKey(parameters[typ], public(t, c, kid))
		if err != nil {
			return err
		}
		if err := mldsa.Verify(key, msg, sig, &mldsa.Options{Context: string(sigctx)}); err != nil {
			return err
		}
		if err := c.VerifyMLDSA(ctx, kid, msg, sig, sigctx); sigctx == nil && err != nil {
			return err
		}
		sig[0] ^= 1
		if err := c.VerifyMLDSA(ctx, kid, msg[:300], sig, sigctx); !errors.Is(err, hem.ErrVerification) {
			return fmt.Errorf("of a changed signature: %w", err)
		}
	}
	_, err := c.SignMLDSA(ctx, kid, random(2048), nil)
	return err
}

// exchange is the other side of an ECDH: its raw public key, and what it computes from a
// public key of the module.
func exchange(t *testing.T, typ api.KeyType) (raw []byte, secret func(public []byte) []byte) {
	t.Helper()
	switch typ {
	case api.Curve448:
		var private, own x448.Key
		rand.Read(private[:])
		x448.KeyGen(&own, &private)
		return own[:], func(public []byte) []byte {
			var shared, theirs x448.Key
			copy(theirs[:], public)
			x448.Shared(&shared, &private, &theirs)
			return shared[:]
		}
	case api.SECP256K1:
		private, err := secp256k1.GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		return private.PubKey().SerializeCompressed(), func(public []byte) []byte {
			theirs, err := secp256k1.ParsePubKey(public)
			if err != nil {
				t.Fatal(err)
			}
			return secp256k1.GenerateSharedSecret(private, theirs)
		}
	}
	curve := map[api.KeyType]ecdh.Curve{api.SECP256R1: ecdh.P256(), api.SECP384R1: ecdh.P384(), api.SECP521R1: ecdh.P521()}[typ]
	if curve == nil {
		curve = ecdh.X25519()
	}
	private, err := curve.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, raw, err = hem.RawPublic(private.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	return raw, func(public []byte) []byte {
		if size := map[api.KeyType]elliptic.Curve{api.SECP256R1: elliptic.P256(), api.SECP384R1: elliptic.P384(), api.SECP521R1: elliptic.P521()}[typ]; size != nil {
			x, y := elliptic.UnmarshalCompressed(size, public)
			n := (size.Params().BitSize + 7) / 8
			public = slices.Concat([]byte{4}, x.FillBytes(make([]byte, n)), y.FillBytes(make([]byte, n)))
		}
		theirs, err := curve.NewPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		shared, err := private.ECDH(theirs)
		if err != nil {
			t.Fatal(err)
		}
		return shared
	}
}

// expand is HKDF-SHA256 as the protocol uses it.
func expand(t *testing.T, secret []byte, info string, size int) []byte {
	t.Helper()
	key, err := hkdf.Key(sha256.New, secret, nil, info, size)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// useExchange makes secrets, MACs, ciphertexts, wrapped keys and keys with a peer, and
// checks them from the peer's side.
func useExchange(t *testing.T, c *hem.Client, typ api.KeyType, kid hem.KID) error {
	ctx := t.Context()
	raw, compute := exchange(t, typ)
	peer := hem.PeerPublic(raw)
	got, err := c.ECDH(ctx, kid, peer, "")
	if err != nil {
		return err
	}
	secret := compute(public(t, c, kid))
	if !bytes.Equal(got, secret) {
		return errors.New("the two secrets differ")
	}
	stored, err := c.ImportKey(ctx, hem.KeySpec{Label: "peer", Type: typ}, raw)
	if err != nil {
		return err
	}
	for typ, h := range hashes() {
		if got, err := c.ECDH(ctx, kid, hem.PeerKey(stored), typ); err != nil || !bytes.Equal(got, digest(h, secret)) {
			t.Errorf("its %s: %x, %v", typ, got, err)
		}
		o := &hem.MACOptions{Peer: peer, Hash: typ}
		mac, err := c.HMAC(ctx, kid, []byte("msg"), o)
		want := hmac.New(h, secret)
		want.Write([]byte("msg"))
		if err != nil || !bytes.Equal(mac, want.Sum(nil)) {
			t.Errorf("MAC with %s: %x, %v", typ, mac, err)
		}
		if err := c.VerifyHMAC(ctx, kid, []byte("msg"), mac, o); err != nil {
			t.Error(err)
		}
		if err := c.VerifyHMAC(ctx, kid, []byte("msg"), mac[:len(mac)-1], o); !errors.Is(err, hem.ErrVerification) {
			t.Errorf("a short MAC: %v", err)
		}
	}
	for _, call := range []error{
		second(c.ECDH(ctx, kid, peer, "SHA1")), second(c.HMAC(ctx, kid, []byte("msg"), &hem.MACOptions{Peer: peer, Hash: "SHA1"})),
		second(c.Wrap(ctx, kid, random(16), &hem.WrapOptions{Peer: peer, Alg: "AES512"})),
		second(c.DeriveKey(ctx, kid, peer, hem.KeySpec{Label: "l", Type: api.MLKEM768})),
		second(c.DeriveKey(ctx, kid, peer, hem.KeySpec{Label: "l", Type: "DES"})),
	} {
		if !errors.Is(call, api.ErrBadRequest) {
			t.Errorf("an unknown algorithm: %v", call)
		}
	}

	// GCM, with a context and without, in both directions.
	for _, o := range []*hem.CipherOptions{{Peer: peer}, {Peer: peer, Context: random(64), AAD: random(1024)}} {
		gcm := gcm16(t, expand(t, secret, "encedo-aes"+string(o.Context), 32))
		plaintext := random(2048)
		ct, err := c.Encrypt(ctx, kid, hem.AES256GCM, plaintext, o)
		if err != nil {
			return err
		}
		if got, err := gcm.Open(nil, ct.IV, append(ct.Data, ct.Tag...), o.AAD); err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("the peer cannot decrypt: %v", err)
		}
		iv := random(16)
		sealed := gcm.Seal(nil, iv, plaintext, o.AAD)
		end := len(sealed) - 16
		if got, err := c.Decrypt(ctx, kid, hem.AES256GCM, &hem.Ciphertext{IV: iv, Data: sealed[:end], Tag: sealed[end:]}, o); err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("what the peer encrypted cannot be decrypted: %v", err)
		}
	}
	// A plaintext of nothing but padding comes from elsewhere only.
	block, err := aes.NewCipher(expand(t, secret, "encedo-aes", 32))
	if err != nil {
		t.Fatal(err)
	}
	padding, iv := bytes.Repeat([]byte{16}, 16), random(16)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(padding, padding)
	if got, err := c.Decrypt(ctx, kid, hem.AES256CBC, &hem.Ciphertext{IV: iv, Data: padding}, &hem.CipherOptions{Peer: peer}); err != nil || len(got) != 0 {
		t.Errorf("nothing, encrypted, is %x, %v", got, err)
	}

	// Key wrapping.
	w := &hem.WrapOptions{Peer: peer, Context: []byte("for keys")}
	kek, err := aes.NewCipher(expand(t, secret, "encedo-kekfor keys", 32))
	if err != nil {
		t.Fatal(err)
	}
	key := random(40)
	wrapped, err := c.Wrap(ctx, kid, key, w)
	if err != nil {
		return err
	}
	if want, err := josecipher.KeyWrap(kek, key); err != nil || !bytes.Equal(wrapped, want) {
		t.Errorf("wrapped as %x, not %x (%v)", wrapped, want, err)
	}
	if got, err := c.Unwrap(ctx, kid, wrapped, w); err != nil || !bytes.Equal(got, key) {
		t.Errorf("unwrapped as %x, %v", got, err)
	}

	// A derived key.
	derived, err := c.DeriveKey(ctx, kid, peer, hem.KeySpec{Label: "derived", Type: api.AES256, Descr: random(64)})
	if err != nil {
		return err
	}
	a, err := c.AEAD(derived, hem.AES256GCM)
	if err != nil {
		return err
	}
	sealed, err := a.Seal(ctx, []byte("message"), nil)
	if err != nil {
		return err
	}
	gcm := gcm16(t, expand(t, secret, "encedo-AES256", 32))
	if got, err := gcm.Open(nil, sealed[:16], sealed[16:], nil); err != nil || string(got) != "message" {
		t.Errorf("the derived key is another: %v", err)
	}
	if _, err := c.DeriveKey(ctx, kid, peer, hem.KeySpec{Label: "derived", Type: api.AES256}); !errors.Is(err, api.ErrNotAcceptable) {
		t.Errorf("a key was derived twice: %v", err)
	}
	long := hem.KeySpec{Label: "long", Type: api.SHA2x512}
	if _, err := c.DeriveKey(ctx, kid, peer, long); errors.Is(err, api.ErrNotAcceptable) != (len(secret) < 64) {
		t.Errorf("a key of 64 bytes from a secret of %d: %v", len(secret), err)
	}
	if _, err := c.ECDH(ctx, kid, hem.PeerPublic(raw[1:]), ""); !errors.Is(err, api.ErrNotAcceptable) {
		t.Errorf("a short peer: %v", err)
	}
	return nil
}

func second[T any](_ T, err error) error { return err }

func gcm16(t *testing.T, key []byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, 16)
	if err != nil {
		t.Fatal(err)
	}
	return gcm
}

func hashes() map[api.KeyType]func() hash.Hash {
	return map[api.KeyType]func() hash.Hash{
		api.SHA2x256: sha256.New, api.SHA2x384: sha512.New384, api.SHA2x512: sha512.New,
		api.SHA3x256: func() hash.Hash { return sha3.New256() },
		api.SHA3x384: func() hash.Hash { return sha3.New384() },
		api.SHA3x512: func() hash.Hash { return sha3.New512() },
	}
}

func useMAC(t *testing.T, c *hem.Client, typ api.KeyType, kid hem.KID) error {
	ctx := t.Context()
	for _, size := range []int{1, 2048} {
		msg := random(size)
		mac, err := c.HMAC(ctx, kid, msg, nil)
		if err != nil {
			return err
		}
		if want := hashes()[typ]().Size(); len(mac) != want {
			return fmt.Errorf("a MAC of %d bytes, not %d", len(mac), want)
		}
		if err := c.VerifyHMAC(ctx, kid, msg, mac, nil); err != nil {
			return err
		}
		mac[0] ^= 1
		if err := c.VerifyHMAC(ctx, kid, msg, mac, nil); !errors.Is(err, hem.ErrVerification) {
			return fmt.Errorf("of a changed MAC: %w", err)
		}
	}
	return nil
}

func useCipher(t *testing.T, c *hem.Client, typ api.KeyType, kid hem.KID) error {
	ctx := t.Context()
	tried := 0
	for _, alg := range []string{
		hem.AES128ECB, hem.AES128CBC, hem.AES128GCM, hem.AES192ECB, hem.AES192CBC, hem.AES192GCM, hem.AES256ECB, hem.AES256CBC, hem.AES256GCM,
	} {
		if strings.HasPrefix(string(typ), "AES") && alg[:6] > string(typ) {
			if _, err := c.Encrypt(ctx, kid, alg, random(16), nil); !errors.Is(err, api.ErrNotAcceptable) {
				t.Errorf("%s with a key that is too short: %v", alg, err)
			}
			continue
		}
		tried++
		for _, size := range []int{16, 2048} {
			plaintext := random(size)
			ct, err := c.Encrypt(ctx, kid, alg, plaintext, nil)
			if err != nil {
				return err
			}
			if got, err := c.Decrypt(ctx, kid, alg, ct, nil); err != nil || !bytes.Equal(got, plaintext) {
				return fmt.Errorf("%s comes back as another, %w", alg, err)
			}
			if ct.Tag == nil {
				continue
			}
			ct.Data[0] ^= 1
			if _, err := c.Decrypt(ctx, kid, alg, ct, nil); !errors.Is(err, api.ErrNotAcceptable) {
				return fmt.Errorf("of a changed ciphertext: %w", err)
			}
		}
	}
	for _, bad := range []struct {
		alg  string
		size int
	}{{hem.AES128ECB, 15}, {"AES128-CTR", 16}} {
		if _, err := c.Encrypt(ctx, kid, bad.alg, random(bad.size), nil); !errors.Is(err, api.ErrBadRequest) {
			t.Errorf("%s of %d bytes: %v", bad.alg, bad.size, err)
		}
	}
	return nil
}

func useWrap(t *testing.T, c *hem.Client, typ api.KeyType, kid hem.KID) error {
	ctx := t.Context()
	o := &hem.WrapOptions{Alg: typ}
	if !strings.HasPrefix(string(typ), "AES") {
		o = nil
	}
	for _, size := range []int{16, 2048} {
		key := random(size)
		wrapped, err := c.Wrap(ctx, kid, key, o)
		if err != nil {
			return err
		}
		if got, err := c.Unwrap(ctx, kid, wrapped, o); err != nil || !bytes.Equal(got, key) {
			return fmt.Errorf("unwrapped as another, %w", err)
		}
		wrapped[0] ^= 1
		if _, err := c.Unwrap(ctx, kid, wrapped, o); !errors.Is(err, api.ErrNotAcceptable) {
			return fmt.Errorf("of a changed one: %w", err)
		}
	}
	if typ != api.AES256 {
		if _, err := c.Wrap(ctx, kid, random(16), nil); !errors.Is(err, api.ErrNotAcceptable) {
			t.Errorf("AES256 with a shorter key: %v", err)
		}
	}
	return nil
}

func useKEM(t *testing.T, c *hem.Client, typ api.KeyType, kid hem.KID) error {
	ctx := t.Context()
	shared, ciphertext, err := c.Encapsulate(ctx, kid)
	if err != nil {
		return err
	}
	if got, err := c.Decapsulate(ctx, kid, ciphertext); err != nil || !bytes.Equal(got, shared) {
		return fmt.Errorf("decapsulated as another, %w", err)
	}
	raw := public(t, c, kid)
	switch typ {
	case api.MLKEM512:
		key, err := mlkem512.Scheme().UnmarshalBinaryPublicKey(raw)
		if err != nil {
			return err
		}
		if ciphertext, shared, err = mlkem512.Scheme().Encapsulate(key); err != nil {
			return err
		}
	case api.MLKEM768:
		key, err := mlkem.NewEncapsulationKey768(raw)
		if err != nil {
			return err
		}
		shared, ciphertext = key.Encapsulate()
	case api.MLKEM1024:
		key, err := mlkem.NewEncapsulationKey1024(raw)
		if err != nil {
			return err
		}
		shared, ciphertext = key.Encapsulate()
	}
	if got, err := c.Decapsulate(ctx, kid, ciphertext); err != nil || !bytes.Equal(got, shared) {
		return fmt.Errorf("what was encapsulated elsewhere is another, %w", err)
	}
	ciphertext[0] ^= 1
	if got, err := c.Decapsulate(ctx, kid, ciphertext); err != nil || bytes.Equal(got, shared) {
		return fmt.Errorf("a changed ciphertext gives the same secret, %w", err)
	}
	if _, err := c.Decapsulate(ctx, kid, ciphertext[1:]); !errors.Is(err, api.ErrNotAcceptable) {
		return fmt.Errorf("a short ciphertext: %w", err)
	}
	return nil
}
