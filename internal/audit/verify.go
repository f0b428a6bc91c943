package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"

	"softhem/internal/suite"
)

// A BadRecordError names the first record of a file that does not hold.
type BadRecordError struct {
	Line   int    // from 1; line 1 is the header
	Seq    uint64 // the sequence number expected there
	Offset int64  // of the line, in bytes
	Why    string
}

func (e *BadRecordError) Error() string {
	return fmt.Sprintf("audit: line %d (record %d): %s", e.Line, e.Seq, e.Why)
}

// A Report says what a file holds.
type Report struct {
	Product string // the header without "# "
	Records int    // that hold, KEY_INIT among them
	Keys    int    // KEY_INIT records: 1 + rotations
	Failed  int    // result FAILED
	Errors  int    // result ERROR
	// SetBack counts the records with a time before their predecessor's: the
	// clock was set. It is no fault of the file.
	SetBack     int
	First, Last int64 // times of the first and last record, Unix seconds
}

// VerifyFile checks a whole file: header, form, order, every MAC, and every
// KEY_INIT signature under eidSign (32 bytes). Zero bytes after the last line
// are room a running or killed module had taken. The error is a
// *BadRecordError, or that of r; the report then covers what came before it.
//
// The MAC key stands in the file: what verifies was not damaged by accident,
// but whoever can write the file can make another one that verifies too. Only
// a checkpoint from outside tells those apart.
//
// [Verification] checks a log against one.
func VerifyFile(r io.Reader, eidSign []byte) (Report, error) {
	return verifyFile(r, eidSign, func([]byte) error { return nil })
}

// verifyFile is VerifyFile that shows each line that holds to see, and ends
// with its error.
func verifyFile(r io.Reader, eidSign []byte, see func(line []byte) error) (Report, error) {
	var rep Report
	if len(eidSign) != suite.Ed25519Public {
		return rep, errors.New("audit: eid_sign is not 32 bytes")
	}
	s := newScanner(r, eidSign)
	for {
		e, line, err := s.next()
		rep.Product = s.product
		if err == io.EOF {
			return rep, nil
		}
		if err == nil {
			err = see(line)
			if bad, ok := errors.AsType[*BadRecordError](err); ok { // it knows the reason, and here is the place
				bad.Line, bad.Seq, bad.Offset = s.line, e.Seq, s.end-int64(len(line))-1
			}
		}
		if err != nil {
			return rep, err
		}
		rep.count(e)
	}
}

func (rep *Report) count(e Entry) {
	if rep.Records == 0 {
		rep.First = e.Time
	} else if e.Time < rep.Last {
		rep.SetBack++
	}
	rep.Records++
	rep.Last = e.Time
	switch {
	case e.isKeyInit():
		rep.Keys++
	case e.Result == Failed:
		rep.Failed++
	case e.Result == Error:
		rep.Errors++
	}
}

// Entries reads a file as VerifyFile does and yields each entry that holds,
// then the error if there is one.
func Entries(r io.Reader, eidSign []byte) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		s := newScanner(r, eidSign)
		for {
			e, _, err := s.next()
			if err == io.EOF || !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// A lineCheck lets the records of a file through, one after the other, that
// hold where they stand.
type lineCheck struct {
	eidSign []byte // nil: signatures are not checked
	seq     uint64 // of the next record
	key     *suite.MACKey
	time    int64  // of the last record
	mac     []byte // reused
}

// check takes the next record's line, or says why it does not hold.
func (c *lineCheck) check(line []byte) (e Entry, why string) {
	e, err := Parse(line)
	if err != nil {
		return e, err.Error()
	}
	if e.Seq != c.seq {
		return e, fmt.Sprintf("seq is %d", e.Seq)
	}
	key := c.key
	if e.isKeyInit() {
		key = suite.NewMACKey(e.Key)
	} else if key == nil {
		return e, "the file does not start with KEY_INIT"
	}
	body := line[:len(line)-len(e.MAC)]
	c.mac = appendMAC(c.mac[:0], key, body)
	if !bytes.Equal(c.mac, line[len(body):]) {
		return e, "wrong MAC"
	}
	if e.isKeyInit() && c.eidSign != nil && !suite.VerifyEd25519(c.eidSign, e.Key, e.Arg) {
		return e, "the key is not signed by eid_sign"
	}
	c.key, c.time = key, e.Time
	c.seq++
	return e, ""
}

// A scanner reads a file line by line and lets through what holds.
type scanner struct {
	lineCheck
	r       *bufio.Reader
	product string
	line    int   // lines read
	end     int64 // of the last line that holds, in bytes from the start
}

func newScanner(r io.Reader, eidSign []byte) *scanner {
	return &scanner{r: bufio.NewReaderSize(r, maxLine+1), lineCheck: lineCheck{eidSign: eidSign}}
}

// next returns an entry and its line, which is valid until the next call. It
// returns io.EOF after the last, and a *BadRecordError where the file breaks.
func (s *scanner) next() (Entry, []byte, error) {
	if s.line == 0 {
		if err := s.header(); err != nil {
			return Entry{}, nil, err
		}
	}
	line, err := s.readLine()
	if err == io.EOF && s.seq == 0 {
		return Entry{}, nil, s.bad("the file has no records")
	}
	if err != nil {
		return Entry{}, nil, err
	}
	e, why := s.check(line)
	if why != "" {
		return Entry{}, nil, s.bad(why)
	}
	s.end += int64(len(line)) + 1
	return e, line, nil
}

func (s *scanner) header() error {
	line, err := s.readLine()
	if err == io.EOF {
		return s.bad("the file is empty")
	}
	if err != nil {
		return err
	}
	if !validHeader(line) {
		return s.bad("no header")
	}
	s.product = string(line[2:])
	s.end = int64(len(line)) + 1
	return nil
}

// validHeader: "# " and printable text.
func validHeader(line []byte) bool {
	text, ok := bytes.CutPrefix(line, []byte("# "))
	if !ok || len(text) == 0 || len(text) > 200 {
		return false
	}
	for _, c := range text {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

// readLine returns the next line without its newline. Zeros up to the end of
// the file are the end.
func (s *scanner) readLine() ([]byte, error) {
	s.line++
	line, err := s.r.ReadSlice('\n')
	switch {
	case err == nil:
		return line[:len(line)-1], nil
	case err != io.EOF && err != bufio.ErrBufferFull:
		return nil, fmt.Errorf("audit: reading line %d: %w", s.line, err)
	}
	for zeros(line) {
		if err != nil && err != bufio.ErrBufferFull {
			return nil, err
		}
		line, err = s.r.ReadSlice('\n')
	}
	if err == io.EOF {
		return nil, s.bad("the line does not end")
	}
	return nil, s.bad("line too long")
}

func (s *scanner) bad(why string) error {
	return &BadRecordError{Line: s.line, Seq: s.seq, Offset: s.end, Why: why}
}

// zeros tells whether all of b is zero.
func zeros(b []byte) bool {
	return len(bytes.TrimLeft(b, "\x00")) == 0
}
