package server_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkWaiting has ten thousand right logins wait in the damping at once:
// all of them are answered, and the module's memory is told.
func BenchmarkWaiting(b *testing.B) {
	const logins = 10_000
	for _, c := range []struct {
		name  string
		limit int // MiB resident
		send  func(b *testing.B, g *target, answers [][]byte) (wait func() int)
	}{
		{"http2", 250, sendHTTP2},
		{"connections", 600, sendConnections},
	} {
		b.Run(c.name, func(b *testing.B) {
			g := personalised(b, envServe+"_DAMPING=45s")
			idle := g.process.resident(b)
			answers := g.answers(b, logins)
			for b.Loop() {
				wait := c.send(b, g, answers)
				peak := 0
				done := make(chan int)
				go func() { done <- wait() }()
				for good := -1; good < 0; {
					select {
					case good = <-done:
						if good != logins {
							b.Errorf("%d of %d logins got a token", good, logins)
						}
					case <-time.After(100 * time.Millisecond):
						peak = max(peak, g.process.resident(b))
					}
				}
				b.ReportMetric(float64(peak), "MiB")
				b.ReportMetric(float64(idle), "MiB-before")
				if peak > c.limit {
					b.Errorf("%d MiB resident, at most %d", peak, c.limit)
				}
			}
		})
	}
}

// resident is the memory of the process in MiB.
func (p *process) resident(t testing.TB) int {
	t.Helper()
	return p.memory(t, "VmRSS:")
}

// memory is a figure of /proc/PID/status, in MiB.
func (p *process) memory(t testing.TB, field string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Skip("resident memory is read from /proc")
	}
	_, rest, _ := strings.Cut(string(status), field)
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib >> 10
}

func sendHTTP2(b *testing.B, g *target, answers [][]byte) func() int {
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: g.roots, ServerName: "localhost"}, ForceAttemptHTTP2: true,
	}
	client := &http.Client{Transport: transport}
	// The first request opens the connection that the others then share;
	// without it each would open one of its own.
	resp, err := client.Get("https://" + g.process.ready["https"] + "/api/system/status")
	if err != nil {
		b.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	var good atomic.Int64
	var wg sync.WaitGroup
	for _, answer := range answers {
		_, body, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
		wg.Go(func() {
			resp, err := client.Post("https://"+g.process.ready["https"]+"/api/auth/token", "application/json", bytes.NewReader(body))
			if err != nil {
				b.Log(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK && resp.ProtoMajor == 2 {
				good.Add(1)
			}
		})
	}
	return func() int {
		wg.Wait()
		transport.CloseIdleConnections()
		return int(good.Load())
	}
}

func sendConnections(b *testing.B, g *target, answers [][]byte) func() int {
	var good atomic.Int64
	var wg sync.WaitGroup
	dialling := make(chan struct{}, 32) // handshakes at once
	for _, answer := range answers {
		wg.Go(func() {
			dialling <- struct{}{}
			c := g.dial(b)
			<-dialling
			if _, err := c.Do(answer); err != nil {
				b.Log(err)
				return
			}
			good.Add(1)
		})
	}
	return func() int {
		wg.Wait()
		return int(good.Load())
	}
}

// BenchmarkStart is the time from the start of the process to its ready line,
// on a data folder that is there already, and its memory when idle.
func BenchmarkStart(b *testing.B) {
	dir := b.TempDir() + "/data"
	startProcess(b, dir).kill()
	var took []time.Duration
	rss := 0
	for b.Loop() {
		p := startProcess(b, dir)
		took = append(took, p.took)
		time.Sleep(200 * time.Millisecond)
		rss = max(rss, p.resident(b))
		p.kill()
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2])/1e6, "ready-ms")
	b.ReportMetric(float64(took[len(took)-1])/1e6, "ready-max-ms")
	b.ReportMetric(float64(rss), "MiB-idle")
}
