package module

import (
	"context"
	"fmt"
	"unicode/utf8"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/session"
	"softhem/internal/suite"
)

const (
	defaultTokenTTL = 28_800 // seconds, when a login asks for none
	clockLead       = 60     // seconds an iat may be ahead of the module
)

// Challenge begins a login.
func (m *Module) Challenge(p *Pass) api.Challenge {
	p.must(OpChallenge)
	st := p.state
	nonce := st.boot.NewNonce(session.PurposeLogin(), nil, p.now)
	return api.Challenge{
		Exp: p.now + session.PurposeLogin().Life(),
		SPK: st.boot.SPK(),
		JTI: api.EncodeBase64(nonce[:]),
		Lbl: st.config.User,
		EID: st.identity.eid,
	}
}

// proofClaims are the claims by which every proof is tied to a challenge of
// this boot.
type proofClaims struct {
	JTI string `json:"jti"`
	Aud string `json:"aud"`
}

// loginClaims are those of api.LoginClaims that the module reads. Exp tells
// absent from zero: absent asks for the default, zero is in the past.
type loginClaims struct {
	proofClaims `json:",inline"`
	Exp         *int64 `json:"exp"`
	Iat         int64  `json:"iat"`
	Scope       string `json:"scope"`
	Ctx         string `json:"ctx"`
}

// errProof is a failed proof; its text is for the operator's log alone.
type errProof string

func (e errProof) Error() string { return string(e) }

// Login takes a signed challenge and gives a bearer token. Whatever is wrong
// with the proof, the answer is one and the same 401.
//
// The record is durable before the token leaves. A crash before that leaves a
// token nobody has; its boot is over anyway.
func (m *Module) Login(ctx context.Context, p *Pass, req api.AuthRequest) (api.TokenAnswer, error) {
	p.must(OpLogin)
	if p.place == nil {
		panic("module: a login that is not damped")
	}
	if req.Auth == "" {
		return api.TokenAnswer{}, api.ErrBadRequest.Because("auth is missing")
	}
	if err := m.audit.Broken(); err != nil {
		return api.TokenAnswer{}, m.refusal(err) // a login that cannot be recorded is not even tried
	}
	if err := p.place.Verify(); err != nil {
		return api.TokenAnswer{}, err
	}
	claims, err := m.checkLogin(p, req.Auth)
	if err != nil {
		p.place.Failed()
		m.audit.Failure(audit.AuthSuccessInternal)
		m.log.InfoContext(ctx, "login refused", "cause", err, "address", p.caller.Addr)
		return api.TokenAnswer{}, api.ErrUnauthorized
	}
	token, err := p.state.boot.IssueToken(claims, p.state)
	if err != nil {
		return api.TokenAnswer{}, fmt.Errorf("issue a token: %w", err)
	}
	err = m.append(ctx, audit.Record{Type: audit.AuthSuccessInternal, Who: string(claims.Sub)})
	if err != nil {
		return api.TokenAnswer{}, err
	}
	p.place.Succeeded()
	return api.TokenAnswer{Token: token}, nil
}

// checkLogin decides what token an answer earns.
func (m *Module) checkLogin(p *Pass, auth string) (api.TokenClaims, error) {
	var c loginClaims
	issuer, err := p.state.boot.OpenEJWT(auth, &c)
	if err != nil {
		return api.TokenClaims{}, err
	}
	if err := m.useProof(p, session.PurposeLogin(), c.proofClaims); err != nil {
		return api.TokenClaims{}, err
	}
	now := p.now
	exp := now + defaultTokenTTL
	if c.Exp != nil {
		exp = *c.Exp
	}
	switch {
	case exp <= now:
		return api.TokenClaims{}, errProof("wanted expiry is in the past")
	case c.Iat > now+clockLead:
		return api.TokenClaims{}, errProof("iat is ahead of the clock")
	case utf8.RuneCountInString(c.Scope) > api.MaxScopeChars:
		return api.TokenClaims{}, errProof("scope is too long")
	case utf8.RuneCountInString(c.Ctx) > api.MaxContextChars:
		return api.TokenClaims{}, errProof("ctx is too long")
	}
	// Both comparisons always run, so that the time tells nothing of which key
	// came close.
	isUser := suite.Equal(issuer[:], p.state.user.Key)
	isMaster := suite.Equal(issuer[:], p.state.master.Key)
	var role api.Role
	switch {
	case isUser:
		role = api.RoleUser
	case isMaster:
		role = api.RoleMaster
	default:
		return api.TokenClaims{}, errProof("iss is no persona of this module")
	}
	if role != api.RoleMaster && p.state.fls()&flsLocked != 0 {
		return api.TokenClaims{}, errProof("the module is locked; only the administrator logs in")
	}
	p.state.boot.Know(issuer)
	return m.tokenClaims(p, role, c.Scope, exp, c.Ctx), nil
}

// useProof checks a proof's nonce and audience and burns the nonce. It is
// called only when the MAC has held: a failed answer costs its challenge too.
func (m *Module) useProof(p *Pass, purpose session.Purpose, c proofClaims) error {
	jti, ok := session.Decode32(c.JTI)
	if !ok {
		return errProof("jti is not 32 bytes")
	}
	boot, nonce := p.state.boot, session.Nonce(jti)
	if !boot.CheckNonce(purpose, nil, nonce, p.now) {
		return errProof("nonce is foreign, for another purpose, or has ended")
	}
	if !boot.UseNonce(purpose, nonce, p.now) {
		return errProof("nonce was used")
	}
	aud, ok := session.Decode32(c.Aud)
	if !ok || !suite.Equal(aud[:], boot.Key().Public()) {
		return errProof("aud is not the session key")
	}
	return nil
}

// tokenClaims are the claims of a new token, its life cut to what is allowed.
func (m *Module) tokenClaims(p *Pass, role api.Role, scope string, exp int64, ctx string) api.TokenClaims {
	id := p.state.boot.NewNonce(session.PurposeTokenID(), nil, p.now)
	return api.TokenClaims{
		Scope: scope, Sub: role,
		Iat: p.now, Exp: min(exp, p.now+int64(m.cfg.MaxTokenTTL.Seconds())),
		JTI: api.EncodeBase64(id[:]), Ctx: ctx,
	}
}
