package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
)

// algMLDSA stands for the endpoints of ML-DSA, which have no alg.
const algMLDSA = "ML-DSA"

func signAlgs() []string {
	return []string{
		api.SHA256WithECDSA, api.SHA384WithECDSA, api.SHA512WithECDSA,
		api.AlgEd25519, api.AlgEd25519ph, api.AlgEd25519ctx, api.AlgEd448, api.AlgEd448ph, algMLDSA,
	}
}

const helpSignAlg = `The algorithm follows from the key's type: SHA256WithECDSA for P-256 and secp256k1,
SHA384WithECDSA for P-384, SHA512WithECDSA for P-521, Ed25519, Ed448 or ML-DSA; with --ctx, an
Ed25519 key has Ed25519ctx. --alg chooses another one, and then a full kid needs no second
request.`

// A signFlags says how to sign.
type signFlags struct {
	alg, ctx string
	rawECDSA bool
}

func (s *signFlags) flags(c *cobra.Command) {
	f := c.Flags()
	f.Var(oneOf(&s.alg, signAlgs()...), "alg", "algorithm (default: the one of the key's type)")
	f.StringVar(&s.ctx, "ctx", "", "context that the signature is bound to, at most 255 bytes; not for ECDSA")
	f.BoolVar(&s.rawECDSA, "raw-ecdsa", false, "the ECDSA signature is r and s in one, as in JOSE, and not DER")
	complete(c, "alg", signAlgs()...)
}

// algOf is the algorithm that keys of a type sign with, unless told otherwise.
func algOf(t api.KeyType, withContext bool) string {
	switch t {
	case api.SECP256R1, api.SECP256K1:
		return api.SHA256WithECDSA
	case api.SECP384R1:
		return api.SHA384WithECDSA
	case api.SECP521R1:
		return api.SHA512WithECDSA
	case api.Ed25519:
		if withContext {
			return api.AlgEd25519ctx
		}
		return api.AlgEd25519
	case api.Ed448:
		return api.AlgEd448
	case api.MLDSA44, api.MLDSA65, api.MLDSA87:
		return algMLDSA
	}
	return ""
}

// choose settles the algorithm, and finds out the type where that is needed.
func (s *signFlags) choose(ctx context.Context, c *cobra.Command, m *hem.Client, k namedKey) (alg string, t api.KeyType, err error) {
	if s.alg == "" || s.rawECDSA {
		if t, err = typeOf(ctx, m, k); err != nil {
			return "", "", err
		}
	}
	if alg = s.alg; alg == "" {
		alg = algOf(t, s.ctx != "")
	}
	ecdsa := strings.HasSuffix(alg, "ECDSA")
	switch {
	case alg == "":
		return "", t, &usageError{c.CommandPath(), fmt.Sprintf("keys of type %s do not sign", clean(string(t)))}
	case s.rawECDSA && !ecdsa:
		return "", t, &usageError{c.CommandPath(), fmt.Sprintf("--raw-ecdsa is for ECDSA, and this is %s", alg)}
	case s.ctx != "" && (ecdsa || alg == api.AlgEd25519):
		return "", t, &usageError{c.CommandPath(), fmt.Sprintf("%s has no --ctx", alg)}
	}
	return alg, t, nil
}

func newSignCmd(o *options) *cobra.Command {
	var s signFlags
	var in input
	var out output
	c := &cobra.Command{
		Use:   "sign KEY [FILE]",
		Short: "Sign a message of up to 2048 bytes",
		Long: `Have the module sign a message of 1 to 2048 bytes, and write the signature.

` + helpNames + `

` + helpInput + `

` + helpSignAlg + `

A module gets the message and hashes it itself, in every algorithm, those with ph included: it
signs no digest in the place of a message. What is longer can be signed by way of a digest that is a
message of its own:

    sha256sum FILE | hem sign KEY

The signature is then over that line of text. Who verifies it has to make the same line, and
compare the digest with that of the file.

--json has kid, alg and signature, in base64.`,
		Example: `  hem sign release notes.txt -o notes.sig
  hem sign release --text hello --format hex
  hem sign tls message.bin --alg SHA512WithECDSA --raw-ecdsa`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			msg, err := readMessage(c, o, &in, args[1:])
			if err != nil {
				return err
			}
			var alg string
			var sig []byte
			var kid hem.KID
			err = o.withKeys(c.Context(), useKey(args[0]), func(m *hem.Client, keys []namedKey) error {
				k := keys[0]
				if err := canSign(c, k); err != nil {
					return err
				}
				kid = k.KID
				chosen, t, err := s.choose(c.Context(), c, m, k)
				if err != nil {
					return err
				}
				if alg = chosen; alg == algMLDSA {
					sig, err = m.SignMLDSA(c.Context(), kid, msg, []byte(s.ctx))
				} else {
					sig, err = m.Sign(c.Context(), kid, msg, alg, []byte(s.ctx))
				}
				if err == nil && s.rawECDSA {
					sig, err = hem.ECDSAToRaw(t, sig)
				}
				return err
			})
			if err != nil {
				return err
			}
			return out.result(c, o, sig, struct {
				KID       hem.KID `json:"kid"`
				Alg       string  `json:"alg"`
				Signature []byte  `json:"signature"`
			}{kid, alg, sig})
		},
	}
	s.flags(c)
	in.flags(c, formatRaw)
	out.flags(c, formatBase64)
	return c
}

