package suite

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"softhem/api"
)

// hexBytes is a value of the Wycheproof files.
type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(in []byte) error {
	var s string
	if err := json.Unmarshal(in, &s); err != nil {
		return err
	}
	raw, err := hex.DecodeString(s)
	*h = raw
	return err
}

// attackGroup is a group of tests, with the fields of every schema used here.
type attackGroup struct {
	IVSize    int             // bits
	TagSize   int             // bits
	PublicKey json.RawMessage // an object with the key for ECDSA and EdDSA, hex for ML-DSA
	Tests     []attack
}

type attack struct {
	TCID    int `json:"tcId"`
	Comment string
	Flags   []string
	Result  string // valid, invalid or acceptable

	Key, Msg, CT, IV, AAD, Tag hexBytes // symmetric
	IKM, Salt, Info, OKM       hexBytes // HKDF
	Size                       int      // HKDF, bytes
	Public, Private, Shared    hexBytes // ECDH
	Sig, Ctx                   hexBytes // signatures
	Seed, EK, C, K             hexBytes // ML-KEM
}

// A verdict is what became of an attack.
type verdict int

const (
	notApplicable verdict = iota
	taken
	refused
)

func takenIf(ok bool) verdict {
	if ok {
		return taken
	}
	return refused
}

// attackFolder is where the Wycheproof files are, or the empty string.
func attackFolder() string {
	dir := os.Getenv("SOFTHEM_WYCHEPROOF")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "vectors", "wycheproof")
	}
	if _, err := os.Stat(dir); err != nil {
		return ""
	}
	return dir
}

// wycheproof says for every file how to run its tests. An acceptable test is
// to be taken or refused as accept says, which is nil where there are none.
var wycheproof = map[string]struct {
	run    func(t *testing.T, g *attackGroup, a *attack) verdict
	accept func(a *attack) verdict
}{
	"aes_cbc_pkcs5.json": {attackCBC, nil},
	"aes_gcm.json":       {attackGCM, nil},
	// RFC 3394 wraps two halves at least, and the protocol says so: 8 bytes
	// are refused.
	"aes_wrap.json":               {attackWrap, func(*attack) verdict { return refused }},
	"hkdf_sha256.json":            {attackHKDF, nil},
	"hmac_sha256.json":            {attackHMAC("SHA2-256"), nil},
	"hmac_sha384.json":            {attackHMAC("SHA2-384"), nil},
	"hmac_sha512.json":            {attackHMAC("SHA2-512"), nil},
	"hmac_sha3_256.json":          {attackHMAC("SHA3-256"), nil},
	"hmac_sha3_384.json":          {attackHMAC("SHA3-384"), nil},
	"hmac_sha3_512.json":          {attackHMAC("SHA3-512"), nil},
	"ecdh_secp256r1_ecpoint.json": {attackECDH(api.SECP256R1), takeCompressed},
	"ecdh_secp384r1_ecpoint.json": {attackECDH(api.SECP384R1), takeCompressed},
	"ecdh_secp521r1_ecpoint.json": {attackECDH(api.SECP521R1), takeCompressed},
	"x25519.json":                 {attackXDH(api.Curve25519), takeUnlessZero},
	"x448.json":                   {attackXDH(api.Curve448), takeUnlessZero},
	"ecdsa_secp256k1_sha256.json": {attackSignature(api.SECP256K1, api.SHA256WithECDSA), nil},
	"ecdsa_secp256k1_sha512.json": {attackSignature(api.SECP256K1, api.SHA512WithECDSA), nil},
	"ecdsa_secp256r1_sha256.json": {attackSignature(api.SECP256R1, api.SHA256WithECDSA), nil},
	"ecdsa_secp256r1_sha512.json": {attackSignature(api.SECP256R1, api.SHA512WithECDSA), nil},
	"ecdsa_secp384r1_sha384.json": {attackSignature(api.SECP384R1, api.SHA384WithECDSA), nil},
	"ecdsa_secp384r1_sha512.json": {attackSignature(api.SECP384R1, api.SHA512WithECDSA), nil},
	"ecdsa_secp521r1_sha512.json": {attackSignature(api.SECP521R1, api.SHA512WithECDSA), nil},
	"ed25519.json":                {attackSignature(api.Ed25519, api.AlgEd25519), nil},
	"ed448.json":                  {attackSignature(api.Ed448, api.AlgEd448), nil},
	"mlkem_512.json":              {attackMLKEM(api.MLKEM512), nil},
	"mlkem_768.json":              {attackMLKEM(api.MLKEM768), nil},
	"mlkem_1024.json":             {attackMLKEM(api.MLKEM1024), nil},
	"mldsa_44_verify.json":        {attackMLDSA(api.MLDSA44), nil},
	"mldsa_65_verify.json":        {attackMLDSA(api.MLDSA65), nil},
	"mldsa_87_verify.json":        {attackMLDSA(api.MLDSA87), nil},
}

