package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/qrimage"
)

func newAuthenticatorCmd(o *options) *cobra.Command {
	f := &pairingsFile{o: o}
	c := &cobra.Command{
		Use:   "authenticator",
		Short: "Approve logins of modules",
		Long: `Be an authenticator: be paired with modules, and say yes or no when someone asks one of them for a
token. The keys are kept in a file that a passphrase seals; without it nobody can approve in your name.
With --keystore os the passphrase is a random one, which the key store of this system keeps (Secret Service,
keychain): nobody is asked for it, and every program you run there can get at it.`,
		Example: `  hem authenticator pair screenshot.png
  hem authenticator watch`,
	}
	c.PersistentFlags().StringVar(&f.path, "keys", "", "`FILE` of the pairings, an age file (default $XDG_DATA_HOME/softhem/authenticator.age)")
	c.PersistentFlags().StringVar((*string)(&f.keystore), "keystore", "", "where the passphrase of that file is: file (with you), or os for a random one in the key store of this system; env HEM_AUTHENTICATOR_KEYSTORE (default file)")
	complete(c, "keystore", string(keystoreFile), string(keystoreOS))
	c.PersistentFlags().StringVar(&f.passphrase, "keys-passphrase-file", "", "`FILE` of the passphrase that seals it, - for standard input; env HEM_AUTHENTICATOR_PASSPHRASE_FILE (default: ask on the terminal)")
	c.AddCommand(newAuthPairCmd(o, f), newAuthListCmd(o, f), newAuthWatchCmd(o, f), newAuthUnpairCmd(o, f))
	return c
}

func newAuthPairCmd(o *options, f *pairingsFile) *cobra.Command {
	var label string
	c := &cobra.Command{
		Use:   "pair [FILE|LINK]",
		Short: "Take the offer that hem pair shows",
		Long: `Take an offer: a picture of the QR code that hem pair shows (PNG or JPEG, a screenshot or a photograph), or
a file with the text that it prints. The text holds a secret, and arguments can be seen by every user of
this machine, so it is read from standard input where no file is named. The link in it will do too; then 8
digits have to be compared.`,
		Example: `  hem authenticator pair screenshot.png
  hem authenticator pair < offer.json
  hem authenticator pair --label "desk" https://broker.example/notify/register/challenge/…`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := f.load(c.Context()); err != nil {
				return err
			}
			offer, err := o.readOffer(c.Context(), args)
			if err != nil {
				return err
			}
			if err := f.ask(c.Context(), "New passphrase for the authenticator's keys: "); err != nil {
				return err // before the offer is used up
			}
			cfg, err := o.brokerConfig()
			if err != nil {
				return err
			}
			p, proven, err := hem.AcceptPairing(c.Context(), cfg, offer, label)
			if err != nil {
				return err
			}
			err = f.change(c.Context(), func(all *keptPairings) { all.Pairings = append(all.Pairings, *p) })
			if err != nil {
				return fmt.Errorf("the pairing could not be kept, and is lost: %w", err)
			}
			kid, err := p.KID()
			if err != nil {
				return err
			}
			if !proven {
				o.note("the offer had no secret; compare these digits with those the other screen shows: %s %s", kid.String()[:4], kid.String()[4:8])
			}
			_, err = fmt.Fprintln(o.t.out, kid)
			return err
		},
	}
	c.Flags().StringVar(&label, "label", "hem authenticator", "what the module calls this authenticator")
	return c
}

func newAuthListCmd(o *options, f *pairingsFile) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the pairings",
		Long:    "List the pairings by their kid in the module. User and host are as the offer said.",
		Example: "  hem authenticator list",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := f.load(c.Context())
			if err != nil {
				return err
			}
			if len(all.Pairings) == 0 {
				o.note("there is no pairing yet; run: hem authenticator pair")
			}
			for _, p := range all.Pairings {
				kid, err := p.KID()
				if err != nil {
					return err
				}
				fmt.Fprintf(o.t.out, "%s  %s@%s  through %s\n", kid, clean(p.User), clean(p.Hostname), clean(p.Broker))
			}
			return nil
		},
	}
}

