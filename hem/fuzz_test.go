package hem

import (
	"encoding/json"
	"errors"
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
