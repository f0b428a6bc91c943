package api

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestDecodeBase64TakesEverySpelling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "bytes")
		for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
			got, err := DecodeBase64(enc.EncodeToString(want))
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%q: %x, %v; want %x", enc.EncodeToString(want), got, err, want)
			}
		}
	})
}

func TestDecodeBase64Refuses(t *testing.T) {
	for _, s := range []string{
		"A", "AAAAA", "AA=", "AAA==", "AAAA=", "AAAA====", "AA==AA==", "=", "==", "====", "AA AA", "AA\nAA", "AA\r\n==", "\n", "AA!A", "AAA\x00", "AAAÄ", "A===",
	} {
		if got, err := DecodeBase64(s); !errors.Is(err, ErrBase64) {
			t.Errorf("%q is taken as %x, %v", s, got, err)
		}
	}
}

func FuzzDecodeBase64(f *testing.F) {
	f.Add("AAECAw==")
	f.Add("-_-_")
	f.Fuzz(func(t *testing.T, s string) {
		raw, err := DecodeBase64(s)
		if err != nil {
			return
		}
		again, err := DecodeBase64(EncodeBase64(raw))
		if err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("%q: %x comes back as %x, %v", s, raw, again, err)
		}
	})
}

func TestErrorsCompareByStatus(t *testing.T) {
	err := fmt.Errorf("log in: %w", ErrForbidden.Because("clock not set"))
	if !errors.Is(err, ErrForbidden) || errors.Is(err, ErrUnauthorized) {
		t.Errorf("%v is compared wrongly", err)
	}
	var told *Error
	if !errors.As(err, &told) || told.Reason != "clock not set" || ErrForbidden.Reason != "" {
		t.Errorf("reasons %+v, %+v", told, ErrForbidden)
	}
	for _, e := range []*Error{
		ErrBadRequest, ErrUnauthorized, ErrForbidden, ErrNotFound, ErrNotAcceptable, ErrConflict, ErrGone, ErrLengthRequired,
		ErrOrigin, ErrTooLarge, ErrTLSRequired, ErrTooMany, ErrInternal,
	} {
		if Meaning(e.Status) == "" || !strings.Contains(e.Error(), fmt.Sprint(e.Status)) {
			t.Errorf("%d has no meaning: %v", e.Status, e)
		}
	}
	if Meaning(http.StatusOK) != "" {
		t.Error("200 is no refusal")
	}
}

// T20: no scope opens by accident what asks for another.
func TestThreat_T20_NoScopeIsAPrefixOfAnother(t *testing.T) {
	all := append(Scopes(), ScopeKeyUse(strings.Repeat("0", 32)), "storage:disk0", "storage:disk1")
	for _, a := range all {
		for _, b := range all {
			if a != b && ScopeSatisfies(a, b) {
				t.Errorf("a token for %q opens what wants %q", a, b)
			}
		}
	}
}

func TestScopeKeyUseIsLowerCase(t *testing.T) {
	if got := ScopeKeyUse("0382E3EAB596598B1F3582EF90B61A0E"); got != "keymgmt:use:0382e3eab596598b1f3582ef90b61a0e" {
		t.Error(got)
	}
}