func newAuthUnpairCmd(o *options, f *pairingsFile) *cobra.Command {
	return &cobra.Command{
		Use:   "unpair KID",
		Short: "End a pairing",
		Long: `Forget a pairing here and at the broker. The module keeps its half, which is of no use to anyone then,
until the key is deleted there: hem key delete KID.`,
		Example: "  hem authenticator unpair 0382e3eab596598b1f3582ef90b61a0e",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			all, err := f.load(c.Context())
			if err != nil {
				return err
			}
			for _, p := range all.Pairings {
				kid, err := p.KID()
				if err != nil {
					return err
				}
				if !strings.EqualFold(kid.String(), args[0]) {
					continue
				}
				cfg, err := o.brokerConfig()
				if err != nil {
					return err
				}
				a, err := hem.NewAuthenticator(p, cfg)
				if err != nil {
					return err
				}
				defer a.Close()
				if err := a.Unpair(c.Context()); err != nil && !errors.Is(err, api.ErrNotFound) {
					o.warn("the broker still has the pairing: %v", err)
				}
				return f.change(c.Context(), func(all *keptPairings) {
					all.Pairings = slices.DeleteFunc(all.Pairings, func(one hem.Pairing) bool { return one.PID == p.PID })
				})
			}
			return &usageError{c.CommandPath(), "there is no pairing of this kid here; see: hem authenticator list"}
		},
	}
}

// readOffer reads the offer of a pairing from where args say: a link, or the text
// itself; a file, with the text or a picture of its QR code; standard input.
func (o *options) readOffer(ctx context.Context, args []string) (string, error) {
	const patience = 30 * time.Second // for the search in a picture
	if len(args) == 0 || args[0] == "-" {
		raw, err := o.stdin("the offer")
		return string(bytes.TrimSpace(raw)), err
	}
	if text := strings.TrimSpace(args[0]); strings.HasPrefix(text, "{") || strings.Contains(text, "://") {
		return text, nil
	}
	f, err := os.Open(args[0])
	if err != nil {
		return "", err
	}
	defer f.Close()
	begin := make([]byte, 8)
	if _, err := io.ReadFull(f, begin); err != nil {
		return "", fmt.Errorf("%s: %w", args[0], qrimage.ErrNoPicture)
	}
	r := io.MultiReader(bytes.NewReader(begin), f)
	if !qrimage.IsPicture(begin) {
		raw, err := readSecret(r)
		return string(bytes.TrimSpace(raw)), err
	}
	ctx, end := context.WithTimeout(ctx, patience)
	defer end()
	text, err := qrimage.Read(ctx, r)
	if err != nil {
		return "", fmt.Errorf("%s: %w", args[0], err)
	}
	return text, nil
}

// watchFlags say how requests are answered without anybody being asked.
type watchFlags struct {
	allowAll time.Duration
	readOnly bool
	denyAll  bool
	once     bool
}

func newAuthWatchCmd(o *options, f *pairingsFile) *cobra.Command {
	var w watchFlags
	c := &cobra.Command{
		Use:   "watch",
		Short: "Show requests, and allow or deny them",
		Long: `Wait for requests, show each in plain words, and ask whether to allow it, for how long, or to deny it. What
is shown was written by the module: neither who asks nor the broker can change it, nor can it have an old
request look new. A request that was answered is not shown again. Who asks can be told by the address that
the module saw, and by the code, which hem login --remote shows too: one that you do not see there is another's.`,
		Example: `  hem authenticator watch
  hem authenticator watch --once`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if w.denyAll && w.allowAll != 0 {
				return &usageError{c.CommandPath(), "--allow-all and --deny-all exclude each other"}
			}
			if w.allowAll < 0 || w.allowAll%time.Second != 0 {
				return &usageError{c.CommandPath(), "--allow-all is not a whole number of seconds"}
			}
			all, err := f.load(c.Context())
			if err != nil {
				return err
			}
			if len(all.Pairings) == 0 {
				return errors.New("there is no pairing yet; run: hem authenticator pair")
			}
			if w.allowAll > 0 {
				o.warn("UNSAFE: whatever is asked for is allowed, unseen")
			}
			return w.watch(c.Context(), o, f, all.Pairings)
		},
	}
	c.Flags().BoolVar(&w.once, "once", false, "end after one request")
	c.Flags().DurationVar(&w.allowAll, "allow-all", 0, "UNSAFE: allow whatever is asked for, for `D`; for tests")
	c.Flags().BoolVar(&w.readOnly, "read-only", false, "allow disks for reading alone, whatever is asked for")
	c.Flags().BoolVar(&w.denyAll, "deny-all", false, "deny whatever is asked for")
	return c
}

