package audit

// A Sink hears of every record beside the files, in their order, each when it is
// as durable as Append makes it: under Relaxed it may have records that a loss
// of power takes from the file. What recovery puts into a file at Open, and what was
// on its way when the process was killed, it does not hear of.
type Sink interface {
	// Records is called while others wait to write: it must not block, call the
	// log, or keep Lines.
	Records(Written)
}

// Written are lines that were written next to each other.
type Written struct {
	Origin string // of the log; see the function of that name
	File   string
	Header string // the first line of File if these lines follow it
	Leaf   int64  // the place of the first line in the whole log, from 0
	Lines  []byte // each with its newline
}

// tellSink is called with the turn held.
func (l *Log) tellSink(w Written) {
	if l.cfg.Sink == nil {
		return
	}
	w.Origin, w.File = l.cfg.Origin, l.seg.id
	l.cfg.Sink.Records(w)
}
