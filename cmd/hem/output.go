package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// printJSON writes one object, indented.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// A table is rows of a name and a value, printed with the values aligned.
type table struct {
	rows [][2]string
}

func (t *table) add(name, format string, args ...any) {
	t.rows = append(t.rows, [2]string{name, clean(fmt.Sprintf(format, args...))})
}

// addText adds a row unless there is nothing to say.
func (t *table) addText(name, value string) {
	if value != "" {
		t.add(name, "%s", value)
	}
}

func (t *table) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range t.rows {
		fmt.Fprintf(tw, "%s\t%s\n", row[0], row[1])
	}
	return tw.Flush()
}

// clean keeps what a module says from steering the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// instant prints Unix seconds.
func instant(seconds int64) string {
	return time.Unix(seconds, 0).UTC().Format(time.RFC3339)
}

// relative says how far seconds is from now.
func relative(seconds int64, now time.Time) string {
	d := seconds - now.Unix()
	if d < 0 {
		return span(-d) + " ago"
	}
	return "in " + span(d)
}

// span prints a number of seconds in its two largest units.
func span(seconds int64) string {
	const (
		minute = 60
		hour   = 60 * minute
		day    = 24 * hour
		year   = 365 * day
	)
	switch {
	case seconds < minute:
		return fmt.Sprintf("%d s", seconds)
	case seconds < hour:
		return pair(seconds, minute, "min", 1, "s")
	case seconds < day:
		return pair(seconds, hour, "h", minute, "min")
	case seconds < year:
		return pair(seconds, day, "d", hour, "h")
	}
	return pair(seconds, year, "y", day, "d")
}

func pair(seconds, large int64, largeName string, small int64, smallName string) string {
	text := fmt.Sprintf("%d %s", seconds/large, largeName)
	if rest := seconds % large / small; rest > 0 {
		text += fmt.Sprintf(" %d %s", rest, smallName)
	}
	return text
}
