package envelope

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hpke"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"filippo.io/age"
	"filippo.io/age/armor"
	"pgregory.net/rapid"

	"softhem/api"
	"softhem/internal/suite"
)

// A softKey is what a module has, without the module.
type softKey struct {
	to   Recipient
	from Key
}

func hexOf(digit string) string { return strings.Repeat(digit, 2*api.KIDBytes) }

// aesKey has the bytes 0, 1, 2 …, so that it is another one for each alg.
func aesKey(t testing.TB, kid string, alg api.KeyType) softKey {
	t.Helper()
	w, ok := suite.WrapAlgOf(string(alg))
	if !ok {
		t.Fatalf("no such wrapping: %s", alg)
	}
	key := make([]byte, w.KeySize())
	for i := range key {
		key[i] = byte(i)
	}
	return softKey{
		ForAES(kid, alg, func(plain []byte) ([]byte, error) { return w.Wrap(key, plain, nil) }),
		Key{KID: kid, Unwrap: func(alg api.KeyType, wrapped []byte) ([]byte, error) {
			w, _ := suite.WrapAlgOf(string(alg))
			if w.KeySize() > len(key) {
				return nil, errRefused
			}
			plain, err := w.Unwrap(key[:w.KeySize()], wrapped, nil)
			if err != nil {
				return nil, errRefused
			}
			return plain, nil
		}},
	}
}

var errRefused = errors.New("406")

func hpkeKey(t testing.TB, kid string, kt api.KeyType, kem hpke.KEM) softKey {
	t.Helper()
	// Always the same key, so that seeds of the fuzzer stay good.
	private, err := kem.DeriveKeyPair(bytes.Repeat([]byte{7}, 64))
	if err != nil {
		t.Fatal(err)
	}
	return softKey{
		ForPublic(kid, kt, private.PublicKey()),
		Key{KID: kid, Private: func(api.KeyType) (hpke.PrivateKey, error) { return private, nil }},
	}
}

func softKeys(t testing.TB) map[api.KeyType]softKey {
	return map[api.KeyType]softKey{
		api.AES128:     aesKey(t, hexOf("1"), api.AES128),
		api.AES192:     aesKey(t, hexOf("2"), api.AES192),
		api.AES256:     aesKey(t, hexOf("3"), api.AES256),
		api.Curve25519: hpkeKey(t, hexOf("a"), api.Curve25519, hpke.DHKEM(ecdh.X25519())),
		api.MLKEM768:   hpkeKey(t, hexOf("b"), api.MLKEM768, hpke.MLKEM768()),
		api.MLKEM1024:  hpkeKey(t, hexOf("c"), api.MLKEM1024, hpke.MLKEM1024()),
	}
}

func seal(t testing.TB, to Recipient, content []byte, armored bool) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := Seal(&file, to, armored)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// open returns all that can be read, and how it ended.
func open(file []byte, key Key) ([]byte, error) {
	r, err := Open(bytes.NewReader(file), key)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func TestRoundTrip(t *testing.T) {
	for kt, key := range softKeys(t) {
		for _, armored := range []bool{false, true} {
			content := []byte("what is in it")
			file := seal(t, key.to, content, armored)
			if !Is(file) || !Is(file[:min(len(file), beginning)]) {
				t.Errorf("%s: the envelope is not known as one: %.60q", kt, file)
			}
			if armored != bytes.HasPrefix(file, []byte(armor.Header)) {
				t.Errorf("%s: armored is %v: %.60q", kt, armored, file)
			}
			if got, err := open(file, key.from); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s, armored %v: %q, %v", kt, armored, got, err)
			}
		}
		if !Takes(kt) {
			t.Errorf("%s is not among the types that are taken", kt)
		}
	}
	n := 0
	for _, kt := range api.KeyTypes() {
		if Takes(kt) {
			n++
		}
	}
	if n != len(softKeys(t)) {
		t.Errorf("%d types are taken, %d were tried", n, len(softKeys(t)))
	}
}

// Sizes around the edges of chunks, written and read in pieces of any size.
func TestRoundTripOfAnySize(t *testing.T) {
	const chunk = 64 << 10
	keys := softKeys(t)
	rapid.Check(t, func(t *rapid.T) {
		key := keys[rapid.SampledFrom([]api.KeyType{api.AES256, api.Curve25519, api.MLKEM768}).Draw(t, "type")]
		size := rapid.OneOf(
			rapid.IntRange(0, 4096),
			rapid.Map(rapid.IntRange(-3, 3), func(d int) int { return chunk + d }),
			rapid.Map(rapid.IntRange(-3, 3), func(d int) int { return 2*chunk + d }),
			rapid.IntRange(0, 4*chunk),
		).Draw(t, "size")
		content := bytes.Repeat(rapid.SliceOfN(rapid.Byte(), 7, 7).Draw(t, "content"), size/7+1)[:size]
		var file bytes.Buffer
		w, err := Seal(&file, key.to, rapid.Bool().Draw(t, "armored"))
		if err != nil {
			t.Fatal(err)
		}
		for rest := content; len(rest) > 0; {
			n := min(len(rest), rapid.IntRange(1, 3*chunk).Draw(t, "piece"))
			if _, err := w.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := Open(iotest.HalfReader(&file), key.from)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%d of %d bytes, %v", len(got), len(content), err)
		}
	})
}

