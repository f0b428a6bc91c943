package suite

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"softhem/api"
)

// openSSL runs the openssl program in a folder of its own: an implementation
// that shares no line with those under test.
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

// file writes content and gives the path.
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

// succeeds runs a verification.
func (o openSSL) succeeds(args ...string) bool {
	return exec.Command("openssl", args...).Run() == nil
}

// The names of algorithms and curves in DER (RFC 5480, RFC 8410, SEC 2).
var (
	oidECPublicKey = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidKeys        = map[api.KeyType]asn1.ObjectIdentifier{
		api.SECP256R1:  {1, 2, 840, 10045, 3, 1, 7},
		api.SECP384R1:  {1, 3, 132, 0, 34},
		api.SECP521R1:  {1, 3, 132, 0, 35},
		api.SECP256K1:  {1, 3, 132, 0, 10},
		api.Curve25519: {1, 3, 101, 110},
		api.Curve448:   {1, 3, 101, 111},
		api.Ed25519:    {1, 3, 101, 112},
		api.Ed448:      {1, 3, 101, 113},
	}
)

func der(t *testing.T, v any) []byte {
	t.Helper()
	b, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func keyAlgorithm(t *testing.T, a *Algorithm) pkix.AlgorithmIdentifier {
	t.Helper()
	if a.HasMode {
		return pkix.AlgorithmIdentifier{Algorithm: oidECPublicKey, Parameters: asn1.RawValue{FullBytes: der(t, oidKeys[a.Type])}}
	}
	return pkix.AlgorithmIdentifier{Algorithm: oidKeys[a.Type]}
}

// privateDER is a key in PKCS #8 (RFC 5208), from its material alone.
func privateDER(t *testing.T, a *Algorithm, material []byte) []byte {
	t.Helper()
	inner := der(t, material)
	if a.HasMode {
		inner = der(t, struct { // RFC 5915
			Version int
			Key     []byte
		}{1, material})
	}
	return der(t, struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}{0, keyAlgorithm(t, a), inner})
}

// publicDER is a SubjectPublicKeyInfo (RFC 5280).
func publicDER(t *testing.T, a *Algorithm, public []byte) []byte {
	t.Helper()
	return der(t, struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}{keyAlgorithm(t, a), asn1.BitString{Bytes: public, BitLength: 8 * len(public)}})
}

// A pair is a fresh key here and its files there.
type pair struct {
	key             *Key
	private, public string // paths
}

func (o openSSL) pair(keys api.KeyType) pair {
	o.t.Helper()
	a := mustAlgorithm(o.t, keys)
	material := a.NewMaterial()
	k := mustOpen(o.t, keys, material)
	n := hex.EncodeToString(Random(4))
	p := pair{k, o.file(n+".key", privateDER(o.t, a, material)), o.file(n+".pub", publicDER(o.t, a, k.Public()))}
	toPublic := []string{"pkey", "-inform", "DER", "-in", p.private, "-pubout", "-outform", "DER"}
	if a.HasMode {
		toPublic = append(toPublic, "-ec_conv_form", "compressed")
	}
	got := o.run(toPublic...)
	if want, _ := os.ReadFile(p.public); !bytes.Equal(got, want) {
		o.t.Errorf("%s: the public key is\n%x, with OpenSSL\n%x", keys, want, got)
	}
	return p
}

func TestOpenSSLSignatures(t *testing.T) {
	type row struct {
		keys api.KeyType
		alg  string
		hash string
	}
	rows := []row{{api.Ed25519, api.AlgEd25519, ""}, {api.Ed448, api.AlgEd448, ""}}
	for _, keys := range []api.KeyType{api.SECP256R1, api.SECP384R1, api.SECP521R1, api.SECP256K1} {
		rows = append(rows, row{keys, api.SHA256WithECDSA, "-sha256"}, row{keys, api.SHA384WithECDSA, "-sha384"},
			row{keys, api.SHA512WithECDSA, "-sha512"})
	}
	for _, r := range rows {
		t.Run(fmt.Sprintf("%s %s", r.keys, r.alg), func(t *testing.T) {
			t.Parallel()
			o := newOpenSSL(t)
			p := o.pair(r.keys)
			alg, ok := SignatureAlgOf(r.alg)
			if !ok {
				t.Fatalf("no algorithm %s", r.alg)
			}
			msg := Random(100)
			msgFile, sigFile := o.file("msg", msg), filepath.Join(o.dir, "sig")

			signThere := []string{"pkeyutl", "-sign", "-rawin", "-keyform", "DER", "-inkey", p.private, "-in", msgFile}
			verifyThere := []string{"pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER", "-inkey", p.public, "-in", msgFile, "-sigfile", sigFile}
			if r.hash != "" {
				signThere = []string{"dgst", r.hash, "-keyform", "DER", "-sign", p.private, msgFile}
				verifyThere = []string{"dgst", r.hash, "-keyform", "DER", "-verify", p.public, "-signature", sigFile, msgFile}
			}
			theirs := o.run(signThere...)
			if err := p.key.Verify(alg, msg, nil, theirs); err != nil {
				t.Errorf("OpenSSL's signature is refused: %v", err)
			}
			ours, err := p.key.Sign(alg, msg, nil)
			if err != nil {
				t.Fatal(err)
			}
			o.file("sig", ours)
			if !o.succeeds(verifyThere...) {
				t.Error("OpenSSL refuses the signature")
			}
			o.file("msg", append(msg, 0))
			if o.succeeds(verifyThere...) {
				t.Error("OpenSSL takes the signature for another message: this compares nothing")
			}
		})
	}
}

