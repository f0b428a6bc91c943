package audit

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"

	"softhem/internal/suite"
)

// A Type says what a record is about. The numbers are those of the file.
type Type uint8

const (
	KeyInit             Type = 0 // starts a MAC key; only the log itself writes it
	Startup             Type = 1
	Reboot              Type = 2
	Shutdown            Type = 3
	Upgrade             Type = 4
	TRNGFailed          Type = 5
	TLSError            Type = 6
	SelftestPassed      Type = 7
	NonSecureState      Type = 8
	LoggerListLog       Type = 9
	LoggerDeleteLog     Type = 10
	LoggerReadLog       Type = 11
	FailedScopeCheck    Type = 12
	AuthSuccessInternal Type = 13
	AuthSuccessExternal Type = 14
	AuthPairedExternal  Type = 15

	ConfigUpdated        Type = 18
	RTCSet               Type = 19
	KeyGeneration        Type = 20
	KeyDelete            Type = 21
	KeyImport            Type = 22
	KeyUsagePKey         Type = 23
	KeyIntegrityError    Type = 24
	KeyAttributesChanged Type = 25
	KeyDerive            Type = 26

	DeviceInited         Type = 29
	CryptoHMACHash       Type = 30
	CryptoHMACVerify     Type = 31
	CryptoEXDSASign      Type = 32
	CryptoEXDSAVerify    Type = 33
	CryptoWrap           Type = 34
	CryptoUnwrap         Type = 35
	CryptoEncrypt        Type = 36
	CryptoDecrypt        Type = 37
	CryptoECDH           Type = 38
	CryptoPQCMLKEMEncaps Type = 39
	CryptoPQCMLKEMDecaps Type = 40
	CryptoPQCMLDSASign   Type = 41
	CryptoPQCMLDSAVerify Type = 42
)

// String returns the name the specification gives, such as KEY_INIT, or
// TYPE_2b for a number it does not name.
func (t Type) String() string {
	if s := t.name(); s != "" {
		return s
	}
	return fmt.Sprintf("TYPE_%x", uint8(t))
}

func (t Type) name() string {
	switch t {
	case KeyInit:
		return "KEY_INIT"
	case Startup:
		return "STARTUP"
	case Reboot:
		return "REBOOT"
	case Shutdown:
		return "SHUTDOWN"
	case Upgrade:
		return "UPGRADE"
	case TRNGFailed:
		return "TRNG_FAILED"
	case TLSError:
		return "TLS_ERROR"
	case SelftestPassed:
		return "SELFTEST_PASSED"
	case NonSecureState:
		return "NON_SECURE_STATE"
	case LoggerListLog:
		return "LOGGER_LIST_LOG"
	case LoggerDeleteLog:
		return "LOGGER_DELETE_LOG"
	case LoggerReadLog:
		return "LOGGER_READ_LOG"
	case FailedScopeCheck:
		return "FAILED_SCOPE_CHECK"
	case AuthSuccessInternal:
		return "AUTH_SUCCESS_INTERNAL"
	case AuthSuccessExternal:
		return "AUTH_SUCCESS_EXTERNAL"
	case AuthPairedExternal:
		return "AUTH_PAIRED_EXTERNAL"
	case ConfigUpdated:
		return "CONFIG_UPDATED"
	case RTCSet:
		return "RTC_SET"
	case KeyGeneration:
		return "KEY_GENERATION"
	case KeyDelete:
		return "KEY_DELETE"
	case KeyImport:
		return "KEY_IMPORT"
	case KeyUsagePKey:
		return "KEY_USAGE_PKEY"
	case KeyIntegrityError:
		return "KEY_INTEGRITY_ERROR"
	case KeyAttributesChanged:
		return "KEY_ATTRIBUTES_CHANGED"
	case KeyDerive:
		return "KEY_DERIVE"
	case DeviceInited:
		return "DEVICE_INITED"
	case CryptoHMACHash:
		return "CRYPTO_HMAC_HASH"
	case CryptoHMACVerify:
		return "CRYPTO_HMAC_VERIFY"
	case CryptoEXDSASign:
		return "CRYPTO_EXDSA_SIGN"
	case CryptoEXDSAVerify:
		return "CRYPTO_EXDSA_VERIFY"
	case CryptoWrap:
		return "CRYPTO_WRAP"
	case CryptoUnwrap:
		return "CRYPTO_UNWRAP"
	case CryptoEncrypt:
		return "CRYPTO_ENCRYPT"
	case CryptoDecrypt:
		return "CRYPTO_DECRYPT"
	case CryptoECDH:
		return "CRYPTO_ECDH"
	case CryptoPQCMLKEMEncaps:
		return "CRYPTO_PQC_MLKEM_ENCAPS"
	case CryptoPQCMLKEMDecaps:
		return "CRYPTO_PQC_MLKEM_DECAPS"
	case CryptoPQCMLDSASign:
		return "CRYPTO_PQC_MLDSA_SIGN"
	case CryptoPQCMLDSAVerify:
		return "CRYPTO_PQC_MLDSA_VERIFY"
	}
	return ""
}

