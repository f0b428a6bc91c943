package audit

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"softhem/internal/suite"
)

// A forger writes logs as a module does, with keys of the caller's choice.
type forger struct {
	files [][]byte
	cur   cursor
	sign  func([]byte) []byte
}

func (f *forger) boot(now int64, key []byte) {
	f.cur = cursor{}
	b := []byte("# softhem test\n")
	f.files = append(f.files, f.cur.renderKeyInit(b, now, key, f.sign(key)))
}

func (f *forger) add(now int64, r Record) {
	last := &f.files[len(f.files)-1]
	*last = f.cur.render(*last, now, r)
}

func (f *forger) rotate(now int64, key []byte) {
	last := &f.files[len(f.files)-1]
	*last = f.cur.renderKeyInit(*last, now, key, f.sign(key))
}

func drawRecord(t *rapid.T) Record {
	return Record{
		Type:   rapid.SampledFrom([]Type{Startup, Reboot, KeyImport, CryptoEXDSASign, FailedScopeCheck}).Draw(t, "type"),
		Result: Result(rapid.IntRange(0, 2).Draw(t, "result")),
		Who:    rapid.SampledFrom([]string{"", "U", "M", "0382e3eab596598b1f3582ef90b61a0e"}).Draw(t, "who"),
		Arg:    rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "arg"),
	}
}

func drawLog(t *rapid.T, sign func([]byte) []byte) *forger {
	f := &forger{sign: sign}
	now := int64(0x6955b900)
	for range rapid.IntRange(1, 4).Draw(t, "boots") {
		now++
		f.boot(now, suite.Random(keySize))
		for range rapid.IntRange(0, 12).Draw(t, "records") {
			now += int64(rapid.IntRange(0, 3).Draw(t, "seconds"))
			if rapid.IntRange(0, 9).Draw(t, "rotate") == 0 {
				f.rotate(now, suite.Random(keySize))
			} else {
				f.add(now, drawRecord(t))
			}
		}
	}
	return f
}

// splitLog is the log as lines: of each file the header, then its records.
func splitLog(files [][]byte) (all [][][]byte) {
	for _, f := range files {
		lines := bytes.SplitAfter(f, []byte("\n"))
		all = append(all, lines[:len(lines)-1])
	}
	return all
}

func joinLog(all [][][]byte) (files [][]byte) {
	for _, lines := range all {
		files = append(files, bytes.Join(lines, nil))
	}
	return files
}

// leafHashes are those of all records, and the checkpoint of all.
func leafHashes(all [][][]byte) (leaves []byte, c Checkpoint) {
	var tr tree
	for _, lines := range all {
		for _, line := range lines[1:] {
			line = bytes.TrimSuffix(line, []byte("\n"))
			h := LeafHash(line)
			leaves = append(leaves, h[:]...)
			tr.add(line)
		}
	}
	return leaves, Checkpoint{Origin: testOrigin, Size: tr.size, Root: tr.root()}
}

// A finding is what a verification of a log says first.
type finding struct {
	leaf int64 // of the log: the first that is bad, -1 for none
	to   int64 // it is before this one; leaf+1 when it is named exactly
	err  error
}

func verifyLog(t interface{ Fatal(...any) }, files [][]byte, eidSign []byte, c Checkpoint, known []byte) finding {
	v, err := NewVerification(eidSign)
	if err == nil {
		err = v.Expect(c)
	}
	if err != nil {
		t.Fatal(err)
	}
	if known != nil {
		v.Known(bytes.NewReader(known))
	}
	before := int64(0) // leaves of the files before
	for _, f := range files {
		rep, err := v.File(bytes.NewReader(f))
		if bad, ok := errors.AsType[*BadRecordError](err); ok {
			at := before + int64(bad.Seq)
			return finding{at, at + 1, err}
		}
		if fork, ok := errors.AsType[*ForkError](err); ok {
			return finding{fork.From, fork.To, err}
		}
		if err != nil {
			t.Fatal(err)
		}
		before += int64(rep.Records)
	}
	err = v.End()
	if cut, ok := errors.AsType[*CutError](err); ok {
		return finding{cut.Size, cut.Size + 1, err}
	}
	if err != nil {
		t.Fatal(err)
	}
	if held, ok := v.Held(); !ok || held != c.Size {
		t.Fatal("the checkpoint was not reached, and nobody said so")
	}
	return finding{-1, -1, nil}
}

