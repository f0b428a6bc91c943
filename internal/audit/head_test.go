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
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"softhem/internal/store"
	"softhem/internal/suite"
)

// vectors are those of testdata/audit.json, which this code did not make.
type vectors struct {
	Private     []byte   `json:"eid_sign_private"`
	EIDSign     []byte   `json:"eid_sign"`
	EID         []byte   `json:"eid"`
	FileID      string   `json:"file_id"`
	Header      string   `json:"header"`
	Lines       []string `json:"lines"`
	TreeSize    int64    `json:"tree_size"`
	Root        string   `json:"root"`
	Checkpoint  string   `json:"checkpoint"`
	VerifierKey string   `json:"verifier_key"`
	Roots       []string `json:"roots"`
}

func loadVectors(t testing.TB) (v vectors) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "audit.json"))
	must(t, err)
	must(t, json.Unmarshal(b, &v))
	return v
}

func (v vectors) signer(t testing.TB) *suite.Ed25519Key {
	t.Helper()
	k, err := suite.NewEd25519Key(v.Private)
	must(t, err)
	if !bytes.Equal(k.Public(), v.EIDSign) {
		t.Fatal("the vectors' key is another")
	}
	return k
}

// file is the vectors' log file.
func (v vectors) file() []byte {
	return []byte(v.Header + "\n" + strings.Join(v.Lines, "\n") + "\n")
}

func TestVectorCheckpoint(t *testing.T) {
	v := loadVectors(t)
	var tr tree
	for i, line := range v.Lines {
		tr.add([]byte(line))
		if tr.root().String() != v.Roots[i] {
			t.Errorf("root of %d records is %v, want %s", i+1, tr.root(), v.Roots[i])
		}
	}
	if tr.size != v.TreeSize || tr.root().String() != v.Root {
		t.Errorf("%d records, root %v", tr.size, tr.root())
	}
	c := Checkpoint{Origin: Origin(v.EID), Size: tr.size, Root: tr.root()}
	note, err := c.signed(v.EIDSign, v.signer(t).Sign)
	must(t, err)
	if string(note) != v.Checkpoint {
		t.Errorf("checkpoint\n%swant\n%s", note, v.Checkpoint)
	}
	back, err := ParseCheckpoint([]byte(v.Checkpoint), v.EIDSign)
	if err != nil || back != c {
		t.Errorf("read back: %+v, %v", back, err)
	}
	signs, err := verifier(c.Origin, v.EIDSign)
	must(t, err)
	if id := fmt.Sprintf("%s+%08x+", signs.Name(), signs.KeyHash()); !strings.HasPrefix(v.VerifierKey, id) {
		t.Errorf("verifier key %s, want %s", id, v.VerifierKey)
	}
}

// The log itself makes the vectors' tree when the lines go through it.
func TestVectorThroughTheLog(t *testing.T) {
	v := loadVectors(t)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, v.FileID), v.file(), 0o600))
	cfg := config(openStore(t, ""), dir)
	cfg.Sign, cfg.EIDSign, cfg.Origin = v.signer(t).Sign, v.EIDSign, Origin(v.EID)
	l := openLog(t, cfg)
	if got := l.tree.root().String(); l.tree.size != v.TreeSize || got != v.Root {
		t.Errorf("adopted %d records, root %s", l.tree.size, got)
	}
}

func TestParseCheckpoint(t *testing.T) {
	v := loadVectors(t)
	for name, text := range map[string]string{
		"nothing":        "",
		"another origin": strings.ReplaceAll(v.Checkpoint, "softhem/5", "softhem/6"),
		"no module":      strings.ReplaceAll(v.Checkpoint, "softhem/", "hardhem/"),
		"another size":   strings.Replace(v.Checkpoint, "\n13\n", "\n12\n", 1),
		"size with zero": strings.Replace(v.Checkpoint, "\n13\n", "\n013\n", 1),
		"negative size":  strings.Replace(v.Checkpoint, "\n13\n", "\n-13\n", 1),
		"another root":   strings.Replace(v.Checkpoint, "lFxp", "lFxq", 1),
		"short root":     strings.Replace(v.Checkpoint, "lFxp", "", 1),
		"no signature":   strings.SplitAfter(v.Checkpoint, "\n\n")[0],
		"too long":       v.Checkpoint + strings.Repeat("x", maxCheckpoint),
	} {
		if c, err := ParseCheckpoint([]byte(text), v.EIDSign); err == nil {
			t.Errorf("%s: taken as %+v", name, c)
		}
	}
	if _, err := ParseCheckpoint([]byte(v.Checkpoint), signer().Public()); !errors.Is(err, ErrOtherKey) {
		t.Errorf("another key: %v", err)
	}
	// A witness may add its signature, which is not ours to judge.
	cosigned := v.Checkpoint + "— witness.example " + base64.StdEncoding.EncodeToString(make([]byte, 76)) + "\n"
	if _, err := ParseCheckpoint([]byte(cosigned), v.EIDSign); err != nil {
		t.Errorf("cosigned: %v", err)
	}
}

