package broker_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
	"softhem/internal/broker"
	"softhem/internal/broker/brokerdb"
	"softhem/internal/suite"
)

// A station is a running broker.
type station struct {
	t      testing.TB
	broker *broker.Broker
	db     *brokerdb.DB
	url    string
	clock  atomic.Int64 // nanoseconds that its clock is ahead
	now    func() time.Time
}

func startBroker(t testing.TB, dir string) *station { return startBrokerWith(t, dir, broker.Config{}) }

// startBrokerWith takes the domain and the limits from cfg.
func startBrokerWith(t testing.TB, dir string, cfg broker.Config) *station {
	t.Helper()
	db, err := brokerdb.Open(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	s := &station{t: t, db: db}
	s.now = func() time.Time { return time.Now().Add(time.Duration(s.clock.Load())) }
	cfg.DB, cfg.Logger, cfg.Now = db, slog.New(slog.DiscardHandler), s.now
	s.broker, err = broker.New(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s.broker.Handler())
	s.url = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		s.broker.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// module is a module that trusts the broker.
func (s *station) module(o hemtest.Options) *hemtest.Module {
	key, err := api.DecodeBase64(s.broker.Key())
	if err != nil {
		s.t.Fatal(err)
	}
	o.TrustedBackends = [][]byte{key}
	return hemtest.New(s.t, &o)
}

func (s *station) client() *hem.Broker {
	b, err := hem.NewBroker(hem.BrokerConfig{URL: s.url, Poll: 5 * time.Second})
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// call sends one request, past the client.
func (s *station) call(method, path string, in any, out any) int {
	s.t.Helper()
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			s.t.Fatal(err)
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequest(method, s.url+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if out != nil && resp.StatusCode == 200 {
		if err := json.Unmarshal(raw, out); err != nil {
			s.t.Fatalf("%s %s: %v: %s", method, path, err, raw)
		}
	}
	return resp.StatusCode
}

// pair pairs a new authenticator with the module.
func (s *station) pair(m *hemtest.Module) (*hem.Authenticator, *hem.Pairing) {
	s.t.Helper()
	var p *hem.Pairing
	kid, err := m.Client().Pair(context.Background(), s.client(), hem.PairParams{Show: func(offer string, _ time.Time) {
		var proven bool
		var err error
		if p, proven, err = hem.AcceptPairing(context.Background(), hem.BrokerConfig{}, offer, "phone"); err != nil || !proven {
			s.t.Errorf("accept: proven %v, %v", proven, err)
		}
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	if own, err := p.KID(); err != nil || own != kid {
		s.t.Fatalf("kid %s there, %s here, %v", kid, own, err)
	}
	a, err := hem.NewAuthenticator(*p, hem.BrokerConfig{Poll: 5 * time.Second})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(a.Close)
	return a, p
}

// stranger is a client without any credential.
func stranger(t testing.TB, m *hemtest.Module) *hem.Client {
	t.Helper()
	c, err := hem.New(hem.Config{URL: m.URL, CACert: m.CACert})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// next waits for one request.
func next(t testing.TB, a *hem.Authenticator) hem.Request {
	t.Helper()
	for range 20 {
		all, err := a.Requests(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if len(all) > 0 {
			return all[0]
		}
	}
	t.Fatal("no request came")
	return hem.Request{}
}

// remote logs in with an authenticator while act deals with the request.
func (s *station) remote(m *hemtest.Module, c *hem.Client, scope string, act func()) (hem.Token, error) {
	s.t.Helper()
	var wg sync.WaitGroup
	defer wg.Wait()
	return c.LoginRemote(context.Background(), s.client(), hem.RemoteParams{Scope: scope, Note: "test", Waiting: func(int, time.Time) { wg.Go(act) }})
}

// The whole round through a real broker: pair, ask, allow, narrow, deny, use, unpair.
func TestWholeRound(t *testing.T) {
	ctx := context.Background()
	s := startBroker(t, "")
	m := s.module(hemtest.Options{})
	c := stranger(t, m)
	if _, err := s.remote(m, c, "system:config", func() {}); !errors.Is(err, hem.ErrNoAuthenticator) {
		t.Errorf("before any pairing: %v", err)
	}
	a, p := s.pair(m)
	b, _ := s.pair(m)

	made, err := m.Client().CreateKey(ctx, hem.KeySpec{Type: api.Ed25519, Label: "release"})
	if err != nil {
		t.Fatal(err)
	}
	scope := api.ScopeKeyUse(made.String())
	token, err := s.remote(m, c, scope, func() {
		r := next(t, a)
		if r.Scope != scope || r.Key == nil || r.Key.Label != "release" || r.Key.Type != "ATT,PKEY,ExDSA,ED25519" || time.Until(r.Expires) > 901*time.Second {
			t.Errorf("shown %+v %+v", r, r.Key)
		}
		if err := a.Allow(ctx, r, 15*time.Minute, ""); err != nil {
			t.Error(err)
		}
		if err := a.Allow(ctx, r, time.Hour, ""); !isStatus(err, 410) {
			t.Errorf("allowed again: %v", err)
		}
		if err := b.Deny(ctx, r); err == nil {
			t.Error("the other denied what it cannot see by that pairing")
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if token.Scope != scope || token.EID != m.EID || time.Until(token.Expires) > 15*time.Minute || time.Until(token.Expires) < 14*time.Minute {
		t.Errorf("token %+v", token)
	}
	if _, err := c.Sign(ctx, made, []byte("m"), "Ed25519", nil); err != nil {
		t.Errorf("sign with the granted token, held by the client: %v", err)
	}

	token, err = s.remote(m, c, "storage:disk0:rw", func() {
		if err := b.Allow(ctx, next(t, b), time.Hour, "storage:disk0"); err != nil {
			t.Error(err)
		}
	})
	if err != nil || token.Scope != "storage:disk0" {
		t.Errorf("narrowed: %v, %v", token.Scope, err)
	}
	_, err = s.remote(m, c, "system:config", func() {
		if err := a.Deny(ctx, next(t, a)); err != nil {
			t.Error(err)
		}
	})
	if !errors.Is(err, hem.ErrDenied) {
		t.Errorf("denied: %v", err)
	}
	// Cancelled by who asked: the authenticator sees nothing any more.
	ctx2, cancel := context.WithCancel(ctx)
	var seen hem.Request
	_, err = c.LoginRemote(ctx2, s.client(), hem.RemoteParams{Scope: "logger:get", Waiting: func(int, time.Time) {
		seen = next(t, a)
		cancel()
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := a.Allow(ctx, seen, time.Hour, ""); !isStatus(err, 410) {
		t.Errorf("allowed after it was taken back: %v", err)
	}
	// Nobody answers: not as long as who asked would wait, and not as long as the
	// request is good.
	for _, p := range []hem.RemoteParams{
		{Scope: "logger:get", Timeout: time.Second},
		{Scope: "logger:get", Waiting: func(int, time.Time) { s.clock.Add(int64(time.Hour)) }},
	} {
		if _, err := c.LoginRemote(ctx, s.client(), p); !errors.Is(err, hem.ErrRemoteTimeout) {
			t.Errorf("waited for %v: %v", p.Timeout, err)
		}
	}
	// Unpaired at the broker it is not asked any more; at the module it could
	// not approve either.
	if err := a.Unpair(ctx); err != nil {
		t.Fatal(err)
	}
	if all, err := a.Requests(ctx); err != nil || len(all) != 0 {
		t.Errorf("requests after the unpairing: %v, %v", all, err)
	}
	kid, err := p.KID()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Client().DeleteKey(ctx, kid); err != nil {
		t.Error(err)
	}
}

func isStatus(err error, status int) bool {
	refused, ok := errors.AsType[*api.Error](err)
	return ok && refused.Status == status
}

// Two authenticators answer at once: one decides.
func TestTwoAuthenticatorsRace(t *testing.T) {
	ctx := context.Background()
	s := startBroker(t, "")
	m := s.module(hemtest.Options{})
	a, _ := s.pair(m)
	b, _ := s.pair(m)
	for range 10 {
		var won atomic.Int32
		_, err := s.remote(m, stranger(t, m), "system:config", func() {
			ra, rb := next(t, a), next(t, b)
			var wg sync.WaitGroup
			for _, act := range []func() error{
				func() error { return a.Allow(ctx, ra, time.Hour, "") }, func() error { return b.Deny(ctx, rb) },
			} {
				wg.Go(func() {
					if act() == nil {
						won.Add(1)
					}
				})
			}
			wg.Wait()
		})
		if won.Load() != 1 || err != nil && !errors.Is(err, hem.ErrDenied) {
			t.Fatalf("%d decided, %v", won.Load(), err)
		}
	}
}

// A module whose clock is fast: its requests are refused until it has checked
// in, which the client does, once.
func TestFastClock(t *testing.T) {
	s := startBroker(t, "")
	start := time.Now()
	fast := func() time.Time { return start.Add(time.Since(start)*108/100 + 300*time.Second) }
	m := s.module(hemtest.Options{Fresh: true, ClockUnset: true, Clock: fast})
	c := stranger(t, m)
	ctx := context.Background()
	s.clock.Store(int64(300 * time.Second)) // the broker's clock was right then
	if _, err := c.CheckIn(ctx, s.url); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Personalise(); err != nil {
		t.Fatal(err)
	}
	a, _ := s.pair(m)
	s.clock.Store(0) // and now the module is 300 s ahead
	// What was allowed to a module that was ahead is not lost: it checks in and asks again.
	token, err := s.remote(m, c, "system:config", func() {
		if err := a.Allow(ctx, next(t, a), time.Hour, ""); err != nil {
			t.Error(err)
		}
	})
	if err != nil || token.Scope != "system:config" {
		t.Errorf("%+v, %v", token, err)
	}
}

// The check-in of the vectors, from the broker's end: what it reads of a check,
// and that a right order reaches the module whose instance id it is, and no other.
func TestCheckin(t *testing.T) {
	s := startBroker(t, "")
	var v struct {
		Instance   string `json:"instance_id_hex"`
		SPKPrivate string `json:"spk_private"`
	}
	raw, err := os.ReadFile("testdata/checkin.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	instance := mustHex(t, v.Instance)
	spk := newKey(t, mustDecode(t, v.SPKPrivate))
	check := func(instance []byte) (status, jti, qid []byte, iat int64) {
		jti = suite.Random(32)
		qid = suite.HMACSHA256(instance, jti)
		token := sign(t, spk, s.broker.Key(), map[string]any{
			"jti": api.EncodeBase64(jti), "iss": api.EncodeBase64(spk.Public()), "qid": api.EncodeBase64(qid), "aud": s.broker.Key(),
		})
		var answer api.Checked
		if got := s.call("POST", "/checkin", api.Check{Check: token}, &answer); got != 200 {
			t.Fatalf("check-in: %d", got)
		}
		var c struct {
			JTI, Iss, Aud, Status string
			Iat                   int64
		}
		open(t, spk, answer.Checked, s.broker.Key(), &c)
		if c.JTI != api.EncodeBase64(jti) || c.Aud != api.EncodeBase64(spk.Public()) || c.Iss != s.broker.Key() {
			t.Errorf("claims %+v", c)
		}
		return mustDecode(t, c.Status), jti, qid, c.Iat
	}
	status, _, qid, iat := check(instance)
	if !bytes.Equal(status, suite.HMACSHA256(qid, []byte("OK"))) || max(iat-time.Now().Unix(), time.Now().Unix()-iat) > 2 {
		t.Errorf("status %x at %d", status, iat)
	}
	for word, letter := range map[string]string{"lock": "L", "wipe": "W", "report": "R", "stop": "B", "upgrade": "U"} {
		if err := broker.Order(s.db, word, v.Instance); err != nil {
			t.Fatal(err)
		}
		status, jti, _, _ := check(instance)
		if !bytes.Equal(status, suite.HMACSHA256(instance, []byte(letter), jti)) {
			t.Errorf("%s: status %x", word, status)
		}
		other := bytes.Clone(instance)
		other[0] ^= 1
		if status, _, qid, _ := check(other); !bytes.Equal(status, suite.HMACSHA256(qid, []byte("OK"))) {
			t.Errorf("%s reached another module", word)
		}
		if status, _, qid, _ := check(make([]byte, 16)); !bytes.Equal(status, suite.HMACSHA256(qid, []byte("OK"))) {
			t.Errorf("%s reached a fresh module", word)
		}
	}
	if err := broker.Order(s.db, "cancel", v.Instance); err != nil {
		t.Fatal(err)
	}
	if status, _, qid, _ := check(instance); !bytes.Equal(status, suite.HMACSHA256(qid, []byte("OK"))) {
		t.Error("a cancelled order was given")
	}
	for _, bad := range [][2]string{{"explode", v.Instance}, {"wipe", "x"}, {"wipe", v.Instance[2:]}} {
		if broker.Order(s.db, bad[0], bad[1]) == nil {
			t.Errorf("order %v is taken", bad)
		}
	}
	for name, body := range map[string]any{"nothing": map[string]any{}, "no eJWT": api.Check{Check: "a.b.c"}, "for another": api.Check{
		Check: sign(t, spk, api.EncodeBase64(newKey(t, suite.Random(32)).Public()), map[string]any{"jti": "", "iss": api.EncodeBase64(spk.Public())})}} {
		if got := s.call("POST", "/checkin", body, nil); got != 401 {
			t.Errorf("%s: %d", name, got)
		}
	}
}

// A reply that the broker made itself, or that comes from who did not see the
// code, pairs nobody.
func TestForgedPairing(t *testing.T) {
	ctx := context.Background()
	s := startBroker(t, "")
	m := s.module(hemtest.Options{})
	pair := func(change func(o map[string]string), confirm func(context.Context, string) (bool, error)) error {
		_, err := m.Client().Pair(ctx, s.client(), hem.PairParams{Confirm: confirm, Show: func(offer string, _ time.Time) {
			var o map[string]string
			if err := json.Unmarshal([]byte(offer), &o); err != nil {
				t.Fatal(err)
			}
			change(o)
			raw, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := hem.AcceptPairing(ctx, hem.BrokerConfig{}, string(raw), "thief"); err != nil {
				t.Error(err)
			}
		}})
		return err
	}
	without := func(o map[string]string) { delete(o, "k") }
	if err := pair(func(o map[string]string) { o["k"] = api.EncodeBase64(make([]byte, 16)) }, nil); !errors.Is(err, hem.ErrPairingForged) {
		t.Errorf("another k: %v", err)
	}
	if err := pair(without, nil); !errors.Is(err, hem.ErrPairingForged) {
		t.Errorf("no k and nobody to ask: %v", err)
	}
	if err := pair(without, func(context.Context, string) (bool, error) { return false, nil }); !errors.Is(err, hem.ErrPairingForged) {
		t.Errorf("other digits: %v", err)
	}
	if err := pair(without, func(_ context.Context, digits string) (bool, error) { return len(digits) == 8, nil }); err != nil {
		t.Errorf("an old authenticator, confirmed: %v", err)
	}
}

// What strangers can do with ids and sessions: nothing.
func TestStrangers(t *testing.T) {
	s := startBroker(t, "")
	m := s.module(hemtest.Options{})
	_, p := s.pair(m)
	var anonymous, again, bound api.BrokerSession
	s.call("GET", "/notify/session", nil, &anonymous)
	s.call("GET", "/notify/session", nil, &again)
	s.call("POST", "/notify/session", api.BrokerSessionFor{EID: m.EID}, &bound)
	if anonymous.EPK != again.EPK || anonymous.EPK == bound.EPK || anonymous.Exp < time.Now().Unix()+86_000 || bound.Paired == nil || !*bound.Paired || anonymous.Paired != nil {
		t.Errorf("sessions %+v %+v %+v", anonymous, again, bound)
	}
	for _, bad := range []api.BrokerSessionFor{{}, {EID: m.EID, AID: m.EID}, {EID: "AAAA"}} {
		if got := s.call("POST", "/notify/session", bad, nil); got != 400 {
			t.Errorf("session for %+v: %d", bad, got)
		}
	}
	ask := func(epk string) string {
		var r api.ExtRequestAnswer
		raw, _ := json.Marshal(api.ExtRequest{EPK: epk, Scope: "system:config"})
		resp, err := m.HTTPClient().Post(m.URL+"/api/auth/ext/request", "application/json", bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
			t.Fatal(err)
		}
		return r.AuthReq
	}
	if got := s.call("POST", "/notify/event/new", api.EventNew{AuthReq: ask(bound.EPK), EPK: bound.EPK}, nil); got != 404 {
		t.Errorf("an event with a bound epk: %d", got)
	}
	if got := s.call("POST", "/notify/event/new", api.EventNew{AuthReq: ask(bound.EPK), EPK: anonymous.EPK}, nil); got != 401 {
		t.Errorf("an authreq for another epk: %d", got)
	}
	if got := s.call("POST", "/notify/register/init", api.RegisterInit{EPK: anonymous.EPK, EID: m.EID, Request: "a.b.c"}, nil); got != 401 {
		t.Errorf("a registration with the anonymous epk: %d", got)
	}
	var e api.EventStarted
	if got := s.call("POST", "/notify/event/new", api.EventNew{AuthReq: ask(anonymous.EPK), EPK: anonymous.EPK}, &e); got != 200 || e.SentCnt != 1 {
		t.Fatalf("event %+v: %d", e, got)
	}
	pidx := base64.RawURLEncoding.EncodeToString(mustDecode(t, p.PID))
	var list api.EventList
	s.call("POST", "/notify/event/data/allbypid", api.EventPIDs{PID: []string{p.PID}}, &list)
	if len(list.EventID) != 1 {
		t.Fatalf("list %+v", list)
	}
	for seen := range list.EventID {
		if seen == e.EventID {
			t.Error("requester and authenticator know an event by one id")
		}
		for path, want := range map[string]int{
			"/notify/event/check/" + seen: 404, "/notify/event/data/" + e.EventID + "/" + pidx: 404, "/notify/event/check/" + e.EventID: 202,
			"/notify/event/data/" + seen + "/" + pidx: 200, "/notify/event/data/" + seen + "/" + strings.Repeat("A", 43): 404, "/notify/event/data/" + seen + "/x": 404,
		} {
			if got := s.call("GET", path, nil, nil); got != want {
				t.Errorf("GET %s: %d, want %d", path, got, want)
			}
		}
		if got := s.call("DELETE", "/notify/event/"+seen, nil, nil); got != 404 {
			t.Errorf("cancelled by the authenticator's id: %d", got)
		}
		for name, allow := range map[string]api.EventAllow{"no mac": {AuthReply: "x"}, "a wrong mac": {AuthReply: "x", MAC: api.EncodeBase64(make([]byte, 32))}} {
			if got := s.call("POST", "/notify/event/data/"+seen+"/"+pidx, allow, nil); got != 401 {
				t.Errorf("allowed with %s: %d", name, got)
			}
		}
	}
	for name, proof := range map[string]api.SubscriberProof{
		"a wrong mac": {PID: p.PID, AID: aidOf(t, p), Nonce: api.EncodeBase64(make([]byte, 32)), MAC: api.EncodeBase64(make([]byte, 32))},
	} {
		for _, path := range []string{"delete", "token"} {
			if got := s.call("POST", "/notify/subscribers/"+path, proof, nil); got != 401 {
				t.Errorf("%s with %s: %d", path, name, got)
			}
		}
	}
	// Its events end, and then nothing is known of them.
	s.clock.Store(int64(3601 * time.Second))
	if got := s.call("GET", "/notify/event/check/"+e.EventID, nil, nil); got != 404 {
		t.Errorf("after its end: %d", got)
	}
}

// What was decided, paired or begun outlives the process.
func TestBrokerRestarts(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db, err := brokerdb.Open(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	var current atomic.Pointer[http.Handler]
	boot := func() *broker.Broker {
		b, err := broker.New(ctx, broker.Config{DB: db, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		h := b.Handler()
		current.Store(&h)
		return b
	}
	b := boot()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*current.Load()).ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	s := &station{t: t, broker: b, db: db, url: server.URL}
	m := s.module(hemtest.Options{})
	a, _ := s.pair(m)
	restart := func() {
		key := b.Key()
		b.Close()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if db, err = brokerdb.Open(ctx, dir); err != nil {
			t.Fatal(err)
		}
		if b = boot(); b.Key() != key {
			t.Error("the broker's key changed")
		}
	}
	t.Cleanup(func() {
		b.Close()
		db.Close()
	})
	var anonymous api.BrokerSession
	s.call("GET", "/notify/session", nil, &anonymous)
	var r api.ExtRequestAnswer
	raw, _ := json.Marshal(api.ExtRequest{EPK: anonymous.EPK, Scope: "system:config"})
	resp, err := m.HTTPClient().Post(m.URL+"/api/auth/ext/request", "application/json", bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	var e api.EventStarted
	s.call("POST", "/notify/event/new", api.EventNew{AuthReq: r.AuthReq, EPK: anonymous.EPK}, &e)
	restart()
	if err := a.Allow(ctx, next(t, a), time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	restart()
	var c api.EventChecked
	if got := s.call("GET", "/notify/event/check/"+e.EventID, nil, &c); got != 200 || c.AuthReply == "" {
		t.Errorf("after a restart: %d %+v", got, c)
	}
	if all, err := a.Requests(ctx); err != nil || len(all) != 0 {
		t.Errorf("it is asked again: %v, %v", all, err)
	}
}

// One address, and one pairing, is asked for no more than it may.
func TestLimits(t *testing.T) {
	db, err := brokerdb.Open(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for name, cfg := range map[string]broker.Config{"address": {PerAddress: 1}, "pid": {PerPID: 1}} {
		cfg.DB, cfg.Now, cfg.Logger = db, time.Now, slog.New(slog.DiscardHandler)
		b, err := broker.New(context.Background(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		count := map[int]int{}
		for range 30 {
			w := httptest.NewRecorder()
			b.Handler().ServeHTTP(w, httptest.NewRequest("POST", "/notify/event/data/allbypid", strings.NewReader(`{"pid":["`+api.EncodeBase64(make([]byte, 32))+`"]}`)))
			count[w.Code]++
		}
		if count[200] < 10 || count[200] > 12 || count[429] != 30-count[200] {
			t.Errorf("%s: %v", name, count)
		}
		b.Close()
	}
}
