package module

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/keyring"
	"softhem/internal/session"
	"softhem/internal/store"
	"softhem/internal/suite"
)

// The operations of /api/auth/ext: pairing an authenticator, and giving a token
// for what it approved. Messages pass through a broker. Under X25519(eid, epk)
// the module speaks to the broker, under X25519(eid, aid) it and the
// authenticator speak past it.

// errExternal is why an approval or a pairing earns nothing with 406, whatever
// the reason; it is the answer of the operations with keys.
var errExternal = errUnfit

// A brokerKey is an epk of a request.
type brokerKey struct {
	public [32]byte
	secret []byte // X25519(eid, epk); to be cleared
}

// brokerKey reads an epk. It may share no secret that means something else here:
// then what is signed for the broker would pass for a message of an
// authenticator. So it is the secrets that are compared; the same point has
// several spellings.
func (m *Module) brokerKey(p *Pass, text string) (k brokerKey, err error) {
	id := p.state.identity
	public, ok := session.Decode32(text)
	if !ok {
		return k, api.ErrBadRequest.Because("epk is not 32 bytes of base64")
	}
	secret, err := id.key.Shared(public[:])
	if err != nil {
		return k, api.ErrBadRequest.Because("epk is a point of low order")
	}
	own := false
	for _, other := range [][]byte{id.key.Public(), p.state.boot.Key().Public()} {
		taken, err := id.key.Shared(other)
		if err != nil {
			return k, fmt.Errorf("a key of the module: %w", err)
		}
		own = suite.Equal(secret, taken) || own
		clear(taken)
	}
	const probe = "epk"
	mac := suite.HMACSHA256(secret, []byte(probe))
	for _, other := range p.state.pairings {
		taken := other.secret.Sum([]byte(probe))
		own = suite.Equal(mac, taken[:]) || own
	}
	if own {
		clear(secret)
		return k, api.ErrBadRequest.Because("epk is a key of this module or of an authenticator")
	}
	return brokerKey{public, secret}, nil
}

// ExtInit begins a pairing.
func (m *Module) ExtInit(_ context.Context, p *Pass, req api.ExtInit) (api.ExtInitAnswer, error) {
	p.must(OpExtInit)
	epk, err := m.brokerKey(p, req.EPK)
	if err != nil {
		return api.ExtInitAnswer{}, err
	}
	defer clear(epk.secret)
	nonce := p.state.boot.NewNonce(session.PurposePairing(), epk.public[:], p.now)
	request, err := session.SignEJWT(epk.secret, api.PairingRequestClaims{
		JTI: api.EncodeBase64(nonce[:]), Exp: p.now + session.PurposePairing().Life(),
		Aud: api.EncodeBase64(epk.public[:]), Iss: p.state.identity.eid,
	})
	return api.ExtInitAnswer{Request: request, EID: p.state.identity.eid}, err
}

// ExtMAC proves to the broker that the module holds eid.
func (m *Module) ExtMAC(_ context.Context, p *Pass, req api.ExtInit) (api.ExtMACAnswer, error) {
	p.must(OpExtMAC)
	epk, err := m.brokerKey(p, req.EPK)
	if err != nil {
		return api.ExtMACAnswer{}, err
	}
	defer clear(epk.secret)
	nonce := p.state.boot.NewNonce(session.PurposeExtMAC(), nil, p.now)
	return api.ExtMACAnswer{
		Nonce: api.EncodeBase64(nonce[:]), MAC: api.EncodeBase64(suite.HMACSHA256(epk.secret, nonce[:])), EID: p.state.identity.eid,
	}, nil
}

// pairingReplyClaims are those of api.PairingReplyClaims that the module reads.
type pairingReplyClaims struct {
	JTI   string  `json:"jti"`
	Aud   *string `json:"aud"`
	EPK   string  `json:"epk"`
	Label *string `json:"label"`
	KP    string  `json:"kp"` // checked by who showed the QR code
}

