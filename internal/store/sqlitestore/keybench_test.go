package sqlitestore

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"softhem/internal/store"
)

// benchKey is key n of the benchmarks: a row of about 200 bytes. Nine of ten
// have a descr, "<group>/<serial>/<host>", where each group and each host has
// about a thousand keys.
func benchKey(n int) store.Key {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	k := store.Key{
		Type: "ATT,PKEY,ExDSA,ED25519", Created: 1_700_000_000 + int64(n), Updated: 1_700_000_000 + int64(n),
		Label: fmt.Sprint("key ", n), Sealed: make([]byte, store.SealedKeyBytes),
	}
	fill := func(b []byte) []byte {
		for i := 0; i+8 <= len(b); i += 8 {
			binary.LittleEndian.PutUint64(b[i:], r.Uint64())
		}
		return b
	}
	fill(k.KID[:])
	fill(k.Sealed)
	if n%4 == 0 {
		k.Type, k.Fingerprint = "ATT,AES256", fill(make([]byte, fingerprintBytes))
	} else {
		k.Public = fill(make([]byte, 32))
	}
	if n%10 != 0 {
		k.Descr = fmt.Appendf(nil, "group-%03d/%07d/host-%03d", benchGroup(n), n, benchHost(n))
	}
	return k
}

func benchGroup(n int) int { return n * 7919 % 900 }
func benchHost(n int) int  { return n * 104729 / 900 % 900 }

// BenchmarkKeys measures with a million keys, which it first inserts, for a
// minute or two; -short: with twenty thousand.
func BenchmarkKeys(b *testing.B) {
	keys := 1_000_000
	if testing.Short() {
		keys = 20_000
	}
	path, ctx := newPath(b), context.Background()
	s := open(b, path)
	start := time.Now()
	for n := 0; n < keys; {
		if err := s.Update(ctx, func(tx store.Tx) error {
			for end := min(keys, n+10_000); n < end; n++ {
				if err := tx.InsertKey(ctx, benchKey(n)); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	filled := time.Since(start)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			s, err := Open(ctx, Config{Path: path})
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			s.Close()
			b.StartTimer()
		}
	})
	s = open(b, path)
	benchLists(b, s, keys)
	benchSearches(b, s, keys)
	b.Run("get", func(b *testing.B) {
		measure(b, func(n int) error {
			kid := benchKey(n * 7919 % keys).KID
			return s.View(ctx, func(r store.Reader) error {
				_, err := r.GetKey(ctx, kid)
				return err
			})
		})
	})
	next := keys
	for _, batch := range []int{1, 30} {
		// As the audit log commits changes that wait at the same time.
		b.Run(fmt.Sprint("insert/batch=", batch), func(b *testing.B) {
			measure(b, func(int) error {
				return s.Update(ctx, func(tx store.Tx) error {
					for range batch {
						if err := tx.Attempt(ctx, func() error { return tx.InsertKey(ctx, benchKey(next)) }); err != nil {
							return err
						}
						next++
					}
					return tx.SetLogTail(ctx, store.LogTail{File: "log", Offset: int64(next), Lines: make([]byte, batch*300)})
				})
			})
		})
	}
	var gone atomic.Int64
	b.Run("delete/at_once=64", func(b *testing.B) {
		b.SetParallelism(64 / runtime.GOMAXPROCS(0))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				kid := benchKey(int(gone.Add(1))).KID
				if err := s.Update(ctx, func(tx store.Tx) error { return tx.DeleteKey(ctx, kid) }); err != nil {
					b.Error(err)
				}
				if err := s.Scrub(ctx); err != nil {
					b.Error(err)
				}
			}
		})
	})
	b.Run("size", func(b *testing.B) {
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(info.Size()>>20), "MiB-on-disk")
		b.ReportMetric(filled.Seconds(), "s-to-fill")
		b.ReportMetric(0, "ns/op")
		status, err := os.ReadFile("/proc/self/status")
		if err != nil { // not Linux
			return
		}
		if _, rest, ok := strings.Cut(string(status), "VmHWM:"); ok {
			var kib float64
			fmt.Sscan(rest, &kib)
			b.ReportMetric(kib/1024, "MiB-peak")
		}
	})
}