// Every single change of a random log, by one who has the files, the MAC keys
// in them and a module to copy KEY_INIT signatures from, is found by one
// earlier checkpoint. The record is named: by its line where that does not
// hold; by the leaf hashes of a witness in every case; and without these, when
// all was forged well, as one of those that the checkpoint covers.
func TestEveryChangeIsFound(t *testing.T) {
	key := signer()
	rapid.Check(t, func(rt *rapid.T) {
		f := drawLog(rt, key.Sign)
		all := splitLog(f.files)
		leaves, c := leafHashes(all)
		if got := verifyLog(rt, f.files, key.Public(), c, leaves); got.err != nil {
			rt.Fatalf("the log itself: %v", got.err)
		}

		// Leaf number n of the log is line i of file j.
		n := int64(rapid.IntRange(0, int(c.Size)-1).Draw(rt, "leaf"))
		j, i := 0, 1
		for left := n; ; {
			if left < int64(len(all[j])-1) {
				i = 1 + int(left)
				break
			}
			left -= int64(len(all[j]) - 1)
			j++
		}
		inFile := len(all[j])
		forged := false // lines may hold all the same
		changed := slices.Clone(all)
		changed[j] = slices.Clone(all[j])
		first := n // the first leaf that is another
		eidSign := key.Public()
		what := rapid.SampledFrom([]string{
			"bit", "drop", "add", "move", "rewrite", "rewrite and number anew", "cut the log", "cut a file", "drop a file",
			"swap files", "another boot", "re-sign", "add a file",
		}).Draw(rt, "change")
		switch what {
		case "bit":
			line := bytes.Clone(all[j][i])
			bit := rapid.IntRange(0, len(line)*8-1).Draw(rt, "bit")
			line[bit/8] ^= 1 << (bit % 8)
			changed[j][i] = line
		case "drop":
			changed[j] = slices.Delete(changed[j], i, i+1)
			forged = i == inFile-1 || i == 1 // the end of a file, or a KEY_INIT before another
		case "add":
			changed[j] = slices.Insert(changed[j], i, all[j][i])
			if bytes.Equal(changed[j][i], changed[j][i+1]) {
				first = n + 1 // the same twice: the second is the added one
			}
		case "move":
			to := rapid.IntRange(1, inFile-1).Draw(rt, "to")
			if to == i {
				return
			}
			line := changed[j][i]
			changed[j] = slices.Insert(slices.Delete(changed[j], i, i+1), to, line)
			first = n + int64(min(to, i)-i)
		case "rewrite", "rewrite and number anew":
			// With the MAC keys of the file; the second puts a record in.
			again := &forger{sign: func([]byte) []byte { return nil }}
			again.files = [][]byte{bytes.Clone(all[j][0])}
			put := drawRecord(rt)
			for k := 1; k < inFile; k++ {
				e, err := Parse(bytes.TrimSuffix(all[j][k], []byte("\n")))
				if err != nil {
					rt.Fatal(err)
				}
				if k == i && (what != "rewrite" || !e.isKeyInit()) && k > 1 {
					again.add(e.Time, put)
					if what == "rewrite" {
						continue
					}
				}
				if e.isKeyInit() {
					sig := e.Arg
					again.sign = func([]byte) []byte { return sig }
					again.rotate(e.Time, e.Key)
				} else {
					again.cur.time = 0
					again.add(e.Time, e.Record)
				}
			}
			changed[j] = splitLog(again.files)[0]
			if bytes.Equal(bytes.Join(changed[j], nil), bytes.Join(all[j], nil)) {
				return // the record drawn was the same, or there was none to rewrite
			}
			for k := 1; ; k++ {
				if !bytes.Equal(changed[j][k], all[j][k]) {
					first = n + int64(k-i)
					break
				}
			}
			forged = true
		case "cut the log":
			changed = changed[:j+1]
			changed[j] = changed[j][:i]
			if i == 1 {
				changed = changed[:j]
			}
			forged = true
		case "cut a file":
			changed[j] = changed[j][:i]
			if i == 1 {
				changed = slices.Delete(changed, j, j+1)
			}
			forged = true
		case "drop a file", "swap files", "another boot":
			first = n - int64(i-1)
			switch {
			case what == "drop a file":
				changed = slices.Delete(changed, j, j+1)
			case what == "another boot": // by the module itself, from a copy that went its own way
				other := &forger{sign: key.Sign}
				other.boot(0x6955b900, suite.Random(keySize))
				changed[j] = splitLog(other.files)[0]
			case j+1 == len(all):
				return
			default:
				changed[j], changed[j+1] = changed[j+1], changed[j]
			}
			forged = true
		case "re-sign": // the whole file under a key of the forger's own, whose key is then not the module's
			other, err := suite.NewEd25519Key(suite.Random(suite.Ed25519Seed))
			if err != nil {
				rt.Fatal(err)
			}
			fake := &forger{sign: other.Sign}
			fake.boot(0x6955b900, suite.Random(keySize))
			changed[j] = splitLog(fake.files)[0]
			first = n - int64(i-1)
			if rapid.Bool().Draw(rt, "the forger's key is taken for the module's") {
				eidSign = other.Public()
				if j > 0 {
					first = 0 // the first file is not signed by it
				}
				forged = true
			}
		case "add a file":
			fake := &forger{sign: key.Sign}
			fake.boot(0x6955b900, suite.Random(keySize))
			changed = slices.Insert(changed, j, splitLog(fake.files)[0])
			first = n - int64(i-1)
			forged = true
		}

		files := joinLog(changed)
		if got := verifyLog(rt, files, eidSign, c, leaves); got.err == nil {
			rt.Fatalf("%s of record %d is not found with leaf hashes", what, n)
		} else if got.leaf != first || got.to != first+1 {
			rt.Fatalf("%s: with leaf hashes record %d is named, want %d: %v", what, got.leaf, first, got.err)
		}
		got := verifyLog(rt, files, eidSign, c, nil)
		switch {
		case got.err == nil:
			rt.Fatalf("%s of record %d is not found", what, n)
		case !forged && got.to != got.leaf+1:
			rt.Fatalf("%s of record %d is not named: %v", what, n, got.err)
		case got.to == got.leaf+1 && got.leaf != first && !(forged && got.leaf > first):
			rt.Fatalf("%s: record %d is named, want %d: %v", what, got.leaf, first, got.err)
		case got.to != got.leaf+1 && (first < got.leaf || first >= got.to):
			rt.Fatalf("%s: %d to %d is named, want %d", what, got.leaf, got.to, first)
		}
	})
}

