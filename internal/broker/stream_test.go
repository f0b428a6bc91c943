package broker_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
)

// A stream of the lists of some pairings.
type streamReader struct {
	t     *testing.T
	lines *bufio.Scanner
	resp  *http.Response
}

func openStream(t *testing.T, url string, pids ...string) *streamReader {
	t.Helper()
	query := ""
	for _, pid := range pids {
		query += "&pid=" + base64.RawURLEncoding.EncodeToString(mustDecode(t, pid))
	}
	resp, err := http.Get(url + "/notify/event/stream?" + strings.TrimPrefix(query, "&"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	return &streamReader{t, bufio.NewScanner(resp.Body), resp}
}

// next is the next list.
func (r *streamReader) next() map[string][]string {
	r.t.Helper()
	timer := time.AfterFunc(time.Minute, func() { r.resp.Body.Close() })
	defer timer.Stop()
	for r.lines.Scan() {
		if data, ok := strings.CutPrefix(r.lines.Text(), "data: "); ok {
			var list api.EventList
			if err := json.Unmarshal([]byte(data), &list); err != nil {
				r.t.Fatalf("%v: %s", err, data)
			}
			return list.EventID
		}
	}
	r.t.Fatalf("the stream ended: %v", r.lines.Err())
	return nil
}

// A stream tells at once what waits, what comes and what was handled, for its
// pairings alone, and is not ended by what bounds a request.
func TestStream(t *testing.T) {
	ctx := context.Background()
	s := startBroker(t, "")
	m := s.module(hemtest.Options{})
	a, p := s.pair(m)
	_, q := s.pair(m)
	short := httptest.NewUnstartedServer(s.broker.Handler())
	short.Config.ReadTimeout = 20 * time.Millisecond
	short.Start()
	t.Cleanup(func() {
		short.CloseClientConnections()
		short.Close()
	})
	mine, both := openStream(t, short.URL, p.PID), openStream(t, short.URL, p.PID, q.PID, p.PID)
	other := openStream(t, short.URL, base64.StdEncoding.EncodeToString(make([]byte, 32)))
	for _, r := range []*streamReader{mine, both, other} {
		if got := r.next(); len(got) != 0 {
			t.Errorf("before any request: %v", got)
		}
	}
	time.Sleep(5 * short.Config.ReadTimeout) // what would have ended them
	for round := range 3 {
		_, err := s.remote(m, stranger(t, m), "system:config", func() {
			one, two := mine.next(), both.next()
			if len(one) != 1 || len(two) != 1 {
				t.Errorf("round %d: %v, %v", round, one, two)
			}
			for id, pids := range one {
				if len(pids) != 1 || len(two[id]) != 2 {
					t.Errorf("%v, %v", pids, two[id])
				}
			}
			if err := a.Deny(ctx, next(t, a)); err != nil {
				t.Error(err)
			}
			if one, two := mine.next(), both.next(); len(one) != 0 || len(two) != 0 {
				t.Errorf("handled, and still there: %v, %v", one, two)
			}
		})
		if !errors.Is(err, hem.ErrDenied) {
			t.Error(err)
		}
	}
	late := openStream(t, short.URL, p.PID)
	_, err := s.remote(m, stranger(t, m), "system:config", func() {
		if got := mine.next(); len(got) != 1 {
			t.Errorf("the fourth: %v", got)
		}
		if got := openStream(t, short.URL, p.PID).next(); len(got) != 1 {
			t.Errorf("who comes later: %v", got)
		}
		if err := a.Allow(ctx, next(t, a), time.Hour, ""); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Error(err)
	}
	late.next()
	other.resp.Body.Close()
	for query, want := range map[string]int{"": 400, "?pid=x": 400, "?pid=": 400, "?pid=" + strings.Repeat("&pid=", 65): 400} {
		if got := s.call("GET", "/notify/event/stream"+query, nil, nil); got != want {
			t.Errorf("%q: %d", query, got)
		}
	}
}
