package hem

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"softhem/api"
)

func TestSPKIAgreesWithTheStandardLibrary(t *testing.T) {
	for _, s := range samples(t) {
		der, err := MarshalSPKI(s.t, s.raw)
		if err != nil {
			t.Fatalf("%s: %v", s.t, err)
		}
		if got, raw, err := ParseSPKI(der); got != s.t || !bytes.Equal(raw, s.raw) || err != nil {
			t.Errorf("%s: read back as %s, %x, %v", s.t, got, raw, err)
		}
		if s.std == nil {
			continue
		}
		want, err := x509.MarshalPKIXPublicKey(s.std)
		if err != nil || !bytes.Equal(der, want) {
			t.Errorf("%s: %x, and the standard library has %x (%v)", s.t, der, want, err)
		}
		public, err := ParsePublic(s.t, s.raw)
		if err != nil || !s.std.(interface{ Equal(crypto.PublicKey) bool }).Equal(public) {
			t.Errorf("%s: read as %v, %v", s.t, public, err)
		}
		if got, raw, err := RawPublic(s.std); got != s.t || !bytes.Equal(raw, s.raw) || err != nil {
			t.Errorf("%s: its raw form is %s, %x, %v", s.t, got, raw, err)
		}
	}
}

// OpenSSL makes keys of each type it knows, and we read and write the same bytes.
func TestSPKIAgreesWithOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no openssl program, and CI must have one: apt-get install openssl")
		}
		t.Skip("no openssl program to compare with: apt-get install openssl")
	}
	openssl := func(in []byte, args ...string) []byte {
		t.Helper()
		cmd := exec.Command("openssl", args...)
		cmd.Stdin = bytes.NewReader(in)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("openssl %s: %v: %s", strings.Join(args, " "), err, stderr.Bytes())
		}
		return out
	}
	ec := func(curve string) []string {
		return []string{"-algorithm", "EC", "-pkeyopt", "ec_param_enc:named_curve", "-pkeyopt", "ec_paramgen_curve:" + curve}
	}
	for typ, how := range map[api.KeyType][]string{
		api.SECP256R1: ec("prime256v1"), api.SECP384R1: ec("secp384r1"), api.SECP521R1: ec("secp521r1"), api.SECP256K1: ec("secp256k1"),
		api.Curve25519: {"-algorithm", "X25519"}, api.Curve448: {"-algorithm", "X448"},
		api.Ed25519: {"-algorithm", "ED25519"}, api.Ed448: {"-algorithm", "ED448"},
	} {
		key := openssl(nil, append([]string{"genpkey"}, how...)...)
		der := openssl(key, "pkey", "-pubout", "-outform", "DER")
		got, raw, err := ParseSPKI(der)
		if got != typ || err != nil {
			t.Errorf("%s: read as %s, %v", typ, got, err)
			continue
		}
		if again, err := MarshalSPKI(typ, raw); !bytes.Equal(again, der) || err != nil {
			t.Errorf("%s: %x is written as %x, %v", typ, der, again, err)
		}
		if scalarSize(typ) == 0 {
			continue
		}
		short := openssl(key, "pkey", "-pubout", "-outform", "DER", "-ec_conv_form", "compressed")
		if got, again, err := ParseSPKI(short); got != typ || !bytes.Equal(again, raw) || err != nil || bytes.Equal(short, der) {
			t.Errorf("%s: its compressed form is read as %s, %x, %v", typ, got, again, err)
		}
	}
}

