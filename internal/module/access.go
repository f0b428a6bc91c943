package module

import (
	"context"
	"net/netip"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/keyring"
	"softhem/internal/session"
	"softhem/internal/store"
)

// An Op is an operation of the module, one for each method and path of the
// protocol.
type Op int

const (
	OpChallenge Op = iota
	OpLogin
	OpInitChallenge
	OpInit
	OpVersion
	OpStatus
	OpCheckinStart
	OpCheckinFinish
	OpConfigGet
	OpConfigUpdate
	OpAttestation
	OpProvision
	OpSelfTest
	OpReboot
	OpShutdown
	OpLoggerKey
	OpLoggerList
	OpLoggerGet
	OpLoggerCheckpoint
	OpLoggerTail
	OpStorageUnlock
	OpStorageLock
	OpExtInit
	OpExtValidate
	OpExtMAC
	OpExtRequest
	OpExtToken
	OpKeyList
	OpKeySearch
	OpKeyGet
	OpKeyCreate
	OpKeyImport
	OpKeyDerive
	OpKeyUpdate
	OpKeyDelete
	OpHMACHash
	OpHMACVerify
	OpSign
	OpVerify
	OpEncrypt
	OpDecrypt
	OpWrap
	OpUnwrap
	OpECDH
	OpEncapsulate
	OpDecapsulate
	OpMLDSASign
	OpMLDSAVerify
	OpUpgradeUploadFW
	OpUpgradeUploadUI
	OpUpgradeCheckFW
	OpUpgradeCheckUI
	OpUpgradeInstallFW
	OpUpgradeInstallUI
	OpUpgradeUSBMode
	OpDiagTest
	OpDiagTRNG
	OpDiagBreakTemp
	OpDiagBreakTLS
	OpDiagBreakTRNG
	OpDiagDisableSelfTest
	OpDiagMemory
	OpDiagCorrupt
	OpDiagWipe
	opCount
)

// A Rule says who may run an operation, and when. The zero Rule is open to
// everybody in any state.
type Rule struct {
	TLS      bool     // 418 over plain HTTP
	TLSLogin bool     // 418 over plain HTTP from another host, when the module requires TLS for logins
	Clock    clockUse // 403 without a clock
	Fresh    bool     // 406 on an initialised module
	Backend  bool     // 406 without a trusted backend
	Inited   bool     // 409 on a fresh one
	Healthy  bool     // 409 in a fail state
	Unlocks  bool     // Healthy, but open when the module is locked and nothing else is wrong
	Token    tokenUse // 401 without one
	NoMaster bool     // 403 for role M
	Personas bool     // 403 for all but the roles U and M
	OnlyUser bool     // 403 for everybody but role U
	// OnlyFresh: 403 on an initialised module, whatever the token.
	OnlyFresh bool
	Scopes    []string // 403 unless the token satisfies one of them; nil: any
	// KeyScope: the scope of one key opens it too, so the token is judged in a
	// second step, admit, when the kid is known.
	KeyScope bool
	Damped   bool // held back and counted as a login
	Approval bool // counted apart from logins with a passphrase
}

type (
	clockUse int
	tokenUse int
)

const (
	clockUnused  clockUse = iota
	clockTrusted          // needed when the trusted-time option is on
	clockAlways
)

const (
	tokenOptional         tokenUse = iota // open to all, but a bad token is refused
	tokenUnlessFresh                      // required once the module is initialised
	tokenUnlessOpenSearch                 // required unless the key search is open; the operation decides what it answers then
	tokenRequired
)