// leavesOf reads all leaves of a log from its folder, and their tree.
func leavesOf(t testing.TB, l *Log) (all []string, tr tree) {
	t.Helper()
	for _, id := range l.Files() {
		must(t, l.eachLeaf(id, 0, 0, func(line []byte, _ int64) bool {
			all = append(all, string(line))
			tr.add(line)
			return true
		}))
	}
	return all, tr
}

func checkpointOf(t testing.TB, l *Log) Checkpoint {
	t.Helper()
	note, err := l.Checkpoint(t.Context())
	must(t, err)
	c, err := ParseCheckpoint(note, signer().Public())
	must(t, err)
	return c
}

// keptHead is the head in the store.
func keptHead(t testing.TB, st store.Store) (h head) {
	t.Helper()
	must(t, st.View(t.Context(), func(r store.Reader) error {
		b, err := r.Get(t.Context(), kindHead, idHead)
		if err != nil {
			return err
		}
		plain, err := testSealer{}.Open(string(kindHead), idHead, b)
		if err != nil {
			return err
		}
		return json.Unmarshal(plain, &h)
	}))
	return h
}

// Appends, commits, boots, restarts and crashes: the tree is that of the files.
func TestTreeFollowsTheFiles(t *testing.T) {
	dir, st := t.TempDir(), openStore(t, "")
	cfg := config(st, dir)
	l := openLog(t, cfg)
	for round := range 4 {
		must(t, l.StartBoot(t.Context()))
		if h := keptHead(t, st); h.Size != l.tree.size || h.Root != l.tree.root() || h.File != l.Current() {
			t.Errorf("after a boot %+v is kept", h)
		}
		for i := range 5 {
			must(t, l.Append(t.Context(), Record{Type: Reboot, Who: "U"}, Record{Type: RTCSet}))
			must(t, l.Commit(t.Context(), put(fmt.Sprint(round, i), "x", Record{Type: KeyImport, Who: "U"})))
		}
		c := checkpointOf(t, l)
		all, want := leavesOf(t, l)
		if c.Size != int64(len(all)) || c.Root != want.root() || c.Origin != testOrigin || len(all) != 17*(round+1) {
			t.Fatalf("round %d: checkpoint %+v of %d leaves with root %v", round, c, len(all), want.root())
		}
		switch round {
		case 0:
			abandon(l)
			l = openLog(t, cfg)
		case 1:
			must(t, l.Close(t.Context()))
			if h := keptHead(t, st); h.Size != c.Size || h.Root != c.Root {
				t.Errorf("at the end %+v is kept, not %+v", h, c)
			}
			kept, err := os.ReadFile(filepath.Join(dir, checkpointFile))
			must(t, err)
			if got, err := ParseCheckpoint(kept, signer().Public()); err != nil || got != c {
				t.Errorf("the file has %+v, %v", got, err)
			}
			l = openLog(t, cfg)
		}
		if l.RolledBack() {
			t.Fatalf("round %d: taken as rolled back", round)
		}
	}
}

// A log of before there were trees is adopted from its first record, and one
// whose tree was lost is no different.
func TestAdoption(t *testing.T) {
	dir, st := t.TempDir(), openStore(t, "")
	cfg := config(st, dir)
	l := openLog(t, cfg)
	for range 3 {
		must(t, l.StartBoot(t.Context()))
		must(t, l.Append(t.Context(), Record{Type: Reboot}))
	}
	must(t, l.Close(t.Context()))
	forget(t, st, l.Files(), true)

	l = openLog(t, cfg)
	all, want := leavesOf(t, l)
	if l.RolledBack() || len(all) != 9 || l.tree.size != 9 || l.tree.root() != want.root() {
		t.Errorf("adopted %d of %d, rolled back: %v", l.tree.size, len(all), l.RolledBack())
	}
	must(t, l.StartBoot(t.Context()))
	if got := since(t, l, l.Current()); got != boot {
		t.Errorf("the next boot has\n%s", got)
	}
	// Now it is kept: each leaf is found.
	for leaf := range int64(11) {
		all, _ := leavesOf(t, l)
		tail, err := l.Tail(t.Context(), leaf)
		if want := strings.Join(all[leaf:], "\n") + "\n"; err != nil || string(tail) != want {
			t.Errorf("tail %d: %v\n%swant\n%s", leaf, err, tail, want)
		}
	}
}

