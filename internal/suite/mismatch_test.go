package suite

import (
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"

	"softhem/api"
)

// Which algorithms fit which keys, and that the others are refused the same
// way, with private and public keys.
func TestMismatches(t *testing.T) {
	fits := func(keys api.KeyType, alg string) bool {
		switch keys {
		case api.SECP256R1, api.SECP384R1, api.SECP521R1, api.SECP256K1:
			return strings.HasSuffix(alg, "WithECDSA")
		case api.Ed25519:
			return strings.HasPrefix(alg, "Ed25519")
		case api.Ed448:
			return strings.HasPrefix(alg, "Ed448")
		}
		return false
	}
	msg, ctx := []byte("m"), []byte("c")
	for _, a := range Algorithms() {
		k := mustOpen(t, a.Type, a.NewMaterial())
		all := []*Key{k}
		if a.PublicSize > 0 {
			all = append(all, mustOpenPublic(t, a.Type, k.Public()))
		}
		for _, k := range all {
			is := func(what string, err error, fits bool) {
				t.Helper()
				if fits != (err == nil) || !fits && !errors.Is(err, ErrMismatch) {
					t.Errorf("%s with %s, private %t: %v", what, a.Type, k.Private(), err)
				}
			}
			for _, name := range signatureNames {
				alg, _ := SignatureAlgOf(name)
				sig, err := k.Sign(alg, msg, ctx)
				is(name, err, fits(a.Type, name) && k.Private())
				if err == nil {
					is("verify "+name, k.Verify(alg, msg, ctx, sig), true)
				}
				is("verify nothing by "+name, k.Verify(alg, msg, ctx, nil), false)
			}
			_, err := k.Sign(SignatureAlg{}, msg, ctx)
			is("the zero algorithm", err, false)
			is("verify by the zero algorithm", k.Verify(SignatureAlg{}, msg, ctx, make([]byte, 64)), false)
			_, err = k.MAC(msg)
			is("MAC", err, a.MAC)
			_, err = k.SignMLDSA(msg, ctx)
			is("ML-DSA", err, a.MLDSA && k.Private())
			is("verify by ML-DSA", k.VerifyMLDSA(msg, ctx, nil), false)
			_, ciphertext, err := k.Encapsulate()
			is("encapsulation", err, a.KEM)
			_, err = k.Decapsulate(ciphertext)
			is("decapsulation", err, a.KEM && k.Private())

			for _, other := range Algorithms() {
				peer := mustOpen(t, other.Type, other.NewMaterial())
				if _, err := k.SharedSecret(peer); (err == nil) != (other == a && a.ECDH && k.Private()) || err != nil && !errors.Is(err, ErrKey) {
					t.Errorf("%s, private %t, with %s: %v", a.Type, k.Private(), other.Type, err)
				}
			}
			if _, err := k.SharedSecret(nil); !errors.Is(err, ErrKey) {
				t.Errorf("%s with nothing: %v", a.Type, err)
			}
		}
	}
}

func TestContexts(t *testing.T) {
	for _, c := range []struct {
		alg          string
		keys         api.KeyType
		takes, needs bool
	}{
		{api.SHA256WithECDSA, api.SECP256R1, false, false},
		{api.SHA384WithECDSA, api.SECP256R1, false, false},
		{api.SHA512WithECDSA, api.SECP256R1, false, false},
		{api.AlgEd25519, api.Ed25519, false, false},
		{api.AlgEd25519ph, api.Ed25519, true, false},
		{api.AlgEd25519ctx, api.Ed25519, true, true},
		{api.AlgEd448, api.Ed448, true, false},
		{api.AlgEd448ph, api.Ed448, true, false},
	} {
		alg, ok := SignatureAlgOf(c.alg)
		if !ok || alg.TakesContext() != c.takes || alg.NeedsContext() != c.needs {
			t.Errorf("%s: found %t, takes a context %t, needs one %t", c.alg, ok, alg.TakesContext(), alg.NeedsContext())
		}
		k := mustOpen(t, c.keys, mustAlgorithm(t, c.keys).NewMaterial())
		for _, n := range []int{0, 1, 255, 256} {
			ctx := Random(n)
			sig, err := k.Sign(alg, []byte("m"), ctx)
			if want := !c.takes || n <= 255 && (n > 0 || !c.needs); want != (err == nil) || !want && !errors.Is(err, ErrMismatch) {
				t.Errorf("%s with %d bytes of context: %v", c.alg, n, err)
			}
			if err == nil && k.Verify(alg, []byte("m"), ctx, sig) != nil {
				t.Errorf("%s with %d bytes of context does not verify", c.alg, n)
			}
			if err == nil && !c.takes && k.Verify(alg, []byte("m"), nil, sig) != nil {
				t.Errorf("%s: the context is not ignored", c.alg)
			}
		}
	}
	k := mustOpen(t, api.MLDSA44, Random(32))
	if _, err := k.SignMLDSA([]byte("m"), make([]byte, 256)); !errors.Is(err, ErrMismatch) {
		t.Errorf("ML-DSA with 256 bytes of context: %v", err)
	}
}

func TestUnknownNames(t *testing.T) {
	for _, name := range []string{"", "AES256", "aes256-gcm", "AES256-CTR", "AES64-ECB", "AES256-GCM-", "AES256GCM", "SHA2-224", "SHA1", "sha2-256", "Ed25519 "} {
		if _, ok := CipherAlgOf(name); ok {
			t.Errorf("cipher %q", name)
		}
		if _, ok := HashOf(name); ok {
			t.Errorf("hash %q", name)
		}
		if _, ok := SignatureAlgOf(name); ok {
			t.Errorf("signature %q", name)
		}
		if _, ok := WrapAlgOf(name); ok && name != "" && name != "AES256" {
			t.Errorf("wrap %q", name)
		}
	}
}

