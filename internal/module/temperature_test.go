package module

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"softhem/api"
	"softhem/internal/audit"
)

// T82: a host that stays too hot stops the module within 30 s, until a reboot finds
// it cooler; one reading alone, or a host without a sensor, does not.
func TestThreat_T82_AHotHostStopsTheModule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var celsius atomic.Int64
		celsius.Store(maxCelsius)
		m := open(t, func(c *Config) {
			c.Temperature = func() (int, bool) { return int(celsius.Load()), celsius.Load() != 0 }
		})
		token := personalise(t, m, api.ScopeSystemConfig)
		shown := func() int {
			p, err := m.Enter(t.Context(), OpStatus, Caller{})
			if err != nil {
				t.Fatal(err)
			}
			return m.Status(p).Temp
		}
		pass(10*healthPeriod + time.Second)
		if fls := m.FailState(); fls != 0 || shown() != maxCelsius {
			t.Errorf("fail state %02x at %d degrees", fls, shown())
		}
		celsius.Store(maxCelsius + 1) // a peak
		pass(healthPeriod)
		celsius.Store(40)
		pass(2 * healthPeriod)
		celsius.Store(0) // none
		pass(2 * healthPeriod)
		if fls := m.FailState(); fls != 0 || shown() != 0 {
			t.Errorf("fail state %02x after a peak, %d degrees", fls, shown())
		}
		celsius.Store(maxCelsius + 1)
		pass(30 * time.Second)
		if fls := m.FailState(); fls != 0x04 || shown() != maxCelsius+1 {
			t.Errorf("fail state %02x at %d degrees, want 04", fls, shown())
		}
		celsius.Store(40)
		pass(5 * healthPeriod)
		if fls := m.FailState(); fls != 0x04 {
			t.Errorf("fail state %02x: it was not latched", fls)
		}
		if _, err := m.Enter(t.Context(), OpChallenge, Caller{TLS: true}); !errors.Is(err, api.ErrConflict) {
			t.Errorf("a challenge: %v, want a 409", err)
		}
		want := "1||" + base64.RawURLEncoding.EncodeToString([]byte("temperature"))
		if got := recordsOf(t, m, audit.NonSecureState); len(got) != 1 || got[0] != want {
			t.Errorf("records %q, want %q", got, want)
		}
		if err := m.Reboot(t.Context(), enter(t, m, OpReboot, token)); err != nil {
			t.Fatal(err)
		}
		pass(5 * healthPeriod)
		if fls := m.FailState(); fls != 0 {
			t.Errorf("fail state %02x after the reboot", fls)
		}
	})
}

// Of a host's zones the hottest counts, and none that cannot be.
func TestHottestZone(t *testing.T) {
	dir := t.TempDir()
	if _, ok := hottestZone(dir); ok {
		t.Error("a sensor in an empty folder")
	}
	zone := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "temp"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, broken := range []string{"", "warm\n", "-274000\n", "655350\n", "151000", "-41000"} {
		zone("thermal_zone1"+string(rune('0'+i)), broken)
	}
	zone("cooling_device0", "90000\n")
	if err := os.MkdirAll(filepath.Join(dir, "thermal_zone2", "temp"), 0o700); err != nil {
		t.Fatal(err)
	}
	if c, ok := hottestZone(dir); ok {
		t.Errorf("%d degrees of sensors that are broken", c)
	}
	for _, z := range []struct {
		name, text string
		want       int
	}{{"thermal_zone0", "-12500\n", -12}, {"thermal_zone7", "47900\n", 47}, {"thermal_zone8", "27800\n", 47}, {"thermal_zone9", "99000", 99}} {
		zone(z.name, z.text)
		if c, ok := hottestZone(dir); !ok || c != z.want {
			t.Errorf("with %s at %q: %d, %v", z.name, z.text, c, ok)
		}
	}
}
