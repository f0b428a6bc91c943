// Package broker relays between modules and authenticators, and is the check-in
// authority: it tells modules the time. It learns who talks to whom and when; it
// learns no scope, no private key and no passphrase.
//
// What it remembers is in memory and, before anybody is told of it, in
// [brokerdb]: an approval that was taken is not lost when the process is killed.
package broker

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"softhem/api"
	"softhem/internal/broker/brokerdb"
	"softhem/internal/suite"
)

// Config is what a broker is made of.
type Config struct {
	DB     *brokerdb.DB
	Now    func() time.Time
	Logger *slog.Logger
	// PublicURL is the base of the links that authenticators are given; empty:
	// what the request's Host says.
	PublicURL string
	// Domain is what modules get names and certificates under, like hem.example;
	// empty: none. DomainKey is what who registers a new name has to know;
	// empty: nothing.
	Domain, DomainKey string
	// ACME, if it names a directory, is where those certificates come from.
	ACME ACME
	// NewFWS and NewUIS are what modules are told at a check-in that there is to
	// upgrade to: the fws of a program, 64 bytes, and the uis of a console, 32 bytes;
	// nil: nothing.
	NewFWS, NewUIS []byte
	// PerAddress and PerPID are how many requests a second one address makes,
	// and for one pairing are made, with a tenfold burst. 0: no limit.
	PerAddress, PerPID float64
}

// Defaults of Config.
const (
	DefaultPerAddress = 20
	DefaultPerPID     = 5
)

// consoleHash is the length of a uis in bytes.
const consoleHash = 32

// Lives of what a broker remembers, in seconds.
const (
	sessionPeriod = 86_400
	registerLife  = 86_400
	eventLife     = api.ExtRequestLife
	eventMemory   = 600 // an event that ended is known this much longer
	iatLead       = 5   // seconds an authreq may be ahead of the broker's clock
)

const (
	kindKey        brokerdb.Kind = "key"
	kindSubscriber brokerdb.Kind = "subscriber"
	kindRegister   brokerdb.Kind = "register"
	kindEvent      brokerdb.Kind = "event"
	kindOrder      brokerdb.Kind = "order"
)

// A Broker is an http.Handler. Its methods may be called concurrently.
type Broker struct {
	cfg     Config
	checkin *suite.X25519Key
	secret  *suite.MACKey // derives the session keys
	ca      *domainCA     // nil: no names are given, or ...
	acme    *acmeCA       // nil, or what gets certificates for them
	issues  *issues       // what that was asked for
	domains sync.Mutex    // held while names and certificates change
	ending  sync.Mutex    // held while a subscriber ends or changes, the write to disk included
	limits  limits
	stop    context.CancelFunc
	swept   sync.WaitGroup

	mu          sync.Mutex
	subscribers map[string]*subscriber          // by pid
	paired      map[string]int                  // how many subscribers have an eid or aid, by ofEID and ofAID of its text
	anonymous   map[int64]*suite.X25519Key      // session keys of logins, by day
	registers   map[string]*register            // by rid
	events      map[string]*event               // by the requester's id
	seen        map[string]*event               // by the authenticators' id
	byPID       map[string][]*event             // those that wait
	watchers    map[string]map[watcher]struct{} // by pid
}

// A subscriber is an authenticator's pairing. Its eid stays, so that no other
// module can call it.
type subscriber struct {
	PID string `json:"pid"`
	AID string `json:"aid"`
	EID string `json:"eid"`
	FID string `json:"fid"`
}

// addSubscriber makes a pairing known, or replaces it. b.mu is held, or the broker
// not yet in use.
func (b *Broker) addSubscriber(s *subscriber) {
	b.dropSubscriber(s.PID)
	b.subscribers[s.PID] = s
	b.paired[ofEID([]byte(s.EID))]++
	b.paired[ofAID([]byte(s.AID))]++
}

// dropSubscriber forgets a pairing. b.mu is held.
func (b *Broker) dropSubscriber(pid string) {
	s := b.subscribers[pid]
	if s == nil {
		return
	}
	delete(b.subscribers, pid)
	for _, who := range []string{ofEID([]byte(s.EID)), ofAID([]byte(s.AID))} {
		if b.paired[who]--; b.paired[who] == 0 {
			delete(b.paired, who)
		}
	}
}

type keyRecord struct {
	Checkin []byte `json:"checkin"` // X25519 scalar
	Session []byte `json:"session"` // 32 bytes
}

