package main

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/suite"
	"softhem/internal/upgrade"
)

// A signedImage is what hem upgrade sign has made.
type signedImage struct {
	Image string `json:"image"` // file
	Kind  string `json:"kind"`  // fw or ui
	Size  int    `json:"size"`  // bytes
	Key   string `json:"key"`   // for hem serve --upgrade-key
}

func newUpgradeSignCmd(o *options) *cobra.Command {
	var keyFile, out string
	c := &cobra.Command{
		Use:   "sign FILE",
		Short: "Make an image of a program, or of a console's files",
		Long: `Sign FILE and write it with its signature to an image: firmware.bin, or webroot.tar with
--console. FILE is a program, as it is or compressed by gzip, or an uncompressed tar
archive with an index.html. What no module would take is not signed; whether a program
runs is found out by the module that tries it.

The key is a file with an Ed25519 private key, PEM as OpenSSL writes it (openssl genpkey
-algorithm ed25519 -out upgrade.pem) or its 32 raw bytes. Its public half, which
hem serve --upgrade-key wants, is printed. No module is talked to.`,
		Example: `  hem upgrade sign --key upgrade.pem hem.gz
  hem upgrade sign --key upgrade.pem --console --out webroot.tar site.tar`,
		Args: cobra.ExactArgs(1),
	}
	kind := upgradeKind(c)
	c.Flags().StringVar(&keyFile, "key", "", "`file` of the private key, - for standard input")
	c.Flags().StringVar(&out, "out", "", "`file` to write, which must not be there (default firmware.bin or webroot.tar)")
	c.RunE = func(c *cobra.Command, args []string) error {
		if keyFile == "" {
			return &usageError{c.CommandPath(), "--key is missing; it is a file with an Ed25519 private key"}
		}
		key, err := o.signingKey(keyFile)
		if err != nil {
			return &usageError{c.CommandPath(), fmt.Sprintf("--key: %v", err)}
		}
		payload, err := o.readImage(c.Context(), args[0])
		if err != nil {
			return err
		}
		if err := upgrade.Validate(upgrade.Kind(kind()), bytes.NewReader(payload)); err != nil {
			return fmt.Errorf("%s would not be taken by a module: %w", args[0], err)
		}
		footer, err := upgrade.Sign(bytes.NewReader(payload), key)
		if err != nil {
			return err
		}
		image := append(payload, footer...)
		if len(image) > upgrade.MaxImage {
			return fmt.Errorf("%s has more than the %d bytes that a module takes, with its signature", args[0], upgrade.MaxImage)
		}
		if out == "" {
			out = map[hem.UpgradeKind]string{hem.UpgradeFirmware: "firmware.bin", hem.UpgradeConsole: "webroot.tar"}[kind()]
		}
		if err := writeNew(out, image); err != nil {
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%s is there already; remove it, or name another with --out", out)
			}
			return err
		}
		done := signedImage{out, string(kind()), len(image), api.EncodeBase64(key.Public())}
		if o.json {
			return printJSON(o.t.out, done)
		}
		o.note("%s is the %s to upload; a module takes it with --upgrade-key and this key:", out, upgradeInWords(kind()))
		_, err = fmt.Fprintln(o.t.out, done.Key)
		return err
	}
	return c
}

// signingKey reads an Ed25519 private key.
func (o *options) signingKey(path string) (*suite.Ed25519Key, error) {
	raw, err := o.secretFile("--key", path)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	if block, _ := pem.Decode(raw); block != nil {
		defer clear(block.Bytes)
		if key, err := suite.Ed25519KeyFromPKCS8(block.Bytes); err == nil {
			return key, nil
		}
	} else if key, err := suite.NewEd25519Key(raw); err == nil {
		return key, nil
	}
	return nil, errors.New("the file holds no Ed25519 private key, PEM (PKCS #8) or 32 raw bytes")
}
