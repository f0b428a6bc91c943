package hem_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
)

// The SDK's way through an upgrade that is refused, with a token, and with none on a
// fresh module; the ways that end well are those of the commands' tests.
func TestUpgradeIsRefused(t *testing.T) {
	ctx := context.Background()
	for name, opts := range map[string]*hemtest.Options{"personalised": nil, "fresh": {Fresh: true}} {
		c := hemtest.New(t, opts).Client()
		for _, kind := range []hem.UpgradeKind{hem.UpgradeFirmware, hem.UpgradeConsole} {
			if err := c.CheckUpgrade(ctx, kind); !errors.Is(err, api.ErrNotFound) {
				t.Errorf("%s, %s: check of nothing: %v", name, kind, err)
			}
			if err := c.UploadUpgrade(ctx, kind, nil); !errors.Is(err, api.ErrNotAcceptable) {
				t.Errorf("%s, %s: nothing: %v", name, kind, err)
			}
			if err := c.UploadUpgrade(ctx, kind, make([]byte, 16<<20+1)); !errors.Is(err, hem.ErrArgument) {
				t.Errorf("%s, %s: too much: %v", name, kind, err)
			}
			if err := c.UploadUpgrade(ctx, kind, bytes.Repeat([]byte("x"), 16<<20)); err != nil {
				t.Errorf("%s, %s: as much as there may be: %v", name, kind, err)
			}
			if err := c.CheckUpgrade(ctx, kind); !errors.Is(err, api.ErrNotAcceptable) {
				t.Errorf("%s, %s: check: %v", name, kind, err)
			}
			if err := c.InstallUpgrade(ctx, kind); !errors.Is(err, api.ErrNotAcceptable) {
				t.Errorf("%s, %s: install: %v", name, kind, err)
			}
		}
	}
	if err := hemtest.New(t, &hemtest.Options{Profile: "EPA"}).Client().UploadUpgrade(ctx, hem.UpgradeFirmware, make([]byte, 100)); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("an EPA: %v", err)
	}
}
