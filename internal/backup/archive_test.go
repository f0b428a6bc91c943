package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func sample() (Manifest, map[string]string) {
	content := map[string]string{
		NameDataKey: "the data key", NameRootKey: "the root key", "audit/6955b900": "# log\n", "audit/6955b900.torn": "x", NameStore: strings.Repeat("store", 5000),
	}
	m := Manifest{Format: Format, Product: "softhem test", Created: 1767225600, EID: "eid", RootKey: RootRaw, Checkpoint: "checkpoint"}
	for _, name := range []string{NameDataKey, NameRootKey, "audit/6955b900", "audit/6955b900.torn", NameStore} {
		m.Files = append(m.Files, File{name, int64(len(content[name]))})
	}
	return m, content
}

func archive(t testing.TB, m Manifest, content map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	err := Write(context.Background(), &b, m, func(name string) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(content[name])), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// What was written is what comes out, for the owner alone.
func TestArchive(t *testing.T) {
	m, content := sample()
	b := archive(t, m, content)
	dir := t.TempDir()
	got, root, err := Extract(t.Context(), bytes.NewReader(b), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.EID != m.EID || got.Created != m.Created || len(got.Files) != len(m.Files) || string(root) != content[NameRootKey] {
		t.Errorf("%+v, root key %q", got, root)
	}
	if _, err := os.Stat(filepath.Join(dir, NameRootKey)); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the root key was put beside the data without being asked")
	}
	for name, want := range content {
		if name == NameRootKey {
			continue
		}
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %v", name, err)
		}
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Error(info.Mode(), err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "theirs"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remove(dir); err == nil {
		t.Error("a folder with somebody's file was removed")
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, "theirs")), Remove(dir)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// Who has no room for an archive hears so before anything is written.
func TestNoRoomForArchive(t *testing.T) {
	m, content := sample()
	b, dir, none := archive(t, m, content), t.TempDir(), errors.New("no room")
	var asked int64
	if _, _, err := Extract(t.Context(), bytes.NewReader(b), dir, func(size int64) error { asked = size; return none }); !errors.Is(err, none) {
		t.Error(err)
	}
	var all int
	for _, c := range content {
		all += len(c)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*", "*")); err != nil || len(files) > 0 || asked != int64(all) {
		t.Errorf("asked for %d bytes of %d; %v, %v", asked, all, files, err)
	}
}

// An archive that was cut anywhere, or changed in a header, is refused.
func TestCutArchive(t *testing.T) {
	m, content := sample()
	b := archive(t, m, content)
	last := len(content[NameStore])
	end := len(b) - 1024 - (512 - last%512) // zeros after the last byte, which say nothing
	for n := 0; n < end; n += 61 {
		if _, err := Read(t.Context(), bytes.NewReader(b[:n]), discard); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut at %d of %d: %v", n, len(b), err)
		}
	}
	if _, err := Read(t.Context(), bytes.NewReader(append(bytes.Clone(b), make([]byte, maxRest+1)...)), discard); !errors.Is(err, ErrDamaged) {
		t.Errorf("an end that does not come: %v", err)
	}
}

func discard(_ *Manifest, f File, content io.Reader) error {
	n, err := io.Copy(io.Discard, content)
	if err == nil && n != f.Size {
		err = damaged("short", nil)
	}
	return orDamaged("it is cut", err)
}

// Archives that this program does not make are refused before anything of them
// is anywhere it should not be.
func TestForeignArchives(t *testing.T) {
	entry := func(w *tar.Writer, h tar.Header, content string) {
		h.Size = int64(len(content))
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag != tar.TypeReg {
			h.Size = 0
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, change := range map[string]func(m *Manifest, headers []tar.Header){
		"a path upwards":      func(m *Manifest, h []tar.Header) { m.Files[2].Name, h[2].Name = "audit/../../x", "audit/../../x" },
		"an absolute path":    func(m *Manifest, h []tar.Header) { m.Files[2].Name, h[2].Name = "/tmp/6955b900", "/tmp/6955b900" },
		"a name of its own":   func(m *Manifest, h []tar.Header) { m.Files[2].Name, h[2].Name = "audit/x", "audit/x" },
		"a file twice":        func(m *Manifest, h []tar.Header) { m.Files[3].Name, h[3].Name = m.Files[2].Name, h[2].Name },
		"another name inside": func(_ *Manifest, h []tar.Header) { h[2].Name = "audit/6955b901" },
		"a link":              func(_ *Manifest, h []tar.Header) { h[2].Typeflag, h[2].Linkname = tar.TypeSymlink, "/etc/passwd" },
		"a hard link":         func(_ *Manifest, h []tar.Header) { h[4].Typeflag, h[4].Linkname = tar.TypeLink, "/etc/passwd" },
		"a folder":            func(_ *Manifest, h []tar.Header) { h[2].Typeflag = tar.TypeDir },
		"a device":            func(_ *Manifest, h []tar.Header) { h[2].Typeflag = tar.TypeChar },
		"another length":      func(m *Manifest, _ []tar.Header) { m.Files[4].Size++ },
		"a negative length":   func(m *Manifest, _ []tar.Header) { m.Files[4].Size = -1 },
		"attributes":          func(_ *Manifest, h []tar.Header) { h[2].PAXRecords = map[string]string{"SCHILY.xattr.user.a": "b"} },
		"no store":            func(m *Manifest, _ []tar.Header) { m.Files = m.Files[:4] },
		"no log":              func(m *Manifest, _ []tar.Header) { m.Files = append(m.Files[:2], m.Files[4]) },
		"a root key too many": func(m *Manifest, _ []tar.Header) { m.RootKey = RootNone },
		"a strange root key":  func(m *Manifest, _ []tar.Header) { m.RootKey = "mine" },
		"another form":        func(m *Manifest, _ []tar.Header) { m.Format = 2 },
		"one file more":       func(*Manifest, []tar.Header) {},
	} {
		m, content := sample()
		headers := make([]tar.Header, len(m.Files))
		var texts []string
		for i, f := range m.Files {
			headers[i].Name = f.Name
			texts = append(texts, content[f.Name])
		}
		change(&m, headers)
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		head, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		entry(w, tar.Header{Name: nameManifest}, string(head))
		for i, h := range headers {
			entry(w, h, texts[i])
		}
		if name == "one file more" {
			entry(w, tar.Header{Name: "audit/6955b999"}, "more")
		}
		w.Close()
		parent := t.TempDir()
		dir := filepath.Join(parent, "a", "b")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Extract(t.Context(), &b, dir, nil); err == nil {
			t.Errorf("%s passes", name)
		}
		for _, outside := range []string{parent, filepath.Join(parent, "a")} {
			if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
				t.Errorf("%s: %v %v", name, entries, err)
			}
		}
	}
}

// Who writes an archive hears of a file that has become shorter, and of an end
// that was asked for.
func TestArchiveWriteFails(t *testing.T) {
	m, content := sample()
	open := func(name string) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(content[name][1:])), nil
	}
	if err := Write(t.Context(), io.Discard, m, open); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Write(ctx, io.Discard, m, open); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	m.Files = m.Files[1:]
	if err := Write(t.Context(), io.Discard, m, open); !errors.Is(err, ErrDamaged) {
		t.Errorf("an archive that could not be read: %v", err)
	}
}

