package seal

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"softhem/internal/suite"
)

// A safe is a data key, sealed with a root key that is kept in some way.
type safe struct {
	dir    string
	src    RootSource
	root   Secret
	s      *Sealer
	sealed []byte // of the record kind/id
	old    []byte // the root key's file at first
}

// safes are one for each way to keep a root key.
func safes(t *testing.T) map[string]*safe {
	t.Helper()
	id, err1 := age.GenerateX25519Identity()
	hybrid, err2 := age.GenerateHybridIdentity()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	all := make(map[string]*safe)
	add := func(name string, keep func(root Secret) RootSource) {
		root := Secret(suite.Random(KeySize))
		b := &safe{dir: t.TempDir(), src: keep(root), root: root}
		var err error
		if b.s, err = Create(b.dir, root); err != nil {
			t.Fatal(err)
		}
		b.sealed = b.s.Seal("kind", "id", []byte("what is sealed"))
		if b.old, err = os.ReadFile(b.src.File); err != nil {
			t.Fatal(err)
		}
		all[name] = b
	}
	add("raw", func(root Secret) RootSource { return RootSource{File: write(t, "root.key", root)} })
	add("identity", func(root Secret) RootSource {
		return RootSource{File: write(t, "root.age", encrypt(t, root, id.Recipient())), Identity: write(t, "id", []byte(id.String()))}
	})
	add("hybrid identity", func(root Secret) RootSource {
		return RootSource{File: write(t, "root.age", encrypt(t, root, hybrid.Recipient())), Identity: write(t, "id", []byte(hybrid.String()))}
	})
	return all
}

// opens checks that a root key opens what was sealed.
func (b *safe) opens(t *testing.T, root Secret) {
	t.Helper()
	s, err := Open(b.dir, root)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := s.Open("kind", "id", b.sealed); err != nil || string(plain) != "what is sealed" {
		t.Errorf("%q, %v", plain, err)
	}
}

// tidy checks that nothing is left beside the root key, and that it opens by
// itself.
func (b *safe) tidy(t *testing.T) Secret {
	t.Helper()
	if _, err := os.Lstat(b.src.File + nextSuffix); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a second root key is left: %v", err)
	}
	root, err := LoadRoot(b.src)
	if err != nil {
		t.Fatal(err)
	}
	b.opens(t, root)
	return root
}

