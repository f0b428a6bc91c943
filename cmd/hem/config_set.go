package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

// A configSetting is what hem config set can change.
type configSetting struct {
	name string
	what string // for the help
	set  func(u *api.ConfigUpdate, text string) error
}

// configSettings are named as in the protocol.
func configSettings() []configSetting {
	text := func(at func(*api.ConfigUpdate) **string) func(*api.ConfigUpdate, string) error {
		return func(u *api.ConfigUpdate, text string) error { *at(u) = &text; return nil }
	}
	flag := func(at func(*api.ConfigUpdate) **bool) func(*api.ConfigUpdate, string) error {
		return func(u *api.ConfigUpdate, text string) error {
			v, err := readSwitch(text)
			*at(u) = &v
			return err
		}
	}
	number := func(low, high int64, put func(*api.ConfigUpdate, int64)) func(*api.ConfigUpdate, string) error {
		return func(u *api.ConfigUpdate, text string) error {
			v, err := strconv.ParseInt(text, 10, 64)
			if err != nil || v < low || v > high {
				if high == 1<<63-1 {
					return fmt.Errorf("it is a whole number")
				}
				return fmt.Errorf("it is a whole number from %d to %d", low, high)
			}
			put(u, v)
			return nil
		}
	}
	whole := func(v int64) *int { n := int(v); return &n }
	return []configSetting{
		{"user", "name of the user, 1 to 64 bytes", text(func(u *api.ConfigUpdate) **string { return &u.User })},
		{"email", "their address", text(func(u *api.ConfigUpdate) **string { return &u.Email })},
		{"origin", "web origins that may use the module: *, https://host, *.domain", text(func(u *api.ConfigUpdate) **string { return &u.Origin })},
		{"trusted_ts", "logins need a clock that was set", flag(func(u *api.ConfigUpdate) **bool { return &u.TrustedTS })},
		{"trusted_backend", "obey orders that come with a check-in", flag(func(u *api.ConfigUpdate) **bool { return &u.TrustedBackend })},
		{"allow_keysearch", "keys can be searched for without a token", flag(func(u *api.ConfigUpdate) **bool { return &u.AllowKeySearch })},
		{"ctx", "a number of your own", number(-1<<63, 1<<63-1, func(u *api.ConfigUpdate, v int64) { u.Ctx = &v })},
		{"http_option_hsts", "tell browsers to use TLS only", flag(func(u *api.ConfigUpdate) **bool { return &u.HTTPOptionHSTS })},
		{"http_option_dosprot_mode", "half seconds a request may take to arrive, 0 to 4; 0: no limit", number(0, 4, func(u *api.ConfigUpdate, v int64) { u.HTTPOptionDoS = whole(v) })},
		{"dnsd", "kept only", flag(func(u *api.ConfigUpdate) **bool { return &u.DNSD })},
		{"storage_mode", "0 to 255", number(0, 255, func(u *api.ConfigUpdate, v int64) { u.StorageMode = whole(v) })},
		{"storage_disk0size", "sectors of 512 bytes", number(0, 1<<62, func(u *api.ConfigUpdate, v int64) { u.StorageDisk0Size = &v })},
	}
}

func readSwitch(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "yes", "on":
		return true, nil
	case "false", "no", "off":
		return false, nil
	}
	return false, fmt.Errorf("it is true or false")
}

func newConfigSetCmd(o *options) *cobra.Command {
	var names strings.Builder
	complete := make([]string, 0, len(configSettings()))
	for _, s := range configSettings() {
		fmt.Fprintf(&names, "  %-26s %s\n", s.name, s.what)
		complete = append(complete, s.name+"=")
	}
	return &cobra.Command{
		Use:   "set NAME=VALUE...",
		Short: "Change the configuration",
		Long: `Change the module's configuration: all that is given, or nothing. Needs a token for
system:config, as user or master.

` + names.String() + `
Switches are true or false. The host name and the address of a module cannot be changed.`,
		Example: `  hem config set email=ada@example.com http_option_hsts=true
  hem config set 'origin=https://hem.example, *.apps.example'`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: cobra.FixedCompletions(complete, cobra.ShellCompDirectiveNoSpace|cobra.ShellCompDirectiveNoFileComp),
		RunE: func(c *cobra.Command, args []string) error {
			u, err := readSettings(args)
			if err != nil {
				return err
			}
			return o.updateConfig(c, u)
		},
	}
}

// readSettings reads NAME=VALUE of each argument.
func readSettings(args []string) (u api.ConfigUpdate, err error) {
	all := configSettings()
	seen := map[string]bool{}
	for _, arg := range args {
		name, value, found := strings.Cut(arg, "=")
		if !found {
			return u, &usageError{"hem config set", fmt.Sprintf("%q is not NAME=VALUE", arg)}
		}
		i := slices.IndexFunc(all, func(s configSetting) bool { return s.name == name })
		switch {
		case i < 0:
			return u, &usageError{"hem config set", noSetting(name)}
		case seen[name]:
			return u, &usageError{"hem config set", name + " is given twice"}
		}
		seen[name] = true
		if err := all[i].set(&u, value); err != nil {
			return u, &usageError{"hem config set", fmt.Sprintf("%s cannot be %q: %v", name, value, err)}
		}
	}
	return u, nil
}

// noSetting says why there is none of that name, and which may be meant.
func noSetting(name string) string {
	switch name {
	case "hostname", "ip":
		return name + " is given once, by hem init, and cannot be changed"
	case "userkey":
		return "the user's key is changed by: hem passwd"
	case "tls":
		return "the TLS certificate is changed by: hem config certificate"
	}
	text := fmt.Sprintf("there is no setting %q", name)
	var near []string
	c := &cobra.Command{SuggestionsMinimumDistance: 2}
	for _, s := range configSettings() {
		c.AddCommand(&cobra.Command{Use: s.name, Run: func(*cobra.Command, []string) {}})
		if len(name) > 2 && strings.Contains(s.name, strings.ToLower(name)) { // hsts for http_option_hsts
			near = append(near, s.name)
		}
	}
	if len(near) == 0 {
		near = c.SuggestionsFor(name)
	}
	if len(near) > 0 {
		text += "; perhaps you mean " + strings.Join(near, " or ")
	}
	return text
}

// updateConfig sends a change and says what came of it.
func (o *options) updateConfig(c *cobra.Command, u api.ConfigUpdate) error {
	var answer *api.ConfigUpdated
	err := o.with(c.Context(), need{scope: api.ScopeSystemConfig}, func(m *hem.Client) (err error) {
		answer, err = m.UpdateConfig(c.Context(), u)
		return err
	})
	if err != nil {
		return err
	}
	if answer.RebootRequired {
		o.note("some settings take effect after a reboot; run: hem reboot")
	}
	if o.json {
		return printJSON(o.t.out, answer)
	}
	if !answer.Updated {
		o.note("nothing has changed: it was so already")
	}
	return nil
}