// ExtValidate ends a pairing: the authenticator's key is stored, and from then
// on it can approve.
func (m *Module) ExtValidate(ctx context.Context, p *Pass, req api.ExtValidate) (api.ExtValidateAnswer, error) {
	p.must(OpExtValidate)
	pid, ok := session.Decode32(req.PID)
	switch {
	case !ok:
		return api.ExtValidateAnswer{}, api.ErrBadRequest.Because("pid is not 32 bytes of base64")
	case req.Reply == "":
		return api.ExtValidateAnswer{}, api.ErrBadRequest.Because("reply is missing")
	}
	aid, epk, label, err := m.checkPairingReply(p, req.Reply)
	if err != nil {
		m.log.InfoContext(ctx, "pairing refused", "cause", err, "address", p.caller.Addr)
		if err := m.append(ctx, audit.Record{Type: audit.AuthPairedExternal, Result: audit.Failed, Who: p.who()}); err != nil {
			return api.ExtValidateAnswer{}, err
		}
		return api.ExtValidateAnswer{}, api.ErrUnauthorized
	}
	defer clear(epk.secret)
	algorithm, ok := suite.AlgorithmOf(api.Curve25519)
	if !ok {
		panic("module: no keys of X25519")
	}
	row, err := m.keys.Prepare(keyring.NewKey{
		Algorithm: algorithm, Public: aid[:], Label: label, Descr: append([]byte(api.PairingPrefix), pid[:]...),
	}, p.now)
	if err != nil {
		return api.ExtValidateAnswer{}, err
	}
	err = m.storePairing(ctx, p, pairingRecord{KID: row.KID, PID: pid, AID: aid, Generation: newGeneration()}, row)
	if errors.Is(err, keyring.ErrFull) || errors.Is(err, keyring.ErrDuplicate) || errors.Is(err, errDuplicatePairing) {
		m.log.InfoContext(ctx, "pairing refused", "cause", err)
		return api.ExtValidateAnswer{}, m.notDone(ctx, p, audit.AuthPairedExternal, errExternal.Reason, row.KID[:])
	}
	if err != nil {
		return api.ExtValidateAnswer{}, err
	}
	return api.ExtValidateAnswer{
		KID: hex.EncodeToString(row.KID[:]), Code: api.EncodeBase64(suite.HMACSHA256(epk.secret, []byte(req.Reply))),
	}, nil
}

// storePairing makes the pairing in the store and here. A crash in between
// leaves it made; nobody has a token of it yet.
func (m *Module) storePairing(ctx context.Context, p *Pass, rec pairingRecord, row store.Key) error {
	opened, err := p.state.identity.openPairing(rec)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	err = m.commit(ctx, func(ctx context.Context, tx store.Tx) ([]audit.Record, error) {
		if err := m.addPairing(ctx, tx, rec, row); err != nil {
			return nil, err
		}
		return []audit.Record{{Type: audit.AuthPairedExternal, Who: p.who(), Arg: row.KID[:]}}, nil
	})
	if err == nil {
		m.replace(func(st *state) {
			st.pairings = append(st.pairings[:len(st.pairings):len(st.pairings)], opened)
		})
	}
	return err
}

// checkPairingReply decides whether a reply answers a request of this boot.
func (m *Module) checkPairingReply(p *Pass, reply string) (aid [32]byte, epk brokerKey, label string, err error) {
	var c pairingReplyClaims
	id, boot := p.state.identity, p.state.boot
	if aid, err = session.OpenEJWT(id.key, reply, &c); err != nil {
		return aid, epk, "", err
	}
	jti, ok := session.Decode32(c.JTI)
	if !ok {
		return aid, epk, "", errProof("jti is not 32 bytes")
	}
	public, ok := session.Decode32(c.EPK)
	if !ok {
		return aid, epk, "", errProof("epk is not 32 bytes")
	}
	nonce := session.Nonce(jti)
	if !boot.CheckNonce(session.PurposePairing(), public[:], nonce, p.now) {
		return aid, epk, "", errProof("nonce is foreign, for another broker key, or has ended")
	}
	if !boot.UseNonce(session.PurposePairing(), nonce, p.now) {
		return aid, epk, "", errProof("nonce was used")
	}
	if c.Aud != nil {
		if aud, ok := session.Decode32(*c.Aud); !ok || !suite.Equal(aud[:], id.key.Public()) {
			return aid, epk, "", errProof("aud is not this module")
		}
	}
	if c.Label == nil {
		return aid, epk, "", errProof("label is missing")
	}
	if epk, err = m.brokerKey(p, c.EPK); err != nil { // a pairing made since has taken it
		return aid, epk, "", err
	}
	secret, err := id.key.Shared(aid[:])
	if err == nil && suite.Equal(secret, epk.secret) {
		err = errProof("iss is the broker's key")
	}
	clear(secret)
	return aid, epk, pairingLabel(*c.Label), err
}

// pairingLabel makes a key's label of what an authenticator calls itself.
func pairingLabel(text string) string {
	var b strings.Builder
	for _, c := range text {
		if b.Len() == api.MaxLabelChars {
			break
		}
		if c < ' ' || c > '~' {
			c = '?'
		}
		b.WriteByte(byte(c))
	}
	if b.Len() == 0 {
		return "?" // a key has a label
	}
	return b.String()
}

