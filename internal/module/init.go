package module

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/uuid"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/records"
	"softhem/internal/session"
	"softhem/internal/store"
	"softhem/internal/suite"
)

// InitChallenge begins the personalisation of a fresh module.
func (m *Module) InitChallenge(p *Pass) api.InitChallenge {
	p.must(OpInitChallenge)
	st := p.state
	nonce := st.boot.NewNonce(session.PurposeInit(), nil, p.now)
	return api.InitChallenge{
		Exp:     p.now + session.PurposeInit().Life(),
		SPK:     st.boot.SPK(),
		JTI:     api.EncodeBase64(nonce[:]),
		Genuine: st.identity.genuine(p.now),
		EID:     st.identity.eid,
	}
}

// initClaims are those of api.InitClaims that the module reads. A pointer is a
// field whose absence is an error or has a default.
type initClaims struct {
	proofClaims `json:",inline"`
	Exp         *int64      `json:"exp"`
	Iat         int64       `json:"iat"`
	Cfg         *initConfig `json:"cfg"`
}

type initConfig struct {
	MasterKey        *string `json:"masterkey"`
	UserKey          *string `json:"userkey"`
	User             *string `json:"user"`
	Email            *string `json:"email"`
	Hostname         *string `json:"hostname"`
	Origin           *string `json:"origin"`
	TrustedTS        *bool   `json:"trusted_ts"`
	TrustedBackend   *bool   `json:"trusted_backend"`
	AllowKeySearch   *bool   `json:"allow_keysearch"`
	IP               *string `json:"ip"`
	StorageMode      *int    `json:"storage_mode"`
	StorageDisk0Size *int64  `json:"storage_disk0size"`
	DNSD             *bool   `json:"dnsd"`
	Ctx              *int64  `json:"ctx"`
	GenCSR           *bool   `json:"gen_csr"`
}

// Init personalises a fresh module. The configuration, both personas and the
// record are one change: a crash leaves a fresh module or a finished one.
func (m *Module) Init(ctx context.Context, p *Pass, req api.InitRequest) (api.InitAnswer, error) {
	p.must(OpInit)
	if req.Init == "" {
		return api.InitAnswer{}, api.ErrBadRequest.Because("init is missing")
	}
	claims, issuer, err := m.checkInit(p, req.Init)
	if err != nil {
		m.log.InfoContext(ctx, "personalisation refused", "cause", err, "address", p.caller.Addr)
		return api.InitAnswer{}, err
	}
	next, err := m.initialState(p, claims.Cfg, issuer)
	if err != nil {
		return api.InitAnswer{}, err
	}
	var csr string
	if claims.Cfg.GenCSR != nil && *claims.Cfg.GenCSR {
		if csr, err = m.cfg.TLS.Request(next.config.Hostname, nil); err != nil {
			return api.InitAnswer{}, fmt.Errorf("certificate request: %w", err)
		}
	}
	if err := m.personalise(ctx, next); err != nil {
		return api.InitAnswer{}, err
	}
	token, err := next.boot.IssueToken(
		m.tokenClaims(p, api.RoleUser, api.ScopeSystemConfig, p.now+defaultTokenTTL, ""), next)
	if err != nil {
		return api.InitAnswer{}, fmt.Errorf("issue a token: %w", err)
	}
	c := next.config
	return api.InitAnswer{
		InstanceID: uuid.UUID(c.InstanceID).String(), Token: token, CSR: csr,
		Genuine:        next.identity.genuine(p.now),
		RebootRequired: c.needsReboot(freshConfig()),
	}, nil
}

// checkInit checks the proof. Its errors are what the caller is told.
func (m *Module) checkInit(p *Pass, token string) (c initClaims, issuer [32]byte, err error) {
	issuer, err = p.state.boot.OpenEJWT(token, &c)
	if err != nil {
		return c, issuer, api.ErrUnauthorized
	}
	if err := m.useProof(p, session.PurposeInit(), c.proofClaims); err != nil {
		return c, issuer, api.ErrUnauthorized
	}
	if c.Exp == nil || *c.Exp <= p.now || c.Iat > p.now+clockLead {
		return c, issuer, api.ErrUnauthorized
	}
	if c.Cfg == nil {
		return c, issuer, api.ErrBadRequest.Because("cfg is missing")
	}
	return c, issuer, nil
}

