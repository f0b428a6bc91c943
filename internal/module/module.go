// Package module is the HEM itself and the door to it: every operation is
// entered through [Module.Enter], which authorises, and is acted and audited in
// one call after that. Nothing reaches the store, the keys or the log around
// it.
//
// A Module has no globals; one process may hold many.
package module

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/build"
	"softhem/internal/keyring"
	"softhem/internal/session"
	"softhem/internal/store"
	"softhem/internal/upgrade"
)

// A Profile is the form factor a module shows.
type Profile string

const (
	PPA Profile = "PPA" // USB stick: storage, log files, local upgrade
	EPA Profile = "EPA" // rack unit: without them
)

// Config is what a module is made of. Fields without a default are required.
type Config struct {
	Store  store.Store
	Sealer keyring.Sealer
	// AuditDir is the folder of the log files; empty keeps the log in memory.
	AuditDir string
	// AuditDurability says when a record counts as written.
	AuditDurability audit.Durability
	// AuditSink hears of every record beside the files; nil if nobody does.
	AuditSink AuditSink
	// AuditCompact leaves the second record of an operation that used a
	// private key, KEY_USAGE_PKEY, out.
	AuditCompact bool

	// MaxKeys is how many keys there may be; 0 means keyring.DefaultMaxKeys.
	MaxKeys int64

	// HostClock is the host's time; ClockSource says whether it is the
	// module's too.
	HostClock   func() time.Time
	ClockSource ClockSource
	Profile     Profile
	// Quirks imitates the faults of a firmware.
	Quirks Quirks
	// Diag makes this a diagnostic build: its version says so, and there are
	// operations that show and break it, open to all.
	Diag bool

	// TrustedBackends are X25519 public keys, 32 bytes each, of backends whose
	// check-in is believed. The first is whom a check-in is for.
	TrustedBackends [][]byte

	// MaxTokenTTL shortens what a login may ask for.
	MaxTokenTTL time.Duration
	// Damping slows logins down.
	Damping session.Damping
	// RequireTLSLogin takes logins over plain HTTP from loopback only.
	RequireTLSLogin bool

	// Upgrades is where firmware and console come in; the module does not close it.
	Upgrades *upgrade.Folder
	// TLS is the module's TLS pair.
	TLS TLSPair
	// Destroy makes all that was sealed unreadable for good, the first step of
	// a wipe. After an error nothing has changed.
	Destroy func() error
	// Disks are a PPA's; nil: there are none, and they show as locked.
	Disks Disks
	// HTTPSUp tells whether the HTTPS listener is up.
	HTTPSUp func() bool

	// Rand is where the identity comes from; crypto/rand but in tests.
	Rand io.Reader
	// Entropy is what the health tests read; nil is the system's source, which
	// everything but the identity is made with. Tests give a broken one.
	Entropy io.Reader
	// Temperature is the host's in degrees Celsius, false where it has no sensor;
	// nil reads the host's sensors.
	Temperature func() (celsius int, ok bool)
	Logger      *slog.Logger
}

// Module is a running HEM. Its methods may be called concurrently.
type Module struct {
	cfg   Config
	log   *slog.Logger
	audit auditLog
	keys  *keyring.Ring
	sweep background // the check of all keys
	watch background // the health tests

	searches  searches
	upgrades  upgrades
	announced announced
	clock     clock
	damper    damper
	approvals damper // of external authenticators, with counters of its own
	boots     boots
	rules     []Rule

	thermometer thermometer
	shutDown    atomic.Bool // SHUTDOWN is in the log
	wiped       atomic.Bool // the sealing key is gone, or about to be

	state atomic.Pointer[state]
	mu    sync.Mutex // one change of state at a time, from reading state to storing it

	stepping sync.Mutex // one who deals with a step back of the clock
}

