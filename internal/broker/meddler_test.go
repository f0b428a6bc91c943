package broker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
)

// A meddler is a hostile broker: a real one, with somebody in front of it who
// reads everything and answers what they like. All that its operator could do
// with a real one's code, database and keys comes down to this: none of the keys
// of a module or an authenticator are there.
type meddler struct {
	*station
	mu     sync.Mutex
	meddle func(x *meeting) bool // true: it answered
	heard  bytes.Buffer          // every body that passed, both ways
}

// A meeting is one request at a hostile broker.
type meeting struct {
	*http.Request
	m    *meddler
	w    http.ResponseWriter
	body []byte
}

func startMeddler(t testing.TB) *meddler {
	t.Helper()
	m := &meddler{station: startBroker(t, "")}
	front := httptest.NewServer(m)
	t.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
	})
	m.url = front.URL // what everybody is told
	return m
}

// do has the broker meddle from here on; nil: no more.
func (m *meddler) do(f func(x *meeting) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.meddle = f
}

func (m *meddler) hear(b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard.Write(append(b, '\n'))
}

func (m *meddler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // who asked has gone
	}
	m.hear(body)
	m.mu.Lock()
	meddle := m.meddle
	m.mu.Unlock()
	x := &meeting{r, m, w, body}
	if meddle != nil && meddle(x) {
		return
	}
	x.give(x.real())
}

func (x *meeting) is(method, path string) bool {
	return x.Method == method && strings.HasPrefix(x.URL.Path, path)
}

// real is what the real broker says.
func (x *meeting) real() *httptest.ResponseRecorder {
	x.Body = io.NopCloser(bytes.NewReader(x.body))
	answer := httptest.NewRecorder()
	x.m.broker.Handler().ServeHTTP(answer, x.Request)
	return answer
}

func (x *meeting) give(answer *httptest.ResponseRecorder) {
	x.m.hear(answer.Body.Bytes())
	x.w.Header().Set("Content-Type", "application/json")
	x.w.WriteHeader(answer.Code)
	x.w.Write(answer.Body.Bytes())
}

// say answers 200 with v.
func (x *meeting) say(v any) bool {
	x.w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(x.w).Encode(v) == nil
}

// changed lets the real broker answer, and changes what it said.
func changed[T any](x *meeting, change func(*T)) bool {
	answer := x.real()
	var v T
	if answer.Code != 200 || json.Unmarshal(answer.Body.Bytes(), &v) != nil {
		x.give(answer)
		return true
	}
	change(&v)
	return x.say(v)
}

const (
	pathList  = "/notify/event/data/allbypid"
	pathData  = "/notify/event/data/"
	pathCheck = "/notify/event/check/"
)

// An asking is a login that waits for an authenticator.
type asking struct {
	t     *testing.T
	done  chan struct{}
	token hem.Token
	err   error
	stop  context.CancelFunc
}

// ask begins a login, and returns when the broker has been told of it.
func (m *meddler) ask(t *testing.T, c *hem.Client, scope string) *asking {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	a := &asking{t: t, done: make(chan struct{}), stop: stop}
	told := make(chan struct{})
	go func() {
		defer close(a.done)
		a.token, a.err = c.LoginRemote(ctx, m.client(), hem.RemoteParams{Scope: scope, Waiting: func(int, time.Time) { close(told) }})
	}()
	t.Cleanup(func() {
		stop()
		<-a.done
	})
	select {
	case <-told:
	case <-a.done:
		t.Fatalf("nobody was asked: %v", a.err)
	}
	return a
}

// fails waits for the end of a login that must earn nothing.
func (a *asking) fails(want func(error) bool) {
	a.t.Helper()
	<-a.done
	if a.err == nil {
		a.t.Errorf("a token for %q, which nobody allowed", a.token.Scope)
	} else if !want(a.err) {
		a.t.Errorf("it failed with %v", a.err)
	}
}

// earns waits for the end of a login that was allowed.
func (a *asking) earns(scope string) {
	a.t.Helper()
	<-a.done
	if a.err != nil || a.token.Scope != scope {
		a.t.Errorf("%q, %v, want a token for %q", a.token.Scope, a.err, scope)
	}
}

func refusedWith(status int) func(error) bool {
	return func(err error) bool { return isStatus(err, status) }
}

func because(cause error) func(error) bool {
	return func(err error) bool { return errors.Is(err, cause) }
}

