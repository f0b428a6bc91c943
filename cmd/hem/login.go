package main

import (
	"context"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

func newLoginCmd(o *options) *cobra.Command {
	var scope, tokenContext string
	var ttl, timeout time.Duration
	var printToken, remote bool
	var broker, note string
	c := &cobra.Command{
		Use:   "login --scope SCOPE",
		Short: "Get a token for one scope",
		Long: `Prove the passphrase to the module and get a token that opens one scope.

The token is kept, so that the commands that follow do not ask again; or printed with
--print-token, and then not kept. Other commands log in by themselves when they need to, so
this is for doing it beforehand, for handing a token to another program, or for choosing how
long it lives. The passphrase does not leave this machine.`,
		Example: `  hem login --scope logger:get
  hem login --scope system:config --role master --ttl 10m
  hem login --scope keymgmt:list --passphrase-file - --print-token < passphrase
  hem login --scope keymgmt:gen --remote --broker https://broker.example --timeout 2m`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !c.Flags().Changed("scope") {
				return &usageError{c.CommandPath(), "--scope is missing; it says what the token shall open"}
			}
			if ttl < 0 || ttl%time.Second != 0 {
				return &usageError{c.CommandPath(), "--ttl is not a whole number of seconds"}
			}
			if utf8.RuneCountInString(tokenContext) > api.MaxContextChars {
				return &usageError{c.CommandPath(), fmt.Sprintf("--ctx has more than %d characters", api.MaxContextChars)}
			}
			if printToken && o.json {
				return &usageError{c.CommandPath(), "--print-token and --json exclude each other"}
			}
			if remote && (ttl != 0 || o.flags.Changed("role")) {
				return &usageError{c.CommandPath(), "--ttl and --role go with a passphrase; with --remote the authenticator decides"}
			}
			if !remote && (c.Flags().Changed("broker") || note != "" || timeout != 0) {
				return &usageError{c.CommandPath(), "--broker, --note and --timeout go with --remote"}
			}
			if timeout < 0 {
				return &usageError{c.CommandPath(), "--timeout is less than nothing"}
			}
			l := &login{ttl: ttl, ctx: tokenContext}
			if !printToken {
				if o.insecure {
					return &usageError{c.CommandPath(), "no tokens are kept under --insecure; add --print-token"}
				}
				cache, err := o.openCache()
				if err != nil {
					return fmt.Errorf("the token could not be kept: %w; or add --print-token", err)
				}
				l.cache = writeOnly{cache}
			}
			var token hem.Token
			var err error
			who := o.role
			if remote {
				who = "an authenticator"
				token, err = loginRemote(c, o, l, broker, hem.RemoteParams{Scope: scope, Note: note, Timeout: timeout})
			} else {
				token, err = logIn(c.Context(), o, l, scope)
			}
			if err != nil {
				return err
			}
			if printToken {
				_, err = fmt.Fprintln(o.t.out, string(token.Bearer))
				return err
			}
			o.note("logged in as %s for %q until %s", who, clean(token.Scope), token.Expires.Local().Format(time.DateTime+" MST"))
			if o.json {
				return printJSON(o.t.out, struct {
					Scope   string `json:"scope"`
					Role    string `json:"role"`
					EID     string `json:"eid"`
					Expires int64  `json:"expires"`
				}{token.Scope, string(token.Role), token.EID, token.Expires.Unix()})
			}
			return nil
		},
	}
	c.Flags().StringVar(&scope, "scope", "", "what the token shall open, such as system:config")
	c.Flags().DurationVar(&ttl, "ttl", 0, "how long it shall live, such as 30m; the module may shorten it (default: the module's, 8h)")
	c.Flags().BoolVar(&printToken, "print-token", false, "print the token, and do not keep it")
	c.Flags().BoolVar(&remote, "remote", false, "ask the paired authenticators instead of for a passphrase")
	c.Flags().StringVar(&broker, "broker", "", "with --remote: address of the broker; env HEM_BROKER (default: the one that the module names)")
	c.Flags().StringVar(&note, "note", "", "with --remote: text that goes along, at most 128 characters")
	c.Flags().DurationVar(&timeout, "timeout", 0, "with --remote: how long to wait, such as 2m (default: as long as the request is good, 15m for the use of a key, else 1h)")
	c.Flags().StringVar(&tokenContext, "ctx", "", "text that the token shall carry, at most 63 characters")
	complete(c, "scope", scopeNames()...)
	return c
}

// logIn gets a token of the persona asked for, and no other.
func logIn(ctx context.Context, o *options, l *login, scope string) (token hem.Token, err error) {
	err = o.with(ctx, need{scope: scope, login: l}, func(c *hem.Client) error {
		token, err = c.Login(ctx, scope)
		if err == nil && token.Role != o.persona() {
			// The module tells personas by their passphrase alone, and a token of the
			// wrong one would be refused later, when nobody remembers why.
			err = &hem.OpError{Op: "log in", Err: api.ErrUnauthorized.Because("this is the other persona's passphrase")}
		}
		return err
	})
	return token, err
}

func newLogoutCmd(o *options) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "logout",
		Short: "Forget the tokens kept for a module",
		Long: `Remove the tokens that are kept for the module at --url, of both personas.

The module is not told: it cannot take a token back. Who has a copy can use it
until it ends or the module reboots.`,
		Example: `  hem logout
  hem logout --all`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cache, err := o.openCache()
			if err != nil {
				return err
			}
			if all {
				return cache.clear("")
			}
			client, err := hem.New(hem.Config{URL: o.address(), TokenCache: cache})
			if err != nil {
				return err
			}
			return client.Logout(c.Context())
		},
	}
	c.Flags().BoolVar(&all, "all", false, "remove the tokens of every module")
	return c
}
