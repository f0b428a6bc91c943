package audit

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"softhem/internal/suite"
)

// deviceLog is from a real device; see the specification, part 5.
const (
	deviceEIDSign = "T61jY1AgV5XUW++eAcQibRDFOl5KjKwLGdo+U0def8A="
	deviceLog     = `# device 1.0
0|62310ba5|0|0|NgPWx9MnmngrKa7xkSuQnDcwBlDV5JeR0OoX6gFyMpo|sMfJhY2jjkQLb7dVGlWf_GynEOTZVh5tO33k8Iq52jB0CAECs1ysU3NenhlmWBWyTo1XEaqL-ysBVB7quNHDBA|XEwWbRXrh65JPjAjb-9bwg
1|62310ba5|1|0|||rfB1gKL0hTi5tGh8PDerAA
2|62310ba5|7|0|||dsutQDgmuLtecPIwPDctdA
3|62310ba5|13|0||NQsxYg|bODm1bUzTiX6qS7LheDJFA
4|62310ba6|1d|0|M||9b_vMf0QXC-qEhi-kQ4zpg
5|62310bdd|12|0|U||Rhwgm9ZQx-RGfrjESNxhDQ
6|62310c0c|2|0|U||IhCfo8F_OHBLhgOGXE5vPA
`
)

func unbase64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type vector struct {
	Private string   `json:"eid_sign_private"`
	EIDSign string   `json:"eid_sign"`
	FileID  string   `json:"file_id"`
	Header  string   `json:"header"`
	Lines   []string `json:"lines"`
}

func (v vector) file() string { return v.Header + "\n" + strings.Join(v.Lines, "\n") + "\n" }

