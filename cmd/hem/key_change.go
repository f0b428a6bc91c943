package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

// A specFlags describes a key to be made.
type specFlags struct {
	t           api.KeyType
	label, mode string
	descr       descrFlags
}

func (s *specFlags) flags(c *cobra.Command, among []api.KeyType) {
	f := c.Flags()
	f.Var(&typeFlag{&s.t, among}, "type", "type of the key, such as ED25519; hem key types lists them")
	f.StringVar(&s.label, "label", "", "name of the key, 1 to 32 printable ASCII characters (default: type and time)")
	f.Var(oneOf(&s.mode, api.ModeECDH, api.ModeExDSA, api.ModeBoth), "mode", "what a key on a NIST curve or secp256k1 is for: ECDH, ExDSA, which is signatures, or ECDH,ExDSA (default ECDH; of import both)")
	s.descr.flags(c)
	words := make([]string, len(among))
	for i, t := range among {
		what, _ := typeInWords(t)
		words[i] = string(t) + "\t" + what
	}
	complete(c, "type", words...)
	complete(c, "mode", api.ModeECDH, api.ModeExDSA, api.ModeBoth)
}

// spec checks what does not need the module.
func (s *specFlags) spec(c *cobra.Command) (hem.KeySpec, error) {
	if s.t == "" {
		return hem.KeySpec{}, &usageError{c.CommandPath(), "--type is missing; hem key types lists the types"}
	}
	if s.mode != "" && modesOf(s.t) == nil {
		return hem.KeySpec{}, &usageError{c.CommandPath(), fmt.Sprintf("keys of type %s have no --mode", s.t)}
	}
	descr, err := s.descr.bytes(c)
	if err != nil {
		return hem.KeySpec{}, err
	}
	if s.label == "" {
		if c.Flags().Changed("label") {
			return hem.KeySpec{}, &usageError{c.CommandPath(), "the label is empty"}
		}
		s.label = strings.ToLower(string(s.t)) + "-" + time.Now().UTC().Format("20060102-150405")
	}
	return hem.KeySpec{Label: s.label, Type: s.t, Mode: s.mode, Descr: descr}, nil
}

// made prints the kid of a new key.
func (o *options) made(how string, kid hem.KID, spec hem.KeySpec) error {
	o.note("%s the %s key %q", how, spec.Type, spec.Label)
	if o.json {
		return printJSON(o.t.out, struct {
			KID   hem.KID     `json:"kid"`
			Label string      `json:"label"`
			Type  api.KeyType `json:"type"`
		}{kid, spec.Label, spec.Type})
	}
	_, err := fmt.Fprintln(o.t.out, kid)
	return err
}

func newKeyCreateCmd(o *options) *cobra.Command {
	var s specFlags
	c := &cobra.Command{
		Use:   "create --type TYPE",
		Short: "Make a key in the module",
		Long: `Have the module make a key, and print its kid. Needs a token for keymgmt:gen.

Labels need not be unique, but only what is unique names a key. A key on a NIST curve or
secp256k1 is for ECDH unless --mode says something else; one that shall sign needs --mode
ExDSA.`,
		Example: `  hem key create --type ED25519 --label release
  hem key create --type P-256 --mode ExDSA --label tls
  hem key create --type AES256 --label backup --descr customer-42:backup`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			spec, err := s.spec(c)
			if err != nil {
				return err
			}
			var kid hem.KID
			err = o.with(c.Context(), need{scope: api.ScopeKeyGen}, func(m *hem.Client) (err error) {
				kid, err = m.CreateKey(c.Context(), spec)
				return err
			})
			if err != nil {
				return err
			}
			return o.made("made", kid, spec)
		},
	}
	s.flags(c, api.KeyTypes())
	return c
}