func TestShortKeysAndWrongLengths(t *testing.T) {
	for _, name := range ciphers {
		c, _ := CipherAlgOf(name)
		if _, _, _, err := c.Encrypt(make([]byte, c.KeySize()-1), make([]byte, 16), nil); !errors.Is(err, ErrMismatch) {
			t.Errorf("%s: a short key: %v", name, err)
		}
		key, iv, tag, block := make([]byte, 32), make([]byte, 16), make([]byte, 16), make([]byte, 16)
		for what, err := range map[string]error{
			"a short key":     second(c.Decrypt(key[:c.KeySize()-1], block, iv, tag, nil)),
			"an IV of 12":     second(c.Decrypt(key, block, iv[:12], tag, nil)),
			"no IV":           second(c.Decrypt(key, block, nil, tag, nil)),
			"a tag of 12":     second(c.Decrypt(key, block, iv, tag[:12], nil)),
			"no tag":          second(c.Decrypt(key, block, iv, nil, nil)),
			"part of a block": second(c.Decrypt(key, block[:15], iv, tag, nil)),
			"nothing":         second(c.Decrypt(key, nil, iv, tag, nil)),
		} {
			ignored := c.Blocks() && (strings.Contains(what, "IV") || strings.Contains(what, "tag") || what == "nothing")
			if !errors.Is(err, ErrMismatch) && !ignored {
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
	}
	for _, name := range []string{"AES128", "AES192", "AES256"} {
		w, _ := WrapAlgOf(name)
		kek := make([]byte, 32)
		for what, err := range map[string]error{
			"wrap, a short key":   second(w.Wrap(kek[:w.KeySize()-1], make([]byte, 16), nil)),
			"unwrap, a short key": second(w.Unwrap(kek[:w.KeySize()-1], make([]byte, 24), nil)),
			"wrap, an IV of 7":    second(w.Wrap(kek, make([]byte, 16), make([]byte, 7))),
			"wrap, an empty IV":   second(w.Wrap(kek, make([]byte, 16), []byte{})),
			"unwrap, an IV of 9":  second(w.Unwrap(kek, make([]byte, 24), make([]byte, 9))),
			"unwrap, 16 bytes":    second(w.Unwrap(kek, make([]byte, 16), nil)),
		} {
			if !errors.Is(err, ErrMismatch) {
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
	}
}

func second(_ []byte, err error) error { return err }

// Both signatures (r, s) and (r, n-s) are valid by FIPS 186-5.
func TestHighSIsTaken(t *testing.T) {
	for _, keys := range []api.KeyType{api.SECP256R1, api.SECP384R1, api.SECP521R1, api.SECP256K1} {
		a := mustAlgorithm(t, keys)
		k := mustOpen(t, keys, a.NewMaterial())
		alg, _ := SignatureAlgOf(api.SHA512WithECDSA)
		sig, err := k.Sign(alg, []byte("m"), nil)
		if err != nil {
			t.Fatal(err)
		}
		var rs struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(sig, &rs); err != nil {
			t.Fatal(err)
		}
		rs.S.Sub(a.order, rs.S)
		if err := k.Verify(alg, []byte("m"), nil, der(t, rs)); err != nil {
			t.Errorf("%s: the other s is refused", keys)
		}
		if len(sig) > api.MaxSignatureBytes {
			t.Errorf("%s: a signature of %d bytes", keys, len(sig))
		}
	}
}

// The self-test notices a change in every answer, and names it.
func TestSelfTestFails(t *testing.T) {
	for i, a := range knownAnswers() {
		if a.want == "" {
			continue // holds by itself
		}
		all := knownAnswers()[i : i+1]
		for _, at := range []int{0, len(a.want) - 1} {
			changed := []byte(a.want)
			if changed[at]++; changed[at] == '9'+1 || changed[at] == 'f'+1 {
				changed[at] = '0'
			}
			all[0].want = string(changed)
			if err := runKnownAnswers(all); err == nil || !strings.Contains(err.Error(), a.name) {
				t.Errorf("%s with digit %d changed: %v", a.name, at, err)
			}
		}
	}
	all := knownAnswers()
	at := slices.IndexFunc(all, func(a knownAnswer) bool { return strings.Contains(a.name, "MLDSA65") })
	all[at].want = strings.Repeat("00", 64)
	if err := runKnownAnswers(all); err == nil || !strings.Contains(err.Error(), "MLDSA65") {
		t.Errorf("one wrong answer of all: %v", err)
	}
}

// The self-test has an answer for every key type and every algorithm.
func TestSelfTestIsComplete(t *testing.T) {
	var names strings.Builder
	for _, a := range knownAnswers() {
		names.WriteString(a.name + "\n")
	}
	for _, a := range Algorithms() {
		if !a.Cipher && !strings.Contains(names.String(), string(a.Type)) && !strings.EqualFold(string(a.Type), "Ed25519") && a.Type != api.Ed448 {
			t.Errorf("no answer for %s", a.Type)
		}
	}
	for _, name := range slices.Concat(signatureNames, ciphers, []string{"key wrap with AES128", "key wrap with AES192", "key wrap with AES256"}) {
		if !strings.Contains(names.String(), name) {
			t.Errorf("no answer for %s", name)
		}
	}
}
