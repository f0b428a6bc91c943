package seal

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"

	"softhem/internal/suite"
)

func TestRawRootKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "root.key")
	if err := CreateRoot(file); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o600 || info.Size() != KeySize {
		t.Fatalf("root key file: %v, %v", info, err)
	}
	key, err := LoadRoot(RootSource{File: file})
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(file); err != nil || !bytes.Equal(raw, key) || bytes.Equal(raw, make([]byte, KeySize)) {
		t.Fatalf("the file holds other bytes than the key: %v", err)
	}
	if err := CreateRoot(file); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("a second CreateRoot: %v", err)
	}
	if again, err := LoadRoot(RootSource{File: file}); err != nil || !bytes.Equal(again, key) {
		t.Fatalf("a refused CreateRoot has changed the key: %v", err)
	}
	if err := CreateRoot(filepath.Join(t.TempDir(), "none", "root.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("CreateRoot without a folder: %v", err)
	}
}

func TestRootKeyModes(t *testing.T) {
	file := write(t, "root.key", suite.Random(KeySize))
	for mode, ok := range map[fs.FileMode]bool{
		0o600: true, 0o400: true, 0o700: true,
		0o640: false, 0o604: false, 0o620: false, 0o601: false, 0o660: false, 0o644: false, 0o444: false,
	} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadRoot(RootSource{File: file})
		if ok != (err == nil) {
			t.Errorf("mode %04o: %v", mode, err)
		}
		if !ok && !strings.Contains(err.Error(), "chmod 600 "+file) {
			t.Errorf("mode %04o: the error names no next step: %v", mode, err)
		}
	}
}

func TestBadRootKeyFiles(t *testing.T) {
	key := suite.Random(KeySize)
	pass := write(t, "pass", []byte("p"))
	for name, c := range map[string]struct {
		src  RootSource
		want string
	}{
		"missing":          {RootSource{File: filepath.Join(t.TempDir(), "none")}, "no such file"},
		"folder":           {RootSource{File: t.TempDir()}, "is a folder"},
		"empty":            {RootSource{File: write(t, "k", nil)}, "is empty"},
		"31 bytes":         {RootSource{File: write(t, "k", key[:31])}, "neither 32 raw bytes"},
		"with newline":     {RootSource{File: write(t, "k", append(bytes.Clone(key), '\n'))}, "neither 32 raw bytes"},
		"huge":             {RootSource{File: write(t, "k", make([]byte, maxSecretFile+1))}, "longer than"},
		"raw, passphrase":  {RootSource{File: write(t, "k", key), PassphraseFile: pass}, "not encrypted"},
		"both ways":        {RootSource{File: write(t, "k", key), PassphraseFile: pass, Identity: pass}, "not both"},
		"broken age":       {RootSource{File: write(t, "k", []byte(ageBinary+"v1\n")), PassphraseFile: pass}, "is damaged"},
		"broken armor":     {RootSource{File: write(t, "k", []byte(ageArmor+"\n!")), PassphraseFile: pass}, "is damaged"},
		"age, nobody asks": {RootSource{File: write(t, "k", []byte(ageBinary+"v1\n"))}, "--root-key-passphrase-file"},
	} {
		got, err := LoadRoot(c.src)
		if err == nil || got != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", name, err, c.want)
		}
	}
}

