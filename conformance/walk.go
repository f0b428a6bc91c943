package conformance

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"softhem/api"
	"softhem/hem"
)

// A walk is one run of the suite: what it knows of the module.
type walk struct {
	o      Options
	ctx    context.Context
	report *Report
	client *http.Client
	host   string // of URL, without the port

	backend      *party // nil: not given
	user, master *party // once eid is known
	authority    *authority

	// Of the module.
	ppa, softhem, diag bool
	eid                string
	inited             bool // by this walk
	instance           []byte
	tokens             map[string]string // by role and scope, of this boot

	faults    []fault
	exchanges int
	silent    int         // requests in a row without an answer
	failures  []time.Time // of logins
}

func newWalk(ctx context.Context, o Options) (*walk, error) {
	w := &walk{o: o, ctx: ctx, tokens: make(map[string]string)}
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, err
	}
	w.host = u.Hostname()
	if !o.Accelerated {
		w.o.Damping = protocolDamping()
	}
	if o.BackendKey != nil {
		if w.backend, err = newParty(o.BackendKey); err != nil {
			return nil, err
		}
	}
	if w.authority, err = newAuthority(); err != nil {
		return nil, err
	}
	w.client = &http.Client{Transport: w.transport(), CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	w.report = &Report{URL: o.URL, Quirks: o.Quirks, Accelerated: o.Accelerated}
	return w, nil
}

func (w *walk) close() { w.client.CloseIdleConnections() }

// begin looks at what answers, and makes it fresh if it was told to.
func (w *walk) begin() error {
	a, err := w.send(request{method: "GET", path: "/api/system/version"})
	if err != nil {
		return &hem.UnreachableError{Op: "look at the module", URL: w.o.URL, Hint: "is it running, is the address right, and its certificate trusted?", Err: err}
	}
	v, err := parseObject(a.body)
	if a.status != http.StatusOK || err != nil {
		return fmt.Errorf("GET /api/system/version answered %d: what is at this address is hardly a HEM", a.status)
	}
	w.report.FWV, w.report.HWV = v.str("fwv"), v.str("hwv")
	w.ppa = strings.Contains(w.report.HWV, "PPA")
	w.softhem = strings.HasPrefix(w.report.FWV, "softhem ")
	w.diag = strings.HasSuffix(w.report.FWV, "-DIAG")
	st, err := w.status()
	if err != nil {
		return err
	}
	if !isFresh(st) {
		if !w.o.WipeFirst {
			return ErrPersonalised
		}
		if v := w.try(func(s *step) { s.wipeOld() }); v.outcome != Pass {
			return fmt.Errorf("the module could not be wiped: %s", v.reason)
		}
	}
	return nil
}

// end leaves a fresh module behind, where the walk personalised one.
func (w *walk) end() {
	if !w.inited || w.unreachable() != "" {
		return
	}
	if v := w.try(func(s *step) { s.wipe() }); v.outcome != Pass {
		w.prepared("to its end", v)
	}
}

func (w *walk) status() (object, error) {
	a, err := w.send(request{method: "GET", path: "/api/system/status"})
	if err != nil {
		return nil, fmt.Errorf("the module does not answer: %w", err)
	}
	st, err := parseObject(a.body)
	if a.status != http.StatusOK || err != nil {
		return nil, fmt.Errorf("GET /api/system/status answered %d", a.status)
	}
	return st, nil
}

// isFresh reads a status.
func isFresh(st object) bool { return st.has("inited") && !st.bool("inited") }

// statusNow is the status, or the end of the check.
func (s *step) statusNow() object {
	return s.object(s.want(s.get("/api/system/status", nil), 200), statusForm)
}

// ready has a module that is personalised and knows the time, and says why not.
func (w *walk) ready() string {
	v := w.try(func(s *step) {
		if !s.inited {
			s.clock()
			s.personalise()
		}
		s.clock()
	})
	if v.outcome != Pass {
		w.prepared("on a personalised module", v)
		return "the module could not be personalised: " + v.reason
	}
	return ""
}

// personas derives the keys for the module that answers, or takes those given.
func (s *step) personas(eid string) {
	if eid == s.eid && s.user != nil {
		return
	}
	s.eid = eid
	for _, p := range []struct {
		into       **party
		key        []byte
		passphrase []byte
		otherwise  string
	}{
		{&s.user, s.o.UserKey, s.o.UserPassphrase, DefaultUserPassphrase},
		{&s.master, s.o.MasterKey, s.o.MasterPassphrase, DefaultMasterPassphrase},
	} {
		key := p.key
		if key == nil {
			passphrase := p.passphrase
			if passphrase == nil {
				passphrase = []byte(p.otherwise)
			}
			seed, err := personaSeed(passphrase, eid)
			s.must(err, "the key of a persona")
			key = seed
		}
		made, err := newParty(key)
		s.must(err, "the key of a persona")
		*p.into = made
	}
}

