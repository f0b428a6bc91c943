// Package server is the composition root: it turns a Config into a running
// module with its listeners, and takes it down again.
package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"softhem/internal/audit"
	"softhem/internal/keyring"
	"softhem/internal/module"
	"softhem/internal/seal"
	"softhem/internal/session"
	"softhem/internal/suite"
	"softhem/internal/syslog"
)

// Config is everything that can be decided about a module. DefaultConfig has
// safe values; what the comments call required has none.
type Config struct {
	// DataDir is the folder of the module's state, made with mode 0700 on
	// first start. Required unless Memory.
	DataDir string
	// Memory keeps all state in memory; it is gone when the process ends.
	Memory bool

	// HTTPAddr and HTTPSAddr are the listeners, host:port; port 0 picks one,
	// empty disables.
	HTTPAddr, HTTPSAddr string
	// HTTPListener and HTTPSListener take over sockets that are open already
	// (socket activation); they win over the addresses.
	HTTPListener, HTTPSListener net.Listener
	// MetricsAddr serves /metrics, /healthz and /readyz; empty disables.
	MetricsAddr string

	// TLSCert and TLSKey are PEM files of an own pair. Without them the module
	// issues itself one for TLSNames from a CA of its own.
	TLSCert, TLSKey string
	TLSNames        []string

	// RootKey is the sealing key: a raw 0600 file or an age file. Without one
	// named, DataDir/root.key is used and made on first start.
	RootKey seal.RootSource

	ClockSource module.ClockSource
	Profile     module.Profile
	// Quirks imitates the faults of a firmware, for tests of clients.
	Quirks module.Quirks
	// Diag makes this a diagnostic build, which anybody who reaches it can break
	// and wipe: listeners must be loopback, and diagnostics answer to this host
	// only, unless DiagRemote.
	Diag, DiagRemote bool
	TrustedBackends  [][]byte // X25519 public keys; the first is whom a check-in is for
	// UpgradeKeys are Ed25519 public keys whose word on firmware and console images
	// is taken. Without any, none can be installed.
	UpgradeKeys [][]byte
	// Launched is the id of the firmware this process was started from, if it was;
	// see Program.
	Launched string
	// Broker is the base URL of the broker that clients are to use; the module
	// names it, and does not call it.
	Broker          string
	Proxies         []netip.Prefix
	MaxTokenTTL     time.Duration
	Damping         session.Damping
	RequireTLSLogin bool
	AuditDurability audit.Durability
	// AuditCompact records the use of a private key in one line, not two.
	AuditCompact bool
	// AuditSyslog get every record too; AuditSyslogCA is the PEM file of whom the
	// certificates of those on TLS must come from, empty for the system's.
	// AuditSyslogCert and AuditSyslogKey are PEM files of what those are shown; they
	// are read for each connection.
	AuditSyslog                                    []syslog.Target
	AuditSyslogCA, AuditSyslogCert, AuditSyslogKey string
	// MaxKeys is how many keys the module takes.
	MaxKeys int64

	// LoopbackOnly refuses listeners, Host and Origin that are not loopback.
	LoopbackOnly bool

	// HostClock is the host's time. Tests set it; a server uses time.Now.
	HostClock func() time.Time
	// Seed, when not nil, makes the identity a function of these bytes. For
	// tests alone.
	Seed []byte

	Logger *slog.Logger
}

// DefaultConfig is a module on loopback with every protection on.
func DefaultConfig() Config {
	return Config{
		HTTPAddr:        "127.0.0.1:8080",
		HTTPSAddr:       "127.0.0.1:8443",
		Profile:         module.PPA,
		MaxTokenTTL:     24 * time.Hour,
		Damping:         session.DefaultDamping(),
		RequireTLSLogin: true,
		AuditDurability: audit.Strict,
		MaxKeys:         keyring.DefaultMaxKeys,
		HostClock:       time.Now,
		Logger:          slog.New(slog.DiscardHandler),
	}
}

