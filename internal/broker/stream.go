package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"softhem/api"
)

// A stream is an answer that goes on: Server-Sent Events (WHATWG HTML, section
// 9.2). Each has the whole list of what waits, as POST /notify/event/data/allbypid
// gives it; the first comes at once, and one more whenever the list changes.
type stream struct{ pids []string }

const (
	streamLife   = time.Hour        // then the browser connects again by itself
	streamBeat   = 15 * time.Second // between signs of life, so that proxies keep it open
	streamPermit = 10 * time.Second // for a reader to take what is sent
)

// serve sends lists until the caller has gone.
func (s stream) serve(b *Broker, w http.ResponseWriter, r *http.Request) {
	conn := http.NewResponseController(w)
	// The listener's limits are for requests; this one is read.
	_ = conn.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	send := func(text ...[]byte) error {
		_ = conn.SetWriteDeadline(time.Now().Add(streamPermit))
		if _, err := w.Write(bytes.Join(text, nil)); err != nil {
			return err
		}
		return conn.Flush()
	}
	ctx, cancel := context.WithTimeout(r.Context(), streamLife)
	defer cancel()
	news := make(watcher, 1)
	defer b.unwatch(s.pids, news)
	beat := time.NewTicker(streamBeat)
	defer beat.Stop()
	var last []byte
	for {
		b.mu.Lock()
		list := b.waitingFor(s.pids, news)
		b.mu.Unlock()
		raw, err := json.Marshal(list) // one spelling for one list: maps go in order of their keys
		if err != nil {
			b.cfg.Logger.Error("a list does not encode", "error", err)
			return
		}
		if !bytes.Equal(raw, last) {
			if send([]byte("data: "), raw, []byte("\n\n")) != nil {
				return
			}
			last = raw
		}
		select {
		case <-news:
		case <-beat.C:
			if send([]byte(":\n\n")) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// waitingFor lists the events that wait for pids, and has w told of news. b.mu is
// held; unwatch ends it.
func (b *Broker) waitingFor(pids []string, w watcher) api.EventList {
	list := api.EventList{EventID: map[string][]string{}}
	now := b.now()
	for _, pid := range pids {
		for _, e := range b.byPID[pid] {
			if now < e.Exp {
				list.EventID[e.SeenID] = append(list.EventID[e.SeenID], pid)
			}
		}
		if b.watchers[pid] == nil {
			b.watchers[pid] = map[watcher]struct{}{}
		}
		b.watchers[pid][w] = struct{}{}
	}
	return list
}

// wake tells who watches a pairing that its list is another. b.mu is held.
func (b *Broker) wake(pid string) {
	for w := range b.watchers[pid] {
		select {
		case w <- struct{}{}:
		default: // it knows already
		}
	}
}
