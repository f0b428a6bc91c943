package broker

import (
	"context"
	"encoding/hex"
	"net/http"
	"sync"
	"time"

	"softhem/api"
	"softhem/internal/broker/brokerdb"
	"softhem/internal/session"
	"softhem/internal/suite"
)

// A register is a pairing under way: the module's request, then the
// authenticator's reply, then the module's word that it took it.
type register struct {
	RID     string `json:"rid"`
	EID     string `json:"eid"`
	Day     int64  `json:"day"` // of the session key
	Request string `json:"request"`
	Exp     int64  `json:"exp"`
	PID     string `json:"pid,omitzero"` // once there is a reply
	AID     string `json:"aid,omitzero"`
	FID     string `json:"fid,omitzero"`
	Reply   string `json:"reply,omitzero"`
	Refused bool   `json:"refused,omitzero"`
	Done    bool   `json:"done,omitzero"`

	changed chan struct{} // closed and replaced when there is news

	// changing is held by who changes it, the write to disk included, so that
	// of two replies one is first. The fields change under b.mu as well.
	changing *sync.Mutex
}

// alive gives a registration what it has only in memory.
func (r *register) alive() *register {
	r.changed, r.changing = make(chan struct{}), new(sync.Mutex)
	return r
}

func (b *Broker) wakeRegister(r *register) {
	close(r.changed)
	r.changed = make(chan struct{})
}

func (b *Broker) saveRegister(r *register) error {
	return b.cfg.DB.Write(item(kindRegister, r.RID, r.Exp, r))
}

func (b *Broker) registerInit(req api.RegisterInit, base string) (api.RegisterStarted, error) {
	eid, ok1 := session.Decode32(req.EID)
	epk, ok2 := session.Decode32(req.EPK)
	if !ok1 || !ok2 || req.Request == "" {
		return api.RegisterStarted{}, refuse(http.StatusBadRequest, "epk, eid or request is missing or of the wrong length")
	}
	key, _, day := b.findSession(epk, ofEID(eid[:]))
	if key == nil {
		return api.RegisterStarted{}, refuse(http.StatusUnauthorized, "epk is of no session of this eid")
	}
	var c api.PairingRequestClaims
	iss, err := session.OpenEJWT(key, req.Request, &c)
	now := b.now()
	if err != nil || !suite.Equal(iss[:], eid[:]) || c.Exp <= now {
		return api.RegisterStarted{}, refuse(http.StatusUnauthorized, "the request does not verify or has ended")
	}
	r := (&register{
		RID: newID(), EID: api.EncodeBase64(eid[:]), Day: day, Request: req.Request, Exp: min(c.Exp, now+registerLife),
	}).alive()
	if err := b.saveRegister(r); err != nil {
		return api.RegisterStarted{}, err
	}
	b.mu.Lock()
	b.registers[r.RID] = r
	b.mu.Unlock()
	return api.RegisterStarted{RID: r.RID, Link: base + pathChallenge + r.RID}, nil
}

// registerOf finds a registration that is alive. b.mu is held.
func (b *Broker) registerOf(rid string) (*register, error) {
	r := b.registers[rid]
	if r == nil || b.now() >= r.Exp || r.Refused {
		return nil, refuse(http.StatusNotFound, "")
	}
	return r, nil
}

func (b *Broker) registerChallenge(rid string) (api.RegisterChallenge, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, err := b.registerOf(rid)
	if err != nil {
		return api.RegisterChallenge{}, err
	}
	return api.RegisterChallenge{Request: r.Request}, nil
}