// validate finds what cannot work before anything is touched.
func (c *Config) validate() error {
	switch {
	case c.DataDir == "" && !c.Memory:
		return errors.New("there is no data folder; name one, or keep the state in memory")
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return errors.New("an own TLS pair needs both a certificate file and a key file")
	case c.HTTPAddr == "" && c.HTTPSAddr == "" && c.HTTPListener == nil && c.HTTPSListener == nil:
		return errors.New("both listeners are off; the module could not be reached")
	case c.Profile != module.PPA && c.Profile != module.EPA:
		return fmt.Errorf("there is no profile %q; use ppa or epa", c.Profile)
	case !c.Quirks.Known():
		return fmt.Errorf("there are no quirks of %q; use %s", c.Quirks, module.QuirksFW122)
	case c.Diag && c.Profile != module.PPA:
		return errors.New("an EPA has no diagnostics; take --profile ppa, or leave out --diag")
	case c.Diag && !c.DiagRemote && len(c.Proxies) > 0:
		return errors.New("who comes through a proxy could break and wipe a module with --diag; leave out --behind-proxy, or add --diag-allow-remote")
	case (c.AuditSyslogCert == "") != (c.AuditSyslogKey == ""):
		return errors.New("what syslog sinks are shown needs both a certificate file and a key file")
	case c.AuditSyslogCA+c.AuditSyslogCert != "" && !slices.ContainsFunc(c.AuditSyslog, syslog.Target.IsTLS):
		return errors.New("a CA or a certificate for syslog sinks is named, and there is no sink on TLS; name one as tls://HOST:PORT, or leave them out")
	case c.MaxKeys <= 0:
		return errors.New("a module that takes no keys is of no use; allow one at least")
	case c.MaxTokenTTL <= 0:
		return errors.New("the longest life of a token must be more than nothing")
	}
	for i, t := range c.AuditSyslog {
		if slices.Contains(c.AuditSyslog[:i], t) {
			return fmt.Errorf("the syslog sink %s is named twice", t)
		}
	}
	if err := c.validateBackends(); err != nil {
		return err
	}
	for _, key := range c.UpgradeKeys {
		if len(key) != suite.Ed25519Public {
			return errors.New("a key for upgrades must be 32 bytes")
		}
	}
	if c.LoopbackOnly {
		return c.validateLoopback("a development module listens on loopback only, not on %q")
	}
	if c.Diag && !c.DiagRemote {
		return c.validateLoopback("a module with --diag can be broken and wiped by anybody, so it listens on loopback only, not on %q; add --diag-allow-remote to have it so all the same")
	}
	return nil
}

// validateBackends finds keys no check-in could be made for: of a wrong
// length, or points of low order.
func (c *Config) validateBackends() error {
	probe, err := suite.NewX25519Key(suite.Random(32))
	if err != nil {
		return err
	}
	for _, key := range c.TrustedBackends {
		if len(key) != 32 {
			return errors.New("the key of a trusted backend must be 32 bytes")
		}
		secret, err := probe.Shared(key)
		if err != nil {
			return errors.New("the key of a trusted backend is no usable X25519 key")
		}
		clear(secret)
	}
	return nil
}

// validateLoopback finds a listener, also one handed over, that others than
// this host could reach. refusal says why that must not be, of an address.
func (c *Config) validateLoopback(refusal string) error {
	addrs := []string{c.HTTPAddr, c.HTTPSAddr, c.MetricsAddr}
	for i, l := range []net.Listener{c.HTTPListener, c.HTTPSListener} {
		if l != nil {
			addrs[i] = l.Addr().String()
		}
	}
	for _, addr := range addrs {
		if addr == "" {
			continue
		}
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return fmt.Errorf("listen address %q: %w", addr, err)
		}
		if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
			return fmt.Errorf(refusal, addr)
		}
	}
	return nil
}

// tlsNames are the names of a self-issued certificate: those asked for, or
// localhost and the address that is listened on.
func (c *Config) tlsNames() []string {
	if len(c.TLSNames) > 0 {
		return c.TLSNames
	}
	names := []string{"localhost", "127.0.0.1", "::1"}
	addr := c.HTTPSAddr
	if c.HTTPSListener != nil {
		addr = c.HTTPSListener.Addr().String()
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return names
	}
	ip := net.ParseIP(host)
	switch {
	case ip == nil && host != "" && host != "localhost":
		names = append(names, host)
	case host == "" || ip != nil && ip.IsUnspecified():
		names = append(names, interfaceAddresses()...)
	case ip != nil && !ip.IsLoopback():
		names = append(names, ip.String())
	}
	return names
}

// interfaceAddresses are the host's own addresses, without loopback and
// link-local ones.
func interfaceAddresses() (names []string) {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if ipnet, ok := a.(*net.IPNet); ok && ipnet.IP.IsGlobalUnicast() {
			names = append(names, ipnet.IP.String())
		}
	}
	return names
}