// Whichever byte is changed, nothing comes out that did not go in, and it ends in an
// error.
func TestEveryByteCounts(t *testing.T) {
	content := []byte("pay 100 to the bearer")
	for kt, key := range softKeys(t) {
		for _, armored := range []bool{false, true} {
			file := seal(t, key.to, content, armored)
			for i := range file {
				for _, flip := range []byte{0x01, 0x20, 0x80} {
					changed := bytes.Clone(file)
					changed[i] ^= flip
					if got, err := open(changed, key.from); err == nil || len(got) > 0 {
						t.Fatalf("%s, armored %v: byte %d of %d changed by %#x: %q, %v", kt, armored, i, len(file), flip, got, err)
					}
				}
			}
		}
	}
}

// An envelope that is cut anywhere ends in an error.
func TestTruncation(t *testing.T) {
	key := softKeys(t)[api.AES256]
	const chunk, tag, nonce = 64 << 10, 16, 16
	content := bytes.Repeat([]byte("0123456789abcdef"), 3*chunk/16)
	file := seal(t, key.to, content, false)
	header := len(file) - len(content) - 3*tag - nonce

	cuts := []int{0, len(intro), header - 1, header, header + nonce - 1}
	for i := range 3 {
		edge := header + nonce + i*(chunk+tag)
		cuts = append(cuts, edge-1, edge, edge+1, edge+tag, edge+chunk)
	}
	cuts = append(cuts, len(file)-1)
	for _, cut := range cuts {
		got, err := open(file[:cut], key.from)
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("cut at %d of %d: %d bytes, %v", cut, len(file), len(got), err)
		}
		if !bytes.HasPrefix(content, got) {
			t.Errorf("cut at %d: what came out did not go in", cut)
		}
	}
	for name, changed := range map[string][]byte{
		"something after it":  append(bytes.Clone(file), 'x'),
		"a chunk twice":       append(bytes.Clone(file), file[len(file)-chunk-tag:]...),
		"the first chunk cut": append(bytes.Clone(file[:header+nonce]), file[header+nonce+chunk+tag:]...),
	} {
		if got, err := open(changed, key.from); !errors.Is(err, ErrDamaged) || !bytes.HasPrefix(content, got) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}

	var unfinished bytes.Buffer
	w, err := Seal(&unfinished, key.to, false)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(content)
	if _, err := open(unfinished.Bytes(), key.from); !errors.Is(err, ErrDamaged) {
		t.Errorf("an envelope that was not closed: %v", err)
	}
}

func TestWrongKey(t *testing.T) {
	keys := softKeys(t)
	file := seal(t, keys[api.AES256].to, []byte("x"), false)

	_, err := open(file, keys[api.AES128].from)
	other, ok := errors.AsType[*OtherKeyError](err)
	if !ok || len(other.KIDs) != 1 || other.KIDs[0] != hexOf("3") || !strings.Contains(err.Error(), hexOf("3")) {
		t.Errorf("another kid: %v", err)
	}

	// The same kid, another key: as after a wrong restore.
	imposter := aesKey(t, hexOf("3"), api.AES128).from
	if _, err := open(file, imposter); !errors.Is(err, errRefused) {
		t.Errorf("another key: %v", err)
	}
	asymmetric := hpkeKey(t, hexOf("a"), api.Curve25519, hpke.DHKEM(ecdh.X25519()))
	generated, err := hpke.DHKEM(ecdh.X25519()).GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	file = seal(t, asymmetric.to, []byte("x"), false)
	asymmetric.from.Private = func(api.KeyType) (hpke.PrivateKey, error) { return generated, nil }
	if _, err := open(file, asymmetric.from); !errors.Is(err, ErrDamaged) {
		t.Errorf("another X25519 key: %v", err)
	}
	asymmetric.from.Private = func(api.KeyType) (hpke.PrivateKey, error) { return nil, errRefused }
	if _, err := open(file, asymmetric.from); !errors.Is(err, errRefused) {
		t.Errorf("a key that cannot be had: %v", err)
	}
	asymmetric.from.Private = keys[api.MLKEM768].from.Private
	if _, err := open(file, asymmetric.from); err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("a key of another type: %v", err)
	}

	// A file of age's own, for nobody in a module.
	var plain bytes.Buffer
	stranger, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w, err := age.Encrypt(&plain, stranger.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	_, err = open(plain.Bytes(), keys[api.AES256].from)
	if other, ok := errors.AsType[*OtherKeyError](err); !ok || len(other.KIDs) != 0 || !strings.Contains(err.Error(), `"X25519"`) {
		t.Errorf("a file for an age key: %v", err)
	}
}

