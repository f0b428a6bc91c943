package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"softhem/hem"
)

// One command watches for days while others pair and unpair: none undoes what
// another did, and what was answered is kept sealed.
func TestPairingsFileIsShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "keys.age")
	open := func() *pairingsFile { return &pairingsFile{path: path, secret: []byte("a passphrase")} }
	watch := open()
	add := func(f *pairingsFile, pid string) {
		err := f.change(t.Context(), func(all *keptPairings) {
			all.Pairings = append(all.Pairings, hem.Pairing{PID: pid, Private: []byte(pid)})
		})
		if err != nil {
			t.Error(err)
		}
	}
	add(watch, "first")
	add(open(), "second")
	until := time.Now().Add(time.Hour)
	err := watch.change(t.Context(), func(all *keptPairings) { all.Pairings[0].Remember("request", until, time.Now()) })
	if err != nil {
		t.Fatal(err)
	}
	all, err := open().load(t.Context())
	if err != nil || len(all.Pairings) != 2 || all.Pairings[0].Answered["request"] != until.Unix() {
		t.Errorf("%d pairings are left, of the first %v was answered, %v", len(all.Pairings), all.Pairings[0].Answered, err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{path: 0o600, path + ".lock": 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	wrong := open()
	wrong.secret = []byte("another")
	if _, err := wrong.load(t.Context()); err == nil {
		t.Error("it opens with another passphrase")
	}
	if err := wrong.change(t.Context(), func(*keptPairings) {}); err == nil {
		t.Error("it is replaced under another passphrase")
	}
	if again, err := os.ReadFile(path); err != nil || string(again) != string(raw) {
		t.Errorf("the file changed, %v", err)
	}
}
