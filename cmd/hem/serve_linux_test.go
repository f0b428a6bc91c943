package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"
)

// The passphrase of the root key is asked for on the terminal.
func TestServePrompt(t *testing.T) {
	dir := t.TempDir()
	recipient, err := age.NewScryptRecipient("correct horse")
	must(t, err)
	recipient.SetWorkFactor(10)
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, recipient)
	must(t, err)
	w.Write(bytes.Repeat([]byte{3}, 32))
	must(t, w.Close())
	key := filepath.Join(dir, "root.age")
	must(t, os.WriteFile(key, sealed.Bytes(), 0o600))
	args := []string{"serve", "--data", filepath.Join(dir, "data"), "--root-key", key, "--http=127.0.0.1:0", "--https=127.0.0.1:0"}

	r := onTerminal(t, nil, args...)
	r.waitFor("Passphrase of the root key file "+key+": ", 1)
	r.enter("correct horse\n")
	r.waitFor("the module is up", 1)
	must(t, r.cmd.Process.Signal(syscall.SIGTERM))
	r.exit(exitDone)

	r = onTerminal(t, nil, args...)
	r.waitFor("Passphrase of the root key", 1)
	r.enter("wrong\n")
	r.waitFor("the passphrase does not open the root key file", 1)
	r.exit(exitFailed)

	// Who interrupts the question ends the start, and no more.
	r = onTerminal(t, nil, args...)
	r.waitFor("Passphrase of the root key", 1)
	r.enter("\x03")
	r.exit(exitDone)
}

// A new root key whose passphrase is asked for at each start gets one that is
// asked for, twice.
func TestRekeyPrompt(t *testing.T) {
	dir := t.TempDir()
	easy, err := age.NewScryptRecipient("the old words")
	must(t, err)
	easy.SetWorkFactor(10)
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, easy)
	must(t, err)
	w.Write(bytes.Repeat([]byte{3}, 32))
	must(t, w.Close())
	key, data := filepath.Join(dir, "root.age"), filepath.Join(dir, "data")
	must(t, os.WriteFile(key, sealed.Bytes(), 0o600))
	serve := []string{"serve", "--data", data, "--root-key", key, "--http=127.0.0.1:0", "--https=127.0.0.1:0"}
	asked := "Passphrase of the root key file " + key + ": "

	r := onTerminal(t, nil, serve...)
	r.waitFor(asked, 1)
	r.enter("the old words\n")
	r.waitFor("the module is up", 1)

	k := onTerminal(t, nil, "rekey", "--data", data) // of the one that runs
	k.waitFor("New passphrase of the root key: ", 1)
	k.enter("the new words\n")
	k.waitFor("The same again: ", 1)
	k.enter("the new words\n")
	k.exit(exitDone)
	if strings.Contains(k.screen(), "the new words\r") {
		t.Errorf("the terminal shows %q", k.screen())
	}
	must(t, r.cmd.Process.Signal(syscall.SIGTERM))
	r.exit(exitDone)

	r = onTerminal(t, nil, serve...)
	r.waitFor(asked, 1)
	r.enter("the old words\n")
	r.waitFor("the passphrase does not open the root key file", 1)
	r.exit(exitFailed)
	r = onTerminal(t, nil, serve...)
	r.waitFor(asked, 1)
	r.enter("the new words\n")
	r.waitFor("the module is up", 1)
	must(t, r.cmd.Process.Signal(syscall.SIGTERM))
	r.exit(exitDone)
}
