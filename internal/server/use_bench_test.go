package server_test

import (
	"context"
	"fmt"
	"testing"

	"softhem/internal/load"
)

// BenchmarkUse is each operation with a key under load, by turns with the
// ceiling it is held against: a process like the module's own, whose handler
// does the same primitive on the same JSON.
func BenchmarkUse(b *testing.B) {
	for _, durability := range []string{"strict", "relaxed"} {
		g := personalised(b, envRelaxed(durability))
		bare := startTarget(b, "", envBare+"=1")
		user, _ := loadKeys(b)
		for _, c := range load.Cases() {
			request, _, err := c.Prepare(context.Background(), g.load(), newClient(b, g.process, user), nil)
			if err != nil {
				b.Fatal(err)
			}
			for _, n := range []int{8, 64} {
				b.Run(fmt.Sprintf("%s/%s/%d", durability, c.Name, n), func(b *testing.B) {
					conns, bareConns := dialAll(b, g, n), dialAll(b, bare, n)
					bareRequest, err := c.PrepareBare(bare.load(), bareConns[0])
					if err != nil {
						b.Fatal(err)
					}
					b.ResetTimer()
					r, ceiling, err := load.Compare(b.Context(), n, load.Bound{Count: int64(b.N)},
						load.Sender(conns, request), load.Sender(bareConns, bareRequest))
					b.StopTimer()
					if err != nil {
						b.Fatal(err)
					}
					b.ReportMetric(0, "ns/op") // of both sides together, which says nothing
					b.ReportMetric(r.Rate(), "ops/s")
					b.ReportMetric(float64(r.P99)/1e6, "p99-ms")
					b.ReportMetric(ceiling.Rate(), "bare-ops/s")
					b.ReportMetric(float64(ceiling.P99)/1e6, "bare-p99-ms")
					b.ReportMetric(100*r.Rate()/ceiling.Rate(), "%-of-bare")
				})
			}
		}
	}
}