// A seenRequest is a request and who can answer it.
type seenRequest struct {
	hem.Request
	by   *hem.Authenticator
	from hem.Pairing
}

func (w *watchFlags) watch(ctx context.Context, o *options, f *pairingsFile, pairings []hem.Pairing) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	seen, failed := make(chan seenRequest), make(chan error, len(pairings))
	for _, p := range pairings {
		cfg, err := o.brokerConfig()
		if err != nil {
			return err
		}
		a, err := hem.NewAuthenticator(p, cfg)
		if err != nil {
			return err
		}
		defer a.Close()
		a.Keep = func(request string, until time.Time) error {
			return f.change(ctx, func(all *keptPairings) {
				for i := range all.Pairings {
					if all.Pairings[i].PID == p.PID {
						all.Pairings[i].Remember(request, until, time.Now())
					}
				}
			})
		}
		told := map[error]bool{}
		a.LeftOut = func(_ hem.Request, why error) {
			if !told[why] {
				told[why] = true
				o.warn("a request for %s@%s is not shown: %v", clean(p.User), clean(p.Hostname), why)
			}
		}
		go func() { failed <- poll(ctx, o, a, p, seen) }()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			if ctx.Err() != nil {
				return nil
			}
			return err
		case r := <-seen:
			err := w.answer(ctx, o, r)
			if w.once || errors.Is(err, errUnanswered) {
				return err
			}
			if err != nil {
				o.warn("%v", err)
			}
		}
	}
}

