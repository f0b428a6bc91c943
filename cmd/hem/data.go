package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"softhem/api"
)

// How bytes are written in files and on the screen.
const (
	formatRaw    = "raw"
	formatBase64 = "base64"
	formatHex    = "hex"
	formatAuto   = "auto" // input only
)

func formats() []string { return []string{formatRaw, formatBase64, formatHex} }

// maxEncoded is how much text is read of what ends up as a few thousand bytes.
const maxEncoded = 64 << 10

const helpInput = `FILE is standard input when it is - or left out; --text gives the data as an argument
instead, which every user of this machine can see.`

const helpAuto = `is read as hex if there is nothing but hex digits in it, else as base64 if it is
that, else as it is; --input-format settles it.`

// An input is where a command's data comes from.
type input struct {
	text, format string
}

func (in *input) flags(c *cobra.Command, format string) {
	f := c.Flags()
	f.StringVar(&in.text, "text", "", "the data itself; other users can see it")
	in.format = format
	words := formats()
	if format == formatAuto {
		words = append(words, formatAuto)
	}
	f.Var(oneOf(&in.format, words...), "input-format", "how the data is written: "+orList(words))
	complete(c, "input-format", words...)
}

// open begins to read FILE, the one argument in args if there is one, or --text.
func (in *input) open(c *cobra.Command, o *options, args []string) (io.ReadCloser, error) {
	path := ""
	if len(args) > 0 {
		path = args[0]
	}
	switch {
	case c.Flags().Changed("text") && path != "":
		return nil, &usageError{c.CommandPath(), "FILE and --text exclude each other"}
	case c.Flags().Changed("text"):
		return io.NopCloser(strings.NewReader(in.text)), nil
	case path == "" || path == "-":
		if f, ok := o.t.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			if path == "" {
				return nil, &usageError{c.CommandPath(), "there is no data: name a file, or - to type it, or give it with --text"}
			}
			o.note("type the data, then press Enter and Ctrl-D")
		}
	}
	if path == "" {
		path = "-"
	}
	return o.openFile(c.Context(), path, "the data")
}

// openFile opens a file, - being standard input.
func (o *options) openFile(ctx context.Context, path, what string) (io.ReadCloser, error) {
	if path == "-" {
		return o.claimStdin(ctx, what)
	}
	return os.Open(path)
}

// claimStdin is standard input, which can be read for one thing only. Reading it
// ends with ctx, as nothing else would interrupt who waits for a terminal.
func (o *options) claimStdin(ctx context.Context, what string) (io.ReadCloser, error) {
	if o.stdinFor != "" {
		return nil, &usageError{"hem", fmt.Sprintf("standard input was read for %s and cannot be for %s too", o.stdinFor, what)}
	}
	o.stdinFor = what
	r, w := io.Pipe()
	go func() {
		_, err := io.Copy(w, o.t.in)
		w.CloseWithError(err)
	}()
	context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
	return r, nil
}

// errTooLong is data that does not fit.
var errTooLong = errors.New("it is too long")

// read reads all data, at most most bytes of it: more is errTooLong.
func (in *input) read(c *cobra.Command, o *options, args []string, most int) ([]byte, error) {
	r, err := in.open(c, o, args)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := readEncoded(r, in.format, most)
	if bad, ok := errors.AsType[*formatError](err); ok {
		return nil, &usageError{c.CommandPath(), "the data is " + bad.Error()}
	}
	if err == nil && len(data) == 0 {
		err = &usageError{c.CommandPath(), "the data is empty"}
	}
	return data, err
}

// A formatError is text that is not what it should be.
type formatError struct{ format string }

func (e *formatError) Error() string { return "no " + e.format }

// readEncoded reads at most most bytes, written in some format.
func readEncoded(r io.Reader, format string, most int) ([]byte, error) {
	limit := max(most, maxEncoded)
	if format == formatRaw {
		limit = most
	}
	text, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(text) > limit {
		return nil, errTooLong
	}
	data, err := decode(text, format)
	if err == nil && len(data) > most {
		err = errTooLong
	}
	return data, err
}

// decode takes white space anywhere in base64 and hex.
func decode(text []byte, format string) ([]byte, error) {
	if format == formatRaw {
		return text, nil
	}
	word := strings.Join(strings.Fields(string(text)), "")
	asHex, hexErr := hex.DecodeString(word)
	asBase64, base64Err := api.DecodeBase64(word)
	switch {
	case format == formatHex && hexErr == nil, format == formatAuto && hexErr == nil && word != "":
		return asHex, nil
	case format == formatBase64 && base64Err == nil, format == formatAuto && base64Err == nil && word != "":
		return asBase64, nil
	case format == formatAuto:
		return text, nil
	}
	return nil, &formatError{format}
}

