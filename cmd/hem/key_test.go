package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"softhem/api"
	"softhem/hem"
)

// What a command writes, a command reads: in every format, without being told.
func TestFormatsAreRecognised(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := rapid.SliceOfN(rapid.Byte(), 32, 300).Draw(t, "data")
		format := rapid.SampledFrom([]string{formatBase64, formatHex}).Draw(t, "format")
		text := encode(data, format)
		if got, err := decode(text, format); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%s: %x, %v", format, got, err)
		}
		// Random bytes look like hex or base64 about never; rapid's are not random.
		if got, err := decode(text, formatAuto); err != nil || !bytes.Equal(got, data) {
			if other, hexErr := decode(text, formatHex); format == formatHex || hexErr != nil || !bytes.Equal(got, other) {
				t.Fatalf("auto for %s: %x, %v", format, got, err)
			}
		}
		if got, err := decode(data, formatRaw); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("raw: %x, %v", got, err)
		}
	})
	for text, want := range map[string]string{
		"00ff": "\x00\xff", "00 FF\n": "\x00\xff", "AP8=": "\x00\xff", "AP8\n": "\x00\xff", "_-8": "\xff\xef", "\x00\xff": "\x00\xff", "": "", " \n": " \n",
	} {
		if got, err := decode([]byte(text), formatAuto); err != nil || string(got) != want {
			t.Errorf("%q is read as %q, %v", text, got, err)
		}
	}
	for _, format := range []string{formatBase64, formatHex} {
		if _, err := decode([]byte("?"), format); err == nil || err.Error() != "no "+format {
			t.Errorf("%s: %v", format, err)
		}
	}
}

// Limits count what is meant, not how it is written.
func TestReadEncoded(t *testing.T) {
	data := bytes.Repeat([]byte{0xfb}, 2048)
	for _, format := range formats() {
		text := encode(data, format)
		if got, err := readEncoded(bytes.NewReader(text), format, len(data)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", format, len(got), err)
		}
		if _, err := readEncoded(bytes.NewReader(text), format, len(data)-1); !errors.Is(err, errTooLong) {
			t.Errorf("%s, a byte less: %v", format, err)
		}
	}
	if _, err := readEncoded(endless{}, formatHex, 10); !errors.Is(err, errTooLong) {
		t.Errorf("without end: %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '0'
	}
	return len(p), nil
}

func TestKeyNames(t *testing.T) {
	kid := hem.KID{0xab, 0xcd, 0xef, 0x01}
	key := hem.KeyInfo{KID: kid, Label: "beef"}
	for name, want := range map[string]bool{
		kid.String(): true, strings.ToUpper(kid.String()): true,
		"abcd": true, "ABCD": true, "abcdef01000": true, "abc": false, "abce": false,
		"beef": true, "Beef": false, "bee": false, "label:beef": true, "label:abcd": false, "label:": false, "": false,
		kid.String() + "0": false,
	} {
		n := parseKeyName(name)
		if got := n.fits(key); got != want {
			t.Errorf("%q fits: %v, want %v", name, got, want)
		}
	}
	// 32 hex digits are a kid, also if they are somebody's label.
	n := parseKeyName(kid.String())
	if n.fits(hem.KeyInfo{Label: kid.String()}) {
		t.Error("a label is taken for a kid")
	}
	nobody := parseKeyName("")
	if nobody.fits(hem.KeyInfo{}) {
		t.Error("no name fits no label")
	}
}

func TestTypeNames(t *testing.T) {
	for name, want := range map[string]api.KeyType{
		"SECP256R1": api.SECP256R1, "p-256": api.SECP256R1, "prime256v1": api.SECP256R1, "NIST-P384": api.SECP384R1, "P521": api.SECP521R1,
		"secp256k1": api.SECP256K1, "x25519": api.Curve25519, "X448": api.Curve448, "Ed25519": api.Ed25519, "sha2_256": api.SHA2x256,
		"SHA3-512": api.SHA3x512, "aes-128": api.AES128, "ml-kem-768": api.MLKEM768, "ML-DSA-87": api.MLDSA87,
		"RSA": "", "": "", "SHA-256": "", "P-224": "",
	} {
		var got api.KeyType
		err := (&typeFlag{&got, api.KeyTypes()}).Set(name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q is %q, %v", name, got, err)
		}
	}
	for _, kt := range api.KeyTypes() {
		what, uses := typeInWords(kt)
		if what == "" || len(uses) == 0 {
			t.Errorf("nothing is said about %s", kt)
		}
		if slices.Contains(uses, forSignatures) != (algOf(kt, false) != "") {
			t.Errorf("%s: for %v, signs with %q", kt, uses, algOf(kt, false))
		}
	}
	if public := publicTypes(); len(public) != 14 {
		t.Errorf("%d types of public keys: %v", len(public), public)
	}
	if derivable := derivableTypes(); len(derivable) != 17 {
		t.Errorf("%d types can be derived: %v", len(derivable), derivable)
	}
}

// A table never is wider than the terminal, and cuts nothing it need not.
func TestFitColumns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cell := func(most int) string {
			return rapid.StringOfN(rapid.RuneFrom([]rune("abcß日")), 0, most, -1).Draw(t, "cell")
		}
		rows := [][]string{{"KID", "LABEL", "TYPE", "CREATED", "DESCR"}}
		for range rapid.IntRange(1, 5).Draw(t, "rows") {
			rows = append(rows, []string{strings.Repeat("0", 32), cell(32), cell(20), "2026-01-02T15:04:05Z", cell(64)})
		}
		width := rapid.IntRange(8, 250).Draw(t, "width")
		widths := fitColumns(rows, width)
		sum, natural := -gap, -gap
		for i, n := range widths {
			if n > 0 {
				sum += n + gap
			}
			most := 0
			for _, row := range rows {
				most = max(most, cells(row[i]))
				if got := cells(cut(row[i], n, false)); got > n {
					t.Fatalf("%q cut to %d cells has %d", row[i], n, got)
				}
			}
			natural += most + gap
			if n > most {
				t.Fatalf("column %d has %d cells, and %d are enough", i, n, most)
			}
		}
		if sum > width {
			t.Fatalf("%d cells of %d: %v", sum, width, widths)
		}
		if natural <= width && sum != natural {
			t.Fatalf("%d cells would fit into %d, %v are used", natural, width, widths)
		}
		if widths[colKID] < 8 {
			t.Fatalf("the kid is gone: %v", widths)
		}
	})
}

