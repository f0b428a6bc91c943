package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

// shortPassphrase is the number of characters below which we warn: 600 000
// rounds do not make up for what is missing.
const shortPassphrase = 12

// initFlags are the flags of hem init.
type initFlags struct {
	user, email, hostname, origin, ip         string
	ctx                                       int64
	noTrustedTime, noTrustedBackend, noSearch bool
	genCSR                                    bool
	csr                                       string
	userPassphrase, masterPassphrase          string // files
	allowEmpty                                bool
}

func newInitCmd(o *options) *cobra.Command {
	var f initFlags
	c := &cobra.Command{
		Use:   "init",
		Short: "Personalise a fresh module",
		Long: `Give a fresh module its first configuration and its two personas: the user, who works
with keys, and the master, who administers. Both passphrases are asked for, twice each,
unless they come from files. They do not leave this machine, and they cannot be
recovered. This works once, until the module is wiped.

Keep the instance id that is printed: only who knows it can have a lost module locked or
wiped through a broker. A token for system:config is kept, as if by hem login.`,
		Example: `  hem init --user Ada --email ada@example.com
  hem init --user-passphrase-file user.txt --master-passphrase-file master.txt --json
  hem init --hostname hem.example.com --gen-csr --csr hem.csr`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.flags.Changed("token") || o.flags.Changed("passphrase-file") {
				return &usageError{c.CommandPath(), "use --user-passphrase-file and --master-passphrase-file; a fresh module takes no token"}
			}
			if f.genCSR && f.csr == "" && !o.json {
				return &usageError{c.CommandPath(), "--gen-csr needs a file for the request, --csr FILE, or --json"}
			}
			f.fill(c, o)
			return f.run(c.Context(), o)
		},
	}
	v := c.Flags()
	v.StringVar(&f.user, "user", "", "name of the user, 1 to 64 bytes (default: your login name)")
	v.StringVar(&f.email, "email", "", "e-mail address of the user")
	v.StringVar(&f.hostname, "hostname", "", "name of the module (default: the one in --url)")
	v.StringVar(&f.origin, "origin", "", "web origins that may use the module: *, *.domain or https://host, several with commas (default: the origin of --url)")
	v.StringVar(&f.ip, "ip", "", "network address of the module, with or without /prefix")
	v.Int64Var(&f.ctx, "ctx", 0, "a number of your choice that the module shows")
	v.BoolVar(&f.noTrustedTime, "no-trusted-time", false, "allow logins while the clock is not set")
	v.BoolVar(&f.noTrustedBackend, "no-trusted-backend", false, "obey no orders that come with a check-in")
	v.BoolVar(&f.noSearch, "no-key-search", false, "forbid the search for keys")
	v.BoolVar(&f.genCSR, "gen-csr", false, "ask for a certificate request for the module's TLS key")
	v.StringVar(&f.csr, "csr", "", "new `file` to write the request to; implies --gen-csr")
	v.StringVar(&f.userPassphrase, "user-passphrase-file", "", "`file` with the user's passphrase, - for standard input")
	v.StringVar(&f.masterPassphrase, "master-passphrase-file", "", "`file` with the master's passphrase, - for standard input")
	v.BoolVar(&f.allowEmpty, "allow-empty-passphrase", false, "allow a passphrase of no characters")
	return c
}

// fill sets what has a default.
func (f *initFlags) fill(c *cobra.Command, o *options) {
	f.genCSR = f.genCSR || f.csr != ""
	if f.user == "" {
		if f.user = o.getenv("USER"); f.user == "" {
			f.user = "user"
		}
	}
	if u, err := url.Parse(o.address()); err == nil {
		if f.hostname == "" {
			f.hostname = u.Hostname()
		}
		if !c.Flags().Changed("origin") {
			f.origin = u.Scheme + "://" + u.Host
		}
	}
}

func (f *initFlags) config() api.InitConfig {
	c := api.InitConfig{
		User: f.user, Email: f.email, Hostname: f.hostname, Origin: f.origin,
		TrustedTS: !f.noTrustedTime, TrustedBackend: !f.noTrustedBackend, AllowKeySearch: !f.noSearch,
		GenCSR: f.genCSR,
	}
	if f.ip != "" {
		c.IP = &f.ip
	}
	if f.ctx != 0 {
		c.Ctx = &f.ctx
	}
	return c
}

func (f *initFlags) run(ctx context.Context, o *options) error {
	var answer *api.InitAnswer
	var csr *os.File
	err := o.with(ctx, need{init: true}, func(m *hem.Client) error {
		// Before anyone has to think of passphrases.
		status, err := m.Status(ctx)
		if err != nil {
			return err
		}
		if status.Inited == nil || *status.Inited {
			return &hem.OpError{Op: "personalise", Err: api.ErrNotAcceptable.Because("already initialised")}
		}
		if f.csr != "" {
			// Also beforehand: the request is told once.
			if csr, err = os.OpenFile(f.csr, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644); err != nil {
				return fmt.Errorf("--csr: %w", err)
			}
		}
		o.progress.end() // the prompts have the line now
		o.warnExposed()
		params := hem.InitParams{Config: f.config()}
		defer func() {
			clear(params.UserPassphrase)
			clear(params.MasterPassphrase)
		}()
		if params.UserPassphrase, err = f.passphrase(ctx, o, roleUser, f.userPassphrase); err != nil {
			return err
		}
		if params.MasterPassphrase, err = f.passphrase(ctx, o, roleMaster, f.masterPassphrase); err != nil {
			return err
		}
		if bytes.Equal(params.UserPassphrase, params.MasterPassphrase) {
			o.warn("user and master have the same passphrase: every login will count as the user's, and none as the master's")
		}
		o.progress.begin()
		answer, err = m.Init(ctx, params)
		return err
	})
	if err != nil {
		if csr != nil {
			csr.Close()
			os.Remove(f.csr)
		}
		return err
	}
	return f.report(o, answer, csr)
}

// passphrase gets one of the two, and judges it. The caller clears it.
func (f *initFlags) passphrase(ctx context.Context, o *options, role, path string) ([]byte, error) {
	return o.newPassphrase(ctx, "hem init", "--"+role+"-passphrase-file", role, path, f.allowEmpty)
}

// report prints what came of it. The token of the answer is not shown: it is kept, like
// that of a login.
func (f *initFlags) report(o *options, a *api.InitAnswer, csr *os.File) error {
	var failed error
	if csr != nil {
		_, err := csr.WriteString(a.CSR)
		if err = errors.Join(err, csr.Close()); err != nil {
			failed = fmt.Errorf("the module is personalised, but its certificate request could not be written: %w", err)
		}
	}
	if a.RebootRequired {
		o.note("some settings take effect after a reboot; run: hem reboot")
	}
	if o.json {
		err := printJSON(o.t.out, struct {
			InstanceID     string `json:"instanceid"`
			Genuine        string `json:"genuine"`
			CSR            string `json:"csr,omitzero"`
			RebootRequired bool   `json:"reboot_required,omitzero"`
		}{a.InstanceID, a.Genuine, a.CSR, a.RebootRequired})
		return errors.Join(err, failed)
	}
	t := &table{}
	t.addText("instance id", a.InstanceID)
	if csr != nil && failed == nil {
		t.addText("certificate request", f.csr)
	}
	return errors.Join(t.print(o.t.out), failed)
}
