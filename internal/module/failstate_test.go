package module

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"softhem/api"
	"softhem/internal/certs"
	"softhem/internal/seal"
	"softhem/internal/store"
	"softhem/internal/store/sqlitestore"
	"softhem/internal/suite"
	"softhem/internal/upgrade"
)

// open is a module with its real parts in memory.
func open(t testing.TB, edit func(*Config)) *Module {
	t.Helper()
	ctx := context.Background()
	db, err := sqlitestore.Open(ctx, sqlitestore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	sealer := seal.InMemory()
	images, err := upgrade.Open(upgrade.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Store: db, Sealer: sealer, HostClock: time.Now, Profile: PPA, MaxTokenTTL: 24 * time.Hour,
		Destroy: sealer.Destroy, Upgrades: images, HTTPSUp: func() bool { return true },
		Rand: rand.Reader, Logger: slog.New(slog.DiscardHandler),
	}
	if edit != nil {
		edit(&cfg)
	}
	if cfg.TLS, err = certs.Open(ctx, certs.Config{
		Store: db, Sealer: sealer, Names: []string{"localhost"}, Now: time.Now, Logger: cfg.Logger,
	}); err != nil {
		t.Fatal(err)
	}
	m, err := New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(ctx) })
	return m
}

// personalise puts a configuration in place as Init does, and returns a token.
func personalise(t testing.TB, m *Module, scope string) string {
	t.Helper()
	p := &Pass{state: m.state.Load(), now: time.Now().Unix()}
	next := *p.state
	next.config.Inited, next.config.User = true, "Ada"
	next.user = persona{Key: suite.Random(32), Generation: 1}
	next.master = persona{Key: suite.Random(32), Generation: 1}
	if err := m.personalise(context.Background(), &next); err != nil {
		t.Fatal(err)
	}
	token, err := p.state.boot.IssueToken(m.tokenClaims(p, api.RoleUser, scope, p.now+3600, ""), m.state.Load())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// In a fail state there is no login and no personalisation; what is needed to
// see to it works on with tokens issued before, and a reboot ends it.
func TestFailState(t *testing.T) {
	ctx := context.Background()
	loopback := netip.MustParseAddr("127.0.0.1")
	enter := func(m *Module, op Op, token string) error {
		p, err := m.Enter(ctx, op, Caller{Addr: loopback, TLS: true, Bearer: token, HasBearer: token != ""})
		if err == nil {
			err = p.Leave(ctx)
		}
		return err
	}
	fresh := open(t, nil)
	fresh.state.Load().fail.Store(flsKnownAnswer)
	m := open(t, func(c *Config) { c.TrustedBackends = [][]byte{suite.Random(32)} })
	config, logger := personalise(t, m, api.ScopeSystemConfig), ""
	{
		p := &Pass{state: m.state.Load(), now: time.Now().Unix()}
		var err error
		if logger, err = p.state.boot.IssueToken(m.tokenClaims(p, api.RoleUser, api.ScopeLoggerGet, p.now+3600, ""), m.state.Load()); err != nil {
			t.Fatal(err)
		}
	}
	m.state.Load().fail.Store(flsKnownAnswer)
	for _, c := range []struct {
		name  string
		m     *Module
		op    Op
		token string
		want  error
	}{
		{"challenge", m, OpChallenge, "", api.ErrConflict},
		{"login", m, OpLogin, "", api.ErrConflict},
		{"init challenge", fresh, OpInitChallenge, "", api.ErrConflict},
		{"init", fresh, OpInit, "", api.ErrConflict},
		{"version", m, OpVersion, "", nil},
		{"status", m, OpStatus, "", nil},
		{"check-in", m, OpCheckinStart, "", nil},
		{"check-in, last leg", m, OpCheckinFinish, "", nil},
		{"config", m, OpConfigGet, config, nil},
		{"log key", m, OpLoggerKey, logger, nil},
		{"log list", m, OpLoggerList, logger, nil},
		{"log file", m, OpLoggerGet, logger, nil},
		{"log checkpoint", m, OpLoggerCheckpoint, logger, nil},
		{"log tail", m, OpLoggerTail, logger, nil},
		{"reboot", m, OpReboot, config, nil},
		{"shutdown", m, OpShutdown, config, nil},
	} {
		if err := enter(c.m, c.op, c.token); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	p, err := m.Enter(ctx, OpReboot, Caller{Addr: loopback, TLS: true, Bearer: config, HasBearer: true})
	if err != nil {
		t.Fatal(err)
	}
	if m.Ready() == nil {
		t.Error("a failed module says it is ready")
	}
	if err := m.Reboot(ctx, p); err != nil {
		t.Fatal(err)
	}
	if err := enter(m, OpChallenge, ""); err != nil || m.Ready() != nil {
		t.Errorf("after the reboot: %v, %v", err, m.Ready())
	}
}

// A pass opens the operation it was given for and no other.
func TestAPassOpensOneOperation(t *testing.T) {
	ctx := context.Background()
	m := open(t, nil)
	p, err := m.Enter(ctx, OpStatus, Caller{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a pass for the status rebooted the module")
		}
	}()
	_ = m.Reboot(ctx, p)
}

// Every operation has a rule; a new one without is found here, not by a caller.
func TestEveryOperationHasARule(t *testing.T) {
	for op := range opCount {
		ruleOf(op)
	}
}

// A swapped record is noticed: here the master's key in the user's place.
func TestSwappedRecordsAreNoticed(t *testing.T) {
	ctx := context.Background()
	m := open(t, nil)
	personalise(t, m, "")
	sealed, err := readSealed(ctx, m, kindPersona, string(api.RoleMaster))
	if err != nil {
		t.Fatal(err)
	}
	if err := writeSealed(ctx, m, kindPersona, string(api.RoleUser), sealed); err != nil {
		t.Fatal(err)
	}
	if _, err := New(ctx, m.cfg); !errors.Is(err, seal.ErrTampered) {
		t.Errorf("a module started with the master's key as the user's: %v", err)
	}
}

func readSealed(ctx context.Context, m *Module, kind store.Kind, id string) (sealed []byte, err error) {
	err = m.cfg.Store.View(ctx, func(r store.Reader) error {
		sealed, err = r.Get(ctx, kind, id)
		return err
	})
	return sealed, err
}

func writeSealed(ctx context.Context, m *Module, kind store.Kind, id string, sealed []byte) error {
	return m.cfg.Store.Update(ctx, func(tx store.Tx) error { return tx.Put(ctx, kind, id, sealed) })
}

// A personalised module whose configuration record is gone does not start as a
// fresh one that belongs to whoever asks first.
func TestLostConfigurationIsNoFreshModule(t *testing.T) {
	ctx := context.Background()
	m := open(t, nil)
	personalise(t, m, "")
	err := m.cfg.Store.Update(ctx, func(tx store.Tx) error {
		for _, r := range [][2]string{{string(kindConfig), idOnly}, {string(kindPersona), "U"}, {string(kindPersona), "M"}} {
			if err := tx.Delete(ctx, store.Kind(r[0]), r[1]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(ctx, m.cfg); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a module without its configuration started: %v", err)
	}
}
