package main

import (
	"bytes"
	"os"
	"path/filepath"
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
