package module

import (
	"context"
	"errors"
	"time"

	"github.com/go-json-experiment/json"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/certs"
	"softhem/internal/records"
	"softhem/internal/session"
	"softhem/internal/store"
	"softhem/internal/suite"
)

// ConfigUpdate is the body of POST /api/system/config as the module reads it:
// api.ConfigUpdate, where every field knows whether it was given, and with what.
type ConfigUpdate struct {
	User             given[string] `json:"user"`
	Email            given[string] `json:"email"`
	Origin           given[string] `json:"origin"`
	TrustedTS        given[bool]   `json:"trusted_ts"`
	TrustedBackend   given[bool]   `json:"trusted_backend"`
	AllowKeySearch   given[bool]   `json:"allow_keysearch"`
	Ctx              given[int64]  `json:"ctx"`
	HTTPOptionHSTS   given[bool]   `json:"http_option_hsts"`
	HTTPOptionDoS    given[int]    `json:"http_option_dosprot_mode"`
	DNSD             given[bool]   `json:"dnsd"`
	StorageMode      given[int]    `json:"storage_mode"`
	StorageDisk0Size given[int64]  `json:"storage_disk0size"`

	TLS    given[tlsBundle] `json:"tls"`
	GenCSR given[bool]      `json:"gen_csr"`

	UserKey      given[string] `json:"userkey"`
	UserKeyHMAC  given[string] `json:"userkey_hmac"`
	UserKeyNonce given[string] `json:"userkey_nonce"`

	Wipeout given[bool] `json:"wipeout"`
}

// given is a field that may be absent. A value of another type is not the end
// of the whole body: it is an invalid field, which has an answer of its own.
type given[T any] struct {
	here, bad bool
	value     T
}

// UnmarshalJSON never fails: what does not decode is bad, null is absent.
func (g *given[T]) UnmarshalJSON(raw []byte) error {
	if string(raw) == "null" {
		return nil
	}
	g.here = true
	g.bad = json.Unmarshal(raw, &g.value) != nil
	return nil
}

// put replaces a setting by a field that was given.
func put[T any](f *fields, name string, g given[T], into *T) {
	if g.bad {
		f.bad("%s is of the wrong type", name)
	} else if g.here {
		*into = g.value
	}
}

// A ConfigOutcome is what came of an update.
type ConfigOutcome struct {
	// Answer is what the caller is told, also beside a 400; nil: nothing.
	Answer *api.ConfigUpdated
	// Wiped: the module's data is gone. It refuses everything from here, and
	// whoever runs it has to start a fresh one in its place.
	Wiped bool
}

// ConfigUpdate changes any part of the configuration, or nothing: all fields are
// looked at before anything is written, and what is written is one transaction
// with its record. A crash leaves the configuration of before or of after.
//
// On a fresh module it takes the first TLS pair, and nothing else.
func (m *Module) ConfigUpdate(ctx context.Context, p *Pass, req ConfigUpdate) (ConfigOutcome, error) {
	p.must(OpConfigUpdate)
	m.mu.Lock()
	defer m.mu.Unlock()
	// The state of now, not of when the caller entered: another update, a
	// reboot or a wipe may have come first. What the token stood on must hold.
	now := m.state.Load()
	if err := m.stillEntered(p, now); err != nil {
		return ConfigOutcome{}, err
	}
	if !now.config.Inited {
		return ConfigOutcome{}, m.firstTLS(ctx, p, req)
	}
	if req.Wipeout.here && !req.Wipeout.bad && req.Wipeout.value {
		return m.wipe(ctx, p)
	}
	if fls := now.fls(); fls != 0 && !unlocks(p, fls, req) {
		return ConfigOutcome{}, api.ErrConflict.Becausef("fail state %02x", fls)
	}
	u, err := m.plan(p, now, req)
	if err == error(errBadTLSKey) { // not errors.Is: that is every 406
		return ConfigOutcome{}, m.notDone(ctx, p, audit.ConfigUpdated, errBadTLSKey.Reason, nil)
	}
	if err != nil {
		return ConfigOutcome{Answer: &api.ConfigUpdated{}}, err
	}
	if req.GenCSR.value {
		if u.answer.CSR, err = m.cfg.TLS.Request(u.next.Hostname, u.scalar); err != nil {
			return ConfigOutcome{}, err
		}
		u.answer.Genuine = now.identity.genuine(p.now)
	}
	if err := m.carryOut(ctx, p, now, u); err != nil {
		return ConfigOutcome{}, err
	}
	return ConfigOutcome{Answer: &u.answer}, nil
}

