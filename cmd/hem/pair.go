package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"rsc.io/qr"

	"softhem/api"
	"softhem/hem"
)

// broker makes the client of the broker named by a flag or HEM_BROKER.
func (o *options) broker(c *cobra.Command, url string) (*hem.Broker, error) {
	cfg, err := o.brokerConfig()
	if err != nil {
		return nil, err
	}
	if cfg.URL, err = o.brokerURL(c, url); err != nil {
		return nil, err
	}
	return hem.NewBroker(cfg)
}

// brokerURL is the broker that a flag names, or HEM_BROKER, or else the module.
func (o *options) brokerURL(c *cobra.Command, url string) (string, error) {
	if c.Flags().Changed("broker") {
		return url, nil
	}
	if url = o.getenv("HEM_BROKER"); url != "" {
		return url, nil
	}
	err := o.with(c.Context(), need{}, func(m *hem.Client) (err error) {
		url, err = m.BrokerURL(c.Context())
		return err
	})
	if err == nil && url == "" {
		err = &usageError{c.CommandPath(), "--broker (or HEM_BROKER) is missing, and the module names none (hem serve --broker)"}
	}
	return url, err
}

// brokerConfig trusts --cacert besides the system's authorities.
func (o *options) brokerConfig() (cfg hem.BrokerConfig, err error) {
	if path := o.setting("cacert", o.caCert, "HEM_CACERT"); path != "" {
		cfg.CACert, err = os.ReadFile(path)
	}
	return cfg, err
}

func newPairCmd(o *options) *cobra.Command {
	var broker string
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "pair --broker URL",
		Short: "Pair an authenticator with the module",
		Long: `Show an offer, as a QR code and as text, and wait for an authenticator to take it: a phone that
reads the code, or hem authenticator pair. From then on it can approve logins: hem login --remote.

The offer holds a secret that the broker does not see, and by which the answer is known to come from
who saw the offer; do not let others see it. An authenticator that does not use it shows 8 digits,
which you are asked to compare. To unpair, delete the key: hem key delete KID.`,
		Example: `  hem pair --broker https://broker.example
  HEM_BROKER=http://127.0.0.1:8090 hem pair`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := o.broker(c, broker)
			if err != nil {
				return err
			}
			var kid hem.KID
			err = o.with(c.Context(), need{scope: api.ScopeExtPair}, func(m *hem.Client) (err error) {
				kid, err = m.Pair(c.Context(), b, hem.PairParams{Timeout: timeout, Show: o.showOffer, Confirm: o.confirmDigits})
				return err
			})
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(o.t.out, struct {
					KID string `json:"kid"`
				}{kid.String()})
			}
			_, err = fmt.Fprintln(o.t.out, "paired", kid)
			return err
		},
	}
	c.Flags().StringVar(&broker, "broker", "", "address of the broker; env HEM_BROKER (default: the one that the module names)")
	c.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait for the authenticator")
	return c
}

// showOffer writes the offer to standard output, for whoever has no camera, and
// its QR code to the terminal.
func (o *options) showOffer(offer string, until time.Time) {
	o.progress.hide()
	if code, err := qr.Encode(offer, qr.L); err == nil {
		drawQR(o.t.err, code)
	}
	fmt.Fprintln(o.t.out, offer)
	o.note("scan the code, or run: hem authenticator pair, and paste the line above; until %s", until.Local().Format(time.TimeOnly))
	o.progress.say("waiting for the authenticator")
}

// drawQR draws two rows of a code in each line, dark on light, with the quiet
// zone of four (ISO 18004) around it.
func drawQR(w io.Writer, code *qr.Code) {
	const quiet = 4
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		b.WriteString("\x1b[30;47m")
		for x := -quiet; x < code.Size+quiet; x++ {
			switch upper, lower := code.Black(x, y), code.Black(x, y+1); {
			case upper && lower:
				b.WriteString("█")
			case upper:
				b.WriteString("▀")
			case lower:
				b.WriteString("▄")
			default:
				b.WriteString(" ")
			}
		}
		b.WriteString("\x1b[0m\n")
	}
	io.WriteString(w, b.String())
}

func (o *options) confirmDigits(ctx context.Context, digits string) (bool, error) {
	answer, err := o.ask(ctx, fmt.Sprintf("Does the authenticator show %s %s? [y/N] ", digits[:4], digits[4:]))
	return strings.EqualFold(answer, "y") || strings.EqualFold(answer, "yes"), err
}

// ask asks a question on the terminal.
func (o *options) ask(ctx context.Context, question string) (string, error) {
	tty, err := os.OpenFile(terminalDevice, os.O_RDWR, 0)
	if err != nil {
		return "", &usageError{"hem", "there is no terminal to ask a question on"}
	}
	defer tty.Close()
	o.progress.hide()
	if _, err := io.WriteString(tty, question); err != nil {
		return "", fmt.Errorf("the terminal: %w", err)
	}
	line := make(chan string, 1)
	go func() {
		text, err := bufio.NewReader(tty).ReadString('\n')
		if err != nil {
			text = ""
		}
		line <- strings.TrimSpace(text)
	}()
	select {
	case text := <-line:
		return text, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// loginRemote gets a token by an authenticator's approval.
func loginRemote(c *cobra.Command, o *options, l *login, broker string, p hem.RemoteParams) (token hem.Token, err error) {
	b, err := o.broker(c, broker)
	if err != nil {
		return token, err
	}
	p.Code = func(digits string) {
		o.note("compare what the authenticator shows: code %s %s", digits[:4], digits[4:])
	}
	p.Waiting = func(asked int, until time.Time) {
		whom := "one authenticator is"
		if asked != 1 {
			whom = fmt.Sprintf("%d authenticators are", asked)
		}
		o.note("%s asked for %q; waiting until %s", whom, p.Scope, until.Local().Format(time.TimeOnly))
		o.progress.say("waiting for an authenticator")
	}
	err = o.with(c.Context(), need{scope: p.Scope, login: l}, func(m *hem.Client) error {
		token, err = m.LoginRemote(c.Context(), b, p)
		return err
	})
	return token, err
}

// remoteExit is the exit code of what an authenticator, or its absence, decided.
func remoteExit(err error) (code int, ok bool) {
	switch {
	case errors.Is(err, hem.ErrDenied), errors.Is(err, hem.ErrPairingForged):
		return exitForbidden, true
	case errors.Is(err, hem.ErrNoAuthenticator):
		return exitNotFound, true
	case errors.Is(err, hem.ErrRemoteTimeout):
		return exitFailed, true
	}
	return 0, false
}