// encode ends what is text with a newline.
func encode(data []byte, format string) []byte {
	switch format {
	case formatBase64:
		return []byte(api.EncodeBase64(data) + "\n")
	case formatHex:
		return []byte(hex.EncodeToString(data) + "\n")
	}
	return data
}

// newBase64Writer is encode for what is too long to be kept.
func newBase64Writer(w io.Writer) io.WriteCloser {
	return &base64Writer{base64.NewEncoder(base64.StdEncoding, w), w}
}

type base64Writer struct {
	io.WriteCloser
	w io.Writer
}

func (b *base64Writer) Close() error {
	if err := b.WriteCloser.Close(); err != nil {
		return err
	}
	_, err := io.WriteString(b.w, "\n")
	return err
}

// An output is where a command's result goes, and in which form.
type output struct {
	format, path string
}

func (out *output) flags(c *cobra.Command, format string) {
	out.format = format
	c.Flags().Var(oneOf(&out.format, formats()...), "format", "how the result is written: "+orList(formats()))
	complete(c, "format", formats()...)
	out.fileFlag(c)
}

func (out *output) fileFlag(c *cobra.Command) {
	c.Flags().StringVarP(&out.path, "output", "o", "", "`file` to write to, for you alone to read, instead of standard output")
}

// toFile tells whether the result goes to a file, and refuses what is none.
func (out *output) toFile(c *cobra.Command) (bool, error) {
	if out.path == "" || out.path == "-" {
		return false, nil
	}
	if info, err := os.Stat(out.path); err == nil && !info.Mode().IsRegular() {
		return false, &usageError{c.CommandPath(), "-o is not a file; for anything else use standard output"}
	}
	return true, nil
}

// put has write fill the file, or standard output. A file is there when all of
// it is.
func (out *output) put(c *cobra.Command, o *options, write func(io.Writer) error) error {
	file, err := out.toFile(c)
	if err != nil {
		return err
	}
	if !file {
		return write(o.t.out)
	}
	err = writeBeside(out.path, func(f *os.File) error { return write(f) })
	if err == nil {
		o.note("written to %s", out.path)
	}
	return err
}

// result writes data, or with --json what stands for it there.
func (out *output) result(c *cobra.Command, o *options, data []byte, asJSON any) error {
	return out.put(c, o, func(w io.Writer) error {
		if o.json {
			return printJSON(w, asJSON)
		}
		if out.format == formatRaw && !c.Flags().Changed("format") {
			w = sparing(w)
		}
		if _, err := w.Write(encode(data, out.format)); err != nil {
			return err
		}
		return whole(w)
	})
}

// sparing keeps a terminal from what is not text.
func sparing(w io.Writer) io.Writer {
	if isTerminal(w) {
		return &textOnly{w: w}
	}
	return w
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// textOnly passes text on, and stops at what could steer a terminal.
type textOnly struct {
	w    io.Writer
	rest []byte // the beginning of a character
}

var errNotText = errors.New("the result is not text, which a terminal should not be shown: use -o FILE, or --format base64, or --format raw if you mean it")

func (t *textOnly) Write(p []byte) (int, error) {
	text := append(t.rest, p...)
	whole := len(text)
	for i := 1; i < utf8.UTFMax && i <= len(text); i++ {
		if tail := text[len(text)-i:]; utf8.RuneStart(tail[0]) && !utf8.FullRune(tail) {
			whole -= i
			break
		}
	}
	t.rest = bytes.Clone(text[whole:])
	if text = text[:whole]; !isText(text) {
		return 0, errNotText
	}
	if _, err := t.w.Write(text); err != nil {
		return 0, err
	}
	return len(p), nil
}

// whole tells whether all that was written to w has come out, half a character
// being no text.
func whole(w io.Writer) error {
	if t, ok := w.(*textOnly); ok && len(t.rest) > 0 {
		return errNotText
	}
	return nil
}

func isText(b []byte) bool {
	return utf8.Valid(b) && !bytes.ContainsFunc(b, func(r rune) bool {
		return !unicode.IsPrint(r) && r != '\n' && r != '\t'
	})
}
