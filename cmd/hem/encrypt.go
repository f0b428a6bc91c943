package main

import (
	"bytes"
	"context"
	"crypto/hpke"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/envelope"
)

func cipherAlgs() []string {
	return []string{
		hem.AES128GCM, hem.AES192GCM, hem.AES256GCM,
		hem.AES128CBC, hem.AES192CBC, hem.AES256CBC,
		hem.AES128ECB, hem.AES192ECB, hem.AES256ECB,
	}
}

// A cipherFlags is how a small message is encrypted.
type cipherFlags struct {
	kdfFlags
	alg, aad string
}

func (f *cipherFlags) flags(c *cobra.Command) {
	f.kdfFlags.flags(c)
	c.Flags().Var(oneOf(&f.alg, cipherAlgs()...), "alg", "cipher of a small message: AES128, AES192 or AES256, and -GCM, -CBC or -ECB (default: GCM with all of the key, with a peer AES256-GCM)")
	c.Flags().StringVar(&f.aad, "aad", "", "text that is authenticated with a small message, and not part of it; GCM only")
	complete(c, "alg", cipherAlgs()...)
}

// special tells whether any of it was asked for.
func (f *cipherFlags) special() bool { return f.given() || f.alg != "" || f.aad != "" }

func (f *cipherFlags) options(peer hem.Peer, keys []namedKey) *hem.CipherOptions {
	return &hem.CipherOptions{AAD: []byte(f.aad), Peer: f.among(peer, keys), Context: []byte(f.ctx)}
}

// cipherAlg is how keys of a type encrypt, or "".
func cipherAlg(t api.KeyType) string {
	if _, ok := wrapAlg(t); ok {
		return string(t) + "-GCM"
	}
	return ""
}

// A compact is a small message, encrypted: IV ‖ ciphertext ‖ tag, without what
// the cipher does not have.
type compact struct {
	KID        hem.KID `json:"kid"`
	Alg        string  `json:"alg"`
	IV         []byte  `json:"iv,omitempty"`
	Ciphertext []byte  `json:"ciphertext"`
	Tag        []byte  `json:"tag,omitempty"`
}

func (m *compact) bytes() []byte {
	return bytes.Join([][]byte{m.IV, m.Ciphertext, m.Tag}, nil)
}

// parseCompact takes sealed apart.
func parseCompact(alg string, sealed []byte) (*hem.Ciphertext, bool) {
	ct := &hem.Ciphertext{Data: sealed}
	if !strings.HasSuffix(alg, "ECB") {
		if len(ct.Data) < api.CipherIVBytes {
			return nil, false
		}
		ct.IV, ct.Data = ct.Data[:api.CipherIVBytes], ct.Data[api.CipherIVBytes:]
	}
	if n := len(ct.Data) - api.CipherTagBytes; strings.HasSuffix(alg, "GCM") {
		if n < 0 {
			return nil, false
		}
		ct.Data, ct.Tag = ct.Data[:n], ct.Data[n:]
	}
	return ct, len(ct.Data) > 0
}

const helpEnvelope = `An envelope is an age file (age-encryption.org/v1) that is made here: the module wraps its
key of 16 bytes and gets nothing else of it. There is one for AES keys, and for CURVE25519,
MLKEM768 and MLKEM1024 keys, for which the module is needed only to decrypt.`

func newEncryptCmd(o *options) *cobra.Command {
	var in input
	var out output
	var f cipherFlags
	var asEnvelope bool
	c := &cobra.Command{
		Use:   "encrypt KEY [FILE]",
		Short: "Encrypt a message, or a file of any size",
		Long: `Encrypt what hem decrypt decrypts. Up to 2048 bytes go to the module, for an AES key or with a
peer, and come back as IV, ciphertext and tag in one, written as base64. All else becomes an
envelope, and a line says so.

` + helpEnvelope + ` It is
written as bytes; --format base64 makes it text.

` + helpNames + `

` + helpInput + `

With a peer, KEY is one on a curve, and the AES key comes from the ECDH secret by HKDF-SHA256.

--json, for a small message only, has kid, alg, iv, ciphertext and tag, in base64.`,
		Example: `  hem encrypt backup --text hello
  hem encrypt backup disk.img -o disk.img.age
  hem encrypt theirs letter.txt -o letter.age
  hem encrypt mine --peer theirs --aad invoice-7 invoice.txt --json`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			if asEnvelope && f.special() {
				return &usageError{c.CommandPath(), "--envelope excludes --alg, --aad, --peer and --peer-file"}
			}
			if err := f.check(c); err != nil {
				return err
			}
			peer, err := f.read(c, o)
			if err != nil {
				return err
			}
			src, err := in.open(c, o, args[1:])
			if err != nil {
				return err
			}
			defer src.Close()
			if in.format != formatRaw {
				data, err := readEncoded(src, in.format, maxEncoded)
				if errors.Is(err, errTooLong) {
					err = &usageError{c.CommandPath(), fmt.Sprintf("more than %d bytes have to be raw", maxEncoded)}
				}
				if bad, ok := errors.AsType[*formatError](err); ok {
					err = &usageError{c.CommandPath(), "the data is " + bad.Error()}
				}
				if err != nil {
					return err
				}
				src = io.NopCloser(bytes.NewReader(data))
			}
			start := make([]byte, api.MaxMessageBytes+1)
			n, err := io.ReadFull(src, start)
			if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				return err
			}
			e := &encryption{c: c, o: o, out: &out, cipher: &f, peer: peer, start: start[:n], rest: src}
			e.small = n > 0 && n <= api.MaxMessageBytes && !asEnvelope
			return o.withKeys(c.Context(), useKey(f.with(args[0])...), e.run)
		},
	}
	f.flags(c)
	in.flags(c, formatRaw)
	out.flags(c, formatBase64)
	c.Flags().BoolVar(&asEnvelope, "envelope", false, "make an envelope, however small the file is")
	return c
}