// ExtRequest makes the request for a scope that the broker shows to the paired
// authenticators. Anybody may ask; what the authenticators show is what the
// module wrote.
func (m *Module) ExtRequest(ctx context.Context, p *Pass, req api.ExtRequest) (api.ExtRequestAnswer, error) {
	p.must(OpExtRequest)
	var f fields
	f.extScope(req.Scope)
	if utf8.RuneCountInString(req.Ctx) > api.MaxExtContextChars {
		f.bad("ctx has more than %d characters", api.MaxExtContextChars)
	}
	if utf8.RuneCountInString(req.Note) > api.MaxExtNoteChars {
		f.bad("note has more than %d characters", api.MaxExtNoteChars)
	}
	bind := f.optional("bind", req.Bind, suite.MACSize, suite.MACSize)
	if f.err != nil {
		return api.ExtRequestAnswer{}, f.err
	}
	epk, err := m.brokerKey(p, req.EPK)
	if err != nil {
		return api.ExtRequestAnswer{}, err
	}
	defer clear(epk.secret)
	shown, err := m.shownScope(ctx, p, req.Scope)
	if err != nil {
		return api.ExtRequestAnswer{}, err
	}
	st, purpose := p.state, requestPurpose(req.Scope)
	nonce := st.boot.NewRequestNonce(purpose, req.Scope, bind, p.now)
	// The broker and the authenticators have clocks of their own, and refuse what
	// is ahead of them.
	iat := m.clock.time(st.config.TrustedTS)
	claims := authReqClaims{
		Iss: st.identity.eid, Aud: api.EncodeBase64(epk.public[:]), Iat: iat, Exp: iat + purpose.Life(),
		JTI: api.EncodeBase64(nonce[:]), Ctx: req.Ctx, Note: req.Note, Scope: sealedScopes{},
	}
	from := p.caller.Addr.Unmap().WithZone("")
	for _, one := range st.pairings {
		claims.Scope = append(claims.Scope, sealedScope{one.pid, session.SealScope(one.secret, nonce, shown)})
		// Only clients that bind their requests have ever had more than the scope.
		if len(bind) > 0 && from.IsValid() {
			claims.From = append(claims.From, sealedScope{one.pid, session.SealFrom(one.secret, nonce, from.String())})
		}
	}
	authreq, err := session.SignEJWT(epk.secret, claims)
	return api.ExtRequestAnswer{AuthReq: authreq, EPK: claims.Aud}, err
}

// extScope reads a scope that an authenticator is to show: nothing in it may
// look like what the module adds.
func (f *fields) extScope(text string) {
	if text == "" || len(text) > api.MaxExtScopeChars {
		f.bad("scope must have 1 to %d characters", api.MaxExtScopeChars)
	}
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' || c == '#' {
			f.bad("scope may have printable ASCII characters without # only")
		}
	}
}

// requestPurpose is what the nonce of a request for a scope is made for.
func requestPurpose(scope string) session.Purpose {
	if _, ok := api.KeyUseKID(scope); ok {
		return session.PurposeKeyUseRequest()
	}
	return session.PurposeRequest()
}

// shownScope is a scope as it is sealed: that of the use of a key says which
// key that is.
func (m *Module) shownScope(ctx context.Context, p *Pass, scope string) (string, error) {
	text, ok := api.KeyUseKID(scope)
	if !ok {
		return scope, nil
	}
	kid, ok := keyring.ParseKID(text)
	if !ok {
		return scope, nil
	}
	k, err := m.keys.Info(ctx, kid)
	if errors.Is(err, keyring.ErrUnknown) {
		return scope, nil
	}
	if err != nil {
		return "", m.keyFailure(ctx, p.state, err)
	}
	note, err := json.Marshal(api.KeyNote{Type: k.Traits.String(), Label: k.Label})
	if err != nil {
		return "", err
	}
	return scope + "#" + api.EncodeBase64(note), nil
}

// authReqClaims are api.AuthReqClaims with the scopes in the order of the
// pairings.
type authReqClaims struct {
	Iss   string       `json:"iss"`
	Aud   string       `json:"aud"`
	Iat   int64        `json:"iat"`
	Exp   int64        `json:"exp"`
	JTI   string       `json:"jti"`
	Ctx   string       `json:"ctx,omitzero"`
	Note  string       `json:"note,omitzero"`
	Scope sealedScopes `json:"scope"`
	From  sealedScopes `json:"from,omitzero"`
}

type sealedScope struct{ pid, sealed string }

type sealedScopes []sealedScope

// MarshalJSON renders one object; all of it is base64.
func (s sealedScopes) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, one := range s {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `"`+one.pid+`":"`+one.sealed+`"`...)
	}
	return append(b, '}'), nil
}

// authReplyClaims are those of api.AuthReplyClaims that the module reads. Exp
// tells absent from given; both absent and zero ask for the default.
type authReplyClaims struct {
	proofClaims `json:",inline"`
	Exp         *int64 `json:"exp"`
	Iat         int64  `json:"iat"` // of the authenticator's clock: not judged, the nonce says when
	PID         string `json:"pid"`
	Scope       string `json:"scope"`
	Ctx         string `json:"ctx"`
}