// New opens the module's state, makes what a first start lacks, and boots.
func New(ctx context.Context, cfg Config) (*Module, error) {
	if now := cfg.HostClock().Unix(); now < 0 || now > latestClock {
		return nil, fmt.Errorf("the host's clock says %s, which is no time a module can live in; set it right first",
			time.Unix(now, 0).UTC().Format(time.DateOnly))
	}
	m := &Module{
		cfg: cfg, log: cfg.Logger,
		keys:   keyring.New(keyring.Config{Store: cfg.Store, Sealer: cfg.Sealer, MaxKeys: cfg.MaxKeys}),
		clock:  clock{host: cfg.HostClock, source: cfg.ClockSource, gain: cfg.Quirks.clockGain()},
		damper: session.NewDamper(cfg.Damping), approvals: session.NewDamper(cfg.Damping),
		boots: session.LocalBoots{},
		rules: rules(),

		searches:  newSearches(),
		upgrades:  upgrades{Folder: cfg.Upgrades},
		announced: announced{last: make(map[string]string)},
	}
	m.thermometer.sense = hostTemperature
	if cfg.Temperature != nil {
		m.thermometer.sense = cfg.Temperature
	}
	st, err := m.loadState(ctx)
	if err != nil {
		return nil, err
	}
	log, err := audit.Open(ctx, audit.Config{
		Dir: cfg.AuditDir, Store: cfg.Store, Sealer: cfg.Sealer, Sign: st.identity.signing.Sign,
		EIDSign: st.identity.signing.Public(), Origin: audit.Origin(st.identity.key.Public()),
		Product: build.Product(), Durability: cfg.AuditDurability, Logger: cfg.Logger, Sink: cfg.sink(),
		Now: m.logTime,
	})
	if err != nil {
		return nil, err
	}
	m.audit = log
	m.clock.start(m.audit.LastTime())
	if err := m.bootWith(ctx, st); err != nil {
		return nil, errors.Join(err, m.audit.Close(ctx))
	}
	m.recordUpgrades(ctx)
	return m, nil
}

// logTime is the module's time as the log has it, set or not.
func (m *Module) logTime() int64 {
	st := m.state.Load()
	return m.clock.peek(st == nil || st.config.TrustedTS) // nil: the first boot is being begun
}

// bootWith starts a boot: the self-test, a new log file, then new secrets, the
// clock per its source, and no fail state but what the self-test found. If the
// log file cannot be begun, nothing has changed but that the disks are locked.
func (m *Module) bootWith(ctx context.Context, old *state) error {
	m.lockDisks() // who has one attached was served by the boot that ends
	st := *old
	st.sectors = st.config.diskSectors()
	st.boot = m.boots.Begin()
	st.bootedAt = time.Now()
	st.fail = new(atomic.Uint32)
	st.faults = new(faults)
	st.tests = new(tests)
	m.endBackground() // what it finds belongs to its boot's file
	if err := m.audit.StartBoot(ctx, m.bootTest(&st)...); err != nil {
		if old.boot != nil {
			m.beginBackground(ctx, old)
		}
		return fmt.Errorf("the audit log cannot be begun: %w", err)
	}
	if st.config.Locked {
		m.log.Warn("the module was locked by its owner; only the administrator can log in, and set a new user key")
		st.fail.Or(flsLocked)
	}
	m.clock.start(m.audit.LastTime())
	m.keys.ForgetAll() // after the boot's end nothing opened in it is used
	m.state.Store(&st)
	// The file had to be named, and begun, after the last one. If that was
	// written under a clock that was wrong, the records to come are not.
	if now, set, _ := m.clock.now(st.config.TrustedTS); set && now < m.audit.LastTime()-backwardsGrace {
		m.audit.ClockSet()
	}
	m.unlockAtBoot(&st)
	m.beginBackground(ctx, &st)
	return nil
}

// beginBackground starts what goes on beside the serving in a boot.
func (m *Module) beginBackground(ctx context.Context, st *state) {
	m.sweep.start(ctx, func(ctx context.Context) { m.sweepAfterBoot(ctx, st) })
	m.watch.start(ctx, func(ctx context.Context) { m.watchHealth(ctx, st) })
}

// endBackground ends it, and returns when nothing of it runs.
func (m *Module) endBackground() {
	m.sweep.stop()
	m.watch.stop()
}

// FLS bits: why a module refuses to work until it is rebooted.
const (
	flsKnownAnswer   = 0x01
	flsEntropy       = 0x02
	flsTemperature   = 0x04
	flsDataIntegrity = 0x08
	flsLocked        = 0x40 // by an order
	flsBlocked       = 0x80 // by an order
)

