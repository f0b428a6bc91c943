package audit

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"softhem/internal/store"
	"softhem/internal/suite"
)

// written makes a folder with one file of a boot, killed after three records,
// and returns the file's name and its bytes without the zeros.
func written(t *testing.T, st store.Store) (dir, id string, lines []byte) {
	t.Helper()
	dir = t.TempDir()
	l := openLog(t, config(st, dir))
	must(t, l.StartBoot(t.Context()))
	for i := range 3 {
		must(t, l.Append(t.Context(), Record{Type: KeyDerive, Who: "U", Arg: fmt.Append(nil, i)}))
	}
	id = l.Current()
	abandon(l)
	b, err := os.ReadFile(filepath.Join(dir, id))
	must(t, err)
	if len(b) != chunkSize {
		t.Fatalf("%d bytes", len(b))
	}
	return dir, id, bytes.TrimRight(b, "\x00")
}

func TestTornTail(t *testing.T) {
	const all = boot + `KEY_DERIVE OK "U" "0"` + "\n" + `KEY_DERIVE OK "U" "1"` + "\n" + `KEY_DERIVE OK "U" "2"` + "\n"
	upTo := func(records int) string {
		return strings.Join(strings.SplitAfter(all, "\n")[:records-1], "")
	}
	zero := make([]byte, 5000)
	type lines = [][]byte // header, KEY_INIT, STARTUP, 3 records
	for name, c := range map[string]struct {
		damage func(b []byte, l lines) []byte
		keep   int // records; 0: the file goes
		torn   func(b []byte, l lines) []byte
	}{
		"whole":         {func(b []byte, l lines) []byte { return b }, 5, nil},
		"zeros":         {func(b []byte, l lines) []byte { return append(b, zero...) }, 5, nil},
		"cut at a line": {func(b []byte, l lines) []byte { return b[:len(b)-len(l[5])] }, 4, nil},
		"newline lost": {func(b []byte, l lines) []byte { return append(b[:len(b)-1], zero...) }, 4,
			func(b []byte, l lines) []byte { return l[5][:len(l[5])-1] }},
		"half a line": {func(b []byte, l lines) []byte { return b[:len(b)-30] }, 4,
			func(b []byte, l lines) []byte { return l[5][:len(l[5])-30] }},
		"noise": {func(b []byte, l lines) []byte { return append(b, "\x00\x01noise\n\x00"...) }, 5,
			func(b []byte, l lines) []byte { return []byte("\x00\x01noise\n") }},
		"a page missing": {func(b []byte, l lines) []byte { // and a valid stretch after it
			i := len(b) - len(l[5]) - len(l[4])
			clear(b[i : i+len(l[4])])
			return b
		}, 3, func(b []byte, l lines) []byte { return slices.Concat(make([]byte, len(l[4])), l[5]) }},
		"flipped bit in the middle": {func(b []byte, l lines) []byte {
			b[len(l[0])+len(l[1])+5] ^= 1
			return b
		}, 1, func(b []byte, l lines) []byte { return b[len(l[0])+len(l[1]):] }},
		"a record twice": {func(b []byte, l lines) []byte { return append(b, l[5]...) }, 5,
			func(b []byte, l lines) []byte { return l[5] }},
		"a line out of order": {func(b []byte, l lines) []byte { return slices.Concat(l[0], l[1], l[2], l[4], l[5]) }, 2,
			func(b []byte, l lines) []byte { return slices.Concat(l[4], l[5]) }},
		"header only": {func(b []byte, l lines) []byte { return append(slices.Clone(l[0]), zero...) }, 0,
			func(b []byte, l lines) []byte { return l[0] }},
		"half a header": {func(b []byte, l lines) []byte { return l[0][:4] }, 0,
			func(b []byte, l lines) []byte { return l[0][:4] }},
		"only zeros": {func(b []byte, l lines) []byte { return zero }, 0, nil},
		"empty":      {func(b []byte, l lines) []byte { return nil }, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			st := openStore(t, "")
			dir, id, good := written(t, st)
			split := bytes.SplitAfter(good, []byte("\n"))
			damaged := c.damage(bytes.Clone(good), split)
			path := filepath.Join(dir, id)
			must(t, os.WriteFile(path, damaged, 0o600))
			must(t, os.WriteFile(path+newSuffix, []byte("left by a crash"), 0o600))

			var warnings bytes.Buffer
			cfg := config(st, dir)
			cfg.Logger = newTextLogger(&warnings)
			l := openLog(t, cfg)
			if c.keep > 0 {
				if got, want := since(t, l, id), upTo(c.keep); got != want {
					t.Errorf("kept\n%swant\n%s", got, want)
				}
			} else if _, err := os.Stat(path); !os.IsNotExist(err) {
				t.Errorf("a file without records stays: %v", err)
			}
			var want []byte
			var report string
			if c.torn != nil {
				want = c.torn(damaged, split)
				offset := 0
				if c.keep > 0 {
					offset = len(bytes.Join(split[:c.keep+1], nil))
				}
				report = fmt.Sprintf("NON_SECURE_STATE ERROR \"\" \"torn %s %d %d\"\n", id, offset, len(want))
			}
			if c.keep < 2 { // the boot's two records were in a checkpoint
				report += fmt.Sprintf("NON_SECURE_STATE ERROR \"\" \"short %s 2 %d\"\n", id, c.keep)
			}
			got, err := os.ReadFile(path + tornSuffix)
			if (err == nil) != (want != nil) || !bytes.Equal(got, want) {
				t.Errorf("moved %q, %v; want %q", got, err, want)
			}
			if warned := strings.Contains(warnings.String(), "was moved"); warned != (want != nil) {
				t.Errorf("warnings: %s", &warnings)
			}
			if info, err := os.Stat(path + tornSuffix); err == nil && info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v", info.Mode())
			}
			if _, err := os.Stat(path + newSuffix); !os.IsNotExist(err) {
				t.Errorf("a file in the making stays: %v", err)
			}

			// A crash before the next boot does not lose the report.
			abandon(l)
			l = openLog(t, cfg)
			must(t, l.StartBoot(t.Context()))
			second := l.Current()
			if got := since(t, l, second); got != boot+report {
				t.Errorf("the next boot has\n%swant\n%s", got, boot+report)
			}
			if second <= id && (c.keep > 0 || want != nil) {
				t.Errorf("%s follows %s", second, id)
			}
			// It is made once.
			abandon(l)
			l = openLog(t, cfg)
			must(t, l.StartBoot(t.Context()))
			if got := since(t, l, l.Current()); got != boot {
				t.Errorf("the boot after that has\n%s", got)
			}
		})
	}
}

