package hem_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"errors"
	"slices"
	"strings"
	"testing"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
)

// The tests in package hem_test run against a module. What they get from it is checked by
// other means than the module's own: the standard library where it can, and else
// libraries that hem does not use.

func create(t testing.TB, c *hem.Client, typ api.KeyType) hem.KID {
	t.Helper()
	kid, err := c.CreateKey(t.Context(), hem.KeySpec{Label: string(typ), Type: typ, Mode: api.ModeBoth})
	if err != nil {
		t.Fatalf("create a key of type %s: %v", typ, err)
	}
	return kid
}

func public(t testing.TB, c *hem.Client, kid hem.KID) []byte {
	t.Helper()
	key, err := c.GetKey(t.Context(), kid)
	if err != nil {
		t.Fatal(err)
	}
	return key.Public
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// Keys of all types, made and used through every method that fits, and refused through
// those that do not.
func TestEveryTypeOfKey(t *testing.T) {
	c := hemtest.New(t, nil).Client()
	publics := map[api.KeyType]int{
		api.SECP256R1: 33, api.SECP384R1: 49, api.SECP521R1: 67, api.SECP256K1: 33, api.Curve25519: 32, api.Curve448: 56,
		api.Ed25519: 32, api.Ed448: 57, api.MLKEM512: 800, api.MLKEM768: 1184, api.MLKEM1024: 1568,
		api.MLDSA44: 1312, api.MLDSA65: 1952, api.MLDSA87: 2592,
	}
	uses := map[string]func(*testing.T, *hem.Client, api.KeyType, hem.KID) error{
		"sign": useSign, "sign ML-DSA": useMLDSA, "exchange": useExchange, "authenticate": useMAC,
		"encrypt": useCipher, "wrap": useWrap, "encapsulate": useKEM,
	}
	fits := func(typ api.KeyType) []string {
		switch name := string(typ); {
		case strings.HasPrefix(name, "SECP"):
			return []string{"sign", "exchange"}
		case strings.HasPrefix(name, "CURVE"):
			return []string{"exchange"}
		case strings.HasPrefix(name, "ED"):
			return []string{"sign"}
		case strings.HasPrefix(name, "SHA"):
			return []string{"authenticate"}
		case strings.HasPrefix(name, "AES"):
			return []string{"encrypt", "wrap"}
		case strings.HasPrefix(name, "MLKEM"):
			return []string{"encapsulate"}
		}
		return []string{"sign ML-DSA"}
	}
	kids := map[hem.KID]api.KeyType{}
	for _, typ := range api.KeyTypes() {
		t.Run(string(typ), func(t *testing.T) {
			kid := create(t, c, typ)
			kids[kid] = typ
			key, err := c.GetKey(t.Context(), kid)
			if err != nil || key.KID != kid || key.Type != typ || len(key.Public) != publics[typ] || key.DER != nil || key.Descr != nil {
				t.Fatalf("%+v, %v", key, err)
			}
			if typ == api.AES128 || typ == api.SHA2x256 {
				if _, err := key.PublicKey(); !errors.Is(err, hem.ErrKeyType) {
					t.Errorf("it has a public key: %v", err)
				}
			}
			for name, use := range uses {
				err := use(t, c, typ, kid)
				if fit := slices.Contains(fits(typ), name); fit && err != nil || !fit && !errors.Is(err, api.ErrNotAcceptable) {
					t.Errorf("to %s: %v", name, err)
				}
			}
			if publics[typ] > 0 {
				importPublic(t, c, typ, kid, key)
			}
		})
	}
	// All are in the list, with what they are for.
	n := 0
	for k, err := range c.AllKeys(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		typ, ok := kids[k.KID]
		if !ok {
			continue
		}
		n++
		want := api.KeyTraits{Made: true, Type: typ}
		switch fits(typ)[0] {
		case "sign", "exchange":
			want.Private, want.ECDH, want.ExDSA = true, slices.Contains(fits(typ), "exchange"), slices.Contains(fits(typ), "sign")
		case "sign ML-DSA", "encapsulate":
			want.Private, want.PQC = true, true
		}
		if k.Traits != want || k.Label != string(typ) {
			t.Errorf("%s is listed as %+v", typ, k)
		}
	}
	if n != len(api.KeyTypes()) {
		t.Errorf("%d keys of %d are listed", n, len(api.KeyTypes()))
	}
}

// importPublic deletes kid and takes its public half back in, through its SPKI form.
func importPublic(t *testing.T, c *hem.Client, typ api.KeyType, kid hem.KID, key *hem.Key) {
	ctx := t.Context()
	spec := hem.KeySpec{Label: "imported", Type: typ, Mode: api.ModeBoth, Descr: []byte("public")}
	if _, err := c.ImportKey(ctx, spec, key.Public); !errors.Is(err, api.ErrNotAcceptable) {
		t.Errorf("a key was imported twice: %v", err)
	}
	if sum := sha1.Sum(key.Public); kid != hem.KID(sum[:16]) {
		t.Errorf("%v is not the beginning of SHA-1(public)", kid)
	}
	der, err := hem.MarshalSPKI(typ, key.Public)
	if err != nil {
		t.Fatal(err)
	}
	again, raw, err := hem.ParseSPKI(der)
	if err != nil || again != typ {
		t.Fatal(again, err)
	}
	other := hem.KeySpec{Label: "other", Type: typ, Mode: api.ModeBoth}
	if _, err := c.ImportKey(ctx, other, raw[1:]); !errors.Is(err, api.ErrNotAcceptable) {
		t.Errorf("a short key was imported: %v", err)
	}
	// A private key stays what it is; another module takes its public half.
	m := hemtest.New(t, &hemtest.Options{Seed: "another"})
	c2 := m.Client()
	imported, err := c2.ImportKey(ctx, spec, raw)
	if err != nil || imported != kid {
		t.Fatalf("imported as %v, %v", imported, err)
	}
	back, err := c2.GetKey(ctx, imported)
	if err != nil || back.Type != typ || !bytes.Equal(back.Public, key.Public) || string(back.Descr) != "public" {
		t.Errorf("%+v, %v", back, err)
	}
	page, err := c2.SearchKeys(ctx, hem.KeySearch{Descr: []byte("public"), Start: true, End: true})
	if err != nil || len(page.Keys) != 1 || page.Keys[0].KID != imported || page.Keys[0].Traits.Made || page.Keys[0].Traits.Private {
		t.Errorf("%+v, %v", page, err)
	}
	// It verifies and encapsulates, and does nothing that needs the private half.
	switch {
	case strings.HasPrefix(string(typ), "MLKEM"):
		shared, ciphertext, err := c2.Encapsulate(ctx, imported)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Decapsulate(ctx, kid, ciphertext); err != nil || !bytes.Equal(got, shared) {
			t.Errorf("encapsulated for an imported key: %v", err)
		}
		if _, err := c2.Decapsulate(ctx, imported, ciphertext); !errors.Is(err, api.ErrNotAcceptable) {
			t.Errorf("decapsulated without a private key: %v", err)
		}
	case strings.HasPrefix(string(typ), "MLDSA"):
		sig, err := c.SignMLDSA(ctx, kid, []byte("msg"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c2.VerifyMLDSA(ctx, imported, []byte("msg"), sig, nil); err != nil {
			t.Error(err)
		}
		if _, err := c2.SignMLDSA(ctx, imported, []byte("msg"), nil); !errors.Is(err, api.ErrNotAcceptable) {
			t.Errorf("signed without a private key: %v", err)
		}
	case strings.HasPrefix(string(typ), "CURVE"):
		if _, err := c2.ECDH(ctx, imported, hem.PeerPublic(raw), ""); !errors.Is(err, api.ErrNotAcceptable) {
			t.Errorf("exchanged without a private key: %v", err)
		}
	default:
		alg := algorithms(typ)[0]
		sig, err := c.Sign(ctx, kid, []byte("msg"), alg, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c2.Verify(ctx, imported, []byte("msg"), sig, alg, nil); err != nil {
			t.Error(err)
		}
		if _, err := c2.Sign(ctx, imported, []byte("msg"), alg, nil); !errors.Is(err, api.ErrNotAcceptable) {
			t.Errorf("signed without a private key: %v", err)
		}
	}
}
