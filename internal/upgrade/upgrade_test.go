package upgrade

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"softhem/internal/suite"
)

func key(t testing.TB, seed byte) *suite.Ed25519Key {
	t.Helper()
	k, err := suite.NewEd25519Key(bytes.Repeat([]byte{seed}, suite.Ed25519Seed))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func signed(t testing.TB, payload []byte, k *suite.Ed25519Key) []byte {
	t.Helper()
	footer, err := Sign(bytes.NewReader(payload), k)
	if err != nil {
		t.Fatal(err)
	}
	return append(bytes.Clone(payload), footer...)
}

func zipped(t testing.TB, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err1 := z.Write(content)
	if err := errors.Join(err1, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type entry struct {
	name    string
	content string
	kind    byte
	link    string
}

func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Typeflag: e.kind, Linkname: e.link, Size: int64(len(e.content))}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		_, err := io.WriteString(w, "")
		err = errors.Join(err, w.WriteHeader(h))
		if h.Size > 0 {
			_, err2 := io.WriteString(w, e.content)
			err = errors.Join(err, err2)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A signature is that of RFC 8032's plain Ed25519 over the digest: this one was made
// by openssl pkeyutl -sign -rawin over the output of openssl dgst -sha512 -binary.
func TestSignatureIsOpenSSLs(t *testing.T) {
	public, err1 := base64.StdEncoding.DecodeString("1JFjYNrVGSwT9kfyPfTJ7b8o6qTav1CpXLVR1bCosIY=")
	footer, err2 := base64.StdEncoding.DecodeString("Ph1bK5Ru1e7pmcnZj/HeEW8gXEiDUJwGRQTLg9DuMlKg7BSoAYkOBSc23VlkMLi1F3EbG3VWnXI792w2pJbIAw==")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	image := append([]byte("what is signed\n"), footer...)
	if _, err := verify(bytes.NewReader(image), int64(len(image)), [][]byte{public}); err != nil {
		t.Error(err)
	}
}

func TestVerify(t *testing.T) {
	payload := []byte("a program")
	good := signed(t, payload, key(t, 1))
	check := func(image []byte, keys ...[]byte) error {
		_, err := verify(bytes.NewReader(image), int64(len(image)), keys)
		return err
	}
	mine, other := key(t, 1).Public(), key(t, 2).Public()
	if err := check(good, other, mine); err != nil {
		t.Error(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if err := check(bad, mine); !errors.Is(err, ErrImage) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	for name, err := range map[string]error{
		"another key": check(good, other), "no key": check(good), "a byte more": check(append(bytes.Clone(good), 0), mine),
		"signature alone": check(good[len(payload):], mine), "empty": check(nil, mine), "signed twice": check(append(bytes.Clone(good), good[len(payload):]...), mine),
		// A signature of the payload itself is one of something else.
		"not prehashed": check(append(bytes.Clone(payload), key(t, 1).Sign(payload)...), mine),
	} {
		if !errors.Is(err, ErrImage) && !errors.Is(err, ErrShort) {
			t.Errorf("%s: %v", name, err)
		}
	}
	got, err := verify(bytes.NewReader(good), int64(len(good)), [][]byte{mine})
	if err != nil {
		t.Fatal(err)
	}
	if read, err := io.ReadAll(got); err != nil || !bytes.Equal(read, payload) {
		t.Errorf("the payload is %q, %v", read, err)
	}
}

// Firmware that is a bomb is stopped, whoever has signed it, and so is what is no
// program.
func TestThreat_T121_FirmwareIsBounded(t *testing.T) {
	program := bytes.Repeat([]byte("\x7fELF and so on"), 1000)
	for name, payload := range map[string][]byte{"plain": program, "compressed": zipped(t, program)} {
		var out bytes.Buffer
		if _, err := expand(&out, bytes.NewReader(payload)); err != nil || !bytes.Equal(out.Bytes(), program) {
			t.Errorf("%s: %d bytes, %v", name, out.Len(), err)
		}
	}
	bomb := bytes.Repeat(zipped(t, make([]byte, 8<<20)), 40) // RFC 1952 section 2.2: one after the other
	if len(bomb) > MaxImage {
		t.Fatal("the bomb is too large to be one")
	}
	page := archive(t, entry{name: "index.html", content: "x"})
	whole := zipped(t, program)
	for name, payload := range map[string][]byte{
		"a bomb": bomb, "an archive": page, "an archive, compressed": zipped(t, page), "empty": nil, "compressed nothing": zipped(t, nil),
		"cut off": whole[:len(whole)-5], "no gzip": {0x1f, 0x8b, 1, 2, 3},
	} {
		n, err := expand(io.Discard, bytes.NewReader(payload))
		if !errors.Is(err, ErrImage) || n > maxProgram+1 {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
}

// No name in an archive means a place outside of it, nothing in it is anything but a
// file, and it opens to no more than it is long.
func TestThreat_T122_ArchivesAreHarmless(t *testing.T) {
	page := entry{name: "index.html", content: "<html>"}
	f, err := readArchive(bytes.NewReader(archive(t, page, entry{name: "./js/", kind: tar.TypeDir}, entry{name: "./js/app.js", content: "1"}, entry{name: "js/index.html", content: "2"})))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/": "<html>", "/index.html": "<html>", "/js/app.js": "1", "/js/": "2"} {
		if _, content, ok := f.Get(path); !ok || string(content) != want {
			t.Errorf("%s: %q %v", path, content, ok)
		}
	}
	for _, path := range []string{"", "js/app.js", "/js", "//", "/../index.html", "/./index.html", "/js/../index.html", "/none", "/INDEX.html"} {
		if _, _, ok := f.Get(path); ok {
			t.Errorf("%q is there", path)
		}
	}
	many := []entry{page}
	for i := range maxFiles {
		many = append(many, entry{name: fmt.Sprintf("d/%d", i)})
	}
	cut := archive(t, page, entry{name: "a", content: strings.Repeat("a", 5000)})
	for name, a := range map[string][]byte{
		"no index": archive(t, entry{name: "a.html"}), "too many": archive(t, many...), "empty": archive(t), "nothing": nil, "cut off": cut[:3000],
		"compressed": zipped(t, archive(t, page)), "a file twice": archive(t, page, page), "a file twice, spelled otherwise": archive(t, page, entry{name: "./index.html"}),
		"sparse": sparse(t),
	} {
		if _, err := readArchive(bytes.NewReader(a)); !errors.Is(err, ErrImage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []entry{
		{name: "/etc/passwd"}, {name: "../x"}, {name: "a/../../x"}, {name: "a/../x"}, {name: "..", kind: tar.TypeDir}, {name: "/", kind: tar.TypeDir}, {name: "a//b"}, {name: "././a"},
		{name: `a\b`}, {name: `..\x`}, {name: "a\nb"}, {name: "\x7fELF"}, {name: "\x1f\x8b"}, {name: "a/."}, {name: "."}, {name: "\xff"}, {name: strings.Repeat("a/", 200) + "b"},
		{name: "link", kind: tar.TypeSymlink, link: "/etc/passwd"}, {name: "link", kind: tar.TypeLink, link: "index.html"},
		{name: "dev", kind: tar.TypeChar}, {name: "dev", kind: tar.TypeBlock}, {name: "pipe", kind: tar.TypeFifo},
	} {
		if _, err := readArchive(bytes.NewReader(archive(t, page, bad))); !errors.Is(err, ErrImage) {
			t.Errorf("%q of type %q: %v", bad.name, bad.kind, err)
		}
	}
}

// sparse is an archive of a file of a tebibyte, all of it a hole (GNU, old format).
func sparse(t *testing.T) []byte {
	t.Helper()
	a := archive(t, entry{name: "index.html"}, entry{name: "hole"})
	h := a[512:1024]
	h[156] = 'S'
	copy(h[257:265], "ustar  \x00")
	copy(h[386:398], "00000000000\x00")                                // its one piece begins at 0
	copy(h[398:410], "00000000000\x00")                                // and has no bytes
	copy(h[483:495], []byte{0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0}) // its length, base 256
	copy(h[148:156], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	r := tar.NewReader(bytes.NewReader(a))
	for range 2 {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("the archive is not one: %v", err)
		}
		if h.Name == "hole" && h.Size < 1<<32 {
			t.Fatalf("the hole has %d bytes", h.Size)
		}
	}
	return a
}

// An image is a program or a console, and never both, whatever its bytes.
func FuzzImages(f *testing.F) {
	page := archive(f, entry{name: "index.html", content: "x"})
	for _, seed := range [][]byte{page, zipped(f, page), zipped(f, []byte("#!/bin/sh")), []byte("\x7fELF"), nil, archive(f, entry{name: "index.html"}, entry{name: "a/b", content: "c"})} {
		f.Add(seed, byte(0))
		f.Add(signed(f, seed, key(f, 1)), byte(1))
	}
	mine := [][]byte{key(f, 1).Public()}
	f.Fuzz(func(t *testing.T, image []byte, how byte) {
		payload, err := verify(bytes.NewReader(image), int64(len(image)), mine)
		if err == nil { // nobody makes a signature by chance: it is one of the seeds
			if image, err = io.ReadAll(payload); err != nil {
				t.Fatal(err)
			}
		}
		files, notConsole := readArchive(bytes.NewReader(image))
		if len(image) < 64<<10 { // what opens to a lot takes its time
			if _, err := expand(io.Discard, bytes.NewReader(image)); err == nil && notConsole == nil {
				t.Fatal("both a program and a console")
			}
		}
		if notConsole != nil {
			return
		}
		total := 0
		for name, content := range files.files {
			total += len(content)
			if strings.HasPrefix(name, "/") || strings.Contains(name, "..") && !filepath.IsLocal(name) || strings.ContainsAny(name, "\\\x00") {
				t.Fatalf("a file called %q", name)
			}
			if _, got, ok := files.Get("/" + name); !ok || !bytes.Equal(got, content) {
				t.Fatalf("%q is not found", name)
			}
		}
		if total > len(image) {
			t.Fatalf("%d bytes out of %d", total, len(image))
		}
	})
}

func folder(t *testing.T, dir string, change func(*Config)) *Folder {
	t.Helper()
	cfg := Config{Dir: dir, Keys: [][]byte{key(t, 1).Public()}, Version: "1.0.0", Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	f, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// keep uploads an image and records that.
func keep(t *testing.T, f *Folder, k Kind, image []byte) {
	t.Helper()
	r, err := f.Receive(k, int64(len(image)), bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	recorded(t)(r.Keep("U"))
}

func recorded(t *testing.T) func(*Change, error) {
	return func(c *Change, err error) {
		t.Helper()
		if err == nil {
			err = c.Recorded()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// install uploads, checks and installs.
func install(t *testing.T, f *Folder, k Kind, image []byte) {
	t.Helper()
	keep(t, f, k, image)
	_, check, err := f.Check(k)
	if err != nil {
		t.Fatal(err)
	}
	if err := check.Run(); err != nil {
		t.Fatal(err)
	}
	check.End(true)
	recorded(t)(f.Install(k, "U"))
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("others can look into %s: %v %v", e.Name(), info.Mode(), err)
		}
		all = append(all, e.Name())
	}
	return all
}

// What was uploaded outlives the process and has to be checked again; what a crash
// has left in between goes.
func TestFolderOverRestarts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "upgrade")
	f := folder(t, dir, nil)
	image := signed(t, []byte("#!/bin/sh"), key(t, 1))
	if _, _, err := f.Check(Firmware); !errors.Is(err, ErrNothing) {
		t.Errorf("at first: %v", err)
	}
	keep(t, f, Firmware, signed(t, []byte("an earlier one"), key(t, 1)))
	keep(t, f, Firmware, image)
	if got := names(t, dir); len(got) != 2 {
		t.Errorf("the folder has %v", got)
	}
	for _, leftover := range []string{"fw.part", "ui.part", "state.json.new", "fw-00000000000000000000000000000000", "hem.new"} {
		if err := os.WriteFile(filepath.Join(dir, leftover), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f = folder(t, dir, nil)
	if got := names(t, dir); len(got) != 2 {
		t.Errorf("after a crash the folder has %v", got)
	}
	progress, check, err := f.Check(Firmware)
	if err != nil || progress != Started {
		t.Fatalf("after a restart: %v, %v", progress, err)
	}
	if progress, _, err := f.Check(Firmware); err != nil || progress != Running {
		t.Errorf("meanwhile: %v, %v", progress, err)
	}
	if _, err := f.Receive(Firmware, 100, strings.NewReader("")); !errors.Is(err, ErrBusy) {
		t.Errorf("an upload meanwhile: %v", err)
	}
	if _, err := f.Install(Firmware, ""); !errors.Is(err, ErrBusy) {
		t.Errorf("an installation meanwhile: %v", err)
	}
	err = check.Run()
	check.End(err == nil)
	if progress, _, err := f.Check(Firmware); err != nil || progress != Verified {
		t.Errorf("at the end: %v, %v", progress, err)
	}
	// The next upload is not verified because this one was.
	keep(t, f, Firmware, signed(t, []byte("a stranger's"), key(t, 2)))
	if _, err := f.Install(Firmware, ""); !errors.Is(err, ErrNotVerified) {
		t.Errorf("what was not checked: %v", err)
	}
}

// A change that was not recorded when the power went is reported at the next start;
// one that cannot be recorded is taken back.
func TestReports(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "upgrade")
	f := folder(t, dir, nil)
	image := signed(t, []byte("#!/bin/sh"), key(t, 1))
	r, err := f.Receive(Firmware, int64(len(image)), bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Keep("U"); err != nil {
		t.Fatal(err)
	}
	// Here it ended.
	f = folder(t, dir, nil)
	reports := f.Reports()
	if len(reports) != 1 || reports[0] != (Report{"upload_fw", r.ID, true, "U"}) {
		t.Fatalf("reports %v", reports)
	}
	if err := f.Reported(reports); err != nil {
		t.Fatal(err)
	}
	if f = folder(t, dir, nil); len(f.Reports()) != 0 {
		t.Errorf("reported again: %v", f.Reports())
	}
	other := signed(t, []byte("another"), key(t, 1))
	if r, err = f.Receive(Firmware, int64(len(other)), bytes.NewReader(other)); err != nil {
		t.Fatal(err)
	}
	c, err := r.Keep("U")
	if err == nil {
		err = c.Undo()
	}
	r.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, check, err := f.Check(Firmware); err != nil || check.ID != idOf(sum(image)) {
		t.Errorf("after taking it back: %v, %v", check, err)
	}
	if got := names(t, dir); len(got) != 2 || len(f.Reports()) != 0 {
		t.Errorf("after taking it back: %v, %v", got, f.Reports())
	}
}

func sum(b []byte) []byte {
	h := suite.NewSHA512()
	h.Write(b)
	return h.Sum(nil)
}

// A state that no program wrote is not guessed at.
func TestDamagedState(t *testing.T) {
	for _, text := range []string{"", "{", "[]", `{"firmware":"../../bin/sh"}`, `{"console":"x"}`, `{"trial":{"image":"/"}}`, `{"uploads":{"fw":"../x"}}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), stateFile) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Without a data folder uploads go when the module does.
func TestFolderInMemory(t *testing.T) {
	f := folder(t, "", nil)
	keep(t, f, Firmware, signed(t, []byte("#!/bin/sh"), key(t, 1)))
	dir := f.dir
	if got := names(t, dir); len(got) != 2 {
		t.Errorf("the folder has %v", got)
	}
	_, check, err := f.Check(Firmware)
	if err != nil {
		t.Fatal(err)
	}
	err = check.Run()
	check.End(err == nil)
	if _, err := f.Install(Firmware, ""); !errors.Is(err, ErrMemory) {
		t.Errorf("an installation: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
}

// A wipe takes what is on its way, and leaves what was installed.
func TestForget(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "upgrade")
	if err := Forget(dir); err != nil {
		t.Fatal(err)
	}
	f := folder(t, dir, nil)
	install(t, f, Console, signed(t, archive(t, entry{name: "index.html", content: "x"}), key(t, 1)))
	install(t, f, Firmware, signed(t, []byte("#!/bin/sh"), key(t, 1)))
	keep(t, f, Firmware, signed(t, []byte("another"), key(t, 1)))
	if err := Forget(dir); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); len(got) != 2 {
		t.Errorf("the folder has %v", got)
	}
	if folder(t, dir, nil).Console() == nil {
		t.Error("the console is gone")
	}
}

// An upload of the largest size goes to disk in pieces: it takes no more memory than a
// small one.
func TestThreat_T123_UploadsTakeLittleMemory(t *testing.T) {
	f := folder(t, filepath.Join(t.TempDir(), "upgrade"), nil)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := f.Receive(Firmware, MaxImage, zeros{})
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("16 MiB took %d bytes of memory", took)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// After a wipe the folder is another module's. What was under way in the old one comes to
// nothing there, and takes nothing from what the new one is doing.
func TestThreat_T201_UploadsEndWithTheirModule(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "upgrade")
	old := folder(t, dir, nil)
	keep(t, old, Console, signed(t, []byte("waits for its check"), key(t, 1)))
	arrived, err := old.Receive(Firmware, 100, strings.NewReader(strings.Repeat("a", 100)))
	if err != nil {
		t.Fatal(err)
	}
	body, feed := io.Pipe()
	failed := make(chan error, 1)
	made, err := old.Receive(Console, 100, strings.NewReader(""))
	if !errors.Is(err, ErrBusy) {
		t.Fatal(made, err)
	}
	if err := errors.Join(old.Close(), Forget(dir)); err != nil {
		t.Fatal(err)
	}

	fresh := folder(t, dir, nil)
	go func() {
		r, err := fresh.Receive(Firmware, 100, body)
		if err == nil {
			defer r.Close()
			var c *Change
			if c, err = r.Keep("M"); err == nil {
				err = c.Recorded()
			}
		}
		failed <- err
	}()
	if _, err := feed.Write(make([]byte, 50)); err != nil {
		t.Fatal(err)
	}
	if _, err := arrived.Keep("U"); !errors.Is(err, ErrClosed) {
		t.Errorf("an upload to a module that is gone: %v", err)
	}
	arrived.Close()
	if _, err := old.Receive(Firmware, 100, strings.NewReader(strings.Repeat("a", 100))); !errors.Is(err, ErrClosed) {
		t.Errorf("another: %v", err)
	}
	if err := old.Reported(nil); !errors.Is(err, ErrClosed) {
		t.Errorf("a change: %v", err)
	}
	if _, err := feed.Write(make([]byte, 50)); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err != nil {
		t.Errorf("the upload to the fresh module: %v", err)
	}
	if _, _, err := folder(t, dir, nil).Check(Console); !errors.Is(err, ErrNothing) {
		t.Errorf("what was uploaded before the wipe: %v", err)
	}
	if got := names(t, dir); len(got) != 2 {
		t.Errorf("the folder has %v", got)
	}
}
