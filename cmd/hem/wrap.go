package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

// A kdfFlags is what wrapping and encrypting with a peer have in common.
type kdfFlags struct {
	peerFlags
	ctx string
}

func (k *kdfFlags) flags(c *cobra.Command) {
	k.peerFlags.flags(c, "other side of an ECDH that gives the key")
	c.Flags().StringVar(&k.ctx, "ctx", "", "context that the key with a peer is derived with, at most 64 bytes")
}

func (k *kdfFlags) check(c *cobra.Command) error {
	if k.ctx != "" && !k.given() {
		return &usageError{c.CommandPath(), "--ctx is for a key with a peer: --peer or --peer-file"}
	}
	return nil
}

// wrapAlg is how keys of a type wrap: with all of them, unless told otherwise.
func wrapAlg(t api.KeyType) (api.KeyType, bool) {
	switch t {
	case api.AES128, api.AES192, api.AES256:
		return t, true
	}
	return "", false
}

func newWrapCmd(o *options) *cobra.Command {
	return wrapCmd(o, &cobra.Command{
		Use:   "wrap KEY [FILE]",
		Short: "Encrypt another key with AES key wrap",
		Long: `Have the module encrypt a key, or other data of 16 to 2048 bytes in multiples of 8, with AES
key wrap (RFC 3394). The result is 8 bytes longer.

` + helpNames + `

` + helpInput + `

With a peer, KEY is one on a curve, and the AES key comes from the ECDH secret by HKDF-SHA256.

--json has kid, alg and wrapped, in base64.`,
		Example: `  hem wrap kek content.key -o content.wrapped
  hem wrap kek --text 00112233445566778899aabbccddeeff --input-format hex`,
	}, false)
}

func newUnwrapCmd(o *options) *cobra.Command {
	return wrapCmd(o, &cobra.Command{
		Use:   "unwrap KEY [FILE]",
		Short: "Decrypt what hem wrap made",
		Long: `Have the module decrypt what was encrypted with AES key wrap (RFC 3394).

` + helpNames + `

` + helpInput + `
The data ` + helpAuto + `

What was given for wrapping must be given here, too.

--json has kid, alg and unwrapped, in base64.`,
		Example: `  hem unwrap kek content.wrapped --format raw -o content.key`,
	}, true)
}

func wrapCmd(o *options, c *cobra.Command, unwrap bool) *cobra.Command {
	var in input
	var out output
	var kdf kdfFlags
	var alg, iv string
	c.Args = cobra.RangeArgs(1, 2)
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := kdf.check(c); err != nil {
			return err
		}
		initial, err := decode([]byte(iv), formatHex)
		if err != nil || iv != "" && len(initial) != api.WrapIVBytes {
			return &usageError{c.CommandPath(), fmt.Sprintf("--iv is not %d bytes in hex", api.WrapIVBytes)}
		}
		peer, err := kdf.read(c, o)
		if err != nil {
			return err
		}
		least, most := 16, api.MaxMessageBytes
		if unwrap {
			least, most = 24, api.MaxUnwrapBytes
		}
		data, err := in.read(c, o, args[1:], most)
		if errors.Is(err, errTooLong) || err == nil && (len(data) < least || len(data)%8 != 0) {
			return &usageError{c.CommandPath(), fmt.Sprintf("the data is not %d to %d bytes, in multiples of 8", least, most)}
		}
		if err != nil {
			return err
		}
		defer clear(data)
		var result []byte
		var kid hem.KID
		err = o.withKeys(c.Context(), useKey(kdf.with(args[0])...), func(m *hem.Client, keys []namedKey) error {
			kid = keys[0].KID
			if alg == "" && !kdf.given() {
				t, err := typeOf(c.Context(), m, keys[0])
				if err != nil {
					return err
				}
				if _, ok := wrapAlg(t); !ok {
					return &usageError{c.CommandPath(), fmt.Sprintf("keys of type %s wrap only with a peer, if at all; hem key types says which do", clean(string(t)))}
				}
				alg = string(t)
			}
			if alg == "" {
				alg = string(api.AES256)
			}
			options := &hem.WrapOptions{Alg: api.KeyType(alg), IV: initial, Peer: kdf.among(peer, keys), Context: []byte(kdf.ctx)}
			if unwrap {
				result, err = m.Unwrap(c.Context(), kid, data, options)
			} else {
				result, err = m.Wrap(c.Context(), kid, data, options)
			}
			return err
		})
		if err != nil {
			return err
		}
		defer clear(result)
		asJSON := struct {
			KID       hem.KID `json:"kid"`
			Alg       string  `json:"alg"`
			Wrapped   []byte  `json:"wrapped,omitempty"`
			Unwrapped []byte  `json:"unwrapped,omitempty"`
		}{KID: kid, Alg: alg, Wrapped: result}
		if unwrap {
			asJSON.Wrapped, asJSON.Unwrapped = nil, result
		}
		return out.result(c, o, result, asJSON)
	}
	kdf.flags(c)
	format := formatRaw
	if unwrap {
		format = formatAuto
	}
	in.flags(c, format)
	out.flags(c, formatBase64)
	algs := []string{string(api.AES128), string(api.AES192), string(api.AES256)}
	f := c.Flags()
	f.Var(oneOf(&alg, algs...), "alg", "cipher: "+orList(algs)+" (default: all of the key, with a peer AES256)")
	f.StringVar(&iv, "iv", "", "8 bytes in `hex` instead of RFC 3394's initial value")
	complete(c, "alg", algs...)
	return c
}
