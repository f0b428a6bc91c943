package server_test

import (
	"context"
	"fmt"
	"testing"

	"softhem/internal/load"
)

// BenchmarkUse is each operation with a key under load, and in the same run the
// ceiling it is held against.
func BenchmarkUse(b *testing.B) {
	for _, c := range load.Cases() {
		for _, n := range []int{8, 64} {
			b.Run(fmt.Sprintf("%s/%d/bare", c.Name, n), func(b *testing.B) {
				g := startTarget(b, "", envBare+"=1")
				conns := dialAll(b, g, n)
				request, err := c.PrepareBare(g.load(), conns[0])
				if err != nil {
					b.Fatal(err)
				}
				run(b, n, func(w int, _ int64) error {
					_, err := conns[w].Do(request)
					return err
				})
			})
			for _, durability := range []string{"strict", "relaxed"} {
				b.Run(fmt.Sprintf("%s/%d/%s", c.Name, n, durability), func(b *testing.B) {
					g := personalised(b, envRelaxed(durability))
					user, _ := loadKeys(b)
					request, _, err := c.Prepare(context.Background(), g.load(), newClient(b, g.process, user), nil)
					if err != nil {
						b.Fatal(err)
					}
					conns := dialAll(b, g, n)
					run(b, n, func(w int, _ int64) error {
						_, err := conns[w].Do(request)
						return err
					})
				})
			}
		}
	}
}