// ruleOf is the table of who may do what. Every operation is here, and nothing
// runs without having passed its row.
func ruleOf(op Op) Rule {
	switch op {
	case OpChallenge:
		return Rule{TLSLogin: true, Clock: clockTrusted, Inited: true, Healthy: true, Unlocks: true}
	case OpLogin:
		return Rule{TLSLogin: true, Clock: clockTrusted, Inited: true, Healthy: true, Unlocks: true, Damped: true}
	case OpInitChallenge:
		return Rule{TLSLogin: true, Clock: clockAlways, Fresh: true, Healthy: true}
	case OpInit:
		return Rule{TLSLogin: true, Clock: clockAlways, Fresh: true, Healthy: true}
	case OpExtInit, OpExtValidate, OpExtMAC:
		return Rule{Inited: true, Healthy: true, Token: tokenRequired, OnlyUser: true,
			Scopes: []string{api.ScopeExtPair, api.ScopeSystemConfig}}
	case OpExtRequest:
		return Rule{TLSLogin: true, Clock: clockTrusted, Inited: true, Healthy: true}
	case OpExtToken:
		return Rule{TLSLogin: true, Clock: clockTrusted, Inited: true, Healthy: true, Damped: true, Approval: true}
	case OpVersion, OpStatus:
		return Rule{}
	case OpDiagTest, OpDiagTRNG, OpDiagBreakTemp, OpDiagBreakTLS, OpDiagBreakTRNG, OpDiagDisableSelfTest,
		OpDiagMemory, OpDiagCorrupt, OpDiagWipe:
		return Rule{} // to who reaches them at all, see Config.Diag
	case OpCheckinStart, OpCheckinFinish:
		return Rule{Backend: true}
	case OpConfigGet:
		return Rule{Inited: true, Token: tokenRequired,
			Scopes: []string{api.ScopeSystemConfig, api.ScopeLoggerGet, api.ScopeExtPair}}
	case OpConfigUpdate: // health, and what a fresh module takes, depend on the body
		return Rule{Token: tokenUnlessFresh, Personas: true, Scopes: []string{api.ScopeSystemConfig}}
	case OpAttestation:
		return Rule{Healthy: true, Token: tokenUnlessFresh}
	case OpProvision:
		return Rule{Healthy: true, OnlyFresh: true}
	case OpSelfTest:
		return Rule{Token: tokenUnlessFresh}
	case OpReboot:
		return Rule{Token: tokenUnlessFresh,
			Scopes: []string{api.ScopeSystemConfig, api.ScopeSystemUpgrade, api.ScopeSystemShutdown}}
	case OpUpgradeUploadFW, OpUpgradeUploadUI, OpUpgradeUSBMode:
		return Rule{Token: tokenUnlessFresh, Scopes: []string{api.ScopeSystemUpgrade}}
	case OpUpgradeCheckFW, OpUpgradeCheckUI, OpUpgradeInstallFW, OpUpgradeInstallUI:
		return Rule{Token: tokenUnlessFresh, Scopes: []string{api.ScopeSystemUpgrade, api.ScopeSystemConfig}}
	case OpShutdown:
		return Rule{Token: tokenRequired,
			Scopes: []string{api.ScopeSystemConfig, api.ScopeSystemShutdown}}
	case OpLoggerKey, OpLoggerList, OpLoggerGet, OpLoggerCheckpoint, OpLoggerTail:
		return Rule{Inited: true, Token: tokenRequired, Scopes: []string{api.ScopeLoggerGet}}
	}
	if op == OpStorageUnlock || op == OpStorageLock { // plain HTTP will do; which disk stands in the scope
		return Rule{Inited: true, Healthy: true, Token: tokenRequired, NoMaster: true, Scopes: []string{api.ScopeDisks}}
	}
	rule := Rule{TLS: true, Inited: true, Healthy: true, Token: tokenRequired, NoMaster: true}
	switch op {
	case OpKeyList:
		rule.Scopes = []string{api.ScopeKeyList}
	case OpKeySearch:
		rule.Token = tokenUnlessOpenSearch
		rule.Scopes = []string{api.ScopeKeySearch, api.ScopeKeyList, api.ScopeExtPair}
	case OpKeyGet:
		rule.KeyScope = true
		rule.Scopes = []string{api.ScopeKeyGet, api.ScopeKeyGen}
	case OpKeyCreate:
		rule.Scopes = []string{api.ScopeKeyGen}
	case OpKeyImport:
		rule.Scopes = []string{api.ScopeKeyImport}
	case OpKeyDerive:
		rule.Scopes = []string{api.ScopeKeyDerive, api.ScopeKeyGen}
	case OpKeyUpdate:
		rule.Scopes = []string{api.ScopeKeyUpdate}
	case OpKeyDelete:
		rule.Scopes = []string{api.ScopeKeyDelete}
	case OpHMACHash, OpHMACVerify, OpSign, OpVerify, OpEncrypt, OpDecrypt, OpWrap, OpUnwrap, OpECDH,
		OpEncapsulate, OpDecapsulate, OpMLDSASign, OpMLDSAVerify:
		rule.KeyScope = true
	default:
		panic("module: operation without a rule")
	}
	return rule
}

