package module

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strconv"

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
