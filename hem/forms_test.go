package hem

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"softhem/api"
)

// Public keys made without this package, and the standard library's idea of them, if it
// has one.
type sample struct {
	t   api.KeyType
	raw []byte
	std crypto.PublicKey
}

// samples has a key of each asymmetric type. Those of the curves that Go does not know,
// and of ML-DSA, are random bytes of the right length: their forms do not look into them.
func samples(t testing.TB) []sample {
	t.Helper()
	var all []sample
	for typ, curve := range map[api.KeyType]elliptic.Curve{api.SECP256R1: elliptic.P256(), api.SECP384R1: elliptic.P384(), api.SECP521R1: elliptic.P521()} {
		for range 8 { // of both signs of y, and with leading zeros now and then
			key, err := ecdsa.GenerateKey(curve, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, sample{typ, elliptic.MarshalCompressed(curve, key.X, key.Y), &key.PublicKey})
		}
	}
	for range 8 {
		key, err := secp256k1.GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, sample{api.SECP256K1, key.PubKey().SerializeCompressed(), nil})
	}
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, sample{api.Ed25519, public, public}, sample{api.Curve25519, x25519.PublicKey().Bytes(), x25519.PublicKey()})
	for typ, size := range map[api.KeyType]int{
		api.Curve448: 56, api.Ed448: 57, api.MLKEM512: 800, api.MLKEM768: 1184, api.MLKEM1024: 1568,
		api.MLDSA44: 1312, api.MLDSA65: 1952, api.MLDSA87: 2592,
	} {
		raw := make([]byte, size)
		rand.Read(raw)
		if strings.HasPrefix(string(typ), "MLKEM") {
			clear(raw) // coefficients are below q
		}
		all = append(all, sample{typ, raw, nil})
	}
	return all
}

func TestMarshalOpenSSH(t *testing.T) {
	lines := 0
	for _, s := range samples(t) {
		const comment = `ada@example.com (Zoë's "laptop")`
		line, err := MarshalOpenSSH(s.t, s.raw, comment)
		switch s.t {
		case api.Ed25519, api.SECP256R1, api.SECP384R1, api.SECP521R1:
		default:
			if !errors.Is(err, ErrArgument) || line != "" {
				t.Errorf("%s: %q, %v", s.t, line, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", s.t, err)
		}
		lines++
		got, gotComment, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil || gotComment != comment || len(options) != 0 || len(rest) != 0 {
			t.Errorf("%s: %q is read as %q, %q, %q, %v", s.t, line, gotComment, options, rest, err)
			continue
		}
		want, err := ssh.NewPublicKey(s.std)
		if err != nil {
			t.Fatal(err)
		}
		if string(got.Marshal()) != string(want.Marshal()) {
			t.Errorf("%s: %q is another key", s.t, line)
		}
		bare, err := MarshalOpenSSH(s.t, s.raw, "")
		if want := strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(want)), "\n"); bare != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", s.t, bare, err, want)
		}
		for _, bad := range []string{"a\nssh-ed25519 AAAA", "a\r", "\x00", "\x1b[2J", "\u0085", "\xff"} {
			if line, err := MarshalOpenSSH(s.t, s.raw, bad); !errors.Is(err, ErrArgument) {
				t.Errorf("comment %q: %q, %v", bad, line, err)
			}
		}
	}
	if lines != 25 {
		t.Errorf("%d lines checked", lines)
	}
}