func TestAgeIdentity(t *testing.T) {
	key := suite.Random(KeySize)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	idFile := write(t, "id", []byte("# a comment\n"+id.String()+"\n"))
	otherFile := write(t, "other", []byte(other.String()+"\n"))
	pass := write(t, "pass", []byte("p"))
	for name, file := range map[string]string{
		"binary":  write(t, "root.age", encrypt(t, key, id.Recipient())),
		"armored": write(t, "root.asc", armored(t, encrypt(t, key, id.Recipient()))),
	} {
		// An age file protects itself: its mode is of no interest.
		if err := os.Chmod(file, 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := LoadRoot(RootSource{File: file, Identity: idFile})
		if err != nil || !bytes.Equal(got, key) {
			t.Errorf("%s: %v", name, err)
		}
		_, err = LoadRoot(RootSource{File: file, Identity: otherFile})
		mustSay(t, err, "does not open the root key file")
		_, err = LoadRoot(RootSource{File: file, PassphraseFile: pass})
		mustSay(t, err, "give --root-key-identity instead")
	}

	file := write(t, "root.age", encrypt(t, key, id.Recipient()))
	bad := write(t, "bad", []byte("AGE-SECRET-KEY-1TOPSECRET\n"))
	_, err = LoadRoot(RootSource{File: file, Identity: bad})
	mustSay(t, err, "no file of age identities")
	if strings.Contains(err.Error(), "TOPSECRET") {
		t.Errorf("the error shows the identity: %v", err)
	}
	if err := os.Chmod(idFile, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = LoadRoot(RootSource{File: file, Identity: idFile})
	mustSay(t, err, "chmod 600 "+idFile)

	for _, content := range [][]byte{nil, key[:31], append(bytes.Clone(key), '\n')} {
		if err := os.Chmod(idFile, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = LoadRoot(RootSource{File: write(t, "k", encrypt(t, content, id.Recipient())), Identity: idFile})
		mustSay(t, err, "its content is not a root key")
	}
	cut := encrypt(t, key, id.Recipient())
	_, err = LoadRoot(RootSource{File: write(t, "k", cut[:len(cut)-1]), Identity: idFile})
	mustSay(t, err, "is damaged")
}

func TestAgePassphrase(t *testing.T) {
	key := suite.Random(KeySize)
	recipient, err := age.NewScryptRecipient("open sesame")
	if err != nil {
		t.Fatal(err)
	}
	recipient.SetWorkFactor(2)
	file := write(t, "root.age", encrypt(t, key, recipient))

	for _, content := range []string{"open sesame", "open sesame\n"} {
		got, err := LoadRoot(RootSource{File: file, PassphraseFile: write(t, "pass", []byte(content))})
		if err != nil || !bytes.Equal(got, key) {
			t.Errorf("passphrase file %q: %v", content, err)
		}
	}
	for _, content := range []string{"open sesame\n\n", "open sesame ", "wrong"} {
		_, err := LoadRoot(RootSource{File: file, PassphraseFile: write(t, "pass", []byte(content))})
		mustSay(t, err, "does not open the root key file")
	}
	_, err = LoadRoot(RootSource{File: file, PassphraseFile: write(t, "pass", []byte("\n"))})
	mustSay(t, err, "is empty")

	asked := ""
	prompt := func(answer string, err error) func(string) ([]byte, error) {
		return func(what string) ([]byte, error) { asked = what; return []byte(answer), err }
	}
	got, err := LoadRoot(RootSource{File: file, Prompt: prompt("open sesame", nil)})
	if err != nil || !bytes.Equal(got, key) || !strings.Contains(asked, file) {
		t.Errorf("asked for %q: %v", asked, err)
	}
	_, err = LoadRoot(RootSource{File: file, Prompt: prompt("wrong", nil)})
	mustSay(t, err, "the passphrase does not open")
	_, err = LoadRoot(RootSource{File: file, Prompt: prompt("", io.ErrUnexpectedEOF)})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a failed prompt: %v", err)
	}
	_, err = LoadRoot(RootSource{File: file})
	mustSay(t, err, "is encrypted")

	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	_, err = LoadRoot(RootSource{File: file, Identity: write(t, "id", []byte(id.String()))})
	mustSay(t, err, "encrypted with a passphrase")
}

func mustSay(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q in it", err, want)
	}
}

func encrypt(t *testing.T, content []byte, to age.Recipient) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func armored(t *testing.T, binary []byte) []byte {
	t.Helper()
	out := bytes.NewBufferString("\n")
	w := armor.NewWriter(out)
	if _, err := w.Write(binary); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// write puts content into a file of mode 0600 in a folder of its own.
func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func FuzzRootFile(f *testing.F) {
	id, err := age.ParseX25519Identity("AGE-SECRET-KEY-184JMZMVQH3E6U0PSL869004Y3U2NYV7R30EU99CSEDNPH02YUVFSZW44VU")
	if err != nil {
		f.Fatal(err)
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, id.Recipient())
	if err != nil {
		f.Fatal(err)
	}
	w.Write(make([]byte, KeySize))
	w.Close()
	f.Add(sealed.Bytes())
	f.Add(bytes.Repeat([]byte{1}, KeySize))
	f.Add([]byte(ageArmor + "\nYWdl\n-----END AGE ENCRYPTED FILE-----\n"))
	f.Add([]byte{})
	dir := f.TempDir() // each worker is a process and has its own
	f.Fuzz(func(t *testing.T, content []byte) {
		file, idFile := filepath.Join(dir, "k"), filepath.Join(dir, "id")
		if err := errors.Join(os.WriteFile(file, content, 0o600), os.WriteFile(idFile, []byte(id.String()), 0o600)); err != nil {
			t.Fatal(err)
		}
		for _, src := range []RootSource{{File: file}, {File: file, Identity: idFile}} {
			key, err := LoadRoot(src)
			if (err == nil) != (len(key) == KeySize) || err != nil && key != nil {
				t.Fatalf("%d bytes and %v", len(key), err)
			}
			if err == nil && src.Identity == "" && !bytes.Equal(key, content) {
				t.Fatal("the key is not what the raw file holds")
			}
		}
	})
}