// A new root key opens everything, the old one nothing; the way it is kept, and
// the file with its mode, stay.
func TestRekey(t *testing.T) {
	for name, b := range safes(t) {
		t.Run(name, func(t *testing.T) {
			oldSeal, err := os.ReadFile(filepath.Join(b.dir, dataKeyFile))
			if err != nil {
				t.Fatal(err)
			}
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(b.src.File, link); err != nil {
				t.Fatal(err)
			}
			before, err := os.Stat(b.src.File)
			if err != nil {
				t.Fatal(err)
			}
			named := b.src
			named.File = link
			k, err := BeginRekey(named, b.root, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := BeginRekey(named, b.root, nil); err == nil {
				t.Error("two at the same time")
			}
			key := slices.Clone(k.Key())
			if err := errors.Join(b.s.Rewrap(key), k.Finish()); err != nil {
				t.Fatal(err)
			}
			now := b.tidy(t)
			if !bytes.Equal(now, key) || bytes.Equal(now, b.root) {
				t.Error("the file has another key")
			}
			after, err := os.Stat(b.src.File)
			if err != nil || !os.SameFile(before, after) || after.Mode() != 0o600 {
				t.Errorf("it is another file: %v, %v", after.Mode(), err)
			}
			if _, err := Open(b.dir, b.root); !errors.Is(err, ErrWrongRootKey) {
				t.Errorf("the old root key: %v", err)
			}
			// The sealer in use goes on with the same data key.
			if plain, err := b.s.Open("kind", "id", b.sealed); err != nil || string(plain) != "what is sealed" {
				t.Errorf("%q, %v", plain, err)
			}
			for _, dir := range []string{b.dir, filepath.Dir(b.src.File)} {
				files, err := filepath.Glob(filepath.Join(dir, "*"))
				if err != nil || len(files) == 0 {
					t.Fatal(err)
				}
				for _, file := range files {
					content, err := os.ReadFile(file)
					if err != nil || bytes.Contains(content, b.old[len(b.old)-32:]) || bytes.Contains(content, oldSeal[29:61]) {
						t.Errorf("%s has what was before: %v", file, err)
					}
				}
			}
		})
	}
}

// T156 of docs/threat-model.md: cut off after any of its steps, and with the root
// key's file written to any part, a change of the root key leaves a folder that
// opens, and is finished or undone when it does.
func TestThreat_T156_RekeyCutOffAnywhere(t *testing.T) {
	type cut struct {
		name     string
		finished bool
		at       func(b *safe, k *Rekeying) error
	}
	written := func(part int) func(b *safe, k *Rekeying) error {
		return func(b *safe, k *Rekeying) error {
			if err := b.s.Rewrap(k.Key()); err != nil {
				return err
			}
			_, err := k.at.WriteAt(k.content[:len(k.content)*part/4], 0)
			return err
		}
	}
	cuts := []cut{
		{"after the new key", false, func(*safe, *Rekeying) error { return nil }},
		{"in the new data key", false, func(b *safe, _ *Rekeying) error {
			return os.WriteFile(filepath.Join(b.dir, newKeyFile), []byte("HEMK"), 0o600)
		}},
		{"after the data key", true, written(0)},
		{"a quarter", true, written(1)},
		{"half", true, written(2)},
		{"three quarters", true, written(3)},
		{"not cut to its length", true, written(4)},
		{"before the second is gone", true, func(b *safe, k *Rekeying) error {
			return errors.Join(b.s.Rewrap(k.Key()), overwriteWith(k.at, k.content))
		}},
		{"old file lost", true, func(b *safe, k *Rekeying) error {
			return errors.Join(b.s.Rewrap(k.Key()), os.Truncate(b.src.File, 0))
		}},
	}
	for i, c := range cuts {
		for name, b := range safes(t) {
			t.Run(c.name+", "+name, func(t *testing.T) {
				k, err := BeginRekey(b.src, b.root, nil)
				if err != nil {
					t.Fatal(err)
				}
				key := slices.Clone(k.Key())
				if err := errors.Join(c.at(b, k), k.Leave()); err != nil {
					t.Fatal(err)
				}
				if i == len(cuts)-2 { // and the overwriting of the second was begun
					if err := os.WriteFile(b.src.File+nextSuffix, suite.Random(20), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				root, told, unfinished, err := LoadSettled(b.dir, b.src)
				if err != nil || unfinished != nil || told == "" {
					t.Fatalf("told %q, unfinished %v, %v", told, unfinished, err)
				}
				want := b.root
				if c.finished {
					want = key
				}
				if !bytes.Equal(root, want) {
					t.Error("it is the other root key")
				}
				b.opens(t, root)
				if again := b.tidy(t); !bytes.Equal(again, root) {
					t.Error("the file has the other root key")
				}
				// And it can be changed again.
				k, err = BeginRekey(b.src, root, nil)
				if err == nil {
					err = errors.Join(b.s.Rewrap(k.Key()), k.Finish())
				}
				if err != nil {
					t.Fatal(err)
				}
				b.tidy(t)
			})
		}
	}
}

// With a passphrase that is asked for, somebody has to say what the new one is; a
// start after a cut takes either, and asks twice only if it has to.
func TestRekeyWithPassphrases(t *testing.T) {
	root := Secret(suite.Random(KeySize))
	easy, err := age.NewScryptRecipient("the old words")
	if err != nil {
		t.Fatal(err)
	}
	easy.SetWorkFactor(2)
	b := &safe{dir: t.TempDir(), src: RootSource{File: write(t, "root.age", encrypt(t, root, easy))}, root: root}
	if b.s, err = Create(b.dir, root); err != nil {
		t.Fatal(err)
	}
	b.sealed = b.s.Seal("kind", "id", []byte("what is sealed"))
	b.src.Prompt = func(string) ([]byte, error) { return nil, errors.New("nobody is to be asked") }
	if _, err := BeginRekey(b.src, root, nil); !errors.Is(err, ErrWantsPassphrase) {
		t.Fatal(err)
	}
	k, err := BeginRekey(b.src, root, []byte("the new words"))
	if err != nil {
		t.Fatal(err)
	}
	cheap, err := age.NewScryptRecipient("the new words") // a second less each time it is opened
	if err != nil {
		t.Fatal(err)
	}
	cheap.SetWorkFactor(2)
	newFile := encrypt(t, k.Key(), cheap)
	if err := errors.Join(b.s.Rewrap(k.Key()), k.Leave()); err != nil { // cut here
		t.Fatal(err)
	}
	oldFile, err := os.ReadFile(b.src.File)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		answers []string
		asked   int
	}{
		"the new one": {[]string{"the new words"}, 1},
		"the old one": {[]string{"the old words", "the new words"}, 2},
	} {
		write := func(path string, content []byte) {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(b.src.File, oldFile)
		write(b.src.File+nextSuffix, newFile)
		asked := 0
		src := b.src
		src.Prompt = func(string) ([]byte, error) {
			asked++
			return []byte(tc.answers[min(asked, len(tc.answers))-1]), nil
		}
		got, _, unfinished, err := LoadSettled(b.dir, src)
		if err != nil || unfinished != nil || asked != tc.asked {
			t.Fatalf("%s: asked %d times; %v, %v", name, asked, unfinished, err)
		}
		b.opens(t, got)
		if content, err := os.ReadFile(b.src.File); err != nil || !bytes.Equal(content, newFile) {
			t.Errorf("%s: the file was not put into place: %v", name, err)
		}
	}
}

// What cannot be replaced well is not begun, and nothing has changed then.
func TestRekeyRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		keep string
		edit func(b *safe) error
		want string
	}{
		"no file":             {"raw", func(b *safe) error { return os.Remove(b.src.File) }, "no root key to replace"},
		"another raw key":     {"raw", func(b *safe) error { return os.WriteFile(b.src.File, make([]byte, 32), 0o600) }, "not the key that the module runs with"},
		"another age file":    {"identity", func(b *safe) error { b.root = suite.Random(KeySize); return nil }, "not the key that the module runs with"},
		"an identity missing": {"identity", func(b *safe) error { return os.Remove(b.src.Identity) }, "cannot read the identity"},
		"one that was cut":    {"raw", func(b *safe) error { return os.WriteFile(b.src.File+nextSuffix, []byte("x"), 0o600) }, "start the module again"},
	} {
		b := safes(t)[tc.keep]
		root := slices.Clone(b.root)
		if err := tc.edit(b); err != nil {
			t.Fatal(err)
		}
		if _, err := BeginRekey(b.src, b.root, nil); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
		b.opens(t, root)
		if _, err := os.Lstat(b.src.File + nextSuffix); name != "one that was cut" && err == nil {
			t.Errorf("%s: a second root key was left", name)
		}
	}
	b := safes(t)["raw"]
	k, err := BeginRekey(b.src, b.root, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.s.Destroy(); err != nil {
		t.Fatal(err)
	}
	if err := b.s.Rewrap(k.Key()); !errors.Is(err, ErrDestroyed) {
		t.Errorf("after a wipe: %v", err)
	}
	if err := k.Abort(); err != nil {
		t.Error(err)
	}
	if root, err := LoadRoot(b.src); err != nil || !bytes.Equal(root, b.root) {
		t.Errorf("after an end: %v", err)
	}
	if err := InMemory().Rewrap(suite.Random(KeySize)); err == nil {
		t.Error("a key in memory has no root key")
	}
}

// A second file that opens nothing is no way in, and no key is removed while it
// is not known which one is needed.
func TestUnsettledRootKeys(t *testing.T) {
	b := safes(t)["raw"]
	next := b.src.File + nextSuffix
	if err := os.WriteFile(next, suite.Random(KeySize), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.src.File, suite.Random(KeySize), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := LoadSettled(b.dir, b.src); !errors.Is(err, ErrWrongRootKey) {
		t.Errorf("neither fits: %v", err)
	}
	if err := os.WriteFile(b.src.File, b.old, 0o600); err != nil {
		t.Fatal(err)
	}
	seal := filepath.Join(b.dir, dataKeyFile)
	whole, err := os.ReadFile(seal)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(seal, whole[:50], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := LoadSettled(b.dir, b.src); !errors.Is(err, ErrDamagedDataKey) {
		t.Errorf("a damaged data key: %v", err)
	}
	for _, file := range []string{b.src.File, next} {
		if info, err := os.Stat(file); err != nil || info.Size() != KeySize {
			t.Errorf("%s: %v", file, err)
		}
	}
	if err := os.WriteFile(seal, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if root, told, _, err := LoadSettled(b.dir, b.src); err != nil || !bytes.Equal(root, b.root) || !strings.Contains(told, "removed") {
		t.Errorf("%q, %v", told, err)
	}
}
