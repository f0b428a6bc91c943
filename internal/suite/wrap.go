package suite

import (
	"crypto/aes"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"slices"
)

// The AES key wrap works in halves of a block.
const (
	wrapHalf = 8            // bytes
	minWrap  = 2 * wrapHalf // the shortest plaintext
)

// A WrapAlg is the AES key wrap of RFC 3394 (KW of NIST SP 800-38F) with a key
// length. The zero WrapAlg must not be used.
type WrapAlg struct{ keySize int }

// WrapAlgOf finds a key wrap by the protocol's name for it: AES128, AES192 or
// AES256, which is also the one without a name.
func WrapAlgOf(name string) (WrapAlg, bool) {
	switch name {
	case "AES128":
		return WrapAlg{16}, true
	case "AES192":
		return WrapAlg{24}, true
	case "AES256", "":
		return WrapAlg{32}, true
	}
	return WrapAlg{}, false
}

// KeySize is the length in bytes of the key it needs.
func (w WrapAlg) KeySize() int { return w.keySize }

// initial is the integrity check value: iv if given, else that of RFC 3394
// section 2.2.3.1.
func (w WrapAlg) initial(iv []byte) ([wrapHalf]byte, bool) {
	if iv == nil {
		return [wrapHalf]byte{0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6, 0xa6}, true
	}
	if len(iv) != wrapHalf {
		return [wrapHalf]byte{}, false
	}
	return [wrapHalf]byte(iv), true
}

// Wrap encrypts plain under the leading KeySize bytes of kek. The result is 8
// bytes longer. iv, of 8 bytes, replaces the default initial value unless it is
// nil. Wrap returns ErrMismatch if kek is too short, iv has another length, or
// plain has fewer than 16 bytes or not a multiple of 8.
func (w WrapAlg) Wrap(kek, plain, iv []byte) ([]byte, error) {
	initial, ok := w.initial(iv)
	if !ok || len(kek) < w.keySize || len(plain) < minWrap || len(plain)%wrapHalf != 0 {
		return nil, ErrMismatch
	}
	block, err := aes.NewCipher(kek[:w.keySize])
	if err != nil {
		return nil, fmt.Errorf("aes: %w", err)
	}
	// RFC 3394 section 2.2.1, with the registers R[1]..R[n] in place in out
	// and A in the first half of b.
	out := slices.Concat(initial[:], plain)
	var b [aes.BlockSize]byte
	copy(b[:], initial[:])
	t := uint64(0)
	for range 6 {
		for r := wrapHalf; r < len(out); r += wrapHalf {
			t++
			copy(b[wrapHalf:], out[r:])
			block.Encrypt(b[:], b[:])
			copy(out[r:], b[wrapHalf:])
			binary.BigEndian.PutUint64(b[:], binary.BigEndian.Uint64(b[:])^t)
		}
	}
	copy(out, b[:wrapHalf])
	return out, nil
}

// Unwrap reverses Wrap. It returns ErrMismatch if a length is wrong, or if the
// initial value does not come out: then kek is another or a byte was changed.
func (w WrapAlg) Unwrap(kek, wrapped, iv []byte) ([]byte, error) {
	initial, ok := w.initial(iv)
	if !ok || len(kek) < w.keySize || len(wrapped) < minWrap+wrapHalf || len(wrapped)%wrapHalf != 0 {
		return nil, ErrMismatch
	}
	block, err := aes.NewCipher(kek[:w.keySize])
	if err != nil {
		return nil, fmt.Errorf("aes: %w", err)
	}
	// RFC 3394 section 2.2.2.
	out := slices.Clone(wrapped)
	var b [aes.BlockSize]byte
	copy(b[:], out[:wrapHalf])
	t := uint64(6 * (len(out)/wrapHalf - 1))
	for range 6 {
		for r := len(out) - wrapHalf; r > 0; r -= wrapHalf {
			binary.BigEndian.PutUint64(b[:], binary.BigEndian.Uint64(b[:])^t)
			copy(b[wrapHalf:], out[r:])
			block.Decrypt(b[:], b[:])
			copy(out[r:], b[wrapHalf:])
			t--
		}
	}
	if subtle.ConstantTimeCompare(b[:wrapHalf], initial[:]) != 1 {
		clear(out)
		return nil, ErrMismatch
	}
	return out[wrapHalf:], nil
}