func benchLists(b *testing.B, s *Store, keys int) {
	for _, m := range []struct {
		name   string
		offset func(n int) int
	}{
		{"start", func(int) int { return 0 }},
		{"end", func(int) int { return keys - 15 }},
		{"anywhere", func(n int) int { return n * 7919 % (keys - 15) }},
	} {
		b.Run("list/"+m.name, func(b *testing.B) {
			measurePages(b, s, full, func(n int, r store.Reader) (store.KeyPage, error) {
				return r.ListKeys(b.Context(), int64(m.offset(n)), 15)
			})
		})
	}
}

func benchSearches(b *testing.B, s *Store, keys int) {
	thousandth := func(total, listed int64) bool {
		return total > int64(keys)/1200 && total <= int64(keys)/850+1 && listed == min(15, total)
	}
	one := func(total, listed int64) bool { return total == 1 && listed == 1 }
	none := func(total, listed int64) bool { return total == 0 && listed == 0 }
	for _, m := range []struct {
		name   string
		want   func(total, listed int64) bool
		needle func(n int) string // n: any key that has a descr
	}{
		{"prefix/hits=1000", thousandth, func(n int) string { return fmt.Sprintf("^group-%03d", benchGroup(n)) }},
		{"suffix/hits=1000", thousandth, func(n int) string { return fmt.Sprintf("host-%03d$", benchHost(n)) }},
		{"prefix/hits=1", one, func(n int) string { return fmt.Sprintf("^group-%03d/%07d", benchGroup(n), n) }},
		{"suffix/hits=1", one, func(n int) string { return fmt.Sprintf("%07d/host-%03d$", n, benchHost(n)) }},
		{"exact/hits=1", one, func(n int) string { return "^" + string(benchKey(n).Descr) + "$" }},
		{"prefix/hits=all", full, func(int) string { return "^group-" }},
		{"within/hits=0", none, func(int) string { return "nowhere" }},
		{"within/hits=1", one, func(n int) string { return fmt.Sprintf("/%07d/", n) }},
		{"within/hits=1000", thousandth, func(n int) string { return fmt.Sprintf("roup-%03d/", benchGroup(n)) }},
		{"within/hits=all", full, func(int) string { return "/" }},
	} {
		b.Run("search/"+m.name, func(b *testing.B) {
			measurePages(b, s, m.want, func(n int, r store.Reader) (store.KeyPage, error) {
				text := m.needle(n*7919%keys/10*10 + 1)
				needle := store.Needle{Start: text[0] == '^', End: text[len(text)-1] == '$'}
				needle.Bytes = []byte(strings.TrimSuffix(strings.TrimPrefix(text, "^"), "$"))
				return r.SearchKeys(b.Context(), needle, 0, 15)
			})
		})
	}
}

func full(total, listed int64) bool { return total > 0 && listed == min(total, 15) }

// measurePages measures views that read a page, which must be as wanted.
func measurePages(b *testing.B, s *Store, want func(total, listed int64) bool, read func(n int, r store.Reader) (store.KeyPage, error)) {
	measure(b, func(n int) error {
		return s.View(context.Background(), func(r store.Reader) error {
			p, err := read(n, r)
			if err == nil && !want(p.Total, int64(len(p.Keys))) {
				err = fmt.Errorf("%d of %d keys", len(p.Keys), p.Total)
			}
			return err
		})
	})
}

// measure runs do in a loop and reports, beside the mean, the 99th percentile
// and the processor time of the whole process.
func measure(b *testing.B, do func(n int) error) {
	b.ReportAllocs()
	var times []time.Duration
	user, system := cpuTime()
	for n := 0; b.Loop(); n++ {
		start := time.Now()
		if err := do(n); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(start))
	}
	user2, system2 := cpuTime()
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64((user2-user).Microseconds())/float64(len(times)), "user-µs/op")
	b.ReportMetric(float64((system2-system).Microseconds())/float64(len(times)), "sys-µs/op")
}