func readVector(t testing.TB) vector {
	t.Helper()
	b, err := os.ReadFile("testdata/audit.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vector
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVerifyDeviceLog(t *testing.T) {
	rep, err := VerifyFile(strings.NewReader(deviceLog), unbase64(t, deviceEIDSign))
	if err != nil {
		t.Fatal(err)
	}
	want := Report{Product: "device 1.0", Records: 7, Keys: 1, First: 0x62310ba5, Last: 0x62310c0c}
	if rep != want {
		t.Errorf("got %+v, want %+v", rep, want)
	}
	var types []string
	for e, err := range Entries(strings.NewReader(deviceLog), unbase64(t, deviceEIDSign)) {
		if err != nil {
			t.Fatal(err)
		}
		types = append(types, e.Type.String())
	}
	if got, want := fmt.Sprint(types), "[KEY_INIT STARTUP SELFTEST_PASSED RTC_SET DEVICE_INITED CONFIG_UPDATED REBOOT]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestVerifyVector(t *testing.T) {
	v := readVector(t)
	rep, err := VerifyFile(strings.NewReader(v.file()), unbase64(t, v.EIDSign))
	if err != nil {
		t.Fatal(err)
	}
	if rep.Records != len(v.Lines) || rep.Keys != 2 || rep.Failed != 2 || formatID(rep.First) != v.FileID {
		t.Errorf("%+v", rep)
	}
	// Zeros after the lines are room taken ahead.
	if _, err := VerifyFile(strings.NewReader(v.file()+strings.Repeat("\x00", 100_000)), unbase64(t, v.EIDSign)); err != nil {
		t.Error(err)
	}
	_, err = VerifyFile(strings.NewReader(v.file()+strings.Repeat("\x00", 100_000)+"x"), unbase64(t, v.EIDSign))
	if bad, ok := errors.AsType[*BadRecordError](err); !ok || bad.Line != len(v.Lines)+2 || bad.Seq != uint64(len(v.Lines)) || bad.Offset != int64(len(v.file())) {
		t.Errorf("zeros in between: %v", err)
	}
}

// The renderer makes the vector again from its keys and records.
func TestRenderVector(t *testing.T) {
	v := readVector(t)
	sign, err := suite.NewEd25519Key(unbase64(t, v.Private))
	if err != nil {
		t.Fatal(err)
	}
	var c cursor
	got := []byte(v.Header + "\n")
	for _, line := range v.Lines {
		e, err := Parse([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		if e.Key != nil {
			got = c.renderKeyInit(got, e.Time, e.Key, sign.Sign(e.Key))
		} else {
			got = c.render(got, e.Time, e.Record)
		}
	}
	if string(got) != v.file() {
		t.Errorf("got\n%s\nwant\n%s", got, v.file())
	}
}

func TestParseRefuses(t *testing.T) {
	const mac = "rfB1gKL0hTi5tGh8PDerAA"
	if _, err := Parse([]byte("1|62310ba5|1|0|||" + mac)); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"",
		"1|62310ba5|1|0||" + mac,
		"1|62310ba5|1|0||||" + mac,
		"01|62310ba5|1|0|||" + mac,
		"+1|62310ba5|1|0|||" + mac,
		"-1|62310ba5|1|0|||" + mac,
		"a|62310ba5|1|0|||" + mac,
		"18446744073709551616|62310ba5|1|0|||" + mac,
		"1|62310BA5|1|0|||" + mac,
		"1|2310ba5|1|0|||" + mac,
		"1|062310ba5|1|0|||" + mac,
		"1|62310ba5|01|0|||" + mac,
		"1|62310ba5|1D|0|||" + mac,
		"1|62310ba5|100|0|||" + mac,
		"1|62310ba5|1|3|||" + mac,
		"1|62310ba5|1|00|||" + mac,
		"1|62310ba5|1|0|X||" + mac,
		"1|62310ba5|1|0||=|" + mac,
		"1|62310ba5|1|0||NQsxYh|" + mac, // stray bits
		"1|62310ba5|1|0||NQsx\rYg|" + mac,
		"1|62310ba5|1|0|||" + mac[:21],
		"1|62310ba5|1|0|||" + mac[:21] + "B",
		"1|62310ba5|1|0|||" + mac + "\r",
		"0|62310ba5|0|0|||" + mac,
		"0|62310ba5|0|0|NgPWx9MnmngrKa7xkSuQnDcwBlDV5JeR0OoX6gFyMpo||" + mac,
		"1|62310ba5|1|0||" + strings.Repeat("A", maxLine) + "|" + mac,
	} {
		if e, err := Parse([]byte(line)); err == nil {
			t.Errorf("%.80q was read as %+v", line, e)
		}
	}
}

func TestRecordCheck(t *testing.T) {
	good := Record{Type: KeyDelete, Who: "U", Arg: []byte{1}}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for _, r := range []Record{
		{},
		{Type: 16}, {Type: 43}, {Type: 255},
		{Type: KeyDelete, Result: 3},
		{Type: KeyDelete, Who: "u"},
		{Type: KeyDelete, Who: "U|"},
		{Type: KeyDelete, Who: "ab\n"},
		{Type: KeyDelete, Who: strings.Repeat("a", maxWho+1)},
		{Type: KeyDelete, Arg: make([]byte, maxArg+1)},
	} {
		if err := r.check(); !errors.Is(err, ErrRecord) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	// What may be written can be read.
	big := Record{Type: CryptoPQCMLDSAVerify, Result: Error, Who: strings.Repeat("a", maxWho), Arg: make([]byte, maxArg)}
	c := cursor{key: suite.NewMACKey(make([]byte, keySize)), seq: 1<<64 - 1}
	line := bytes.TrimSuffix(c.render(nil, 1<<62, big), []byte("\n"))
	if _, err := Parse(line); err != nil {
		t.Error(err)
	}
}

// Each flipped byte is found, at the record it is in.
func TestVerifyFindsEveryFlip(t *testing.T) {
	v := readVector(t)
	good, eid := []byte(v.file()), unbase64(t, v.EIDSign)
	for i := range good {
		for _, flip := range []byte{0x01, 0x20, 0x80, good[i]} {
			b := bytes.Clone(good)
			b[i] ^= flip
			line := 1 + bytes.Count(good[:i], []byte("\n"))
			rep, err := VerifyFile(bytes.NewReader(b), eid)
			if line == 1 && err == nil {
				// The header has no MAC: other text there proves nothing.
				if rep.Product == v.Header[2:] {
					t.Fatalf("byte %d ^ %#x went unseen", i, flip)
				}
				continue
			}
			bad, ok := errors.AsType[*BadRecordError](err)
			if !ok {
				t.Fatalf("byte %d (%q) ^ %#x: %v", i, good[i], flip, err)
			}
			// A header without its newline swallows the first record.
			if bad.Line != line && !(line == 1 && bad.Line == 2) {
				t.Fatalf("byte %d ^ %#x of line %d: %v", i, flip, line, bad)
			}
		}
	}
}

// What a file alone does show: lines that do not belong together.
func TestVerifyFindsWrongLines(t *testing.T) {
	v := readVector(t)
	eid := unbase64(t, v.EIDSign)
	device := strings.Split(deviceLog, "\n")
	join := func(lines []string) string { return v.Header + "\n" + strings.Join(lines, "\n") + "\n" }
	for name, c := range map[string]struct {
		file string
		line int
	}{
		"empty":       {"", 1},
		"header only": {v.Header + "\n", 2},
		"no header":   {strings.Join(v.Lines, "\n") + "\n", 1},
		"cut line":    {v.file()[:len(v.file())-1], len(v.Lines) + 1},
		"dropped":     {join(slices.Delete(slices.Clone(v.Lines), 3, 4)), 5},
		"doubled":     {join(slices.Insert(slices.Clone(v.Lines), 3, v.Lines[2])), 5},
		"empty line":  {join(slices.Insert(slices.Clone(v.Lines), 3, "")), 5},
		"swapped":     {join(append([]string{v.Lines[0], v.Lines[2], v.Lines[1]}, v.Lines[3:]...)), 3},
		"no key":      {join(v.Lines[1:]), 2},
		"other key":   {join(append([]string{device[1]}, v.Lines[1:]...)), 2},
		"other line":  {join(append(slices.Clone(v.Lines[:3]), device[4])), 5},
		"long line":   {join([]string{v.Lines[0], strings.Repeat("x", 3*maxLine)}), 3},
	} {
		_, err := VerifyFile(strings.NewReader(c.file), eid)
		if bad, ok := errors.AsType[*BadRecordError](err); !ok || bad.Line != c.line {
			t.Errorf("%s: got %v, want line %d", name, err, c.line)
		}
	}
}

func FuzzParse(f *testing.F) {
	for line := range strings.Lines(deviceLog) {
		f.Add([]byte(strings.TrimSuffix(line, "\n")))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := Parse(line)
		if err != nil {
			return
		}
		if got := append(e.appendBody(nil), e.MAC...); !bytes.Equal(got, line) {
			t.Errorf("%q renders as %q", line, got)
		}
	})
}

func FuzzVerifyFile(f *testing.F) {
	v := readVector(f)
	sign, err := suite.NewEd25519Key(unbase64(f, v.Private))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(v.file()), false)
	f.Add([]byte(v.file()), true)
	f.Add([]byte(v.Header+"\n1|6955b900|1|0|U|AQ|\n7|6955b900|c|1|||\n"), true)
	f.Fuzz(func(t *testing.T, file []byte, mend bool) {
		if mend { // else hardly anything but the seeds has right MACs
			file = mended(file, sign)
		}
		rep, err := VerifyFile(bytes.NewReader(file), sign.Public())
		var c cursor
		got := []byte("# " + rep.Product + "\n")
		for e, entryErr := range Entries(bytes.NewReader(file), sign.Public()) {
			if entryErr != nil {
				if err == nil || entryErr.Error() != err.Error() {
					t.Fatalf("VerifyFile: %v, Entries: %v", err, entryErr)
				}
				return
			}
			c.time = 0 // times may be set back
			if e.isKeyInit() {
				got = c.renderKeyInit(got, e.Time, e.Key, e.Arg)
			} else {
				got = c.render(got, e.Time, e.Record)
			}
		}
		if err != nil {
			t.Fatalf("Entries saw nothing of %v", err)
		}
		if want := bytes.TrimRight(file, "\x00"); !bytes.Equal(got, want) {
			t.Errorf("%q renders as %q", want, got)
		}
	})
}

// mended gives the lines of a file that have the form of records right MACs.
func mended(file []byte, sign *suite.Ed25519Key) []byte {
	var out []byte
	key := bytes.Repeat([]byte{7}, keySize)
	mac := suite.NewMACKey(key)
	for line := range bytes.Lines(file) {
		i := bytes.LastIndexByte(line, '|')
		switch {
		case bytes.HasPrefix(line, []byte("# ")):
			out = append(out, line...)
			e := Entry{Key: key, Record: Record{Arg: sign.Sign(key)}}
			body := e.appendBody(nil)
			out = append(appendMAC(append(out, body...), mac, body), '\n')
		case i > 0:
			out = append(appendMAC(append(out, line[:i+1]...), mac, line[:i+1]), '\n')
		default:
			out = append(out, line...)
		}
	}
	return out
}
