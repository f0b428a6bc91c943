package syslog

import (
	"bytes"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"softhem/api"
	"softhem/internal/audit"
)

// A message is, on one line (RFC 5424, section 6):
//
//	<pri>1 timestamp hostname softhem procid msgid [softhem@32473 …] text
//
//	pri        facility 13, log audit; severity by the result of the record:
//	           OK info, FAILED warning, ERROR error; own messages have warning
//	timestamp  the record's time, the module's clock; of own messages the host's
//	msgid      the record's type, such as KEY_GENERATION; FILE, GAP or WIPE
//	text       the record's line as it stands in the file
//
//	eid        the module, base64
//	file       the log file
//	leaf       the record's place in the whole log, from 0: a receiver sees by it
//	           what it missed, and what it got twice
//	seq        the record's place in the file
//
// FILE carries the header of a file that begins: it and the lines of that file,
// in order, are the file, byte for byte. 32473 is the number that RFC 5612 keeps
// for documentation; the project has none of its own.
const (
	facility   = 13
	structured = "softhem@32473"
	appName    = "softhem"
)

// Severities of RFC 5424.
const (
	severityError   = 3
	severityWarning = 4
	severityInfo    = 6
)

// head is what all messages of a process share.
type head struct{ hostname, procID string }

func newHead(hostname string, pid int) head {
	ok := hostname != "" && len(hostname) <= 255
	for _, c := range []byte(hostname) {
		ok = ok && c > ' ' && c < 0x7f
	}
	if !ok {
		hostname = "-"
	}
	return head{hostname, strconv.Itoa(pid)}
}

// appendHead appends all before the structured data.
func (h head) appendHead(b []byte, severity int, at time.Time, msgID string) []byte {
	b = append(b, '<')
	b = strconv.AppendInt(b, int64(facility*8+severity), 10)
	b = append(b, ">1 "...)
	b = at.UTC().AppendFormat(b, "2006-01-02T15:04:05Z")
	for _, field := range []string{h.hostname, appName, h.procID, msgID} {
		b = append(b, ' ')
		b = append(b, field...)
	}
	return append(b, ' ')
}

// param is one of the structured data. Values here have nothing that would have
// to be escaped: base64, hex and numbers.
type param struct{ name, value string }

func appendData(b []byte, params ...param) []byte {
	b = append(b, '[')
	b = append(b, structured...)
	for _, p := range params {
		b = append(b, ' ')
		b = append(b, p.name...)
		b = append(b, `="`...)
		b = append(b, p.value...)
		b = append(b, '"')
	}
	return append(b, "] "...)
}

// eid is the module of an origin, as clients know it.
func eid(origin string) string {
	key, err := hex.DecodeString(strings.TrimPrefix(origin, audit.OriginPrefix))
	if err != nil {
		return ""
	}
	return api.EncodeBase64(key)
}

// each calls f with every message of what was queued, in order; f must not keep
// them. It ends with the first error.
func (h head) each(e *entry, f func(msg []byte) error) error {
	if e.done != nil {
		return nil
	}
	id := eid(e.w.Origin)
	var b []byte
	if e.w.Lines == nil {
		b = h.appendHead(b, severityWarning, e.at, e.msgID)
		b = appendData(b, append([]param{{"eid", id}}, e.params...)...)
		return f(append(b, e.text...))
	}
	leaf := e.w.Leaf
	first := true
	for line := range bytes.Lines(e.w.Lines) {
		line = bytes.TrimSuffix(line, []byte{'\n'})
		severity, at, msgID, seq := severityError, e.at, "-", ""
		if r, err := audit.Parse(line); err == nil {
			at, msgID, seq = time.Unix(r.Time, 0), r.Type.String(), strconv.FormatUint(r.Seq, 10)
			switch r.Result {
			case audit.OK:
				severity = severityInfo
			case audit.Failed:
				severity = severityWarning
			}
		}
		if first && e.w.Header != "" {
			b = h.appendHead(b[:0], severityInfo, at, "FILE")
			b = appendData(b, param{"eid", id}, param{"file", e.w.File})
			if err := f(append(b, e.w.Header...)); err != nil {
				return err
			}
		}
		first = false
		b = h.appendHead(b[:0], severity, at, msgID)
		b = appendData(b, param{"eid", id}, param{"file", e.w.File}, param{"leaf", strconv.FormatInt(leaf, 10)}, param{"seq", seq})
		b = append(b, line...)
		if err := f(b); err != nil {
			return err
		}
		leaf++
	}
	return nil
}

// appendFrame appends a message as streams have it: led by its length in bytes
// (RFC 6587, section 3.4.1; RFC 5425, section 4.3).
func appendFrame(b, msg []byte) []byte {
	b = strconv.AppendInt(b, int64(len(msg)), 10)
	b = append(b, ' ')
	return append(b, msg...)
}
