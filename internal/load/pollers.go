package load

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"softhem/api"
	"softhem/internal/session"
	"softhem/internal/suite"
)

// Pollers put on a broker what a house full of authenticators and the people who
// ask them do: each authenticator has a connection on which it waits for
// requests, reads and allows them, while requests come at a rate that does not
// depend on how fast they are answered. Modules and authenticators are keys made
// here; to the broker they are like any other.
type Pollers struct {
	Target Target
	N      int           // authenticators
	Rate   float64       // requests for an approval in a second
	Time   time.Duration // how long they come
	// Stream has every second authenticator read Server-Sent Events on its
	// connection, and act on a second one.
	Stream bool

	modules []*asking
	phones  []*waitingPhone
	epk     string
	conns   chan *Conn // of those who ask, when nobody uses them
	dialled atomic.Int64
	events  []eventState
	results results
}

// eventState is how often one request was taken by the broker, shown, allowed and
// answered: once each.
type eventState struct{ taken, listed, allowed, answered atomic.Int32 }

// Report is what came of a run.
type Report struct {
	Events     int     // requests for an approval
	Taken      int     // of them, that the broker took; the others did not reach it
	Lost       int     // of those, not shown, not allowed or not answered with what was allowed
	Twice      int     // of them, shown again after they were seen, allowed or answered more than once
	Failed     int     // HTTP requests that were refused or not answered
	FirstError string  // of those
	Delivered  Result  // from when a request was due to when its approval was there
	Late       Result  // from when it was due to when it was sent: of the load itself
	Dialled    int     // connections that those who ask made besides those for the requests of two seconds
	Rate       float64 // approvals that arrived in a second
}

type results struct {
	sync.Mutex
	delivered, late []time.Duration
	failed, twice   int
	firstErr        error
}

func (r *results) fail(err error) {
	r.Lock()
	defer r.Unlock()
	r.failed++
	if r.firstErr == nil {
		r.firstErr = err
	}
}

// asking is a module that asks, and waitingPhone one that is asked.
type asking struct {
	eid    string
	secret []byte // X25519(eid, epk)
}

type waitingPhone struct {
	module *asking
	secret []byte // X25519(aid, epk)
	pid    string // base64, and in paths
	pidx   string
	conn   *Conn
}

const (
	phonesPerModule = 8                // as many as a module pairs
	loadPatience    = 60 * time.Second // for one request, and for the last ones
	dialling        = 16               // connections made at once
)

// Prepare pairs the authenticators through the broker and connects them.
func (p *Pollers) Prepare(ctx context.Context) error {
	c, err := p.Target.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	var s api.BrokerSession
	if err := call(c, p.Target, "GET", "/notify/session", nil, &s); err != nil {
		return err
	}
	p.epk, p.conns = s.EPK, make(chan *Conn, p.N+int(p.Rate*loadPatience.Seconds()))
	p.phones = make([]*waitingPhone, p.N)
	p.modules = make([]*asking, (p.N+phonesPerModule-1)/phonesPerModule)
	_, err = Run(ctx, dialling, Bound{Count: int64(len(p.modules))}, func(_ int, i int64) error {
		return p.pair(int(i))
	})
	if err != nil {
		return err
	}
	// Who asks keeps its connection, too; only a burst makes more of them.
	_, err = Run(ctx, dialling, Bound{Count: int64(2 * p.Rate)}, func(int, int64) error {
		c, err := p.Target.Dial()
		if err == nil {
			p.conns <- c
		}
		return err
	})
	return err
}

// Close ends the connections.
func (p *Pollers) Close() {
	for _, ph := range p.phones {
		if ph != nil && ph.conn != nil {
			ph.conn.Close()
		}
	}
	for {
		select {
		case c := <-p.conns:
			c.Close()
		default:
			return
		}
	}
}

// pair makes one module and its authenticators, and has the broker know them.
func (p *Pollers) pair(m int) error {
	key, err := suite.NewX25519Key(suite.Random(suite.X25519Size))
	if err != nil {
		return err
	}
	mod := &asking{eid: api.EncodeBase64(key.Public())}
	if mod.secret, err = sharedWith(key, p.epk); err != nil {
		return err
	}
	p.modules[m] = mod
	for i := m * phonesPerModule; i < min((m+1)*phonesPerModule, p.N); i++ {
		c, err := p.Target.Dial()
		if err != nil {
			return err
		}
		ph := &waitingPhone{module: mod, conn: c}
		p.phones[i] = ph
		if err := p.pairPhone(ph, key); err != nil {
			return fmt.Errorf("pairing %d: %w", i, err)
		}
	}
	return nil
}