// A compressed point is what the protocol has on the wire.
func takeCompressed(*attack) verdict { return taken }

// RFC 7748 wants points on the twist and encodings above p taken. The output
// is the secret, unless it is zero (section 6).
func takeUnlessZero(a *attack) verdict { return takenIf(!slices.Contains(a.Flags, "ZeroSharedSecret")) }

func TestWycheproof(t *testing.T) {
	dir := attackFolder()
	if dir == "" {
		t.Skip("no Wycheproof vectors here: name the folder testvectors_v1 of github.com/C2SP/wycheproof in SOFTHEM_WYCHEPROOF")
	}
	for name, file := range wycheproof {
		t.Run(strings.TrimSuffix(name, ".json"), func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			var all struct{ TestGroups []attackGroup }
			if err := json.Unmarshal(raw, &all); err != nil {
				t.Fatal(err)
			}
			ran, left := 0, 0
			for _, g := range all.TestGroups {
				for _, a := range g.Tests {
					want := map[string]verdict{"valid": taken, "invalid": refused}[a.Result]
					if a.Result == "acceptable" && file.accept != nil {
						want = file.accept(&a)
					}
					switch got := file.run(t, &g, &a); {
					case got == notApplicable:
						left++
					case want == notApplicable:
						t.Fatalf("test %d is %s: nothing says what to do with it", a.TCID, a.Result)
					case got != want:
						t.Errorf("test %d (%s, %s): taken: %t", a.TCID, a.Comment, a.Result, got == taken)
						ran++
					default:
						ran++
					}
				}
			}
			t.Logf("%d ran, %d do not apply", ran, left)
			if ran == 0 {
				t.Error("no test ran")
			}
		})
	}
}

// No file of the folder is forgotten, if it is the one with those that are for
// this module.
func TestWycheproofIsComplete(t *testing.T) {
	dir := attackFolder()
	if dir == "" || os.Getenv("SOFTHEM_WYCHEPROOF") != "" {
		t.Skip("the folder is not there, or has other files as well")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, ok := wycheproof[filepath.Base(f)]; !ok {
			t.Errorf("%s is not run", filepath.Base(f))
		}
	}
}

func attackCipher(t *testing.T, mode string, a *attack) verdict {
	c, ok := CipherAlgOf(map[int]string{16: "AES128-", 24: "AES192-", 32: "AES256-"}[len(a.Key)] + mode)
	if !ok {
		t.Fatalf("test %d: a key of %d bytes", a.TCID, len(a.Key))
	}
	plain, err := c.Decrypt(a.Key, a.CT, a.IV, a.Tag, a.AAD)
	if err != nil || !bytes.Equal(plain, a.Msg) {
		return refused
	}
	ciphertext, tag, err := c.encrypt(a.Key, a.Msg, a.IV, a.AAD)
	return takenIf(err == nil && bytes.Equal(ciphertext, a.CT) && bytes.Equal(tag, a.Tag))
}

func attackCBC(t *testing.T, _ *attackGroup, a *attack) verdict { return attackCipher(t, "CBC", a) }

// The protocol has 16 bytes of IV and of tag, nothing else.
func attackGCM(t *testing.T, g *attackGroup, a *attack) verdict {
	if g.IVSize != 8*cipherIVSize || g.TagSize != 8*cipherTagSize {
		return notApplicable
	}
	return attackCipher(t, "GCM", a)
}