// Whatever is taken for an archive, nothing is made but files of the few names,
// for the owner alone, in the folder it is for.
func FuzzArchive(f *testing.F) {
	m, content := sample()
	whole := archive(f, m, content)
	f.Add(whole)
	f.Add(whole[:len(whole)-1024])
	f.Add(bytes.ReplaceAll(whole, []byte("audit/6955b900"), []byte("../../6955b900")))
	m.RootKey = RootNone
	m.Files = append(m.Files[:1], m.Files[2:]...)
	f.Add(archive(f, m, content))
	parent := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := filepath.Join(parent, fmt.Sprint(os.Getpid()))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		m, _, err := Extract(context.Background(), bytes.NewReader(b), dir, nil)
		if err == nil && m.check() != nil {
			t.Error("an archive that is not one")
		}
		walkErr := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name, err := filepath.Rel(dir, path)
			if err == nil && !d.IsDir() && (!allowed(name) || name == NameRootKey || d.Type() != 0) {
				t.Errorf("it made %q, %s", name, d.Type())
			}
			return err
		})
		if walkErr != nil {
			t.Fatal(walkErr)
		}
		if err := Remove(dir); err != nil {
			t.Fatal(err)
		}
		if entries, err := os.ReadDir(parent); err != nil || len(entries) > 8 {
			t.Fatal(entries, err)
		}
	})
}