// unlocks tells whether an update is what ends a lock: a new user key, by role M,
// on a module that nothing else is wrong with.
func unlocks(p *Pass, fls uint32, req ConfigUpdate) bool {
	return fls == flsLocked && p.claims != nil && p.claims.Sub == api.RoleMaster && req.UserKey.here
}

// stillEntered tells whether what let the caller in holds in this state.
func (m *Module) stillEntered(p *Pass, now *state) error {
	if m.wiped.Load() {
		return api.ErrConflict.Because("the module is being wiped")
	}
	if p.claims == nil {
		if now.config.Inited {
			return api.ErrUnauthorized
		}
		return nil
	}
	before, _ := p.state.Generation(p.claims.Sub)
	after, known := now.Generation(p.claims.Sub)
	if now.boot != p.state.boot || !known || before != after {
		return api.ErrUnauthorized
	}
	return nil
}

// An update is a request that was found valid.
type update struct {
	next    config
	user    *persona // nil: stays
	scalar  []byte   // of a TLS key that came along
	chain   [][]byte // of a TLS pair; nil: stays
	answer  api.ConfigUpdated
	changed bool
}

// plan looks at every field. Its error is a 400 that names the first that is
// wrong; the 401 of a user key that is not proven; or the 406 of a TLS key that
// does not open.
func (m *Module) plan(p *Pass, now *state, req ConfigUpdate) (update, error) {
	u := update{next: now.config}
	f := &fields{}
	put(f, "user", req.User, &u.next.User)
	put(f, "email", req.Email, &u.next.Email)
	put(f, "origin", req.Origin, &u.next.Origin)
	put(f, "trusted_ts", req.TrustedTS, &u.next.TrustedTS)
	put(f, "trusted_backend", req.TrustedBackend, &u.next.TrustedBackend)
	put(f, "allow_keysearch", req.AllowKeySearch, &u.next.AllowKeySearch)
	put(f, "ctx", req.Ctx, &u.next.Ctx)
	put(f, "http_option_hsts", req.HTTPOptionHSTS, &u.next.HSTS)
	put(f, "http_option_dosprot_mode", req.HTTPOptionDoS, &u.next.DoSProtection)
	if m.cfg.Profile == PPA { // elsewhere unknown names, which are ignored
		put(f, "dnsd", req.DNSD, &u.next.DNSD)
		put(f, "storage_mode", req.StorageMode, &u.next.StorageMode)
		put(f, "storage_disk0size", req.StorageDisk0Size, &u.next.StorageDisk0Size)
	}
	var ignored bool
	put(f, "gen_csr", req.GenCSR, &ignored)
	put(f, "wipeout", req.Wipeout, &ignored)
	if f.err == nil {
		f.err = u.next.validate()
	}
	proof := f.userKey(p, req)
	bundle := f.tlsBundle(req.TLS)
	if f.err != nil {
		return u, f.err
	}
	if bundle != nil {
		var err error
		if u.chain = bundle.chain; bundle.key != nil {
			if u.scalar, err = bundle.scalar(now.identity.attest); err != nil {
				return u, errBadTLSKey
			}
		}
	}
	if proof != nil {
		if !m.proven(p, now, *proof) {
			return u, api.ErrUnauthorized
		}
		u.user = &persona{Key: proof.public[:], Generation: now.user.Generation + 1}
		u.next.Locked = false // the fail state stays until the reboot
	}
	u.answer.RebootRequired = u.next.needsReboot(now.config) || u.chain != nil || now.config.Locked && !u.next.Locked
	u.changed = u.next != now.config || u.user != nil || u.chain != nil
	u.answer.Updated = u.changed
	if u.changed {
		u.next.Uts = max(p.now, now.config.Uts+1)
	}
	return u, nil
}

// userKeyProof is the triple of a user-key change.
type userKeyProof struct {
	public, mac [32]byte
	nonce       session.Nonce
}

// userKey reads the triple, which is given as a whole or not at all.
func (f *fields) userKey(p *Pass, req ConfigUpdate) *userKeyProof {
	var text [3]string
	count := 0
	for i, g := range []given[string]{req.UserKey, req.UserKeyHMAC, req.UserKeyNonce} {
		name := []string{"userkey", "userkey_hmac", "userkey_nonce"}[i]
		if put(f, name, g, &text[i]); g.here {
			count++
		}
	}
	if count == 0 || f.err != nil {
		return nil
	}
	if count != len(text) {
		f.bad("userkey, userkey_hmac and userkey_nonce go together")
		return nil
	}
	var proof userKeyProof
	var ok [3]bool
	proof.public, ok[0] = session.Decode32(text[0])
	proof.mac, ok[1] = session.Decode32(text[1])
	proof.nonce, ok[2] = session.Decode32(text[2])
	_, usable := usableKey(p, text[0])
	switch {
	case !ok[0], !usable:
		f.bad("userkey is not a usable X25519 key")
	case !ok[1]:
		f.bad("userkey_hmac is not 32 bytes")
	case !ok[2]:
		f.bad("userkey_nonce is not 32 bytes")
	}
	return &proof
}

