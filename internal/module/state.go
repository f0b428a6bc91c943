package module

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"sync/atomic"
	"time"

	"softhem/api"
	"softhem/internal/disk"
	"softhem/internal/records"
	"softhem/internal/session"
	"softhem/internal/store"
	"softhem/internal/suite"
)

const (
	kindIdentity store.Kind = "identity"
	kindConfig   store.Kind = "config"
	kindPersona  store.Kind = "persona"
	idOnly                  = "module" // identity and config have one record each
)

// state is the module at one moment. It is never changed: a change makes a
// copy and puts it in place, so a request sees one consistent state for as
// long as it runs.
type state struct {
	identity *identity
	config   config
	user     persona
	master   persona
	pairings []pairing // in the order they were made
	boot     *session.Boot
	bootedAt time.Time         // monotonic, for the uptime
	fail     *atomic.Uint32    // FLS of this boot, latched
	sectors  [disk.Count]int64 // sizes of the disks, those of the configuration when the boot began
	faults   *faults           // made in this boot by the diagnostics
	tests    *tests            // what the self-tests of this boot found
}

func (s *state) fls() uint32   { return s.fail.Load() }
func (s *state) healthy() bool { return s.fls() == 0 }

// Generation implements session.Generations.
func (s *state) Generation(sub api.Role) (uint64, bool) {
	switch {
	case sub == api.RoleUser && s.config.Inited:
		return s.user.Generation, true
	case sub == api.RoleMaster && s.config.Inited:
		return s.master.Generation, true
	}
	for i := range s.pairings {
		if s.pairings[i].sub == sub {
			return s.pairings[i].Generation, true
		}
	}
	return 0, false
}

// identity is who the module is, made on its first start and again only after
// a wipe.
type identity struct {
	key     *suite.X25519Key  // public part: eid
	signing *suite.Ed25519Key // public part: eid_sign
	attest  *suite.P256Key
	cert    []byte   // DER, of the attestation key: its own, or the first of chain
	chain   [][]byte // what the attestation key was given, leaf first; nil: nothing yet
	devID   string   // 16 hex digits
	record  identityRecord

	eid, eidSign, genuineID string // base64, as they go out
}

// identityRecord is the identity as it is kept, sealed.
type identityRecord struct {
	X25519  []byte `json:"x25519"`  // scalar, 32 bytes
	Ed25519 []byte `json:"ed25519"` // seed, 32 bytes
	Attest  []byte `json:"attest"`  // P-256 scalar, 32 bytes
	Cert    []byte `json:"cert"`    // DER, self-signed certificate of the attestation key
	DevID   []byte `json:"devid"`   // 8 bytes
	// Inited says that there is a configuration. It stands here so that losing
	// that record does not make the module anybody's.
	Inited bool `json:"inited,omitzero"`
}

// config is the configuration as it is kept, sealed.
type config struct {
	Inited           bool     `json:"inited"`
	Iat              int64    `json:"iat"`
	Uts              int64    `json:"uts"`
	InstanceID       [16]byte `json:"instanceid"` // all zero on a fresh module
	User             string   `json:"user"`
	Email            string   `json:"email"`
	Hostname         string   `json:"hostname"`
	Origin           string   `json:"origin"`
	IP               string   `json:"ip"` // CIDR
	DNSD             bool     `json:"dnsd"`
	TrustedTS        bool     `json:"trusted_ts"`
	TrustedBackend   bool     `json:"trusted_backend"`
	AllowKeySearch   bool     `json:"allow_keysearch"`
	Ctx              int64    `json:"ctx"`
	StorageMode      int      `json:"storage_mode"`
	StorageDisk0Size int64    `json:"storage_disk0size"`
	HSTS             bool     `json:"http_option_hsts"`
	DoSProtection    int      `json:"http_option_dosprot_mode"`
	// Locked by an order: the user has no key, see orderLock.
	Locked bool `json:"locked,omitzero"`
}

// needsReboot tells whether a network or storage setting differs.
func (c config) needsReboot(from config) bool {
	return c.IP != from.IP || c.DNSD != from.DNSD || c.StorageMode != from.StorageMode || c.StorageDisk0Size != from.StorageDisk0Size
}

// maxDoSProtection is the strictest http_option_dosprot_mode.
const maxDoSProtection = 4

// Defaults of a fresh module.
const (
	defaultHostname    = "localhost"
	defaultIP          = "192.168.7.1/24"
	defaultStorageMode = 81
	defaultDisk0Size   = 8_388_608  // sectors of 512 bytes: 4 GiB
	storageCapacity    = 16_777_216 // 8 GiB for both disks
)

func freshConfig() config {
	return config{
		Hostname: defaultHostname, Origin: "*", IP: defaultIP, TrustedTS: true,
		StorageMode: defaultStorageMode, StorageDisk0Size: defaultDisk0Size,
	}
}

