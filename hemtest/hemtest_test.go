package hemtest_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
)

func TestNilOptionsAreEnough(t *testing.T) {
	m := hemtest.New(t, nil)
	config, err := m.Client().Config(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if config.User != m.User || config.EID != m.EID {
		t.Errorf("config %+v of module %+v", config, m)
	}
	resp, err := m.HTTPClient().Get(m.URL + "/api/system/status")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.TLS == nil {
		t.Errorf("status %d over %v", resp.StatusCode, resp.TLS)
	}
	if !strings.HasPrefix(m.URL, "https://127.0.0.1:") || !strings.HasPrefix(m.HTTPURL, "http://127.0.0.1:") {
		t.Errorf("a test module listens at %s, %s", m.URL, m.HTTPURL)
	}
}

// A client under test derives the keys itself, from the passphrases.
func TestPassphrasesAreReal(t *testing.T) {
	m := hemtest.New(t, &hemtest.Options{UserPassphrase: "correct horse", MasterPassphrase: "battery staple"})
	for role, passphrase := range map[api.Role]string{api.RoleUser: m.UserPassphrase, api.RoleMaster: m.MasterPassphrase} {
		client, err := hem.New(hem.Config{URL: m.URL, CACert: m.CACert, Role: role,
			Passphrase: func(context.Context, api.Role) ([]byte, error) { return []byte(passphrase), nil }})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		token, err := client.Login(context.Background(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if claims, err := hem.InspectToken(string(token.Bearer)); err != nil || claims.Sub != role {
			t.Errorf("token of %s: %+v, %v", role, claims, err)
		}
	}
}

func TestSameSeedSameIdentity(t *testing.T) {
	a, b := hemtest.New(t, &hemtest.Options{Seed: "one"}), hemtest.New(t, &hemtest.Options{Seed: "one"})
	other := hemtest.New(t, &hemtest.Options{Seed: "two"})
	if a.EID != b.EID || a.EID == other.EID {
		t.Errorf("eids %s %s, other %s", a.EID, b.EID, other.EID)
	}
	config := func(m *hemtest.Module) *api.Config {
		c, err := m.Client().Config(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if x, y := config(a), config(b); x.EIDSign != y.EIDSign || x.GenuineID != y.GenuineID || x.DevID != y.DevID {
		t.Errorf("one seed gave %+v and %+v", x, y)
	}
}

func TestOptions(t *testing.T) {
	ctx := context.Background()
	t.Run("fresh", func(t *testing.T) {
		m := hemtest.New(t, &hemtest.Options{Fresh: true})
		if _, err := m.Client().Config(ctx); !errors.Is(err, api.ErrConflict) {
			t.Errorf("config of a fresh module: %v", err)
		}
		if _, err := m.Personalise(); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Client().Config(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Run("clock", func(t *testing.T) {
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		m := hemtest.New(t, &hemtest.Options{Clock: func() time.Time { return now }})
		status, err := m.Client().Status(ctx)
		if err != nil || *status.Time != now.Unix() {
			t.Errorf("time %v, %v", status.Time, err)
		}
	})
	t.Run("profile", func(t *testing.T) {
		v, err := hemtest.New(t, &hemtest.Options{Profile: "EPA"}).Client().Version(ctx)
		if err != nil || !strings.Contains(v.HWV, "EPA") {
			t.Errorf("version %+v, %v", v, err)
		}
	})
	t.Run("damping", func(t *testing.T) {
		for damping, want := range map[bool]time.Duration{false: 0, true: 500 * time.Millisecond} {
			m := hemtest.New(t, &hemtest.Options{Damping: damping})
			start := time.Now()
			if _, err := m.Client().Login(ctx, "x"); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took < want || took > want+480*time.Millisecond {
				t.Errorf("damping %v: a login took %v", damping, took)
			}
		}
	})
	t.Run("data folder", func(t *testing.T) {
		opts := &hemtest.Options{DataDir: filepath.Join(t.TempDir(), "data")}
		m := hemtest.New(t, opts)
		before, err := m.Client().Config(ctx)
		if err != nil {
			t.Fatal(err)
		}
		m.Close()
		after, err := hemtest.New(t, opts).Client().Config(ctx)
		if err != nil || after.InstanceID != before.InstanceID {
			t.Errorf("a second module on the folder: %+v, %v", after, err)
		}
	})
}

// A program that is no test cannot make one.
func TestRefusesToBeAServer(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(filepath.Dir(wd), "_hemtest-outside-") // inside the module, so that it builds; _ keeps it out of ./...
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	program := `package main

import "softhem/hemtest"

func main() { hemtest.New(nil, nil) }
`
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "run", dir).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "for tests") {
		t.Errorf("a program made a test module: %v\n%s", err, out)
	}
}
