package main

import (
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

func newKeyCmd(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "key",
		Short: "Make, find and delete keys",
		Long: `Make, find, change and delete the keys in the module. Private and secret keys are made
inside and never leave it.

` + helpNames,
		Example: `  hem key create --type ED25519 --label release
  hem key list
  hem key show release --openssh`,
	}
	c.AddCommand(
		newKeyCreateCmd(o), newKeyListCmd(o), newKeySearchCmd(o), newKeyShowCmd(o), newKeyImportCmd(o),
		newKeyDeriveCmd(o), newKeyUpdateCmd(o), newKeyDeleteCmd(o), newKeyTypesCmd(o),
	)
	return c
}

const helpList = `On a terminal it is a table that fits its width: what a narrow one has no room for is cut,
the kid to its first 8 digits. Otherwise there is one line for each key, with tabs between
kid, label, type, created, updated and descr. A descr that is not text is written as
base64: and its base64.

--json is an array of objects, complete: kid, label, type, traits (the words ATT, PKEY,
ECDH, ExDSA, PQC, CERT that hold), created and updated (Unix seconds), and descr (base64) if
there is one.`

func newKeyListCmd(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the keys",
		Long: `List all keys in the order they were made. Needs a token for keymgmt:list.

` + helpList,
		Example: `  hem key list
  hem key list --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.with(c.Context(), need{scope: api.ScopeKeyList}, func(m *hem.Client) error {
				return o.printKeys(m.AllKeys(c.Context()))
			})
		},
	}
}

func newKeySearchCmd(o *options) *cobra.Command {
	var prefix, suffix, exact, contains, asHex, asBase64, noToken bool
	c := &cobra.Command{
		Use:   "search TEXT",
		Short: "Find keys by their description",
		Long: `List the keys whose description has TEXT in it, or begins or ends with it. Descriptions
are bytes: letters count as they are written. Labels are not searched. Finding nothing is
no failure.

Needs a token for keymgmt:search or keymgmt:list. A module that allows it answers
--no-token --prefix, if there are 6 bytes or more to look for.

` + helpList,
		Example: `  hem key search backup
  hem key search customer-42: --prefix --json
  hem key search 00ff17 --hex --suffix`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s := hem.KeySearch{Descr: []byte(args[0]), Start: prefix || exact, End: suffix || exact}
			var err error
			switch {
			case asHex:
				s.Descr, err = decode(s.Descr, formatHex)
			case asBase64:
				s.Descr, err = decode(s.Descr, formatBase64)
			}
			if err != nil {
				return &usageError{c.CommandPath(), "what to look for is " + err.Error()}
			}
			n := need{scope: api.ScopeKeySearch}
			if noToken {
				if n = (need{}); !s.Start || len(s.Descr) < api.MinOpenSearch {
					return &usageError{c.CommandPath(), fmt.Sprintf("--no-token wants --prefix or --exact and %d bytes at least", api.MinOpenSearch)}
				}
			}
			return o.with(c.Context(), n, func(m *hem.Client) error {
				return o.printKeys(m.AllMatches(c.Context(), s))
			})
		},
	}
	f := c.Flags()
	f.BoolVar(&prefix, "prefix", false, "the description begins with TEXT")
	f.BoolVar(&suffix, "suffix", false, "the description ends with TEXT")
	f.BoolVar(&exact, "exact", false, "the description is TEXT")
	f.BoolVar(&contains, "contains", false, "the description has TEXT somewhere; this is the default")
	f.BoolVar(&asHex, "hex", false, "TEXT is hex")
	f.BoolVar(&asBase64, "base64", false, "TEXT is base64")
	f.BoolVar(&noToken, "no-token", false, "do not log in")
	exclude(c, "prefix", "suffix", "exact", "contains")
	exclude(c, "hex", "base64")
	return c
}

func newKeyTypesCmd(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "types",
		Short: "List the types of keys",
		Long: `List the types of keys there are and what they are for. The module is not asked.

    signatures      hem sign, hem verify
    ECDH            hem ecdh, hem key derive, and with --peer hem encrypt, wrap and hmac
    MAC             hem hmac, hem verify
    encryption      hem encrypt, hem decrypt
    key wrap        hem wrap, hem unwrap
    encapsulation   hem encaps, hem decaps

Where it says or, --mode of hem key create decides. --type takes these names in any case,
with or without hyphens, and also P-256, P-384, P-521, X25519 and X448.

--json is an array of objects: type, what, for, and modes if there is a choice.`,
		Example: `  hem key types`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			type row struct {
				Type  api.KeyType `json:"type"`
				What  string      `json:"what"`
				For   []string    `json:"for"`
				Modes []string    `json:"modes,omitempty"`
			}
			var rows []row
			t := &table{}
			for _, kt := range api.KeyTypes() {
				what, uses := typeInWords(kt)
				rows = append(rows, row{kt, what, uses, modesOf(kt)})
				sep := ", "
				if modesOf(kt) != nil {
					sep = " or "
				}
				t.add(string(kt), "%-18s %s", what, strings.Join(uses, sep))
			}
			if o.json {
				return printJSON(o.t.out, rows)
			}
			return t.print(o.t.out)
		},
	}
}

// What keys are for.
const (
	forSignatures = "signatures"
	forECDH       = "ECDH"
	forMAC        = "MAC"
	forEncryption = "encryption"
	forWrap       = "key wrap"
	forKEM        = "encapsulation"
)

// typeInWords says what a type is and what its keys are for.
func typeInWords(t api.KeyType) (what string, uses []string) {
	switch t {
	case api.SECP256R1:
		return "NIST P-256", []string{forECDH, forSignatures}
	case api.SECP384R1:
		return "NIST P-384", []string{forECDH, forSignatures}
	case api.SECP521R1:
		return "NIST P-521", []string{forECDH, forSignatures}
	case api.SECP256K1:
		return "SEC 2 secp256k1", []string{forECDH, forSignatures}
	case api.Curve25519:
		return "X25519, RFC 7748", []string{forECDH, forEncryption}
	case api.Curve448:
		return "X448, RFC 7748", []string{forECDH}
	case api.Ed25519:
		return "EdDSA, RFC 8032", []string{forSignatures}
	case api.Ed448:
		return "EdDSA, RFC 8032", []string{forSignatures}
	case api.SHA2x256, api.SHA2x384, api.SHA2x512, api.SHA3x256, api.SHA3x384, api.SHA3x512:
		return "HMAC, FIPS 198-1", []string{forMAC}
	case api.AES128, api.AES192, api.AES256:
		return "AES, FIPS 197", []string{forEncryption, forWrap}
	case api.MLKEM512:
		return "ML-KEM, FIPS 203", []string{forKEM}
	case api.MLKEM768, api.MLKEM1024:
		return "ML-KEM, FIPS 203", []string{forKEM, forEncryption}
	case api.MLDSA44, api.MLDSA65, api.MLDSA87:
		return "ML-DSA, FIPS 204", []string{forSignatures}
	}
	return "", nil
}

// isSymmetric tells whether keys of a type have no public half.
func isSymmetric(t api.KeyType) bool {
	switch t {
	case api.SHA2x256, api.SHA2x384, api.SHA2x512, api.SHA3x256, api.SHA3x384, api.SHA3x512, api.AES128, api.AES192, api.AES256:
		return true
	}
	return false
}

// publicTypes are those that have a public key.
func publicTypes() []api.KeyType { return slices.DeleteFunc(api.KeyTypes(), isSymmetric) }

// modesOf are the modes of a type, if it has any.
func modesOf(t api.KeyType) []string {
	switch t {
	case api.SECP256R1, api.SECP384R1, api.SECP521R1, api.SECP256K1:
		return []string{api.ModeECDH, api.ModeExDSA, api.ModeBoth}
	}
	return nil
}

// A keyJSON is a key in the output of all commands. Fields are only added.
type keyJSON struct {
	KID     hem.KID     `json:"kid"`
	Label   string      `json:"label,omitempty"`
	Type    api.KeyType `json:"type"`
	Traits  []string    `json:"traits,omitempty"`
	Created int64       `json:"created,omitempty"` // Unix seconds
	Updated int64       `json:"updated"`
	Descr   []byte      `json:"descr,omitempty"`
	Public  []byte      `json:"public,omitempty"` // key show
	DER     []byte      `json:"der,omitempty"`    // key show, certificates
}

func asJSON(k hem.KeyInfo) keyJSON {
	return keyJSON{
		KID: k.KID, Label: k.Label, Type: k.Traits.Type, Traits: traitWords(k.Traits),
		Created: k.Created.Unix(), Updated: k.Updated.Unix(), Descr: k.Descr,
	}
}

// traitWords are the words before the type in the protocol's type string.
func traitWords(t api.KeyTraits) []string {
	t.Type = ""
	words := strings.Split(t.String(), ",")
	return words[:len(words)-1]
}

// printKeys prints a list as it comes in.
func (o *options) printKeys(keys iter.Seq2[hem.KeyInfo, error]) error {
	p := o.newKeyPrinter()
	count := o.progress.count("listing keys, %d so far")
	for k, err := range keys {
		if err == nil {
			count.add(1)
			err = p.add(k)
		}
		if err != nil {
			return err
		}
	}
	return p.end()
}

// descrText is a description that can be printed.
func descrText(descr []byte) string {
	if len(descr) == 0 {
		return ""
	}
	if text := string(descr); isText(descr) && clean(text) == text {
		return text
	}
	return "base64:" + api.EncodeBase64(descr)
}

// A descrFlags is a description as it is given.
type descrFlags struct{ text, hex, base64 string }

func (d *descrFlags) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&d.text, "descr", "", "description, at most 64 bytes, by which keys can be searched for")
	f.StringVar(&d.hex, "descr-hex", "", "the same in `hex`")
	f.StringVar(&d.base64, "descr-base64", "", "the same in `base64`")
	exclude(c, "descr", "descr-hex", "descr-base64")
}

func (d *descrFlags) given(c *cobra.Command) bool {
	f := c.Flags()
	return f.Changed("descr") || f.Changed("descr-hex") || f.Changed("descr-base64")
}

func (d *descrFlags) bytes(c *cobra.Command) ([]byte, error) {
	var err error
	descr := []byte(d.text)
	switch {
	case d.hex != "":
		descr, err = hex.DecodeString(d.hex)
	case d.base64 != "":
		descr, err = api.DecodeBase64(d.base64)
	}
	if err != nil {
		return nil, &usageError{c.CommandPath(), "the description is not what its flag says"}
	}
	if len(descr) > api.MaxDescrBytes {
		return nil, &usageError{c.CommandPath(), fmt.Sprintf("the description has %d bytes, more than %d", len(descr), api.MaxDescrBytes)}
	}
	return descr, nil
}