// New opens a broker over its database; an empty one gets a key.
func New(ctx context.Context, cfg Config) (*Broker, error) {
	if cfg.NewFWS != nil && len(cfg.NewFWS) != suite.Ed25519Sig || cfg.NewUIS != nil && len(cfg.NewUIS) != consoleHash {
		return nil, errors.New("what is announced must be 64 bytes of a fws, and 32 of a uis")
	}
	b := &Broker{
		cfg: cfg, limits: newLimits(cfg), issues: newIssues(cfg.ACME.PerHour),
		subscribers: map[string]*subscriber{}, paired: map[string]int{}, anonymous: map[int64]*suite.X25519Key{}, registers: map[string]*register{}, events: map[string]*event{},
		seen: map[string]*event{}, byPID: map[string][]*event{}, watchers: map[string]map[watcher]struct{}{},
	}
	if err := b.load(ctx); err != nil {
		return nil, err
	}
	ctx, b.stop = context.WithCancel(context.WithoutCancel(ctx))
	b.swept.Go(func() { b.sweep(ctx) })
	if b.acme != nil {
		b.swept.Go(func() { b.pursueAll(ctx) })
	}
	return b, nil
}

func (b *Broker) load(ctx context.Context) error {
	keys, err := b.cfg.DB.Read(ctx, kindKey)
	if err != nil {
		return err
	}
	var k keyRecord
	if len(keys) == 0 {
		k = keyRecord{suite.Random(32), suite.Random(32)}
		if err := b.cfg.DB.Write(item(kindKey, "broker", 0, k)); err != nil {
			return err
		}
	} else if err := json.Unmarshal(keys[0].Value, &k); err != nil {
		return fmt.Errorf("the broker's key is damaged: %w", err)
	}
	if b.checkin, err = suite.NewX25519Key(k.Checkin); err != nil {
		return fmt.Errorf("the broker's key is damaged: %w", err)
	}
	b.secret = suite.NewMACKey(k.Session)
	switch {
	case b.cfg.ACME.Directory != "":
		if !isName(b.cfg.Domain) {
			return errNoDomain(b.cfg.Domain)
		}
		if b.acme, err = openACME(ctx, b.cfg.DB, b.cfg.ACME); err != nil {
			return err
		}
	case b.cfg.Domain != "":
		if b.ca, err = openCA(ctx, b.cfg.DB, b.cfg.Domain, b.cfg.Now()); err != nil {
			return err
		}
	}
	now := b.now()
	if err := b.cfg.DB.Forget(ctx, now); err != nil {
		return err
	}
	err = readAll(ctx, b.cfg.DB, kindSubscriber, b.addSubscriber)
	err = errors.Join(err, readAll(ctx, b.cfg.DB, kindRegister, func(r *register) {
		b.registers[r.RID] = r.alive()
	}))
	if b.acme != nil {
		err = errors.Join(err, readAll(ctx, b.cfg.DB, kindIssue, b.issues.put))
	}
	return errors.Join(err, readAll(ctx, b.cfg.DB, kindEvent, func(e *event) {
		e.changed, e.durable = make(chan struct{}), true
		b.addEvent(e)
	}))
}

func readAll[T any](ctx context.Context, db *brokerdb.DB, kind brokerdb.Kind, each func(*T)) error {
	items, err := db.Read(ctx, kind)
	if err != nil {
		return err
	}
	for _, i := range items {
		v := new(T)
		if err := json.Unmarshal(i.Value, v); err != nil {
			return damaged(kind, i.ID, err)
		}
		each(v)
	}
	return nil
}

func damaged(kind brokerdb.Kind, id string, err error) error {
	return fmt.Errorf("%s %s in the broker's database is damaged: %w", kind, id, err)
}

func item(kind brokerdb.Kind, id string, exp int64, v any) brokerdb.Item {
	value, err := json.Marshal(v)
	if err != nil {
		panic("broker: a record does not encode: " + err.Error())
	}
	return brokerdb.Item{Kind: kind, ID: id, Exp: exp, Value: value}
}

// Close ends the broker's own work; the database stays the caller's.
func (b *Broker) Close() {
	b.stop()
	b.swept.Wait()
}

// Key is the public key of check-ins, base64: what a module has to trust.
func (b *Broker) Key() string { return api.EncodeBase64(b.checkin.Public()) }

// PublicKey is the same, 32 bytes.
func (b *Broker) PublicKey() []byte { return b.checkin.Public() }

