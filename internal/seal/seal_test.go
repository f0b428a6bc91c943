package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"softhem/internal/suite"
)

func TestSealProperties(t *testing.T) {
	s := InMemory()
	rapid.Check(t, func(t *rapid.T) {
		kind, id := rapid.String().Draw(t, "kind"), rapid.String().Draw(t, "id")
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		sealed := s.Seal(kind, id, plain)

		got, err := s.Open(kind, id, sealed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("opened %x, %v; sealed %x", got, err, plain)
		}
		if bytes.Equal(sealed, s.Seal(kind, id, plain)) {
			t.Fatal("sealing twice gives the same bytes")
		}

		flipped := bytes.Clone(sealed)
		bit := rapid.IntRange(0, 8*len(sealed)-1).Draw(t, "bit")
		flipped[bit/8] ^= 1 << (bit % 8)
		mustBeTampered(t, s, kind, id, flipped)
		mustBeTampered(t, s, kind, id, sealed[:rapid.IntRange(0, len(sealed)-1).Draw(t, "cut")])
		mustBeTampered(t, s, kind, id, append(bytes.Clone(sealed), 0))

		otherKind, otherID := rapid.String().Draw(t, "other kind"), rapid.String().Draw(t, "other id")
		if otherKind != kind || otherID != id {
			mustBeTampered(t, s, otherKind, otherID, sealed)
		}
		mustBeTampered(t, InMemory(), kind, id, sealed)
	})
}

// Every way to cut the same letters into a kind and an id is another record.
func TestKindAndIDDoNotRunTogether(t *testing.T) {
	s := InMemory()
	rapid.Check(t, func(t *rapid.T) {
		letters := rapid.StringN(1, 40, 80).Draw(t, "letters")
		a := rapid.IntRange(0, len(letters)).Draw(t, "a")
		b := rapid.IntRange(0, len(letters)).Filter(func(b int) bool { return b != a }).Draw(t, "b")
		mustBeTampered(t, s, letters[:b], letters[b:], s.Seal(letters[:a], letters[a:], []byte("x")))
	})
	mustBeTampered(t, s, "a", "bc", s.Seal("ab", "c", nil))
	// A length that is itself part of the name.
	mustBeTampered(t, s, "a", "\x00\x00\x00\x01b", s.Seal("a\x00\x00\x00\x05", "b", nil))
}

type fataler interface{ Fatalf(string, ...any) }

func mustBeTampered(t fataler, s *Sealer, kind, id string, sealed []byte) {
	if got, err := s.Open(kind, id, sealed); !errors.Is(err, ErrTampered) || got != nil {
		t.Fatalf("Open(%q, %q, %x) gives %x, %v; want ErrTampered", kind, id, sealed, got, err)
	}
}

func TestDataKeyFile(t *testing.T) {
	dir, root := t.TempDir(), Secret(suite.Random(KeySize))
	if Exists(dir) {
		t.Fatal("an empty folder has a data key")
	}
	if _, err := Open(dir, root); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Open without a file: %v", err)
	}
	// What a crash in an earlier Create has left is in the way of nothing.
	if err := os.WriteFile(filepath.Join(dir, newKeyFile), []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	created, err := Create(dir, root)
	if err != nil {
		t.Fatal(err)
	}
	if !Exists(dir) {
		t.Fatal("Create left no data key")
	}
	mustHaveFiles(t, dir, dataKeyFile)
	info, err := os.Stat(filepath.Join(dir, dataKeyFile))
	if err != nil || info.Mode() != 0o600 || info.Size() != int64(dataKeySize) {
		t.Fatalf("data key file: %v, %v", info, err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, dataKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, created.key) || bytes.Contains(raw, root) {
		t.Fatal("the file shows a key")
	}

	if _, err := Create(dir, root); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("a second Create: %v", err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, dataKeyFile)); err != nil || !bytes.Equal(after, raw) {
		t.Fatal("a refused Create has changed the data key")
	}

	opened, err := Open(dir, root)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := opened.Open("k", "1", created.Seal("k", "1", []byte("plain"))); err != nil || string(got) != "plain" {
		t.Fatalf("after reopening: %q, %v", got, err)
	}

	_, err = Open(dir, suite.Random(KeySize))
	if !errors.Is(err, ErrWrongRootKey) || errors.Is(err, ErrDamagedDataKey) || !strings.Contains(err.Error(), "--root-key") {
		t.Fatalf("wrong root key: %v", err)
	}
	if _, err := Open(dir, root[:31]); err == nil || errors.Is(err, ErrWrongRootKey) {
		t.Fatalf("short root key: %v", err)
	}
	if _, err := Create(t.TempDir(), nil); err == nil {
		t.Fatal("Create works without a root key")
	}
}

