package hem

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"softhem/api"
)

// A Request is one that waits for an answer. What it asks for, and when it did,
// was written by the module: nobody on the way can change it.
type Request struct {
	Scope   string
	Key     *api.KeyNote // of the use of a key: which key that is; nil when the module does not say
	From    string       // the address that asked, as the module saw it; empty when it, or the broker, does not say
	Asked   time.Time    // by the module's clock
	Expires time.Time    // when the module takes no approval any more, or sooner if the broker says so

	id     string // the broker's
	jti    string // the module's nonce in its one canonical spelling
	epk    string
	sealed string
}

// ID tells requests apart: it is the module's, not the broker's, who could give
// one request many.
func (r Request) ID() string { return r.jti }

// Code is what a person compares with [RemoteParams.Code], where they asked: 8 hex
// digits of the module's nonce. A request of somebody else has another.
func (r Request) Code() string { return requestCode(r.jti) }

// requestCode is the beginning of SHA-256 over a nonce. The module draws the nonce, so
// nobody has a request of a code of their choice but by asking billions of times.
func requestCode(jti string) string {
	raw, err := decode32("jti", jti)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:4])
}

var (
	// ErrRequestEnded: the module would not take an approval of this request any
	// more, by its own time and the clock here.
	ErrRequestEnded = errors.New("the request has ended; if it was made just now, the clock here or the module's is wrong")
	// ErrRequestForged: what the broker showed was not written by the module for
	// this authenticator.
	ErrRequestForged = errors.New("the request was not written by the module for this authenticator")
)

const (
	// An answer is sent again for this long if the broker is too busy or away.
	deliverFor = time.Minute
	// What was answered is remembered this much longer than it can be shown, for
	// the sake of clocks that are set back.
	answeredMargin = 24 * time.Hour
)

// Requests waits for requests, up to what [BrokerConfig.Poll] says, and returns
// those that wait, the oldest first; none when none came. It reads no more
// than [api.MaxExtWaiting], and leaves out what the module did not write, what has ended, and
// what was answered.
func (a *Authenticator) Requests(ctx context.Context) ([]Request, error) {
	var list api.EventList
	query := fmt.Sprintf("wait=%d", max(int(a.broker.cfg.Poll/time.Second), 1))
	_, err := a.broker.do(ctx, opRequests, http.MethodPost, "/notify/event/data/allbypid", query, api.EventPIDs{PID: []string{a.p.PID}}, &list)
	if err != nil {
		return nil, err
	}
	ids := slices.Sorted(maps.Keys(list.EventID))
	all := map[string]Request{}
	for _, id := range ids[:min(len(ids), api.MaxExtWaiting)] {
		var data api.EventData
		_, err := a.broker.do(ctx, opRequests, http.MethodGet, a.path(id), "", nil, &data)
		if errors.Is(err, api.ErrNotFound) || isGone(err) {
			continue // it ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		r, err := a.open(id, data)
		switch {
		case err != nil && a.LeftOut != nil:
			a.LeftOut(r, err)
		case err == nil && !a.wasAnswered(r):
			all[r.jti] = r
		}
	}
	return slices.SortedFunc(maps.Values(all), func(x, y Request) int {
		return cmp.Or(x.Asked.Compare(y.Asked), strings.Compare(x.jti, y.jti))
	}), nil
}

func isGone(err error) bool {
	refused, ok := errors.AsType[*api.Error](err)
	return ok && refused.Status == http.StatusGone
}

func (a *Authenticator) path(id string) string {
	raw, err := api.DecodeBase64(a.p.PID)
	if err != nil {
		return "/notify/event/data/none" // NewAuthenticator has a pid that decodes
	}
	return "/notify/event/data/" + url.PathEscape(id) + "/" + base64.RawURLEncoding.EncodeToString(raw)
}

// open reads what the broker shows. The broker's word counts for one thing
// only: that a request ends sooner than the module says.
func (a *Authenticator) open(id string, d api.EventData) (Request, error) {
	r := Request{id: id, epk: d.EPK, sealed: d.Scope}
	nonce, err := decode32("jti", d.JTI)
	if err != nil {
		return r, ErrRequestForged
	}
	shown, err := a.openScope(d.JTI, d.Scope)
	if err != nil {
		return r, ErrRequestForged
	}
	scope, note, noted := strings.Cut(shown, "#")
	if noted {
		raw, err := api.DecodeBase64(note)
		if err != nil {
			return r, ErrRequestForged
		}
		r.Key = new(api.KeyNote)
		if err := json.Unmarshal(raw, r.Key); err != nil {
			return r, ErrRequestForged
		}
	}
	if d.From != "" {
		if r.From, err = a.unseal(d.JTI, ofFrom, d.From); err != nil {
			return r, ErrRequestForged
		}
	}
	// The scope was sealed under a key made of the nonce, so the nonce is the
	// module's as well, and with it the time that it names.
	made := api.NonceTime(nonce)
	end := made + api.ExtRequestLifeOf(scope)
	if d.Exp > 0 {
		end = min(end, d.Exp)
	}
	r.jti, r.Scope, r.Asked, r.Expires = api.EncodeBase64(nonce), scope, time.Unix(made, 0), time.Unix(end, 0)
	if !a.now().Before(r.Expires) {
		return r, ErrRequestEnded
	}
	return r, nil
}

func (a *Authenticator) wasAnswered(r Request) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, answered := a.p.Answered[r.jti]
	return answered
}

