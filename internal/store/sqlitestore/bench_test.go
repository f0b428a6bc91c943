package sqlitestore

import (
	"fmt"
	"testing"

	"softhem/internal/store"
)

// A record of a key is about this long, in bytes.
const benchValue = 400

func BenchmarkUpdate(b *testing.B) {
	for _, path := range []string{"file", "memory"} {
		for _, records := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/records=%d", path, records), func(b *testing.B) {
				s, ctx, value := benchStore(b, path), b.Context(), make([]byte, benchValue)
				b.ReportAllocs()
				for n := 0; b.Loop(); n++ {
					if err := s.Update(ctx, func(tx store.Tx) error {
						for i := range records {
							if err := tx.Put(ctx, "k", fmt.Sprint((n*records+i)%100_000), value); err != nil {
								return err
							}
						}
						return nil
					}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkGet(b *testing.B) {
	for _, path := range []string{"file", "memory"} {
		b.Run(path, func(b *testing.B) {
			s, ctx := benchStore(b, path), b.Context()
			const records = 20_000
			if err := s.Update(ctx, func(tx store.Tx) error {
				for n := range records {
					if err := tx.Put(ctx, "k", fmt.Sprint(n), make([]byte, benchValue)); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if err := s.View(ctx, func(r store.Reader) error {
					_, err := r.Get(ctx, "k", fmt.Sprint(n*7919%records))
					return err
				}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchStore(b *testing.B, where string) *Store {
	if where == "memory" {
		return open(b, "")
	}
	return open(b, newPath(b))
}