// A Result says how the operation ended.
type Result uint8

const (
	OK     Result = 0
	Failed Result = 1
	Error  Result = 2
)

func (r Result) String() string {
	switch r {
	case OK:
		return "OK"
	case Failed:
		return "FAILED"
	case Error:
		return "ERROR"
	}
	return fmt.Sprintf("RESULT_%x", uint8(r))
}

// ErrRecord: the record has no form in the file (a caller's mistake).
var ErrRecord = errors.New("audit: no valid record")

// Limits of one line, newline not counted. They bound what a reader buffers.
const (
	maxLine = 32 << 10
	maxArg  = 16 << 10
	maxWho  = 128
)

// A Record is what the module says about one operation.
type Record struct {
	Type   Type
	Result Result
	Who    string // "U", "M", a kid in hex, or ""
	Arg    []byte // rendered base64url; empty = none
}

// check tells whether the log may be asked to write r.
func (r Record) check() error {
	switch {
	case r.Type == KeyInit || r.Type.name() == "":
		return fmt.Errorf("%w: type %v", ErrRecord, r.Type)
	case r.Result > Error:
		return fmt.Errorf("%w: result %v", ErrRecord, r.Result)
	case !validWho(r.Who):
		return fmt.Errorf("%w: who %q", ErrRecord, r.Who)
	case len(r.Arg) > maxArg:
		return fmt.Errorf("%w: argument of %d bytes", ErrRecord, len(r.Arg))
	}
	return nil
}

func validWho[T string | []byte](who T) bool {
	if len(who) == 1 && (who[0] == 'U' || who[0] == 'M') {
		return true
	}
	for i := range len(who) {
		c := who[i]
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F') {
			return false
		}
	}
	return len(who) <= maxWho
}

// An Entry is a record where it stands in a file. Its line is
//
//	seq|time|type|result|a|b|mac
//
//	seq     decimal, from 0 in each file
//	time    8 hex digits, Unix seconds
//	type    hex without leading zero
//	result  hex without leading zero
//	a       Who; in KEY_INIT the key, base64url
//	b       Arg, base64url; in KEY_INIT the signature of the key by eid_sign
//	mac     base64url of the first 16 bytes of HMAC-SHA256(key, the line up to
//	        and including the last |); a KEY_INIT line uses its own key
//
// base64url is without padding, hex in lower case.
type Entry struct {
	Seq  uint64
	Time int64 // Unix seconds
	Record
	Key []byte // in KEY_INIT the 32-byte MAC key it starts; Arg is its signature
	MAC string // the last field as it stands
}

const (
	keySize = 32
	macSize = 16
)

// appendBody renders all of the line up to and including the last |.
func (e *Entry) appendBody(b []byte) []byte {
	b = strconv.AppendUint(b, e.Seq, 10)
	b = append(b, '|')
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, "0123456789abcdef"[uint32(e.Time)>>shift&15])
	}
	b = append(b, '|')
	b = strconv.AppendUint(b, uint64(e.Type), 16)
	b = append(b, '|')
	b = strconv.AppendUint(b, uint64(e.Result), 16)
	b = append(b, '|')
	if e.isKeyInit() {
		b = base64.RawURLEncoding.AppendEncode(b, e.Key)
	} else {
		b = append(b, e.Who...)
	}
	b = append(b, '|')
	b = base64.RawURLEncoding.AppendEncode(b, e.Arg)
	return append(b, '|')
}

// isKeyInit: only result 0 starts a key.
func (e *Entry) isKeyInit() bool { return e.Type == KeyInit && e.Result == OK }

// appendMAC renders the last field for the line body.
func appendMAC(b []byte, key *suite.MACKey, body []byte) []byte {
	mac := key.Sum(body)
	return base64.RawURLEncoding.AppendEncode(b, mac[:macSize])
}

