package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/conformance"
)

// A conformRun is what hem conform is told beside what it hands on.
type conformRun struct {
	conformance.Options
	backendKey, newBackendKey      string
	userPassphrase, masterPassword string
	yes, list                      bool
}

func newConformCmd(o *options) *cobra.Command {
	var r conformRun
	c := &cobra.Command{
		Use:   "conform [URL]",
		Short: "Walk a module from fresh to wiped, and say where it differs from the protocol",
		Long: `Walk a HEM, a SoftHEM or a device, from a factory-fresh module to the wipe: HTTP and TLS,
check-in, personalisation, logins and their damping, tokens, roles, configuration, TLS pairs,
attestation, the life of all types of keys, all cryptography, external authenticators, the log, self-test,
storage, upgrades that must not be installed, the faults of a diagnostic build, the wipe. Whatever
differs is shown with the request and the answer, without tokens. The exit status is 1 if anything does.

THE WALK DESTROYS EVERYTHING THE MODULE HOLDS. It asks first, and refuses a module that
is personalised unless --wipe-first is given with the passphrases that it was personalised with.
The module is personalised with passphrases that are no secret, and is a fresh one at the end;
when the walk was cut off, --wipe-first without passphrases begins anew.

The walk plays the backend of check-ins: give it the key of one that the module trusts
(--trusted-backend). Without it, check-ins are skipped; a module whose clock has to be
set by one needs the key, or --backend.

What the module computes is checked with Go's standard library; where that lacks an
algorithm, the module is checked against itself and the title says so. What is a decision of
SoftHEM and not of the protocol is not asked of other modules. --accelerated is for a module that was
started with shorter delays: it changes waiting times, and nothing else.`,
		Example: `  hem conform --new-backend-key backend.key
  hem serve --memory --unsafe-fast-login --login-delay 0s --login-penalty 0s --trusted-backend hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
  hem conform https://localhost:8443 --cacert ca.pem --plain http://localhost:8080 --backend-key backend.key --accelerated --yes
  hem conform https://hem.example.com --only crypto,keys --json
  hem conform --list`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case r.list:
				return o.listChecks(r.Only)
			case r.newBackendKey != "":
				return o.makeBackendKey(r.newBackendKey)
			}
			if r.URL = o.address(); len(args) == 1 {
				r.URL = args[0]
			}
			return o.conform(c, r)
		},
	}
	f := c.Flags()
	f.StringVar(&r.PlainURL, "plain", "", "address of the module's plain HTTP listener; without it, what is about plain HTTP is skipped")
	f.StringVar(&r.backendKey, "backend-key", "", "`file` with the private key of a backend that the module trusts, as --new-backend-key makes it")
	f.StringVar(&r.newBackendKey, "new-backend-key", "", "make such a `file`, print what --trusted-backend is to be, and do nothing else")
	f.StringVar(&r.BackendURL, "backend", "", "address of a backend that the module trusts, for its clock alone")
	f.StringVar(&r.userPassphrase, "user-passphrase-file", "", "`file` with the user's passphrase, of before with --wipe-first, and to personalise with")
	f.StringVar(&r.masterPassword, "master-passphrase-file", "", "`file` with the administrator's passphrase, likewise")
	f.BoolVar(&r.WipeFirst, "wipe-first", false, "wipe a module that is personalised")
	f.BoolVar(&r.yes, "yes", false, "do not ask whether the module may be destroyed")
	f.StringSliceVar(&r.Only, "only", nil, "`groups` or checks to walk, parted by commas, such as login,crypto.sign-*; hem conform --list shows them")
	f.BoolVar(&r.list, "list", false, "list the checks, and do nothing else")
	f.BoolVar(&r.Accelerated, "accelerated", false, "the module runs with the delays of the three flags below, which are not the protocol's")
	f.DurationVar(&r.Damping.Delay, "login-delay", 0, "with --accelerated, as of hem serve; 0 is not measured")
	f.DurationVar(&r.Damping.Penalty, "login-penalty", 0, "likewise")
	f.DurationVar(&r.Damping.Window, "login-penalty-window", 15*time.Second, "likewise")
	f.Var(oneOf(&r.Quirks, conformance.QuirksFW122), "quirks", "firmware whose known faults are reported as such, and are no failures: "+conformance.QuirksFW122)
	return c
}