// forget removes what is kept of the tree.
func forget(t testing.TB, st store.Store, ids []string, withHead bool) {
	t.Helper()
	must(t, st.Update(t.Context(), func(tx store.Tx) error {
		for _, id := range ids {
			if err := tx.Delete(t.Context(), kindFile, id); err != nil {
				return err
			}
		}
		if !withHead {
			return nil
		}
		return tx.Delete(t.Context(), kindHead, idHead)
	}))
}

// Whatever is put back, cut or changed behind a stopped module is noticed when
// it starts, logged, and said once.
func TestRollbackIsNoticed(t *testing.T) {
	type scene struct {
		dir string
		st  store.Store
		ids []string // a, b, c: three boots of five records each
	}
	file := func(s scene, i int) string { return filepath.Join(s.dir, s.ids[i]) }
	cutLines := func(t *testing.T, path string, n int) {
		b, err := os.ReadFile(path)
		must(t, err)
		lines := bytes.SplitAfter(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
		must(t, os.WriteFile(path, bytes.Join(lines[:len(lines)-n], nil), 0o600))
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, s scene)
		report string // ID0… are the files, SIZE the bytes of the first two
		boots  int    // of report; 0 stands for none
	}{
		"nothing":                   {change: func(*testing.T, scene) {}},
		"the last records cut":      {func(t *testing.T, s scene) { cutLines(t, file(s, 2), 2) }, "short ID2 15 13", 1},
		"the last file gone":        {func(t *testing.T, s scene) { must(t, os.Remove(file(s, 2))) }, "short ID2 15 10", 1},
		"the last two files gone":   {func(t *testing.T, s scene) { must(t, os.Remove(file(s, 2))); must(t, os.Remove(file(s, 1))) }, "short ID2 15 5", 1},
		"all files gone":            {func(t *testing.T, s scene) { os.Remove(file(s, 2)); os.Remove(file(s, 1)); os.Remove(file(s, 0)) }, "short ID2 15 0", 1},
		"a file in the middle gone": {func(t *testing.T, s scene) { must(t, os.Remove(file(s, 1))) }, "files ID2 2 1", 1},
		"a finished file cut":       {func(t *testing.T, s scene) { cutLines(t, file(s, 1), 1) }, "bytes ID2 BYTES CUT", 1},
		"a store of before the boot": {func(t *testing.T, s scene) {
			forget(t, s.st, s.ids[2:], false)
			h := keptHead(t, s.st)
			h.File, h.Size, h.Root = s.ids[1], 10, rootAt(t, s.dir, s.ids, 10)
			keepHeadAs(t, s.st, h)
		}, "ahead ID2 10 0", 1},
		"another log of the same size": {func(t *testing.T, s scene) {
			h := keptHead(t, s.st)
			h.Root[0] ^= 1
			keepHeadAs(t, s.st, h)
		}, "other ID2 15 15", 1},
		"a head behind the log": {change: func(t *testing.T, s scene) { // as after a crash
			h := keptHead(t, s.st)
			h.Size, h.Root = 12, rootAt(t, s.dir, s.ids, 12)
			keepHeadAs(t, s.st, h)
		}},
		"a head of the boot before": {change: func(t *testing.T, s scene) { // a crash between name and head
			h := keptHead(t, s.st)
			h.File, h.Size, h.Root = s.ids[1], 10, rootAt(t, s.dir, s.ids, 10)
			keepHeadAs(t, s.st, h)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := scene{dir: t.TempDir(), st: openStore(t, "")}
			var logged bytes.Buffer
			cfg := config(s.st, s.dir)
			cfg.Logger = newTextLogger(&logged)
			l := openLog(t, cfg)
			for range 3 {
				must(t, l.StartBoot(t.Context()))
				for range 3 {
					must(t, l.Append(t.Context(), Record{Type: Reboot, Who: "U"}))
				}
			}
			must(t, l.Close(t.Context()))
			s.ids = l.Files()
			size := func(i int) int {
				info, err := os.Stat(file(s, i))
				if err != nil {
					return 0
				}
				return int(info.Size())
			}
			before := size(0) + size(1)
			c.change(t, s)
			want := strings.NewReplacer("ID2", s.ids[2], "BYTES", fmt.Sprint(before), "CUT", fmt.Sprint(size(0)+size(1))).Replace(c.report)

			for range 2 { // a crash before the boot does not lose the report
				logged.Reset()
				l = openLog(t, cfg)
				if l.RolledBack() != (want != "") || strings.Contains(logged.String(), "THE AUDIT LOG IS NOT") != (want != "") {
					t.Errorf("noticed: %v, logged: %s", l.RolledBack(), &logged)
				}
				abandon(l)
			}
			l = openLog(t, cfg)
			must(t, l.StartBoot(t.Context()))
			wantRecords := boot
			if want != "" {
				wantRecords += fmt.Sprintf("NON_SECURE_STATE ERROR \"\" %q\n", want)
			}
			if got := since(t, l, l.Current()); got != wantRecords {
				t.Errorf("the next boot has\n%swant\n%s", got, wantRecords)
			}
			// It serves on, over the log that is there.
			must(t, l.Append(t.Context(), Record{Type: Reboot}))
			if _, tr := leavesOf(t, l); name != "a finished file cut" && name != "a file in the middle gone" && checkpointOf(t, l).Root != tr.root() {
				t.Error("the checkpoint is not of the files")
			}
			must(t, l.Close(t.Context()))
			l = openLog(t, cfg)
			if l.RolledBack() {
				t.Error("noticed twice")
			}
		})
	}
}