// ExtToken takes an authenticator's approval and gives the bearer token.
func (m *Module) ExtToken(ctx context.Context, p *Pass, req api.ExtToken) (api.TokenAnswer, error) {
	p.must(OpExtToken)
	if p.place == nil {
		panic("module: an approval that is not damped")
	}
	var f fields
	proof := f.optional("proof", req.Proof, 1, api.MaxBindSecret)
	if req.AuthReply == "" {
		f.bad("authreply is missing")
	}
	if f.err != nil {
		return api.TokenAnswer{}, f.err
	}
	if err := m.audit.Broken(); err != nil {
		return api.TokenAnswer{}, m.refusal(err)
	}
	if err := p.place.Verify(); err != nil {
		return api.TokenAnswer{}, err
	}
	claims, err := m.checkApproval(p, req.AuthReply, proof)
	if err != nil {
		p.place.Failed()
		m.audit.Failure(audit.AuthSuccessExternal)
		m.log.InfoContext(ctx, "approval refused", "cause", err, "address", p.caller.Addr)
		if _, ok := errors.AsType[errApproval](err); ok {
			return api.TokenAnswer{}, errExternal
		}
		return api.TokenAnswer{}, api.ErrUnauthorized
	}
	token, err := p.state.boot.IssueToken(claims, p.state)
	if err != nil {
		return api.TokenAnswer{}, fmt.Errorf("issue a token: %w", err)
	}
	err = m.append(ctx, audit.Record{Type: audit.AuthSuccessExternal, Who: auditName(claims.Sub)})
	if err != nil {
		return api.TokenAnswer{}, err
	}
	p.place.Succeeded()
	return api.TokenAnswer{Token: token}, nil
}

// errApproval is an approval that is signed and earns nothing: 406. Its text is
// for the operator's log alone.
type errApproval string

func (e errApproval) Error() string { return string(e) }

// checkApproval decides what token an approval earns.
func (m *Module) checkApproval(p *Pass, authreply string, proof []byte) (none api.TokenClaims, err error) {
	var c authReplyClaims
	st, boot := p.state, p.state.boot
	aid, err := session.OpenEJWTUnder(st.identity.key, func(issuer [32]byte) *suite.MACKey {
		if one := st.paired(issuer); one != nil {
			return one.secret
		}
		return nil
	}, authreply, &c)
	if err != nil {
		return none, err
	}
	var bind []byte
	if len(proof) > 0 {
		digest := suite.SHA256(proof)
		bind = digest[:]
	}
	jti, ok := session.Decode32(c.JTI)
	if !ok {
		return none, errProof("jti is not 32 bytes")
	}
	nonce := session.Nonce(jti)
	purpose, ok := boot.OwnRequest(nonce, bind, p.now)
	if !ok {
		return none, errProof("nonce is foreign, for another proof, or has ended")
	}
	if aud, ok := session.Decode32(c.Aud); !ok || !suite.Equal(aud[:], st.identity.key.Public()) {
		return none, errProof("aud is not this module")
	}
	exp := p.now + defaultTokenTTL
	if c.Exp != nil && *c.Exp != 0 {
		exp = *c.Exp
	}
	switch {
	case exp <= p.now:
		return none, errProof("wanted expiry is in the past")
	case utf8.RuneCountInString(c.Ctx) > api.MaxExtContextChars:
		return none, errProof("ctx is too long")
	}
	one := st.paired(aid)
	if one == nil {
		return none, errApproval("iss is no authenticator of this module")
	}
	// From here on the nonce is spent, whatever comes: only a paired
	// authenticator gets this far, so no stranger can spend another's.
	if !boot.UseNonce(purpose, nonce, p.now) {
		return none, errProof("nonce was used")
	}
	if pid, ok := session.Decode32(c.PID); !ok || !suite.Equal(pid[:], one.PID[:]) {
		return none, errApproval("pid is another pairing's")
	}
	scope, err := session.OpenScope(one.secret, nonce, c.Scope)
	if err != nil {
		return none, errApproval(err.Error())
	}
	scope, _, _ = strings.Cut(scope, "#")
	if !askedFor(boot, purpose, scope, bind, nonce, p.now) {
		return none, errApproval("the scope is not the one the nonce was made for")
	}
	return m.tokenClaims(p, one.sub, scope, exp, c.Ctx), nil
}

// askedFor tells whether a granted scope is what a nonce was made for, or for a
// disk less of it.
func askedFor(boot *session.Boot, purpose session.Purpose, scope string, bind []byte, nonce session.Nonce, now int64) bool {
	if boot.CheckRequest(purpose, scope, bind, nonce, now) {
		return true
	}
	wider, ok := api.WiderDiskScope(scope)
	return ok && boot.CheckRequest(purpose, wider, bind, nonce, now)
}
