package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

func newKeyShowCmd(o *options) *cobra.Command {
	var asPEM, asOpenSSH, asJWK, asRaw bool
	var out output
	c := &cobra.Command{
		Use:   "show KEY",
		Short: "Show a key, or its public half",
		Long: `Show what the module tells of a key, or write its public half in the form that other
programs take. Private and secret keys are never shown. Needs a token for keymgmt:get, and
one for keymgmt:list to know the label and when the key was made; with --pem and its
like, a full kid does without the second.

` + helpNames + `

--json has the fields of hem key list, and public, the raw public key in base64.`,
		Example: `  hem key show release
  hem key show release --pem -o release.pem
  hem key show release --openssh
  hem key show 03a6c1f0 --raw --format hex`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			public := asPEM || asOpenSSH || asJWK || asRaw
			if public && o.json {
				return &usageError{c.CommandPath(), "--json has all there is; it excludes the other forms"}
			}
			if !asRaw && c.Flags().Changed("format") {
				return &usageError{c.CommandPath(), "--format is for --raw"}
			}
			k, err := o.readKey(c.Context(), args[0], !public)
			if err != nil {
				return err
			}
			if public {
				text, err := k.publicText(c, asPEM, asOpenSSH, asJWK)
				if err != nil {
					return err
				}
				if asRaw {
					text = encode(k.Public, out.format)
				}
				return out.put(c, o, func(w io.Writer) error {
					if asRaw && out.format == formatRaw && !c.Flags().Changed("format") {
						w = sparing(w)
					}
					if _, err := w.Write(text); err != nil {
						return err
					}
					return whole(w)
				})
			}
			return out.put(c, o, func(w io.Writer) error {
				if o.json {
					return printJSON(w, k.json())
				}
				return k.table().print(w)
			})
		},
	}
	f := c.Flags()
	f.BoolVar(&asPEM, "pem", false, "write the public key, or the certificate, as PEM")
	f.BoolVar(&asOpenSSH, "openssh", false, "write the public key as a line for authorized_keys")
	f.BoolVar(&asJWK, "jwk", false, "write the public key as a JSON Web Key")
	f.BoolVar(&asRaw, "raw", false, "write the public key in the raw form of the protocol")
	exclude(c, "pem", "openssh", "jwk", "raw")
	out.flags(c, formatBase64)
	return c
}

// A shownKey is all that is known of a key.
type shownKey struct {
	*hem.Key
	info  hem.KeyInfo
	known bool // info
}

// readKey reads a key. Whoever has a token for reading it alone gets what that gives.
func (o *options) readKey(ctx context.Context, name string, attributes bool) (k shownKey, err error) {
	u := keyUse{names: []string{name}, attributes: attributes, scope: always(api.ScopeKeyGet)}
	read := func(m *hem.Client, keys []namedKey) error {
		k.info, k.known = keys[0].KeyInfo, keys[0].known
		k.Key, err = m.GetKey(ctx, keys[0].KID)
		return err
	}
	err = o.withKeys(ctx, u, read)
	where, ok := errors.AsType[*clientError](err)
	if attributes && ok && where.token && where.lookup && errors.Is(err, api.ErrForbidden) && parseKeyName(name).isKID {
		u.attributes = false
		if err = o.withKeys(ctx, u, read); err == nil {
			o.note("the token does not open the list of keys, which has the label")
		}
	}
	return k, err
}

func (k shownKey) json() keyJSON {
	j := keyJSON{KID: k.KID, Type: k.Type, Updated: k.Updated.Unix(), Descr: k.Descr}
	if k.known {
		j = asJSON(k.info)
	}
	j.Public, j.DER = k.Public, k.DER
	return j
}

func (k shownKey) table() *table {
	t := &table{}
	t.addText("kid", k.KID.String())
	t.addText("label", k.info.Label)
	what, uses := typeInWords(k.Type)
	if what != "" {
		what = " (" + what + ")"
	}
	t.addText("type", string(k.Type)+what)
	descr := k.Descr
	if k.known {
		descr = k.info.Descr
		if modesOf(k.Type) != nil {
			uses = usesOf(k.info.Traits)
		}
	} else if modesOf(k.Type) != nil {
		uses = nil // the mode is in the list alone
	}
	t.addText("for", strings.Join(uses, ", "))
	if k.known {
		t.addText("made in the module", yesNo(k.info.Traits.Made))
		if !isSymmetric(k.Type) && !k.info.Traits.Cert {
			t.addText("private half", yesNo(k.info.Traits.Private))
		}
		t.addText("created", instant(k.info.Created.Unix()))
	}
	t.addText("updated", instant(k.Updated.Unix()))
	t.addText("descr", descrText(descr))
	const most = 80 // bytes that make a line
	switch n := len(k.Public); {
	case n > most:
		t.add("public key", "%d bytes; see --pem and --raw", n)
	case n > 0:
		t.addText("public key", api.EncodeBase64(k.Public))
	}
	if n := len(k.DER); n > 0 {
		t.add("certificate", "%d bytes; see --pem", n)
	}
	return t
}

// usesOf is what a key was made for that had a mode to choose.
func usesOf(t api.KeyTraits) (uses []string) {
	if t.ECDH {
		uses = append(uses, forECDH)
	}
	if t.ExDSA {
		uses = append(uses, forSignatures)
	}
	return uses
}

// publicText is the public half as PEM, an OpenSSH line or a JWK.
func (k shownKey) publicText(c *cobra.Command, asPEM, asOpenSSH, asJWK bool) ([]byte, error) {
	if len(k.Public) == 0 && (!asPEM || len(k.DER) == 0) {
		return nil, &usageError{c.CommandPath(), fmt.Sprintf("a key of type %s has no public half", clean(string(k.Type)))}
	}
	switch {
	case asPEM && len(k.DER) > 0:
		if _, err := x509.ParseCertificate(k.DER); err != nil {
			return nil, errors.New("what the module holds is no X.509 certificate")
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.DER}), nil
	case asPEM:
		der, err := hem.MarshalSPKI(k.Type, k.Public)
		return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), err
	case asOpenSSH:
		comment := k.info.Label
		if !k.known {
			comment = k.KID.String()
		}
		line, err := hem.MarshalOpenSSH(k.Type, k.Public, clean(comment))
		return []byte(line + "\n"), err
	case asJWK:
		jwk, err := hem.MarshalJWK(k.Type, k.Public, k.KID.String())
		return append(jwk, '\n'), err
	}
	return nil, nil
}