// canSign says why a key cannot, as far as that is known: a module does not.
func canSign(c *cobra.Command, k namedKey) error {
	switch {
	case !k.known:
		return nil
	case modesOf(k.Traits.Type) != nil && !k.Traits.ExDSA:
		return &usageError{c.CommandPath(), "this key is for ECDH only; one that signs is made with: hem key create --mode ExDSA"}
	case algOf(k.Traits.Type, false) != "" && !k.Traits.Private:
		return &usageError{c.CommandPath(), "this is someone's public key, which can verify and not sign"}
	}
	return nil
}

// readMessage reads what is signed or authenticated.
func readMessage(c *cobra.Command, o *options, in *input, args []string) ([]byte, error) {
	msg, err := in.read(c, o, args, api.MaxMessageBytes)
	if errors.Is(err, errTooLong) {
		file := "FILE"
		if len(args) > 0 && args[0] != "-" {
			file = clean(args[0])
		}
		return nil, &usageError{c.CommandPath(), fmt.Sprintf("the message has more than %d bytes, which is what a module takes; it hashes the message itself, so no digest can be given in its place. "+
			"Use a digest as a message: sha256sum %s | %s KEY, and the result is then over that line of text", api.MaxMessageBytes, file, c.CommandPath())}
	}
	return msg, err
}

func newVerifyCmd(o *options) *cobra.Command {
	var s signFlags
	var in input
	var sig proofFlags
	c := &cobra.Command{
		Use:   "verify KEY [FILE] --sig FILE",
		Short: "Verify a signature or MAC",
		Long: `Have the module verify a signature that hem sign made, or someone else with the private half
of an imported key; with an HMAC key, a MAC. Exit status 0 says that it is right, 5 that it
is not, or that there is no such key: the module does not tell which. A request has room for
7300 bytes of JSON, and so beside an ML-DSA-87 signature for some 790 bytes of message.

` + helpNames + `

` + helpInput + `

The signature ` + helpAuto + `

` + helpSignAlg + `

--json has kid, and verified, which is true or false.`,
		Example: `  hem verify release notes.txt --sig notes.sig
  hem verify ada message.bin --sig message.sig --alg SHA512WithECDSA`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			if !sig.given() {
				return &usageError{c.CommandPath(), "the signature is missing: --sig FILE or --sig-text TEXT"}
			}
			proof, err := sig.read(c, o)
			if err != nil {
				return err
			}
			msg, err := readMessage(c, o, &in, args[1:])
			if err != nil {
				return err
			}
			return o.verdict(c, useKey(args[0]), func(m *hem.Client, keys []namedKey) error {
				return s.verify(c.Context(), c, m, keys[0], msg, proof)
			})
		},
	}
	s.flags(c)
	in.flags(c, formatRaw)
	f := c.Flags()
	f.StringVar(&sig.file, "sig", "", "`file` with the signature, - for standard input")
	f.StringVar(&sig.text, "sig-text", "", "the signature itself, as base64 or hex")
	exclude(c, "sig", "sig-text")
	return c
}

// A proofFlags is a signature or a MAC that is checked.
type proofFlags struct{ file, text string }

func (p *proofFlags) given() bool { return p.file != "" || p.text != "" }

func (p *proofFlags) read(c *cobra.Command, o *options) ([]byte, error) {
	if p.file == "" {
		return decode([]byte(p.text), formatAuto)
	}
	f, err := o.openFile(c.Context(), p.file, "the signature or MAC")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	proof, err := readEncoded(f, formatAuto, maxEncoded)
	if errors.Is(err, errTooLong) || err == nil && len(proof) == 0 {
		err = &usageError{c.CommandPath(), "the signature or MAC is empty, or much too long"}
	}
	return proof, err
}

// verify verifies as the key's type wants it.
func (s *signFlags) verify(ctx context.Context, c *cobra.Command, m *hem.Client, k namedKey, msg, sig []byte) error {
	if k.known && modesOf(k.Traits.Type) != nil && !k.Traits.ExDSA {
		return &usageError{c.CommandPath(), "this key is for ECDH only, so the module verifies nothing with it; delete it and import it again: hem key import --mode ExDSA"}
	}
	if s.alg == "" {
		t, err := typeOf(ctx, m, k)
		if err != nil {
			return err
		}
		k.Traits.Type, k.known = t, true
		if isSymmetric(t) && strings.HasPrefix(string(t), "SHA") {
			if s.ctx != "" || s.rawECDSA {
				return &usageError{c.CommandPath(), "--ctx and --raw-ecdsa are for signatures, and this is an HMAC key"}
			}
			return m.VerifyHMAC(ctx, k.KID, msg, sig, nil)
		}
	}
	alg, t, err := s.choose(ctx, c, m, k)
	if err != nil {
		return err
	}
	if s.rawECDSA {
		if sig, err = hem.ECDSAFromRaw(t, sig); err != nil {
			return err
		}
	}
	if alg == algMLDSA {
		return m.VerifyMLDSA(ctx, k.KID, msg, sig, []byte(s.ctx))
	}
	return m.Verify(ctx, k.KID, msg, sig, alg, []byte(s.ctx))
}

// verdict has verify talk to the module and says what came of it.
func (o *options) verdict(c *cobra.Command, u keyUse, verify func(*hem.Client, []namedKey) error) error {
	var kid hem.KID
	err := o.withKeys(c.Context(), u, func(m *hem.Client, keys []namedKey) error {
		kid = keys[0].KID
		return verify(m, keys)
	})
	refused := errors.Is(err, hem.ErrVerification)
	if err != nil && !refused {
		return err
	}
	if o.json {
		printErr := printJSON(o.t.out, struct {
			KID      hem.KID `json:"kid"`
			Verified bool    `json:"verified"`
		}{kid, !refused})
		if printErr != nil {
			return printErr
		}
	}
	if !refused {
		o.note("verified with the key %v", kid)
	}
	return err
}
