package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/audit"
	"softhem/internal/module"
	"softhem/internal/server"
	"softhem/internal/session"
	"softhem/internal/syslog"
)

// serveOptions is what the flags of hem serve say. Most of them stand where
// they are used, in the server's Config.
type serveOptions struct {
	server.Config

	config         string
	unsafeFast     bool
	logFormat      string
	logLevel       slog.Level
	dev            bool
	devAllowRemote bool
	devUser        string // passphrase
	devMaster      string // passphrase
	withBroker     string // address; empty: none
}

// newServeFlags makes the table of all settings: a flag, a key of the
// configuration file and a variable HEM_SERVE_… each.
func newServeFlags() (*pflag.FlagSet, *serveOptions) {
	o := &serveOptions{Config: server.DefaultConfig(), logFormat: "text"}
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	fs.SortFlags = false

	fs.StringVar(&o.config, "config", "", "read settings from `FILE` (TOML; keys are named like these flags)")
	fs.StringVar(&o.DataDir, "data", "", "keep the module's state in `DIR` (default $XDG_DATA_HOME/softhem)")
	fs.BoolVar(&o.Memory, "memory", false, "keep the state in memory; it is gone when the process ends")

	fs.Var(address{&o.HTTPAddr}, "http", "`ADDR` of the plain listener, host:port, or off; port 0 picks one")
	fs.Var(address{&o.HTTPSAddr}, "https", "`ADDR` of the TLS listener, host:port, or off")
	fs.StringVar(&o.TLSCert, "tls-cert", "", "PEM `FILE` of an own certificate; without one the module issues itself one")
	fs.StringVar(&o.TLSKey, "tls-key", "", "PEM `FILE` of its key")
	fs.Var(list[string]{&o.TLSNames, parseName, plainText}, "tls-name", "`NAME` or address in the self-issued certificate, instead of localhost and the addresses; repeatable")
	fs.Var(list[netip.Prefix]{&o.Proxies, parseCIDR, netip.Prefix.String}, "behind-proxy", "believe X-Forwarded-Proto and X-Forwarded-For of peers in `CIDR`; repeatable")
	fs.BoolVar(&o.RequireTLSLogin, "require-tls-login", true, "take logins over plain HTTP from loopback only")

	fs.StringVar(&o.RootKey.File, "root-key", "", "sealing key: a raw `FILE` of mode 0600, or an age file (default DIR/root.key)")
	fs.StringVar(&o.RootKey.Identity, "root-key-identity", "", "`FILE` of the age identity that opens the root key")
	fs.StringVar(&o.RootKey.PassphraseFile, "root-key-passphrase-file", "", "`FILE` of the passphrase that opens the root key (default: ask on the terminal)")

	fs.Var(choice[module.ClockSource]{&o.ClockSource, []named[module.ClockSource]{
		{"system", module.ClockSystem}, {"checkin", module.ClockCheckin},
	}}, "rtc", "where the clock comes from")
	fs.Var(choice[module.Profile]{&o.Profile, []named[module.Profile]{
		{"ppa", module.PPA}, {"epa", module.EPA},
	}}, "profile", "form factor")
	fs.Var(choice[module.Quirks]{&o.Quirks, []named[module.Quirks]{
		{"off", module.NoQuirks}, {"fw1.2.2", module.QuirksFW122},
	}}, "quirks", "imitate the faults of a firmware, for tests of clients")
	fs.BoolVar(&o.Diag, "diag", false, "a diagnostic build, for tests: anybody on this host can break and wipe the module under /api/diag; loopback only")
	fs.BoolVar(&o.DiagRemote, "diag-allow-remote", false, "let --diag be reached from elsewhere, for containers")
	fs.Var(list[[]byte]{&o.TrustedBackends, parseBackend, api.EncodeBase64}, "trusted-backend", "X25519 key of a backend whose check-in is believed, `BASE64`; repeatable, the first is whom a check-in is for")

	fs.Var(list[[]byte]{&o.UpgradeKeys, parseBackend, api.EncodeBase64}, "upgrade-key", "Ed25519 key whose signature on firmware and console images is taken, `BASE64`; repeatable, none unless named")
	fs.Var(brokerURL{&o.Broker}, "broker", "`URL` of the broker that hem commands and the console are to use")

	fs.DurationVar(&o.MaxTokenTTL, "max-token-ttl", o.MaxTokenTTL, "longest life of a token")
	fs.DurationVar(&o.Damping.Delay, "login-delay", o.Damping.Delay, "every answer to a login takes this long")
	fs.DurationVar(&o.Damping.Penalty, "login-penalty", o.Damping.Penalty, "and this long after three failures in a row")
	fs.DurationVar(&o.Damping.Window, "login-penalty-window", o.Damping.Window, "until this long after the last failure")
	fs.BoolVar(&o.unsafeFast, "unsafe-fast-login", false, "allow less than the defaults of the three above, and drop the limits per address; for tests and benches")
	fs.Var(choice[audit.Durability]{&o.AuditDurability, []named[audit.Durability]{
		{"strict", audit.Strict}, {"relaxed", audit.Relaxed},
	}}, "audit-durability", "a record is on disk before the answer leaves, or within a second")
	fs.BoolVar(&o.AuditCompact, "audit-compact", false, "record the use of a private key in one line instead of two")
	fs.Var(list[syslog.Target]{&o.AuditSyslog, syslog.ParseTarget, syslog.Target.String}, "audit-syslog", "send each record to a syslog sink too, `URL`: tls://HOST:PORT, tcp://HOST:PORT, unix:///PATH or unixgram:///PATH; repeatable")
	fs.StringVar(&o.AuditSyslogCA, "audit-syslog-ca", "", "PEM `FILE` of the CA of sinks on TLS (default: the system's)")
	fs.StringVar(&o.AuditSyslogCert, "audit-syslog-cert", "", "PEM `FILE` of a certificate for sinks on TLS that ask for one")
	fs.StringVar(&o.AuditSyslogKey, "audit-syslog-key", "", "PEM `FILE` of its key")
	fs.Int64Var(&o.MaxKeys, "max-keys", o.MaxKeys, "take `N` keys at most")

	fs.Var(address{&o.MetricsAddr}, "metrics", "`ADDR` of Prometheus metrics, /healthz and /readyz")
	fs.Var(choice[string]{&o.logFormat, []named[string]{{"text", "text"}, {"json", "json"}}}, "log-format", "operator's log, on standard error")
	fs.Var(choice[slog.Level]{&o.logLevel, []named[slog.Level]{
		{"debug", slog.LevelDebug}, {"info", slog.LevelInfo}, {"warn", slog.LevelWarn}, {"error", slog.LevelError},
	}}, "log-level", "what the log leaves out")

	fs.BoolVar(&o.dev, "dev", false, "a module to play with: loopback only, in memory, personalised; says what to do next")
	fs.BoolVar(&o.devAllowRemote, "dev-allow-remote", false, "let --dev be reached from elsewhere, for containers")
	fs.StringVar(&o.devUser, "dev-user-passphrase", "user", "`PASSPHRASE` of the user of --dev")
	fs.StringVar(&o.devMaster, "dev-master-passphrase", "master", "`PASSPHRASE` of the administrator of --dev")
	fs.Var(address{&o.withBroker}, "with-broker", "run a broker inside --dev, in memory, and trust it; `ADDR` if not 127.0.0.1:8090")
	fs.Lookup("with-broker").NoOptDefVal = defaultDevBroker
	return fs, o
}