// The array is JSON at every length.
func TestKeyArray(t *testing.T) {
	for n := range 4 {
		var out bytes.Buffer
		p := (&options{t: terminal{out: &out}, json: true}).newKeyPrinter()
		for i := range n {
			k := hem.KeyInfo{KID: hem.KID{byte(i)}, Label: "<&>", Created: time.Unix(1, 0), Updated: time.Unix(2, 0), Traits: api.ParseKeyTraits("ATT,PKEY,ECDH,SECP256R1")}
			if err := p.add(k); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.end(); err != nil {
			t.Fatal(err)
		}
		var keys []keyJSON
		if err := json.Unmarshal(out.Bytes(), &keys); err != nil || len(keys) != n {
			t.Errorf("%d keys: %v in %s", n, err, &out)
		}
		for i, k := range keys {
			if k.KID != (hem.KID{byte(i)}) || k.Label != "<&>" || k.Type != api.SECP256R1 || strings.Join(k.Traits, " ") != "ATT PKEY ECDH" {
				t.Errorf("key %d: %+v", i, k)
			}
		}
	}
}

// Text is passed on in whatever pieces it comes, and nothing else is.
func TestTextOnly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(rapid.StringOf(rapid.RuneFrom([]rune("aß日\n\t😀"))).Draw(t, "text"))
		var out bytes.Buffer
		w := &textOnly{w: &out}
		for rest := text; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			if k, err := w.Write(rest[:n]); err != nil || k != n {
				t.Fatalf("%q: %d of %d bytes, %v", rest[:n], k, n, err)
			}
			rest = rest[n:]
		}
		if err := whole(w); err != nil || !bytes.Equal(out.Bytes(), text) {
			t.Fatalf("%q came out as %q, %v", text, &out, err)
		}
	})
	for _, bad := range []string{"\x1b[2J", "a\x00", "\xff", "ok\x9b", "\u202e"} {
		var out bytes.Buffer
		if _, err := (&textOnly{w: &out}).Write([]byte(bad)); !errors.Is(err, errNotText) || out.Len() > 0 {
			t.Errorf("%q: %v, %q", bad, err, &out)
		}
	}
}

