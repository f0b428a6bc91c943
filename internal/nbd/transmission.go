package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"syscall"
)

// A session is one client's connection.
type session struct {
	cfg *Config
	r   *bufio.Reader
	w   io.Writer
	out []byte // to be sent
	buf []byte // data on its way, chunkSize
	// allowed is asked before each command; false cuts the client off.
	allowed func() bool
}

func newSession(cfg *Config, rw io.ReadWriter, allowed func() bool) *session {
	return &session{cfg: cfg, r: bufio.NewReaderSize(rw, bufferSize), w: rw, allowed: allowed}
}

// take reads n bytes, which are good until the next take.
func (s *session) take(n int) ([]byte, error) {
	if n > len(s.buf) {
		s.buf = make([]byte, n)
	}
	_, err := io.ReadFull(s.r, s.buf[:n])
	return s.buf[:n], err
}

func (s *session) send() error {
	_, err := s.w.Write(s.out)
	s.out = s.out[:0]
	return err
}

// A request is a command as it came, without its data.
type request struct {
	flags, command uint16
	cookie         uint64
	offset         uint64
	length         uint32
}

// transmit serves commands one after another until the client goes, with
// io.EOF, or is cut off.
func (s *session) transmit() error {
	s.buf = make([]byte, chunkSize)
	var head [28]byte
	for {
		if _, err := io.ReadFull(s.r, head[:]); err != nil {
			return err
		}
		if binary.BigEndian.Uint32(head[:]) != magicRequest {
			return errProtocol
		}
		r := request{
			flags: binary.BigEndian.Uint16(head[4:]), command: binary.BigEndian.Uint16(head[6:]),
			cookie: binary.BigEndian.Uint64(head[8:]), offset: binary.BigEndian.Uint64(head[16:]),
			length: binary.BigEndian.Uint32(head[24:]),
		}
		if !s.allowed() {
			return errCut
		}
		if r.command == cmdDisc {
			return io.EOF
		}
		if err := s.serve(r); err != nil {
			return err
		}
	}
}

// serve answers one command. Its error ends the connection.
func (s *session) serve(r request) error {
	refused := s.check(r)
	switch r.command {
	case cmdRead:
		if refused == errNone {
			return s.read(r)
		}
	case cmdWrite:
		return s.write(r, refused)
	case cmdFlush:
		if refused == errNone {
			refused = errnoOf(s.cfg.Device.Sync())
		}
	case cmdTrim, cmdZeroes:
		if refused == errNone {
			so, err := s.zero(r)
			if err != nil {
				return err
			}
			refused = s.synced(r, so)
		}
	}
	return s.answer(r, refused)
}

// check finds what is wrong with a command before anything is done.
func (s *session) check(r request) errno {
	allowed := uint16(cmdFlagFUA)
	if s.cfg.ReadOnly {
		allowed = 0 // the handshake offered none
	}
	if r.command == cmdZeroes {
		allowed |= cmdFlagNoHole
	}
	size := uint64(s.cfg.Device.Size())
	outside := r.offset > size || uint64(r.length) > size-r.offset
	writes := r.command == cmdWrite || r.command == cmdTrim || r.command == cmdZeroes
	switch {
	case writes && s.cfg.ReadOnly:
		return errPerm
	case r.flags&^allowed != 0:
		return errInvalid
	case r.command == cmdFlush:
		if r.offset != 0 || r.length != 0 {
			return errInvalid
		}
		return errNone
	case !writes && r.command != cmdRead:
		return errInvalid
	case r.length == 0, r.command == cmdRead && r.length > maxPayload:
		return errInvalid
	case outside && writes:
		return errNoSpace
	case outside:
		return errInvalid
	}
	return errNone
}

// read answers chunk by chunk. What fails after the first can only be told by
// cutting the client off.
func (s *session) read(r request) error {
	off, left := int64(r.offset), int64(r.length)
	for first := true; left > 0; first = false {
		chunk := s.buf[:min(left, chunkSize)]
		if _, err := s.cfg.Device.ReadAt(chunk, off); err != nil {
			if first {
				return s.answer(r, errIO)
			}
			return errCut
		}
		if first {
			s.head(r, errNone)
			if err := s.send(); err != nil {
				return err
			}
		}
		if _, err := s.w.Write(chunk); err != nil {
			return err
		}
		off, left = off+int64(len(chunk)), left-int64(len(chunk))
	}
	return nil
}

// write takes the data chunk by chunk, and all of it even when it is refused:
// the next command comes after it.
func (s *session) write(r request, refused errno) error {
	if r.length > maxPayload {
		return errProtocol
	}
	off, left := int64(r.offset), int64(r.length)
	for left > 0 {
		chunk := s.buf[:min(left, chunkSize)]
		if _, err := io.ReadFull(s.r, chunk); err != nil {
			return err
		}
		if refused == errNone {
			_, err := s.cfg.Device.WriteAt(chunk, off)
			refused = errnoOf(err)
		}
		off, left = off+int64(len(chunk)), left-int64(len(chunk))
	}
	return s.answer(r, s.synced(r, refused))
}

// zero goes step by step: a command has up to 4 GiB, all of which may have to be
// written, and must not hold up who locks the disk, or wipes the module.
func (s *session) zero(r request) (errno, error) {
	keep := r.command == cmdZeroes && r.flags&cmdFlagNoHole != 0
	off, end := int64(r.offset), int64(r.offset)+int64(r.length)
	for off < end {
		next := min(end, (off/zeroStep+1)*zeroStep) // whole sectors, but for the ends
		if err := s.cfg.Device.Zero(off, next-off, keep); err != nil {
			return errnoOf(err), nil
		}
		if off = next; off < end && !s.allowed() {
			return errNone, errCut
		}
	}
	return errNone, nil
}

// synced does what the flag FUA asks for, after a command that went well.
func (s *session) synced(r request, so errno) errno {
	if so != errNone || r.flags&cmdFlagFUA == 0 {
		return so
	}
	return errnoOf(s.cfg.Device.Sync())
}

func (s *session) head(r request, e errno) {
	s.out = binary.BigEndian.AppendUint32(s.out, magicReply)
	s.out = binary.BigEndian.AppendUint32(s.out, uint32(e))
	s.out = binary.BigEndian.AppendUint64(s.out, r.cookie)
}

func (s *session) answer(r request, e errno) error {
	s.head(r, e)
	return s.send()
}

// errnoOf is what a client is told of a device's error: nothing but whether
// there is room.
func errnoOf(err error) errno {
	switch {
	case err == nil:
		return errNone
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return errNoSpace
	}
	return errIO
}
