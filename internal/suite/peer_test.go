package suite

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"softhem/api"
)

// b64 is a value of the vectors: bytes in base64.
type b64 []byte

func (b *b64) UnmarshalJSON(in []byte) error {
	var s string
	if err := json.Unmarshal(in, &s); err != nil {
		return err
	}
	raw, err := base64.StdEncoding.DecodeString(s)
	*b = raw
	return err
}

// peerVectors is testdata/crypto_peer.json, which was made without any code of
// this module.
type peerVectors struct {
	AlicePrivate b64 `json:"alice_private"`
	Alice        b64
	Bob          b64
	Secret       b64
	Msg          b64
	Ctx          b64
	IV           b64
	AAD          b64
	HMAC         map[string]b64 `json:"hmac_raw_secret"`
	Digest       map[string]b64 `json:"ecdh_digest"`
	AESKeyNoCtx  b64            `json:"aes_key_no_ctx"`
	AESKeyCtx    b64            `json:"aes_key_ctx"`
	GCM256Ctx    struct {
		Ciphertext, Tag b64
	} `json:"gcm256_ctx"`
	GCM128NoCtx struct {
		Ciphertext, Tag b64
	} `json:"gcm128_no_ctx"`
	CBC256NoCtx     b64 `json:"cbc256_no_ctx"`
	KEKCtx          b64 `json:"kek_ctx"`
	WrapMsg         b64 `json:"wrap_msg"`
	Wrapped256Ctx   b64 `json:"wrapped256_ctx"`
	Wrapped128NoCtx b64 `json:"wrapped128_no_ctx"`
	Derive          map[api.KeyType]b64
	DerivePublic    []namedKey                   `json:"derive_public"`
	X448            struct{ b64Agreement }       `json:"x448"`
	NIST            map[api.KeyType]b64Agreement `json:"nist"`
	ImportKID       []namedKey                   `json:"import_kid"`
}

type b64Agreement struct{ Private, Public, Peer, Secret b64 }

type namedKey struct {
	Type   api.KeyType
	PubKey b64
	KID    string
}