// persona is one of the two who can log in. Generation grows when the key
// changes, which kills exactly the tokens of that role.
type persona struct {
	Key        []byte `json:"key"` // X25519 public key, 32 bytes; none: cannot log in
	Generation uint64 `json:"generation"`
}

// loadState reads what is kept, making the identity if there is none.
func (m *Module) loadState(ctx context.Context) (*state, error) {
	st := &state{config: freshConfig()}
	var err error
	if st.identity, err = m.loadIdentity(ctx); err != nil {
		return nil, err
	}
	err = m.cfg.Store.View(ctx, func(r store.Reader) error {
		if err := loadInto(ctx, m, r, kindConfig, idOnly, &st.config); errors.Is(err, store.ErrNotFound) && !st.identity.record.Inited {
			return nil // fresh: no config, no personas
		} else if err != nil {
			return err
		}
		if err := loadInto(ctx, m, r, kindPersona, string(api.RoleUser), &st.user); err != nil {
			return err
		}
		if err := loadInto(ctx, m, r, kindPersona, string(api.RoleMaster), &st.master); err != nil {
			return err
		}
		st.pairings, err = m.loadPairings(ctx, r, st.identity)
		return err
	})
	return st, err
}

// loadInto is records.Load into an existing value, which an error leaves as it is.
func loadInto[T any](ctx context.Context, m *Module, r store.Reader, kind store.Kind, id string, into *T) error {
	v, err := records.Load[T](ctx, r, m.cfg.Sealer, kind, id)
	if err == nil {
		*into = v
	}
	return err
}

func (m *Module) loadIdentity(ctx context.Context) (*identity, error) {
	var rec identityRecord
	err := m.cfg.Store.View(ctx, func(r store.Reader) (err error) {
		rec, err = records.Load[identityRecord](ctx, r, m.cfg.Sealer, kindIdentity, idOnly)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		if err := m.neverUsed(); err != nil {
			return nil, err
		}
		if rec, err = newIdentity(m.cfg.Rand, m.cfg.HostClock()); err != nil {
			return nil, err
		}
		err = m.cfg.Store.Update(ctx, func(tx store.Tx) error {
			return records.Save(ctx, tx, m.cfg.Sealer, kindIdentity, idOnly, rec)
		})
	}
	if err != nil {
		return nil, fmt.Errorf("the module's identity: %w", err)
	}
	id, err := rec.open()
	if err != nil {
		return nil, err
	}
	return m.loadProvisioning(ctx, id)
}

// neverUsed refuses to make an identity where there was one: a store that is
// empty beside log files was lost, and must not become a module that belongs to
// the first who asks.
func (m *Module) neverUsed() error {
	if m.cfg.AuditDir == "" {
		return nil
	}
	files, err := os.ReadDir(m.cfg.AuditDir)
	if err != nil || len(files) == 0 {
		return nil
	}
	return fmt.Errorf("the store is empty and %s holds the logs of a module; restore the store, or move the whole data folder away to start anew", m.cfg.AuditDir)
}

// newIdentity draws an identity from random, in a fixed order, so that one
// stream gives one identity.
func newIdentity(random io.Reader, now time.Time) (identityRecord, error) {
	draw := make([]byte, 32+32+32+8)
	if _, err := io.ReadFull(random, draw); err != nil {
		return identityRecord{}, fmt.Errorf("no random bytes for the module's identity: %w", err)
	}
	rec := identityRecord{X25519: draw[:32], Ed25519: draw[32:64], Attest: draw[64:96], DevID: draw[96:]}
	attest, err := suite.NewP256Key(rec.Attest)
	for err != nil { // odds 2^-32: outside [1, n-1]
		if _, err := io.ReadFull(random, rec.Attest); err != nil {
			return identityRecord{}, err
		}
		attest, err = suite.NewP256Key(rec.Attest)
	}
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(rec.DevID),
		Subject:      attestationSubject(hex.EncodeToString(rec.DevID)),
		SubjectKeyId: attest.KeyID(),
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 4.1.2.5: no end
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	rec.Cert, err = x509.CreateCertificate(nil, template, template, attest.Signer().Public(), attest.Signer())
	return rec, err
}

func (rec identityRecord) open() (*identity, error) {
	key, err1 := suite.NewX25519Key(rec.X25519)
	signing, err2 := suite.NewEd25519Key(rec.Ed25519)
	attest, err3 := suite.NewP256Key(rec.Attest)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("the module's identity is damaged: %w", err)
	}
	return &identity{
		key: key, signing: signing, attest: attest, cert: rec.Cert, record: rec,
		devID: hex.EncodeToString(rec.DevID),
		eid:   api.EncodeBase64(key.Public()), eidSign: api.EncodeBase64(signing.Public()),
		genuineID: api.EncodeBase64(attest.KeyID()),
	}, nil
}
