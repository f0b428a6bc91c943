package main

import (
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

func newECDHCmd(o *options) *cobra.Command {
	var out output
	var p peerFlags
	var hash string
	c := &cobra.Command{
		Use:   "ecdh KEY",
		Short: "Compute the shared secret of two keys",
		Long: `Have the module compute the ECDH secret of KEY and a peer on the same curve, and write it.
On NIST curves and secp256k1 it is the x coordinate. With --hash it is the digest of that.
A raw secret is not uniformly random: derive keys from it. hem key derive does that inside
the module.

` + helpNames + `

` + helpPublicFile + `

--json has kid and secret, in base64.`,
		Example: `  hem ecdh mine --peer-file theirs.pem --hash SHA2-256
  hem ecdh mine --peer theirs --format raw -o secret.bin`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if !p.given() {
				return &usageError{c.CommandPath(), "the other side is missing: --peer KEY or --peer-file FILE"}
			}
			peer, err := p.read(c, o)
			if err != nil {
				return err
			}
			var kid hem.KID
			var secret []byte
			err = o.withKeys(c.Context(), useKey(p.with(args[0])...), func(m *hem.Client, keys []namedKey) (err error) {
				kid = keys[0].KID
				secret, err = m.ECDH(c.Context(), kid, p.among(peer, keys), api.KeyType(hash))
				return err
			})
			if err != nil {
				return err
			}
			defer clear(secret)
			return out.result(c, o, secret, struct {
				KID    hem.KID `json:"kid"`
				Secret []byte  `json:"secret"`
			}{kid, secret})
		},
	}
	p.flags(c, "the other side")
	out.flags(c, formatBase64)
	c.Flags().Var(oneOf(&hash, hashes()...), "hash", "write the digest of the secret instead: "+orList(hashes()))
	complete(c, "hash", hashes()...)
	return c
}

func newEncapsCmd(o *options) *cobra.Command {
	var out output
	var ctFile string
	c := &cobra.Command{
		Use:   "encaps KEY",
		Short: "Make a shared secret for the holder of an ML-KEM key",
		Long: `Have the module make a shared secret of 32 bytes for the holder of an ML-KEM key, which may be
an imported one, and the ciphertext that brings it there.

Without --ct there are two lines, ss with the secret and ct with the ciphertext. With --ct
the ciphertext goes to a file, and only the secret is written.

` + helpNames + `

--json has kid, alg, ss and ct, in base64.`,
		Example: `  hem encaps theirs
  hem encaps theirs --ct for-them.ct -o secret.txt`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if ctFile == "" && out.format == formatRaw && !o.json {
				return &usageError{c.CommandPath(), "--format raw has no room for both; put the ciphertext elsewhere with --ct FILE"}
			}
			if info, err := os.Stat(ctFile); err == nil && !info.Mode().IsRegular() {
				return &usageError{c.CommandPath(), "--ct is not a file"}
			}
			var kid hem.KID
			var t api.KeyType
			var secret, ct []byte
			err := o.withKeys(c.Context(), useKey(args[0]), func(m *hem.Client, keys []namedKey) (err error) {
				kid = keys[0].KID
				if secret, ct, err = m.Encapsulate(c.Context(), kid); err != nil || !o.json {
					return err
				}
				t, err = typeOf(c.Context(), m, keys[0])
				return err
			})
			if err != nil {
				return err
			}
			defer clear(secret)
			if ctFile != "" {
				err := writeBeside(ctFile, func(f *os.File) error {
					_, err := f.Write(encode(ct, out.format))
					return err
				})
				if err != nil {
					return err
				}
			}
			if ctFile != "" || o.json {
				return out.result(c, o, secret, struct {
					KID hem.KID     `json:"kid"`
					Alg api.KeyType `json:"alg"`
					SS  []byte      `json:"ss"`
					CT  []byte      `json:"ct"`
				}{kid, t, secret, ct})
			}
			return out.put(c, o, func(w io.Writer) error {
				_, err := io.WriteString(w, "ss  "+string(encode(secret, out.format))+"ct  "+string(encode(ct, out.format)))
				return err
			})
		},
	}
	out.flags(c, formatBase64)
	c.Flags().StringVar(&ctFile, "ct", "", "`file` to write the ciphertext to")
	return c
}

func newDecapsCmd(o *options) *cobra.Command {
	var in input
	var out output
	c := &cobra.Command{
		Use:   "decaps KEY [FILE]",
		Short: "Recover the shared secret that hem encaps made",
		Long: `Have the module recover the shared secret of 32 bytes that an ML-KEM ciphertext brings. One
that was changed, or is for another key, gives a secret all the same, which nobody else
has.

` + helpNames + `

` + helpInput + `
The ciphertext ` + helpAuto + `

--json has kid and ss, in base64.`,
		Example: `  hem decaps mine for-me.ct -o secret.txt`,
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			ct, err := in.read(c, o, args[1:], maxEncoded)
			if errors.Is(err, errTooLong) {
				return &usageError{c.CommandPath(), "the ciphertext is much too long"}
			}
			if err != nil {
				return err
			}
			var kid hem.KID
			var secret []byte
			err = o.withKeys(c.Context(), useKey(args[0]), func(m *hem.Client, keys []namedKey) (err error) {
				kid = keys[0].KID
				secret, err = m.Decapsulate(c.Context(), kid, ct)
				return err
			})
			if err != nil {
				return err
			}
			defer clear(secret)
			return out.result(c, o, secret, struct {
				KID hem.KID `json:"kid"`
				SS  []byte  `json:"ss"`
			}{kid, secret})
		},
	}
	in.flags(c, formatAuto)
	out.flags(c, formatBase64)
	return c
}