func readPeerVectors(t *testing.T) peerVectors {
	t.Helper()
	raw, err := os.ReadFile("testdata/crypto_peer.json")
	if err != nil {
		t.Fatal(err)
	}
	var v peerVectors
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// same compares what was computed with what the vectors have, which must not
// be empty: a name that is not in the file would else pass.
func same(t *testing.T, what string, got []byte, err error, want b64) {
	t.Helper()
	if err != nil || len(want) == 0 || !bytes.Equal(got, want) {
		t.Errorf("%s: %x, %v; want %x", what, got, err, []byte(want))
	}
}

func mustAlgorithm(t testing.TB, k api.KeyType) *Algorithm {
	t.Helper()
	a, ok := AlgorithmOf(k)
	if !ok {
		t.Fatalf("no algorithm for %s", k)
	}
	return a
}

func mustOpen(t testing.TB, keys api.KeyType, material []byte) *Key {
	t.Helper()
	k, err := mustAlgorithm(t, keys).Open(material)
	if err != nil {
		t.Fatalf("%s: %v", keys, err)
	}
	return k
}

func mustOpenPublic(t testing.TB, keys api.KeyType, public []byte) *Key {
	t.Helper()
	k, err := mustAlgorithm(t, keys).OpenPublic(public)
	if err != nil {
		t.Fatalf("%s: %v", keys, err)
	}
	return k
}

func TestPeerVectorsAgree(t *testing.T) {
	v := readPeerVectors(t)
	curves := map[api.KeyType]b64Agreement{
		api.Curve25519: {v.AlicePrivate, v.Alice, v.Bob, v.Secret},
		api.Curve448:   v.X448.b64Agreement,
	}
	for keys, a := range v.NIST {
		curves[keys] = a
	}
	if len(curves) != 6 {
		t.Errorf("%d curves, want 6", len(curves))
	}
	for keys, a := range curves {
		k := mustOpen(t, keys, a.Private)
		same(t, string(keys)+" public key", k.Public(), nil, a.Public)
		secret, err := k.SharedSecret(mustOpenPublic(t, keys, a.Peer))
		same(t, string(keys)+" secret", secret, err, a.Secret)
	}
	if len(v.Digest) == 0 {
		t.Error("no digests")
	}
	for name, want := range v.Digest {
		hash, ok := HashOf(name)
		if !ok {
			t.Fatalf("no hash %s", name)
		}
		same(t, name, hash.Sum(v.Secret), nil, want)
	}
}

func TestPeerVectorsSymmetric(t *testing.T) {
	v := readPeerVectors(t)
	if len(v.HMAC) != 6 {
		t.Errorf("%d hashes, want 6", len(v.HMAC))
	}
	for name, want := range v.HMAC {
		hash, ok := HashOf(name)
		if !ok {
			t.Fatalf("no hash %s", name)
		}
		same(t, "HMAC with "+name, hash.MAC(v.Secret, v.Msg), nil, want)
	}
	with := func(info string) []byte { return append([]byte(info), v.Ctx...) }
	aesCtx, aes := HKDFSHA256(v.Secret, with("encedo-aes"), 32), HKDFSHA256(v.Secret, []byte("encedo-aes"), 32)
	kekCtx, kek := HKDFSHA256(v.Secret, with("encedo-kek"), 32), HKDFSHA256(v.Secret, []byte("encedo-kek"), 32)
	same(t, "AES key", aes, nil, v.AESKeyNoCtx)
	same(t, "AES key with ctx", aesCtx, nil, v.AESKeyCtx)
	same(t, "KEK with ctx", kekCtx, nil, v.KEKCtx)

	for _, c := range []struct {
		alg                  string
		key, ciphertext, tag []byte
		aad                  []byte
	}{
		{"AES256-GCM", aesCtx, v.GCM256Ctx.Ciphertext, v.GCM256Ctx.Tag, v.AAD},
		{"AES128-GCM", aes, v.GCM128NoCtx.Ciphertext, v.GCM128NoCtx.Tag, v.AAD},
		{"AES256-CBC", aes, v.CBC256NoCtx, nil, nil},
	} {
		alg, ok := CipherAlgOf(c.alg)
		if !ok {
			t.Fatalf("no cipher %s", c.alg)
		}
		ciphertext, tag, err := alg.encrypt(c.key, v.Msg, v.IV, c.aad)
		same(t, c.alg, ciphertext, err, c.ciphertext)
		if !bytes.Equal(tag, c.tag) {
			t.Errorf("%s: tag %x, want %x", c.alg, tag, c.tag)
		}
		plain, err := alg.Decrypt(c.key, c.ciphertext, v.IV, c.tag, c.aad)
		same(t, c.alg+" plaintext", plain, err, v.Msg)
	}
	for _, w := range []struct {
		alg string
		kek []byte
		out b64
	}{{"", kekCtx, v.Wrapped256Ctx}, {"AES256", kekCtx, v.Wrapped256Ctx}, {"AES128", kek, v.Wrapped128NoCtx}} {
		alg, ok := WrapAlgOf(w.alg)
		if !ok {
			t.Fatalf("no wrap %s", w.alg)
		}
		wrapped, err := alg.Wrap(w.kek, v.WrapMsg, nil)
		same(t, "wrap "+w.alg, wrapped, err, w.out)
		plain, err := alg.Unwrap(w.kek, w.out, nil)
		same(t, "unwrap "+w.alg, plain, err, v.WrapMsg)
	}
}

func TestPeerVectorsDerive(t *testing.T) {
	v := readPeerVectors(t)
	derive := func(keys api.KeyType) []byte {
		a := mustAlgorithm(t, keys)
		if len(v.Secret) < a.MinSecret() {
			t.Fatalf("%s: the secret is too short", keys)
		}
		material, err := a.MaterialFrom(HKDFSHA256(v.Secret, []byte("encedo-"+string(keys)), a.DerivedSize()))
		if err != nil {
			t.Fatalf("%s: %v", keys, err)
		}
		return material
	}
	for keys, want := range v.Derive {
		same(t, string(keys), derive(keys), nil, want)
	}
	for _, d := range v.DerivePublic {
		same(t, string(d.Type)+" public key", mustOpen(t, d.Type, derive(d.Type)).Public(), nil, d.PubKey)
	}
	if len(v.Derive) == 0 || len(v.DerivePublic) == 0 || len(v.ImportKID) == 0 {
		t.Error("a part of the vectors is missing")
	}
	for _, i := range append(v.ImportKID, v.DerivePublic...) {
		sum := SHA1(mustOpenPublic(t, i.Type, i.PubKey).Public())
		if kid := hex.EncodeToString(sum[:api.KIDBytes]); kid != i.KID {
			t.Errorf("%s: kid %s, want %s", i.Type, kid, i.KID)
		}
	}
}
