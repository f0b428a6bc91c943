package server_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"softhem/internal/server"
)

// A module whose log was cut while it was down serves, and says so to the
// operator and the monitor, until it is started again.
func TestCutLogIsTold(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	cfg := testConfig(dir)
	cfg.MetricsAddr = "127.0.0.1:0"
	var operator bytes.Buffer
	cfg.Logger = slog.New(slog.NewTextHandler(&operator, nil))
	// run starts, asks and stops the module, and returns the metric and what the
	// operator was told.
	run := func() (metric string, told bool) {
		t.Helper()
		operator.Reset()
		s, err := server.Start(context.Background(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		told = strings.Contains(operator.String(), "THE AUDIT LOG IS NOT THE ONE THIS MODULE KEPT")
		if err := s.Module().Ready(); err != nil {
			t.Errorf("not ready: %v", err)
		}
		resp, err := http.Get("http://" + s.Addresses().Metrics + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(body)) {
			if value, ok := strings.CutPrefix(line, "softhem_log_rolled_back "); ok {
				metric = strings.TrimSpace(value)
			}
		}
		if err := s.Stop(context.Background()); err != nil {
			t.Fatal(err)
		}
		return metric, told
	}
	expect := func(when string, wantMetric string, wantTold bool) {
		t.Helper()
		if metric, told := run(); metric != wantMetric || told != wantTold {
			t.Errorf("%s: metric %q, told %v", when, metric, told)
		}
	}
	expect("at first", "0", false)
	expect("after a restart", "0", false)
	files, err := filepath.Glob(filepath.Join(dir, "audit", "????????"))
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	log, err := os.ReadFile(files[1])
	if err != nil {
		t.Fatal(err)
	}
	cut := bytes.LastIndexByte(log[:len(log)-1], '\n') + 1
	if err := os.WriteFile(files[1], log[:cut], 0o600); err != nil {
		t.Fatal(err)
	}
	expect("after the cut", "1", true)
	expect("after that", "0", false)
}