// A sourceFunc says in words where a setting was made; "" for nowhere.
type sourceFunc func(flag string) string

// of is what an error calls a setting.
func (source sourceFunc) of(flag string) string {
	if s := source(flag); s != "" {
		return s
	}
	return "--" + flag
}

// anyOf is where the first of flags that was set was set.
func (source sourceFunc) anyOf(flags ...string) string {
	for _, f := range flags {
		if s := source(f); s != "" {
			return s
		}
	}
	return ""
}

// check finds settings that contradict each other or weaken the module
// without saying so, and completes the rest.
func (o *serveOptions) check(source sourceFunc, env func(string) (string, bool)) error {
	for flag, value := range map[string]string{
		"data": o.DataDir, "tls-cert": o.TLSCert, "tls-key": o.TLSKey, "root-key": o.RootKey.File,
		"root-key-identity": o.RootKey.Identity, "root-key-passphrase-file": o.RootKey.PassphraseFile, "audit-syslog-ca": o.AuditSyslogCA,
		"audit-syslog-cert": o.AuditSyslogCert, "audit-syslog-key": o.AuditSyslogKey,
		"dev-user-passphrase": o.devUser, "dev-master-passphrase": o.devMaster,
	} {
		if value == "" && source(flag) != "" {
			// A script's variable that is not set must not move the keys.
			return fmt.Errorf("%s is empty; name something, or leave it out", source(flag))
		}
	}
	if o.dev {
		if err := o.checkDev(source); err != nil {
			return err
		}
	} else if s := source.anyOf("dev-allow-remote", "dev-user-passphrase", "dev-master-passphrase", "with-broker"); s != "" {
		return fmt.Errorf("%s says something about --dev only; leave it out, or add --dev", s)
	}
	if o.DiagRemote && !o.Diag {
		return fmt.Errorf("%s says something about --diag only; leave it out, or add --diag", source.of("diag-allow-remote"))
	}
	if err := o.checkState(source, env); err != nil {
		return err
	}
	if o.withBroker != "" && len(o.TrustedBackends) > 0 {
		return fmt.Errorf("%s and %s contradict each other: a check-in is for one broker; leave one of them out", source.of("with-broker"), source.of("trusted-backend"))
	}
	if o.withBroker != "" && o.Broker != "" {
		return fmt.Errorf("%s and %s contradict each other: the broker inside is the one that is named; leave one of them out", source.of("with-broker"), source.of("broker"))
	}
	if o.ClockSource == module.ClockCheckin && len(o.TrustedBackends) == 0 && !o.dev {
		return fmt.Errorf("%s: the clock is to come from a backend, and none is trusted, so the module would never know the time; name one with --trusted-backend, or take --rtc system", source.of("rtc"))
	}
	if o.MaxKeys < 1 {
		return fmt.Errorf("%s must be at least 1", source.of("max-keys"))
	}
	if o.MaxTokenTTL < time.Second {
		return fmt.Errorf("%s must be at least 1s", source.of("max-token-ttl"))
	}
	return o.checkDamping(source)
}

