package server_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"softhem/hem"
)

// A fresh module is killed while it is given the certificate of its attestation key.
// It has none afterwards, and takes one, or it has this one; always that if it had
// said so.
func TestKilledDuringProvisioning(t *testing.T) {
	ctx := context.Background()
	for round := range 8 {
		dir := filepath.Join(t.TempDir(), "data")
		p := startProcess(t, dir)
		client := newClient(t, p, nil)
		before, err := client.Attestation(ctx)
		if err != nil {
			t.Fatal(err)
		}
		g, err := hem.VerifyGenuine(before.Genuine)
		if err != nil {
			t.Fatal(err)
		}
		leaf := g.Certificate.Raw // as good as any: who signed it is not looked at
		said := make(chan error, 1)
		go func() { said <- client.Provision(ctx, before.Genuine, [][]byte{leaf}) }()
		var answer error
		if round%2 == 0 {
			answer = <-said
			p.kill()
		} else {
			time.Sleep(rand.N(4 * time.Millisecond))
			p.kill()
			answer = <-said
		}
		p = startProcess(t, dir)
		client = newClient(t, p, nil)
		after, err := client.Attestation(ctx)
		if err != nil {
			t.Fatal(err)
		}
		now, err := hem.VerifyGenuine(after.Genuine)
		if err != nil || !bytes.Equal(now.SKI, g.SKI) {
			t.Fatalf("another identity: %v", err)
		}
		if answer == nil && after.Crt == "" {
			t.Fatal("what was answered is lost")
		}
		again := client.Provision(ctx, after.Genuine, [][]byte{leaf})
		if (again == nil) == (after.Crt != "") || (after.Crt == "") != (after.CSR != "") {
			t.Errorf("%+v, and then %v", after, again)
		}
		p.kill()
	}
}
