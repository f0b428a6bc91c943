package broker_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
	"softhem/internal/suite"
)

// A world is a hostile broker and everybody who has to do with it. One clock
// serves them all, and moves only forward.
type world struct {
	*meddler
	module, other *hemtest.Module // other is a second one, with the same broker
	alice, bob    *person         // both paired with module
	carol         *person         // with other
	key           string          // a kid of module
	ahead         atomic.Int64    // nanoseconds
}

const keyLabel = "release"

func startWorld(t *testing.T) *world {
	t.Helper()
	w := &world{meddler: startMeddler(t)}
	w.module = w.station.module(hemtest.Options{Clock: w.now})
	w.other = w.station.module(hemtest.Options{Clock: w.now, Seed: "other"})
	w.alice, w.bob = w.person(t, w.module, w.now), w.person(t, w.module, w.now)
	w.carol = w.person(t, w.other, w.now)
	kid, err := w.module.Client().CreateKey(t.Context(), hem.KeySpec{Type: api.Ed25519, Label: keyLabel})
	if err != nil {
		t.Fatal(err)
	}
	w.key = kid.String()
	return w
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

// later lets time pass, for everybody.
func (w *world) later(d time.Duration) {
	w.ahead.Add(int64(d))
	w.clock.Store(w.ahead.Load())
}

// login asks module for a token, as somebody who has nothing.
func (w *world) login(t *testing.T, scope string) *asking {
	t.Helper()
	return w.ask(t, stranger(t, w.module), scope)
}

// unbound is a request whose approval belongs to whoever has it.
func (w *world) unbound(t *testing.T, m *hemtest.Module, scope string) (id string, req api.AuthReqClaims) {
	t.Helper()
	id, req = w.event(t, m, scope)
	t.Cleanup(func() { w.call("DELETE", "/notify/event/"+id, nil, nil) })
	return id, req
}

// clear ends what still waits, as who knows a pid can.
func (w *world) clear() {
	for _, p := range []*person{w.alice, w.bob, w.carol} {
		if p == nil {
			continue
		}
		var all api.EventList
		w.call("POST", pathList, api.EventPIDs{PID: []string{p.pairing.PID}}, &all)
		for id := range all.EventID {
			w.call("DELETE", pathData+id+"/"+pidx(p), nil, nil)
		}
	}
}

// granted counts the tokens that both modules gave for an approval, by their logs.
func (w *world) granted(t *testing.T) (tokens int) {
	t.Helper()
	for _, m := range []*hemtest.Module{w.module, w.other} {
		c := m.Client()
		for leaf := int64(0); ; {
			tail, err := c.LogTail(context.Background(), leaf)
			if err != nil {
				t.Fatal(err)
			}
			if len(tail) == 0 {
				break
			}
			for line := range bytes.Lines(tail) {
				leaf++
				if f := bytes.Split(line, []byte{'|'}); string(f[2]) == "e" && string(f[3]) == "0" { // AUTH_SUCCESS_EXTERNAL, OK
					tokens++
				}
			}
		}
	}
	return tokens
}

// show has the broker show every authenticator data of its choice.
func (w *world) show(change func(id string, d *api.EventData)) {
	w.do(func(x *meeting) bool {
		if !x.is("GET", pathData) {
			return false
		}
		return changed(x, func(d *api.EventData) { change(strings.Split(x.URL.Path, "/")[4], d) })
	})
}

// list has the broker show events of its choice, whatever it is asked for.
func (w *world) list(all map[string]api.EventData) {
	w.do(func(x *meeting) bool {
		switch {
		case x.is("POST", pathList):
			ids := api.EventList{EventID: map[string][]string{}}
			for id := range all {
				ids.EventID[id] = nil
			}
			return x.say(ids)
		case x.is("GET", pathData):
			return x.say(all[strings.Split(x.URL.Path, "/")[4]])
		case x.is("POST", pathData), x.is("DELETE", pathData):
			return x.say(struct{}{}) // taken, it says
		}
		return false
	})
}

// answer has the broker tell who waits an answer of its choice.
func (w *world) answer(reply func(real string) string) {
	w.do(func(x *meeting) bool {
		return x.is("GET", pathCheck) && changed(x, func(c *api.EventChecked) { c.AuthReply = reply(c.AuthReply) })
	})
}

// data is what the broker has to show of a request to p.
func data(req api.AuthReqClaims, p *person) api.EventData {
	return api.EventData{JTI: req.JTI, Scope: req.Scope[p.pairing.PID], EPK: req.Aud, Exp: req.Exp}
}

// What a broker can do with what passes through it, and what others can do with a
// broker: no token where none was approved, and none for anything else, and no
// request is shown in words that the module did not write.
func TestThreat_T173_AHostileBroker(t *testing.T) {
	const list, gen, conf = api.ScopeKeyList, api.ScopeKeyGen, api.ScopeSystemConfig
	w := startWorld(t)
	rows := []struct {
		name   string
		tokens int // that modules give
		play   func(t *testing.T)
	}{
		{"swaps two approvals", 0, func(t *testing.T) {
			// Both are allowed, and each gets the other's.
			replies := map[string]string{}
			var mu sync.Mutex
			w.do(func(x *meeting) bool {
				return x.is("GET", pathCheck) && changed(x, func(c *api.EventChecked) {
					for {
						mu.Lock()
						replies[x.URL.Path] = c.AuthReply
						for path, reply := range replies {
							if path != x.URL.Path {
								c.AuthReply = reply
							}
						}
						both := len(replies) == 2
						mu.Unlock()
						if both || x.Context().Err() != nil {
							return
						}
						time.Sleep(time.Millisecond)
					}
				})
			})
			one, two := w.login(t, list), w.login(t, gen)
			all, err := w.alice.Requests(t.Context())
			if err != nil || len(all) != 2 {
				t.Fatalf("%v, %v", all, err)
			}
			for _, r := range all {
				if err := w.alice.Allow(t.Context(), r, time.Hour, ""); err != nil {
					t.Error(err)
				}
			}
			one.fails(refusedWith(401))
			two.fails(refusedWith(401))
		}},
		{"replays an approval", 1, func(t *testing.T) {
			var first string
			w.answer(func(real string) string {
				if first == "" {
					first = real
				}
				return first
			})
			one := w.login(t, list)
			w.alice.allow(t, list)
			one.earns(list)
			two := w.login(t, list)
			w.alice.allow(t, list)
			two.fails(refusedWith(401))
			if status, _ := redeem(t, w.module, first, nil); status != 401 {
				t.Errorf("the broker itself: %d", status)
			}
		}},
		{"delays an approval past its life", 0, func(t *testing.T) {
			w.answer(func(real string) string {
				w.later((api.ExtKeyUseRequestLife + 1) * time.Second)
				return real
			})
			one := w.login(t, api.ScopeKeyUse(w.key))
			w.alice.allow(t, api.ScopeKeyUse(w.key))
			one.fails(refusedWith(401))
		}},
		{"delays an approval, but not for long", 1, func(t *testing.T) {
			w.answer(func(real string) string {
				w.later((api.ExtKeyUseRequestLife - 300) * time.Second)
				return real
			})
			one := w.login(t, api.ScopeKeyUse(w.key))
			w.alice.allow(t, api.ScopeKeyUse(w.key))
			one.earns(api.ScopeKeyUse(w.key))
		}},
		{"shows an old request as a new one", 0, func(t *testing.T) {
			_, req := w.unbound(t, w.module, list)
			d := data(req, w.alice)
			w.later((api.ExtRequestLife + 1) * time.Second)
			d.Exp = w.now().Unix() + api.ExtRequestLife
			w.list(map[string]api.EventData{"new": d})
			w.alice.seesNothing(t, hem.ErrRequestEnded)
		}},
		{"asks again what was denied", 0, func(t *testing.T) {
			_, req := w.unbound(t, w.module, list)
			w.list(map[string]api.EventData{"a": data(req, w.alice)})
			if err := w.alice.Deny(t.Context(), w.alice.see(t, list)); err != nil {
				t.Fatal(err)
			}
			again := data(req, w.alice)
			again.JTI = respelled(t, again.JTI)
			w.list(map[string]api.EventData{"b": data(req, w.alice), "c": again})
			w.alice.seesNothing(t, nil)
		}},
		{"invents requests", 0, func(t *testing.T) {
			_, one := w.unbound(t, w.module, list)
			_, two := w.unbound(t, w.module, gen)
			_, foreign := w.unbound(t, w.other, conf)
			own := newKey(t, suite.Random(32))
			secret, err := own.Shared(mustDecode(t, aidOf(t, w.alice.pairing)))
			if err != nil {
				t.Fatal(err)
			}
			jti := suite.Random(32)
			a, b := data(one, w.alice), data(two, w.alice)
			flip := func(sealed string) string {
				raw := mustDecode(t, sealed[1:])
				raw[0] ^= 1
				return "A" + api.EncodeBase64(raw)
			}
			w.list(map[string]api.EventData{
				"nothing": {}, "noise": {JTI: api.EncodeBase64(jti), Scope: "A" + api.EncodeBase64(suite.Random(64)), EPK: a.EPK, Exp: a.Exp},
				"the scope of another":       {JTI: a.JTI, Scope: b.Scope, EPK: a.EPK, Exp: a.Exp},
				"the nonce of another":       {JTI: b.JTI, Scope: a.Scope, EPK: a.EPK, Exp: a.Exp},
				"what was sealed for bob":    {JTI: a.JTI, Scope: one.Scope[w.bob.pairing.PID], EPK: a.EPK, Exp: a.Exp},
				"another module's":           data(foreign, w.carol),
				"in clear":                   {JTI: a.JTI, Scope: gen, EPK: a.EPK, Exp: a.Exp},
				"a changed scope":            {JTI: a.JTI, Scope: flip(a.Scope), EPK: a.EPK, Exp: a.Exp},
				"another scheme":             {JTI: a.JTI, Scope: "B" + a.Scope[1:], EPK: a.EPK, Exp: a.Exp},
				"sealed with the broker's":   {JTI: api.EncodeBase64(jti), Scope: sealed(secret, jti, gen), EPK: a.EPK, Exp: a.Exp},
				"a nonce with a later clock": {JTI: later(t, a.JTI), Scope: a.Scope, EPK: a.EPK, Exp: a.Exp},
			})
			w.alice.seesNothing(t, hem.ErrRequestForged)
			if len(w.alice.leftOut) != 11 {
				t.Errorf("%d were left out, want 11", len(w.alice.leftOut))
			}
		}},
		{"gives another epk", 1, func(t *testing.T) {
			// It can: it reads the approval either way, and cannot redeem it.
			own := newKey(t, suite.Random(32))
			one := w.login(t, list)
			w.show(func(_ string, d *api.EventData) { d.EPK = api.EncodeBase64(own.Public()) })
			r := w.alice.see(t, list)
			if err := w.alice.Allow(t.Context(), r, time.Hour, ""); !isStatus(err, 401) {
				t.Errorf("allowed under another epk: %v", err)
			}
			w.show(func(_ string, d *api.EventData) { d.EPK = w.module.EID })
			r = w.bob.see(t, list)
			if err := w.bob.Allow(t.Context(), r, time.Hour, ""); !errors.Is(err, hem.ErrProtocol) {
				t.Errorf("allowed under the module's key: %v", err)
			}
			w.do(nil)
			w.bob.allow(t, list) // that was no answer
			one.earns(list)
		}},
		{"says another end", 0, func(t *testing.T) {
			w.unbound(t, w.module, api.ScopeKeyUse(w.key))
			for exp, least := range map[int64]int64{1 << 62: 880, -5: 880, 0: 880, w.now().Unix() + 100: 50} {
				w.show(func(_ string, d *api.EventData) { d.Exp = exp })
				r := w.alice.see(t, api.ScopeKeyUse(w.key))
				if left := r.Expires.Unix() - w.now().Unix(); left < least || left > api.ExtKeyUseRequestLife {
					t.Errorf("exp %d: ends in %d s", exp, left)
				}
			}
			w.show(func(_ string, d *api.EventData) { d.Exp = w.now().Unix() - 1 })
			w.alice.seesNothing(t, hem.ErrRequestEnded)
		}},
		{"answers a pairing itself", 0, func(t *testing.T) {
			thief := newKey(t, suite.Random(32))
			_, err := w.module.Client().Pair(t.Context(), w.client(), hem.PairParams{Timeout: time.Minute, Show: func(offer string, _ time.Time) {
				var o api.PairingOffer
				if err := json.Unmarshal([]byte(offer), &o); err != nil {
					t.Fatal(err)
				}
				rid := o.Link[strings.LastIndexByte(o.Link, '/')+1:]
				var ch api.RegisterChallenge
				w.call("GET", "/notify/register/challenge/"+rid, nil, &ch)
				var req api.PairingRequestClaims
				claimsOf(t, ch.Request, &req)
				claims := map[string]any{"jti": req.JTI, "iss": api.EncodeBase64(thief.Public()), "epk": req.Aud, "label": "phone", "kp": api.EncodeBase64(suite.Random(32))}
				w.do(func(x *meeting) bool {
					return x.is("GET", "/notify/register/check/") && x.say(api.RegisterChecked{PID: api.EncodeBase64(suite.Random(32)), Reply: sign(t, thief, w.module.EID, claims)})
				})
			}})
			if !errors.Is(err, hem.ErrPairingForged) {
				t.Errorf("paired: %v", err)
			}
			w.do(nil)
			if _, req := w.unbound(t, w.module, list); len(req.Scope) != 2 {
				t.Errorf("%d are asked", len(req.Scope))
			}
		}},
		{"pairs an authenticator with a module of its own", 0, func(t *testing.T) {
			w.do(func(x *meeting) bool {
				return x.is("GET", "/notify/register/challenge/") && changed(x, func(c *api.RegisterChallenge) {
					own := newKey(t, suite.Random(32))
					var req api.PairingRequestClaims
					claimsOf(t, c.Request, &req)
					c.Request = sign(t, own, req.Aud, map[string]any{"jti": req.JTI, "exp": req.Exp, "aud": req.Aud, "iss": api.EncodeBase64(own.Public())})
				})
			})
			ctx, end := context.WithCancel(t.Context())
			_, err := w.module.Client().Pair(ctx, w.client(), hem.PairParams{Show: func(offer string, _ time.Time) {
				if _, _, err := hem.AcceptPairing(ctx, hem.BrokerConfig{}, offer, "phone"); !errors.Is(err, hem.ErrPairingForged) {
					t.Errorf("accepted: %v", err)
				}
				end()
			}})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("paired: %v", err)
			}
		}},
		{"redeems an approval", 1, func(t *testing.T) {
			got := make(chan string, 1)
			w.answer(func(real string) string {
				digest := sha256.Sum256([]byte("guess"))
				for _, proof := range [][]byte{nil, suite.Random(32), digest[:]} {
					if status, _ := redeem(t, w.module, real, proof); status != 401 {
						t.Errorf("the broker redeems it: %d", status)
					}
				}
				got <- real
				return real
			})
			one := w.login(t, list)
			w.alice.allow(t, list)
			<-got
			one.earns(list) // which spent nothing
		}},
		{"gives one module's approval to another", 1, func(t *testing.T) {
			var foreign string
			id, _ := w.unbound(t, w.other, list)
			w.carol.allow(t, list)
			foreign = w.reply(t, id)
			w.answer(func(string) string { return foreign })
			one := w.login(t, list)
			w.alice.allow(t, list)
			one.fails(refusedWith(401))
			if status, _ := redeem(t, w.module, foreign, nil); status != 401 {
				t.Errorf("at the other module: %d", status)
			}
			if status, scope := redeem(t, w.other, foreign, nil); status != 200 || scope != list {
				t.Errorf("at its own module: %d %q", status, scope)
			}
		}},
		{"has one thing allowed and another earned", 1, func(t *testing.T) {
			small, _ := w.unbound(t, w.module, list)
			w.alice.allow(t, list)
			reply := w.reply(t, small)
			w.do(func(x *meeting) bool { return x.is("GET", pathCheck) && x.say(api.EventChecked{AuthReply: reply}) })
			w.login(t, conf).fails(refusedWith(401))
			if status, scope := redeem(t, w.module, reply, nil); status != 200 || scope != list {
				t.Errorf("what was allowed: %d %q", status, scope)
			}
		}},
		{"turns a denial into an approval", 0, func(t *testing.T) {
			// It has the messages of all that went before, and none of this one.
			w.do(func(x *meeting) bool {
				return x.is("GET", pathCheck) && changed(x, func(c *api.EventChecked) { *c = api.EventChecked{AuthReply: "a.b.c"} })
			})
			one := w.login(t, list)
			if err := w.alice.Deny(t.Context(), w.alice.see(t, list)); err != nil {
				t.Error(err)
			}
			one.fails(refusedWith(401))
			w.do(func(x *meeting) bool { return x.is("GET", pathCheck) && x.say(api.EventChecked{}) })
			w.login(t, list).fails(because(hem.ErrProtocol))
		}},
		{"two authenticators race", 1, func(t *testing.T) {
			// The broker takes both approvals of an unbound request, and tries both.
			_, req := w.unbound(t, w.module, list)
			var mu sync.Mutex
			var replies []string
			w.do(func(x *meeting) bool {
				if !x.is("POST", pathData) || x.is("POST", pathList) {
					return false
				}
				var allow api.EventAllow
				if err := json.Unmarshal(x.body, &allow); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				replies = append(replies, allow.AuthReply)
				return x.say(struct{}{})
			})
			w.alice.allow(t, list)
			w.bob.allow(t, list)
			status := make([]int, len(replies))
			var wg sync.WaitGroup
			for i, reply := range replies {
				wg.Go(func() { status[i], _ = redeem(t, w.module, reply, nil) })
			}
			wg.Wait()
			if slices.Sort(status); !slices.Equal(status, []int{200, 401}) {
				t.Errorf("both approvals of %s: %v", req.JTI, status)
			}
		}},
		{"a ninth authenticator", 0, func(t *testing.T) {
			kids := []hem.KID{}
			for range api.MaxPairings - 2 {
				_, p := w.pair(w.module)
				kid, err := p.KID()
				if err != nil {
					t.Fatal(err)
				}
				kids = append(kids, kid)
			}
			var ninth *hem.Pairing
			_, err := w.module.Client().Pair(t.Context(), w.client(), hem.PairParams{Show: func(offer string, _ time.Time) {
				ninth, _, _ = hem.AcceptPairing(t.Context(), hem.BrokerConfig{}, offer, "ninth")
			}})
			if !isStatus(err, 406) || ninth == nil {
				t.Fatalf("a ninth was paired: %v", err)
			}
			// It believes to be paired, and the broker shows it what others see.
			nine := w.personOf(t, *ninth, w.now)
			_, req := w.unbound(t, w.module, list)
			if _, asked := req.Scope[ninth.PID]; asked || len(req.Scope) != api.MaxPairings {
				t.Errorf("%d are asked", len(req.Scope))
			}
			w.list(map[string]api.EventData{"a": data(req, w.alice)})
			nine.seesNothing(t, hem.ErrRequestForged)
			aid := newKey(t, ninth.Private)
			secret, err := aid.Shared(mustDecode(t, w.module.EID))
			if err != nil {
				t.Fatal(err)
			}
			reply := sign(t, aid, w.module.EID, map[string]any{
				"aud": w.module.EID, "jti": req.JTI, "exp": w.now().Unix() + 60, "iat": w.now().Unix(), "pid": ninth.PID,
				"iss": api.EncodeBase64(aid.Public()), "scope": sealed(secret, mustDecode(t, req.JTI), list),
			})
			if status, _ := redeem(t, w.module, reply, nil); status != 406 {
				t.Errorf("its approval: %d", status)
			}
			for _, kid := range kids {
				if err := w.module.Client().DeleteKey(t.Context(), kid); err != nil {
					t.Error(err)
				}
			}
		}},
		{"an authenticator that widens", 0, func(t *testing.T) {
			id, _ := w.unbound(t, w.module, list)
			if err := w.alice.Allow(t.Context(), w.alice.see(t, list), time.Hour, conf); err != nil {
				t.Fatal(err)
			}
			if status, _ := redeem(t, w.module, w.reply(t, id), nil); status != 406 {
				t.Errorf("a wider scope: %d", status)
			}
		}},
		{"a stranger with a key label of their own", 0, func(t *testing.T) {
			var session api.BrokerSession
			w.call("GET", "/notify/session", nil, &session)
			forged := api.ScopeKeyUse(w.key) + "#" + api.EncodeBase64([]byte(`{"t":"ED25519","l":"my harmless key"}`))
			for _, scope := range []string{forged, gen + "\nmodule: yours", gen + "\x1b[2K", gen + "\u202e"} {
				if got := post(t, w.module, "/api/auth/ext/request", api.ExtRequest{EPK: session.EPK, Scope: scope}, nil); got != 400 {
					t.Errorf("%q can be asked for: %d", scope, got)
				}
			}
			// What the stranger says otherwise is not shown; what is shown of a key is so.
			var asked api.ExtRequestAnswer
			post(t, w.module, "/api/auth/ext/request", api.ExtRequest{EPK: session.EPK, Scope: api.ScopeKeyUse(w.key), Note: "a harmless note", Ctx: "harmless"}, &asked)
			var e api.EventStarted
			w.call("POST", "/notify/event/new", api.EventNew{AuthReq: asked.AuthReq, EPK: session.EPK}, &e)
			t.Cleanup(func() { w.call("DELETE", "/notify/event/"+e.EventID, nil, nil) })
			r := w.alice.see(t, api.ScopeKeyUse(w.key))
			if r.Key == nil || r.Key.Label != keyLabel {
				t.Errorf("key %+v", r.Key)
			}
		}},
		{"a stranger among the events of others", 1, func(t *testing.T) {
			one := w.login(t, list)
			var all api.EventList
			w.call("POST", pathList, api.EventPIDs{PID: []string{w.alice.pairing.PID}}, &all)
			for id := range all.EventID {
				for _, path := range []string{pathCheck + id, "/notify/event/" + id} {
					for _, method := range []string{"GET", "DELETE"} {
						if got := w.call(method, path, nil, nil); got != 404 && got != 405 {
							t.Errorf("%s %s: %d", method, path, got)
						}
					}
				}
				at := pathData + id + "/" + pidx(w.alice)
				if got := w.call("POST", at, api.EventAllow{AuthReply: "a.b.c", MAC: api.EncodeBase64(suite.Random(32))}, nil); got != 401 {
					t.Errorf("a stranger allows: %d", got)
				}
				var d api.EventData
				if got := w.call("GET", at, nil, &d); got != 200 || strings.Contains(d.Scope, list) {
					t.Errorf("%d %+v", got, d)
				}
			}
			w.alice.allow(t, list)
			one.earns(list)
		}},
		{"gives a key of others for its own", 0, func(t *testing.T) {
			for name, epk := range map[string]string{"eid": w.module.EID, "aid": aidOf(t, w.alice.pairing), "nothing": api.EncodeBase64(make([]byte, 32))} {
				w.do(func(x *meeting) bool {
					return x.is("GET", "/notify/session") && x.say(api.BrokerSession{EPK: epk, Exp: w.now().Unix() + 1000})
				})
				_, err := stranger(t, w.module).LoginRemote(t.Context(), w.client(), hem.RemoteParams{Scope: list})
				if !isStatus(err, 400) {
					t.Errorf("%s: %v", name, err)
				}
			}
		}},
	}
	for _, row := range rows {
		before := w.granted(t)
		t.Run(row.name, func(t *testing.T) {
			defer w.do(nil) // before what was begun is taken back
			row.play(t)
		})
		w.clear()
		if got := w.granted(t) - before; got != row.tokens {
			t.Errorf("%s: %d tokens were given, want %d", row.name, got, row.tokens)
		}
	}
	// And with all that, it has not read what anybody asked for.
	for _, secret := range []string{list, gen, conf, keyLabel} {
		if bytes.Contains(wordsIn(t, w.heard.Bytes()), []byte(secret)) {
			t.Errorf("the broker has read %q", secret)
		}
	}
}

// pidx is a pairing as it stands in paths.
func pidx(p *person) string {
	return strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(p.pairing.PID), "=")
}

// respelled is a nonce in another of its 16 spellings.
func respelled(t *testing.T, jti string) string {
	t.Helper()
	raw := []byte(jti)
	at := len(raw) - 2
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	raw[at] = alphabet[strings.IndexByte(alphabet, raw[at])^1]
	if !bytes.Equal(mustDecode(t, string(raw)), mustDecode(t, jti)) {
		t.Fatal("that is another nonce")
	}
	return string(raw)
}

// later is a nonce that says it was made an hour later.
func later(t *testing.T, jti string) string {
	t.Helper()
	raw := mustDecode(t, jti)
	raw[1] += 14
	return api.EncodeBase64(raw)
}