// poll hands requests on, each once. A broker that does not answer is asked again,
// less and less often, and what is wrong with it is said once.
func poll(ctx context.Context, o *options, a *hem.Authenticator, p hem.Pairing, seen chan<- seenRequest) error {
	const shortest, longest = 2 * time.Second, 30 * time.Second
	pause, said := shortest, ""
	shown := map[string]time.Time{} // until when a request is not shown again
	for ctx.Err() == nil {
		began := time.Now()
		all, err := a.Requests(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && explain(err) != said:
			said = explain(err)
			o.warn("%s; trying again", said)
		case err == nil && said != "":
			said = ""
			o.note("the broker answers again")
		}
		fresh := false
		for _, r := range all {
			if _, known := shown[r.ID()]; known {
				continue
			}
			shown[r.ID()], fresh = r.Expires, true
			select {
			case seen <- seenRequest{r, a, p}:
			case <-ctx.Done():
			}
		}
		maps.DeleteFunc(shown, func(_ string, end time.Time) bool { return time.Now().After(end) })
		if pause = min(2*pause, longest); err == nil {
			pause = shortest
		}
		if err != nil || !fresh && time.Since(began) < shortest { // it did not wait, or what waits was shown
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// errUnanswered is why nobody can be asked.
var errUnanswered = errors.New("no answer")

// show prints a request in plain words.
func (r seenRequest) show(o *options) error {
	words := scopeInWords(r.Scope)
	if words == "" {
		words = "something this version has no words for"
	}
	now := time.Now()
	t := &table{}
	t.add("module", "%s@%s", r.from.User, r.from.Hostname)
	t.add("asked for", "%s", words)
	t.add("scope", "%s", r.Scope)
	if r.Key != nil {
		t.add("key", "%q, %s", r.Key.Label, r.Key.Type)
	}
	from := "not said"
	if r.From != "" {
		from = r.From + ", as the module saw it"
		if addr, err := netip.ParseAddr(r.From); err == nil && addr.IsLoopback() {
			from += ": its own host"
		}
	}
	t.add("asked from", "%s", from)
	asked := span(max(now.Unix()-r.Asked.Unix(), 0)) + " ago"
	if r.Asked.After(now.Add(time.Minute)) {
		asked = relative(r.Asked.Unix(), now) + ", by the module's clock; it or the clock here is wrong"
	}
	t.add("asked", "%s", asked)
	code := r.Code()
	t.add("code", "%s %s, which is also shown where you asked; if it is not, deny", code[:4], code[4:])
	t.add("ends", "%s", relative(r.Expires.Unix(), now))
	o.progress.hide()
	return t.print(o.t.out)
}

// answer shows a request and does what is said.
func (w *watchFlags) answer(ctx context.Context, o *options, r seenRequest) error {
	if err := r.show(o); err != nil {
		return err
	}
	life, readOnly, err := w.decide(ctx, o, r.Scope)
	if err != nil {
		return fmt.Errorf("%w: %w", errUnanswered, err)
	}
	grant := r.Scope
	if less, ok := readingOf(r.Scope); ok && readOnly {
		grant = less
	}
	if life == 0 {
		err = r.by.Deny(ctx, r.Request)
	} else {
		err = r.by.Allow(ctx, r.Request, life, grant)
	}
	switch refused, ok := errors.AsType[*api.Error](err); {
	case err == nil && life == 0:
		fmt.Fprintln(o.t.out, "denied")
	case err == nil && grant != r.Scope:
		fmt.Fprintf(o.t.out, "allowed for %s, for reading alone\n", span(int64(life/time.Second)))
	case err == nil:
		fmt.Fprintf(o.t.out, "allowed for %s\n", span(int64(life/time.Second)))
	case ok && (refused.Status == 404 || refused.Status == 410):
		fmt.Fprintln(o.t.out, "it ended meanwhile, or another authenticator answered")
		err = nil
	}
	return err
}

// readingOf is the scope of a disk without the right to write, where there is less
// to be had.
func readingOf(scope string) (less string, ok bool) {
	less, ok = strings.CutSuffix(scope, ":rw")
	if wider, disk := api.WiderDiskScope(less); !ok || !disk || wider != scope {
		return "", false
	}
	return less, true
}

// decide asks how long to allow, 0 is no, and whether for reading alone.
func (w *watchFlags) decide(ctx context.Context, o *options, scope string) (life time.Duration, readOnly bool, err error) {
	if w.denyAll {
		return 0, false, nil
	}
	if w.allowAll > 0 {
		return w.allowAll, w.readOnly, nil
	}
	question := "Allow for 15m, 1h, 8h or 24h, or deny? "
	_, canRead := readingOf(scope)
	if canRead {
		question = "Allow for 15m, 1h, 8h or 24h (with ro after it: for reading alone), or deny? "
	}
	for {
		answer, err := o.ask(ctx, question)
		if err != nil {
			return 0, false, err
		}
		if life, readOnly, ok := readAnswer(answer, canRead); ok {
			return life, readOnly || w.readOnly, nil
		}
	}
}

// readAnswer reads what a person typed. What is anything else is asked again: an empty line
// is neither yes nor no.
func readAnswer(answer string, canRead bool) (life time.Duration, readOnly, ok bool) {
	words := strings.Fields(strings.ToLower(answer))
	if len(words) == 2 && words[1] == "ro" && canRead {
		words, readOnly = words[:1], true
	}
	if len(words) != 1 {
		return 0, false, false
	}
	switch words[0] {
	case "15m":
		life = 15 * time.Minute
	case "1h":
		life = time.Hour
	case "8h":
		life = 8 * time.Hour
	case "24h":
		life = 24 * time.Hour
	case "deny", "d", "n", "no":
		return 0, false, !readOnly
	default:
		return 0, false, false
	}
	return life, readOnly, true
}