func (p *Pollers) pairPhone(ph *waitingPhone, module *suite.X25519Key) error {
	c, eid := ph.conn, ph.module.eid
	var bound api.BrokerSession
	if err := call(c, p.Target, "POST", "/notify/session", api.BrokerSessionFor{EID: eid}, &bound); err != nil {
		return err
	}
	forModule, err := sharedWith(module, bound.EPK)
	if err != nil {
		return err
	}
	request, err := session.SignEJWT(forModule, api.PairingRequestClaims{
		JTI: api.EncodeBase64(suite.Random(32)), Exp: time.Now().Unix() + 3600, Aud: bound.EPK, Iss: eid,
	})
	if err != nil {
		return err
	}
	var reg api.RegisterStarted
	if err := call(c, p.Target, "POST", "/notify/register/init", api.RegisterInit{EPK: bound.EPK, EID: eid, Request: request}, &reg); err != nil {
		return err
	}
	own, err := suite.NewX25519Key(suite.Random(suite.X25519Size))
	if err != nil {
		return err
	}
	if ph.secret, err = sharedWith(own, p.epk); err != nil {
		return err
	}
	forPhone, err := sharedWith(own, bound.EPK)
	if err != nil {
		return err
	}
	const reply = "reply" // the broker does not read it
	var given api.RegisterPID
	err = call(c, p.Target, "POST", "/notify/register/challenge/"+reg.RID, api.RegisterReply{
		Reply: reply, AID: api.EncodeBase64(own.Public()), MAC: mac(forPhone, reply),
	}, &given)
	if err != nil {
		return err
	}
	kid := suite.SHA1(own.Public())
	err = call(c, p.Target, "POST", "/notify/register/finalise/"+reg.RID, api.RegisterFinal{
		KID: hex.EncodeToString(kid[:api.KIDBytes]), Code: mac(forModule, reply),
	}, nil)
	if err != nil {
		return err
	}
	raw, err := api.DecodeBase64(given.PID)
	ph.pid, ph.pidx = given.PID, base64.RawURLEncoding.EncodeToString(raw)
	return err
}

func sharedWith(own *suite.X25519Key, public string) ([]byte, error) {
	raw, err := api.DecodeBase64(public)
	if err != nil {
		return nil, err
	}
	return own.Shared(raw)
}

func mac(secret []byte, text string) string {
	return api.EncodeBase64(suite.HMACSHA256(secret, []byte(text)))
}

// call sends one request and decodes its answer.
func call(c *Conn, t Target, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	if err := c.SetDeadline(time.Now().Add(loadPatience)); err != nil {
		return err
	}
	answer, err := c.Do(t.Request(method, path, "", body))
	if err != nil {
		where, _, _ := strings.Cut(path, "?")
		return fmt.Errorf("%s %s: %w", method, where, err)
	}
	if out == nil || len(answer) == 0 {
		return nil
	}
	return json.Unmarshal(answer, out)
}

func isStatus(err error, status int) bool {
	refused, ok := errors.AsType[*StatusError](err)
	return ok && refused.Status == status
}

// Run has requests come and be allowed, and accounts for each.
func (p *Pollers) Run(ctx context.Context) (Report, error) {
	n := int(p.Rate * p.Time.Seconds())
	p.events, p.results = make([]eventState, n), results{}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var phones, asked sync.WaitGroup
	for i, ph := range p.phones {
		phones.Go(func() {
			if p.Stream && i%2 == 1 {
				p.follow(ctx, ph)
			} else {
				p.poll(ctx, ph)
			}
		})
	}
	start := time.Now().Add(200 * time.Millisecond) // all of them wait by then, or soon
	for i := range n {
		due := start.Add(time.Duration(float64(i) / p.Rate * float64(time.Second)))
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			return Report{}, ctx.Err()
		}
		asked.Go(func() { p.ask(i, due) })
	}
	asked.Wait()
	took := time.Since(start)
	cancel()
	for _, ph := range p.phones { // wakes who waits for an answer
		_ = ph.conn.Close()
	}
	phones.Wait()
	return p.report(took), nil
}

func (p *Pollers) report(took time.Duration) Report {
	r := Report{Events: len(p.events), Failed: p.results.failed, Twice: p.results.twice, Dialled: int(p.dialled.Load())}
	r.Delivered.sum(p.results.delivered)
	r.Late.sum(p.results.late)
	r.Rate = float64(len(p.results.delivered)) / took.Seconds()
	for i := range p.events {
		e := &p.events[i]
		least, most := e.listed.Load(), e.listed.Load()
		for _, n := range []int32{e.allowed.Load(), e.answered.Load()} {
			least, most = min(least, n), max(most, n)
		}
		if e.taken.Load() > 0 {
			r.Taken++
			if least == 0 {
				r.Lost++
			}
		}
		if most > 1 {
			r.Twice++
		}
	}
	if p.results.firstErr != nil {
		r.FirstError = p.results.firstErr.Error()
	}
	return r
}

// ask is one who asks: it hands in the request that was due, and waits for what
// was decided.
func (p *Pollers) ask(i int, due time.Time) {
	late := time.Since(due)
	var c *Conn
	var err error
	select {
	case c = <-p.conns:
	default:
		p.dialled.Add(1)
		if c, err = p.Target.Dial(); err != nil {
			p.results.fail(err)
			return
		}
	}
	if err = p.askOver(c, i, due, late); err != nil {
		c.Close()
		p.results.fail(err)
		return
	}
	p.conns <- c
}

