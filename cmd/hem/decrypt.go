package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hpke"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/envelope"
)

func newDecryptCmd(o *options) *cobra.Command {
	var in input
	var out output
	var f cipherFlags
	c := &cobra.Command{
		Use:   "decrypt KEY [FILE]",
		Short: "Decrypt what hem encrypt made",
		Long: `Decrypt what hem encrypt made: an envelope, a small message in one, or its --json. Which it is
shows in itself; what --alg, --aad, --ctx and the peer were, must be given as for encrypting.

` + helpEnvelope + `

Of an envelope, or a message under AES-GCM, that was changed or cut, nothing ends up in a
file named with -o. CBC and ECB do not notice changes. On standard output
an envelope comes as it is read, and what has come may be a beginning only: the exit status
says whether it was all.

` + helpNames + `

` + helpInput + `
A small message ` + helpAuto + `

The result is written as it is. A terminal is shown text only, unless --format says raw.

--json, for a small message only, has kid, alg and plaintext, in base64.`,
		Example: `  hem decrypt backup disk.img.age -o disk.img
  hem decrypt backup message.txt`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
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
			d := &decryption{c: c, o: o, out: &out, cipher: &f, peer: peer, src: bufio.NewReaderSize(src, 64<<10)}
			head, err := d.src.Peek(1024)
			if err != nil && err != io.EOF {
				return err
			}
			if envelope.Is(head) {
				if f.special() || o.json || out.format == formatHex {
					return d.usage("this is an envelope, which has no --alg, --aad, peer or --json, and whose data is written raw or as base64")
				}
				return o.withKeys(c.Context(), useKey(args[0]), d.envelope)
			}
			if err := d.readCompact(in.format); err != nil {
				return err
			}
			return o.withKeys(c.Context(), useKey(f.with(args[0])...), d.compact)
		},
	}
	f.flags(c)
	in.flags(c, formatAuto)
	out.flags(c, formatRaw)
	return c
}

// A decryption is one run of hem decrypt.
type decryption struct {
	c      *cobra.Command
	o      *options
	out    *output
	cipher *cipherFlags
	peer   hem.Peer
	src    *bufio.Reader

	sealed []byte   // a small message
	fields *compact // or its fields
}

func (d *decryption) usage(text string) error { return &usageError{d.c.CommandPath(), text} }

// readCompact reads a small message.
func (d *decryption) readCompact(format string) error {
	const most = api.CipherIVBytes + api.MaxDecryptBytes + api.CipherTagBytes
	text, err := io.ReadAll(io.LimitReader(d.src, maxEncoded+1))
	if err != nil {
		return err
	}
	if format == formatAuto && bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		var fields compact
		if json.Unmarshal(text, &fields) == nil && len(fields.Ciphertext) > 0 {
			d.fields = &fields
			return nil
		}
	}
	d.sealed, err = decode(text, format)
	switch bad, isFormat := errors.AsType[*formatError](err); {
	case isFormat:
		return d.usage("the data is " + bad.Error())
	case err != nil:
		return err
	case len(d.sealed) > most:
		return d.usage("the data is neither an envelope nor a small message")
	case len(d.sealed) == 0:
		return d.usage("the data is empty")
	}
	return nil
}

func (d *decryption) compact(m *hem.Client, keys []namedKey) error {
	ctx, k := d.c.Context(), keys[0]
	alg := d.cipher.alg
	if d.fields != nil {
		// What a file says of itself may have been changed with it: it must not
		// choose a cipher that notices no changes, nor stand for another key.
		if d.fields.KID != (hem.KID{}) && d.fields.KID != k.KID {
			return d.usage(fmt.Sprintf("this was encrypted for the key %v, not for %v", d.fields.KID, k.KID))
		}
		if alg == "" && d.fields.Alg != "" {
			if !strings.HasSuffix(d.fields.Alg, "-GCM") {
				return d.usage(fmt.Sprintf("the file says %s, which does not notice that data was changed; if that is right, give --alg %[1]s", clean(d.fields.Alg)))
			}
			alg = d.fields.Alg
		}
	}
	if alg == "" && d.cipher.given() {
		alg = hem.AES256GCM
	}
	if alg == "" {
		t, err := typeOf(ctx, m, k)
		if err != nil {
			return err
		}
		if alg = cipherAlg(t); alg == "" {
			return d.usage(fmt.Sprintf("keys of type %s decrypt envelopes, or with a peer, if at all, and this is no envelope", clean(string(t))))
		}
	}
	var ct *hem.Ciphertext
	if d.fields != nil {
		ct = &hem.Ciphertext{Data: d.fields.Ciphertext, IV: d.fields.IV, Tag: d.fields.Tag}
	} else {
		var ok bool
		if ct, ok = parseCompact(alg, d.sealed); !ok {
			return d.usage("the data is too short to be encrypted with " + alg)
		}
	}
	plain, err := m.Decrypt(ctx, k.KID, alg, ct, d.cipher.options(d.peer, keys))
	if err != nil {
		return err
	}
	defer clear(plain)
	d.o.progress.end() // the result may go to the same terminal
	return d.out.result(d.c, d.o, plain, struct {
		KID       hem.KID `json:"kid"`
		Alg       string  `json:"alg"`
		Plaintext []byte  `json:"plaintext"`
	}{k.KID, alg, plain})
}

// A partialError is an envelope that broke off after some of it was
// written to standard output.
type partialError struct {
	err   error
	bytes int64
}

func (e *partialError) Error() string {
	return fmt.Sprintf("%v; the %d bytes that were written are not all, and may be cut anywhere: throw them away", e.err, e.bytes)
}

func (e *partialError) Unwrap() error { return e.err }

func (d *decryption) envelope(m *hem.Client, keys []namedKey) error {
	ctx, kid := d.c.Context(), keys[0].KID
	content, err := envelope.Open(d.src, envelope.Key{
		KID: kid.String(),
		Unwrap: func(alg api.KeyType, wrapped []byte) ([]byte, error) {
			return m.Unwrap(ctx, kid, wrapped, &hem.WrapOptions{Alg: alg})
		},
		Private: func(t api.KeyType) (hpke.PrivateKey, error) { return privateKey(ctx, m, kid, t) },
	})
	if err != nil {
		return err
	}
	file, err := d.out.toFile(d.c)
	if err != nil {
		return err
	}
	if !file && isTerminal(d.o.t.out) {
		d.o.progress.end() // the result goes to the same terminal
	}
	written := d.o.progress.count("%d bytes decrypted")
	err = d.out.put(d.c, d.o, func(w io.Writer) error {
		return d.write(ctx, w, content, written)
	})
	if err != nil && !file && written.n > 0 {
		err = &partialError{err, written.n}
	}
	return err
}

// write writes what is in an envelope, and counts it.
func (d *decryption) write(ctx context.Context, w io.Writer, content io.Reader, n *count) error {
	if d.out.format == formatBase64 {
		text := newBase64Writer(w)
		if err := copyCounted(ctx, text, content, n); err != nil {
			return err
		}
		return text.Close()
	}
	if !d.c.Flags().Changed("format") {
		w = sparing(w)
	}
	if err := copyCounted(ctx, w, content, n); err != nil {
		return err
	}
	return whole(w)
}
