package hem

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"testing"

	"softhem/api"
)

func FuzzInspectToken(f *testing.F) {
	var v loginVector
	readVector(f, "login.json", &v)
	f.Add(v.PublicSample.Token)
	f.Add(v.Cases[0].Auth)
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		claims, err := InspectToken(token)
		if err != nil && claims != (api.TokenClaims{}) {
			t.Errorf("%v comes with %+v", err, claims)
		}
		if err == nil && !Bearer(token).plausible() {
			t.Errorf("%q cannot be sent", token)
		}
	})
}

// Whatever passes the checks can be signed for.
func FuzzChallenge(f *testing.F) {
	var v loginVector
	readVector(f, "login.json", &v)
	good, err := json.Marshal(api.Challenge{Exp: 1767225660, SPK: v.SPK, JTI: v.Cases[0].Claims.JTI, EID: v.EID})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"exp":1e9,"spk":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","jti":"","eid":null}`))
	key := testKey(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var ch api.Challenge
		if json.Unmarshal(raw, &ch) != nil {
			return
		}
		if err := new(goodPoints).checkChallenge(ch.Exp, ch.SPK, ch.JTI, ch.EID); err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Errorf("%v is not ErrProtocol", err)
			}
			return
		}
		spk, err := decode32("spk", ch.SPK)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := signEJWT(key, spk, api.LoginClaims{JTI: ch.JTI, Aud: ch.SPK, Exp: ch.Exp}); err != nil {
			t.Error(err)
		}
	})
}

// What is read as a public key can be used as one, and is written as it was, but for
// the form of a point.
func FuzzParseSPKI(f *testing.F) {
	added := map[api.KeyType]bool{}
	for _, s := range samples(f) {
		if added[s.t] || len(s.raw) > 100 { // the fuzzer spends its time on making long ones short
			continue
		}
		added[s.t] = true
		der, err := MarshalSPKI(s.t, s.raw)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		typ, raw, err := ParseSPKI(der)
		if err != nil {
			if !errors.Is(err, ErrArgument) || typ != "" || raw != nil {
				t.Fatalf("%s, %x, %v", typ, raw, err)
			}
			return
		}
		again, err := MarshalSPKI(typ, raw)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, der) && (scalarSize(typ) == 0 || len(again) <= len(der)) {
			t.Errorf("%x is written as %x", der, again)
		}
		public, err := ParsePublic(typ, raw)
		if err != nil {
			t.Fatal(err)
		}
		if back, again, err := RawPublic(public); back != typ || !bytes.Equal(again, raw) || err != nil {
			t.Errorf("%s %x comes back as %s %x, %v", typ, raw, back, again, err)
		}
		if _, err := MarshalJWK(typ, raw, ""); err != nil && typ[:5] != "MLKEM" {
			t.Error(err)
		}
	})
}

// A signature has one DER form and one raw form.
func FuzzECDSAToRaw(f *testing.F) {
	f.Add([]byte{0x30, 6, 2, 1, 1, 2, 1, 1})
	f.Add([]byte{0x30, 8, 2, 2, 0, 0x80, 2, 2, 0, 0xff})
	f.Fuzz(func(t *testing.T, der []byte) {
		for _, typ := range []api.KeyType{api.SECP256R1, api.SECP521R1} {
			raw, err := ECDSAToRaw(typ, der)
			if err != nil {
				continue
			}
			if back, err := ECDSAFromRaw(typ, raw); !bytes.Equal(back, der) || err != nil {
				t.Errorf("%x comes back as %x, %v", der, back, err)
			}
		}
	})
}

// answering is a module that says one thing.
type answering []byte

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Body: io.NopCloser(bytes.NewReader(a)), Header: http.Header{}, Request: r}, nil
}

// Whatever a module answers, an operation gives a result or says that it is no
// answer.
func FuzzOperations(f *testing.F) {
	ops := operations()
	for i, op := range ops {
		f.Add(uint8(i), []byte(op.answer))
		for _, s := range op.strange {
			f.Add(uint8(i), []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, answer []byte) {
		op := ops[int(which)%len(ops)]
		c := newClient(t, Config{URL: "http://module", Token: "x", HTTPClient: &http.Client{Transport: answering(answer)}})
		got, err := op.do(c, t.Context())
		if err != nil && !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", op.name, err)
		}
		switch got := got.(type) {
		case *KeyPage:
			if err == nil && min(got.Offset, got.Total, got.Deleted) < 0 {
				t.Errorf("%+v", got)
			}
		case []byte:
			if err == nil && len(got) == 0 && op.name != "Decrypt" {
				t.Errorf("%s gives nothing", op.name)
			}
		}
		// What reads a key and goes on with it.
		for _, adapt := range []func() error{
			func() error { _, err := c.Signer(t.Context(), kidA); return err },
			func() error { _, err := c.ECDHKey(t.Context(), kidA); return err },
			func() error { _, err := c.Decapsulator(t.Context(), kidA); return err },
		} {
			if err := adapt(); err != nil && !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrKeyType) {
				t.Error(err)
			}
		}
	})
}