// checkDev makes the module one to play with.
func (o *serveOptions) checkDev(source sourceFunc) error {
	if s := source("data"); s != "" {
		return fmt.Errorf("--dev keeps its state in memory; leave out %s, or leave out --dev and personalise the module with hem init", s)
	}
	if s := source.anyOf("tls-cert", "tls-key"); s != "" {
		return fmt.Errorf("--dev issues its own certificate; leave out %s, or leave out --dev", s)
	}
	if len(o.TLSNames) > 0 {
		// What is printed to paste calls the module by these.
		o.TLSNames = append(o.TLSNames, "localhost", "127.0.0.1", "::1")
		if host, _, err := net.SplitHostPort(o.HTTPSAddr); err == nil && host != "" {
			o.TLSNames = append(o.TLSNames, host)
		}
	}
	o.Memory, o.LoopbackOnly = true, !o.devAllowRemote
	return nil
}

// checkState finds out where the state is kept.
func (o *serveOptions) checkState(source sourceFunc, env func(string) (string, bool)) error {
	if o.Memory {
		if s := source("data"); s != "" {
			return fmt.Errorf("the state is either in memory or in a folder; leave out %s or %s", source.of("memory"), s)
		}
		if s := source.anyOf("root-key", "root-key-identity", "root-key-passphrase-file"); s != "" {
			return fmt.Errorf("%s seals what is kept in a folder, and the state is kept in memory; leave it out", s)
		}
		return nil
	}
	var err error
	if o.DataDir == "" {
		if o.DataDir, err = defaultDataDir(env); err != nil {
			return err
		}
	}
	// The ready line names a file in it to programs that run elsewhere.
	if o.DataDir, err = filepath.Abs(o.DataDir); err != nil {
		return fmt.Errorf("the data folder: %w", err)
	}
	return nil
}

// maxPenalty leaves room below the time after which a connection is ended.
const maxPenalty = 30 * time.Second

