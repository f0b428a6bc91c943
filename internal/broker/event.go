package broker

import (
	"context"
	"net/http"
	"slices"
	"time"

	"softhem/api"
	"softhem/internal/session"
)

// An event is a request for an approval.
type event struct {
	ID     string            `json:"id"`     // the requester's
	SeenID string            `json:"seenid"` // the authenticators'
	Day    int64             `json:"day"`    // of the session key
	EPK    string            `json:"epk"`
	JTI    string            `json:"jti"`
	Exp    int64             `json:"exp"`
	Scope  map[string]string `json:"scope"` // sealed, by pid, of those who can see it
	From   map[string]string `json:"from,omitempty"`
	State  eventState        `json:"state"`
	By     string            `json:"by,omitzero"` // pid of who decided
	Reply  string            `json:"reply,omitzero"`

	durable bool          // State is on disk; until then nobody is told of it
	changed chan struct{} // closed when a decision is on disk
}

type eventState string

const (
	waiting   eventState = ""
	allowed   eventState = "allowed"
	denied    eventState = "denied"
	cancelled eventState = "cancelled"
)

// addEvent makes an event known. b.mu is held, or the broker not yet in use.
func (b *Broker) addEvent(e *event) {
	b.events[e.ID], b.seen[e.SeenID] = e, e
	if e.State != waiting {
		return
	}
	for pid := range e.Scope {
		b.byPID[pid] = append(b.byPID[pid], e)
		b.wake(pid)
	}
}

// unqueue takes an event from those that wait. b.mu is held.
func (b *Broker) unqueue(e *event) {
	for pid := range e.Scope {
		left := slices.DeleteFunc(b.byPID[pid], func(one *event) bool { return one == e })
		if len(left) == 0 {
			delete(b.byPID, pid)
		} else {
			b.byPID[pid] = left
		}
		b.wake(pid)
	}
}

func (b *Broker) eventNew(req api.EventNew) (api.EventStarted, error) {
	epk, ok := session.Decode32(req.EPK)
	if !ok || req.AuthReq == "" {
		return api.EventStarted{}, refuse(http.StatusBadRequest, "authreq or epk is missing or of the wrong length")
	}
	key, _, day := b.findSession(epk, anonymous)
	if key == nil {
		return api.EventStarted{}, refuse(http.StatusNotFound, "")
	}
	var c api.AuthReqClaims
	iss, err := session.OpenEJWT(key, req.AuthReq, &c)
	now := b.now()
	switch {
	case err != nil:
		return api.EventStarted{}, refuse(http.StatusUnauthorized, "authreq does not verify")
	case c.Iat > now+iatLead:
		return api.EventStarted{}, refuse(http.StatusUnauthorized, "iat is ahead of the broker's clock; check in")
	case c.Exp <= now:
		return api.EventStarted{}, refuse(http.StatusUnauthorized, "authreq has ended; check in")
	}
	eid := api.EncodeBase64(iss[:])
	e := &event{
		ID: newID(), SeenID: newID(), Day: day, EPK: req.EPK, JTI: c.JTI, Exp: min(c.Exp, now+eventLife),
		Scope: map[string]string{}, From: map[string]string{}, durable: true, changed: make(chan struct{}),
	}
	b.mu.Lock()
	for pid, sealed := range c.Scope {
		// A module calls its own authenticators only.
		if s := b.subscribers[pid]; s != nil && s.EID == eid && len(b.byPID[pid]) < api.MaxExtWaiting {
			e.Scope[pid] = sealed
			if from, ok := c.From[pid]; ok {
				e.From[pid] = from
			}
		}
	}
	b.mu.Unlock()
	if err := b.saveEvent(e); err != nil {
		return api.EventStarted{}, err
	}
	b.mu.Lock()
	b.addEvent(e)
	b.mu.Unlock()
	return api.EventStarted{EventID: e.ID, SentCnt: len(e.Scope)}, nil
}

func (b *Broker) saveEvent(e *event) error {
	return b.cfg.DB.Write(item(kindEvent, e.ID, e.Exp+eventMemory, e))
}

