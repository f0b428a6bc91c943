package hem

import (
	"errors"
	"io"
	"strings"
	"testing"

	"softhem/api"
)

func TestLogTailAndCheckpoint(t *testing.T) {
	f := startFake(t)
	answers := map[string]string{
		"/api/logger/checkpoint": "softhem/00\n3\nroot\n\n— softhem/00 sig\n",
		"/api/logger/tail/0":     strings.Repeat("line\n", 250_000), // longer than JSON may be
		"/api/logger/tail/7":     "",
		"/api/logger/tail/8":     strings.Repeat("x", maxTextBytes+1),
	}
	for path, text := range answers {
		f.handle("GET "+path, func(w answerWriter, _ request) { io.WriteString(w, text) })
	}
	f.handle("GET /api/logger/tail/9", func(w answerWriter, _ request) { w.WriteHeader(406) })
	f.handle("GET /api/logger/tail/10", func(w answerWriter, _ request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "cut")
	})
	c := newClient(t, Config{URL: f.url, Key: testKey(t)})
	if got, err := c.LogCheckpoint(t.Context()); err != nil || string(got) != answers["/api/logger/checkpoint"] {
		t.Errorf("%q, %v", got, err)
	}
	for leaf, want := range map[int64]string{0: answers["/api/logger/tail/0"], 7: ""} {
		if got, err := c.LogTail(t.Context(), leaf); err != nil || string(got) != want {
			t.Errorf("tail %d: %d bytes, %v", leaf, len(got), err)
		}
	}
	for leaf, want := range map[int64]error{-1: ErrArgument, 8: ErrProtocol, 9: api.ErrNotAcceptable} {
		if _, err := c.LogTail(t.Context(), leaf); !errors.Is(err, want) {
			t.Errorf("tail %d: %v, want %v", leaf, err, want)
		}
	}
	_, err := c.LogTail(t.Context(), 10)
	if _, ok := errors.AsType[*UnreachableError](err); !ok {
		t.Errorf("a connection that breaks: %v", err)
	}
}
