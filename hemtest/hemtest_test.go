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

// After a wipe, and over reboots, the module's clients are those of the module that
// is there.
func TestWipedModulesAreFollowed(t *testing.T) {
	ctx := context.Background()
	for _, opts := range []*hemtest.Options{nil, {DataDir: filepath.Join(t.TempDir(), "data")}} {
		m := hemtest.New(t, opts)
		eid, ca := m.EID, string(m.CACert)
		if err := m.Client().Reboot(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Client().Config(ctx); err != nil {
			t.Fatal(err)
		}
		if m.EID != eid || string(m.CACert) != ca {
			t.Error("a reboot has changed the identity or the CA")
		}
		if err := m.Client().Wipe(ctx); err != nil {
			t.Fatal(err)
		}
		m.Follow()
		onDisk, err := os.ReadFile(m.CAFile)
		if m.EID == eid || string(m.CACert) == ca || err != nil || string(onDisk) != string(m.CACert) {
			t.Errorf("after a wipe: %v, the same identity %v, the same CA %v", err, m.EID == eid, string(m.CACert) == ca)
		}
		if _, err := m.Personalise(); err != nil {
			t.Fatal(err)
		}
		config, err := m.Client().Config(ctx)
		if err != nil || config.EID != m.EID {
			t.Errorf("the fresh module: %+v, %v", config, err)
		}
		resp, err := m.HTTPClient().Get(m.URL + "/api/system/status")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
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
	// The SDK against the faults of a firmware: none of them surprises it.
	t.Run("quirks", func(t *testing.T) {
		c := hemtest.New(t, &hemtest.Options{Quirks: "fw1.2.2"}).Client()
		msg := []byte("message")
		signer, err1 := c.CreateKey(ctx, hem.KeySpec{Label: "signer", Type: api.MLDSA44})
		kem, err2 := c.CreateKey(ctx, hem.KeySpec{Label: "kem", Type: api.MLKEM512})
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		sig, err := c.SignMLDSA(ctx, signer, msg, nil)
		if err != nil || c.VerifyMLDSA(ctx, signer, msg, sig, nil) != nil {
			t.Errorf("a good signature: %v", err)
		}
		if err := c.VerifyMLDSA(ctx, signer, []byte("another"), sig, nil); !errors.Is(err, hem.ErrVerification) {
			t.Errorf("a wrong signature: %v", err)
		}
		secret, ct, err := c.Encapsulate(ctx, kem)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := c.Decapsulate(ctx, kem, ct); err != nil || string(again) != string(secret) {
			t.Errorf("decapsulate: %v", err)
		}
	})
	t.Run("diagnostics", func(t *testing.T) {
		m := hemtest.New(t, &hemtest.Options{Diag: true})
		c := m.Client()
		if v, err := c.Version(ctx); err != nil || !strings.HasSuffix(v.FWV, "-DIAG") {
			t.Errorf("version %+v, %v", v, err)
		}
		resp, err := m.HTTPClient().Get(m.URL + "/api/diag/break_temp")
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		resp.Body.Close()
		if _, err := c.CreateKey(ctx, hem.KeySpec{Label: "x", Type: api.AES128}); !errors.Is(err, api.ErrConflict) {
			t.Errorf("a key of a module in a fail state: %v", err)
		}
		if s, err := c.Status(ctx); err != nil || s.FLSState != 0x04 {
			t.Errorf("status %+v, %v", s, err)
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