// eventCheck waits up to wait for a decision.
func (b *Broker) eventCheck(ctx context.Context, id string, wait time.Duration) (answer api.EventChecked, pending bool, err error) {
	err = b.await(ctx, wait, func() (<-chan struct{}, error) {
		e := b.events[id]
		switch {
		case e == nil, e.State == cancelled, b.now() >= e.Exp && e.State == waiting:
			return nil, refuse(http.StatusNotFound, "")
		case e.State == waiting || !e.durable:
			pending = true
			return e.changed, nil
		}
		pending = false
		answer = api.EventChecked{AuthReply: e.Reply, Deny: e.State == denied}
		return nil, nil
	})
	return answer, pending, err
}

// decide ends an event, once. Who comes second is refused at once; who comes
// first is told when the decision is on disk.
func (b *Broker) decide(e *event, state eventState, pid, reply string) error {
	b.mu.Lock()
	if e.State != waiting {
		defer b.mu.Unlock()
		return gone(e)
	}
	e.State, e.By, e.Reply, e.durable = state, pid, reply, false
	b.unqueue(e)
	record := item(kindEvent, e.ID, e.Exp+eventMemory, e)
	b.mu.Unlock()

	err := b.cfg.DB.Write(record)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		e.State, e.By, e.Reply, e.durable = waiting, "", "", true
		b.addEvent(e)
		return err
	}
	e.durable = true
	close(e.changed)
	return nil
}

func gone(e *event) error {
	if e.State == cancelled {
		return &refusal{http.StatusGone, api.EventGone{Reason: "cancelled"}}
	}
	return &refusal{http.StatusGone, api.EventGone{}}
}

func (b *Broker) eventCancel(id string) error {
	b.mu.Lock()
	e := b.events[id]
	b.mu.Unlock()
	if e == nil || b.now() >= e.Exp {
		return refuse(http.StatusNotFound, "")
	}
	return b.decide(e, cancelled, "", "")
}

// eventList waits up to wait for an event for one of the pids.
func (b *Broker) eventList(ctx context.Context, pids []string, wait time.Duration) (api.EventList, error) {
	news := make(watcher, 1)
	defer b.unwatch(pids, news)
	var list api.EventList
	err := b.await(ctx, wait, func() (<-chan struct{}, error) {
		if list = b.waitingFor(pids, news); len(list.EventID) > 0 || len(pids) == 0 {
			return nil, nil
		}
		return news, nil
	})
	return list, err
}

// A watcher is sent something when an event comes or ends for a pid it waits for.
type watcher chan struct{}

func (b *Broker) unwatch(pids []string, w watcher) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, pid := range pids {
		if delete(b.watchers[pid], w); len(b.watchers[pid]) == 0 {
			delete(b.watchers, pid)
		}
	}
}

// eventFor is an event as one pairing sees it.
func (b *Broker) eventFor(seenID, pid string) (*event, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.seen[seenID]
	if e == nil || b.now() >= e.Exp && e.State == waiting {
		return nil, refuse(http.StatusNotFound, "")
	}
	if _, ok := e.Scope[pid]; !ok {
		return nil, refuse(http.StatusNotFound, "")
	}
	if e.State != waiting {
		return nil, gone(e)
	}
	return e, nil
}

func (b *Broker) eventData(seenID, pid string) (api.EventData, error) {
	e, err := b.eventFor(seenID, pid)
	if err != nil {
		return api.EventData{}, err
	}
	return api.EventData{JTI: e.JTI, Scope: e.Scope[pid], EPK: e.EPK, Exp: e.Exp, From: e.From[pid]}, nil
}

func (b *Broker) eventAllow(seenID, pid string, req api.EventAllow) error {
	e, err := b.eventFor(seenID, pid)
	if err != nil {
		return err
	}
	b.mu.Lock()
	s := b.subscribers[pid]
	b.mu.Unlock()
	if s == nil {
		return refuse(http.StatusNotFound, "")
	}
	aid, _ := session.Decode32(s.AID)
	if req.AuthReply == "" || !proves(b.sessionKey(anonymous, e.Day), aid, req.MAC, []byte(req.AuthReply)) {
		return refuse(http.StatusUnauthorized, "mac does not verify")
	}
	return b.decide(e, allowed, pid, req.AuthReply)
}

func (b *Broker) eventDeny(seenID, pid string) error {
	e, err := b.eventFor(seenID, pid)
	if err != nil {
		return err
	}
	return b.decide(e, denied, pid, "")
}
