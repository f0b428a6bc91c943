package hem

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" // the kid of a public key; nothing hangs on its strength
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"softhem/api"
)

const (
	pathExt         = "/api/auth/ext/"
	opRemote        = "log in with an authenticator"
	opPair          = "pair an authenticator"
	bindSecretBytes = 32
	pairingSecret   = 16 // bytes of k
)

// RemoteParams says what to ask authenticators for.
type RemoteParams struct {
	Scope string // 1 to [api.MaxExtScopeChars] printable ASCII characters, without #
	Note  string // optional, at most [api.MaxExtNoteChars]
	// Timeout is how long to wait; 0: as long as the module takes an approval.
	Timeout time.Duration
	// Waiting, if not nil, is told how many authenticators were asked, and until
	// when they may answer.
	Waiting func(asked int, until time.Time)
	// Code, if not nil, is told before that what the authenticator shows of this
	// request, [Request.Code], so that the person there knows theirs from another's.
	Code func(digits string)
}

// LoginRemote asks the authenticators paired with the module for a token and
// waits until one of them allows it. No passphrase is needed. The request is
// bound to a secret of this call, so that nobody else can redeem the approval. If
// the clock of module or broker stands in the way, it checks in once.
//
// The token is held like one of [Client.Login]. When ctx or the time ends, the request is taken back.
//
// Errors: [ErrDenied], [ErrRemoteTimeout], [ErrNoAuthenticator]; 403 when the
// module's clock is not set and it cannot be; 409 when it is not personalised or has failed.
func (c *Client) LoginRemote(ctx context.Context, b *Broker, p RemoteParams) (Token, error) {
	if p.Scope == "" || len(p.Scope) > api.MaxExtScopeChars || strings.ContainsFunc(p.Scope, func(r rune) bool { return r < ' ' || r > '~' || r == '#' }) {
		return Token{}, badArgument(opRemote, "the scope must have 1 to %d printable ASCII characters without #", api.MaxExtScopeChars)
	}
	if utf8.RuneCountInString(p.Note) > api.MaxExtNoteChars {
		return Token{}, badArgument(opRemote, "the note has more than %d characters", api.MaxExtNoteChars)
	}
	secret := make([]byte, bindSecretBytes)
	rand.Read(secret)
	defer clear(secret)
	event, req, err := c.askRemote(ctx, b, p, secret)
	if ask, ok := errors.AsType[*api.Error](err); ok && (ask.Status == http.StatusForbidden || ask.Status == http.StatusUnauthorized) {
		// The module has no time yet, or one the broker does not believe.
		if _, checkin := c.CheckIn(ctx, b.URL()); checkin != nil {
			return Token{}, errors.Join(err, checkin)
		}
		event, req, err = c.askRemote(ctx, b, p, secret)
	}
	if err != nil {
		return Token{}, err
	}
	if event.SentCnt == 0 {
		b.cancel(ctx, event.EventID)
		return Token{}, &OpError{Op: opRemote, Err: ErrNoAuthenticator}
	}
	wait := time.Duration(req.Exp-req.Iat) * time.Second
	if p.Timeout > 0 {
		wait = min(wait, p.Timeout)
	}
	until := b.cfg.Now().Add(wait)
	if p.Code != nil {
		p.Code(requestCode(req.JTI))
	}
	if p.Waiting != nil {
		p.Waiting(event.SentCnt, until)
	}
	var decided api.EventChecked
	err = b.poll(ctx, opRemote, "/notify/event/check/"+url.PathEscape(event.EventID), until, &decided)
	if errors.Is(err, api.ErrNotFound) {
		err = &OpError{Op: opRemote, Err: ErrRemoteTimeout}
	}
	switch {
	case err != nil:
		b.cancel(ctx, event.EventID)
		return Token{}, err
	case decided.Deny:
		return Token{}, &OpError{Op: opRemote, Err: ErrDenied}
	case decided.AuthReply == "":
		return Token{}, badAnswer(opRemote, "GET /notify/event/check", "neither an approval nor a denial")
	}
	began, epoch := c.cfg.Now(), c.currentEpoch()
	var answer api.TokenAnswer
	err = c.post(ctx, opRemote, pathExt+"token", api.ExtToken{AuthReply: decided.AuthReply, Proof: api.EncodeBase64(secret)}, &answer)
	if err != nil {
		return Token{}, err
	}
	claims, err := InspectToken(answer.Token)
	if err != nil {
		return Token{}, badAnswer(opRemote, "POST "+pathExt+"token", "it issued no bearer token")
	}
	token, err := newToken(answer.Token, req.Iss, began, claims.Iat)
	if err != nil {
		return Token{}, &OpError{Op: opRemote, Path: "POST " + pathExt + "token", Err: err}
	}
	if err := c.meet(req.Iss); err != nil {
		return Token{}, &OpError{Op: opRemote, Err: err}
	}
	c.keep(ctx, token.Scope, token, epoch)
	return token, nil
}

