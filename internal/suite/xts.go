package suite

import (
	"crypto/aes"
	"fmt"
	"io"

	"golang.org/x/crypto/xts"
)

const (
	// SectorSize is the data unit of a DiskCipher in bytes.
	SectorSize = 512
	// DiskKeySize is the length of its key in bytes.
	DiskKeySize = 64
)

// A DiskCipher is XTS-AES-256 (IEEE 1619, NIST SP 800-38E) over sectors of 512
// bytes, each of which is encrypted under its number. It keeps contents secret
// and tells nothing of changes: who can write the ciphertext can put an older
// sector back, or make 16 bytes of plaintext random.
type DiskCipher struct{ xts *xts.Cipher }

// NewDiskCipher takes a key of 64 bytes, drawn at random. Its halves must
// differ (FIPS 140 wants that looked at): ErrKey otherwise.
func NewDiskCipher(key []byte) (*DiskCipher, error) {
	if len(key) != DiskKeySize || Equal(key[:DiskKeySize/2], key[DiskKeySize/2:]) {
		return nil, ErrKey
	}
	c, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		return nil, ErrKey
	}
	return &DiskCipher{c}, nil
}

// Encrypt encrypts whole sectors in place; first is the number of the first.
func (c *DiskCipher) Encrypt(sectors []byte, first uint64) {
	for ; len(sectors) > 0; first, sectors = first+1, sectors[SectorSize:] {
		c.xts.Encrypt(sectors[:SectorSize], sectors[:SectorSize], first)
	}
}

// Decrypt reverses Encrypt.
func (c *DiskCipher) Decrypt(sectors []byte, first uint64) {
	for ; len(sectors) > 0; first, sectors = first+1, sectors[SectorSize:] {
		c.xts.Decrypt(sectors[:SectorSize], sectors[:SectorSize], first)
	}
}

// Format keeps the expanded key out of whatever prints the cipher.
func (c *DiskCipher) Format(f fmt.State, _ rune) { io.WriteString(f, "[secret]") }