func (b *Broker) now() int64 { return b.cfg.Now().Unix() }

// sweep forgets what has ended.
func (b *Broker) sweep(ctx context.Context) {
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := b.now()
		b.mu.Lock()
		for rid, r := range b.registers {
			if now >= r.Exp {
				delete(b.registers, rid)
			}
		}
		for id, e := range b.events {
			if now >= e.Exp {
				b.unqueue(e)
			}
			if now >= e.Exp+eventMemory {
				delete(b.events, id)
				delete(b.seen, e.SeenID)
			}
		}
		b.mu.Unlock()
		b.limits.sweep()
		b.issues.sweep(now)
		if err := b.cfg.DB.Forget(ctx, now); err != nil && ctx.Err() == nil {
			b.cfg.Logger.Error("what has ended could not be removed from the broker's database", "error", err)
		}
	}
}

// Session keys are derived, not stored, so that asking for one costs nothing:
//
//	epk = X25519 key with the scalar HMAC-SHA256(secret, whose ‖ 0x00 ‖ day, uint64 big-endian)
//
// whose is empty for the anonymous one, and eid or aid with a letter before it
// otherwise. A key is good on its day and the next.
//
// Each event takes the anonymous one, so that is kept; every stranger has one of
// the others.
func (b *Broker) sessionKey(whose string, day int64) *suite.X25519Key {
	if whose != anonymous {
		return b.deriveSession(whose, day)
	}
	b.mu.Lock()
	key := b.anonymous[day]
	b.mu.Unlock()
	if key != nil {
		return key
	}
	key = b.deriveSession(whose, day)
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.anonymous, func(d int64, _ *suite.X25519Key) bool { return d < day-1 })
	b.anonymous[day] = key
	return key
}

func (b *Broker) deriveSession(whose string, day int64) *suite.X25519Key {
	scalar := b.secret.Sum([]byte(whose), []byte{0}, binary.BigEndian.AppendUint64(nil, uint64(day)))
	key, err := suite.NewX25519Key(scalar[:])
	if err != nil {
		panic("broker: 32 bytes are no X25519 scalar")
	}
	return key
}

const anonymous = ""

func ofEID(eid []byte) string { return "e" + string(eid) }
func ofAID(aid []byte) string { return "a" + string(aid) }

func (b *Broker) session(whose string) api.BrokerSession {
	day := b.now() / sessionPeriod
	return api.BrokerSession{EPK: api.EncodeBase64(b.sessionKey(whose, day).Public()), Exp: (day + 2) * sessionPeriod}
}

// findSession is the key of an epk that is good now and is one of whose.
func (b *Broker) findSession(epk [32]byte, whose ...string) (key *suite.X25519Key, owner string, day int64) {
	today := b.now() / sessionPeriod
	for _, w := range whose {
		for _, day := range []int64{today, today - 1} {
			if k := b.sessionKey(w, day); suite.Equal(k.Public(), epk[:]) {
				return k, w, day
			}
		}
	}
	return nil, "", 0
}

// newID draws an id of 32 bytes, base64url.
func newID() string { return base64.RawURLEncoding.EncodeToString(suite.Random(32)) }

// limits bound how often one address asks, and one pairing is asked for.
type limits struct {
	address, pid *limiter
}

func newLimits(cfg Config) limits {
	return limits{newLimiter(cfg.PerAddress), newLimiter(cfg.PerPID)}
}

func (l limits) sweep() {
	l.address.sweep()
	l.pid.sweep()
}

const maxLimited = 1 << 16 // names a limiter remembers

type limiter struct {
	rate float64
	mu   sync.Mutex
	m    map[string]*rate.Limiter
}

func newLimiter(perSecond float64) *limiter {
	return &limiter{rate: perSecond, m: map[string]*rate.Limiter{}}
}

func (l *limiter) allow(name string) bool {
	if l.rate <= 0 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.m[name]
	if one == nil {
		if len(l.m) >= maxLimited {
			return false // until the next sweep
		}
		one = rate.NewLimiter(rate.Limit(l.rate), max(int(10*l.rate), 1))
		l.m[name] = one
	}
	return one.Allow()
}

// sweep forgets whom nothing has to be remembered of: their burst is whole.
func (l *limiter) sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, one := range l.m {
		if one.Tokens() >= float64(one.Burst()) {
			delete(l.m, name)
		}
	}
}