// askRemote has the module write a request and hands it to the broker.
func (c *Client) askRemote(ctx context.Context, b *Broker, p RemoteParams, secret []byte) (e api.EventStarted, req api.AuthReqClaims, err error) {
	var session api.BrokerSession
	if _, err = b.do(ctx, opRemote, http.MethodGet, "/notify/session", "", nil, &session); err != nil {
		return e, req, err
	}
	bind := sha256.Sum256(secret)
	var asked api.ExtRequestAnswer
	err = c.post(ctx, opRemote, pathExt+"request", api.ExtRequest{
		EPK: session.EPK, Scope: p.Scope, Ctx: c.cfg.TokenContext, Note: p.Note, Bind: api.EncodeBase64(bind[:]),
	}, &asked)
	if err != nil {
		return e, req, err
	}
	if err = readClaims(asked.AuthReq, &req); err != nil {
		return e, req, badAnswer(opRemote, "POST "+pathExt+"request", "it wrote no request")
	}
	if err = c.checkPin(req.Iss); err != nil {
		return e, req, &OpError{Op: opRemote, Err: err}
	}
	_, err = b.do(ctx, opRemote, http.MethodPost, "/notify/event/new", "", api.EventNew{AuthReq: asked.AuthReq, EPK: session.EPK}, &e)
	return e, req, err
}

// cancel takes a request back, also when ctx has ended; whether it succeeds
// does not matter, it ends by itself.
func (b *Broker) cancel(ctx context.Context, eventID string) {
	ctx, end := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer end()
	_, _ = b.do(ctx, opRemote, http.MethodDelete, "/notify/event/"+url.PathEscape(eventID), "", nil, nil)
}

// readClaims reads the claims of an eJWT without verifying it.
func readClaims(token string, out any) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return errors.New("not an eJWT")
	}
	return readSegment(parts[1], out)
}

// PairParams says how a pairing is shown to a person.
type PairParams struct {
	// Show is given what the QR code holds, as JSON, and until when it is good.
	Show func(offer string, until time.Time)
	// Confirm is asked when the authenticator does not prove that it saw the
	// code: does it show these 8 hex digits? Without it such an
	// authenticator is not paired.
	Confirm func(ctx context.Context, digits string) (bool, error)
	// Timeout is how long to wait for the authenticator; 0: ten minutes.
	Timeout time.Duration
}

