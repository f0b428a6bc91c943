package envelope

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"filippo.io/age"
)

func sealed(t *testing.T, recipients []string, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := SealFor(&b, recipients, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Files for people open with what they were made for and with nothing else, and
// the refusal says what is missing.
func TestFilesForPeople(t *testing.T) {
	mine, err1 := age.GenerateX25519Identity()
	other, err2 := age.GenerateX25519Identity()
	hybrid, err3 := age.GenerateHybridIdentity()
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	content := strings.Repeat("content", 20_000)
	easy, err := age.NewScryptRecipient("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	easy.SetWorkFactor(8) // the usual one takes a second each time
	var byPassword bytes.Buffer
	w, err := age.Encrypt(&byPassword, easy)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	byPass := byPassword.Bytes()
	byKey := sealed(t, []string{mine.Recipient().String()}, content)
	byHybrid := sealed(t, []string{hybrid.Recipient().String()}, content)
	word := func(s string) func() ([]byte, error) { return func() ([]byte, error) { return []byte(s), nil } }
	gone := errors.New("nobody there")
	for name, tc := range map[string]struct {
		file       []byte
		identities string
		passphrase func() ([]byte, error)
		want       string
	}{
		"passphrase":              {byPass, "", word("correct horse"), ""},
		"wrong passphrase":        {byPass, "", word("correct house"), "the passphrase does not open it"},
		"empty passphrase":        {byPass, "", word(""), "the passphrase is empty"},
		"identity for passphrase": {byPass, mine.String(), nil, "it is encrypted with a passphrase"},
		"nobody to ask":           {byPass, "", func() ([]byte, error) { return nil, gone }, "nobody there"},
		"identity":                {byKey, "# mine\n" + mine.String() + "\n", nil, ""},
		"one of two":              {byKey, other.String() + "\n" + mine.String(), nil, ""},
		"hybrid":                  {byHybrid, hybrid.String(), nil, ""},
		"wrong identity":          {byKey, other.String(), nil, "the identity does not open it"},
		"passphrase for identity": {byKey, "", word("correct horse"), "it is encrypted for an age identity"},
		"no identity":             {byKey, "AGE-SECRET-KEY-1NONE", nil, "no file of age identities"},
		"no age file":             {[]byte(strings.Repeat("x", 5000)), "", nil, "it is no age file"},
		"cut":                     {byKey[:len(byKey)-1], mine.String(), nil, ErrDamaged.Error()},
		"cut in the header":       {byKey[:100], mine.String(), nil, ErrDamaged.Error()},
	} {
		var ids []byte
		if tc.identities != "" {
			ids = []byte(tc.identities)
		}
		r, err := OpenFor(bytes.NewReader(tc.file), ids, tc.passphrase)
		var got []byte
		if err == nil {
			got, err = io.ReadAll(r)
		}
		switch {
		case tc.want == "" && (err != nil || string(got) != content):
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		case err != nil && (strings.Contains(err.Error(), "SECRET-KEY-1") || strings.Contains(err.Error(), "correct")):
			t.Errorf("%s: the error has a secret in it: %v", name, err)
		}
	}
	if _, err := SealFor(io.Discard, []string{mine.String()}, nil); err == nil || strings.Contains(err.Error(), "AGE-SECRET") {
		t.Errorf("a secret key as a recipient: %v", err)
	}
	if _, err := SealFor(io.Discard, []string{mine.Recipient().String(), hybrid.Recipient().String()}, nil); err == nil || !strings.Contains(err.Error(), "cannot be mixed") {
		t.Error(err)
	}
	if _, err := SealFor(io.Discard, nil, nil); err == nil {
		t.Error("sealed for nobody")
	}
	got, err := Recipients([]byte(mine.String() + "\n" + hybrid.String()))
	if err != nil || len(got) != 2 || got[0] != mine.Recipient().String() || got[1] != hybrid.Recipient().String() {
		t.Error(got, err)
	}
	if _, err := Recipients([]byte("none")); err == nil {
		t.Error("recipients of nothing")
	}
}