func TestDamagedDataKeyIsNoWrongRootKey(t *testing.T) {
	dir, root := t.TempDir(), Secret(suite.Random(KeySize))
	if _, err := Create(dir, root); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, dataKeyFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var damaged [][]byte
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 0x10
		damaged = append(damaged, b)
	}
	damaged = append(damaged, nil, whole[:len(whole)-1], append(bytes.Clone(whole), 0), make([]byte, 1<<20))
	for i, b := range damaged {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, root); !errors.Is(err, ErrDamagedDataKey) || errors.Is(err, ErrWrongRootKey) {
			t.Fatalf("damage %d: %v", i, err)
		}
	}
}

func TestDestroy(t *testing.T) {
	dir, root := t.TempDir(), Secret(suite.Random(KeySize))
	s, err := Create(dir, root)
	if err != nil {
		t.Fatal(err)
	}
	// A second name for the same file shows that its bytes were overwritten,
	// not only its name removed.
	witness := filepath.Join(t.TempDir(), "witness")
	if err := os.Link(filepath.Join(dir, dataKeyFile), witness); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(witness)
	if err != nil {
		t.Fatal(err)
	}
	key, old := s.key, bytes.Clone(s.key)
	sealed := s.Seal("k", "1", []byte("x"))

	if err := s.Destroy(); err != nil {
		t.Fatal(err)
	}
	if Exists(dir) {
		t.Fatal("the data key is still there")
	}
	mustHaveFiles(t, dir, doomedKeyFile)
	if wiped, err := Wiped(dir); !wiped || err != nil {
		t.Fatalf("the folder does not show that it was wiped: %v", err)
	}
	after, err := os.ReadFile(witness)
	if err != nil {
		t.Fatal(err)
	}
	if len(after) != len(before) || bytes.Equal(before[5:61], after[5:61]) || bytes.Equal(after, make([]byte, len(after))) {
		t.Fatalf("the file was not overwritten: %x", after)
	}
	if !bytes.Equal(key, make([]byte, KeySize)) {
		t.Fatal("the key is still in memory")
	}
	if _, err := s.Open("k", "1", sealed); !errors.Is(err, ErrDestroyed) {
		t.Fatalf("Open after Destroy: %v", err)
	}
	// What is sealed later is readable neither with the old key nor with zeroes.
	late := s.Seal("k", "1", []byte("x"))
	mustBeTampered(t, &Sealer{key: old}, "k", "1", late)
	mustBeTampered(t, &Sealer{key: make(Secret, KeySize)}, "k", "1", late)
	if err := s.Destroy(); err != nil {
		t.Fatalf("a second Destroy: %v", err)
	}
	fresh, err := Create(dir, root)
	if err != nil {
		t.Fatal(err)
	}
	mustBeTampered(t, fresh, "k", "1", sealed)
	mustHaveFiles(t, dir, dataKeyFile)
	if wiped, err := Wiped(dir); wiped || err != nil {
		t.Fatalf("a folder with a new data key still shows a wipe: %v", err)
	}

	m := InMemory()
	if err := m.Destroy(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Open("k", "1", m.Seal("k", "1", nil)); !errors.Is(err, ErrDestroyed) {
		t.Fatalf("in memory: %v", err)
	}
}

func TestDestroyThatFailsChangesNothing(t *testing.T) {
	dir, root := t.TempDir(), Secret(suite.Random(KeySize))
	s, err := Create(dir, root)
	if err != nil {
		t.Fatal(err)
	}
	// A folder in the way of the rename; works for root, too.
	if err := os.MkdirAll(filepath.Join(dir, doomedKeyFile, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	sealed := s.Seal("k", "1", []byte("x"))
	if err := s.Destroy(); err == nil {
		t.Fatal("Destroy reports success")
	}
	if _, err := s.Open("k", "1", sealed); err != nil || !Exists(dir) {
		t.Fatalf("the data is unreadable after a Destroy that failed: %v", err)
	}
}

// A crash right after the rename: the next start finds no data key and
// overwrites what was set aside.
func TestInterruptedDestroyIsFinished(t *testing.T) {
	for name, start := range map[string]func(dir string, root Secret) error{
		"Create": func(dir string, root Secret) error { _, err := Create(dir, root); return err },
		"Wiped and Create": func(dir string, root Secret) error {
			if wiped, err := Wiped(dir); err != nil || !wiped {
				return fmt.Errorf("wiped %v: %w", wiped, err)
			}
			if b, err := os.ReadFile(filepath.Join(dir, doomedKeyFile)); err != nil {
				return err
			} else if _, err := dataKeyBlob(b).open(root); !errors.Is(err, ErrDamagedDataKey) {
				return errors.New("the old data key can still be opened")
			}
			_, err := Create(dir, root)
			return err
		},
		"Open": func(dir string, root Secret) error {
			if _, err := Open(dir, root); !errors.Is(err, fs.ErrNotExist) {
				return errors.New("Open found a data key")
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, root := t.TempDir(), Secret(suite.Random(KeySize))
			if _, err := Create(dir, root); err != nil {
				t.Fatal(err)
			}
			doomed := filepath.Join(dir, doomedKeyFile)
			if err := os.Rename(filepath.Join(dir, dataKeyFile), doomed); err != nil {
				t.Fatal(err)
			}
			witness := filepath.Join(t.TempDir(), "witness")
			if err := os.Link(doomed, witness); err != nil {
				t.Fatal(err)
			}
			if err := start(dir, root); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(doomed); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("%s is left: %v", doomedKeyFile, err)
			}
			b, err := os.ReadFile(witness)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := dataKeyBlob(b).open(root); !errors.Is(err, ErrDamagedDataKey) {
				t.Fatalf("the old data key can still be opened: %v", err)
			}
		})
	}
}

func TestConcurrentUse(t *testing.T) {
	s := InMemory()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				got, err := s.Open("k", "i", s.Seal("k", "i", []byte("v")))
				if err != nil && !errors.Is(err, ErrDestroyed) || err == nil && string(got) != "v" {
					// Between the two calls Destroy may also have changed the key,
					// but then Open says ErrDestroyed.
					t.Errorf("%q, %v", got, err)
				}
			}
		})
	}
	wg.Go(func() {
		if err := s.Destroy(); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
}

func mustHaveFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Fatalf("files %q, want %q", got, want)
	}
}

