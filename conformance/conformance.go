// Package conformance walks a HEM from a factory-fresh module to the wipe, and
// says where it differs from the protocol. It is a black box's test: it knows
// an address and speaks HTTP, so it runs against a server, a device, or a module
// inside a test:
//
//	report, err := conformance.Run(ctx, conformance.Options{
//		URL: "https://localhost:8443", CAFile: "ca.pem", BackendKey: key,
//	})
//	if err != nil {
//		return err // it could not even begin
//	}
//	report.WriteText(os.Stdout)
//	if report.Failed() { … }
//
// It destroys everything the module holds: the walk needs a fresh module, breaks
// it where it may be broken, and leaves a fresh one. A personalised module is
// refused unless Options say that it is to be wiped first.
//
// What the module computes is checked with the standard library. Where that has
// no such thing (Ed448, X448, secp256k1, ML-DSA and ML-KEM-512) the module is checked
// against itself and the title of the check says so. The package imports the
// standard library, softhem/api and softhem/hem.
//
// `hem conform` is this package as a command.
package conformance

import (
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The passphrases a module is personalised with unless Options has others. They
// are no secret: the module is wiped at the end, and a walk that was cut off can be
// begun again with WipeFirst.
const (
	DefaultUserPassphrase   = "hem conform user"
	DefaultMasterPassphrase = "hem conform master"
)

// QuirksFW122 has differences that firmware 1.2.2 is known for reported as such.
const QuirksFW122 = "fw1.2.2"

// Options say what to walk, and how. Only URL is required.
type Options struct {
	// URL is the module's base address, https.
	URL string

	// PlainURL is the base address of its plain HTTP listener. Without it, what
	// is about plain HTTP is skipped.
	PlainURL string

	// CAFile is a PEM file with the authority of the module's certificate. It is
	// read for every connection, because a wipe ends the authority too, and the
	// module writes its next one there. Empty: the system's authorities.
	CAFile string

	// InsecureSkipVerify takes any certificate.
	InsecureSkipVerify bool

	// BackendKey is an X25519 private key, 32 bytes. The module must trust its
	// public half as a backend, and as the first one. Without it, check-ins can
	// be made through BackendURL only.
	BackendKey []byte

	// BackendURL is a backend that the module trusts, for a module whose clock
	// has to be set and that does not trust BackendKey.
	BackendURL string

	// UserPassphrase and MasterPassphrase are what the module is personalised with,
	// and for WipeFirst what it has been. nil: the Default… of this package.
	UserPassphrase, MasterPassphrase []byte

	// UserKey and MasterKey are X25519 private keys, 32 bytes, in place of
	// passphrases: nothing has to be derived then.
	UserKey, MasterKey []byte

	// WipeFirst has a module that is personalised wiped before the walk begins.
	WipeFirst bool

	// Only names what to walk: groups, or checks by their ids, which may be patterns
	// as of [path.Match]. Empty: everything. What it stands on, a personalised
	// module, is prepared without being reported. The checks of log and wipe
	// stand on those before them in their group.
	Only []string

	// Accelerated: the module under test runs with the delays of Damping, which
	// are shorter than the protocol's. It changes waiting times and nothing else.
	Accelerated bool

	// Damping is how the module slows logins down, with Accelerated. Where it is
	// zero, delays are not measured. Otherwise the protocol's counts.
	Damping Damping

	// Quirks names the faults that are to be reported as known: [QuirksFW122].
	Quirks string

	// Progress, if not nil, is told each result as it comes.
	Progress func(Result)
}

// Damping is how long answers to logins are held back.
type Damping struct {
	Delay   time.Duration // every answer
	Penalty time.Duration // after three failures in a row
	Window  time.Duration // until so long after the last failure
}

func protocolDamping() Damping {
	return Damping{Delay: 500 * time.Millisecond, Penalty: 1500 * time.Millisecond, Window: 15 * time.Second}
}

// A Check is one thing that is looked at.
type Check struct {
	ID    string `json:"id"` // group, dot, name; stable
	Group string `json:"group"`
	Title string `json:"title"` // what must hold, as a sentence
	// Spec is where that is written: a file of docs, # and a section. What stands in
	// divergences.md is a decision of SoftHEM, and not asked of other modules.
	Spec string `json:"spec"`
}

// Checks are all checks in the order of the walk.
func Checks() []Check {
	all, _ := ChecksOf(nil)
	return all
}

// ChecksOf are those that [Options.Only] asks for. What names none is [ErrOptions].
func ChecksOf(only []string) ([]Check, error) {
	o := Options{Only: only}
	if err := o.validateOnly(); err != nil {
		return nil, err
	}
	var all []Check
	for _, g := range groups() {
		for _, c := range g.only(only) {
			all = append(all, c.public(g))
		}
	}
	return all, nil
}

// ErrPersonalised: the module is not fresh, and Options do not say to wipe it.
var ErrPersonalised = errors.New("the module is personalised; the walk needs a fresh one, and destroys everything a module holds")

// ErrOptions marks options that make no sense.
var ErrOptions = errors.New("invalid options")

func (o *Options) validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrOptions}, args...)...)
	}
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return bad("URL is no https address")
	}
	if o.PlainURL != "" {
		if u, err := url.Parse(o.PlainURL); err != nil || u.Scheme != "http" || u.Host == "" {
			return bad("PlainURL is no http address")
		}
	}
	for name, key := range map[string][]byte{"BackendKey": o.BackendKey, "UserKey": o.UserKey, "MasterKey": o.MasterKey} {
		if key != nil {
			if _, err := ecdh.X25519().NewPrivateKey(key); err != nil {
				return bad("%s is no X25519 private key of 32 bytes", name)
			}
		}
	}
	if (o.UserKey == nil) != (o.MasterKey == nil) {
		return bad("UserKey and MasterKey go together")
	}
	if o.Quirks != "" && o.Quirks != QuirksFW122 {
		return bad("the quirks known are those of %s", QuirksFW122)
	}
	return o.validateOnly()
}

func (o *Options) validateOnly() error {
	for _, pattern := range o.Only {
		if !slices.ContainsFunc(groups(), func(g group) bool { return len(g.only([]string{pattern})) > 0 }) {
			var names []string
			for _, g := range groups() {
				names = append(names, g.name)
			}
			return fmt.Errorf("%w: %q is no group and no check; the groups are %s", ErrOptions, pattern, strings.Join(names, ", "))
		}
	}
	return nil
}

// Run walks the module. The error says why the walk could not begin; what was
// found is in the report, which is never nil without an error. When ctx ends, so does
// the walk, and what was not reached is skipped.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	w, err := newWalk(ctx, o)
	if err != nil {
		return nil, err
	}
	defer w.close()
	if err := w.begin(); err != nil {
		return nil, err
	}
	for _, g := range groups() {
		w.walkGroup(g)
	}
	w.end()
	return w.report, nil
}
