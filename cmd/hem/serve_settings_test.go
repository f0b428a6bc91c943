package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"softhem/internal/audit"
	"softhem/internal/module"
)

// configured brings settings together as hem serve does. In args and env,
// CONFIG stands for a file with the given content.
func configured(t *testing.T, args []string, env map[string]string, file string) (*serveOptions, *settings, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "serve.toml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	lookup := func(name string) (string, bool) {
		v, ok := env[name]
		if !ok && name == "HOME" {
			return "/home/ada", true
		}
		return strings.ReplaceAll(v, "CONFIG", path), ok
	}
	fs, o := newServeFlags()
	for i, a := range args {
		args[i] = strings.ReplaceAll(a, "CONFIG", path)
	}
	if err := fs.Parse(args); err != nil {
		return o, nil, err
	}
	s := &settings{flags: fs, env: lookup}
	if err := s.apply(); err != nil {
		return o, s, err
	}
	return o, s, o.check(s.source, lookup)
}

type vars = map[string]string

// backend is a usable X25519 key.
const backend = "CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

func TestServeSettingsPrecedence(t *testing.T) {
	const file = `
login-delay = "3s"
login-penalty = "4s"
max-token-ttl = "2h"
http = "off"
memory = true
require-tls-login = false
tls-name = ["file.test", "10.0.0.1"]
behind-proxy = "10.0.0.0/8,192.168.1.1/32"
log-level = "debug"
audit-durability = "relaxed"
`
	o, _, err := configured(t,
		[]string{"--config", "CONFIG", "--login-delay", "1s", "--tls-name", "line.test", "--tls-name", "b.test"},
		vars{"HEM_SERVE_TRUSTED_BACKEND": backend, "HEM_SERVE_LOGIN_DELAY": "2s", "HEM_SERVE_LOGIN_PENALTY": "5s", "HEM_SERVE_TLS_NAME": "env.test", "HEM_SERVE_RTC": "checkin", "HEM_SERVE_PROFILE": ""},
		file)
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		Delay, Penalty, Window, TTL time.Duration
		HTTP, HTTPS                 string
		Memory, RequireTLS          bool
		Names                       []string
		Proxies                     int
		Level                       slog.Level
		Durability                  audit.Durability
		RTC                         module.ClockSource
		Profile                     module.Profile
	}
	got := result{
		o.Damping.Delay, o.Damping.Penalty, o.Damping.Window, o.MaxTokenTTL, o.HTTPAddr, o.HTTPSAddr,
		o.Memory, o.RequireTLSLogin, o.TLSNames, len(o.Proxies), o.logLevel, o.AuditDurability, o.ClockSource, o.Profile,
	}
	want := result{
		time.Second, 5 * time.Second, 15 * time.Second, 2 * time.Hour, "", "127.0.0.1:8443",
		true, false, []string{"line.test", "b.test"}, 2, slog.LevelDebug, audit.Relaxed, module.ClockCheckin, module.PPA,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	o, _, err = configured(t, nil, vars{"HEM_SERVE_CONFIG": "CONFIG", "HEM_SERVE_TLS_NAME": "a.test, b.test"}, `rtc = "checkin"
trusted-backend = ["`+backend+`", "`+strings.TrimSuffix(backend, "=")+`"]`)
	if diff := cmp.Diff([]string{"a.test", "b.test"}, o.TLSNames); err != nil || diff != "" || o.ClockSource != module.ClockCheckin || len(o.TrustedBackends) != 2 {
		t.Error(err, diff, o.TrustedBackends)
	}
	if o.DataDir != "/home/ada/.local/share/softhem" {
		t.Error(o.DataDir)
	}
	here, _ := os.Getwd()
	if o, _, err = configured(t, []string{"--data", "relative"}, nil, ""); err != nil || o.DataDir != filepath.Join(here, "relative") {
		t.Error(o.DataDir, err)
	}
	o, _, err = configured(t, nil, vars{"XDG_DATA_HOME": "/xdg"}, "")
	if err != nil || o.DataDir != "/xdg/softhem" {
		t.Error(o.DataDir, err)
	}
}

