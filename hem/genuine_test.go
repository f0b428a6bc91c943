package hem_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
)

// A client gets a token that verifies, and nothing else does: no part of it can be
// left out, changed or taken from another module's.
func TestVerifyGenuine(t *testing.T) {
	m := hemtest.New(t, nil)
	client := m.Client()
	a, err := client.Attestation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g, err := hem.VerifyGenuine(a.Genuine)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := client.Config(t.Context())
	if err != nil || api.EncodeBase64(g.SKI) != conf.GenuineID {
		t.Errorf("SKI %x, genuine_id %s, %v", g.SKI, conf.GenuineID, err)
	}
	for age, want := range map[time.Duration]bool{0: true, hem.GenuineLife: true, -hem.GenuineLife: true, hem.GenuineLife + time.Second: false, -hem.GenuineLife - time.Second: false, 1<<63 - 1: false} {
		if g.Fresh(g.At.Add(age)) != want {
			t.Errorf("%v after its time: %v", age, !want)
		}
	}
	fresh := hemtest.New(t, &hemtest.Options{Seed: "another", Fresh: true})
	stranger, err := hem.New(hem.Config{URL: fresh.URL, CACert: fresh.CACert})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	b, err := stranger.Attestation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := strings.Split(a.Genuine, "."), strings.Split(b.Genuine, ".")
	for i := range ours {
		mixed := append([]string(nil), ours...)
		mixed[i] = theirs[i]
		if _, err := hem.VerifyGenuine(strings.Join(mixed, ".")); !errors.Is(err, hem.ErrNotGenuine) && mixed[i] != ours[i] {
			t.Errorf("with segment %d of another: %v", i, err)
		}
		raw, err := api.DecodeBase64(ours[i])
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)/2] ^= 1
		mixed[i] = api.EncodeBase64(raw)
		if _, err := hem.VerifyGenuine(strings.Join(mixed, ".")); i < 3 && !errors.Is(err, hem.ErrNotGenuine) {
			t.Errorf("with a bit of segment %d changed: %v", i, err)
		}
		if _, err := hem.VerifyGenuine(strings.Join(append(ours[:i:i], ours[i+1:]...), ".")); !errors.Is(err, hem.ErrNotGenuine) {
			t.Errorf("without segment %d: %v", i, err)
		}
	}
	if _, err := hem.VerifyGenuine(a.Genuine + "."); !errors.Is(err, hem.ErrNotGenuine) {
		t.Error(err)
	}
	if err := client.Provision(t.Context(), a.Genuine, [][]byte{g.Certificate.Raw}); !errors.Is(err, api.ErrForbidden) {
		t.Errorf("provisioning of a personalised module: %v", err)
	}
	theirCert, err := hem.VerifyGenuine(b.Genuine)
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Provision(t.Context(), b.Genuine, [][]byte{g.Certificate.Raw}); !errors.Is(err, api.ErrNotAcceptable) {
		t.Errorf("with another's certificate: %v", err)
	}
	if err := stranger.Provision(t.Context(), b.Genuine, [][]byte{theirCert.Certificate.Raw}); err != nil {
		t.Error(err)
	}
	if b, err = stranger.Attestation(t.Context()); err != nil || b.Crt != api.EncodeBase64(theirCert.Certificate.Raw) {
		t.Errorf("%+v, %v", b, err)
	}
}

// FuzzGenuine: nothing verifies that was not signed.
func FuzzGenuine(f *testing.F) {
	for _, seed := range []string{"", "...", "AAAA.MTc2NzIyNTYwMA==.MAYCAQECAQE=.MIIB", "a.b.c.d", strings.Repeat("AAAA.", 4)} {
		f.Add(seed)
	}
	m := hemtest.New(f, &hemtest.Options{Fresh: true})
	c, err := hem.New(hem.Config{URL: m.URL, CACert: m.CACert})
	if err != nil {
		f.Fatal(err)
	}
	defer c.Close()
	a, err := c.Attestation(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(a.Genuine)
	signed := a.Genuine[:strings.LastIndexByte(a.Genuine[:strings.LastIndexByte(a.Genuine, '.')], '.')]
	f.Fuzz(func(t *testing.T, token string) {
		g, err := hem.VerifyGenuine(token)
		if err != nil {
			if !errors.Is(err, hem.ErrNotGenuine) || g != nil {
				t.Fatal(g, err)
			}
			return
		}
		if !strings.HasPrefix(token, signed+".") {
			t.Fatalf("a forgery verifies: %q", token)
		}
	})
}
