// Package nbd serves one block device over the NBD protocol: the fixed newstyle
// handshake and simple replies, as
// https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md has them.
// What a client sends is untrusted; whatever is not in the protocol ends its
// connection, and nothing of one reaches outside of the device.
//
//	server                                client
//	"NBDMAGIC" "IHAVEOPT" u16 flags   →
//	                                  ←   u32 flags
//	                                  ←   "IHAVEOPT" u32 option u32 length data      (any number)
//	u64 0x3e889045565a9 u32 option u32 reply u32 length data   →
//	after EXPORT_NAME or GO:
//	                                  ←   u32 0x25609513 u16 flags u16 command u64 cookie u64 offset u32 length [data]
//	u32 0x67446698 u32 error u64 cookie [data]   →
//
// Numbers are big-endian.
package nbd

import (
	"errors"
	"io"
)

const (
	magicServer  = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption  = 0x49484156454f5054 // "IHAVEOPT"
	magicOptRep  = 0x3e889045565a9
	magicRequest = 0x25609513
	magicReply   = 0x67446698
)

// Flags of the handshake; the client's have the same values.
const (
	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1
)

// Options.
const (
	optExportName = 1
	optAbort      = 2
	optList       = 3
	optInfo       = 6
	optGo         = 7
)

// Replies to options.
const (
	repAck        = 1
	repServer     = 2
	repInfo       = 3
	repErrUnsup   = 1<<31 + 1
	repErrInvalid = 1<<31 + 3
	repErrUnknown = 1<<31 + 6
	repErrTooBig  = 1<<31 + 9
)

const (
	infoExport    = 0
	infoName      = 1
	infoBlockSize = 3
)

// Flags of an export.
const (
	exportHasFlags   = 1 << 0
	exportReadOnly   = 1 << 1
	exportFlush      = 1 << 2
	exportFUA        = 1 << 3
	exportTrim       = 1 << 5
	exportZeroes     = 1 << 6
	exportMultiConn  = 1 << 8 // a flush on one connection covers what was written on all
	transmitReadOnly = exportHasFlags | exportReadOnly | exportFlush | exportMultiConn
	transmitWritable = exportHasFlags | exportFlush | exportFUA | exportTrim | exportZeroes | exportMultiConn
)

const (
	cmdRead   = 0
	cmdWrite  = 1
	cmdDisc   = 2
	cmdFlush  = 3
	cmdTrim   = 4
	cmdZeroes = 6
)

const (
	cmdFlagFUA    = 1 << 0
	cmdFlagNoHole = 1 << 1
)

// An errno is an error as it goes to the client.
type errno uint32

const (
	errNone    errno = 0
	errPerm    errno = 1
	errIO      errno = 5
	errInvalid errno = 22
	errNoSpace errno = 28
)

// Limits. Their sum is what one connection can hold of memory.
const (
	maxOption   = 8 << 10  // bytes of an option's data: names have at most 4096
	maxOptions  = 64       // of one handshake
	maxPayload  = 32 << 20 // bytes of a read or a write, what clients take for granted
	chunkSize   = 256 << 10
	zeroStep    = 16 << 20 // bytes that are zeroed between two looks for whether to go on
	bufferSize  = 64 << 10
	blockMin    = 1 // any offset and length is taken
	blockPrefer = 4096
)

// A Device is what is served. Its methods are called concurrently, with ranges
// that lie inside of Size.
type Device interface {
	io.ReaderAt
	io.WriterAt
	// Zero makes n bytes from off read as zeros. keep asks that room for them
	// stays reserved.
	Zero(off, n int64, keep bool) error
	// Sync returns when everything that was written before is on disk.
	Sync() error
	Size() int64
}

// errProtocol ends a connection whose client does not keep to the protocol, or
// to what the handshake told it.
var errProtocol = errors.New("the client does not speak the protocol")

// errCut ends a connection from this side.
var errCut = errors.New("cut off")
