package nbd

import (
	"encoding/binary"
	"io"
)

// handshake goes through the options until the client has chosen the export.
// It returns io.EOF when the client wanted nothing else.
func (s *session) handshake() error {
	s.out = binary.BigEndian.AppendUint64(s.out, magicServer)
	s.out = binary.BigEndian.AppendUint64(s.out, magicOption)
	s.out = binary.BigEndian.AppendUint16(s.out, flagFixedNewstyle|flagNoZeroes)
	if err := s.send(); err != nil {
		return err
	}
	head, err := s.take(4)
	if err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(head)
	if flags&^(flagFixedNewstyle|flagNoZeroes) != 0 || flags&flagFixedNewstyle == 0 {
		return errProtocol
	}
	for range maxOptions {
		chosen, err := s.option(flags&flagNoZeroes != 0)
		if err != nil {
			return err
		}
		if chosen {
			return nil
		}
	}
	return errProtocol
}

// option reads one and answers it. chosen: the transmission begins.
func (s *session) option(noZeroes bool) (chosen bool, err error) {
	head, err := s.take(16)
	if err != nil {
		return false, err
	}
	if binary.BigEndian.Uint64(head) != magicOption {
		return false, errProtocol
	}
	option, length := binary.BigEndian.Uint32(head[8:]), binary.BigEndian.Uint32(head[12:])
	if length > maxOption {
		if length > maxPayload || option == optExportName {
			return false, errProtocol
		}
		if _, err := io.CopyN(io.Discard, s.r, int64(length)); err != nil {
			return false, err
		}
		return false, s.reply(option, repErrTooBig, nil)
	}
	data, err := s.take(int(length))
	if err != nil {
		return false, err
	}
	switch option {
	case optExportName: // has no way to say no
		if !s.named(string(data)) {
			return false, errProtocol
		}
		s.out = binary.BigEndian.AppendUint64(s.out, uint64(s.cfg.Device.Size()))
		s.out = binary.BigEndian.AppendUint16(s.out, s.flags())
		if !noZeroes {
			s.out = append(s.out, make([]byte, 124)...)
		}
		return true, s.send()
	case optAbort:
		if err := s.reply(option, repAck, nil); err != nil {
			return false, err
		}
		return false, io.EOF
	case optList:
		if length != 0 {
			return false, s.reply(option, repErrInvalid, nil)
		}
		name := binary.BigEndian.AppendUint32(nil, uint32(len(s.cfg.Name)))
		if err := s.reply(option, repServer, append(name, s.cfg.Name...)); err != nil {
			return false, err
		}
		return false, s.reply(option, repAck, nil)
	case optInfo, optGo:
		name, wanted, ok := parseInfo(data)
		if !ok {
			return false, s.reply(option, repErrInvalid, nil)
		}
		if !s.named(name) {
			return false, s.reply(option, repErrUnknown, nil)
		}
		if err := s.info(option, wanted); err != nil {
			return false, err
		}
		return option == optGo, s.reply(option, repAck, nil)
	}
	return false, s.reply(option, repErrUnsup, nil)
}

// parseInfo reads the data of INFO and GO:
//
//	u32 length of the name ‖ name ‖ u16 n ‖ n u16
func parseInfo(data []byte) (name string, wanted []uint16, ok bool) {
	if len(data) < 6 {
		return "", nil, false
	}
	size := binary.BigEndian.Uint32(data)
	data = data[4:]
	if int64(size) > int64(len(data)-2) {
		return "", nil, false
	}
	name, data = string(data[:size]), data[size:]
	n := int(binary.BigEndian.Uint16(data))
	data = data[2:]
	if len(data) != 2*n {
		return "", nil, false
	}
	for ; len(data) > 0; data = data[2:] {
		wanted = append(wanted, binary.BigEndian.Uint16(data))
	}
	return name, wanted, true
}

// info tells of the export: size and flags, and what was asked for beside them,
// each once.
func (s *session) info(option uint32, wanted []uint16) error {
	b := binary.BigEndian.AppendUint16(nil, infoExport)
	b = binary.BigEndian.AppendUint64(b, uint64(s.cfg.Device.Size()))
	if err := s.reply(option, repInfo, binary.BigEndian.AppendUint16(b, s.flags())); err != nil {
		return err
	}
	var name, sizes bool
	for _, w := range wanted {
		switch {
		case w == infoName && !name:
			name = true
			b = append(binary.BigEndian.AppendUint16(nil, infoName), s.cfg.Name...)
		case w == infoBlockSize && !sizes:
			sizes = true
			b = binary.BigEndian.AppendUint16(nil, infoBlockSize)
			for _, size := range []uint32{blockMin, blockPrefer, maxPayload} {
				b = binary.BigEndian.AppendUint32(b, size)
			}
		default:
			continue
		}
		if err := s.reply(option, repInfo, b); err != nil {
			return err
		}
	}
	return nil
}

// named tells whether a client means this export: by its name or as the default.
func (s *session) named(name string) bool { return name == "" || name == s.cfg.Name }

func (s *session) flags() uint16 {
	if s.cfg.ReadOnly {
		return transmitReadOnly
	}
	return transmitWritable
}

func (s *session) reply(option, reply uint32, data []byte) error {
	s.out = binary.BigEndian.AppendUint64(s.out, magicOptRep)
	s.out = binary.BigEndian.AppendUint32(s.out, option)
	s.out = binary.BigEndian.AppendUint32(s.out, reply)
	s.out = binary.BigEndian.AppendUint32(s.out, uint32(len(data)))
	s.out = append(s.out, data...)
	return s.send()
}