// changeRegister changes a registration, stores it and tells who waits. What
// change refuses changes nothing. b.mu is not held meanwhile: a pairing that
// waits for the disk keeps nobody else waiting.
func (b *Broker) changeRegister(rid string, change func(*register) error, more ...func(register) brokerdb.Item) error {
	find := func() (*register, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.registerOf(rid)
	}
	r, err := find()
	if err != nil {
		return err
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	if _, err := find(); err != nil { // it was refused, or ended, meanwhile
		return err
	}
	next := *r
	if err := change(&next); err != nil {
		return err
	}
	items := []brokerdb.Item{item(kindRegister, rid, next.Exp, &next)}
	for _, m := range more {
		items = append(items, m(next))
	}
	if err := b.cfg.DB.Write(items...); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	*r = next
	b.wakeRegister(r)
	return nil
}

func (b *Broker) registerReply(rid string, req api.RegisterReply) (api.RegisterPID, error) {
	aid, ok := session.Decode32(req.AID)
	if !ok || req.Reply == "" || len(req.FID) > maxFID {
		return api.RegisterPID{}, refuse(http.StatusBadRequest, "reply, aid or fid is missing or too long")
	}
	pid := api.EncodeBase64(suite.Random(32))
	err := b.changeRegister(rid, func(r *register) error {
		if r.Reply != "" {
			return refuse(http.StatusGone, "")
		}
		eid, _ := session.Decode32(r.EID)
		if !proves(b.sessionKey(ofEID(eid[:]), r.Day), aid, req.MAC, []byte(req.Reply), []byte(req.FID)) {
			return refuse(http.StatusUnauthorized, "mac does not verify")
		}
		r.PID, r.AID, r.FID, r.Reply = pid, api.EncodeBase64(aid[:]), req.FID, req.Reply
		return nil
	})
	return api.RegisterPID{PID: pid}, err
}

// maxFID is the longest push token in bytes.
const maxFID = 512

// proves tells whether a MAC shows that its maker holds the key of aid.
func proves(key *suite.X25519Key, aid [32]byte, mac string, parts ...[]byte) bool {
	got, ok := session.Decode32(mac)
	secret, err := key.Shared(aid[:])
	if err != nil {
		return false
	}
	defer clear(secret)
	return suite.Equal(suite.HMACSHA256(secret, parts...), got[:]) && ok
}

func (b *Broker) registerRefuse(rid string) error {
	return b.changeRegister(rid, func(r *register) error {
		if r.Reply != "" {
			return refuse(http.StatusGone, "")
		}
		r.Refused = true
		return nil
	})
}

// registerCheck waits up to wait for a reply; pending tells that there is none.
func (b *Broker) registerCheck(ctx context.Context, rid string, wait time.Duration) (answer api.RegisterChecked, pending bool, err error) {
	err = b.await(ctx, wait, func() (<-chan struct{}, error) {
		r, err := b.registerOf(rid)
		if err != nil {
			return nil, err
		}
		if pending = r.Reply == ""; pending {
			return r.changed, nil
		}
		answer = api.RegisterChecked{PID: r.PID, Reply: r.Reply}
		return nil, nil
	})
	return answer, pending, err
}

// await calls look under b.mu until it returns no channel, or wait is over; while
// it returns one, that is waited for.
func (b *Broker) await(ctx context.Context, wait time.Duration, look func() (<-chan struct{}, error)) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		b.mu.Lock()
		news, err := look()
		b.mu.Unlock()
		if err != nil || news == nil {
			return err
		}
		select {
		case <-news:
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// registerFinal takes the module's word that it stored the authenticator.
func (b *Broker) registerFinal(rid string, req api.RegisterFinal) error {
	var s *subscriber
	err := b.changeRegister(rid, func(r *register) error {
		eid, _ := session.Decode32(r.EID)
		aid, ok := session.Decode32(r.AID)
		if !ok {
			return refuse(http.StatusNotFound, "") // there is no reply yet
		}
		sum := suite.SHA1(aid[:])
		key := b.sessionKey(ofEID(eid[:]), r.Day)
		if req.KID != hex.EncodeToString(sum[:api.KIDBytes]) || !proves(key, eid, req.Code, []byte(r.Reply)) {
			return refuse(http.StatusUnauthorized, "code does not verify")
		}
		r.Done = true
		s = &subscriber{PID: r.PID, AID: r.AID, EID: r.EID, FID: r.FID}
		return nil
	}, func(register) brokerdb.Item { return item(kindSubscriber, s.PID, 0, s) })
	if err == nil {
		b.mu.Lock()
		b.addSubscriber(s)
		b.mu.Unlock()
	}
	return err
}

func (b *Broker) sessionFor(req api.BrokerSessionFor) (api.BrokerSession, error) {
	eid, isEID := session.Decode32(req.EID)
	aid, isAID := session.Decode32(req.AID)
	var s api.BrokerSession
	switch {
	case isEID == isAID:
		return s, refuse(http.StatusBadRequest, "one of eid and aid is wanted, 32 bytes in base64")
	case isEID:
		s = b.session(ofEID(eid[:]))
	default:
		s = b.session(ofAID(aid[:]))
	}
	who := ofEID([]byte(api.EncodeBase64(eid[:])))
	if isAID {
		who = ofAID([]byte(api.EncodeBase64(aid[:])))
	}
	b.mu.Lock()
	paired := b.paired[who] > 0
	b.mu.Unlock()
	s.Paired = &paired
	return s, nil
}

// subscriberOf finds the pairing that a proof is by.
func (b *Broker) subscriberOf(req api.SubscriberProof) (*subscriber, error) {
	pid, ok1 := session.Decode32(req.PID)
	aid, ok2 := session.Decode32(req.AID)
	nonce, ok3 := session.Decode32(req.Nonce)
	if !ok1 || !ok2 || !ok3 || len(req.FID) > maxFID {
		return nil, refuse(http.StatusBadRequest, "pid, aid or nonce is missing or of the wrong length")
	}
	b.mu.Lock()
	s := b.subscribers[api.EncodeBase64(pid[:])]
	b.mu.Unlock()
	if s == nil || s.AID != api.EncodeBase64(aid[:]) {
		return nil, refuse(http.StatusNotFound, "")
	}
	eid, _ := session.Decode32(s.EID)
	today := b.now() / sessionPeriod
	for _, whose := range []string{anonymous, ofAID(aid[:]), ofEID(eid[:])} {
		for _, day := range []int64{today, today - 1} {
			key := b.sessionKey(whose, day)
			if epk, ok := session.Decode32(req.EPK); req.EPK != "" && (!ok || !suite.Equal(epk[:], key.Public())) {
				continue
			}
			if proves(key, aid, req.MAC, nonce[:], []byte(req.FID)) {
				return s, nil
			}
		}
	}
	return nil, refuse(http.StatusUnauthorized, "mac does not verify")
}

func (b *Broker) unsubscribe(req api.SubscriberProof) error {
	s, err := b.subscriberOf(req)
	if err != nil {
		return err
	}
	b.ending.Lock()
	defer b.ending.Unlock()
	if err := b.cfg.DB.Write(brokerdb.Item{Kind: kindSubscriber, ID: s.PID}); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropSubscriber(s.PID)
	return nil
}

func (b *Broker) newToken(req api.SubscriberProof) error {
	if _, err := b.subscriberOf(req); err != nil {
		return err
	}
	b.ending.Lock()
	defer b.ending.Unlock()
	s, err := b.subscriberOf(req) // or it was unpaired meanwhile, and must stay so
	if err != nil {
		return err
	}
	next := *s
	next.FID = req.FID
	if err := b.cfg.DB.Write(item(kindSubscriber, s.PID, 0, &next)); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addSubscriber(&next)
	return nil
}