// Pair pairs an authenticator with the module, as the user: scope auth:ext:pair. It shows
// an offer and waits for an authenticator to take it.
//
// Errors: those of [Client.Login]; [ErrPairingForged], [ErrRemoteTimeout],
// [ErrDenied]; 406 when there are eight pairings already.
func (c *Client) Pair(ctx context.Context, b *Broker, p PairParams) (KID, error) {
	if p.Show == nil {
		return KID{}, badArgument(opPair, "there is no Show, so nobody would see the offer")
	}
	if p.Timeout <= 0 {
		p.Timeout = 10 * time.Minute
	}
	ch, err := c.Challenge(ctx)
	if err != nil {
		return KID{}, err
	}
	var session api.BrokerSession
	if _, err := b.do(ctx, opPair, http.MethodPost, "/notify/session", "", api.BrokerSessionFor{EID: ch.EID}, &session); err != nil {
		return KID{}, err
	}
	var begun api.ExtInitAnswer
	if err := c.postAs(ctx, opPair, pathExt+"init", api.ScopeExtPair, api.ExtInit{EPK: session.EPK}, &begun); err != nil {
		return KID{}, err
	}
	var reg api.RegisterStarted
	_, err = b.do(ctx, opPair, http.MethodPost, "/notify/register/init", "", api.RegisterInit{EPK: session.EPK, EID: ch.EID, Request: begun.Request}, &reg)
	if err != nil {
		return KID{}, err
	}
	k := make([]byte, pairingSecret)
	rand.Read(k)
	offer, err := c.offer(ctx, ch, reg.Link, begun.Request, k)
	if err != nil {
		return KID{}, err
	}
	until := b.cfg.Now().Add(p.Timeout)
	p.Show(offer, until)
	var checked api.RegisterChecked
	err = b.poll(ctx, opPair, "/notify/register/check/"+url.PathEscape(reg.RID), until, &checked)
	if errors.Is(err, api.ErrNotFound) {
		err = &OpError{Op: opPair, Err: ErrDenied}
	}
	if err != nil {
		return KID{}, err
	}
	kid, err := checkOffered(ctx, checked.Reply, k, p)
	if err != nil {
		return KID{}, err
	}
	var done api.ExtValidateAnswer
	if err := c.postAs(ctx, opPair, pathExt+"validate", api.ScopeExtPair, api.ExtValidate(checked), &done); err != nil {
		return KID{}, err
	}
	if done.KID != kid.String() {
		return KID{}, badAnswer(opPair, "POST "+pathExt+"validate", "it paired another key")
	}
	_, err = b.do(ctx, opPair, http.MethodPost, "/notify/register/finalise/"+url.PathEscape(reg.RID), "", api.RegisterFinal(done), nil)
	return kid, err
}

// offer is what the QR code holds.
func (c *Client) offer(ctx context.Context, ch *api.Challenge, link, request string, k []byte) (string, error) {
	hash := sha256.Sum256([]byte(request))
	o := api.PairingOffer{Link: link, Hash: api.EncodeBase64(hash[:]), User: ch.Lbl, K: api.EncodeBase64(k)}
	var conf api.Config
	if err := c.getAs(ctx, opPair, "/api/system/config", api.ScopeExtPair, &conf); err != nil {
		return "", err
	}
	o.Email, o.Hostname = conf.Email, conf.Hostname
	raw, err := json.Marshal(o)
	return string(raw), err
}

// checkOffered makes sure that a reply comes from the device that saw the code,
// and not from the broker.
func checkOffered(ctx context.Context, reply string, k []byte, p PairParams) (kid KID, err error) {
	var claims api.PairingReplyClaims
	if err := readClaims(reply, &claims); err != nil {
		return kid, badAnswer(opPair, "", "the reply is no eJWT")
	}
	aid, err := decode32("iss", claims.Iss)
	if err != nil {
		return kid, badAnswer(opPair, "", "the reply names no key")
	}
	kid = kidOfPublic(aid)
	if claims.KP != "" {
		got, err := decode32("kp", claims.KP)
		if err != nil || !hmac.Equal(got, pairingProof(k, aid)) {
			return kid, &OpError{Op: opPair, Err: ErrPairingForged}
		}
		return kid, nil
	}
	if p.Confirm == nil {
		return kid, &OpError{Op: opPair, Err: ErrPairingForged}
	}
	same, err := p.Confirm(ctx, pairingDigits(kid))
	if err == nil && !same {
		err = ErrPairingForged
	}
	if err != nil {
		return kid, &OpError{Op: opPair, Err: err}
	}
	return kid, nil
}

func pairingProof(k, aid []byte) []byte {
	mac := hmac.New(sha256.New, k)
	mac.Write(aid)
	return mac.Sum(nil)
}

// pairingDigits is what a person compares on both screens.
func pairingDigits(kid KID) string { return hex.EncodeToString(kid[:4]) }

func kidOfPublic(public []byte) (kid KID) {
	sum := sha1.Sum(public)
	copy(kid[:], sum[:])
	return kid
}
