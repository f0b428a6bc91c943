package httpapi_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/json"
	"hash"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"softhem/api"
	"softhem/hemtest"
)

type agreement struct{ Private, Public, Peer, Secret []byte }

// peerVectors is crypto_peer.json, which was made without any code of this
// module; the one copy is the suite's.
type peerVectors struct {
	AlicePrivate []byte `json:"alice_private"`
	Alice        []byte
	Bob          []byte
	Secret       []byte
	Msg          []byte
	Ctx          []byte
	IV           []byte
	AAD          []byte
	HMAC         map[string][]byte `json:"hmac_raw_secret"`
	Digest       map[string][]byte `json:"ecdh_digest"`
	GCM256Ctx    struct {
		Ciphertext, Tag []byte
	} `json:"gcm256_ctx"`
	GCM128NoCtx struct {
		Ciphertext, Tag []byte
	} `json:"gcm128_no_ctx"`
	AESKeyNoCtx     []byte `json:"aes_key_no_ctx"`
	AESKeyCtx       []byte `json:"aes_key_ctx"`
	CBC256NoCtx     []byte `json:"cbc256_no_ctx"`
	KEKCtx          []byte `json:"kek_ctx"`
	WrapMsg         []byte `json:"wrap_msg"`
	Wrapped256Ctx   []byte `json:"wrapped256_ctx"`
	Wrapped128NoCtx []byte `json:"wrapped128_no_ctx"`
	Derive          map[api.KeyType][]byte
	DerivePublic    []namedKey                `json:"derive_public"`
	X448            agreement                 `json:"x448"`
	NIST            map[api.KeyType]agreement `json:"nist"`
	ImportKID       []namedKey                `json:"import_kid"`
}

type namedKey struct {
	Type   api.KeyType
	PubKey []byte
	KID    string
}