// errConform is a walk that found something.
var errConform = errors.New("the module differs from the protocol")

func (o *options) conform(c *cobra.Command, r conformRun) error {
	ctx := c.Context()
	r.CAFile, r.InsecureSkipVerify = o.setting("cacert", o.caCert, "HEM_CACERT"), o.insecure
	var err error
	if r.backendKey != "" {
		if r.BackendKey, err = readBackendKey(r.backendKey); err != nil {
			return fmt.Errorf("--backend-key: %w", err)
		}
	}
	for _, p := range []struct {
		flag, path string
		into       *[]byte
	}{{"--user-passphrase-file", r.userPassphrase, &r.UserPassphrase}, {"--master-passphrase-file", r.masterPassword, &r.MasterPassphrase}} {
		if p.path == "" {
			continue
		}
		if *p.into, err = o.secret(ctx, p.flag, p.path, ""); err != nil {
			return err
		}
		defer clear(*p.into)
	}
	if !r.yes {
		if err := o.confirmWalk(ctx, r.URL); err != nil {
			return err
		}
	}
	o.progress.begin()
	r.Progress = func(res conformance.Result) { o.progress.say(res.ID) }
	report, err := conformance.Run(ctx, r.Options)
	o.progress.end()
	switch {
	case errors.Is(err, conformance.ErrOptions):
		return &usageError{c.CommandPath(), strings.TrimPrefix(err.Error(), conformance.ErrOptions.Error()+": ")}
	case errors.Is(err, conformance.ErrPersonalised):
		return fmt.Errorf("%w; --wipe-first wipes it, with the passphrases that it was personalised with", err)
	case err != nil:
		return err
	}
	if o.json {
		err = report.WriteJSON(o.t.out)
	} else {
		err = report.WriteText(o.t.out)
	}
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case report.Failed():
		return fmt.Errorf("%w: %d of %d checks failed", errConform, report.FailedCount, len(report.Results))
	}
	return nil
}

// confirmWalk asks whether the module may be destroyed.
func (o *options) confirmWalk(ctx context.Context, url string) error {
	typed, err := o.askLine(ctx, "--yes", fmt.Sprintf("Everything that the module at %s holds will be destroyed.\nType yes to do so: ", clean(url)))
	if err != nil {
		return err
	}
	if strings.TrimSpace(typed) != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

func (o *options) listChecks(only []string) error {
	checks, err := conformance.ChecksOf(only)
	if err != nil {
		return &usageError{"hem conform", err.Error()}
	}
	if o.json {
		return printJSON(o.t.out, struct {
			Checks []conformance.Check `json:"checks"`
		}{checks})
	}
	var t table
	for _, c := range checks {
		t.add(c.ID, "%s", c.Title)
	}
	return t.print(o.t.out)
}

// makeBackendKey writes a new key where there is no file yet.
func (o *options) makeBackendKey(path string) error {
	private, public, err := conformance.NewBackendKey()
	if err != nil {
		return err
	}
	defer clear(private)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(api.EncodeBase64(private) + "\n"); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if o.json {
		return printJSON(o.t.out, struct {
			TrustedBackend string `json:"trusted_backend"`
		}{api.EncodeBase64(public)})
	}
	_, err = fmt.Fprintln(o.t.out, api.EncodeBase64(public))
	return err
}

func readBackendKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := readSecret(f)
	if err != nil {
		return nil, err
	}
	key, err := api.DecodeBase64(string(trimNewline(raw)))
	if err != nil || len(key) != 32 {
		return nil, errors.New("it is no file that --new-backend-key makes")
	}
	return key, nil
}