func FuzzSealerOpen(f *testing.F) {
	s := &Sealer{key: bytes.Repeat([]byte{7}, KeySize)}
	genuine := s.Seal("key", "1", []byte("plain"))
	f.Add("key", "1", genuine)
	f.Add("key", "1", []byte{})
	f.Add("", "", []byte{sealVersion})
	f.Add("key", "1", append([]byte{2}, genuine[1:]...))
	f.Add("key", "1", genuine[:len(genuine)-1])
	f.Add("ke", "y1", genuine)
	f.Fuzz(func(t *testing.T, kind, id string, sealed []byte) {
		plain, err := s.Open(kind, id, sealed)
		if err == nil {
			// The only text ever sealed here, under a random nonce.
			if kind != "key" || id != "1" || string(plain) != "plain" {
				t.Fatalf("%q %q %x opens as %q", kind, id, sealed, plain)
			}
		} else if !errors.Is(err, ErrTampered) {
			t.Fatal(err)
		}
	})
}

func FuzzDataKeyFile(f *testing.F) {
	root := Secret(bytes.Repeat([]byte{9}, KeySize))
	key := Secret(bytes.Repeat([]byte{5}, KeySize))
	f.Add([]byte(newDataKeyBlob(root, key)))
	f.Add([]byte(newDataKeyBlob(key, key)))
	f.Add([]byte{})
	f.Add([]byte(dataKeyHeader))
	dir := f.TempDir() // each worker is a process and has its own
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, dataKeyFile), b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, root)
		switch {
		case err == nil:
			if !bytes.Equal(s.key, key) {
				t.Fatalf("%x opens with another key", b)
			}
		case errors.Is(err, ErrWrongRootKey) == errors.Is(err, ErrDamagedDataKey):
			t.Fatalf("%x: %v", b, err)
		}
	})
}
