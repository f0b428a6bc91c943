package broker_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/session"
	"softhem/internal/suite"
)

func mustHex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustDecode(t testing.TB, text string) []byte {
	t.Helper()
	b, err := api.DecodeBase64(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newKey(t testing.TB, scalar []byte) *suite.X25519Key {
	t.Helper()
	k, err := suite.NewX25519Key(scalar)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func aidOf(t testing.TB, p *hem.Pairing) string {
	return api.EncodeBase64(newKey(t, p.Private).Public())
}

// sign makes an eJWT by hand.
func sign(t testing.TB, k *suite.X25519Key, to string, claims map[string]any) string {
	t.Helper()
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return signRaw(t, k, to, body)
}

// signRaw makes one of claims that may be no JSON.
func signRaw(t testing.TB, k *suite.X25519Key, to string, body []byte) string {
	t.Helper()
	secret, err := k.Shared(mustDecode(t, to))
	if err != nil {
		t.Fatal(err)
	}
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString([]byte(`{"ecdh":"x25519","typ":"JWT","alg":"HS256"}`)) + "." + enc.EncodeToString(body)
	return signed + "." + enc.EncodeToString(suite.HMACSHA256(secret, []byte(signed)))
}

// open checks an eJWT by hand.
func open(t testing.TB, k *suite.X25519Key, token, from string, into any) {
	t.Helper()
	secret, err := k.Shared(mustDecode(t, from))
	if err != nil {
		t.Fatal(err)
	}
	dot := strings.LastIndexByte(token, '.')
	if base64.RawURLEncoding.EncodeToString(suite.HMACSHA256(secret, []byte(token[:dot]))) != token[dot+1:] {
		t.Fatal("the MAC does not hold")
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
}

// claimsOf reads an eJWT without judging it, as a broker without its key would.
func claimsOf(t testing.TB, token string, into any) {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
}

// sealed is a scope sealed under a secret, scheme A.
func sealed(secret, jti []byte, scope string) string {
	return session.SealScope(suite.NewMACKey(secret), session.Nonce(jti), scope)
}

// wordsIn is a text, and after it what its base64 says.
func wordsIn(t testing.TB, text []byte) []byte {
	t.Helper()
	words := bytes.Clone(text)
	for part := range bytes.FieldsFuncSeq(text, func(r rune) bool {
		return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=", r)
	}) {
		if raw, err := api.DecodeBase64(string(part)); err == nil {
			words = append(append(words, '\n'), raw...)
		}
	}
	if !bytes.Contains(words, []byte(`"scope"`)) || !bytes.Contains(words, []byte("a harmless note")) {
		t.Error("what passed does not have what is known to have passed")
	}
	return words
}
