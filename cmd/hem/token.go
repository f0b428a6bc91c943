package main

import (
	"bytes"
	"encoding/hex"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"softhem/api"
	"softhem/hem"
)

func newTokenCmd(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:     "token",
		Short:   "Look at tokens",
		Long:    "Look at bearer tokens. The module is not asked.",
		Example: `  hem login --scope logger:get --print-token | hem token inspect`,
	}
	c.AddCommand(newTokenInspectCmd(o))
	return c
}

func newTokenInspectCmd(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect [TOKEN]",
		Short: "Show what a token says",
		Long: `Show what a bearer token says: what it opens, for whom and until when.

The token is read from standard input unless --token, HEM_TOKEN or an argument holds it;
arguments can be seen by every user of this machine. Nothing is verified: only the module
that issued the token can tell whether it is genuine. Times are by the module's clock.`,
		Example: `  hem login --scope logger:get --print-token | hem token inspect
  hem token inspect - < token.txt
  HEM_TOKEN=$token hem token inspect --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			text, err := o.tokenToInspect(args)
			if err != nil {
				return err
			}
			claims, err := hem.InspectToken(text)
			if err != nil {
				return err
			}
			if o.json {
				err = printJSON(o.t.out, claims)
			} else {
				err = claimsTable(claims, time.Now()).print(o.t.out)
			}
			o.warn("not verified: only the module that issued a token can tell whether it is genuine")
			return err
		},
	}
}

// tokenToInspect takes the first it finds of: the argument, --token, HEM_TOKEN,
// standard input.
func (o *options) tokenToInspect(args []string) (string, error) {
	if len(args) == 1 && args[0] != "-" {
		return args[0], nil
	}
	if len(args) == 0 {
		if text, err := o.tokenSetting(); err != nil || text != "" {
			return text, err
		}
		if f, ok := o.t.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			o.note("paste a token, then press Enter and Ctrl-D")
		}
	}
	raw, err := o.stdin("the token")
	if err != nil {
		return "", err
	}
	defer clear(raw)
	text := string(bytes.TrimSpace(raw))
	if text == "" {
		return "", &usageError{"hem token inspect", "there is no token on standard input"}
	}
	return text, nil
}

func claimsTable(claims api.TokenClaims, now time.Time) *table {
	t := &table{}
	scope := claims.Scope
	if scope == "" {
		scope = "(none)"
	}
	t.addText("scope", scope)
	if words := scopeInWords(claims.Scope); words != "" {
		t.addText("opens", words)
	} else {
		t.addText("opens", "nothing that this version knows of")
	}
	t.addText("role", roleInWords(claims.Sub))
	t.add("issued", "%s (%s)", instant(claims.Iat), relative(claims.Iat, now))
	state := "ends"
	if claims.Exp <= now.Unix() {
		state = "ended"
	}
	t.add("expires", "%s (%s %s)", instant(claims.Exp), state, relative(claims.Exp, now))
	t.addText("ctx", claims.Ctx)
	t.addText("id", claims.JTI)
	return t
}

func roleInWords(r api.Role) string {
	switch r {
	case api.RoleUser:
		return "user (U)"
	case api.RoleMaster:
		return "master (M)"
	}
	if kid, err := api.DecodeBase64(string(r)); err == nil && len(kid) == 16 {
		return "authenticator " + hex.EncodeToString(kid)
	}
	return string(r)
}