// Every setting has its three spellings.
func TestServeSettingsHaveThreeSpellings(t *testing.T) {
	examples := map[string]string{
		"http": "127.0.0.1:1", "https": "off", "tls-name": "x.test", "behind-proxy": "10.0.0.0/8", "rtc": "checkin", "broker": "https://broker.test", "profile": "epa",
		"trusted-backend": strings.Repeat("CQkJ", 10) + "CQk", "upgrade-key": strings.Repeat("CQkJ", 10) + "CQk", "max-token-ttl": "1h", "login-delay": "600ms", "login-penalty": "2s",
		"login-penalty-window": "20s", "audit-durability": "relaxed", "max-keys": "5", "audit-syslog": "tls://log.test:6514", "quirks": "fw1.2.2", "metrics": "127.0.0.1:2", "log-format": "json", "log-level": "warn", "with-broker": "127.0.0.1:3",
	}
	fs, _ := newServeFlags()
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Name == "config" {
			return
		}
		value, ok := examples[f.Name]
		switch {
		case !ok && f.Value.Type() == "bool":
			value = "true"
		case !ok:
			value = "text"
		}
		toml := value
		if f.Value.Type() != "bool" {
			toml = `"` + value + `"`
		}
		var texts []string
		for _, source := range []struct {
			args []string
			env  vars
			file string
		}{
			{args: []string{"--" + f.Name + "=" + value}},
			{env: vars{serveEnvName(f.Name): value}},
			{env: vars{"HEM_SERVE_CONFIG": "CONFIG"}, file: f.Name + " = " + toml},
		} {
			_, s, _ := configured(t, source.args, source.env, source.file) // some contradict the others
			if !s.flags.Lookup(f.Name).Changed {
				t.Errorf("%s is not set by %v", f.Name, source)
			}
			texts = append(texts, s.flags.Lookup(f.Name).Value.String())
		}
		if texts[0] != texts[1] || texts[0] != texts[2] || f.Value.Type() != "bool" && texts[0] == f.DefValue {
			t.Errorf("%s: %q", f.Name, texts)
		}
	})
}

