package api

import (
	"encoding/base64"
	"errors"
)

// ErrBase64 is returned by [DecodeBase64] for text that is not base64.
var ErrBase64 = errors.New("not valid base64")

// EncodeBase64 renders b in the standard alphabet with padding (RFC 4648
// section 4), which is how every binary JSON field leaves a module.
func EncodeBase64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// DecodeBase64 reads base64 as it may arrive: standard or URL-safe alphabet,
// padded or not. Line breaks, which encoding/base64 would skip, are refused.
//
// One value has several spellings (the unused bits of the last character are
// not checked either), so whoever remembers or compares values must use the
// decoded bytes, never the text.
func DecodeBase64(s string) ([]byte, error) {
	buf := make([]byte, len(s))
	n := len(s)
	for n > 0 && s[n-1] == '=' && len(s)-n < 2 {
		n--
	}
	if n != len(s) && len(s)%4 != 0 {
		return nil, ErrBase64
	}
	for i := 0; i < n; i++ {
		switch c := s[i]; c {
		case '-':
			buf[i] = '+'
		case '_':
			buf[i] = '/'
		case '\r', '\n':
			return nil, ErrBase64
		default:
			buf[i] = c
		}
	}
	// Decoding in place is safe: three bytes are written for four read.
	m, err := base64.RawStdEncoding.Decode(buf, buf[:n])
	if err != nil {
		return nil, ErrBase64
	}
	return buf[:m], nil
}