// proven tells whether who changes the user key holds its private half:
//
//	userkey_hmac = HMAC-SHA256(X25519(new private key, spk), nonce ‖ new public key)
//
// The nonce is used up by a MAC that holds, and by no other.
func (m *Module) proven(p *Pass, now *state, proof userKeyProof) bool {
	secret, err := now.boot.Key().Shared(proof.public[:])
	if err != nil {
		return false
	}
	defer clear(secret)
	if !suite.Equal(userKeyMAC(secret, proof.nonce, proof.public), proof.mac[:]) {
		return false
	}
	return now.boot.CheckNonce(session.PurposeConfig(), nil, proof.nonce, p.now) &&
		now.boot.UseNonce(session.PurposeConfig(), proof.nonce, p.now)
}

func userKeyMAC(secret []byte, nonce session.Nonce, public [32]byte) []byte {
	return suite.HMACSHA256(secret, nonce[:], public[:])
}

// carryOut writes an update and puts it in place. m.mu is held.
func (m *Module) carryOut(ctx context.Context, p *Pass, now *state, u update) error {
	done := audit.Record{Type: audit.ConfigUpdated, Who: p.who()}
	if !u.changed {
		return m.append(ctx, done)
	}
	write := func(saveTLS func(context.Context, store.Tx) error) error {
		return m.commit(ctx, func(ctx context.Context, tx store.Tx) ([]audit.Record, error) {
			if saveTLS != nil {
				if err := saveTLS(ctx, tx); err != nil {
					return nil, err
				}
			}
			if u.user != nil {
				if err := records.Save(ctx, tx, m.cfg.Sealer, kindPersona, string(api.RoleUser), *u.user); err != nil {
					return nil, err
				}
			}
			return []audit.Record{done}, records.Save(ctx, tx, m.cfg.Sealer, kindConfig, idOnly, u.next)
		})
	}
	var err error
	if u.chain != nil {
		err = m.cfg.TLS.Install(u.scalar, u.chain, p.now, write)
	} else {
		err = write(nil)
	}
	if err != nil {
		return m.notUpdated(ctx, p, err)
	}
	m.adopt(now, u)
	return nil
}

// adopt makes an update that was written the module's state.
func (m *Module) adopt(now *state, u update) {
	// Whether the host's clock stands in for one that is not set hangs on
	// trusted_ts. Where that means a step back, all tokens and nonces end in
	// the same moment, so that none which had ended comes back to life.
	before, _, _ := m.clock.now(now.config.TrustedTS)
	after, _, _ := m.clock.now(u.next.TrustedTS)
	back := after < before-backwardsGrace
	m.replace(func(st *state) {
		st.config = u.next
		if u.user != nil {
			st.user = *u.user
		}
		if back {
			st.boot = m.boots.Renew(st.boot)
		}
	})
	if back {
		m.audit.ClockSet()
	}
}

// notUpdated says why a valid update was not made: what cannot be done, and
// what could not be written, is a 406 with a record.
func (m *Module) notUpdated(ctx context.Context, p *Pass, err error) error {
	var told *api.Error
	why := ""
	switch {
	case errors.As(err, &told):
		return err // the log, or the room for it
	case errors.Is(err, certs.ErrRefused):
		why = err.Error()
	default:
		m.log.ErrorContext(ctx, "the configuration could not be written", "error", err)
		why = "the configuration could not be written"
	}
	return m.notDone(ctx, p, audit.ConfigUpdated, why, nil)
}

// HSTS tells whether browsers are to be told to use TLS only.
func (m *Module) HSTS() bool { return m.state.Load().config.HSTS }

// dosStep is what one step of http_option_dosprot_mode gives a request.
const dosStep = 500 * time.Millisecond

// RequestLimit is how long a request may take to arrive; 0: no limit of the
// configuration.
func (m *Module) RequestLimit() time.Duration {
	return time.Duration(m.state.Load().config.DoSProtection) * dosStep
}