// Close ends the module and its log. A log that does not end with SHUTDOWN is
// that of a module that was cut off.
func (m *Module) Close(ctx context.Context) error {
	m.endBackground()
	m.upgrades.checks.Wait()
	m.lockDisks()
	var err error
	if !m.shutDown.Swap(true) && m.audit.Broken() == nil {
		err = m.audit.Append(ctx, audit.Record{Type: audit.Shutdown})
	}
	return errors.Join(err, m.audit.Close(ctx))
}

// Ready tells why the module cannot do its work now, or nil.
func (m *Module) Ready() error {
	if err := m.audit.Broken(); err != nil {
		return err
	}
	if fls := m.state.Load().fls(); fls != 0 {
		return fmt.Errorf("fail state %02x", fls)
	}
	return nil
}

// LogRolledBack tells whether the log was found, at the start of the process,
// not to be the one this module kept. It is no reason not to serve.
func (m *Module) LogRolledBack() bool { return m.audit.RolledBack() }

// FailState is the latched fail state, a bit mask; 0 is healthy.
func (m *Module) FailState() uint32 { return m.state.Load().fls() }

// Wiped tells whether the module was wiped: it refuses everything, and another
// is about to take its place.
func (m *Module) Wiped() bool { return m.wiped.Load() }

// EID is the module's identity key as it goes out, base64.
func (m *Module) EID() string { return m.state.Load().identity.eid }

// Inited tells whether the module has been personalised.
func (m *Module) Inited() bool { return m.state.Load().config.Inited }

// AllowsOrigin tells whether a web page of this origin may use the module.
func (m *Module) AllowsOrigin(origin string) bool {
	return originAllowed(m.state.Load().config.Origin, origin)
}

// Profile is the form factor.
func (m *Module) Profile() Profile { return m.cfg.Profile }

// WaitingLogins is how many logins, approvals among them, are being held back.
func (m *Module) WaitingLogins() int { return m.damper.Waiting() + m.approvals.Waiting() }

// now is the module's clock. When the host's clock has stepped back, all nonces
// and tokens end before anybody is given the earlier time, so that none which
// had ended comes back to life. Whoever checks a token has to take the state
// after the time.
func (m *Module) now(st *state) (unix int64, set bool) {
	trusted := st.config.TrustedTS
	unix, set, steppedBack := m.clock.now(trusted)
	if !steppedBack {
		return unix, set
	}
	m.stepping.Lock() // others who see the step wait here until it is dealt with
	defer m.stepping.Unlock()
	if unix, set, steppedBack = m.clock.now(trusted); steppedBack {
		m.log.Warn("the host's clock was set back; all tokens and challenges end", "now", unix)
		m.renewBoot()
		m.clock.stepBack(unix)
		m.audit.ClockSet()
	}
	return unix, set
}

// renewBoot replaces the secrets of the boot while it goes on.
func (m *Module) renewBoot() {
	for {
		old := m.state.Load()
		st := *old
		st.boot = m.boots.Renew(old.boot)
		if m.state.CompareAndSwap(old, &st) {
			return
		}
	}
}

// append records what was done without a change of state. It returns when the
// record is as durable as the configuration asks; no answer may leave before.
func (m *Module) append(ctx context.Context, recs ...audit.Record) error {
	return m.refusal(m.audit.Append(ctx, recs...))
}

// recordOrGoOn is for what is done whether or not it can be recorded.
func (m *Module) recordOrGoOn(ctx context.Context, rec audit.Record) {
	if err := m.append(ctx, rec); err != nil {
		m.log.WarnContext(ctx, "what is done could not be recorded, and goes on", "error", err)
	}
}

// commit makes a change and its records one: both happen or neither. An
// *api.Error from change is handed through.
func (m *Module) commit(ctx context.Context, change func(context.Context, store.Tx) ([]audit.Record, error)) error {
	return m.refusal(m.audit.Commit(ctx, change))
}

// refusal turns a failure to record or to store into what the caller is told.
func (m *Module) refusal(err error) error {
	var told *api.Error
	switch {
	case err == nil, errors.As(err, &told):
		return err
	case errors.Is(err, audit.ErrBroken):
		return api.ErrConflict.Because("the audit log cannot be written")
	case errors.Is(err, store.ErrFull), errors.Is(err, audit.ErrFull):
		m.log.Error("no space left; operations are refused until there is", "error", err)
		return api.ErrConflict.Because("no space left on the module")
	}
	return err
}
