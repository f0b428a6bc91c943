package server_test

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/control"
	"softhem/internal/server"
)

const manyKeys = 100_000

// BenchmarkKeeping is what keeping a module with 100 000 keys costs: the time of
// a backup, of trying it out and of a new root key; and how long a client that signs
// without a pause waits meanwhile, beside the same in quiet. Filling the folder
// comes first.
func BenchmarkKeeping(b *testing.B) {
	ctx := context.Background()
	dir := filepath.Join(b.TempDir(), "data")
	g := personalisedIn(b, dir)
	user, _ := loadKeys(b)
	client := newClient(b, g.process, user)
	kid, err := client.CreateKey(ctx, hem.KeySpec{Label: "signer", Type: api.Ed25519})
	if err != nil {
		b.Fatal(err)
	}
	g.process.kill()
	if err := server.FillKeys(dir, manyKeys); err != nil {
		b.Fatal(err)
	}
	p := startProcess(b, dir)
	client = newClient(b, p, user)
	k, err := control.Dial(ctx, dir)
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	var archive bytes.Buffer
	if err := k.Backup(ctx, &archive); err != nil {
		b.Fatal(err)
	}
	for _, m := range []struct {
		name string
		do   func() error
	}{
		{"quiet", func() error { time.Sleep(time.Second); return nil }},
		{"backup", func() error { return k.Backup(ctx, io.Discard) }},
		{"check", func() error { _, err := k.Check(ctx, bytes.NewReader(archive.Bytes())); return err }},
		{"rekey", func() error { _, err := k.Rekey(ctx, control.RekeyRequest{}); return err }},
	} {
		b.Run(m.name, func(b *testing.B) {
			stop := make(chan struct{})
			var waits []time.Duration
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					start := time.Now()
					if _, err := client.Sign(ctx, kid, []byte("m"), api.AlgEd25519, nil); err != nil {
						b.Error(err)
						return
					}
					waits = append(waits, time.Since(start))
				}
			})
			for b.Loop() {
				if err := m.do(); err != nil {
					b.Fatal(err)
				}
			}
			close(stop)
			wg.Wait()
			slices.Sort(waits)
			b.ReportMetric(float64(waits[len(waits)/2])/1e6, "ms-sign-p50")
			b.ReportMetric(float64(waits[len(waits)*99/100])/1e6, "ms-sign-p99")
			b.ReportMetric(float64(waits[len(waits)-1])/1e6, "ms-sign-max")
			if m.name == "backup" {
				b.SetBytes(int64(archive.Len()))
			}
		})
	}
}