func (o *serveOptions) checkDamping(source sourceFunc) error {
	d, usual := &o.Damping, session.DefaultDamping()
	for _, x := range []struct {
		flag        string
		value, from time.Duration
	}{
		{"login-delay", d.Delay, usual.Delay},
		{"login-penalty", d.Penalty, usual.Penalty},
		{"login-penalty-window", d.Window, usual.Window},
	} {
		if x.flag != "login-penalty-window" && x.value > maxPenalty {
			return fmt.Errorf("%s can be %s at most", source.of(x.flag), maxPenalty)
		}
		if x.value < 0 {
			return fmt.Errorf("%s cannot be negative", source.of(x.flag))
		}
		if x.value < x.from && !o.unsafeFast {
			return fmt.Errorf("%s below %s makes guessing passphrases faster; for tests and benches, add --unsafe-fast-login", source.of(x.flag), x.from)
		}
	}
	if d.Penalty < d.Delay && !o.unsafeFast {
		return fmt.Errorf("%s is shorter than %s, so failures would make logins faster", source.of("login-penalty"), source.of("login-delay"))
	}
	if o.unsafeFast {
		d.Limits = false
	}
	return nil
}

// defaultDataDir follows the XDG base directory specification, which has
// relative paths ignored.
func defaultDataDir(env func(string) (string, bool)) (string, error) {
	if dir, _ := env("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "softhem"), nil
	}
	if home, _ := env("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "share", "softhem"), nil
	}
	return "", errors.New("there is no home folder to keep the state in; name a folder with --data, or use --memory")
}

// address is host:port, or off.
type address struct{ to *string }

func (a address) Set(s string) error {
	if s == "off" {
		*a.to = ""
		return nil
	}
	if _, port, err := net.SplitHostPort(s); err != nil || port == "" {
		return errors.New("want host:port, or off")
	}
	*a.to = s
	return nil
}

func (a address) String() string {
	if a.to == nil || *a.to == "" {
		return "off"
	}
	return *a.to
}

func (address) Type() string { return "address" }

// choice is one of a few names, each standing for a value.
type choice[T comparable] struct {
	to   *T
	from []named[T]
}

type named[T any] struct {
	name  string
	value T
}

func (c choice[T]) Set(s string) error {
	for _, n := range c.from {
		if n.name == s {
			*c.to = n.value
			return nil
		}
	}
	return fmt.Errorf("want %s", strings.ReplaceAll(c.Type(), "|", " or "))
}

func (c choice[T]) String() string {
	for _, n := range c.from {
		if c.to != nil && n.value == *c.to {
			return n.name
		}
	}
	return ""
}

func (c choice[T]) Type() string {
	names := make([]string, len(c.from))
	for i, n := range c.from {
		names[i] = n.name
	}
	return strings.Join(names, "|")
}

// list collects values that are given one by one, or parted by commas, which
// none of them can contain.
type list[T any] struct {
	to    *[]T
	parse func(string) (T, error)
	text  func(T) string
}

func (l list[T]) Set(s string) error {
	for item := range strings.SplitSeq(s, ",") {
		v, err := l.parse(strings.TrimSpace(item))
		if err != nil {
			return err
		}
		*l.to = append(*l.to, v)
	}
	return nil
}

func (l list[T]) String() string {
	if l.to == nil {
		return ""
	}
	texts := make([]string, len(*l.to))
	for i, v := range *l.to {
		texts[i] = l.text(v)
	}
	return strings.Join(texts, ",")
}

func (list[T]) Type() string { return "list" }

// many marks flags that hold more than one value.
func (list[T]) many() {}

// brokerURL is the address of a broker.
type brokerURL struct{ to *string }

func (b brokerURL) Set(s string) error {
	checked, err := hem.NewBroker(hem.BrokerConfig{URL: s})
	if err != nil {
		return errors.New("want https://host or http://host, with a port and a path where needed, and nothing more")
	}
	*b.to = checked.URL()
	return nil
}

func (b brokerURL) String() string {
	if b.to == nil {
		return ""
	}
	return *b.to
}

func (brokerURL) Type() string { return "URL" }

func plainText(s string) string { return s }

func parseName(s string) (string, error) {
	if s == "" || strings.ContainsAny(s, " /:") && net.ParseIP(s) == nil {
		return "", errors.New("want a host name or an address, without scheme and port")
	}
	return s, nil
}

func parseCIDR(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, errors.New("want a network such as 10.0.0.0/8, or 10.1.2.3/32 for one address")
	}
	return p.Masked(), nil
}

func parseBackend(s string) ([]byte, error) {
	key, err := api.DecodeBase64(s)
	if err != nil || len(key) != 32 {
		return nil, errors.New("want base64 of 32 bytes")
	}
	return key, nil
}