// Between two checkpoints a forged record is looked for, not before the one
// that holds.
func TestForkIsNarrowedByCheckpoints(t *testing.T) {
	f := &forger{sign: signer().Sign}
	f.boot(0x6955b900, suite.Random(keySize))
	for range 20 {
		f.add(0x6955b901, Record{Type: Reboot, Who: "U"})
	}
	v, err := NewVerification(signer().Public())
	must(t, err)
	all := splitLog(f.files)
	for _, size := range []int{18, 5, 10} { // in any order
		_, c := leafHashes([][][]byte{all[0][:size+1]})
		if size == 18 {
			c.Root[3] ^= 1
		}
		must(t, v.Expect(c))
	}
	_, err = v.File(bytes.NewReader(f.files[0]))
	fork, ok := errors.AsType[*ForkError](err)
	if held, _ := v.Held(); !ok || fork.From != 10 || fork.To != 18 || held != 10 {
		t.Errorf("%v, held %d", err, held)
	}
}

// The vectors' log against the vectors' checkpoint.
func TestVerifyVectors(t *testing.T) {
	vec := loadVectors(t)
	c, err := ParseCheckpoint([]byte(vec.Checkpoint), vec.EIDSign)
	must(t, err)
	if got := verifyLog(t, [][]byte{vec.file()}, vec.EIDSign, c, nil); got.err != nil {
		t.Error(got.err)
	}
}

