package module

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The module works up to maxCelsius. Processors run at 100 °C under load and switch
// themselves off some degrees above; what is hotter computes on luck. Two
// readings a health period apart have to be above it: sensors err, and a peak
// passes.
const maxCelsius = 105

// What a sensor says outside of this is no temperature of a running computer:
// broken ones and absent ones read as absolute zero or hundreds of degrees.
const (
	coldestCelsius = -40
	hottestCelsius = 150
)

// thermometer reads the host's sensors, for the status at most every few seconds:
// anybody may ask for that.
type thermometer struct {
	sense func() (celsius int, ok bool) // ok: there is a sensor

	mu    sync.Mutex
	read  time.Time
	value int
	hot   bool // the last health test was above maxCelsius
}

const thermometerAge = 5 * time.Second

// celsius is the temperature in whole degrees, or 0 where the host has no sensor
// (virtual machines, mostly).
func (t *thermometer) celsius() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.read.IsZero() || time.Since(t.read) >= thermometerAge {
		t.take()
	}
	return t.value
}

// tooHot is a health test. It tells what it measured, and whether that is too much
// for the second time in a row.
func (t *thermometer) tooHot() (celsius int, fails bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.hot
	t.take()
	t.hot = t.value > maxCelsius
	return t.value, before && t.hot
}

// take wants t.mu held.
func (t *thermometer) take() {
	t.read, t.value = time.Now(), 0
	if v, ok := t.sense(); ok {
		t.value = v
	}
}

// hostTemperature is the hottest thermal zone of the host.
func hostTemperature() (celsius int, ok bool) { return hottestZone("/sys/class/thermal") }

// hottestZone reads the files thermal_zone*/temp of a folder, in thousandths of a
// degree.
func hottestZone(dir string) (celsius int, ok bool) {
	zones, _ := filepath.Glob(filepath.Join(dir, "thermal_zone*", "temp"))
	for _, zone := range zones {
		raw, err := os.ReadFile(zone)
		if err != nil {
			continue
		}
		milli, err := strconv.Atoi(strings.TrimSpace(string(raw)))
		if v := milli / 1000; err == nil && v >= coldestCelsius && v <= hottestCelsius && (!ok || v > celsius) {
			celsius, ok = v, true
		}
	}
	return celsius, ok
}
