package hem

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"softhem/api"
)

func TestCheckInRelaysUntouched(t *testing.T) {
	var v struct {
		Check     string
		CheckedOK string `json:"checked_ok"`
	}
	readVector(t, "checkin.json", &v)
	check := `{"check": "` + v.Check + `", "more": "<&>"}`
	checked := `{ "checked":"` + v.CheckedOK + `","more":"<&>" }`
	expect := func(r request, want string) {
		if got, err := io.ReadAll(r.Body); err != nil || string(got) != want {
			t.Errorf("%s got %s (%v)\nwant %s", r.URL.Path, got, err, want)
		}
		if r.Header.Get("Authorization") != "" {
			t.Error("a token was sent")
		}
	}
	backend := startFake(t)
	backend.handle("POST /deep/checkin", func(w answerWriter, r request) {
		expect(r, check)
		io.WriteString(w, checked)
	})
	f := startFake(t)
	f.handle("GET "+pathCheckIn, func(w answerWriter, _ request) { io.WriteString(w, check) })
	f.handle("POST "+pathCheckIn, func(w answerWriter, r request) {
		expect(r, checked)
		writeJSON(w, api.CheckinResult{Status: "OK"})
	})
	c := newClient(t, Config{URL: f.url, Key: testKey(t)})
	result, err := c.CheckIn(t.Context(), backend.url+"/deep/")
	if err != nil || result.Status != "OK" {
		t.Error(result, err)
	}

	_, err = c.CheckIn(t.Context(), backend.url) // 404 there
	var op *OpError
	if !errors.Is(err, api.ErrNotFound) || !errors.As(err, &op) || !strings.Contains(op.Op, "backend") {
		t.Error(err)
	}
	for _, answer := range []string{`{}`, `[]`, `{"checked":7}`, `null`} {
		backend.handle("POST /checkin", func(w answerWriter, _ request) { io.WriteString(w, answer) })
		if _, err = c.CheckIn(t.Context(), backend.url); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", answer, err)
		}
	}
	if _, err = c.CheckIn(t.Context(), "backend"); !errors.Is(err, ErrArgument) {
		t.Error(err)
	}
}

func TestRebootOfAFreshModule(t *testing.T) {
	f := startFake(t)
	f.handle("GET "+pathToken, func(w answerWriter, _ request) { w.WriteHeader(409) })
	f.handle("GET /api/system/reboot", func(w answerWriter, r request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("sent a token it cannot have")
		}
	})
	c := newClient(t, Config{URL: f.url, Key: testKey(t)})
	if err := c.Reboot(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Shutdown(t.Context()); !errors.Is(err, api.ErrConflict) {
		t.Error(err)
	}
	// In a fail state the endpoint wants a token, and 409 is the better reason.
	f.handle("GET /api/system/reboot", func(w answerWriter, _ request) { w.WriteHeader(401) })
	if err := c.Reboot(t.Context()); !errors.Is(err, api.ErrConflict) {
		t.Error(err)
	}
}

func TestLogs(t *testing.T) {
	f := startFake(t)
	var all []string
	for i := range 300 {
		all = append(all, string("0123456789abcdef"[i%16])+"000000"+string("0123456789abcdef"[i/16%16]))
	}
	page := func(offset int) api.LogList {
		return api.LogList{Total: len(all), ID: all[offset:min(offset+128, len(all))]}
	}
	for path, offset := range map[string]int{"": 0, "/128": 128, "/256": 256} {
		f.handle("GET /api/logger/list"+path, func(w answerWriter, r request) {
			f.guarded(w, r.Request, api.ScopeLoggerGet, page(offset))
		})
	}
	c := newClient(t, Config{URL: f.url, Key: testKey(t)})
	var got []string
	for id, err := range c.AllLogs(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, id)
	}
	if diff := cmp.Diff(all, got); diff != "" {
		t.Error(diff)
	}
	f.handle("GET /api/logger/list/256", func(w answerWriter, _ request) { w.WriteHeader(500) })
	var last error
	for _, err := range c.AllLogs(t.Context()) {
		last = err
	}
	if !errors.Is(last, api.ErrInternal) {
		t.Error(last)
	}
	f.handle("GET /api/logger/list", func(w answerWriter, _ request) { writeJSON(w, api.LogList{Total: 5}) })
	for range c.AllLogs(t.Context()) {
		t.Error("an empty page has an entry")
	}
	if _, err := c.LogList(t.Context(), -1); !errors.Is(err, ErrArgument) {
		t.Error(err)
	}

	long := strings.Repeat("line\n", maxAnswerBytes/4) // longer than any other answer may be
	f.handle("GET /api/logger/0000000a", func(w answerWriter, _ request) { io.WriteString(w, long) })
	file, err := c.LogFile(t.Context(), "0000000a")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(file); err != nil || string(text) != long {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	file.Close()
	f.handle("GET /api/logger/0000000b", func(w answerWriter, _ request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "cut")
	})
	if file, err = c.LogFile(t.Context(), "0000000b"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(file); !errors.As(err, new(*UnreachableError)) {
		t.Errorf("a cut file: %v", err)
	}
	file.Close()
	for _, id := range []string{"", "list", "../../x", "0000000A", "000000000", "0000000?"} {
		if _, err := c.LogFile(t.Context(), id); !errors.Is(err, ErrArgument) {
			t.Errorf("%q: %v", id, err)
		}
	}
}