// rules is the table in the order of the operations, made once per module.
func rules() []Rule {
	all := make([]Rule, opCount)
	for op := range all {
		all[op] = ruleOf(Op(op))
	}
	return all
}

// A Caller is who sends a request, as far as the transport can tell.
type Caller struct {
	Addr   netip.Addr // where the request came from, behind trusted proxies the address they name
	TLS    bool
	Host   string // the request's Host without its port
	Bearer string // the bearer token
	// HasBearer: there is an Authorization header with a bearer token, even
	// an empty one. A token that is present has to be valid everywhere.
	HasBearer bool
}

// A Pass is the permission to run one operation once, for one caller. There is
// no other way to an operation than through [Module.Enter], which makes it.
type Pass struct {
	op     Op
	caller Caller
	state  *state           // the module as it was when the caller entered
	claims *api.TokenClaims // nil without a token
	place  *session.Place   // of a damped operation
	now    int64            // the module's clock when the caller entered
	// admitted: admit has judged the token for the key of the request.
	admitted bool
}

// Enter decides whether caller may run op: the token is valid or absent, the
// transport will do, the module is in the right state, and the token opens
// this operation. Its error is what the caller is to be told. The order of the
// checks is the protocol's.
//
// After a nil error, [Pass.Leave] must be called before the answer goes out.
func (m *Module) Enter(ctx context.Context, op Op, caller Caller) (*Pass, error) {
	now, clockSet := m.now(m.state.Load())
	st := m.state.Load() // after the time: a clock set back has replaced the secrets
	rule := &m.rules[op]
	p := &Pass{op: op, caller: caller, state: st, now: now}
	if m.wiped.Load() {
		return nil, api.ErrConflict.Because("the module is being wiped")
	}

	if caller.HasBearer {
		claims, err := st.boot.OpenToken(caller.Bearer, st, now)
		if err != nil {
			m.log.DebugContext(ctx, "bearer token refused", "cause", err, "address", caller.Addr)
			return nil, api.ErrUnauthorized
		}
		p.claims = &claims
	}
	if rule.TLS && !caller.TLS {
		return nil, m.cfg.Quirks.plainRefused(op)
	}
	if rule.TLSLogin && m.cfg.RequireTLSLogin && !caller.TLS && !caller.Addr.Unmap().IsLoopback() {
		return nil, api.ErrTLSRequired.Because("logins over plain HTTP are taken from this host only")
	}
	switch {
	case rule.Clock == clockAlways && !clockSet, rule.Clock == clockTrusted && !clockSet && st.config.TrustedTS:
		return nil, api.ErrForbidden.Because("clock not set, check in first")
	case rule.Healthy && st.fls() != 0 && !(rule.Unlocks && st.fls() == flsLocked):
		return nil, api.ErrConflict.Becausef("fail state %02x", st.fls())
	case rule.Fresh && st.config.Inited:
		return nil, api.ErrNotAcceptable.Because("already initialised")
	case rule.Backend && len(m.cfg.TrustedBackends) == 0:
		return nil, api.ErrNotAcceptable.Because("no trusted backend is configured")
	case rule.Inited && !st.config.Inited:
		return nil, api.ErrConflict.Because("not initialised")
	}
	if err := m.authorise(ctx, p, rule); err != nil {
		return nil, err
	}
	return p, nil
}

// Arrived is called when the whole request is there, before anything of its
// body is looked at. Time, boot and state are those of now and not of when the
// head came, and a damped operation takes its place now: a caller who holds
// back bodies gains nothing by it. The error is what the caller is to be told.
func (m *Module) Arrived(ctx context.Context, p *Pass) error {
	if now, _ := m.now(p.state); now == p.now && p.state == m.state.Load() && p.state.fls() == 0 && !m.wiped.Load() && !m.rules[p.op].Damped {
		return nil // nothing that Enter looked at has changed
	}
	again, err := m.Enter(ctx, p.op, p.caller)
	if err != nil {
		return err
	}
	*p = *again
	if !m.rules[p.op].Damped {
		return nil
	}
	damper := m.damper
	if m.rules[p.op].Approval {
		damper = m.approvals
	}
	place, err := damper.Enter(p.caller.Addr)
	p.place = place
	return err
}