// A tail is judged like files, across boots, and from the middle of one.
func TestVerifyTail(t *testing.T) {
	f := &forger{sign: signer().Sign}
	for boot := range 3 {
		f.boot(int64(0x6955b900+boot), suite.Random(keySize))
		for range 4 {
			f.add(0x6955b904, Record{Type: Reboot, Who: "U"})
		}
		f.rotate(0x6955b904, suite.Random(keySize))
	}
	all := splitLog(f.files)
	leaves, c := leafHashes(all)
	var lines []byte
	for _, file := range all {
		lines = append(lines, bytes.Join(file[1:], nil)...)
	}
	v, err := NewVerification(signer().Public())
	must(t, err)
	must(t, v.Expect(c))
	var rep Report
	if err := v.Tail(lines, &rep); err != nil || rep.Records != 18 || rep.Keys != 6 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if held, _ := v.Held(); held != 18 {
		t.Errorf("%d held", held)
	}
	if err := v.Expect(Checkpoint{Size: 17}); err == nil {
		t.Error("a log that has become shorter is let through")
	}

	split := bytes.SplitAfter(lines, []byte("\n"))
	for from := range 18 {
		_, early := leafHashes([][][]byte{slices.Insert(slices.Clone(split[:from]), 0, nil)})
		v, err := NewVerification(signer().Public())
		must(t, err)
		must(t, v.Resume(bytes.NewReader(leaves), early))
		must(t, v.Expect(c))
		rest := bytes.Join(split[from:], nil)
		var rep Report
		if err := v.Tail(rest, &rep); err != nil || rep.Records != 18-from {
			t.Fatalf("from %d: %+v, %v", from, rep, err)
		}
		// And a change there is found.
		v, err = NewVerification(signer().Public())
		must(t, err)
		must(t, v.Resume(bytes.NewReader(leaves), early))
		must(t, v.Expect(c))
		other := bytes.Replace(rest, []byte("|0|U|"), []byte("|1|U|"), 1)
		if bytes.Equal(other, rest) {
			continue // only KEY_INIT is left
		}
		if err := v.Tail(other, &rep); err == nil {
			t.Errorf("from %d: a changed record passes", from)
		}
	}
	for what, known := range map[string][]byte{"too few": leaves[:17*32], "others": append([]byte{leaves[0] ^ 1}, leaves[1:]...)} {
		v, err := NewVerification(signer().Public())
		must(t, err)
		if err := v.Resume(bytes.NewReader(known), c); err == nil {
			t.Errorf("leaf hashes are taken up: %s", what)
		}
	}
	if err := v.Tail([]byte("0|6955b900"), &rep); err == nil {
		t.Error("half a line passes")
	}
}

// BenchmarkVerify is the verification of a million records, of one file,
// against a checkpoint. cpu-s is what it took of processors, whoever else was
// using them.
func BenchmarkVerify(b *testing.B) {
	const records = 1_000_000
	f := &forger{sign: signer().Sign}
	f.boot(0x6955b900, suite.Random(keySize))
	kid := suite.Random(16)
	for f.cur.seq < records {
		f.add(0x6955b904, Record{Type: CryptoEXDSASign, Who: "U", Arg: kid})
	}
	file := f.files[0]
	_, c := leafHashes(splitLog(f.files))
	b.SetBytes(int64(len(file)))
	before := processorTime(b)
	for b.Loop() {
		if got := verifyLog(b, [][]byte{file}, signer().Public(), c, nil); got.err != nil {
			b.Fatal(got.err)
		}
	}
	b.ReportMetric((processorTime(b)-before).Seconds()/float64(b.N), "cpu-s/op")
}

// processorTime is what this process has used, whoever else is on the machine.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func TestForkErrorsName(t *testing.T) {
	for err, want := range map[error]string{
		&ForkError{3, 9}: "between record 3 and record 8",
		&CutError{3, 9}:  "from record 3 of the log on",
	} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%v", err)
		}
	}
}
