package hem_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/mlkem"
	"crypto/rand"
	"errors"
	"testing"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
)

var ecdhCurves = map[api.KeyType]ecdh.Curve{
	api.Curve25519: ecdh.X25519(), api.SECP256R1: ecdh.P256(), api.SECP384R1: ecdh.P384(), api.SECP521R1: ecdh.P521(),
}

func ecdhKey(t testing.TB, c *hem.Client, typ api.KeyType) *hem.ECDHKey {
	t.Helper()
	k, err := c.ECDHKey(t.Context(), create(t, c, typ))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func decapsulator(t testing.TB, c *hem.Client, typ api.KeyType) *hem.Decapsulator {
	t.Helper()
	d, err := c.Decapsulator(t.Context(), create(t, c, typ))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestECDHKey(t *testing.T) {
	c := hemtest.New(t, nil).Client()
	for typ, curve := range ecdhCurves {
		k := ecdhKey(t, c, typ)
		other, err := curve.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		want, err := other.ECDH(k.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		got, err := k.ECDH(other.PublicKey())
		if err != nil || !bytes.Equal(got, want) || k.Curve() != curve || k.KID() == (hem.KID{}) {
			t.Errorf("%s: %x, not %x (%v)", typ, got, want, err)
		}
		for otherType, otherCurve := range ecdhCurves {
			if otherType == typ {
				continue
			}
			other, err := otherCurve.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := k.ECDH(other.PublicKey()); !errors.Is(err, hem.ErrArgument) {
				t.Errorf("%s with %s: %v", typ, otherType, err)
			}
		}
		if _, err := k.ECDH(nil); !errors.Is(err, hem.ErrArgument) {
			t.Errorf("%s with nothing: %v", typ, err)
		}
	}
	for _, typ := range []api.KeyType{api.Curve448, api.SECP256K1, api.Ed25519, api.AES128, api.MLKEM768} {
		if k, err := c.ECDHKey(t.Context(), create(t, c, typ)); !errors.Is(err, hem.ErrKeyType) {
			t.Errorf("%s: %v, %v", typ, k, err)
		}
	}
	// A key for signatures alone is found out when it is used.
	kid, err := c.CreateKey(t.Context(), hem.KeySpec{Label: "signs", Type: api.SECP256R1, Mode: api.ModeExDSA})
	if err != nil {
		t.Fatal(err)
	}
	k, err := c.ECDHKey(t.Context(), kid)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.ECDH(k.PublicKey()); !errors.Is(err, api.ErrNotAcceptable) {
		t.Error(err)
	}
	if _, err := c.ECDHKey(t.Context(), hem.KID{1}); !errors.Is(err, api.ErrNotAcceptable) {
		t.Error(err)
	}
}

func TestDecapsulator(t *testing.T) {
	c := hemtest.New(t, nil).Client()
	for _, typ := range []api.KeyType{api.MLKEM768, api.MLKEM1024} {
		d := decapsulator(t, c, typ)
		shared, ciphertext := d.Encapsulator().Encapsulate()
		if got, err := d.Decapsulate(ciphertext); err != nil || !bytes.Equal(got, shared) {
			t.Errorf("%s: %x, not %x (%v)", typ, got, shared, err)
		}
		if !bytes.Equal(d.Encapsulator().Bytes(), public(t, c, d.KID())) {
			t.Errorf("%s: another key encapsulates", typ)
		}
		for _, bad := range [][]byte{nil, ciphertext[1:], append([]byte{0}, ciphertext...)} {
			if _, err := d.Decapsulate(bad); !errors.Is(err, hem.ErrArgument) {
				t.Errorf("%s: a ciphertext of %d bytes: %v", typ, len(bad), err)
			}
		}
		// The rejection is implicit, as that of the standard library: FIPS 203, algorithm
		// 18.
		ciphertext[len(ciphertext)-1] ^= 1
		got, err := d.Decapsulate(ciphertext)
		again, errAgain := d.Decapsulate(ciphertext)
		if err != nil || errAgain != nil || bytes.Equal(got, shared) || !bytes.Equal(got, again) {
			t.Errorf("%s: a changed ciphertext: %x, %x, %v, %v", typ, got, again, err, errAgain)
		}
	}
	for _, typ := range []api.KeyType{api.MLKEM512, api.Curve25519, api.MLDSA44, api.AES256} {
		if d, err := c.Decapsulator(t.Context(), create(t, c, typ)); !errors.Is(err, hem.ErrKeyType) {
			t.Errorf("%s: %v, %v", typ, d, err)
		}
	}
	if _, err := c.Decapsulator(t.Context(), hem.KID{1}); !errors.Is(err, api.ErrNotAcceptable) {
		t.Error(err)
	}
}

// What is used without the module must be as its own keys are: the same bytes, and of the
// standard library's types.
func TestEncapsulatorIsTheStandardLibrarys(t *testing.T) {
	c := hemtest.New(t, nil).Client()
	if k, ok := decapsulator(t, c, api.MLKEM768).Encapsulator().(*mlkem.EncapsulationKey768); !ok {
		t.Errorf("%T", k)
	}
	if k, ok := decapsulator(t, c, api.MLKEM1024).Encapsulator().(*mlkem.EncapsulationKey1024); !ok {
		t.Errorf("%T", k)
	}
	var _ crypto.Decapsulator = (*hem.Decapsulator)(nil)
	var _ ecdh.KeyExchanger = (*hem.ECDHKey)(nil)
}

// Package hpke (RFC 9180) takes the module's keys of all KEMs it has: of a curve, of
// ML-KEM, and of both together.
func TestHPKE(t *testing.T) {
	c := hemtest.New(t, nil).Client()
	keys := map[string]hpke.PrivateKey{}
	keep := func(name string, key hpke.PrivateKey, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		keys[name] = key
	}
	for typ := range ecdhCurves {
		key, err := hpke.NewDHKEMPrivateKey(ecdhKey(t, c, typ))
		keep(string(typ), key, err)
	}
	for _, typ := range []api.KeyType{api.MLKEM768, api.MLKEM1024} {
		key, err := hpke.NewMLKEMPrivateKey(decapsulator(t, c, typ))
		keep(string(typ), key, err)
	}
	for pq, curves := range map[api.KeyType][]api.KeyType{api.MLKEM768: {api.Curve25519, api.SECP256R1}, api.MLKEM1024: {api.SECP384R1}} {
		for _, curve := range curves {
			key, err := hpke.NewHybridPrivateKey(decapsulator(t, c, pq), ecdhKey(t, c, curve))
			keep(string(pq)+" with "+string(curve), key, err)
		}
	}
	for name, key := range keys {
		// The sender has the public key only, from the wire.
		public, err := key.KEM().NewPublicKey(key.PublicKey().Bytes())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		sealed, err := hpke.Seal(public, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte("info"), []byte("message"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := hpke.Open(key, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte("info"), sealed); err != nil || string(got) != "message" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if _, err := hpke.Open(key, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte("other"), sealed); err == nil {
			t.Errorf("%s: opened with another info", name)
		}
	}
}

// An AEAD is AES-GCM with a nonce of 16 bytes, before the rest: the standard library's
// makes and opens the same, with a key that both sides derive.
func TestAEAD(t *testing.T) {
	c := hemtest.New(t, nil).Client()
	ctx := t.Context()
	raw, compute := exchange(t, api.Curve25519)
	own := create(t, c, api.Curve25519)
	secret := compute(public(t, c, own))
	for typ, tc := range map[api.KeyType]struct {
		size int
		alg  string
	}{api.AES128: {16, hem.AES128GCM}, api.AES192: {24, hem.AES192GCM}, api.AES256: {32, hem.AES256GCM}} {
		kid, err := c.DeriveKey(ctx, own, hem.PeerPublic(raw), hem.KeySpec{Label: "shared", Type: typ})
		if err != nil {
			t.Fatal(err)
		}
		a, err := c.AEAD(kid, tc.alg)
		if err != nil {
			t.Fatal(err)
		}
		std := gcm16(t, expand(t, secret, "encedo-"+string(typ), tc.size))
		for _, plaintext := range [][]byte{{0}, random(2048)} {
			for _, aad := range [][]byte{nil, []byte("aad"), random(1024)} {
				sealed, err := a.Seal(ctx, plaintext, aad)
				if err != nil || len(sealed) != len(plaintext)+a.Overhead() {
					t.Fatalf("%s: %d bytes of %d, %v", typ, len(sealed), len(plaintext), err)
				}
				if got, err := std.Open(nil, sealed[:16], sealed[16:], aad); err != nil || !bytes.Equal(got, plaintext) {
					t.Errorf("%s: the standard library cannot open it: %v", typ, err)
				}
				nonce := random(16)
				if got, err := a.Open(ctx, std.Seal(nonce, nonce, plaintext, aad), aad); err != nil || !bytes.Equal(got, plaintext) {
					t.Errorf("%s: what the standard library sealed cannot be opened: %v", typ, err)
				}
				for _, i := range []int{0, 16, len(sealed) - 1} {
					changed := bytes.Clone(sealed)
					changed[i] ^= 1
					if _, err := a.Open(ctx, changed, aad); !errors.Is(err, api.ErrNotAcceptable) {
						t.Errorf("%s: opened with byte %d changed: %v", typ, i, err)
					}
				}
				if _, err := a.Open(ctx, sealed, append([]byte("x"), aad[:min(len(aad), 1000)]...)); !errors.Is(err, api.ErrNotAcceptable) {
					t.Errorf("%s: opened with other additional data: %v", typ, err)
				}
			}
		}
		one, err := a.Seal(ctx, []byte("message"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if two, err := a.Seal(ctx, []byte("message"), nil); err != nil || bytes.Equal(one[:16], two[:16]) {
			t.Errorf("%s: two messages have one nonce (%v)", typ, err)
		}
	}
	a, err := c.AEAD(create(t, c, api.AES128), hem.AES256GCM)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Seal(ctx, []byte("message"), nil); !errors.Is(err, api.ErrNotAcceptable) {
		t.Errorf("with a key that is too short: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := a.Seal(ended, []byte("message"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
}