// authorise checks that there is a token if there has to be one, and that its
// scope and role open the operation.
func (m *Module) authorise(ctx context.Context, p *Pass, rule *Rule) error {
	if rule.OnlyFresh && p.state.config.Inited {
		if p.claims != nil {
			return m.denied(ctx, p, "only a fresh module takes this")
		}
		return api.ErrForbidden.Because("only a fresh module takes this") // not recorded: anybody can ask
	}
	switch rule.Token {
	case tokenOptional:
		return nil
	case tokenUnlessFresh:
		if !p.state.config.Inited {
			return nil
		}
	case tokenUnlessOpenSearch:
		if p.claims == nil && p.state.config.AllowKeySearch {
			return nil
		}
	}
	if p.claims == nil {
		return api.ErrUnauthorized
	}
	if rule.KeyScope {
		return nil // admit sees to it
	}
	return m.scoped(ctx, p, rule, "")
}

// scoped checks role and scope of a token. keyScope, if not empty, opens the
// operation too, to the letter.
func (m *Module) scoped(ctx context.Context, p *Pass, rule *Rule, keyScope string) error {
	if rule.NoMaster && p.claims.Sub == api.RoleMaster {
		return m.denied(ctx, p, "the administrator manages and uses no keys and disks")
	}
	if rule.Personas && p.claims.Sub != api.RoleUser && p.claims.Sub != api.RoleMaster {
		return m.denied(ctx, p, "only the user and the administrator do this")
	}
	if rule.OnlyUser && p.claims.Sub != api.RoleUser {
		return m.denied(ctx, p, "only the user pairs authenticators")
	}
	if rule.Scopes == nil && !rule.KeyScope {
		return nil
	}
	if keyScope != "" && p.claims.Scope == keyScope {
		return nil
	}
	for _, required := range rule.Scopes {
		if api.ScopeSatisfies(p.claims.Scope, required) {
			return nil
		}
	}
	wanted := keyScope
	if len(rule.Scopes) > 0 {
		wanted = rule.Scopes[0]
	}
	return m.denied(ctx, p, "the token's scope does not open this; it takes "+wanted)
}

// denied records that a token was not enough, and returns the refusal.
func (m *Module) denied(ctx context.Context, p *Pass, why string) error {
	if err := m.append(ctx, audit.Record{Type: audit.FailedScopeCheck, Result: audit.Failed, Who: p.who()}); err != nil {
		return err
	}
	return api.ErrForbidden.Because(why)
}

// Admit is the second step of Enter for an operation on one key, when the kid
// is known and before the other fields are looked at: 400 for what is no kid,
// 403 for a token that does not open it.
func (m *Module) Admit(ctx context.Context, p *Pass, kid string) (store.KID, error) {
	id, ok := keyring.ParseKID(kid)
	if !ok {
		return id, api.ErrBadRequest.Because("kid is not 32 hex digits")
	}
	rule := &m.rules[p.op]
	if !rule.KeyScope {
		panic("module: admission to an operation that needs none")
	}
	if !p.admitted {
		if err := m.scoped(ctx, p, rule, api.ScopeKeyUse(kid)); err != nil {
			return id, err
		}
		p.admitted = true
	}
	return id, nil
}

// Leave ends the pass: the answer of a damped operation is held back until it
// is due. Its error means that the caller has gone.
func (p *Pass) Leave(ctx context.Context) error {
	place := p.place
	if place == nil {
		return nil
	}
	p.place = nil
	return place.Wait(ctx)
}

// who is the caller as the audit log names it.
func (p *Pass) who() string {
	if p.claims == nil {
		return ""
	}
	return auditName(p.claims.Sub)
}

// must guards the door from the inside: a pass for one operation opens no other.
func (p *Pass) must(op Op) {
	if p.op != op {
		panic("module: a pass was used for another operation")
	}
}
