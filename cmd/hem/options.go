package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"softhem/api"
	"softhem/hem"
)

const defaultURL = "https://localhost:8443"

const (
	roleUser   = "user"
	roleMaster = "master"
)

// options are what all client commands share: the flags before any command, and
// the environment behind them.
type options struct {
	t        terminal
	flags    *pflag.FlagSet
	progress *progress

	url, caCert, passphraseFile, role, token string
	insecure, json                           bool

	stdinFor  string     // what standard input was read for
	prompting sync.Mutex // held while the terminal does not echo
}

func newOptions(t terminal, root *cobra.Command) *options {
	f := root.PersistentFlags()
	o := &options{t: t, flags: f, progress: newProgress(t.err)}
	f.StringVar(&o.url, "url", "", "address of the module; env HEM_URL (default "+defaultURL+")")
	f.StringVar(&o.caCert, "cacert", "", "PEM `file` of the authority that the module's certificate must come from; env HEM_CACERT")
	f.BoolVar(&o.insecure, "insecure", false, "take any certificate; whoever sits in between can read and use everything")
	f.StringVar(&o.passphraseFile, "passphrase-file", "", "`file` with the passphrase, - for standard input; env HEM_PASSPHRASE_FILE (default: ask on the terminal)")
	f.StringVar(&o.role, "role", roleUser, "persona to log in as: user or master")
	f.StringVar(&o.token, "token", "", "- to read a token from standard input and use it instead of logging in; env HEM_TOKEN")
	f.BoolVar(&o.json, "json", false, "print JSON instead of text")
	complete(root, "role", roleUser, roleMaster)
	return o
}

// complete lets the shell complete the value of a flag.
func complete(c *cobra.Command, flag string, values ...string) {
	err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic("completion for a flag that does not exist: " + flag)
	}
}

// setting is the value of a flag, or else of the environment.
func (o *options) setting(flag, value, env string) string {
	if o.flags.Changed(flag) {
		return value
	}
	return o.getenv(env)
}

func (o *options) getenv(name string) string {
	value, _ := o.t.env(name)
	return value
}

func (o *options) address() string {
	if u := o.setting("url", o.url, "HEM_URL"); u != "" {
		return u
	}
	return defaultURL
}

func (o *options) warn(format string, args ...any) {
	o.note("warning: "+format, args...)
}

// note tells the person at the terminal something that is not the result.
func (o *options) note(format string, args ...any) {
	o.progress.hide()
	fmt.Fprintf(o.t.err, "hem: "+format+"\n", args...)
}

// A need is what a command wants from the client it talks through.
type need struct {
	scope string // of the token it will use; empty for none
	login *login // getting a token is the point
	init  bool   // there is nothing to log in with yet
}

// open tells that no token plays a part.
func (n need) open() bool { return n.scope == "" && n.login == nil && !n.init }

// A login is what is special about a client that only logs in: a given token
// does not count, and a kept one is not good enough.
type login struct {
	ttl   time.Duration
	ctx   string
	cache hem.TokenCache // nil: the token is not kept
}

// with has do talk to the module, shows meanwhile what takes long, and gives
// errors what they need to be explained.
func (o *options) with(ctx context.Context, n need, do func(*hem.Client) error) error {
	c, token, err := o.client(n)
	if err != nil {
		return err
	}
	defer c.Close()
	o.progress.begin()
	err = do(c)
	o.progress.end()
	o.prompting.Lock() // a prompt that was interrupted has put the terminal right
	defer o.prompting.Unlock()
	if err != nil {
		return &clientError{err: err, role: o.role, scope: n.scope, token: token}
	}
	return nil
}

// client makes the client, and tells whether it uses a given token.
func (o *options) client(n need) (*hem.Client, bool, error) {
	cfg := hem.Config{
		URL: o.address(), InsecureSkipVerify: o.insecure,
		Progress: o.progress.stage,
	}
	if n.login != nil {
		cfg.TTL, cfg.TokenContext = n.login.ttl, n.login.ctx
	}
	if cfg.Role = o.persona(); cfg.Role == "" {
		return nil, false, &usageError{"hem", "--role is neither user nor master"}
	}
	if path := o.setting("cacert", o.caCert, "HEM_CACERT"); path != "" && !o.insecure {
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, false, fmt.Errorf("the CA certificate (--cacert, HEM_CACERT): %w", err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(pem) {
			return nil, false, &usageError{"hem", "the CA certificate (--cacert, HEM_CACERT): the file holds no PEM certificate"}
		}
		cfg.CACert = pem
	}
	token, err := o.givenToken(n)
	if err != nil {
		return nil, false, err
	}
	switch {
	case n.init, n.open():
		// A fresh module knows nobody; and a token from another must not go there.
	case token != "":
		cfg.Token = hem.Bearer(token)
	default:
		cfg.Passphrase = o.askPassphrase
	}
	if o.insecure {
		o.warn("--insecure: the certificate is not checked, so whoever sits in between can use and change everything")
	}
	if token != "" && o.exposed() {
		o.warn("the token goes over plain HTTP: whoever listens in can use it")
	}
	cfg.TokenCache = o.tokenCache(n)
	c, err := hem.New(cfg)
	return c, token != "", err
}

// persona is --role as the protocol has it, or "".
func (o *options) persona() api.Role {
	switch o.role {
	case roleUser:
		return api.RoleUser
	case roleMaster:
		return api.RoleMaster
	}
	return ""
}

// tokenCache is where tokens are kept, or nil when they are not.
func (o *options) tokenCache(n need) hem.TokenCache {
	switch {
	case o.insecure, n.open():
		return nil
	case n.login != nil:
		return n.login.cache
	}
	cache, err := o.openCache()
	if err != nil {
		o.warn("tokens are not kept: %v", err)
		return nil
	}
	return cache
}

// givenToken is the token to use instead of logging in, or "".
func (o *options) givenToken(n need) (string, error) {
	flag, passphraseFlag := o.flags.Changed("token"), o.flags.Changed("passphrase-file")
	switch {
	case flag && n.login != nil:
		return "", &usageError{"hem login", "--token is for commands that use a token; login gets one"}
	case flag && passphraseFlag:
		return "", &usageError{"hem", "--token and --passphrase-file exclude each other"}
	case n.login != nil, n.init, n.open(), passphraseFlag: // flags beat the environment
		return "", nil
	}
	return o.tokenSetting()
}

// tokenSetting reads --token or HEM_TOKEN.
func (o *options) tokenSetting() (string, error) {
	token := o.setting("token", o.token, "HEM_TOKEN")
	if token != "-" {
		return token, nil
	}
	raw, err := o.stdin("--token")
	if err != nil {
		return "", err
	}
	defer clear(raw)
	if token = string(bytes.TrimSpace(raw)); token == "" {
		return "", &usageError{"hem", "--token: there is no token on standard input"}
	}
	return token, nil
}

// warnExposed speaks up before a login that can be listened to.
func (o *options) warnExposed() {
	if o.exposed() {
		o.warn("this goes over plain HTTP: whoever listens in sees the public key, with which passphrases can be tried out, and the token")
	}
}

// exposed tells whether the way to the module can be listened to.
func (o *options) exposed() bool {
	u, err := url.Parse(o.address())
	if err != nil || u.Scheme != "http" {
		return false
	}
	if u.Hostname() == "localhost" {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err != nil || !ip.IsLoopback()
}
