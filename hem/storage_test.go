package hem_test

import (
	"errors"
	"slices"
	"testing"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
)

func TestDisks(t *testing.T) {
	ctx := t.Context()
	m := hemtest.New(t, nil)
	c := m.Client()
	shows := func(want ...string) {
		t.Helper()
		s, err := c.Status(ctx)
		if err != nil || !slices.Equal(s.Storage, want) {
			t.Errorf("%v, %v; want %v", s.Storage, err, want)
		}
	}
	shows("8388608:ro", "8388608:-")
	for _, err := range []error{c.UnlockDisk(ctx, 1, true), c.LockDisk(ctx, 0)} {
		if err != nil {
			t.Error(err)
		}
	}
	shows("8388608:-", "8388608:rw")
	// The token for writing, which is at hand, does for these.
	if err := c.UnlockDisk(ctx, 1, false); err != nil {
		t.Error(err)
	}
	shows("8388608:-", "8388608:ro")
	if err := c.LockDisk(ctx, 1); err != nil {
		t.Error(err)
	}
	shows("8388608:-", "8388608:-")

	for _, n := range []int{-1, 2, 10} {
		if err := c.UnlockDisk(ctx, n, false); !errors.Is(err, hem.ErrArgument) {
			t.Errorf("disk %d: %v", n, err)
		}
	}
	if err := m.ClientOf(api.RoleMaster).LockDisk(ctx, 0); !errors.Is(err, api.ErrForbidden) {
		t.Errorf("the administrator: %v", err)
	}
	reader, err := c.Login(ctx, api.ScopeDisk(1, false))
	if err != nil {
		t.Fatal(err)
	}
	given, err := hem.New(hem.Config{URL: m.URL, CACert: m.CACert, Token: reader.Bearer})
	if err != nil {
		t.Fatal(err)
	}
	defer given.Close()
	if err := given.UnlockDisk(ctx, 1, true); !errors.Is(err, api.ErrNotAcceptable) {
		t.Errorf("for writing, with a token for reading: %v", err)
	}
	if err := given.UnlockDisk(ctx, 1, false); err != nil {
		t.Error(err)
	}
	epa := hemtest.New(t, &hemtest.Options{Profile: "EPA"}).Client()
	if err := epa.UnlockDisk(ctx, 0, false); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("on an EPA: %v", err)
	}
}
