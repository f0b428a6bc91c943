package main

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

const (
	testRecipient = "age1s9ns6czfh0w5hghvarpw8p2g98d2pskl9ezme0vvgtvrns2qypyq24955j"
	testIdentity  = "AGE-SECRET-KEY-18WLHEW9MY9SR5H4ACGJTMZZLALF8LHEESXCWV5WJV5H2KF3S46WS5MCG6T\n"
)

// T153 of docs/threat-model.md: hem backup and hem restore that are killed at any
// instant leave the file or folder as it was before, or whole; and what they leave
// beside it is in nobody's way.
func testBackupKilled(t *testing.T, p program) {
	h := &household{t: t, p: p, dir: t.TempDir()}
	h.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.dir, "TMPDIR=" + h.dir}
	identity := h.write("identity", testIdentity)
	data, file := filepath.Join(h.dir, "data"), filepath.Join(h.dir, "hem.age")
	p.start(t, nil, "--data", data)
	args := []string{"backup", "--data", data, "--to", file, "--recipient", testRecipient, "--identity", identity}
	start := time.Now()
	h.run(0, "", args...)
	took := time.Since(start)
	// killed runs a command and kills it somewhere on its way, and tells whether
	// that was early enough.
	killed := func(args ...string) bool {
		cmd := exec.Command(p.path, args...)
		cmd.Dir, cmd.Env = h.dir, h.env
		must(t, cmd.Start())
		time.Sleep(rand.N(took))
		_ = cmd.Process.Kill()
		return cmd.Wait() != nil
	}
	cut := 0
	for range 8 {
		before, err := os.ReadFile(file)
		must(t, err)
		if !killed(args...) {
			continue
		}
		cut++
		// Either the one before, byte for byte, or a new one, whole.
		if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
			dir := filepath.Join(h.dir, "whole")
			h.run(0, "", "restore", file, "--data", dir, "--identity", identity)
			must(t, os.RemoveAll(dir))
		}
	}
	h.run(0, "", args...)
	if _, err := os.Stat(file + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a good backup leaves its beginnings: %v", err)
	}
	dir := filepath.Join(h.dir, "restored")
	restore := []string{"restore", file, "--data", dir, "--identity", identity}
	for range 8 {
		if !killed(restore...) {
			must(t, os.RemoveAll(dir))
			continue
		}
		cut++
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		// It had its name already: so it is whole.
		h.run(0, "", "backup", "--data", dir, "--to", filepath.Join(h.dir, "again.age"), "--recipient", testRecipient)
		must(t, os.RemoveAll(dir))
	}
	h.run(0, "", restore...)
	if _, err := os.Stat(dir + ".restoring"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a restored folder leaves its beginnings: %v", err)
	}
	if cut == 0 {
		t.Error("everything was done before it was killed")
	}
	t.Logf("%d of 16 were cut", cut)
}