// A second tear of the same file is added to the first.
func TestTornTwice(t *testing.T) {
	st := openStore(t, "")
	dir, id, good := written(t, st)
	path := filepath.Join(dir, id)
	for i, noise := range []string{"first", "second", "second"} {
		must(t, os.WriteFile(path, append(bytes.Clone(good), noise...), 0o600))
		abandon(openLog(t, config(st, dir)))
		want := []string{"first", "firstsecond", "firstsecond"}[i]
		if got, err := os.ReadFile(path + tornSuffix); err != nil || string(got) != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
}

// The store's tail and what the file has of it.
func TestCompleteFromTail(t *testing.T) {
	const imported = `KEY_IMPORT OK "M" "a"` + "\n" + `KEY_IMPORT OK "M" "b"` + "\n"
	const before = boot + `KEY_DERIVE OK "U" "0"` + "\n"
	const after = `KEY_DERIVE OK "U" "1"` + "\n"
	type state struct {
		id     string
		b      []byte // the file with the tail and one record after it
		tail   store.LogTail
		others []byte // other valid lines at the tail's offset
	}
	end := func(s state) int64 { return s.tail.Offset + int64(len(s.tail.Lines)) }
	for name, c := range map[string]struct {
		file func(s state) []byte // nil: none
		kept string
		next string // after STARTUP
		torn func(s state) string
	}{
		"all there":          {file: func(s state) []byte { return s.b }, kept: before + imported + after},
		"nothing after it":   {file: func(s state) []byte { return s.b[:end(s)] }, kept: before + imported},
		"not written":        {file: func(s state) []byte { return s.b[:s.tail.Offset] }, kept: before + imported},
		"not written, zeros": {file: func(s state) []byte { return append(s.b[:s.tail.Offset:s.tail.Offset], make([]byte, 9000)...) }, kept: before + imported},
		"half":               {file: func(s state) []byte { return s.b[:s.tail.Offset+20] }, kept: before + imported},
		"first line": {file: func(s state) []byte {
			return s.b[:s.tail.Offset+int64(bytes.IndexByte(s.tail.Lines, '\n'))+1]
		}, kept: before + imported},
		"a hole": {file: func(s state) []byte {
			clear(s.b[s.tail.Offset+3 : s.tail.Offset+90])
			return s.b[:end(s)]
		}, kept: before + imported},
		"noise in its place": {file: func(s state) []byte { return append(s.b[:s.tail.Offset], "noise"...) }, kept: before + imported,
			next: `NON_SECURE_STATE ERROR "" "torn ID OFF 5"` + "\n", torn: func(state) string { return "noise" }},
		"long noise in its place": {file: func(s state) []byte { return append(s.b[:s.tail.Offset], strings.Repeat("n", 9999)...) }, kept: before + imported,
			next: `NON_SECURE_STATE ERROR "" "torn ID OFF 9999"` + "\n", torn: func(state) string { return strings.Repeat("n", 9999) }},
		"the file is gone": {next: `NON_SECURE_STATE ERROR "" "tail ID OFF LEN"` + "\n" + imported + `NON_SECURE_STATE ERROR "" "short ID 2 0"` + "\n"},
		"the file is too short": {file: func(s state) []byte {
			return s.b[:bytes.LastIndexByte(s.b[:s.tail.Offset-1], '\n')+1]
		}, kept: boot, next: `NON_SECURE_STATE ERROR "" "tail ID OFF LEN"` + "\n" + imported},
		// The store failed a commit that it had made, and the log went on.
		"others in its place": {file: func(s state) []byte { return s.others }, kept: before + after,
			next: `NON_SECURE_STATE ERROR "" "tail ID OFF LEN"` + "\n" + imported},
	} {
		t.Run(name, func(t *testing.T) {
			st := openStore(t, "")
			dir := t.TempDir()
			cfg := config(st, dir)
			cfg.Now = func() int64 { return 0x1000 }
			l := openLog(t, cfg)
			must(t, l.StartBoot(t.Context()))
			must(t, l.Append(t.Context(), Record{Type: KeyDerive, Who: "U", Arg: []byte("0")}))
			last := Record{Type: KeyDerive, Who: "U", Arg: []byte("1")}
			other := l.seg.cursor
			line := other.render(nil, 0x1000, last)
			must(t, l.Commit(t.Context(), put("k", "v", Record{Type: KeyImport, Who: "M", Arg: []byte("a")}, Record{Type: KeyImport, Who: "M", Arg: []byte("b")})))
			must(t, l.Append(t.Context(), last))
			s := state{id: l.Current()}
			abandon(l)
			path := filepath.Join(dir, s.id)
			var err error
			s.b, err = os.ReadFile(path)
			must(t, err)
			s.b = bytes.TrimRight(s.b, "\x00")
			s.tail, err = st.LogTail(t.Context())
			must(t, err)
			s.others = slices.Concat(s.b[:s.tail.Offset], line)
			fill := strings.NewReplacer("ID", s.id, "OFF", fmt.Sprint(s.tail.Offset), "LEN", fmt.Sprint(len(s.tail.Lines))).Replace
			if c.file == nil {
				must(t, os.Remove(path))
			} else {
				must(t, os.WriteFile(path, c.file(s), 0o600))
			}

			for range 2 { // a crash before the boot changes nothing
				l = openLog(t, cfg)
				if c.file != nil {
					if got := since(t, l, s.id); got != c.kept {
						t.Errorf("the file has\n%swant\n%s", got, c.kept)
					}
				}
				abandon(l)
			}
			if c.torn != nil {
				if got, err := os.ReadFile(path + tornSuffix); err != nil || string(got) != c.torn(s) {
					t.Errorf("moved %.20q, %v", got, err)
				}
			} else if _, err := os.Stat(path + tornSuffix); err == nil {
				t.Error("something was moved")
			}
			l = openLog(t, cfg)
			must(t, l.StartBoot(t.Context()))
			got, want := since(t, l, l.Current()), boot+fill(c.next)
			if c.torn != nil { // told again, with the place the file ends at now
				got = strings.Replace(got, fmt.Sprintf("torn %s %d", s.id, end(s)), fmt.Sprintf("torn %s %d", s.id, s.tail.Offset), 1)
			}
			if got != want {
				t.Errorf("the next boot has\n%swant\n%s", got, want)
			}
			if l.Current() <= s.id {
				t.Errorf("%s follows %s", l.Current(), s.id)
			}
			abandon(l)
			l = openLog(t, cfg)
			must(t, l.StartBoot(t.Context()))
			if got := since(t, l, l.Current()); got != boot {
				t.Errorf("the boot after that has\n%s", got)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	st := openStore(t, "")
	good := config(st, "")
	for name, spoil := range map[string]func(c *Config){
		"no store":    func(c *Config) { c.Store = nil },
		"no signer":   func(c *Config) { c.Sign = nil },
		"no clock":    func(c *Config) { c.Now = nil },
		"no product":  func(c *Config) { c.Product = "" },
		"two lines":   func(c *Config) { c.Product = "a\nb" },
		"durability":  func(c *Config) { c.Durability = 2 },
		"a file":      func(c *Config) { c.Dir = "recover_test.go" },
		"a dead root": func(c *Config) { c.Dir = "/proc/none/log" },
	} {
		cfg := good
		spoil(&cfg)
		if l, err := Open(t.Context(), cfg); err == nil {
			l.Close(t.Context())
			t.Errorf("%s: opened", name)
		}
	}
	must(t, st.Update(t.Context(), func(tx store.Tx) error {
		return tx.SetLogTail(context.Background(), store.LogTail{File: "../passwd", Lines: []byte("x")})
	}))
	good.Dir = t.TempDir()
	if _, err := Open(t.Context(), good); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a tail for a strange file: %v", err)
	}
}

// T46: who can write the file can rewrite a record and its MAC, for the key
// stands in the file; lines alone prove nothing.
func TestThreat_T46_LinesAloneProveNothing(t *testing.T) {
	var v struct {
		EIDSign string `json:"eid_sign"`
		Header  string
		Lines   []string
	}
	raw, err := os.ReadFile("testdata/audit.json")
	must(t, err)
	must(t, json.Unmarshal(raw, &v))
	eidSign, err := base64.StdEncoding.DecodeString(v.EIDSign)
	must(t, err)
	first, err := Parse([]byte(v.Lines[0]))
	must(t, err)
	forged := strings.Replace(v.Lines[4], "|U|", "|M|", 1)
	forged = forged[:strings.LastIndexByte(forged, '|')+1]
	if forged == v.Lines[4] {
		t.Fatal("nothing was forged")
	}
	mac := suite.HMACSHA256(first.Key, []byte(forged))
	v.Lines[4] = forged + base64.RawURLEncoding.EncodeToString(mac[:16])
	file := v.Header + "\n" + strings.Join(v.Lines, "\n") + "\n"
	if _, err := VerifyFile(strings.NewReader(file), eidSign); err != nil {
		t.Errorf("a record rewritten with the key of the file is noticed without a checkpoint: %v", err)
	}
}
