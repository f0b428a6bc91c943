package broker_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/broker"
	"softhem/internal/suite"
)

// TestThreat_T163: an unpairing is for good, also when a new push token comes at the same moment:
// neither this process nor the next knows the pairing again.
func TestThreat_T163_AnUnpairingIsForGood(t *testing.T) {
	s := startBroker(t, "")
	m := s.module(hemtest.Options{})
	for range 5 {
		_, p := s.pair(m)
		var session api.BrokerSession
		s.call("GET", "/notify/session", nil, &session)
		secret, err := newKey(t, p.Private).Shared(mustDecode(t, session.EPK))
		if err != nil {
			t.Fatal(err)
		}
		proof := func(fid string) api.SubscriberProof {
			nonce := suite.Random(32)
			return api.SubscriberProof{
				PID: p.PID, AID: aidOf(t, p), FID: fid, Nonce: api.EncodeBase64(nonce),
				MAC: api.EncodeBase64(suite.HMACSHA256(secret, nonce, []byte(fid))),
			}
		}
		if got := s.call("POST", "/notify/subscribers/token", proof("first"), nil); got != 200 {
			t.Fatalf("a new token: %d", got)
		}
		var both sync.WaitGroup
		for range 4 {
			both.Go(func() { s.call("POST", "/notify/subscribers/token", proof("another"), nil) })
		}
		both.Go(func() {
			if got := s.call("POST", "/notify/subscribers/delete", proof(""), nil); got != 200 {
				t.Errorf("unpair: %d", got)
			}
		})
		both.Wait()
		known := func() (paired, open bool) {
			var phone api.BrokerSession
			s.call("POST", "/notify/session", api.BrokerSessionFor{AID: aidOf(t, p)}, &phone)
			return *phone.Paired, s.call("POST", "/notify/subscribers/token", proof("late"), nil) != 404
		}
		if paired, open := known(); paired || open {
			t.Errorf("it is known after the unpairing: %v, %v", paired, open)
		}
		next, err := broker.New(context.Background(), broker.Config{DB: s.db, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if n := next.SubscribersForTest(); n != 0 {
			t.Errorf("the next process knows %d pairings", n)
		}
		next.Close()
		kid, err := p.KID()
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Client().DeleteKey(context.Background(), kid); err != nil {
			t.Fatal(err)
		}
	}
}