func (p *Pollers) askOver(c *Conn, i int, due time.Time, late time.Duration) error {
	ph := p.phones[i%len(p.phones)]
	jti := binary.BigEndian.AppendUint64(suite.Random(24), uint64(i))
	now := time.Now().Unix()
	authreq, err := session.SignEJWT(ph.module.secret, api.AuthReqClaims{
		Iss: ph.module.eid, Aud: p.epk, Iat: now, Exp: now + 3600, JTI: api.EncodeBase64(jti), Scope: map[string]string{ph.pid: "A" + api.EncodeBase64(jti)},
	})
	if err != nil {
		return err
	}
	var e api.EventStarted
	if err := call(c, p.Target, "POST", "/notify/event/new", api.EventNew{AuthReq: authreq, EPK: p.epk}, &e); err != nil {
		return err
	}
	p.events[i].taken.Add(1)
	if e.SentCnt != 1 {
		return fmt.Errorf("an event for %d authenticators", e.SentCnt)
	}
	for end := time.Now().Add(loadPatience); ; {
		var a api.EventChecked
		err := call(c, p.Target, "GET", "/notify/event/check/"+e.EventID+"?wait=30", nil, &a)
		if isStatus(err, http.StatusAccepted) && time.Now().Before(end) {
			continue
		}
		if err != nil {
			return err
		}
		if a.AuthReply != replyTo(jti) {
			return errors.New("an approval of another request")
		}
		p.events[i].answered.Add(1)
		p.results.Lock()
		defer p.results.Unlock()
		p.results.delivered = append(p.results.delivered, time.Since(due))
		p.results.late = append(p.results.late, late)
		return nil
	}
}

// replyTo is what an authenticator answers to a request; the broker does not read it.
func replyTo(jti []byte) string { return "allowed." + api.EncodeBase64(jti) }

// poll is an authenticator that asks again and again.
func (p *Pollers) poll(ctx context.Context, ph *waitingPhone) {
	done := map[string]bool{} // by the event's id
	again := func(id string) bool {
		if done[id] {
			p.results.Lock()
			p.results.twice++
			p.results.Unlock()
			return true
		}
		done[id] = true
		return false
	}
	for ctx.Err() == nil {
		var list api.EventList
		err := call(ph.conn, p.Target, "POST", "/notify/event/data/allbypid?wait=30", api.EventPIDs{PID: []string{ph.pid}}, &list)
		if err == nil {
			err = p.allowAll(ph.conn, ph, list, func(id string) bool { return !again(id) })
		}
		if err != nil {
			if ctx.Err() == nil {
				p.results.fail(err)
			}
			return
		}
	}
}

// follow is one that reads a stream, and acts on a connection beside it.
func (p *Pollers) follow(ctx context.Context, ph *waitingPhone) {
	fail := func(err error) {
		if ctx.Err() == nil {
			p.results.fail(err)
		}
	}
	acting, err := p.Target.Dial()
	if err != nil {
		fail(err)
		return
	}
	defer acting.Close()
	if _, err := ph.conn.Write(p.Target.Request("GET", "/notify/event/stream?pid="+ph.pidx, "", nil)); err != nil {
		fail(err)
		return
	}
	_ = ph.conn.SetDeadline(time.Time{})
	done := map[string]bool{}
	for {
		line, err := ph.conn.r.ReadSlice('\n')
		if err != nil {
			fail(err)
			return
		}
		data, ok := strings.CutPrefix(string(line), "data: ")
		if !ok {
			continue
		}
		var list api.EventList
		if err = json.Unmarshal([]byte(data), &list); err == nil {
			// A list that was on its way may still have what was allowed since.
			err = p.allowAll(acting, ph, list, func(id string) bool {
				known := done[id]
				done[id] = true
				return !known
			})
		}
		if err != nil {
			fail(err)
			return
		}
	}
}

// allowAll reads and allows the events of a list that are new.
func (p *Pollers) allowAll(c *Conn, ph *waitingPhone, list api.EventList, isNew func(id string) bool) error {
	for id := range list.EventID {
		if !isNew(id) {
			continue
		}
		path := "/notify/event/data/" + id + "/" + ph.pidx
		var data api.EventData
		if err := call(c, p.Target, "GET", path, nil, &data); err != nil {
			return err
		}
		jti, err := api.DecodeBase64(data.JTI)
		if err != nil || len(jti) != 32 {
			return errors.New("an event with a wrong jti")
		}
		i := binary.BigEndian.Uint64(jti[24:])
		if i >= uint64(len(p.events)) || data.Scope != "A"+data.JTI {
			return errors.New("an event that nobody asked for")
		}
		p.events[i].listed.Add(1)
		reply := replyTo(jti)
		if err := call(c, p.Target, "POST", path, api.EventAllow{AuthReply: reply, MAC: mac(ph.secret, reply)}, nil); err != nil {
			return err
		}
		p.events[i].allowed.Add(1)
	}
	return nil
}
