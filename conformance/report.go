package conformance

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode"
)

// An Outcome is how a check ended.
type Outcome string

const (
	Pass  Outcome = "pass"
	Fail  Outcome = "fail"
	Skip  Outcome = "skip"  // it was not looked at, and Reason says why
	Quirk Outcome = "quirk" // it differs as the firmware of Options.Quirks is known to
)

// A Result is what came of one check. Its JSON is stable.
type Result struct {
	Check
	Outcome Outcome `json:"outcome"`
	// Reason says what differs, or why it was skipped. Empty for a pass.
	Reason string `json:"reason,omitzero"`
	// Exchange is the request of a failed check and what was answered.
	Exchange *Exchange `json:"exchange,omitzero"`
	Millis   int64     `json:"ms"` // how long it took
}

// An Exchange is a request and its answer, without tokens: whatever looks like one
// is replaced. Long texts are cut.
type Exchange struct {
	Request string `json:"request"` // method and address
	Body    string `json:"body,omitzero"`
	Bearer  bool   `json:"bearer,omitzero"` // a token was sent
	Status  int    `json:"status"`          // 0: there was no answer
	Reason  string `json:"x_hem_error,omitzero"`
	Answer  string `json:"answer,omitzero"`
}

// A Report is what a walk found. Its JSON is stable.
type Report struct {
	URL         string   `json:"url"`
	FWV         string   `json:"fwv"`
	HWV         string   `json:"hwv"`
	Quirks      string   `json:"quirks,omitzero"`
	Accelerated bool     `json:"accelerated"`
	Passed      int      `json:"passed"`
	FailedCount int      `json:"failed"`
	Skipped     int      `json:"skipped"`
	Known       int      `json:"known_quirks"`
	Results     []Result `json:"results"`
}

// Failed tells whether any check failed.
func (r *Report) Failed() bool { return r.FailedCount > 0 }

func (r *Report) add(res Result) {
	switch res.Outcome {
	case Pass:
		r.Passed++
	case Fail:
		r.FailedCount++
	case Skip:
		r.Skipped++
	case Quirk:
		r.Known++
	}
	r.Results = append(r.Results, res)
}

// WriteJSON writes the report as one indented object.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// WriteText writes the report for people: by groups, with what differs under each
// check that failed, and the sums at its end.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s, %s\n", clean(r.URL), clean(r.FWV), clean(r.HWV))
	group := ""
	for _, res := range r.Results {
		if res.Group != group {
			group = res.Group
			fmt.Fprintf(&b, "\n%s: %s\n", group, groupTitle(group))
		}
		res.text(&b)
	}
	fmt.Fprintf(&b, "\n%d passed, %d failed, %d skipped", r.Passed, r.FailedCount, r.Skipped)
	if r.Known > 0 {
		fmt.Fprintf(&b, ", %d known quirks of %s", r.Known, r.Quirks)
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

func (res *Result) text(b *strings.Builder) {
	fmt.Fprintf(b, "  %-5s  %-28s %s\n", res.Outcome, res.ID, res.Title)
	if res.Reason != "" {
		fmt.Fprintf(b, "         %s\n", clean(res.Reason))
	}
	if res.Outcome != Fail {
		return
	}
	fmt.Fprintf(b, "         see docs/%s\n", res.Spec)
	if x := res.Exchange; x != nil {
		bearer := ""
		if x.Bearer {
			bearer = ", with a token"
		}
		fmt.Fprintf(b, "         > %s%s\n", clean(x.Request), bearer)
		if x.Body != "" {
			fmt.Fprintf(b, "         > %s\n", clean(x.Body))
		}
		if x.Status == 0 {
			fmt.Fprintf(b, "         < no answer\n")
			return
		}
		reason := ""
		if x.Reason != "" {
			reason = ", X-Hem-Error: " + x.Reason
		}
		fmt.Fprintf(b, "         < %d%s\n", x.Status, clean(reason))
		if x.Answer != "" {
			fmt.Fprintf(b, "         < %s\n", clean(x.Answer))
		}
	}
}

// tokens are what looks like a JWS, whole or in part: nothing else here begins so.
func redact(s string) string {
	s = tokenForm().ReplaceAllString(s, "<token>")
	const most = 600
	if len(s) > most {
		s = fmt.Sprintf("%s … (%d bytes)", s[:most], len(s))
	}
	return s
}

// tokenForm is a header of a JWS, and what follows it.
func tokenForm() *regexp.Regexp {
	return regexp.MustCompile(`eyJ[A-Za-z0-9_\-+/=]*(\.[A-Za-z0-9_\-+/=]*)*`)
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