// rootAt is the root over the first n records of the files.
func rootAt(t testing.TB, dir string, ids []string, n int64) tlog.Hash {
	t.Helper()
	var tr tree
	for _, id := range ids {
		b, err := os.ReadFile(filepath.Join(dir, id))
		must(t, err)
		for i, line := range bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n")) {
			if i > 0 && tr.size < n {
				tr.add(line)
			}
		}
	}
	return tr.root()
}

func keepHeadAs(t testing.TB, st store.Store, h head) {
	t.Helper()
	b, err := json.Marshal(h)
	must(t, err)
	must(t, st.Update(t.Context(), func(tx store.Tx) error {
		return tx.Put(t.Context(), kindHead, idHead, testSealer{}.Seal(string(kindHead), idHead, b))
	}))
}

// What is kept comes after so many records, and so long after the first.
func TestCheckpointIntervals(t *testing.T) {
	wait := func(t *testing.T, st store.Store, size int64) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); keptHead(t, st).Size != size; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d records are kept, want %d", keptHead(t, st).Size, size)
			}
		}
	}
	for name, set := range map[string]func(*Config){
		"records": func(c *Config) { c.CheckpointRecords, c.CheckpointInterval = 10, time.Hour },
		"time":    func(c *Config) { c.CheckpointInterval = 50 * time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			st := openStore(t, "")
			cfg := config(st, t.TempDir())
			set(&cfg)
			l := openLog(t, cfg)
			must(t, l.StartBoot(t.Context()))
			for size := int64(12); size <= 52; size += 10 {
				for range 5 {
					must(t, l.Append(t.Context(), Record{Type: Reboot}, Record{Type: Reboot}))
				}
				wait(t, st, size)
			}
		})
	}
}

// Nobody is told of a record that a crash could still take away.
func TestCheckpointIsOfSyncedRecords(t *testing.T) {
	for what, ask := range map[string]func(*Log) error{
		"Checkpoint": func(l *Log) error { _, err := l.Checkpoint(context.Background()); return err },
		"Tail":       func(l *Log) error { _, err := l.Tail(context.Background(), 0); return err },
	} {
		dir := newFaultyFolder()
		cfg := config(openStore(t, ""), "")
		cfg.Durability = Relaxed
		l, err := open(t.Context(), cfg, dir)
		must(t, err)
		must(t, l.StartBoot(t.Context()))
		must(t, l.Append(t.Context(), Record{Type: Reboot}))
		f := dir.files[l.Current()]
		if err := ask(l); err != nil || f.synced.Load() != l.seg.end {
			t.Errorf("%s: %v, synced up to %d of %d", what, err, f.synced.Load(), l.seg.end)
		}
		must(t, l.Append(t.Context(), Record{Type: Reboot}))
		dir.onSync = func() error { return os.ErrInvalid }
		if err := ask(l); !errors.Is(err, ErrBroken) {
			t.Errorf("%s although it cannot be synced: %v", what, err)
		}
		l.Close(t.Context())
	}
}
