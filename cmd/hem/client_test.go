package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Every command says what it is for and shows how it is used.
func TestEveryCommandIsExplained(t *testing.T) {
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Name() == "completion" || c.Name() == "help" || c.Hidden {
			return // cobra's own, and what only this program calls
		}
		if c.Short == "" || c.Long == "" || c.Example == "" {
			t.Errorf("%s lacks a description or an example", c.CommandPath())
		}
		if !strings.Contains(c.Example, "hem") {
			t.Errorf("the example of %s is none", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRootCmd(terminal{in: strings.NewReader(""), out: &bytes.Buffer{}, err: &bytes.Buffer{}, env: noEnv}))
}

// The examples must at least parse; they are what people paste.
func TestExamplesParse(t *testing.T) {
	var examples []string
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Name() != "completion" && c.Name() != "help" && c.Name() != "serve" {
			examples = append(examples, strings.Split(c.Example, "\n")...)
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	quiet := terminal{in: strings.NewReader(""), out: &bytes.Buffer{}, err: &bytes.Buffer{}, env: noEnv}
	visit(newRootCmd(quiet))
	for _, example := range examples {
		if example == "" {
			continue
		}
		for _, command := range strings.Split(example, "|") {
			words := strings.Fields(command)
			for len(words) > 0 && strings.Contains(words[0], "=") {
				words = words[1:]
			}
			for i, w := range words {
				if w == "<" || w == ">" {
					words = words[:i]
					break
				}
			}
			if len(words) == 0 || words[0] != "hem" {
				t.Errorf("%q does not call hem", example)
				continue
			}
			root := newRootCmd(quiet)
			c, args, err := root.Find(words[1:])
			if err == nil {
				c.InitDefaultVersionFlag()
				err = c.ParseFlags(args)
			}
			if err == nil {
				err = c.ValidateArgs(c.Flags().Args())
			}
			if err != nil {
				t.Errorf("%q: %v", example, err)
			}
		}
	}
}

func noEnv(string) (string, bool) { return "", false }

func TestSpan(t *testing.T) {
	for seconds, want := range map[int64]string{
		0: "0 s", 59: "59 s", 60: "1 min", 61: "1 min 1 s", 3599: "59 min 59 s", 8 * 3600: "8 h",
		86_400 + 3600: "1 d 1 h", 365 * 86_400: "1 y", 366 * 86_400: "1 y 1 d",
	} {
		if got := span(seconds); got != want {
			t.Errorf("span(%d) = %q, want %q", seconds, got, want)
		}
	}
}

// What a scope opens is decided by its beginning.
func TestScopeInWords(t *testing.T) {
	for _, s := range scopesInWords() {
		want := s.words
		if strings.HasSuffix(s.scope, ":") {
			want = ""
		}
		if got := scopeInWords(s.scope); got != want {
			t.Errorf("%q opens %q, want %q", s.scope, got, want)
		}
	}
	for scope, want := range map[string]bool{
		"": false, "keymgmt": false, "nothing:at:all": false,
		"logger:get#7": true, "keymgmt:use:0382e3eab596598b1f3582ef90b61a0e": true, "storage:disk0:rw": true,
	} {
		if got := scopeInWords(scope) != ""; got != want {
			t.Errorf("%q is known: %v, want %v", scope, got, want)
		}
	}
}

// The API's document has the same words.
func TestScopesAreDocumented(t *testing.T) {
	raw, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, doc, found := strings.Cut(string(raw), "| scope | in words |\n| --- | --- |\n")
	if !found {
		t.Fatal("docs/api.md has no table of scopes")
	}
	doc, _, _ = strings.Cut(doc, "\n\n")
	rows := strings.Split(strings.TrimSpace(doc), "\n")
	all := scopesInWords()
	if len(rows) != len(all) {
		t.Errorf("docs/api.md has %d scopes, want %d", len(rows), len(all))
	}
	for i, s := range all[:min(len(all), len(rows))] {
		scope, words, _ := strings.Cut(strings.Trim(rows[i], "| "), " | ")
		scope = strings.Trim(scope, "`")
		complete := !strings.HasSuffix(s.scope, ":")
		if words != s.words || !strings.HasPrefix(scope, s.scope) || complete && scope != s.scope {
			t.Errorf("docs/api.md has %q for %q: %q", rows[i], s.scope, s.words)
		}
	}
}

// Reading is bounded, and leaves nothing behind when it fails.
func TestReadSecret(t *testing.T) {
	long := strings.NewReader(strings.Repeat("x", maxSecretBytes+1))
	if _, err := readSecret(long); err == nil {
		t.Error("an endless secret is taken")
	}
	fits := strings.NewReader(strings.Repeat("x", maxSecretBytes))
	if got, err := readSecret(fits); err != nil || len(got) != maxSecretBytes {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for in, want := range map[string]string{"": "", "\n": "", "a": "a", "a\n": "a", "a\r\n": "a", "a\n\n": "a\n", "a\r": "a\r", " a ": " a "} {
		got, err := readSecret(strings.NewReader(in))
		if err != nil || string(trimNewline(got)) != want {
			t.Errorf("%q is read as %q, %v", in, got, err)
		}
	}
}

// run is the whole program; nothing in it reaches for the process's own streams.
func TestRunIsSelfContained(t *testing.T) {
	var out, errs bytes.Buffer
	env := map[string]string{"HEM_URL": "https://127.0.0.1:1"}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	code := run(context.Background(), terminal{in: strings.NewReader(""), out: &out, err: &errs, env: lookup}, []string{"status"})
	if code != exitUnreachable || out.Len() > 0 || !strings.HasPrefix(errs.String(), "hem: could not read the status: https://127.0.0.1:1 ") {
		t.Errorf("exit %d, %q, %q", code, &out, &errs)
	}
}