func attackWrap(t *testing.T, _ *attackGroup, a *attack) verdict {
	w, ok := WrapAlgOf(map[int]string{16: "AES128", 24: "AES192", 32: "AES256"}[len(a.Key)])
	if !ok {
		t.Fatalf("test %d: a key of %d bytes", a.TCID, len(a.Key))
	}
	plain, err := w.Unwrap(a.Key, a.CT, nil)
	if err != nil || !bytes.Equal(plain, a.Msg) {
		return refused
	}
	wrapped, err := w.Wrap(a.Key, a.Msg, nil)
	return takenIf(err == nil && bytes.Equal(wrapped, a.CT))
}

// The protocol has no salt, and the longest output it asks for is 82 bytes, so
// one that HKDF cannot give is a mistake of the caller.
func attackHKDF(_ *testing.T, _ *attackGroup, a *attack) (v verdict) {
	if len(a.Salt) != 0 {
		return notApplicable
	}
	defer func() {
		if recover() != nil {
			v = refused
		}
	}()
	return takenIf(bytes.Equal(HKDFSHA256(a.IKM, a.Info, a.Size), a.OKM))
}

// The protocol compares MACs at full length.
func attackHMAC(name string) func(*testing.T, *attackGroup, *attack) verdict {
	return func(t *testing.T, g *attackGroup, a *attack) verdict {
		hash, ok := HashOf(name)
		if !ok {
			t.Fatalf("no hash %s", name)
		}
		if g.TagSize != 8*hash.Size() {
			return notApplicable
		}
		return takenIf(Equal(hash.MAC(a.Key, a.Msg), a.Tag))
	}
}

// Points that are given uncompressed are turned into the form of the wire if
// they are good. If they are bad, the form is what they are refused for.
func attackECDH(keys api.KeyType) func(*testing.T, *attackGroup, *attack) verdict {
	return func(t *testing.T, _ *attackGroup, a *attack) verdict {
		size := mustAlgorithm(t, keys).MaterialSize
		scalar := bytes.TrimLeft(a.Private, "\x00")
		k := mustOpen(t, keys, append(make([]byte, size-len(scalar)), scalar...))
		point := []byte(a.Public)
		if a.Result == "valid" && len(point) == 2*size+1 {
			point = compress(point)
		}
		return agrees(k, point, a.Shared)
	}
}

func attackXDH(keys api.KeyType) func(*testing.T, *attackGroup, *attack) verdict {
	return func(t *testing.T, _ *attackGroup, a *attack) verdict {
		return agrees(mustOpen(t, keys, a.Private), a.Public, a.Shared)
	}
}

func agrees(k *Key, public, want []byte) verdict {
	peer, err := k.Algorithm().OpenPublic(public)
	if err != nil {
		return refused
	}
	secret, err := k.SharedSecret(peer)
	return takenIf(err == nil && bytes.Equal(secret, want))
}

func attackSignature(keys api.KeyType, name string) func(*testing.T, *attackGroup, *attack) verdict {
	return func(t *testing.T, g *attackGroup, a *attack) verdict {
		var public struct{ PK, Uncompressed hexBytes }
		if err := json.Unmarshal(g.PublicKey, &public); err != nil {
			t.Fatal(err)
		}
		if public.PK == nil {
			public.PK = compress(public.Uncompressed)
		}
		alg, ok := SignatureAlgOf(name)
		if !ok {
			t.Fatalf("no algorithm %s", name)
		}
		return takenIf(mustOpenPublic(t, keys, public.PK).Verify(alg, a.Msg, nil, a.Sig) == nil)
	}
}

func attackMLKEM(keys api.KeyType) func(*testing.T, *attackGroup, *attack) verdict {
	return func(t *testing.T, _ *attackGroup, a *attack) verdict {
		k, err := mustAlgorithm(t, keys).Open(a.Seed)
		if err != nil {
			return refused
		}
		secret, err := k.Decapsulate(a.C)
		return takenIf(err == nil && bytes.Equal(secret, a.K) && bytes.Equal(k.Public(), a.EK))
	}
}

func attackMLDSA(keys api.KeyType) func(*testing.T, *attackGroup, *attack) verdict {
	return func(t *testing.T, g *attackGroup, a *attack) verdict {
		var public hexBytes
		if err := json.Unmarshal(g.PublicKey, &public); err != nil {
			t.Fatal(err)
		}
		k, err := mustAlgorithm(t, keys).OpenPublic(public)
		if err != nil {
			return refused
		}
		return takenIf(k.VerifyMLDSA(a.Msg, a.Ctx, a.Sig) == nil)
	}
}
