package hem

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"softhem/api"
)

// opensshName is the algorithm and the curve of a key type, empty for types that OpenSSH
// has no keys of.
func opensshName(t api.KeyType) (name, curve string) {
	switch t {
	case api.Ed25519:
		return "ssh-ed25519", ""
	case api.SECP256R1:
		return "ecdsa-sha2-nistp256", "nistp256"
	case api.SECP384R1:
		return "ecdsa-sha2-nistp384", "nistp384"
	case api.SECP521R1:
		return "ecdsa-sha2-nistp521", "nistp521"
	}
	return "", ""
}

// MarshalOpenSSH writes a raw public key as the line that stands in authorized_keys and
// in .pub files, without a line break at its end:
//
//	name ‖ space ‖ base64 of the key's blob [‖ space ‖ comment]
//
// The blob of ED25519 (ssh-ed25519) is that of RFC 8709, section 4, that of SECP256R1,
// SECP384R1 and SECP521R1 (ecdsa-sha2-nistp256 to nistp521) that of RFC 5656, section
// 3.1, with the uncompressed point. There are no others. The line says nothing of a key's
// mode.
//
// The comment may be empty. Control characters, a line break above all, would let it say
// more than a comment, and are [ErrArgument] like text that is not UTF-8; so is what is
// no key of the type, or of another type.
func MarshalOpenSSH(t api.KeyType, raw []byte, comment string) (string, error) {
	name, curve := opensshName(t)
	if name == "" {
		return "", fmt.Errorf("%w: OpenSSH has no keys of type %q", ErrArgument, t)
	}
	if !utf8.ValidString(comment) || strings.ContainsFunc(comment, unicode.IsControl) {
		return "", fmt.Errorf("%w: the comment is not one line of text", ErrArgument)
	}
	if err := checkPublic(t, raw); err != nil {
		return "", err
	}
	blob := appendSSH(nil, []byte(name))
	if curve != "" {
		point, err := uncompressed(t, raw)
		if err != nil {
			return "", err
		}
		blob = appendSSH(blob, []byte(curve))
		raw = point
	}
	line := name + " " + api.EncodeBase64(appendSSH(blob, raw))
	if comment != "" {
		line += " " + comment
	}
	return line, nil
}

// appendSSH appends a string of RFC 4251, section 5: its length in four bytes,
// big-endian, and itself.
func appendSSH(to, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(to, uint32(len(s))), s...)
}