// A cursor is where the next record goes: everything its line depends on
// besides the record. Copy it to render lines that may yet be given up.
type cursor struct {
	key  *suite.MACKey
	seq  uint64
	time int64 // floor of the next record's time
}

// render appends the line of r at now, with its newline, and moves on.
func (c *cursor) render(b []byte, now int64, r Record) []byte {
	c.time = clampTime(max(now, c.time))
	return c.appendLine(b, Entry{Seq: c.seq, Time: c.time, Record: r})
}

// renderKeyInit appends the line that starts key, and moves on to it.
func (c *cursor) renderKeyInit(b []byte, now int64, key, sig []byte) []byte {
	c.time = clampTime(max(now, c.time))
	c.key = suite.NewMACKey(key)
	return c.appendLine(b, Entry{Seq: c.seq, Time: c.time, Key: key, Record: Record{Type: KeyInit, Arg: sig}})
}

func (c *cursor) appendLine(b []byte, e Entry) []byte {
	start := len(b)
	b = e.appendBody(b)
	b = appendMAC(b, c.key, b[start:])
	c.seq++
	return append(b, '\n')
}

// clampTime keeps a time within the 8 digits of the file.
func clampTime(t int64) int64 { return min(max(t, 0), math.MaxUint32) }

// Parse reads one line, without its newline. It accepts the one rendering of
// an entry only; it checks neither the MAC nor the signature.
func Parse(line []byte) (Entry, error) {
	var e Entry
	if len(line) > maxLine {
		return e, errors.New("line too long")
	}
	var f [7][]byte
	rest := line
	for i := range 6 {
		var ok bool
		if f[i], rest, ok = bytes.Cut(rest, []byte{'|'}); !ok {
			return e, errors.New("fewer than 7 fields")
		}
	}
	f[6] = rest
	if bytes.IndexByte(rest, '|') >= 0 {
		return e, errors.New("more than 7 fields")
	}

	seq, err := strconv.ParseUint(string(f[0]), 10, 64)
	if err != nil || !canonical(f[0], seq, 10) {
		return e, errors.New("seq is no decimal number")
	}
	t, err := strconv.ParseUint(string(f[1]), 16, 32)
	if err != nil || len(f[1]) != 8 || bytes.ContainsAny(f[1], "ABCDEF") {
		return e, errors.New("time is not 8 hex digits")
	}
	typ, err := strconv.ParseUint(string(f[2]), 16, 8)
	if err != nil || !canonical(f[2], typ, 16) {
		return e, errors.New("type is no hex number")
	}
	res, err := strconv.ParseUint(string(f[3]), 16, 8)
	if err != nil || !canonical(f[3], res, 16) || Result(res) > Error {
		return e, errors.New("result is none of 0, 1, 2")
	}
	e.Seq, e.Time, e.Type, e.Result = seq, int64(t), Type(typ), Result(res)

	if e.Arg, err = decode(f[5]); err != nil {
		return e, errors.New("field b is no base64url")
	}
	if e.isKeyInit() {
		if e.Key, err = decode(f[4]); err != nil || len(e.Key) != keySize {
			return e, errors.New("KEY_INIT without a 32-byte key")
		}
		if len(e.Arg) != suite.Ed25519Sig {
			return e, errors.New("KEY_INIT without a 64-byte signature")
		}
	} else if !validWho(f[4]) {
		return e, errors.New("field a is none of U, M, hex")
	} else {
		e.Who = string(f[4])
	}
	if mac, err := decode(f[6]); err != nil || len(mac) != macSize {
		return e, errors.New("mac is not 16 bytes in base64url")
	}
	e.MAC = string(f[6])
	return e, nil
}

// canonical tells whether text is the rendering of n that has no other.
func canonical(text []byte, n uint64, base int) bool {
	var b [20]byte
	return bytes.Equal(text, strconv.AppendUint(b[:0], n, base))
}

// decode is strict: no padding, no line breaks (which package base64 would
// skip), no stray bits in the last digit. The result shares nothing with s.
func decode(s []byte) ([]byte, error) {
	if len(s) == 0 {
		return nil, nil
	}
	if bytes.ContainsAny(s, "\r\n") {
		return nil, base64.CorruptInputError(0)
	}
	return base64.RawURLEncoding.Strict().AppendDecode(nil, s)
}
