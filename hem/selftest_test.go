package hem

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"softhem/api"
)

// SelfTest asks until the run has ended, with the token it has, and hands on what was
// found; a caller who has enough of waiting is let go.
func TestSelfTestWaits(t *testing.T) {
	f := startFake(t)
	busy := 3
	f.handle("GET "+pathSelfTest, func(w answerWriter, r request) {
		if r.Header.Get("Authorization") == "" {
			w.WriteHeader(401)
			return
		}
		busy--
		writeJSON(w, api.SelfTest{KATBusy: busy >= 0, FLSState: 0x08, SelfTestTS: 7})
	})
	var stages []Stage
	c := newClient(t, Config{URL: f.url, Key: testKey(t), Progress: func(s Stage) { stages = append(stages, s) }})
	s, err := c.SelfTest(t.Context())
	if err != nil || *s != (api.SelfTest{FLSState: 0x08, SelfTestTS: 7}) {
		t.Errorf("%+v, %v", s, err)
	}
	if want := []Stage{StageLogin, StageSelfTest, StageSelfTest, StageSelfTest}; !slices.Equal(stages, want) {
		t.Errorf("stages %v, want %v", stages, want)
	}
	if n := f.count("GET " + pathSelfTest); n != 4 {
		t.Errorf("asked %d times", n)
	}

	busy = 1 << 30
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if s, err := c.SelfTest(ctx); !errors.Is(err, context.DeadlineExceeded) || s != nil {
		t.Errorf("%+v, %v", s, err)
	}
	f.handle("GET "+pathSelfTest, func(w answerWriter, _ request) { w.WriteHeader(409) })
	if s, err := c.SelfTest(t.Context()); !errors.Is(err, api.ErrConflict) || s != nil {
		t.Errorf("%+v, %v", s, err)
	}
}
