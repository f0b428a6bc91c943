package module

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strconv"
	"strings"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/session"
)

// maxLogList is how many files one listing names.
const maxLogList = 128

// LoggerKey is the key that vouches for the audit log, with a proof that the
// module holds it.
func (m *Module) LoggerKey(p *Pass) api.LoggerKey {
	p.must(OpLoggerKey)
	st := p.state
	nonce := st.boot.NewNonce(session.PurposeLogKey(), nil, p.now)
	return api.LoggerKey{
		Key:         st.identity.eidSign,
		Nonce:       api.EncodeBase64(nonce[:]),
		NonceSigned: api.EncodeBase64(st.identity.signing.Sign(nonce[:])),
	}
}

// LoggerList names log files, oldest first, from offset on. offset is text
// from the path; empty is 0.
func (m *Module) LoggerList(ctx context.Context, p *Pass, offset string) (api.LogList, error) {
	p.must(OpLoggerList)
	files := m.audit.Files()
	from := 0
	if offset != "" {
		n, err := strconv.ParseUint(offset, 10, 31)
		if err != nil || int(n) > len(files) {
			return api.LogList{}, api.ErrNotAcceptable.Because("no such offset")
		}
		from = int(n)
	}
	err := m.append(ctx, audit.Record{Type: audit.LoggerListLog, Who: p.who()})
	if err != nil {
		return api.LogList{}, err
	}
	return api.LogList{Total: len(files), ID: files[from:min(len(files), from+maxLogList)]}, nil
}

// LoggerGet opens a finished log file for reading and tells its size in bytes.
func (m *Module) LoggerGet(ctx context.Context, p *Pass, id string) (io.ReadCloser, int64, error) {
	p.must(OpLoggerGet)
	name, err := strconv.ParseUint(id, 16, 32)
	if err != nil || len(id) != 8 {
		return nil, 0, api.ErrNotFound.Because("no such log file")
	}
	file, size, err := m.audit.OpenFile(id)
	switch {
	case errors.Is(err, audit.ErrCurrent):
		return nil, 0, api.ErrNotAcceptable.Because("this log file is being written")
	case errors.Is(err, audit.ErrNoFile):
		return nil, 0, api.ErrNotFound.Because("no such log file")
	case err != nil:
		return nil, 0, err
	}
	arg := binary.LittleEndian.AppendUint32(nil, uint32(name))
	if err := m.append(ctx, audit.Record{Type: audit.LoggerReadLog, Who: p.who(), Arg: arg}); err != nil {
		file.Close()
		return nil, 0, err
	}
	return file, size, nil
}

// LoggerCheckpoint is a signed checkpoint of the log as it is now. Like
// LoggerKey it tells nothing of what is in the log, and is not recorded.
func (m *Module) LoggerCheckpoint(ctx context.Context, p *Pass) ([]byte, error) {
	p.must(OpLoggerCheckpoint)
	checkpoint, err := m.audit.Checkpoint(ctx)
	return checkpoint, m.refusal(err)
}

// LoggerTail has the records of the log from a leaf of its tree on, at most
// audit.MaxTail bytes of them, none if the log ends there. leaf is text from
// the path.
//
// The read is recorded, but not when all it gave were records of such reads:
// who follows the log would else see his own steps for ever.
func (m *Module) LoggerTail(ctx context.Context, p *Pass, leaf string) ([]byte, error) {
	p.must(OpLoggerTail)
	n, err := strconv.ParseUint(leaf, 10, 63)
	if err != nil {
		return nil, api.ErrNotAcceptable.Because("no such record")
	}
	lines, err := m.audit.Tail(ctx, int64(n))
	if errors.Is(err, audit.ErrNoLeaf) {
		return nil, api.ErrNotAcceptable.Because("no such record")
	}
	if err != nil {
		return nil, m.refusal(err)
	}
	if onlyTailReads(lines) {
		return lines, nil
	}
	arg := binary.LittleEndian.AppendUint64(nil, n)
	if err := m.append(ctx, audit.Record{Type: audit.LoggerReadLog, Who: p.who(), Arg: arg}); err != nil {
		return nil, err
	}
	return lines, nil
}

// tailReadArg is the length of the argument of a record of LoggerTail: the
// leaf. That of a file's has its name, 4 bytes.
const tailReadArg = 8

func onlyTailReads(lines []byte) bool {
	for line := range strings.Lines(string(lines)) {
		e, err := audit.Parse([]byte(strings.TrimSuffix(line, "\n")))
		if err != nil || e.Type != audit.LoggerReadLog || len(e.Arg) != tailReadArg {
			return false
		}
	}
	return true
}