func (s *step) persona(role api.Role) *party {
	if role == api.RoleMaster {
		return s.master
	}
	return s.user
}

// failureLimit is how many logins of one address may fail within a minute before it
// is refused for another. The walk keeps below, or its challenges would end while
// it waits.
const failureLimit = 10

// calm waits until no more than so many logins of the last minute have failed.
func (w *walk) calm(most int) {
	if w.o.Accelerated {
		return // the limit is off together with the delays
	}
	recent := w.failures[:0]
	for _, at := range w.failures {
		if time.Since(at) < time.Minute {
			recent = append(recent, at)
		}
	}
	if w.failures = recent; len(recent) > most {
		w.sleep(time.Until(recent[len(recent)-most-1].Add(time.Minute + time.Second)))
	}
}

// challenge asks for a login.
func (s *step) challenge() object {
	s.calm(failureLimit - 2) // one more may fail before the next
	return s.object(s.want(s.get("/api/auth/token", nil), 200), "exp:int spk:b64=32 jti:b64=32 lbl:str eid:b64=32")
}

// proof are the claims that answer a challenge.
func (s *step) proof(ch object, role api.Role, scope string) claims {
	now := ch.int("exp") - 60
	return claims{
		"jti": ch.str("jti"), "aud": ch.str("spk"), "iss": s.persona(role).public(),
		"iat": now - 5, "exp": now + 3600, "scope": scope,
	}
}

// answerWith posts a proof, and waits when the module says that too many failed.
func (s *step) answerWith(auth string) *answer {
	a := s.post("/api/auth/token", map[string]string{"auth": auth}, nil)
	for range 3 {
		if a.status != http.StatusTooManyRequests {
			break
		}
		seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
		if err != nil || seconds < 1 || seconds > 120 {
			s.failf("a 429 whose Retry-After is %q", a.header.Get("Retry-After"))
		}
		s.sleep(time.Duration(seconds) * time.Second)
		a = s.post("/api/auth/token", map[string]string{"auth": auth}, nil)
	}
	return a
}

// login gets a new token for a scope.
func (s *step) login(role api.Role, scope string) string {
	for range 3 {
		ch, began := s.challenge(), time.Now()
		s.personas(ch.str("eid"))
		a := s.answerWith(s.persona(role).sign(personaHeader, s.proof(ch, role, scope), ch.str("spk")))
		if a.status == http.StatusUnauthorized && time.Since(began) > 50*time.Second {
			continue // the challenge ended while it waited
		}
		return s.object(s.want(a, 200), "token:str").str("token")
	}
	s.failf("no login succeeds")
	return ""
}

// token is one for a scope, the same while the boot lasts.
func (s *step) token(role api.Role, scope string) *string {
	key := string(role) + " " + scope
	t, ok := s.tokens[key]
	if !ok {
		t = s.login(role, scope)
		s.tokens[key] = t
	}
	return &t
}

// as is a token of the user's.
func (s *step) as(scope string) *string { return s.token(api.RoleUser, scope) }

// reboot has the module boot anew, and waits until it is there and knows the time.
func (s *step) reboot() {
	var token *string
	if s.inited {
		token = s.as(api.ScopeSystemConfig)
	}
	s.empty(s.get("/api/system/reboot", token), 200)
	s.rebooted()
}

// rebooted waits for a boot that has begun.
func (s *step) rebooted() {
	s.tokens = make(map[string]string)
	s.client.CloseIdleConnections()
	s.back(func(st object) bool { return true })
	s.clock()
}

// back waits until the module answers, and its status is as it should be.
func (s *step) back(is func(object) bool) {
	limit := 3 * time.Minute
	if s.o.Accelerated {
		limit = 30 * time.Second
	}
	for begin := time.Now(); ; {
		st, err := s.walk.status()
		if err == nil && is(st) {
			s.silent = 0
			return
		}
		if time.Since(begin) > limit || s.ctx.Err() != nil {
			if err == nil {
				err = errNoAnswer
			}
			s.failf("after a boot: %v", err)
		}
		s.client.CloseIdleConnections()
		s.silent = 0
		s.sleep(min(50*time.Millisecond+time.Since(begin)/10, 2*time.Second))
	}
}

// random is n bytes.
func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// personaSeed is the private key that a passphrase stands for: the salt is the
// text of eid, and not its bytes.
func personaSeed(passphrase []byte, eid string) ([]byte, error) {
	return pbkdf2.Key(sha256.New, string(passphrase), []byte(eid), 600_000, 32)
}
