package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"fmt"
	"strings"
)

// Lengths in bytes of what goes beside an AES ciphertext.
const (
	cipherIVSize  = 16 // of CBC and GCM
	cipherTagSize = 16 // of GCM
)

// A CipherAlg is AES (FIPS 197) with a key length in one of three modes: ECB
// and CBC of NIST SP 800-38A, GCM of SP 800-38D. The zero CipherAlg is none of
// them and must not be used.
type CipherAlg struct {
	keySize int // bytes
	mode    cipherMode
}

type cipherMode uint8

const (
	ecb cipherMode = iota + 1
	cbc
	gcm
)

// CipherAlgOf finds a cipher by the protocol's name for it, such as
// AES256-GCM.
func CipherAlgOf(name string) (CipherAlg, bool) {
	key, mode, _ := strings.Cut(name, "-")
	var c CipherAlg
	switch key {
	case "AES128":
		c.keySize = 16
	case "AES192":
		c.keySize = 24
	case "AES256":
		c.keySize = 32
	default:
		return CipherAlg{}, false
	}
	switch mode {
	case "ECB":
		c.mode = ecb
	case "CBC":
		c.mode = cbc
	case "GCM":
		c.mode = gcm
	default:
		return CipherAlg{}, false
	}
	return c, true
}

// KeySize is the length in bytes of the key it needs.
func (c CipherAlg) KeySize() int { return c.keySize }

// HasIV tells whether there is a 16-byte IV: with CBC and GCM.
func (c CipherAlg) HasIV() bool { return c.mode != ecb }

// HasTag tells whether there is a 16-byte tag: with GCM, which alone notices
// changes and alone covers associated data.
func (c CipherAlg) HasTag() bool { return c.mode == gcm }

// Blocks tells whether it takes whole blocks of 16 bytes only: with ECB.
func (c CipherAlg) Blocks() bool { return c.mode == ecb }

// block is AES under the leading KeySize bytes of key.
func (c CipherAlg) block(key []byte) (cipher.Block, error) {
	if len(key) < c.keySize {
		return nil, ErrMismatch
	}
	b, err := aes.NewCipher(key[:c.keySize])
	if err != nil {
		return nil, fmt.Errorf("aes: %w", err)
	}
	return b, nil
}

// Encrypt encrypts plain under the leading KeySize bytes of key and a fresh
// random 16-byte IV. CBC pads by PKCS #7 (RFC 5652 section 6.3). iv and tag
// are nil where the mode has none, and aad counts for GCM alone. It returns
// ErrMismatch for a key that is too short and, with ECB, for a plaintext that
// does not end with a block.
//
// With GCM a random IV of 16 bytes is hashed to a counter (SP 800-38D section
// 8.2.2 allows 2^32 messages for one key).
func (c CipherAlg) Encrypt(key, plain, aad []byte) (ciphertext, iv, tag []byte, err error) {
	if c.HasIV() {
		iv = Random(cipherIVSize)
	}
	ciphertext, tag, err = c.encrypt(key, plain, iv, aad)
	if err != nil {
		return nil, nil, nil, err
	}
	return ciphertext, iv, tag, nil
}

// encrypt is Encrypt with an IV of 16 bytes that was not used before under
// this key.
func (c CipherAlg) encrypt(key, plain, iv, aad []byte) (ciphertext, tag []byte, err error) {
	block, err := c.block(key)
	if err != nil {
		return nil, nil, err
	}
	switch c.mode {
	case ecb:
		if len(plain)%aes.BlockSize != 0 {
			return nil, nil, ErrMismatch
		}
		out := make([]byte, len(plain))
		for i := 0; i < len(plain); i += aes.BlockSize {
			block.Encrypt(out[i:], plain[i:])
		}
		return out, nil, nil
	case cbc:
		n := aes.BlockSize - len(plain)%aes.BlockSize
		out := make([]byte, len(plain)+n)
		for i := copy(out, plain); i < len(out); i++ {
			out[i] = byte(n)
		}
		cipher.NewCBCEncrypter(block, iv).CryptBlocks(out, out)
		return out, nil, nil
	default:
		aead, err := cipher.NewGCMWithNonceSize(block, cipherIVSize)
		if err != nil {
			return nil, nil, fmt.Errorf("gcm: %w", err)
		}
		out := aead.Seal(make([]byte, 0, len(plain)+cipherTagSize), iv, plain, aad)
		return out[:len(plain):len(plain)], out[len(plain):], nil
	}
}

// Decrypt reverses Encrypt. Whatever is wrong, a length, the key, the padding
// or the tag, it returns ErrMismatch.
//
// CBC has no tag: who may ask for decryptions under a key and sees whether
// they succeed can decrypt its ciphertexts by their padding. The padding is
// checked in constant time, so that nothing finer is to be seen.
func (c CipherAlg) Decrypt(key, ciphertext, iv, tag, aad []byte) ([]byte, error) {
	block, err := c.block(key)
	if err != nil {
		return nil, err
	}
	if c.HasIV() && len(iv) != cipherIVSize || c.HasTag() && len(tag) != cipherTagSize ||
		!c.HasTag() && len(ciphertext)%aes.BlockSize != 0 {
		return nil, ErrMismatch
	}
	switch c.mode {
	case ecb:
		out := make([]byte, len(ciphertext))
		for i := 0; i < len(ciphertext); i += aes.BlockSize {
			block.Decrypt(out[i:], ciphertext[i:])
		}
		return out, nil
	case cbc:
		if len(ciphertext) == 0 {
			return nil, ErrMismatch
		}
		out := make([]byte, len(ciphertext))
		cipher.NewCBCDecrypter(block, iv).CryptBlocks(out, ciphertext)
		return unpad(out)
	default:
		aead, err := cipher.NewGCMWithNonceSize(block, cipherIVSize)
		if err != nil {
			return nil, fmt.Errorf("gcm: %w", err)
		}
		sealed := make([]byte, 0, len(ciphertext)+cipherTagSize)
		sealed = append(append(sealed, ciphertext...), tag...)
		out, err := aead.Open(sealed[:0], iv, sealed, aad)
		if err != nil {
			return nil, ErrMismatch
		}
		return out, nil
	}
}

// unpad removes PKCS #7 padding from at least one whole block. It reads all 16
// bytes that may be padding whatever they are, and decides once.
func unpad(b []byte) ([]byte, error) {
	last := b[len(b)-aes.BlockSize:]
	n := int(last[aes.BlockSize-1])
	good := subtle.ConstantTimeLessOrEq(1, n) & subtle.ConstantTimeLessOrEq(n, aes.BlockSize)
	for i, c := range last {
		padding := subtle.ConstantTimeLessOrEq(aes.BlockSize-n, i)
		good &= subtle.ConstantTimeByteEq(c, byte(n)) | (1 - padding)
	}
	if good != 1 {
		return nil, ErrMismatch
	}
	return b[:len(b)-n], nil
}

// OpenCBCUnpadded decrypts AES-CBC of whole blocks that were not padded. Every
// ciphertext of the right length decrypts to something, so the caller has to know
// the plaintext's form. The error is ErrMismatch.
func OpenCBCUnpadded(key, iv, ciphertext []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil || len(iv) != aes.BlockSize || len(ciphertext)%aes.BlockSize != 0 {
		return nil, ErrMismatch
	}
	out := make([]byte, len(ciphertext))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(out, ciphertext)
	return out, nil
}
