package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rsc.io/qr"

	"softhem/internal/qrimage"
)

// An offer comes as an argument, from standard input, a text file or a picture.
func TestReadOffer(t *testing.T) {
	const text, link = `{"link":"https://broker.example/notify/register/challenge/x","k":"AAAAAAAAAAAAAAAAAAAAAA=="}`, "https://broker.example/notify/register/challenge/x"
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, row := range map[string]struct {
		args []string
		want string
		err  error
	}{
		"argument": {[]string{text}, text, nil}, "link": {[]string{" " + link + "\n"}, link, nil},
		"standard input": {nil, text, nil}, "-": {[]string{"-"}, text, nil},
		"text file": {[]string{file("offer.json", text+"\n")}, text, nil}, "picture": {[]string{file("any.name", string(code.PNG()))}, text, nil},
		"no such file": {[]string{filepath.Join(dir, "none")}, "", os.ErrNotExist}, "an empty file": {[]string{file("empty", "")}, "", qrimage.ErrNoPicture},
		"half a picture": {[]string{file("half.png", string(code.PNG()[:40]))}, "", qrimage.ErrNoPicture},
	} {
		o := &options{t: terminal{in: strings.NewReader(text + "\n")}}
		got, err := o.readOffer(t.Context(), row.args)
		if got != row.want || !errors.Is(err, row.err) {
			t.Errorf("%s: %q, %v, want %q, %v", name, got, err, row.want, row.err)
		}
	}
}

// Nothing but what was offered is taken for an answer.
func TestReadAnswer(t *testing.T) {
	for answer, want := range map[string]struct {
		life     time.Duration
		readOnly bool
		ok       bool
	}{
		"15m": {15 * time.Minute, false, true}, " 1H ": {time.Hour, false, true}, "8h": {8 * time.Hour, false, true}, "24h ro": {24 * time.Hour, true, true},
		"deny": {0, false, true}, "no": {0, false, true}, "": {}, "y": {}, "yes": {}, "1": {}, "2h": {}, "1h rw": {}, "ro": {}, "deny ro": {}, "1h 8h": {}, "1h ro ro": {}, "-1h": {},
	} {
		life, readOnly, ok := readAnswer(answer, true)
		if life != want.life || readOnly != want.readOnly || ok != want.ok {
			t.Errorf("%q: %v, %v, %v", answer, life, readOnly, ok)
		}
	}
	if _, _, ok := readAnswer("1h ro", false); ok {
		t.Error("ro is taken where there is nothing to read")
	}
	for scope, want := range map[string]string{
		"storage:disk0:rw": "storage:disk0", "storage:disk0": "", "storage:diskx:rw": "", "keymgmt:gen:rw": "", ":rw": "", "storage:disk0:rw:rw": "",
	} {
		if got, ok := readingOf(scope); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v", scope, got, ok)
		}
	}
}
