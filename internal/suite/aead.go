package suite

import (
	"errors"

	"golang.org/x/crypto/chacha20poly1305"
)

// AEADKeySize is the length of a sealing key in bytes.
const AEADKeySize = chacha20poly1305.KeySize

// ErrOpen is returned by OpenAEAD whatever the cause: a wrong key, other
// associated data, or changed bytes.
var ErrOpen = errors.New("cannot be opened with this key")

// SealAEAD encrypts plaintext with XChaCha20-Poly1305 under a fresh random
// 24-byte nonce and returns nonce ‖ ciphertext ‖ tag. The nonce is long enough
// to be drawn at random for any number of records under one key.
func SealAEAD(key, plaintext, aad []byte) []byte {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic("suite: AEAD key has a wrong length") // callers hold 32-byte keys
	}
	out := make([]byte, aead.NonceSize(), aead.NonceSize()+len(plaintext)+aead.Overhead())
	copy(out, Random(aead.NonceSize()))
	return aead.Seal(out, out, plaintext, aad)
}

// OpenAEAD reverses SealAEAD.
func OpenAEAD(key, sealed, aad []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil || len(sealed) < aead.NonceSize()+aead.Overhead() {
		return nil, ErrOpen
	}
	n := aead.NonceSize()
	plain, err := aead.Open(nil, sealed[:n], sealed[n:], aad)
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}
