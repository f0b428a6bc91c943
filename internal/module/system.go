package module

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/build"
	"softhem/internal/session"
	"softhem/internal/suite"
	"softhem/internal/upgrade"
)

// Console is the web console that was installed, or nil. It is no operation: its
// files are the same for all, and no secret.
func (m *Module) Console() *upgrade.Files { return m.upgrades.Console() }

// consoleHash is the SHA-256 of the archive of the web console, or of nothing.
func (m *Module) consoleHash() string {
	hash := m.Console().ConsoleHash()
	return api.EncodeBase64(hash[:])
}

// Version says what the module is.
func (m *Module) Version(p *Pass) api.Version {
	p.must(OpVersion)
	fw, rt := build.Firmware(), build.Runtime()
	v := api.Version{
		HWV: fmt.Sprintf("softhem %s rev 1.0", m.cfg.Profile),
		FWV: fw.Name, FWK: fw.PublicKey, FWS: fw.Signature,
		BLV: rt.Name, BLK: rt.PublicKey, BLS: rt.Signature,
	}
	if m.cfg.Diag {
		v.FWV += "-DIAG"
	}
	if m.cfg.Profile == PPA {
		v.UIS = m.consoleHash()
		if p.claims != nil || !p.state.config.Inited {
			v.SDCSD, v.SDCID = p.state.identity.cardRegister("csd"), p.state.identity.cardRegister("cid")
		}
	}
	return v
}

// cardRegister stands for a 16-byte register of the memory card a device has:
// made of the device id, so that it is stable and differs between modules.
func (id *identity) cardRegister(name string) string {
	digest := suite.SHA256([]byte("softhem card " + name + " " + id.devID))
	return hex.EncodeToString(digest[:16])
}

// Status says how the module is.
func (m *Module) Status(p *Pass) api.Status {
	p.must(OpStatus)
	st := p.state
	c := &st.config
	s := api.Status{
		HTTPS:    m.cfg.HTTPSUp(),
		Ctx:      c.Ctx,
		Uptime:   int64(time.Since(st.bootedAt) / time.Second),
		Temp:     m.thermometer.celsius(),
		FLSState: int(st.fls()),
	}
	no := false
	if !c.Inited {
		s.Inited = &no
	}
	if !c.TrustedTS {
		s.TTS = &no
	}
	if !strings.EqualFold(p.caller.Host, c.Hostname) {
		s.Hostname = c.Hostname
	}
	if now, set := m.now(st); set {
		s.TS, s.Time = time.Unix(now, 0).UTC().Format(time.RFC3339), &now
	}
	if m.upgrades.upgraded.Load() {
		s.FWUpgrade = m.upgrades.upgraded.Swap(false)
	}
	if m.cfg.Profile == PPA {
		s.Storage = m.storageStatus(st)
	}
	return s
}

// Config is the configuration, and the nonce for a user-key change.
func (m *Module) Config(p *Pass) api.Config {
	p.must(OpConfigGet)
	st := p.state
	c := &st.config
	nonce := st.boot.NewNonce(session.PurposeConfig(), nil, p.now)
	out := api.Config{
		Iat: c.Iat, Uts: c.Uts,
		DevID: st.identity.devID, InstanceID: uuid.UUID(c.InstanceID).String(),
		EID: st.identity.eid, EIDSign: st.identity.eidSign,
		User: c.User, Email: c.Email, Hostname: c.Hostname, DNSD: c.DNSD,
		TrustedTS: c.TrustedTS, TrustedBackend: c.TrustedBackend, AllowKeySearch: c.AllowKeySearch,
		Origin: c.Origin, Ctx: c.Ctx, IP: c.IP,
		HTTPOptionHSTS: c.HSTS, HTTPOptionDoS: c.DoSProtection,
		SPK: st.boot.SPK(), Nonce: api.EncodeBase64(nonce[:]),
	}
	if m.cfg.Profile == PPA {
		capacity := int64(storageCapacity)
		out.GenuineID = st.identity.genuineID
		out.StorageMode, out.StorageDisk0Size, out.StorageCapacity = &c.StorageMode, &c.StorageDisk0Size, &capacity
	}
	return out
}

// Reboot ends this boot and begins another: new session keys, no token lives
// on, fail states are gone, a new log file. It is done when it returns, so
// whoever is told so finds the new boot.
func (m *Module) Reboot(ctx context.Context, p *Pass) error {
	p.must(OpReboot)
	return m.rebootAfter(ctx, p, func() error { return nil })
}

// rebootAfter boots anew if what comes before it can be done.
func (m *Module) rebootAfter(ctx context.Context, p *Pass, before func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wiped.Load() {
		return api.ErrConflict.Because("the module is being wiped")
	}
	if m.state.Load().fail != p.state.fail { // one of its own for each boot
		return api.ErrConflict.Because("another reboot came first")
	}
	if err := before(); err != nil {
		return err
	}
	if err := m.append(ctx, audit.Record{Type: audit.Reboot, Who: p.who()}); err != nil {
		return err
	}
	m.log.InfoContext(ctx, "rebooting", "who", p.who())
	// The log must not be left between two boots because a caller hung up.
	return m.refusal(m.bootWith(context.WithoutCancel(ctx), m.state.Load()))
}

// Shutdown records the order; ending the process is up to the server.
func (m *Module) Shutdown(ctx context.Context, p *Pass) error {
	p.must(OpShutdown)
	err := m.append(ctx, audit.Record{Type: audit.Shutdown, Who: p.who()})
	if err == nil {
		m.shutDown.Store(true)
	}
	return err
}
