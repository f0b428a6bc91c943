package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"softhem/hem"
)

// A keyPrinter prints a list of keys of any length as it comes in.
type keyPrinter interface {
	add(hem.KeyInfo) error
	end() error
}

func (o *options) newKeyPrinter() keyPrinter {
	if o.json {
		return &keyArray{w: o.t.out}
	}
	if isTerminal(o.t.out) {
		width, _, err := term.GetSize(int(o.t.out.(*os.File).Fd()))
		if err != nil || width <= 0 {
			width = 80
		}
		return &keyTable{o: o, width: width}
	}
	return &keyLines{w: o.t.out}
}

// keyArray writes an array of objects. It is closed only when it is whole.
type keyArray struct {
	w     io.Writer
	begun bool
}

func (a *keyArray) add(k hem.KeyInfo) error {
	var b bytes.Buffer
	b.WriteString("[\n  ")
	if a.begun {
		b.Reset()
		b.WriteString(",\n  ")
	}
	a.begun = true
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("  ", "  ")
	if err := enc.Encode(asJSON(k)); err != nil {
		return err
	}
	_, err := a.w.Write(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
	return err
}

func (a *keyArray) end() error {
	end := "[]\n"
	if a.begun {
		end = "\n]\n"
	}
	_, err := io.WriteString(a.w, end)
	return err
}

// keyLines writes a line for each key, for programs.
type keyLines struct{ w io.Writer }

func (l *keyLines) add(k hem.KeyInfo) error {
	_, err := fmt.Fprintf(l.w, "%v\t%s\t%s\t%s\t%s\t%s\n", k.KID, clean(k.Label), clean(string(k.Traits.Type)),
		instant(k.Created.Unix()), instant(k.Updated.Unix()), descrText(k.Descr))
	return err
}

func (l *keyLines) end() error { return nil }

// keyTable writes a table for people. Columns are as wide as a block of rows
// needs, so that the first rows do not wait for the last.
type keyTable struct {
	o      *options
	width  int
	rows   [][]string
	headed bool
}

const tableBlock = 240 // rows

func (t *keyTable) add(k hem.KeyInfo) error {
	t.rows = append(t.rows, []string{
		k.KID.String(), clean(k.Label), clean(typeText(k)), instant(k.Created.Unix()), descrText(k.Descr),
	})
	if len(t.rows) == tableBlock {
		return t.flush()
	}
	return nil
}

// typeText is the type, with what does not go without saying.
func typeText(k hem.KeyInfo) string {
	text := string(k.Traits.Type)
	if modesOf(k.Traits.Type) != nil {
		for _, mode := range []struct {
			has  bool
			name string
		}{{k.Traits.ECDH, "ECDH"}, {k.Traits.ExDSA, "ExDSA"}} {
			if mode.has {
				text += "," + mode.name
			}
		}
	}
	if !k.Traits.Private && !isSymmetric(k.Traits.Type) {
		text += " (public)"
	}
	return text
}

func (t *keyTable) end() error {
	if err := t.flush(); err != nil {
		return err
	}
	if !t.headed {
		t.o.note("there are none")
	}
	return nil
}

// The columns of a table of keys.
const (
	colKID = iota
	colLabel
	colType
	colCreated
	colDescr
	columns
)

const gap = 2 // between columns

func (t *keyTable) flush() error {
	if len(t.rows) == 0 {
		return nil
	}
	rows := t.rows
	t.rows = nil
	if !t.headed {
		t.headed = true
		rows = append([][]string{{"KID", "LABEL", "TYPE", "CREATED", "DESCR"}}, rows...)
	}
	widths := fitColumns(rows, t.width)
	t.o.progress.end() // it would get between the rows
	var b strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			if widths[i] == 0 {
				continue
			}
			if line.Len() > 0 {
				line.WriteString(strings.Repeat(" ", gap))
			}
			cell = cut(cell, widths[i], i == colKID || i == colCreated)
			line.WriteString(cell + strings.Repeat(" ", widths[i]-cells(cell)))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(t.o.t.out, b.String())
	return err
}

// fitColumns says how wide each column may be, 0 for one left out, so that all fit into
// width, as long as there is room for the shortest table at all.
func fitColumns(rows [][]string, width int) [columns]int {
	var w [columns]int
	for _, row := range rows {
		for i, cell := range row {
			w[i] = max(w[i], cells(cell))
		}
	}
	over := func() int {
		sum := -gap
		for _, n := range w {
			if n > 0 {
				sum += n + gap
			}
		}
		return sum - width
	}
	// From what is missed least to what is missed most.
	for _, shrink := range []struct{ column, to int }{
		{colDescr, 24}, {colCreated, len("2006-01-02")}, {colKID, 8}, {colDescr, 8}, {colDescr, 0}, {colCreated, 0},
		{colLabel, 12}, {colType, 10}, {colLabel, 6}, {colType, 0}, {colLabel, 0},
	} {
		n := over()
		if n <= 0 {
			break
		}
		was := w[shrink.column]
		if shrink.to >= was {
			continue
		}
		w[shrink.column] = shrink.to
		// Text may be cut anywhere, a kid and a time at one place only.
		if shrink.to > 0 && shrink.column != colKID && shrink.column != colCreated {
			w[shrink.column] = max(shrink.to, was-n)
		}
	}
	return w
}

// cells is how many columns of a terminal text takes, at most.
func cells(s string) (n int) {
	for _, r := range s {
		n += runeCells(r)
	}
	return n
}

// runeCells counts what may be wide as wide.
func runeCells(r rune) int {
	if r >= 0x1100 {
		return 2
	}
	return 1
}

// cut shortens text to n cells; what was cut shows, unless plain.
func cut(s string, n int, plain bool) string {
	if cells(s) <= n {
		return s
	}
	mark := "~"
	if plain || n < 2 {
		mark = ""
	}
	room := n - len(mark)
	end := 0
	for _, r := range s {
		if room -= runeCells(r); room < 0 {
			break
		}
		end += utf8.RuneLen(r)
	}
	return s[:end] + mark
}
