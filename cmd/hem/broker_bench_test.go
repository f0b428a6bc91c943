package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"softhem/internal/load"
)

// BenchmarkPollers has 5000 authenticators wait at a broker that is a process of
// its own, with its database on disk, while requests for approvals come at a
// rate that does not wait for the answers. No request may be lost or shown
// twice; the times are from when a request was due to when its approval was
// with who asked. It stops by itself.
func BenchmarkPollers(b *testing.B) {
	const authenticators, rate, period = 5000, 500, 20 * time.Second
	path := filepath.Join(b.TempDir(), "hem")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	for scheme, limit := range map[string]int{"http": 400, "https": 450} { // MiB
		b.Run(scheme, func(b *testing.B) {
			dir := b.TempDir()
			cert, key := writePair(b, dir, 1)
			args := []string{"broker", "--data", filepath.Join(dir, "broker"), "--http=off", "--rate=0", "--pairing-rate=0"}
			target := load.Target{Host: "localhost"}
			if scheme == "http" {
				args = append(args, "--http=127.0.0.1:0")
			} else {
				args = append(args, "--https=127.0.0.1:0", "--tls-cert", cert, "--tls-key", key)
				target.TLS = &tls.Config{InsecureSkipVerify: true} // what is measured is the broker
			}
			cmd := exec.Command(path, args...)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
			r := startServe(b, cmd)
			target.Addr = r.ready[scheme]
			for b.Loop() {
				p := &load.Pollers{Target: target, N: authenticators, Rate: rate, Time: period}
				start := time.Now()
				if err := p.Prepare(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.Logf("paired and connected in %v", time.Since(start).Round(time.Millisecond))
				before := r.processor(b)
				report, err := p.Run(b.Context())
				p.Close()
				if err != nil {
					b.Fatal(err)
				}
				used := r.processor(b) - before
				if report.Lost+report.Twice+report.Failed > 0 {
					b.Errorf("of %d requests %d were taken, of them %d lost and %d shown twice; %d exchanges failed: %s",
						report.Events, report.Taken, report.Lost, report.Twice, report.Failed, report.FirstError)
				}
				b.ReportMetric(report.Rate, "approvals/s")
				b.ReportMetric(milliseconds(report.Delivered.P50), "p50-ms")
				b.ReportMetric(milliseconds(report.Delivered.P99), "p99-ms")
				b.ReportMetric(milliseconds(report.Delivered.Worst), "worst-ms")
				b.ReportMetric(milliseconds(report.Late.P99), "late-p99-ms")
				b.ReportMetric(float64(report.Dialled), "dialled")
				b.ReportMetric(used.Seconds()/period.Seconds(), "processors")
			}
			peak := r.peak(b)
			b.ReportMetric(float64(peak), "MiB-peak")
			if peak > limit {
				b.Errorf("%d MiB resident at the peak, at most %d", peak, limit)
			}
		})
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// peak is the most memory the process had resident, in MiB.
func (r *running) peak(t testing.TB) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		t.Skip("resident memory is read from /proc")
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib >> 10
}

// processor is the processor time that the process has used.
func (r *running) processor(t testing.TB) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.cmd.Process.Pid))
	if err != nil {
		t.Skip("processor time is read from /proc")
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields, ticks := strings.Fields(rest), 0
	for _, f := range fields[11:13] { // utime and stime, in hundredths of a second
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
