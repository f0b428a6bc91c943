package audit

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"softhem/internal/store"
)

// parallel runs b.N operations on n goroutines.
func parallel(b *testing.B, n int, op func(i int64) error) {
	b.ReportAllocs()
	b.ResetTimer()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := op(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

// BenchmarkCeiling is what the disk allows one who waits alone: 100 bytes and
// an fdatasync, into zeros.
func BenchmarkCeiling(b *testing.B) {
	dir := diskFolder{dir: b.TempDir()}
	f, err := dir.create("x")
	must(b, err)
	defer f.Close()
	_, err = fill(f, 0, chunkSize)
	must(b, err)
	must(b, f.Sync())
	line := make([]byte, 100)
	for i := range line {
		line[i] = 'x'
	}
	parallel(b, 1, func(i int64) error {
		if _, err := f.WriteAt(line, i*100%(chunkSize-100)); err != nil {
			return err
		}
		return f.Sync()
	})
}

func BenchmarkAppend(b *testing.B) {
	kid := make([]byte, 16)
	for _, d := range []Durability{Strict, Relaxed} {
		for _, n := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("%s/%d", [...]string{"strict", "relaxed"}[d], n), func(b *testing.B) {
				cfg := config(openStore(b, ""), b.TempDir())
				cfg.Durability = d
				l := openLog(b, cfg)
				must(b, l.StartBoot(b.Context()))
				parallel(b, n, func(int64) error {
					return l.Append(context.Background(), Record{Type: CryptoEXDSASign, Who: "U", Arg: kid})
				})
			})
		}
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 64} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := b.TempDir()
			l := openLog(b, config(openStore(b, filepath.Join(dir, "store.db")), filepath.Join(dir, "log")))
			must(b, l.StartBoot(b.Context()))
			parallel(b, n, func(i int64) error {
				return l.Commit(context.Background(), func(ctx context.Context, tx store.Tx) ([]Record, error) {
					return []Record{{Type: KeyImport, Who: "U"}}, tx.Put(ctx, "key", fmt.Sprint(i), make([]byte, 200))
				})
			})
		})
	}
}

// BenchmarkPreallocation compares the ways to take room ahead; see chunkSize.
func BenchmarkPreallocation(b *testing.B) {
	line := []byte(fmt.Sprintf("%0100d", 1))
	for _, way := range []string{"none", "zeros"} {
		b.Run(way, func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "x"))
			must(b, err)
			defer f.Close()
			if way == "zeros" {
				_, err := fill(diskFile{f}, 0, int64(b.N)*100)
				must(b, err)
			}
			must(b, f.Sync())
			parallel(b, 1, func(i int64) error {
				if _, err := f.WriteAt(line, (i-1)*100); err != nil {
					return err
				}
				return datasync(f)
			})
		})
	}
}