func TestServeSettingsRefused(t *testing.T) {
	for _, tc := range []struct {
		args string
		env  vars
		file string
		want string
	}{
		{"--config CONFIG", nil, "data = \"/x\"\n\nlogin-delya = \"1s\"\n", "serve.toml, line 3: there is no setting login-delya"},
		{"--config CONFIG", nil, "[serve]\ndata = \"/x\"\n", "there is no setting serve"},
		{"--config CONFIG", nil, "config = \"/x\"\n", "there is no setting config"},
		{"--config CONFIG", nil, "brokers = \"https://x\"\n", "there is no setting brokers"},
		{"--config CONFIG", nil, "data = \"/x\"\ndata = \"/y\"\n", "line 2"},
		{"--config CONFIG", nil, "data = /x\n", "line 1"},
		{"--config CONFIG", nil, "login-delay = 500\n", `login-delay in `},
		{"--config CONFIG", nil, "rtc = \"sun\"\n", `serve.toml has a wrong value "sun": want system or checkin`},
		{"--config CONFIG", nil, "rtc = [\"system\"]\nprofile = [\"ppa\", \"epa\"]", "wants one value, not a list"},
		{"--config CONFIG", nil, "data = 2020-01-01\n", "data in "},
		{"--config /nowhere.toml", nil, "", "the configuration file cannot be read"},
		{"", vars{"HEM_SERVE_RTC": "sun"}, "", `the variable HEM_SERVE_RTC has a wrong value "sun"`},
		{"", vars{"HEM_SERVE_MEMORY": "perhaps"}, "", `the variable HEM_SERVE_MEMORY has a wrong value "perhaps"`},
		{"--rtc sun", nil, "", `"--rtc"`},
		{"--http 8080", nil, "", "want host:port, or off"},
		{"--tls-name https://x", nil, "", "want a host name or an address"},
		{"--behind-proxy 10.0.0.1", nil, "", "10.1.2.3/32"},
		{"--trusted-backend AAAA", nil, "", "base64 of 32 bytes"},
		{"--broker x.test", nil, "", "want https://host or http://host"},
		{"--with-broker", nil, "", "--with-broker says something about --dev only"},
		{"--dev --with-broker=8090", nil, "", "want host:port, or off"},
		{"--dev --with-broker --trusted-backend " + backend, nil, "", "--with-broker and --trusted-backend contradict each other"},
		{"--quirks fw9", nil, "", "want off or fw1.2.2"},
		{"--max-keys 0", nil, "", "--max-keys must be at least 1"},
		{"", vars{"HEM_SERVE_DIAG_ALLOW_REMOTE": "true"}, "", "the variable HEM_SERVE_DIAG_ALLOW_REMOTE says something about --diag only"},

		{"--login-delay 499ms", nil, "", "--unsafe-fast-login"},
		{"--login-penalty 1s", nil, "", "--unsafe-fast-login"},
		{"--login-penalty-window 14s", nil, "", "--unsafe-fast-login"},
		{"", vars{"HEM_SERVE_LOGIN_DELAY": "0s"}, "", "the variable HEM_SERVE_LOGIN_DELAY below 500ms makes guessing passphrases faster; for tests and benches, add --unsafe-fast-login"},
		{"--config CONFIG", nil, `login-delay = "0"`, "serve.toml below 500ms makes"},
		{"--config CONFIG", nil, "max-token-ttl = \"0s\"", "serve.toml must be at least 1s"},
		{"--login-delay -1s --unsafe-fast-login", nil, "", "negative"},
		{"--login-delay 2s", nil, "", "shorter than --login-delay"},
		{"--login-penalty 2m", nil, "", "30s at most"},
		{"--max-token-ttl 1ms", nil, "", "at least 1s"},

		{"--dev --data /x", nil, "", "--dev keeps its state in memory"},
		{"--dev", vars{"HEM_SERVE_DATA": "/x"}, "", "leave out the variable HEM_SERVE_DATA, or leave out --dev"},
		{"--rtc checkin", nil, "", "--rtc: the clock is to come from a backend, and none is trusted"},
		{"", vars{"HEM_SERVE_RTC": "checkin"}, "", "the variable HEM_SERVE_RTC: the clock is to come from a backend"},
		{"--config CONFIG", nil, "trusted-backend = []\nrtc = \"checkin\"", "rtc in "},
		{"--data=", nil, "", "--data is empty"},
		{"--root-key=", nil, "", "--root-key is empty"},
		{"--config CONFIG", nil, `root-key = ""`, "serve.toml is empty"},
		{"--dev --tls-cert x --tls-key y", nil, "", "--dev issues its own certificate"},
		{"--dev-user-passphrase x", nil, "", "--dev-user-passphrase says something about --dev only"},
		{"--dev-allow-remote", nil, "", "--dev-allow-remote says something about --dev only"},
		{"--memory --data /x", nil, "", "either in memory or in a folder"},
		{"--memory --root-key /x", nil, "", "--root-key seals what is kept in a folder"},
		{"", vars{"HOME": ""}, "", "name a folder with --data"},
	} {
		t.Run(tc.args+tc.file, func(t *testing.T) {
			_, _, err := configured(t, strings.Fields(tc.args), tc.env, tc.file)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

func TestServeSettingsFastLogin(t *testing.T) {
	o, _, err := configured(t, []string{"--login-delay=0", "--login-penalty=0", "--login-penalty-window=0", "--unsafe-fast-login"}, nil, "")
	if err != nil || o.Damping.Delay != 0 || o.Damping.Penalty != 0 || o.Damping.Window != 0 || o.Damping.Limits {
		t.Errorf("%+v, %v", o.Damping, err)
	}
	o, _, err = configured(t, []string{"--login-delay=1s"}, nil, "")
	if err != nil || o.Damping.Delay != time.Second || !o.Damping.Limits {
		t.Errorf("%+v, %v", o.Damping, err)
	}
}

func TestServeDev(t *testing.T) {
	o, _, err := configured(t, []string{"--dev"}, nil, "")
	if err != nil || !o.LoopbackOnly || !o.Memory || o.DataDir != "" {
		t.Errorf("%+v, %v", o, err)
	}
	o, _, err = configured(t, []string{"--dev", "--rtc", "checkin", "--tls-name", "hem.test", "--https", "127.0.0.9:1"}, nil, "")
	if diff := cmp.Diff([]string{"hem.test", "localhost", "127.0.0.1", "::1", "127.0.0.9"}, o.TLSNames); err != nil || diff != "" {
		t.Error(err, diff)
	}
	o, _, err = configured(t, []string{"--dev", "--dev-allow-remote"}, nil, "")
	if err != nil || o.LoopbackOnly {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestStrayVariables(t *testing.T) {
	fs, _ := newServeFlags()
	s := settings{flags: fs}
	got := s.strayVariables([]string{"HEM_SERVE_RTC=system", "HEM_SERVE_BROKERS=x", "HEM_SERVE_LOGIN_DELYA=1s", "HEM_URL=y"})
	if diff := cmp.Diff([]string{"HEM_SERVE_BROKERS", "HEM_SERVE_LOGIN_DELYA"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{
		"user": "user", "/tmp/a-b/ca.pem": "/tmp/a-b/ca.pem", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$HOME": "'$HOME'",
		"https://[::1]:8443": "'https://[::1]:8443'", "~x": "'~x'", "ü": "'ü'",
	} {
		if got := shellQuote(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