// An encryption is one run of hem encrypt.
type encryption struct {
	c      *cobra.Command
	o      *options
	out    *output
	cipher *cipherFlags
	peer   hem.Peer
	start  []byte    // of the data, up to a byte more than the module takes
	rest   io.Reader // of the data
	small  bool      // start is all, and may go to the module
}

func (e *encryption) usage(format string, args ...any) error {
	return &usageError{e.c.CommandPath(), fmt.Sprintf(format, args...)}
}

func (e *encryption) run(m *hem.Client, keys []namedKey) error {
	ctx, k := e.c.Context(), keys[0]
	alg := e.cipher.alg
	if alg == "" && e.cipher.given() {
		alg = hem.AES256GCM
	}
	if e.cipher.special() && !e.small {
		return e.usage("the data is empty or has more than %d bytes, which needs an envelope; that has no --alg, --aad, --peer or --peer-file", api.MaxMessageBytes)
	}
	var t api.KeyType
	if alg == "" {
		var err error
		if t, err = typeOf(ctx, m, k); err != nil {
			return err
		}
		alg = cipherAlg(t)
	}
	if e.small && alg != "" {
		return e.compact(ctx, m, keys, alg)
	}
	switch {
	case !envelope.Takes(t):
		return e.usage("keys of type %s do not encrypt without a peer, if at all; hem key types says which do", clean(string(t)))
	case e.o.json:
		return e.usage("an envelope is a file; --json is for messages that fit the module")
	case e.out.format == formatHex:
		return e.usage("an envelope is raw or base64")
	}
	return e.envelope(ctx, m, k.KID, t)
}

func (e *encryption) compact(ctx context.Context, m *hem.Client, keys []namedKey, alg string) error {
	kid := keys[0].KID
	ct, err := m.Encrypt(ctx, kid, alg, e.start, e.cipher.options(e.peer, keys))
	if err != nil {
		return err
	}
	sealed := &compact{KID: kid, Alg: alg, IV: ct.IV, Ciphertext: ct.Data, Tag: ct.Tag}
	e.o.progress.end() // the result may go to the same terminal
	return e.out.result(e.c, e.o, sealed.bytes(), sealed)
}

func (e *encryption) envelope(ctx context.Context, m *hem.Client, kid hem.KID, t api.KeyType) error {
	text := e.c.Flags().Changed("format") && e.out.format == formatBase64
	file, err := e.out.toFile(e.c)
	if err != nil {
		return err
	}
	if !file && !text && !e.c.Flags().Changed("format") && isTerminal(e.o.t.out) {
		return e.usage("an envelope is not for a terminal: use -o FILE, or --format base64")
	}
	to, err := recipient(ctx, m, kid, t)
	if err != nil {
		return err
	}
	if !file {
		e.o.progress.hide()
	}
	written := e.o.progress.count("%d bytes encrypted")
	err = e.out.put(e.c, e.o, func(w io.Writer) error {
		content, err := envelope.Seal(w, to, text)
		if err != nil {
			return err
		}
		if err := copyCounted(ctx, content, io.MultiReader(bytes.NewReader(e.start), e.rest), written); err != nil {
			return err
		}
		return content.Close()
	})
	if err == nil {
		e.o.note("made an envelope of %d bytes of data for the key %v: the module has the key, not the data", written.n, kid)
	}
	return err
}

// copyCounted copies until the end, or until ctx is done.
func copyCounted(ctx context.Context, w io.Writer, r io.Reader, n *count) error {
	buf := make([]byte, 64<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		k, err := r.Read(buf)
		if k > 0 {
			if _, err := w.Write(buf[:k]); err != nil {
				return err
			}
			n.add(int64(k))
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// recipient is a key that an envelope is made for.
func recipient(ctx context.Context, m *hem.Client, kid hem.KID, t api.KeyType) (envelope.Recipient, error) {
	if alg, ok := wrapAlg(t); ok {
		return envelope.ForAES(kid.String(), alg, func(key []byte) ([]byte, error) {
			return m.Wrap(ctx, kid, key, &hem.WrapOptions{Alg: alg})
		}), nil
	}
	var public hpke.PublicKey
	private, err := privateKey(ctx, m, kid, t)
	if err == nil {
		public = private.PublicKey()
	}
	return envelope.ForPublic(kid.String(), t, public), err
}

// privateKey stands for a key in the module, of which it reads the public half.
func privateKey(ctx context.Context, m *hem.Client, kid hem.KID, t api.KeyType) (hpke.PrivateKey, error) {
	if t == api.Curve25519 {
		key, err := m.ECDHKey(ctx, kid)
		if err != nil {
			return nil, err
		}
		return hpke.NewDHKEMPrivateKey(key)
	}
	key, err := m.Decapsulator(ctx, kid)
	if err != nil {
		return nil, err
	}
	return hpke.NewMLKEMPrivateKey(key)
}
