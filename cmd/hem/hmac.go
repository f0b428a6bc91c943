package main

import (
	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

func hashes() []string {
	return []string{string(api.SHA2x256), string(api.SHA2x384), string(api.SHA2x512), string(api.SHA3x256), string(api.SHA3x384), string(api.SHA3x512)}
}

func newHMACCmd(o *options) *cobra.Command {
	var in input
	var check proofFlags
	var out output
	var p peerFlags
	var hash string
	c := &cobra.Command{
		Use:   "hmac KEY [FILE]",
		Short: "Authenticate a message, or check its MAC",
		Long: `Have the module compute the HMAC of a message of 1 to 2048 bytes, with the hash that the
key's type names; or with --mac, check one. With a peer, KEY is one on a curve, the HMAC key is
the ECDH secret, and --hash says which hash.

` + helpNames + `

` + helpInput + `

The MAC to check ` + helpAuto + `
Exit status 0 says that it is right, 5 that it is not, or that there is no such key.

` + helpPublicFile + `

--json has kid and mac, in base64; with --mac, kid and verified.`,
		Example: `  hem hmac cookies session.json
  hem hmac cookies session.json --mac session.mac
  hem hmac mine --peer theirs --hash SHA2-256 --text hello --format hex`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			if p.given() != (hash != "") {
				return &usageError{c.CommandPath(), "--hash is for a MAC with a peer, which needs it"}
			}
			peer, err := p.read(c, o)
			if err != nil {
				return err
			}
			var mac []byte
			if check.given() {
				if mac, err = check.read(c, o); err != nil {
					return err
				}
			}
			msg, err := readMessage(c, o, &in, args[1:])
			if err != nil {
				return err
			}
			u := useKey(p.with(args[0])...)
			options := func(keys []namedKey) *hem.MACOptions {
				return &hem.MACOptions{Peer: p.among(peer, keys), Hash: api.KeyType(hash)}
			}
			if check.given() {
				return o.verdict(c, u, func(m *hem.Client, keys []namedKey) error {
					return m.VerifyHMAC(c.Context(), keys[0].KID, msg, mac, options(keys))
				})
			}
			var kid hem.KID
			err = o.withKeys(c.Context(), u, func(m *hem.Client, keys []namedKey) (err error) {
				kid = keys[0].KID
				mac, err = m.HMAC(c.Context(), kid, msg, options(keys))
				return err
			})
			if err != nil {
				return err
			}
			return out.result(c, o, mac, struct {
				KID hem.KID `json:"kid"`
				MAC []byte  `json:"mac"`
			}{kid, mac})
		},
	}
	in.flags(c, formatRaw)
	out.flags(c, formatBase64)
	p.flags(c, "other side of an ECDH that gives the HMAC key")
	f := c.Flags()
	f.Var(oneOf(&hash, hashes()...), "hash", "hash of a MAC with a peer: "+orList(hashes()))
	f.StringVar(&check.file, "mac", "", "check the MAC in this `file`, - for standard input")
	f.StringVar(&check.text, "mac-text", "", "check this MAC, in base64 or hex")
	exclude(c, "mac", "mac-text")
	complete(c, "hash", hashes()...)
	return c
}