func TestMarshalJWK(t *testing.T) {
	names := map[api.KeyType][2]string{
		api.SECP256K1: {"EC", "secp256k1"}, api.Curve25519: {"OKP", "X25519"}, api.Curve448: {"OKP", "X448"}, api.Ed448: {"OKP", "Ed448"},
		api.MLDSA44: {"AKP", "ML-DSA-44"}, api.MLDSA65: {"AKP", "ML-DSA-65"}, api.MLDSA87: {"AKP", "ML-DSA-87"},
	}
	b64 := base64.RawURLEncoding.EncodeToString
	for _, s := range samples(t) {
		const kid = `0382e3ea "<&> ü`
		jwk, err := MarshalJWK(s.t, s.raw, kid)
		name, known := names[s.t]
		switch _, exchange := s.std.(*ecdh.PublicKey); {
		case s.std != nil && !exchange:
			if err != nil {
				t.Fatalf("%s: %v", s.t, err)
			}
			var got jose.JSONWebKey
			if err := got.UnmarshalJSON(jwk); err != nil || got.KeyID != kid || !got.Valid() {
				t.Fatalf("%s: %s: %v", s.t, jwk, err)
			}
			if !s.std.(interface{ Equal(crypto.PublicKey) bool }).Equal(got.Key) {
				t.Errorf("%s: %s is another key", s.t, jwk)
			}
			// go-jose writes the same members, and no other.
			want, err := jose.JSONWebKey{Key: s.std, KeyID: kid}.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(members(t, want), members(t, jwk)); diff != "" {
				t.Errorf("%s: %s", s.t, diff)
			}
		case known:
			// go-jose does not know these (ML-DSA not before Go 1.27).
			if err != nil {
				t.Fatalf("%s: %v", s.t, err)
			}
			want := map[string]string{"kty": name[0], "crv": name[1], "kid": kid}
			switch name[0] {
			case "EC":
				public, err := secp256k1.ParsePubKey(s.raw)
				if err != nil {
					t.Fatal(err)
				}
				point := public.SerializeUncompressed()
				want["x"], want["y"] = b64(point[1:33]), b64(point[33:])
			case "OKP":
				want["x"] = b64(s.raw)
			case "AKP":
				delete(want, "crv")
				want["alg"], want["pub"] = name[1], b64(s.raw)
			}
			if diff := cmp.Diff(want, members(t, jwk)); diff != "" {
				t.Errorf("%s: %s", s.t, diff)
			}
		default:
			if !strings.HasPrefix(string(s.t), "MLKEM") || !errors.Is(err, ErrArgument) || jwk != nil {
				t.Errorf("%s: %s, %v", s.t, jwk, err)
			}
			continue
		}
		if jwk, err = MarshalJWK(s.t, s.raw, ""); err != nil || members(t, jwk)["kid"] != "" {
			t.Errorf("%s: without a kid %s, %v", s.t, jwk, err)
		}
		if jwk, err := MarshalJWK(s.t, s.raw, "\xff"); !errors.Is(err, ErrArgument) {
			t.Errorf("%s: kid that is no text: %s, %v", s.t, jwk, err)
		}
	}
}

// The length of a coordinate must not depend on its value: RFC 7518, section 6.2.1.2.
func TestMarshalJWKKeepsLeadingZeros(t *testing.T) {
	for range 20_000 { // one in 128 has one
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if point[1] != 0 && point[33] != 0 {
			continue
		}
		jwk, err := MarshalJWK(api.SECP256R1, append([]byte{2 | point[64]&1}, point[1:33]...), "")
		if err != nil {
			t.Fatal(err)
		}
		var got jose.JSONWebKey
		if err := got.UnmarshalJSON(jwk); err != nil || !key.PublicKey.Equal(got.Key) {
			t.Errorf("%s is another key than %x (%v)", jwk, point, err)
		}
		return
	}
	t.Error("no coordinate with a leading zero came")
}

func members(t testing.TB, jwk []byte) map[string]string {
	t.Helper()
	var m map[string]string
	if err := json.Unmarshal(jwk, &m); err != nil {
		t.Fatalf("%s: %v", jwk, err)
	}
	return m
}

// What is no key of its type has no form.
func TestFormsRefuseWhatIsNoKey(t *testing.T) {
	forms := map[string]func(api.KeyType, []byte) error{
		"SPKI":    func(k api.KeyType, raw []byte) error { _, err := MarshalSPKI(k, raw); return err },
		"OpenSSH": func(k api.KeyType, raw []byte) error { _, err := MarshalOpenSSH(k, raw, ""); return err },
		"JWK":     func(k api.KeyType, raw []byte) error { _, err := MarshalJWK(k, raw, ""); return err },
		"parse":   func(k api.KeyType, raw []byte) error { _, err := ParsePublic(k, raw); return err },
	}
	for name, form := range forms {
		for _, s := range samples(t) {
			for _, raw := range [][]byte{nil, s.raw[:len(s.raw)-1], append([]byte{0}, s.raw...)} {
				if err := form(s.t, raw); !errors.Is(err, ErrArgument) {
					t.Errorf("%s of %s with %d bytes: %v", name, s.t, len(raw), err)
				}
			}
			if scalarSize(s.t) == 0 {
				continue
			}
			// Some x below 16 is on no curve, none is as large as its field, and 4 marks
			// another form.
			refused := 0
			for x := range byte(16) {
				raw := make([]byte, len(s.raw))
				raw[0], raw[len(raw)-1] = 2, x
				if err := form(s.t, raw); errors.Is(err, ErrArgument) {
					refused++
				}
			}
			large := []byte(strings.Repeat("\xff", len(s.raw)))
			large[0] = 2
			wrongForm := append([]byte{4}, s.raw[1:]...)
			if refused == 0 || form(s.t, large) == nil || form(s.t, wrongForm) == nil {
				t.Errorf("%s of %s takes points that are not on the curve (%d refused)", name, s.t, refused)
			}
		}
		for _, typ := range []api.KeyType{"", "RSA", api.AES256, api.SHA2x256} {
			if err := form(typ, make([]byte, 32)); !errors.Is(err, ErrArgument) {
				t.Errorf("%s of type %q: %v", name, typ, err)
			}
		}
	}
}