// The identifiers of ML-DSA (RFC 9881, section 2) and ML-KEM, which Go 1.26 and OpenSSL
// before 3.5 do not know, spelled out by hand.
func TestSPKIOfPostQuantumKeys(t *testing.T) {
	headers := map[api.KeyType]string{
		api.MLKEM512:  "30820332 300b 0609 608648016503040401 03820321 00",
		api.MLKEM768:  "308204b2 300b 0609 608648016503040402 038204a1 00",
		api.MLKEM1024: "30820632 300b 0609 608648016503040403 03820621 00",
		api.MLDSA44:   "30820532 300b 0609 608648016503040311 03820521 00",
		api.MLDSA65:   "308207b2 300b 0609 608648016503040312 038207a1 00",
		api.MLDSA87:   "30820a32 300b 0609 608648016503040313 03820a21 00",
	}
	for _, s := range samples(t) {
		header, ok := headers[s.t]
		if !ok {
			continue
		}
		delete(headers, s.t)
		want, err := hex.DecodeString(strings.ReplaceAll(header, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		der, err := MarshalSPKI(s.t, s.raw)
		if want = append(want, s.raw...); !bytes.Equal(der, want) || err != nil {
			t.Errorf("%s: %.40x…, not %.40x… (%v)", s.t, der, want, err)
		}
	}
	if len(headers) != 0 {
		t.Errorf("not seen: %v", headers)
	}
}

func TestParseSPKIRefuses(t *testing.T) {
	for _, s := range samples(t) {
		der, err := MarshalSPKI(s.t, s.raw)
		if err != nil {
			t.Fatal(err)
		}
		var info subjectPublicKeyInfo
		if _, err := asn1.Unmarshal(der, &info); err != nil {
			t.Fatal(err)
		}
		remake := func(change func(*subjectPublicKeyInfo)) []byte {
			changed := info
			changed.Key.Bytes = bytes.Clone(changed.Key.Bytes)
			change(&changed)
			der, err := asn1.Marshal(changed)
			if err != nil {
				t.Fatal(err)
			}
			return der
		}
		longer, err := asn1.Marshal(struct {
			Info  spkiHeader
			Key   asn1.BitString
			Extra int
		}{info.Algorithm, info.Key, 7})
		if err != nil {
			t.Fatal(err)
		}
		bad := map[string][]byte{
			"nothing": nil, "cut": der[:len(der)-1], "data after it": append(bytes.Clone(der), 0),
			"data in it": longer, "PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
			"unused bits": remake(func(i *subjectPublicKeyInfo) { i.Key.BitLength -= 4 }),
			"a short key": remake(func(i *subjectPublicKeyInfo) { i.Key.Bytes, i.Key.BitLength = i.Key.Bytes[1:], i.Key.BitLength-8 }),
			"parameters": remake(func(i *subjectPublicKeyInfo) {
				i.Algorithm.Parameters = asn1.RawValue{FullBytes: []byte{5, 0}}
			}),
			"another OID": remake(func(i *subjectPublicKeyInfo) { i.Algorithm.OID = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1} }),
		}
		if scalarSize(s.t) > 0 {
			bad["no curve"] = remake(func(i *subjectPublicKeyInfo) { i.Algorithm.Parameters = asn1.RawValue{} })
			bad["off the curve"] = remake(func(i *subjectPublicKeyInfo) { i.Key.Bytes[len(i.Key.Bytes)-1] ^= 1 })
			bad["hybrid form"] = remake(func(i *subjectPublicKeyInfo) { i.Key.Bytes[0] = 6 | i.Key.Bytes[len(i.Key.Bytes)-1]&1 })
		}
		for name, der := range bad {
			if got, raw, err := ParseSPKI(der); !errors.Is(err, ErrArgument) || got != "" || raw != nil {
				t.Errorf("%s, %s: %s, %x, %v", s.t, name, got, raw, err)
			}
		}
	}
}

// Every type's raw form becomes a key and comes back, also where it is a RawPublicKey.
func TestParsePublic(t *testing.T) {
	for _, s := range samples(t) {
		public, err := ParsePublic(s.t, s.raw)
		if err != nil {
			t.Fatalf("%s: %v", s.t, err)
		}
		if typ, raw, err := RawPublic(public); typ != s.t || !bytes.Equal(raw, s.raw) || err != nil {
			t.Errorf("%s: it comes back as %s, %x, %v", s.t, typ, raw, err)
		}
		key := Key{Type: s.t, Public: s.raw}
		again, err := key.PublicKey()
		if equal, ok := public.(interface{ Equal(crypto.PublicKey) bool }); ok && (err != nil || !equal.Equal(again)) {
			t.Errorf("%s: %v and %v differ (%v)", s.t, public, again, err)
		}
		rawKey, ok := public.(RawPublicKey)
		if !ok {
			continue
		}
		other := RawPublicKey{rawKey.Type, bytes.Clone(rawKey.Raw)}
		other.Raw[5] ^= 1
		if rawKey.Equal(other) || rawKey.Equal(RawPublicKey{api.AES128, rawKey.Raw}) || rawKey.Equal(s.raw) || !rawKey.Equal(again) {
			t.Errorf("%s: Equal is wrong", s.t)
		}
	}
}

func TestRawPublicRefuses(t *testing.T) {
	other, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.PublicKey{
		nil, "text", other, &other.PublicKey, (*ecdsa.PublicKey)(nil), (*ecdh.PublicKey)(nil),
		RawPublicKey{}, RawPublicKey{Type: api.Ed448, Raw: make([]byte, 32)}, RawPublicKey{Type: api.AES128, Raw: make([]byte, 16)},
	} {
		if typ, raw, err := RawPublic(key); !errors.Is(err, ErrArgument) || typ != "" || raw != nil {
			t.Errorf("%T: %s, %x, %v", key, typ, raw, err)
		}
	}
}

func TestECDSAForms(t *testing.T) {
	for _, typ := range []api.KeyType{api.SECP256R1, api.SECP384R1, api.SECP521R1, api.SECP256K1} {
		size := scalarSize(typ)
		small := new(big.Int).SetInt64(1)
		large := new(big.Int).SetBytes(bytes.Repeat([]byte{0xff}, size))
		for _, pair := range [][2]*big.Int{{small, large}, {large, small}, {small, small}, {large, large}} {
			der, err := asn1.Marshal(struct{ R, S *big.Int }{pair[0], pair[1]})
			if err != nil {
				t.Fatal(err)
			}
			want := append(pair[0].FillBytes(make([]byte, size)), pair[1].FillBytes(make([]byte, size))...)
			raw, err := ECDSAToRaw(typ, der)
			if !bytes.Equal(raw, want) || err != nil {
				t.Errorf("%s: %x as %x, %v", typ, der, raw, err)
			}
			if back, err := ECDSAFromRaw(typ, want); !bytes.Equal(back, der) || err != nil {
				t.Errorf("%s: %x as %x, %v", typ, want, back, err)
			}
		}
		tooLarge := new(big.Int).Lsh(small, uint(8*size))
		der := func(v any) []byte {
			out, err := asn1.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		good := der(struct{ R, S *big.Int }{small, small})
		for name, bad := range map[string][]byte{
			"nothing": nil, "text": []byte("signature"), "cut": good[:len(good)-1], "data after it": append(slices.Clone(good), 0),
			"data in it": der(struct{ R, S, More *big.Int }{small, small, small}), "r alone": der(struct{ R *big.Int }{small}),
			"zero": der(struct{ R, S *big.Int }{new(big.Int), small}), "negative": der(struct{ R, S *big.Int }{small, big.NewInt(-1)}),
			"too large": der(struct{ R, S *big.Int }{small, tooLarge}), "not minimal": {0x30, 0x07, 2, 2, 0, 1, 2, 1, 1},
		} {
			if raw, err := ECDSAToRaw(typ, bad); !errors.Is(err, ErrArgument) || raw != nil {
				t.Errorf("%s, %s: %x, %v", typ, name, raw, err)
			}
		}
		for _, bad := range [][]byte{nil, make([]byte, 2*size), make([]byte, 2*size-1), bytes.Repeat([]byte{1}, 2*size+1), append(make([]byte, size), bytes.Repeat([]byte{1}, size)...)} {
			if der, err := ECDSAFromRaw(typ, bad); !errors.Is(err, ErrArgument) || der != nil {
				t.Errorf("%s: %x as %x, %v", typ, bad, der, err)
			}
		}
		if _, err := ECDSAToRaw(api.Ed25519, good); !errors.Is(err, ErrArgument) {
			t.Error(err)
		}
		if _, err := ECDSAFromRaw(api.AES128, make([]byte, 64)); !errors.Is(err, ErrArgument) {
			t.Error(err)
		}
	}
}

func TestKID(t *testing.T) {
	for _, text := range []string{textA, strings.ToUpper(textA)} {
		kid, err := ParseKID(text)
		if kid != kidA || kid.String() != textA || err != nil {
			t.Errorf("%s: %v, %v", text, kid, err)
		}
	}
	text, err := json.Marshal(map[KID]KID{kidA: kidB})
	var back map[KID]KID
	if err != nil || string(text) != `{"`+textA+`":"`+textB+`"}` || json.Unmarshal(text, &back) != nil || back[kidA] != kidB {
		t.Errorf("as JSON: %s, %v, %v", text, back, err)
	}
	for _, text := range []string{"", textA[1:], textA + "0", "0x" + textA[2:], strings.Replace(textA, "a", "g", 1), textA + "\n"} {
		if kid, err := ParseKID(text); !errors.Is(err, ErrArgument) || kid != (KID{}) {
			t.Errorf("%q: %v, %v", text, kid, err)
		}
	}
	kid := kidA
	if err := kid.UnmarshalText([]byte(strings.Repeat("z", 32))); err == nil || kid != kidA {
		t.Errorf("a text that is none changes it: %v, %v", kid, err)
	}
}