// post sends one request to the module, as anybody can.
func post(t testing.TB, m *hemtest.Module, path string, in any, out any) int {
	t.Helper()
	raw, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := m.HTTPClient().Post(m.URL+path, "application/json", bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == 200 && out != nil {
		if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
			t.Fatal(err)
		}
	}
	return resp.StatusCode
}

// redeem tries an approval at the module, as its broker could.
func redeem(t testing.TB, m *hemtest.Module, reply string, proof []byte) (status int, scope string) {
	t.Helper()
	var got api.TokenAnswer
	status = post(t, m, "/api/auth/ext/token", api.ExtToken{AuthReply: reply, Proof: api.EncodeBase64(proof)}, &got)
	if status == 200 {
		token, err := hem.InspectToken(got.Token)
		if err != nil {
			t.Fatal(err)
		}
		scope = token.Scope
	}
	return status, scope
}

// event puts a request to the broker that is bound to nobody, and returns its id
// and what the module wrote.
func (m *meddler) event(t testing.TB, module *hemtest.Module, scope string) (id string, authreq api.AuthReqClaims) {
	t.Helper()
	var session api.BrokerSession
	m.call("GET", "/notify/session", nil, &session)
	var asked api.ExtRequestAnswer
	if got := post(t, module, "/api/auth/ext/request", api.ExtRequest{EPK: session.EPK, Scope: scope}, &asked); got != 200 {
		t.Fatalf("request: %d", got)
	}
	var started api.EventStarted
	if got := m.call("POST", "/notify/event/new", api.EventNew{AuthReq: asked.AuthReq, EPK: session.EPK}, &started); got != 200 {
		t.Fatalf("event: %d", got)
	}
	claimsOf(t, asked.AuthReq, &authreq)
	return started.EventID, authreq
}

// reply is the approval of an event that was allowed.
func (m *meddler) reply(t testing.TB, id string) string {
	t.Helper()
	var c api.EventChecked
	if got := m.call("GET", pathCheck+id, nil, &c); got != 200 || c.AuthReply == "" {
		t.Fatalf("check: %d %+v", got, c)
	}
	return c.AuthReply
}

// A person is an authenticator, and why it did not show what it was given.
type person struct {
	*hem.Authenticator
	pairing *hem.Pairing
	leftOut map[string]error
}

func (m *meddler) person(t *testing.T, module *hemtest.Module, now func() time.Time) *person {
	t.Helper()
	_, p := m.pair(module)
	return m.personOf(t, *p, now)
}

// personOf begins anew with what was kept of a pairing.
func (m *meddler) personOf(t *testing.T, p hem.Pairing, now func() time.Time) *person {
	t.Helper()
	a, err := hem.NewAuthenticator(p, hem.BrokerConfig{Poll: time.Second, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	one := &person{a, &p, map[string]error{}}
	a.LeftOut = func(r hem.Request, why error) { one.leftOut[fmt.Sprint(len(one.leftOut))] = why }
	a.Keep = func(request string, until time.Time) error {
		one.pairing.Remember(request, until, now())
		return nil
	}
	return one
}

// shows are the scopes that are shown now.
func (p *person) shows(t testing.TB) (scopes []string) {
	t.Helper()
	all, err := p.Requests(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		scopes = append(scopes, r.Scope)
	}
	return scopes
}

// see is the one request that is shown, which has to be for scope.
func (p *person) see(t testing.TB, scope string) hem.Request {
	t.Helper()
	all, err := p.Requests(context.Background())
	if err != nil || len(all) != 1 || all[0].Scope != scope {
		t.Fatalf("shown: %+v, %v, want %q", all, err, scope)
	}
	return all[0]
}

func (p *person) allow(t testing.TB, scope string) hem.Request {
	t.Helper()
	r := p.see(t, scope)
	if err := p.Allow(context.Background(), r, time.Hour, ""); err != nil {
		t.Fatal(err)
	}
	return r
}

// seesNothing checks that nothing is shown, and why.
func (p *person) seesNothing(t testing.TB, why error) {
	t.Helper()
	p.leftOut = map[string]error{}
	if got := p.shows(t); len(got) != 0 {
		t.Errorf("shown: %q", got)
	}
	for _, err := range p.leftOut {
		if !errors.Is(err, why) {
			t.Errorf("left out because of %v, want %v", err, why)
		}
	}
	if why != nil && len(p.leftOut) == 0 {
		t.Errorf("nothing was left out, want %v", why)
	}
}
