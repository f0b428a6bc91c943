package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/upgrade"
)

func newUpgradeCmd(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "upgrade",
		Short: "Bring the module new firmware, or a web console",
		Long: `Bring the module new firmware, or the files of a web console: upload an image, have it
checked, install it. The module takes what is signed by a key that its operator has named
with hem serve --upgrade-key, and nothing else. hem upgrade sign makes such images.`,
		Example: `  hem upgrade sign --key upgrade.pem hem.gz
  hem upgrade upload firmware.bin
  hem upgrade check
  hem upgrade install`,
	}
	c.AddCommand(newUpgradeUploadCmd(o), newUpgradeCheckCmd(o), newUpgradeInstallCmd(o), newUpgradeSignCmd(o))
	return c
}

// upgradeKind adds the flag that says what an upgrade brings.
func upgradeKind(c *cobra.Command) func() hem.UpgradeKind {
	console := c.Flags().Bool("console", false, "a web console, not firmware")
	return func() hem.UpgradeKind {
		if *console {
			return hem.UpgradeConsole
		}
		return hem.UpgradeFirmware
	}
}

// upgradeInWords is what an upgrade brings, for people.
func upgradeInWords(k hem.UpgradeKind) string {
	if k == hem.UpgradeConsole {
		return "web console"
	}
	return "firmware"
}

// kindFlag is what follows a command that is to be given for an upgrade of this kind.
func kindFlag(k hem.UpgradeKind) string {
	if k == hem.UpgradeConsole {
		return " --console"
	}
	return ""
}

// An upgradeDone is what a command has done, as JSON.
type upgradeDone struct {
	Kind  string `json:"kind"` // fw or ui
	State string `json:"state"`
}

// upgradeStep does one step and says so.
func (o *options) upgradeStep(ctx context.Context, k hem.UpgradeKind, state, words string, do func(*hem.Client) error) error {
	if err := o.with(ctx, need{scope: api.ScopeSystemUpgrade}, do); err != nil {
		return err
	}
	if o.json {
		return printJSON(o.t.out, upgradeDone{string(k), state})
	}
	o.note("the %s at %s %s", upgradeInWords(k), o.address(), words)
	return nil
}

func newUpgradeUploadCmd(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "upload FILE",
		Short: "Send an image to the module",
		Long: `Send a signed image to the module, where it takes the place of an earlier one. It is not
looked at yet: hem upgrade check. FILE may be - for standard input, and has at most 16 MiB. Needs a
token for system:upgrade; a module that is not personalised wants none.`,
		Example: `  hem upgrade upload firmware.bin
  hem upgrade upload --console webroot.tar`,
		Args: cobra.ExactArgs(1),
	}
	kind := upgradeKind(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		image, err := o.readImage(c.Context(), args[0])
		if err != nil {
			return err
		}
		return o.upgradeStep(c.Context(), kind(), "uploaded", "was uploaded; next: hem upgrade check"+kindFlag(kind()), func(m *hem.Client) error {
			return m.UploadUpgrade(c.Context(), kind(), image)
		})
	}
	return c
}

// readImage reads an image, or what is to become one.
func (o *options) readImage(ctx context.Context, path string) ([]byte, error) {
	f, err := o.openFile(ctx, path, "the image")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	image, err := io.ReadAll(io.LimitReader(f, upgrade.MaxImage+1))
	if err == nil && len(image) > upgrade.MaxImage {
		err = fmt.Errorf("%s has more than the %d bytes that a module takes; compress firmware with gzip before it is signed", path, upgrade.MaxImage)
	}
	return image, err
}

func newUpgradeCheckCmd(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Have the module verify what was uploaded",
		Long: `Have the module verify the image that was uploaded, and wait until it has. Exits with 5 if it
is not signed by a key that the module trusts, or not what it should be; which, is in
the operator's log. Needs a token for system:upgrade or system:config; a module
that is not personalised wants none.`,
		Example: `  hem upgrade check
  hem upgrade check --console`,
		Args: cobra.NoArgs,
	}
	kind := upgradeKind(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		return o.upgradeStep(c.Context(), kind(), "verified", "is verified; next: hem upgrade install"+kindFlag(kind()), func(m *hem.Client) error {
			return m.CheckUpgrade(c.Context(), kind())
		})
	}
	return c
}

func newUpgradeInstallCmd(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "install",
		Short: "Put what was verified to use",
		Long: `Put the image that was verified to use. A web console is served at once. Firmware is run
by the next start of the module's process; if it does not get ready then, the start after
that runs what ran before. The module boots anew now, so all tokens end.

Needs a token for system:upgrade or system:config; a module that is not personalised wants none.`,
		Example: `  hem upgrade install
  hem upgrade install --console`,
		Args: cobra.NoArgs,
	}
	kind := upgradeKind(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		ctx := c.Context()
		words := "is installed; restart the module's process to run it. All tokens have ended"
		if kind() == hem.UpgradeConsole {
			words = "is installed"
		}
		return o.upgradeStep(ctx, kind(), "installed", words, func(m *hem.Client) error {
			if err := m.InstallUpgrade(ctx, kind()); err != nil || kind() == hem.UpgradeConsole {
				return err
			}
			if err := m.Logout(ctx); err != nil {
				o.warn("the tokens that ended are still kept: %v", err)
			}
			return nil
		})
	}
	return c
}

// writeNew writes a file that must not be there yet: an image is not lost by a typing
// error.
func writeNew(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}