func TestOpenSSLAgrees(t *testing.T) {
	for _, a := range Algorithms() {
		if !a.ECDH {
			continue
		}
		t.Run(string(a.Type), func(t *testing.T) {
			t.Parallel()
			o := newOpenSSL(t)
			own, peer := o.pair(a.Type), o.pair(a.Type)
			theirs := o.run("pkeyutl", "-derive", "-keyform", "DER", "-inkey", own.private, "-peerform", "DER", "-peerkey", peer.public)
			ours, err := own.key.SharedSecret(mustOpenPublic(t, a.Type, peer.key.Public()))
			if err != nil || !bytes.Equal(ours, theirs) {
				t.Errorf("secret %x, %v; with OpenSSL %x", ours, err, theirs)
			}
		})
	}
}

func TestOpenSSLSymmetric(t *testing.T) {
	o := newOpenSSL(t)
	msg := Random(208)
	file := o.file("msg", msg)
	for _, a := range Algorithms() {
		if !a.MAC {
			continue
		}
		k := mustOpen(t, a.Type, a.NewMaterial())
		digest := "-" + strings.ToLower(strings.Replace(string(a.Type), "SHA2-", "SHA", 1))
		ours, err := k.MAC(msg)
		theirs := o.run("dgst", digest, "-mac", "HMAC", "-macopt", "hexkey:"+hex.EncodeToString(k.Secret()), "-binary", file)
		if err != nil || !bytes.Equal(ours, theirs) {
			t.Errorf("%s: MAC %x, %v; with OpenSSL %x", a.Type, ours, err, theirs)
		}
		hash, _ := HashOf(string(a.Type))
		if theirs := o.run("dgst", digest, "-binary", file); !bytes.Equal(hash.Sum(msg), theirs) {
			t.Errorf("%s: digest %x, with OpenSSL %x", a.Type, hash.Sum(msg), theirs)
		}
	}
	for _, bits := range []string{"128", "192", "256"} {
		wrap, _ := WrapAlgOf("AES" + bits)
		key := Random(wrap.KeySize())
		hexKey := hex.EncodeToString(key)
		for _, mode := range []string{"ECB", "CBC"} {
			c, _ := CipherAlgOf("AES" + bits + "-" + mode)
			ours, iv, _, err := c.Encrypt(key, msg, nil)
			if err != nil {
				t.Fatal(err)
			}
			args := []string{"enc", "-aes-" + bits + "-" + strings.ToLower(mode), "-K", hexKey}
			if c.HasIV() {
				args = append(args, "-iv", hex.EncodeToString(iv))
			}
			if c.Blocks() {
				args = append(args, "-nopad")
			}
			if theirs := o.run(append(args, "-in", file)...); !bytes.Equal(ours, theirs) {
				t.Errorf("AES%s-%s: %x, with OpenSSL %x", bits, mode, ours, theirs)
			}
		}
		for _, iv := range [][]byte{nil, Random(8)} {
			ours, err := wrap.Wrap(key, msg, iv)
			shown := iv
			if iv == nil {
				shown = bytes.Repeat([]byte{0xa6}, 8)
			}
			theirs := o.run("enc", "-id-aes"+bits+"-wrap", "-K", hexKey, "-iv", hex.EncodeToString(shown), "-in", file)
			if err != nil || !bytes.Equal(ours, theirs) {
				t.Errorf("AES%s wrap: %x, %v; with OpenSSL %x", bits, ours, err, theirs)
			}
		}
	}
	secret, info := Random(56), []byte("encedo-aes context")
	theirs := o.run("kdf", "-binary", "-keylen", "82", "-kdfopt", "digest:SHA256", "-kdfopt", "hexkey:"+hex.EncodeToString(secret),
		"-kdfopt", "hexinfo:"+hex.EncodeToString(info), "HKDF")
	if ours := HKDFSHA256(secret, info, 82); !bytes.Equal(ours, theirs) {
		t.Errorf("HKDF: %x, with OpenSSL %x", ours, theirs)
	}
}