func newKeyImportCmd(o *options) *cobra.Command {
	var s specFlags
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Store someone's public key in the module",
		Long: `Store someone's public key in the module, and print its kid, which is the beginning of
SHA-1 over the raw public key. It can verify, and be the other side of an ECDH: one on
a NIST curve or secp256k1 is for both unless --mode says less. Needs a token for keymgmt:imp. A
key that is there already is refused.

` + helpPublicFile + `
A raw one needs --type. FILE is standard input when it is -.`,
		Example: `  hem key import ada.pem --label ada
  hem key import id_ed25519.pub --label deploy --descr servers
  hem key import peer.bin --type X25519 --label peer`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			t, raw, err := readPublicFile(c, o, args[0])
			switch {
			case err != nil:
				return err
			case t == "" && s.t == "":
				return &usageError{c.CommandPath(), "a raw public key needs its --type"}
			case t != "" && s.t != "" && t != s.t:
				return &usageError{c.CommandPath(), fmt.Sprintf("the file holds a key of type %s, not %s", t, s.t)}
			case t != "":
				s.t = t
			}
			if s.mode == "" && modesOf(s.t) != nil {
				s.mode = api.ModeBoth // the owner has decided; here it costs nothing
			}
			if _, err := hem.ParsePublic(s.t, raw); err != nil {
				return &usageError{c.CommandPath(), args[0] + ": " + withoutPrefix(err)}
			}
			spec, err := s.spec(c)
			if err != nil {
				return err
			}
			var kid hem.KID
			err = o.with(c.Context(), need{scope: api.ScopeKeyImport}, func(m *hem.Client) (err error) {
				kid, err = m.ImportKey(c.Context(), spec, raw)
				return err
			})
			if err != nil {
				return err
			}
			return o.made("stored", kid, spec)
		},
	}
	s.flags(c, publicTypes())
	return c
}

func newKeyDeriveCmd(o *options) *cobra.Command {
	var s specFlags
	var p peerFlags
	c := &cobra.Command{
		Use:   "derive KEY --type TYPE",
		Short: "Make a key from the ECDH secret of two",
		Long: `Have the module make a key from the ECDH secret of KEY and a peer, by HKDF-SHA256, and
print its kid. Who holds the peer's private half and derives the same type from KEY's
public half has the same key. Needs a token for keymgmt:derive.

The secret must be as long as the new key: X25519 gives keys of up to 32 bytes. Keys derived
by modules of different makers need not agree.

` + helpNames + `

` + helpPublicFile,
		Example: `  hem key derive mine --peer theirs --type AES256 --label shared
  hem key derive mine --peer-file theirs.pem --type SHA2-256`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if !p.given() {
				return &usageError{c.CommandPath(), "the other side is missing: --peer KEY or --peer-file FILE"}
			}
			spec, err := s.spec(c)
			if err != nil {
				return err
			}
			peer, err := p.read(c, o)
			if err != nil {
				return err
			}
			var kid hem.KID
			u := keyUse{names: p.with(args[0]), scope: always(api.ScopeKeyDerive)}
			err = o.withKeys(c.Context(), u, func(m *hem.Client, keys []namedKey) (err error) {
				kid, err = m.DeriveKey(c.Context(), keys[0].KID, p.among(peer, keys), spec)
				return err
			})
			if err != nil {
				return err
			}
			return o.made("derived", kid, spec)
		},
	}
	s.flags(c, derivableTypes())
	p.flags(c, "the other side")
	return c
}

// derivableTypes are all but the post-quantum ones.
func derivableTypes() (types []api.KeyType) {
	for _, t := range api.KeyTypes() {
		if !strings.HasPrefix(string(t), "ML") {
			types = append(types, t)
		}
	}
	return types
}

func newKeyUpdateCmd(o *options) *cobra.Command {
	var label string
	var descr descrFlags
	c := &cobra.Command{
		Use:   "update KEY",
		Short: "Change a key's label or description",
		Long: `Change the label or the description of a key; what is not given stays. An empty --descr
removes the description. Needs a token for keymgmt:upd, and one for keymgmt:list, unless KEY
is a full kid and both are given.

` + helpNames,
		Example: `  hem key update release --label release-2025
  hem key update 03a6c1f0 --descr customer-42`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			newLabel, newDescr := c.Flags().Changed("label"), descr.given(c)
			if !newLabel && !newDescr {
				return &usageError{c.CommandPath(), "nothing to change: --label or --descr is missing"}
			}
			bytes, err := descr.bytes(c)
			if err != nil {
				return err
			}
			u := keyUse{names: args, attributes: !newLabel || !newDescr, scope: always(api.ScopeKeyUpdate)}
			return o.withKeys(c.Context(), u, func(m *hem.Client, keys []namedKey) error {
				if !newLabel {
					label = keys[0].Label
				}
				if !newDescr {
					bytes = keys[0].Descr
				}
				return updateKey(c.Context(), o, m, keys[0].KID, label, bytes)
			})
		},
	}
	c.Flags().StringVar(&label, "label", "", "new name of the key, 1 to 32 printable ASCII characters")
	descr.flags(c)
	return c
}

func updateKey(ctx context.Context, o *options, m *hem.Client, kid hem.KID, label string, descr []byte) error {
	if err := m.UpdateKey(ctx, kid, label, descr); err != nil {
		return err
	}
	o.note("changed %v", kid)
	if o.json {
		return printJSON(o.t.out, api.KeyCreated{KID: kid.String()})
	}
	return nil
}
