package broker_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/broker"
	"softhem/internal/build"
	"softhem/internal/suite"
)

// lockedLog is a log that several goroutines write.
type lockedLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lockedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// count tells how often the operator was told of a claim.
func (l *lockedLog) count(claim string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), "msg=\"a check-in announces something to upgrade to\" claim="+claim)
}

// A module is told of what there is to upgrade to, unless it has it; its operator is
// told once, and nothing else happens.
func TestAnnouncements(t *testing.T) {
	ctx := context.Background()
	current := mustDecode(t, build.Firmware().Signature)
	none := suite.SHA256(nil)
	other, another := suite.Random(64), suite.Random(32)
	for name, x := range map[string]struct {
		cfg      broker.Config
		profile  string
		fws, uis string
	}{
		"nothing":              {},
		"what there is":        {cfg: broker.Config{NewFWS: current, NewUIS: none[:]}},
		"others":               {cfg: broker.Config{NewFWS: other, NewUIS: another}, fws: "OK", uis: "OK"},
		"another program only": {cfg: broker.Config{NewFWS: other}, fws: "OK"},
		"others, to an EPA":    {cfg: broker.Config{NewFWS: other, NewUIS: another}, profile: "EPA", fws: "OK"},
	} {
		s := startBrokerWith(t, "", x.cfg)
		log := new(lockedLog)
		c := s.module(hemtest.Options{Profile: x.profile, Logger: slog.New(slog.NewTextHandler(log, nil))}).Client()
		before, err := c.Version(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			got, err := c.CheckIn(ctx, s.url)
			if err != nil || *got != (api.CheckinResult{Status: "OK", NewFWS: x.fws, NewUIS: x.uis}) {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		}
		for claim, answer := range map[string]string{"newfws": x.fws, "newuis": x.uis} {
			if got, want := log.count(claim), len(answer)/2; got != want {
				t.Errorf("%s: the operator was told of %s %d times, want %d", name, claim, got, want)
			}
		}
		if after, err := c.Version(ctx); err != nil || *after != *before {
			t.Errorf("%s: the module is another: %+v, %v", name, after, err)
		}
	}
	for _, cfg := range []broker.Config{{NewFWS: another}, {NewUIS: other}, {NewFWS: []byte{}}} {
		s := startBroker(t, "")
		cfg.DB, cfg.Now, cfg.Logger = s.db, time.Now, slog.New(slog.DiscardHandler)
		if b, err := broker.New(ctx, cfg); err == nil {
			b.Close()
			t.Errorf("%d and %d bytes are announced", len(cfg.NewFWS), len(cfg.NewUIS))
		}
	}
}