// answered makes sure that r is not shown again. It comes before the answer: a
// crash in between leaves a request that nobody answers, and not one that a
// broker could have asked until the person gives in.
func (a *Authenticator) answered(op string, r Request) error {
	now := a.now()
	if !now.Before(r.Expires) {
		return &OpError{Op: op, Err: ErrRequestEnded}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.p.Answered[r.jti]; known {
		return nil // its answer is sent once more
	}
	until := r.Asked.Add(api.ExtRequestLife*time.Second + answeredMargin)
	if a.Keep != nil {
		if err := a.Keep(r.jti, until); err != nil {
			return &OpError{Op: op, Err: fmt.Errorf("the answer could not be kept, so it was not given: %w", err)}
		}
	}
	a.p.Remember(r.jti, until, now)
	return nil
}

// deliver sends an answer, and again while the broker is too busy or away.
func (a *Authenticator) deliver(ctx context.Context, op, method string, r Request, in any) error {
	until := a.now().Add(deliverFor)
	for {
		_, err := a.broker.do(ctx, op, method, a.path(r.id), "", in, nil)
		if !retriable(err) || !a.now().Before(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(shortPoll):
		}
	}
}

// Allow gives the token that r asks for, until that long from now. With less,
// [api.WiderDiskScope] of a scope that was asked for may be turned into the
// scope: a disk without :rw. An empty grant is what was asked for.
//
// Errors: [ErrRequestEnded]; 404 when the broker knows the request no more, 410 when
// another authenticator answered or it was taken back.
func (a *Authenticator) Allow(ctx context.Context, r Request, life time.Duration, grant string) error {
	now := a.now().Unix()
	sealed := r.sealed
	if grant != "" && grant != r.Scope {
		var err error
		if sealed, err = a.sealScope(r.jti, grant); err != nil {
			return &OpError{Op: opAllow, Err: err}
		}
	}
	reply, err := signEJWT(a.key, a.eid, api.AuthReplyClaims{
		Aud: a.p.EID, JTI: r.jti, Exp: now + int64(life/time.Second), Iat: now, PID: a.p.PID, Iss: api.EncodeBase64(a.key.Public()), Scope: sealed,
	})
	if err != nil {
		return &OpError{Op: opAllow, Err: err}
	}
	epk, err := decode32("epk", r.epk)
	if err != nil {
		return badAnswer(opAllow, "", "%v", err)
	}
	mac, err := brokerMAC(a.key, a.eid, epk, []byte(reply))
	if err != nil {
		return &OpError{Op: opAllow, Err: err}
	}
	if err := a.answered(opAllow, r); err != nil {
		return err
	}
	return a.deliver(ctx, opAllow, http.MethodPost, r, api.EventAllow{AuthReply: reply, MAC: mac})
}

// Deny refuses r, for all authenticators. Errors: those of [Authenticator.Allow].
func (a *Authenticator) Deny(ctx context.Context, r Request) error {
	if err := a.answered(opDeny, r); err != nil {
		return err
	}
	return a.deliver(ctx, opDeny, http.MethodDelete, r, nil)
}