// Several recipients, ours among them: age's tools make such files.
func TestAmongOthers(t *testing.T) {
	keys := softKeys(t)
	stranger, err := age.GenerateHybridIdentity()
	if err == nil {
		_, err = age.Encrypt(io.Discard, keys[api.AES256].to, stranger.Recipient())
	}
	if err == nil {
		t.Error("age mixes us with what claims to withstand quantum computers")
	}
	var file bytes.Buffer
	w, err := age.Encrypt(&file, keys[api.AES128].to, keys[api.MLKEM768].to)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "for both")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, kt := range []api.KeyType{api.AES128, api.MLKEM768} {
		if got, err := open(file.Bytes(), keys[kt].from); err != nil || string(got) != "for both" {
			t.Errorf("%s: %q, %v", kt, got, err)
		}
	}
}

// Errors of the disk are not taken for damage.
func TestReadErrors(t *testing.T) {
	key := softKeys(t)[api.AES256]
	file := seal(t, key.to, make([]byte, 200_000), false)
	broken := errors.New("input/output error")
	for _, good := range []int{0, 10, 100, 100_000, len(file)} {
		r, err := Open(io.MultiReader(bytes.NewReader(file[:good]), iotest.ErrReader(broken)), key.from)
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if !errors.Is(err, broken) {
			t.Errorf("after %d bytes: %v", good, err)
		}
	}
}

func TestRecipientsThatCannotBe(t *testing.T) {
	keys := softKeys(t)
	wrong := func(plain []byte) ([]byte, error) { return plain, nil }
	for name, to := range map[string]Recipient{
		"nothing":          {},
		"an HMAC key":      ForAES(hexOf("1"), api.SHA2x256, wrong),
		"a wrong length":   ForAES(hexOf("1"), api.AES256, wrong),
		"another KEM":      ForPublic(hexOf("1"), api.MLKEM768, keys[api.Curve25519].to.key),
		"a signing key":    ForPublic(hexOf("1"), api.Ed25519, keys[api.Curve25519].to.key),
		"a failing module": ForAES(hexOf("1"), api.AES256, func([]byte) ([]byte, error) { return nil, errRefused }),
	} {
		if _, err := Seal(io.Discard, to, false); err == nil {
			t.Errorf("an envelope for %s", name)
		} else if name == "a failing module" && !errors.Is(err, errRefused) {
			t.Errorf("the module's error is lost: %v", err)
		}
	}
}

// A header that lies about lengths and kinds is refused before the module is
// asked.
func TestMalformedStanzas(t *testing.T) {
	key := Key{
		KID:     hexOf("a"),
		Unwrap:  func(api.KeyType, []byte) ([]byte, error) { return make([]byte, 5), nil },
		Private: func(api.KeyType) (hpke.PrivateKey, error) { t.Error("the module was asked"); return nil, errRefused },
	}
	for name, s := range map[string]age.Stanza{
		"no arguments":      {Type: stanzaWrap},
		"no kid":            {Type: stanzaWrap, Args: []string{"abc", "AES256"}, Body: make([]byte, 24)},
		"a kid in capitals": {Type: stanzaWrap, Args: []string{hexOf("A"), "AES256"}, Body: make([]byte, 24)},
		"three arguments":   {Type: stanzaWrap, Args: []string{hexOf("a"), "AES256", "x"}, Body: make([]byte, 24)},
		"another cipher":    {Type: stanzaWrap, Args: []string{hexOf("a"), "DES"}, Body: make([]byte, 24)},
		"too long":          {Type: stanzaWrap, Args: []string{hexOf("a"), "AES256"}, Body: make([]byte, 32)},
		"a short file key":  {Type: stanzaWrap, Args: []string{hexOf("a"), "AES256"}, Body: make([]byte, 24)},
		"no enc":            {Type: stanzaHPKE, Args: []string{hexOf("a"), "CURVE25519"}, Body: make([]byte, 32)},
		"no KEM":            {Type: stanzaHPKE, Args: []string{hexOf("a"), "AES256"}, Body: make([]byte, 64)},
	} {
		if got, err := (&identity{key: key}).Unwrap([]*age.Stanza{&s}); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// Whatever is read, it ends, and only what was sealed comes out whole.
func FuzzOpen(f *testing.F) {
	keys := softKeys(f)
	content := []byte("fuzz")
	for _, key := range keys {
		f.Add(seal(f, key.to, content, false))
		f.Add(seal(f, key.to, content, true))
	}
	f.Add([]byte(intro))
	f.Add([]byte(armor.Header + "\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		for kt, key := range keys {
			got, err := open(file, key.from)
			if err != nil {
				continue
			}
			// Only an envelope from above can be whole; the fuzzer knows no key.
			if !bytes.Equal(got, content) || !Is(file) {
				t.Errorf("%s opens %q as %q", kt, file, got)
			}
		}
	})
}