// Half a character at the end is no text.
func TestTextEndsWithACharacter(t *testing.T) {
	var out bytes.Buffer
	w := &textOnly{w: &out}
	if _, err := io.WriteString(w, "gr\xc3"); err != nil {
		t.Fatal(err)
	}
	if err := whole(w); !errors.Is(err, errNotText) || out.String() != "gr" {
		t.Errorf("%v, %q", err, &out)
	}
}

// Waits are counted aloud once they take long.
func TestCount(t *testing.T) {
	var shown bytes.Buffer
	p := &progress{w: &shown, running: true}
	c := p.count("%d so far")
	c.add(3)
	if shown.Len() > 0 {
		t.Errorf("at once: %q", &shown)
	}
	c.next = time.Now().Add(-time.Second)
	c.add(4)
	c.add(5)
	if got := shown.String(); got != "hem: 7 so far ..." || c.n != 12 {
		t.Errorf("%q, %d", got, c.n)
	}
	newProgress(io.Discard).count("%d").add(1) // no terminal
}

// Reading standard input does not outlive what it is for.
func TestStdinEndsWithItsContext(t *testing.T) {
	in, _ := io.Pipe()
	o := &options{t: terminal{in: in}}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := o.claimStdin(ctx, "a test")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := o.claimStdin(t.Context(), "another"); err == nil || !strings.Contains(err.Error(), "was read for a test and cannot be for another too") {
		t.Errorf("%v", err)
	}
}

// Whatever a file holds that is said to be a public key, reading it ends.
func FuzzPublicFile(f *testing.F) {
	f.Add([]byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICR+8VdlWaxz7CqCImZ3AcXNoPp18Zc/uqCLMaOfITNd ada"))
	f.Add([]byte("ecdsa-sha2-nistp256 AAAA"))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAJH7xV2VZrHPsKoIiZncBxc2g+nXxlz+6oIsxo58hM10=\n-----END PUBLIC KEY-----\n"))
	f.Add([]byte("JH7xV2VZrHPsKoIiZncBxc2g+nXxlz+6oIsxo58hM10="))
	f.Add(bytes.Repeat([]byte{7}, 32))
	f.Fuzz(func(t *testing.T, text []byte) {
		kt, raw, err := parsePublicFile(text)
		if err != nil || kt == "" {
			return
		}
		if _, err := hem.ParsePublic(kt, raw); err != nil {
			t.Errorf("%q is taken for a key of type %s: %v", text, kt, err)
		}
		again, err := hem.MarshalSPKI(kt, raw)
		if err != nil {
			t.Fatal(err)
		}
		if t2, raw2, err := parsePublicFile(again); t2 != kt || !bytes.Equal(raw2, raw) {
			t.Errorf("%x comes back as %s %x, %v", raw, t2, raw2, err)
		}
	})
}

// The compact form is what [hem.AEAD] has.
func TestCompact(t *testing.T) {
	sealed := make([]byte, 40)
	for i := range sealed {
		sealed[i] = byte(i)
	}
	for alg, want := range map[string][3]int{ // IV, data, tag
		hem.AES256GCM: {16, 8, 16}, hem.AES128CBC: {16, 24, 0}, hem.AES192ECB: {0, 40, 0},
	} {
		ct, ok := parseCompact(alg, sealed)
		if !ok || [3]int{len(ct.IV), len(ct.Data), len(ct.Tag)} != want {
			t.Errorf("%s: %+v", alg, ct)
			continue
		}
		back := (&compact{IV: ct.IV, Ciphertext: ct.Data, Tag: ct.Tag}).bytes()
		if !bytes.Equal(back, sealed) {
			t.Errorf("%s: %x", alg, back)
		}
		for n := range want[0] + want[2] + 1 {
			if _, ok := parseCompact(alg, sealed[:n]); ok {
				t.Errorf("%s: %d bytes are enough", alg, n)
			}
		}
	}
}