// initialState is the module as cfg makes it, or a 400 that names the field.
func (m *Module) initialState(p *Pass, cfg *initConfig, issuer [32]byte) (*state, error) {
	next := *p.state
	c := &next.config
	missing := ""
	need := func(name string, present bool) {
		if !present && missing == "" {
			missing = name
		}
	}
	need("masterkey", cfg.MasterKey != nil)
	need("userkey", cfg.UserKey != nil)
	need("user", cfg.User != nil)
	need("email", cfg.Email != nil)
	need("hostname", cfg.Hostname != nil)
	need("origin", cfg.Origin != nil)
	need("trusted_ts", cfg.TrustedTS != nil)
	need("trusted_backend", cfg.TrustedBackend != nil)
	need("allow_keysearch", cfg.AllowKeySearch != nil)
	if missing != "" {
		return nil, api.ErrBadRequest.Because("cfg lacks " + missing)
	}
	master, ok := usableKey(p, *cfg.MasterKey)
	if !ok {
		return nil, api.ErrBadRequest.Because("masterkey is not a usable X25519 key")
	}
	if !suite.Equal(master, issuer[:]) {
		return nil, api.ErrUnauthorized // the proof is by another key than the one to be installed
	}
	user, ok := usableKey(p, *cfg.UserKey)
	if !ok {
		return nil, api.ErrBadRequest.Because("userkey is not a usable X25519 key")
	}
	next.user = persona{Key: user, Generation: p.state.user.Generation + 1}
	next.master = persona{Key: master, Generation: p.state.master.Generation + 1}

	c.Inited, c.Iat, c.Uts, c.InstanceID = true, p.now, p.now, uuid.New()
	c.User, c.Email, c.Hostname, c.Origin = *cfg.User, *cfg.Email, *cfg.Hostname, *cfg.Origin
	c.TrustedTS, c.TrustedBackend, c.AllowKeySearch = *cfg.TrustedTS, *cfg.TrustedBackend, *cfg.AllowKeySearch
	take(&c.Ctx, cfg.Ctx)
	if m.cfg.Profile != PPA { // the rest are unknown names there
		return &next, c.validate()
	}
	take(&c.DNSD, cfg.DNSD)
	take(&c.StorageMode, cfg.StorageMode)
	take(&c.StorageDisk0Size, cfg.StorageDisk0Size)
	if cfg.IP != nil {
		ip, ok := parseCIDR(*cfg.IP)
		if !ok {
			return nil, api.ErrBadRequest.Because("ip is not an address")
		}
		c.IP = ip
	}
	return &next, c.validate()
}

func take[T any](into *T, from *T) {
	if from != nil {
		*into = *from
	}
}

// usableKey decodes a public key and refuses points that give no secret.
func usableKey(p *Pass, b64 string) ([]byte, bool) {
	key, ok := session.Decode32(b64)
	if !ok {
		return nil, false
	}
	secret, err := p.state.boot.Key().Shared(key[:])
	clear(secret)
	return key[:], err == nil
}

// validate checks what a client may set. Its error is a 400 that names the
// field.
func (c *config) validate() error {
	invalid := func(reason string) error { return api.ErrBadRequest.Because(reason) }
	switch {
	case len(c.User) < 1 || len(c.User) > 64:
		return invalid("user must be 1 to 64 bytes")
	case len(c.Email) > 254:
		return invalid("email is longer than 254 bytes")
	case !validHostname(c.Hostname):
		return invalid("hostname is not a host name")
	case !validOrigins(c.Origin):
		return invalid("origin is not *, an origin, or *.domain")
	case c.DoSProtection < 0 || c.DoSProtection > maxDoSProtection:
		return invalid("http_option_dosprot_mode is not 0 to 4")
	case c.StorageMode < 0 || c.StorageMode > 255:
		return invalid("storage_mode is not 0 to 255")
	case c.StorageDisk0Size < 0 || c.StorageDisk0Size > storageCapacity:
		return invalid("storage_disk0size is more than the disk holds")
	}
	return nil
}

// validHostname accepts DNS names (RFC 1123: letters, digits, hyphens) and IP
// addresses.
func validHostname(h string) bool {
	if _, err := netip.ParseAddr(h); err == nil {
		return true
	}
	if len(h) < 1 || len(h) > 253 {
		return false
	}
	for label := range strings.SplitSeq(h, ".") {
		if len(label) < 1 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
				return false
			}
		}
	}
	return true
}

// parseCIDR takes an address with or without /prefix; without, the usual one
// of a small network is meant.
func parseCIDR(s string) (string, bool) {
	if prefix, err := netip.ParsePrefix(s); err == nil {
		return prefix.String(), true
	}
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" {
		return "", false
	}
	bits := 24
	if addr.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(addr, bits).String(), true
}

// personalise puts the first state in place, on disk and here. The check that
// the module is still fresh stands inside the transaction: of two that come at
// once, one wins and the other is told that it came late.
func (m *Module) personalise(ctx context.Context, next *state) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.cfg.Sealer
	err := m.commit(ctx, func(ctx context.Context, tx store.Tx) ([]audit.Record, error) {
		if _, err := tx.Get(ctx, kindConfig, idOnly); err == nil {
			return nil, api.ErrNotAcceptable.Because("already initialised")
		}
		for role, who := range map[api.Role]persona{api.RoleUser: next.user, api.RoleMaster: next.master} {
			if err := records.Save(ctx, tx, s, kindPersona, string(role), who); err != nil {
				return nil, err
			}
		}
		if err := records.Save(ctx, tx, s, kindConfig, idOnly, next.config); err != nil {
			return nil, err
		}
		identity := next.identity.record
		identity.Inited = true
		if err := records.Save(ctx, tx, s, kindIdentity, idOnly, identity); err != nil {
			return nil, err
		}
		return []audit.Record{{Type: audit.DeviceInited, Who: string(api.RoleMaster)}}, nil
	})
	if err == nil {
		m.replace(func(st *state) { st.config, st.user, st.master = next.config, next.user, next.master })
	}
	return err
}

// replace puts a changed copy of the state in place.
func (m *Module) replace(change func(*state)) {
	for {
		old := m.state.Load()
		st := *old
		change(&st)
		if m.state.CompareAndSwap(old, &st) {
			return
		}
	}
}
