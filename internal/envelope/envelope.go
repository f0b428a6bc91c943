// Package envelope encrypts files of any size for a key in a module. Only the
// key of a file, 16 random bytes, goes to the module; the file does not.
//
// An envelope is an age file (age-encryption.org/v1), binary or armored, with
// a stanza in its header for the module's key, of one of two kinds:
//
//	-> softhem-wrap KID ALG     ALG is AES128, AES192 or AES256
//	AES key wrap (RFC 3394) of the file key by the key KID, 24 bytes
//
//	-> softhem-hpke KID TYPE    TYPE is CURVE25519, MLKEM768 or MLKEM1024
//	enc ‖ ciphertext, the single message of HPKE (RFC 9180, base mode) to the key KID, with
//	HKDF-SHA256, ChaCha20-Poly1305, info "softhem-hpke " ‖ KID, no aad, and the KEM
//	of TYPE: DHKEM(X25519, HKDF-SHA256), ML-KEM-768 or ML-KEM-1024
//
// KID is 32 hex digits in lower case. What changes its meaning gets another
// name. The rest is age's: a MAC over the header under the file key, and the
// content in chunks of 64 KiB, each authenticated with its place and the last marked as
// the last. So no byte comes out that did not go in, and an envelope
// that was cut, at whatever place, ends in an error.
//
// A file encrypted for CURVE25519 or ML-KEM needs the module to be opened,
// and not to be made.
package envelope

import (
	"crypto/hpke"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"

	"softhem/api"
)

const (
	stanzaWrap = "softhem-wrap"
	stanzaHPKE = "softhem-hpke"

	intro       = "age-encryption.org/v1\n"
	fileKeySize = 16
	wrappedSize = fileKeySize + 8
	tagSize     = 16 // of ChaCha20-Poly1305
)

// ErrDamaged marks an envelope that was changed, cut, or is none. What was read
// of it before is a beginning of the content, and nothing more.
var ErrDamaged = errors.New("the envelope is damaged or incomplete")

// An OtherKeyError is an envelope for other keys than the one at hand.
type OtherKeyError struct {
	KIDs  []string // keys in modules that open it
	Types []string // stanzas that are not ours, when KIDs is empty
}

func (e *OtherKeyError) Error() string {
	if len(e.KIDs) > 0 {
		return "the envelope is for the key " + strings.Join(e.KIDs, " or ")
	}
	return fmt.Sprintf("the file is for no key in a module (its recipients are of the kind %s)", strings.Join(e.Types, ", "))
}

// A Recipient is a key that an envelope is made for.
type Recipient struct {
	kid  string
	t    api.KeyType
	wrap func(key []byte) ([]byte, error) // of AES keys
	key  hpke.PublicKey                   // of the others
}

// ForAES is the AES key kid. wrap is RFC 3394 with as much of it as alg says.
func ForAES(kid string, alg api.KeyType, wrap func(key []byte) ([]byte, error)) Recipient {
	return Recipient{kid: kid, t: alg, wrap: wrap}
}

// ForPublic is the key kid of type t, which is Curve25519, MLKEM768 or
// MLKEM1024.
func ForPublic(kid string, t api.KeyType, key hpke.PublicKey) Recipient {
	return Recipient{kid: kid, t: t, key: key}
}

// Takes tells whether an envelope can be made for a key of type t.
func Takes(t api.KeyType) bool { return isAES(t) || kem(t) != 0 }

func isAES(t api.KeyType) bool {
	return t == api.AES128 || t == api.AES192 || t == api.AES256
}

// kem is the number that HPKE has for the key encapsulation of a key type, or 0.
func kem(t api.KeyType) uint16 {
	switch t {
	case api.Curve25519:
		return 0x0020
	case api.MLKEM768:
		return 0x0041
	case api.MLKEM1024:
		return 0x0042
	}
	return 0
}

func info(kid string) []byte { return []byte(stanzaHPKE + " " + kid) }

// Wrap implements [age.Recipient].
func (r Recipient) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	s := &age.Stanza{Args: []string{r.kid, string(r.t)}}
	var err error
	switch {
	case r.wrap != nil && isAES(r.t):
		s.Type = stanzaWrap
		s.Body, err = r.wrap(fileKey)
		if err == nil && len(s.Body) != wrappedSize {
			err = fmt.Errorf("the wrapped file key has %d bytes, not %d", len(s.Body), wrappedSize)
		}
	case r.key != nil && r.key.KEM().ID() == kem(r.t):
		s.Type = stanzaHPKE
		s.Body, err = hpke.Seal(r.key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info(r.kid), fileKey)
	default:
		err = fmt.Errorf("no envelope can be made for a key of type %s", r.t)
	}
	if err != nil {
		return nil, err
	}
	return []*age.Stanza{s}, nil
}

// Seal writes the header of an envelope to dst and returns where to write the
// content. Close ends the envelope, not dst; without it the envelope is
// damaged. armored makes it text.
func Seal(dst io.Writer, to Recipient, armored bool) (io.WriteCloser, error) {
	if !armored {
		return age.Encrypt(dst, to)
	}
	text := armor.NewWriter(dst)
	content, err := age.Encrypt(text, to)
	if err != nil {
		return nil, err
	}
	return &armoredContent{content, text}, nil
}

type armoredContent struct {
	io.WriteCloser
	text io.Closer
}

func (a *armoredContent) Close() error {
	if err := a.WriteCloser.Close(); err != nil {
		return err
	}
	return a.text.Close()
}
