package httpapi_test

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/mldsa"

	"softhem/api"
	"softhem/hem"
)

// Other implementations take what the module makes, and the module what they
// make, each way over the API.

// openSSL is the openssl program, in a folder of its own.
type openSSL struct {
	t   *testing.T
	dir string
}

func newOpenSSL(t *testing.T) openSSL {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no openssl program, and CI must have one: apt-get install openssl")
		}
		t.Skip("no openssl program to compare with: apt-get install openssl")
	}
	return openSSL{t, t.TempDir()}
}

func (o openSSL) file(name string, content []byte) string {
	o.t.Helper()
	path := filepath.Join(o.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		o.t.Fatal(err)
	}
	return path
}

// run gives the standard output of a command that must succeed.
func (o openSSL) run(args ...string) []byte {
	o.t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("openssl", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		o.t.Fatalf("openssl %s: %v: %s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out
}

// spki writes a public key of the module as a file of OpenSSL's.
func (o openSSL) spki(keys api.KeyType, raw []byte) string {
	o.t.Helper()
	der, err := hem.MarshalSPKI(keys, raw)
	if err != nil {
		o.t.Fatal(err)
	}
	return o.file(string(keys)+".pub", der)
}

func TestOpenSSLAndTheModule(t *testing.T) {
	k := newKeeper(t, nil)
	for _, c := range []struct {
		keys     api.KeyType
		generate []string
		algs     map[string]string // to OpenSSL's digest
	}{
		{"SECP256R1", []string{"EC", "ec_paramgen_curve:P-256"}, map[string]string{"SHA256WithECDSA": "-sha256", "SHA384WithECDSA": "-sha384", "SHA512WithECDSA": "-sha512"}},
		{"SECP384R1", []string{"EC", "ec_paramgen_curve:P-384"}, map[string]string{"SHA384WithECDSA": "-sha384"}},
		{"SECP521R1", []string{"EC", "ec_paramgen_curve:P-521"}, map[string]string{"SHA512WithECDSA": "-sha512"}},
		{"SECP256K1", []string{"EC", "ec_paramgen_curve:secp256k1"}, map[string]string{"SHA256WithECDSA": "-sha256"}},
		{"ED25519", []string{"ED25519"}, map[string]string{"Ed25519": ""}},
		{"ED448", []string{"ED448"}, map[string]string{"Ed448": ""}},
		{"CURVE25519", []string{"X25519"}, nil},
		{"CURVE448", []string{"X448"}, nil},
	} {
		t.Run(string(c.keys), func(t *testing.T) {
			k, o := k.with(t), newOpenSSL(t)
			args := []string{"genpkey", "-algorithm", c.generate[0], "-out", filepath.Join(o.dir, "key")}
			if len(c.generate) > 1 {
				args = append(args, "-pkeyopt", c.generate[1])
			}
			o.run(args...)
			private := filepath.Join(o.dir, "key")
			keys, theirs, err := hem.ParseSPKI(o.run("pkey", "-in", private, "-pubout", "-outform", "DER"))
			if err != nil || keys != c.keys {
				t.Fatalf("OpenSSL's key is %s, %v", keys, err)
			}
			own, imported := k.create(c.keys), k.imports(c.keys, theirs)
			ours := o.spki(c.keys, k.public(own))
			msg := o.file("msg", matrixMsg)
			for alg, digest := range c.algs {
				f := fields{"msg": matrixMsg, "alg": alg}
				sig := o.file("sig", k.must(k.use("exdsa/sign", own, f), "sign"))
				sign, verify := []string{"pkeyutl", "-sign", "-rawin", "-inkey", private, "-in", msg},
					[]string{"pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER", "-inkey", ours, "-in", msg, "-sigfile", sig}
				if digest != "" {
					sign = []string{"dgst", digest, "-sign", private, msg}
					verify = []string{"dgst", digest, "-keyform", "DER", "-verify", ours, "-signature", sig, msg}
				}
				o.run(verify...)
				o.file("msg", []byte("another message"))
				if exec.Command("openssl", verify...).Run() == nil {
					t.Errorf("%s: OpenSSL takes the signature for another message: this compares nothing", alg)
				}
				o.file("msg", matrixMsg)
				k.want(alg, k.use("exdsa/verify", imported, f.but(fields{"sign": o.run(sign...)})), 200)
			}
			if rowOf(c.keys).ecdh {
				secret := o.run("pkeyutl", "-derive", "-inkey", private, "-peerform", "DER", "-peerkey", ours)
				same(t, "secret", k.must(k.use("ecdh", own, fields{"ext_kid": imported}), "ecdh"), secret)
				o.withSecret(k, own, imported, secret)
			}
		})
	}
}

// withSecret compares what is made with the secret of a key and a peer.
func (o openSSL) withSecret(k *keeper, own, peer string, secret []byte) {
	o.t.Helper()
	f := fields{"ext_kid": peer, "msg": bytes.Repeat(matrixMsg, 2)}
	msg := o.file("msg", f["msg"].([]byte))
	for alg, digest := range map[string]string{
		"SHA2-256": "-sha256", "SHA2-384": "-sha384", "SHA2-512": "-sha512", "SHA3-256": "-sha3-256", "SHA3-384": "-sha3-384", "SHA3-512": "-sha3-512",
	} {
		theirs := o.run("dgst", digest, "-mac", "HMAC", "-macopt", "hexkey:"+hex.EncodeToString(secret), "-binary", msg)
		same(o.t, "HMAC with "+alg, k.must(k.use("hmac/hash", own, f.but(fields{"alg": alg})), "mac"), theirs)
		theirs = o.run("dgst", digest, "-binary", o.file("secret", secret))
		same(o.t, alg+" of the secret", k.must(k.use("ecdh", own, fields{"ext_kid": peer, "alg": alg}), "ecdh"), theirs)
	}
	derived := func(info string) string {
		return hex.EncodeToString(o.run("kdf", "-binary", "-keylen", "32", "-kdfopt", "digest:SHA256", "-kdfopt", "hexkey:"+hex.EncodeToString(secret),
			"-kdfopt", "hexinfo:"+hex.EncodeToString([]byte(info)), "HKDF"))
	}
	key := derived("encedo-aes" + "ctx")
	for alg, bits := range map[string]int{"AES128": 128, "AES192": 192, "AES256": 256} {
		a := k.use("cipher/encrypt", own, f.but(fields{"alg": alg + "-CBC", "ctx": []byte("ctx")}))
		theirs := o.run("enc", "-aes-"+decimal(int64(bits))+"-cbc", "-K", key[:bits/4], "-iv", hex.EncodeToString(k.must(a, "iv")), "-in", msg)
		same(o.t, alg+"-CBC", k.must(a, "ciphertext"), theirs)
		a = k.use("cipher/encrypt", own, f.but(fields{"alg": alg + "-ECB", "ctx": []byte("ctx")}))
		theirs = o.run("enc", "-aes-"+decimal(int64(bits))+"-ecb", "-nopad", "-K", key[:bits/4], "-in", msg)
		same(o.t, alg+"-ECB", k.must(a, "ciphertext"), theirs)
		kek := derived("encedo-kek")
		theirs = o.run("enc", "-id-aes"+decimal(int64(bits))+"-wrap", "-K", kek[:bits/4], "-iv", "a6a6a6a6a6a6a6a6", "-in", msg)
		same(o.t, alg+" wrap", k.must(k.use("cipher/wrap", own, f.but(fields{"alg": alg})), "wrapped"), theirs)
	}
}

func TestGoAndTheModule(t *testing.T) {
	k := newKeeper(t, nil)
	signs := func(kid, alg string, ctx []byte) []byte {
		return k.must(k.use("exdsa/sign", kid, fields{"msg": matrixMsg, "alg": alg, "ctx": ctx}), "sign")
	}
	verifies := func(kid, alg string, ctx, sig []byte) {
		t.Helper()
		k.want(alg, k.use("exdsa/verify", kid, fields{"msg": matrixMsg, "alg": alg, "ctx": ctx, "sign": sig}), 200)
	}
	digests := map[string][]byte{}
	s256, s384, s512 := sha256.Sum256(matrixMsg), sha512.Sum384(matrixMsg), sha512.Sum512(matrixMsg)
	digests["SHA256WithECDSA"], digests["SHA384WithECDSA"], digests["SHA512WithECDSA"] = s256[:], s384[:], s512[:]
	for keys, curve := range map[api.KeyType]elliptic.Curve{"SECP256R1": elliptic.P256(), "SECP384R1": elliptic.P384(), "SECP521R1": elliptic.P521()} {
		priv, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		_, raw, err := hem.RawPublic(&priv.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		own, imported := k.create(keys), k.imports(keys, raw)
		der, err := hem.MarshalSPKI(keys, k.public(own))
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := x509.ParsePKIXPublicKey(der)
		if err != nil {
			t.Fatal(err)
		}
		public := parsed.(*ecdsa.PublicKey)
		for alg, digest := range digests {
			if !ecdsa.VerifyASN1(public, digest, signs(own, alg, nil)) {
				t.Errorf("%s with %s: Go refuses the signature", alg, keys)
			}
			sig, err := ecdsa.SignASN1(rand.Reader, priv, digest)
			if err != nil {
				t.Fatal(err)
			}
			verifies(imported, alg, nil, sig)
		}
		agree, err := priv.ECDH()
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := public.ECDH()
		if err != nil {
			t.Fatal(err)
		}
		secret, err := agree.ECDH(theirs)
		if err != nil {
			t.Fatal(err)
		}
		same(t, string(keys), k.must(k.use("ecdh", own, fields{"ext_kid": imported}), "ecdh"), secret)
	}

	edPublic, edPrivate, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own, imported := k.create("ED25519"), k.imports("ED25519", edPublic)
	for alg, opts := range map[string]*ed25519.Options{
		"Ed25519": {}, "Ed25519ph": {Hash: crypto.SHA512, Context: "ctx"}, "Ed25519ctx": {Context: "ctx"},
	} {
		msg := matrixMsg
		if opts.Hash != 0 {
			msg = s512[:]
		}
		if err := ed25519.VerifyWithOptions(k.public(own), msg, signs(own, alg, []byte("ctx")), opts); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
		sig, err := edPrivate.Sign(nil, msg, opts)
		if err != nil {
			t.Fatal(err)
		}
		verifies(imported, alg, []byte("ctx"), sig)
	}

	x, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own = k.create("CURVE25519")
	public, err := ecdh.X25519().NewPublicKey(k.public(own))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x.ECDH(public)
	if err != nil {
		t.Fatal(err)
	}
	peer := fields{"pubkey": x.PublicKey().Bytes()}
	same(t, "X25519", k.must(k.use("ecdh", own, peer), "ecdh"), secret)
	key, err := hkdf.Key(sha256.New, secret, nil, "encedo-aesctx", 32)
	if err != nil {
		t.Fatal(err)
	}
	for alg, size := range map[string]int{"AES128-GCM": 16, "AES192-GCM": 24, "AES256-GCM": 32} {
		block, err := aes.NewCipher(key[:size])
		if err != nil {
			t.Fatal(err)
		}
		gcm, err := cipher.NewGCMWithNonceSize(block, 16)
		if err != nil {
			t.Fatal(err)
		}
		f := peer.but(fields{"alg": alg, "ctx": []byte("ctx"), "aad": []byte("aad"), "msg": matrixMsg})
		a := k.use("cipher/encrypt", own, f)
		if plain, err := gcm.Open(nil, k.must(a, "iv"), append(k.must(a, "ciphertext"), k.must(a, "tag")...), []byte("aad")); err != nil || !bytes.Equal(plain, matrixMsg) {
			t.Errorf("%s: %q, %v", alg, plain, err)
		}
		iv := make([]byte, 16)
		rand.Read(iv)
		sealed := gcm.Seal(nil, iv, matrixMsg, []byte("aad"))
		n := len(matrixMsg)
		same(t, alg, k.must(k.use("cipher/decrypt", own, f.but(fields{"msg": sealed[:n], "tag": sealed[n:], "iv": iv})), "plaintext"), matrixMsg)
	}
}

func TestGoAndTheModuleAfterQuantumComputers(t *testing.T) {
	k := newKeeper(t, nil)
	encapsulates := map[api.KeyType]func([]byte) ([]byte, []byte){
		"MLKEM768": func(public []byte) ([]byte, []byte) {
			key, err := mlkem.NewEncapsulationKey768(public)
			if err != nil {
				t.Fatal(err)
			}
			return key.Encapsulate()
		},
		"MLKEM1024": func(public []byte) ([]byte, []byte) {
			key, err := mlkem.NewEncapsulationKey1024(public)
			if err != nil {
				t.Fatal(err)
			}
			return key.Encapsulate()
		},
	}
	k768, err := mlkem.GenerateKey768()
	if err != nil {
		t.Fatal(err)
	}
	k1024, err := mlkem.GenerateKey1024()
	if err != nil {
		t.Fatal(err)
	}
	decapsulators := map[api.KeyType]crypto.Decapsulator{"MLKEM768": k768, "MLKEM1024": k1024}
	for keys, encapsulate := range encapsulates {
		own := k.create(keys)
		secret, ciphertext := encapsulate(k.public(own))
		same(t, string(keys), k.must(k.use("pqc/mlkem/decaps", own, fields{"ct": ciphertext}), "ss"), secret)
		theirs := decapsulators[keys]
		imported := k.imports(keys, theirs.Encapsulator().Bytes())
		a := k.use("pqc/mlkem/encaps", imported, fields{})
		secret, err := theirs.Decapsulate(k.must(a, "ct"))
		if err != nil {
			t.Fatal(err)
		}
		same(t, string(keys)+", imported", k.must(a, "ss"), secret)
	}
	for keys, set := range map[api.KeyType]mldsa.Parameters{"MLDSA44": mldsa.MLDSA44(), "MLDSA65": mldsa.MLDSA65(), "MLDSA87": mldsa.MLDSA87()} {
		private, err := mldsa.GenerateKey(set)
		if err != nil {
			t.Fatal(err)
		}
		own, imported := k.create(keys), k.imports(keys, private.PublicKey().Bytes())
		public, err := mldsa.NewPublicKey(set, k.public(own))
		if err != nil {
			t.Fatal(err)
		}
		for _, ctx := range []string{"", "ctx"} {
			f := fields{"msg": matrixMsg, "ctx": []byte(ctx)}
			sig := k.must(k.use("pqc/mldsa/sign", own, f), "sign")
			if err := mldsa.Verify(public, matrixMsg, sig, &mldsa.Options{Context: ctx}); err != nil {
				t.Errorf("%s: %v", keys, err)
			}
			again := k.must(k.use("pqc/mldsa/sign", own, f), "sign")
			if bytes.Equal(sig, again) {
				t.Errorf("%s: two signatures of one message are the same, so they are not hedged", keys)
			}
			theirs, err := private.Sign(rand.Reader, matrixMsg, &mldsa.Options{Context: ctx})
			if err != nil {
				t.Fatal(err)
			}
			k.want(string(keys), k.use("pqc/mldsa/verify", imported, f.but(fields{"sign": theirs})), 200)
		}
	}
}
