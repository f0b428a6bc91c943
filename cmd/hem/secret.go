package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"golang.org/x/term"

	"softhem/api"
)

// maxSecretBytes is the longest passphrase or token that is read.
const maxSecretBytes = 64 << 10

const terminalDevice = "/dev/tty"

// askPassphrase gets the passphrase of a login. The caller clears it.
func (o *options) askPassphrase(ctx context.Context, _ api.Role) ([]byte, error) {
	o.warnExposed()
	path := o.setting("passphrase-file", o.passphraseFile, "HEM_PASSPHRASE_FILE")
	return o.secret(ctx, "--passphrase-file", path, fmt.Sprintf("Passphrase of the %s for %s: ", o.role, o.address()))
}

// secret reads a passphrase from path, - being standard input, or asks for it
// on the terminal if path is empty. flag is what path was given with. The caller
// clears the result.
func (o *options) secret(ctx context.Context, flag, path, prompt string) ([]byte, error) {
	if path == "" {
		return o.prompt(ctx, flag, prompt)
	}
	raw, err := o.secretFile(flag, path)
	if err == nil && !utf8.Valid(raw) {
		clear(raw)
		err = errors.New("the passphrase is not valid UTF-8")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return trimNewline(raw), nil
}

func (o *options) secretFile(flag, path string) ([]byte, error) {
	if path == "-" {
		return o.stdin(flag)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readSecret(f)
}

// stdin reads all of standard input, which works once.
func (o *options) stdin(flag string) ([]byte, error) {
	if o.stdinFor != "" {
		return nil, &usageError{"hem", fmt.Sprintf("standard input was read for %s and cannot be for %s too", o.stdinFor, flag)}
	}
	o.stdinFor = flag
	return readSecret(o.t.in)
}

// readSecret reads into one buffer, so that no copies are left behind.
func readSecret(r io.Reader) ([]byte, error) {
	buf := make([]byte, maxSecretBytes+1)
	n, err := io.ReadFull(r, buf)
	switch {
	case err == nil:
		clear(buf)
		return nil, fmt.Errorf("it is longer than %d bytes", maxSecretBytes)
	case err != io.EOF && err != io.ErrUnexpectedEOF:
		clear(buf)
		return nil, err
	}
	return buf[:n], nil
}

// trimNewline drops one newline, in either spelling, from the end.
func trimNewline(b []byte) []byte {
	if line, ok := bytes.CutSuffix(b, []byte("\n")); ok {
		return bytes.TrimSuffix(line, []byte("\r"))
	}
	return b
}

// prompt asks on the terminal, without echo.
func (o *options) prompt(ctx context.Context, flag, prompt string) ([]byte, error) {
	tty, err := os.OpenFile(terminalDevice, os.O_RDWR, 0)
	if err != nil {
		return nil, &usageError{"hem", fmt.Sprintf("there is no terminal to ask for the passphrase on: give it with %s FILE, or %s - for standard input", flag, flag)}
	}
	defer tty.Close()
	o.prompting.Lock()
	defer o.prompting.Unlock()
	if ctx.Err() != nil {
		return nil, ctx.Err() // nobody waits for us to put the terminal right
	}
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("the terminal: %w", err)
	}
	// Before the prompt: who answers it at once must not be echoed either.
	if err := echoOff(fd); err != nil {
		return nil, fmt.Errorf("the terminal: %w", err)
	}
	defer term.Restore(fd, before)
	o.progress.hide()
	if _, err := io.WriteString(tty, prompt); err != nil {
		return nil, fmt.Errorf("the terminal: %w", err)
	}

	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		read <- line{text, err}
	}()
	select {
	case l := <-read:
		io.WriteString(tty, "\n") // the one that was typed was not echoed
		if l.err != nil {
			clear(l.text)
			return nil, fmt.Errorf("no passphrase was given: %w", l.err)
		}
		return l.text, nil
	case <-ctx.Done():
		// The read cannot be called off; the process is about to end.
		io.WriteString(tty, "\n")
		return nil, ctx.Err()
	}
}
