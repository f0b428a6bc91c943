package hem

import (
	"bytes"
	"errors"
	"testing"

	"softhem/api"
)

func TestUserKeyChangeVector(t *testing.T) {
	var v struct {
		EID, SPK, Nonce, Passphrase, Seed, UserKey string
		HMAC                                       string `json:"userkey_hmac"`
	}
	readVector(t, "userkey_change.json", &v)
	key, err := DeriveKey([]byte(v.Passphrase), v.EID)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(key.seed[:], unbase64(t, v.Seed)) {
		t.Error("seed differs")
	}
	got, err := proveUserKey(key, v.SPK, v.Nonce)
	if err != nil {
		t.Fatal(err)
	}
	if want := (api.ConfigUpdate{UserKey: v.UserKey, UserKeyHMAC: v.HMAC, UserKeyNonce: v.Nonce}); got != want {
		t.Errorf("proof %+v\nwant %+v", got, want)
	}
	for _, answer := range [][2]string{{"", v.Nonce}, {v.SPK, "AAAA"}} {
		if _, err := proveUserKey(key, answer[0], answer[1]); !errors.Is(err, ErrProtocol) {
			t.Errorf("spk %q, nonce %q: %v", answer[0], answer[1], err)
		}
	}
}

func TestChangeUserKeyWantsOneKey(t *testing.T) {
	f := startFake(t)
	c := newClient(t, Config{URL: f.url, Key: testKey(t)})
	for name, err := range map[string]error{
		"neither": c.ChangeUserKey(t.Context(), nil, nil),
		"both":    c.ChangeUserKey(t.Context(), []byte("x"), testKey(t)),
	} {
		if !errors.Is(err, ErrArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := SealTLSKey("a.b.c.d", nil); !errors.Is(err, ErrArgument) {
		t.Error(err)
	}
}