func readPeerVectors(t *testing.T) (v peerVectors) {
	t.Helper()
	raw, err := os.ReadFile("../suite/testdata/crypto_peer.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// same compares with a value of the vectors, which must not be empty: a name
// that is not in the file would else pass.
func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if len(want) == 0 || !bytes.Equal(got, want) {
		t.Errorf("%s: %x, want %x", what, got, want)
	}
}

// A module that holds the private keys of the vectors gives their values, byte
// for byte.
func TestPeerVectors(t *testing.T) {
	v := readPeerVectors(t)
	curves := map[api.KeyType]agreement{api.Curve25519: {v.AlicePrivate, v.Alice, v.Bob, v.Secret}, api.Curve448: v.X448}
	maps.Copy(curves, v.NIST)
	if len(curves) != 6 {
		t.Fatalf("%d curves, want 6", len(curves))
	}
	dir := filepath.Join(t.TempDir(), "data")
	hemtest.New(t, &hemtest.Options{DataDir: dir}).Close()
	kids := make(map[api.KeyType]string)
	func() {
		vault := openVault(t, dir)
		for keys, a := range curves {
			kids[keys] = vault.plant(keys, a.Private)
		}
	}()
	k := newKeeper(t, &hemtest.Options{DataDir: dir})
	alice := kids[api.Curve25519]

	t.Run("agreement", func(t *testing.T) {
		k := k.with(t)
		for keys, a := range curves {
			same(t, string(keys)+" public key", k.public(kids[keys]), a.Public)
			same(t, string(keys)+" secret", k.must(k.use("ecdh", kids[keys], fields{"pubkey": a.Peer}), "ecdh"), a.Secret)
			stored := k.imports(keys, a.Peer)
			same(t, string(keys)+" secret with a stored peer", k.must(k.use("ecdh", kids[keys], fields{"ext_kid": stored}), "ecdh"), a.Secret)
			k.want("delete the peer", k.delete(stored), 200)
		}
		for alg, want := range v.Digest {
			same(t, alg+" of the secret", k.must(k.use("ecdh", alice, fields{"pubkey": v.Bob, "alg": alg}), "ecdh"), want)
		}
		if len(v.Digest) == 0 {
			t.Error("no digests")
		}
	})
	t.Run("hmac", func(t *testing.T) {
		k := k.with(t)
		for alg, want := range v.HMAC {
			f := fields{"msg": v.Msg, "alg": alg, "pubkey": v.Bob}
			same(t, alg, k.must(k.use("hmac/hash", alice, f), "mac"), want)
			k.want(alg, k.use("hmac/verify", alice, f.but(fields{"mac": want})), 200)
			k.want(alg+", cut", k.use("hmac/verify", alice, f.but(fields{"mac": want[:len(want)-1]})), 406)
		}
		if len(v.HMAC) != 6 {
			t.Errorf("%d hashes, want 6", len(v.HMAC))
		}
	})
	t.Run("cipher", func(t *testing.T) {
		k := k.with(t)
		for _, c := range []struct {
			alg                  string
			ciphertext, tag, ctx []byte
			key                  []byte
		}{
			{"AES256-GCM", v.GCM256Ctx.Ciphertext, v.GCM256Ctx.Tag, v.Ctx, v.AESKeyCtx},
			{"AES128-GCM", v.GCM128NoCtx.Ciphertext, v.GCM128NoCtx.Tag, nil, v.AESKeyNoCtx[:16]},
			{"AES256-CBC", v.CBC256NoCtx, nil, nil, v.AESKeyNoCtx},
		} {
			f := fields{"alg": c.alg, "pubkey": v.Bob, "ctx": c.ctx}
			theirs := f.but(fields{"msg": c.ciphertext, "iv": v.IV, "tag": c.tag})
			if c.tag != nil {
				f["aad"], theirs["aad"] = v.AAD, v.AAD
			}
			same(t, c.alg, k.must(k.use("cipher/decrypt", alice, theirs), "plaintext"), v.Msg)
			k.want(c.alg+", another ctx", k.use("cipher/decrypt", alice, theirs.but(fields{"ctx": []byte("another")})), 406)
			// What the module encrypts, the derived key of the vectors opens.
			a := k.use("cipher/encrypt", alice, f.but(fields{"msg": v.Msg}))
			ciphertext, iv := k.must(a, "ciphertext"), k.must(a, "iv")
			block, err := aes.NewCipher(c.key)
			if err != nil {
				t.Fatal(err)
			}
			var plain []byte
			if c.tag != nil {
				gcm, err := cipher.NewGCMWithNonceSize(block, 16)
				if err != nil {
					t.Fatal(err)
				}
				if plain, err = gcm.Open(nil, iv, append(ciphertext, k.must(a, "tag")...), v.AAD); err != nil {
					t.Errorf("%s: %v", c.alg, err)
				}
			} else {
				plain = make([]byte, len(ciphertext))
				cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, ciphertext)
				plain = plain[:len(plain)-int(plain[len(plain)-1])]
			}
			same(t, c.alg+" of the module", plain, v.Msg)
		}
	})
	t.Run("wrap", func(t *testing.T) {
		k := k.with(t)
		for _, c := range []struct {
			alg          any
			ctx, wrapped []byte
		}{{"AES256", v.Ctx, v.Wrapped256Ctx}, {nil, v.Ctx, v.Wrapped256Ctx}, {"AES128", nil, v.Wrapped128NoCtx}} {
			f := fields{"pubkey": v.Bob, "alg": c.alg, "ctx": c.ctx}
			same(t, "wrap", k.must(k.use("cipher/wrap", alice, f.but(fields{"msg": v.WrapMsg})), "wrapped"), c.wrapped)
			same(t, "unwrap", k.must(k.use("cipher/unwrap", alice, f.but(fields{"msg": c.wrapped})), "unwrapped"), v.WrapMsg)
		}
	})
	t.Run("derive", func(t *testing.T) {
		k := k.with(t)
		derived := func(keys api.KeyType) string {
			return k.kid(k.post(derive, api.ScopeKeyDerive, fields{"kid": alice, "pubkey": v.Bob, "label": "derived", "type": keys, "mode": api.ModeBoth}))
		}
		made := make(map[api.KeyType]string)
		for _, want := range v.DerivePublic {
			kid := derived(want.Type)
			made[want.Type] = kid
			if kid != want.KID {
				t.Errorf("%s: kid %s, want %s", want.Type, kid, want.KID)
			}
			same(t, string(want.Type), k.public(kid), want.PubKey)
		}
		hashes := map[api.KeyType]func() hash.Hash{
			"SHA2-256": sha256.New, "SHA3-256": func() hash.Hash { return sha3.New256() },
		}
		for keys, material := range v.Derive {
			if made[keys] != "" {
				continue // shown by its public key
			}
			kid := derived(keys)
			switch row := rowOf(keys); {
			case row.mac:
				mac := hmac.New(hashes[keys], material)
				mac.Write(v.Msg)
				same(t, string(keys), k.must(k.use("hmac/hash", kid, fields{"msg": v.Msg}), "mac"), mac.Sum(nil))
			case row.aes > 0:
				block, err := aes.NewCipher(material)
				if err != nil {
					t.Fatal(err)
				}
				want := make([]byte, 16)
				block.Encrypt(want, v.IV)
				same(t, string(keys), k.must(k.use("cipher/encrypt", kid, fields{"msg": v.IV, "alg": string(keys) + "-ECB"}), "ciphertext"), want)
			default:
				t.Errorf("no way to look at a derived %s", keys)
			}
		}
		if len(v.Derive) < 7 || len(v.DerivePublic) == 0 {
			t.Errorf("%d and %d derived keys", len(v.Derive), len(v.DerivePublic))
		}
		// The secret has 32 bytes.
		for _, keys := range []api.KeyType{"SHA2-384", "SHA2-512", "SHA3-384", "SHA3-512", "SECP384R1", "SECP521R1", "CURVE448", "ED448"} {
			k.want("derive "+string(keys)+" from 32 bytes", k.post(derive, api.ScopeKeyDerive,
				fields{"kid": alice, "pubkey": v.Bob, "label": "derived", "type": keys}), 406)
		}
		for _, keys := range []api.KeyType{"MLKEM512", "MLKEM768", "MLKEM1024", "MLDSA44", "MLDSA65", "MLDSA87"} {
			k.want("derive "+string(keys), k.post(derive, api.ScopeKeyDerive,
				fields{"kid": alice, "pubkey": v.Bob, "label": "derived", "type": keys}), 400)
		}
	})
	t.Run("import", func(t *testing.T) {
		k := newKeeper(t, nil)
		for _, want := range slices.Concat(v.ImportKID, v.DerivePublic) {
			kid := k.imports(want.Type, want.PubKey)
			if kid != want.KID {
				t.Errorf("%s: kid %s, want %s", want.Type, kid, want.KID)
			}
			same(t, string(want.Type), k.public(kid), want.PubKey)
		}
		if len(v.ImportKID) == 0 {
			t.Error("no keys to import")
		}
	})
}
