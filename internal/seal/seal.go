// Package seal protects what the module keeps: a root key from the operator
// seals one data key, and the data key seals every record.
//
//	root key   32 bytes, a file the operator names (LoadRoot)
//	   └─ data key   32 random bytes, sealed in DIR/data.key (Create, Open)
//	         └─ records   Sealer.Seal, Sealer.Open
//
// Two levels, because a new root key then re-seals one file instead of every
// record, and a wipe has to destroy one file instead of every record.
package seal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"softhem/internal/fsync"
	"softhem/internal/suite"
)

// KeySize is the length of the root key and of the data key in bytes.
const KeySize = suite.AEADKeySize

var (
	// ErrTampered: a sealed value was changed, cut, or stands under another
	// kind or id than it was sealed for, or was sealed with another data key.
	ErrTampered = errors.New("the sealed value was changed or belongs to another record")
	// ErrDestroyed: the data key is gone since Destroy.
	ErrDestroyed = errors.New("the data key was destroyed")
	// ErrNotErased: Destroy took the data key out of use, and its sealed bytes
	// are still in the file.
	ErrNotErased = errors.New("the data key is out of use, and not erased yet")
)

// A Sealer holds the data key and seals records with it. It may be used
// concurrently. A sealed value is
//
//	 0      1                25                       n-16      n
//	┌──────┬────────────────┬────────────────────────┬─────────┐
//	│ 0x01 │ nonce          │ ciphertext             │ tag     │
//	└──────┴────────────────┴────────────────────────┴─────────┘
//	  │      └─ XChaCha20-Poly1305 under the data key, random nonce
//	  └─ version of this format
//
// and is bound by its associated data to the record it stands in, lengths
// being big-endian, so that no two pairs of kind and id give the same bytes:
//
//	┌──────┬──────────────────┬──────┬────────────────┬────┐
//	│ 0x01 │ len(kind) uint32 │ kind │ len(id) uint32 │ id │
//	└──────┴──────────────────┴──────┴────────────────┴────┘
//
// It does not show that a record was replaced by an older value of the same
// record, or removed: that is the audit log's part.
type Sealer struct {
	dir string // where data.key is; "" for a key that is only in memory

	files     sync.Mutex   // one change of data.key at a time; before mu
	mu        sync.RWMutex // guards what follows
	key       Secret
	destroyed bool
}

const sealVersion = 0x01

// InMemory returns a Sealer with a random data key that is never written.
func InMemory() *Sealer { return &Sealer{key: suite.Random(KeySize)} }

// Seal encrypts plaintext for the record of that kind and id. After Destroy
// the result can be opened by nobody.
func (s *Sealer) Seal(kind, id string, plaintext []byte) []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return append([]byte{sealVersion}, suite.SealAEAD(s.key, plaintext, bind(kind, id))...)
}

// Open reverses Seal. The error is ErrTampered or ErrDestroyed.
func (s *Sealer) Open(kind, id string, sealed []byte) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.destroyed {
		return nil, ErrDestroyed
	}
	if len(sealed) == 0 || sealed[0] != sealVersion {
		return nil, ErrTampered
	}
	plain, err := suite.OpenAEAD(s.key, sealed[1:], bind(kind, id))
	if err != nil {
		return nil, ErrTampered
	}
	return plain, nil
}

// FingerprintSize is the length of a fingerprint in bytes.
const FingerprintSize = 16

// Fingerprint tells whether two secrets of one domain are the same, to who
// holds the data key and to nobody else: the first 16 bytes of
//
//	HMAC-SHA256(HMAC-SHA256(data key, "softhem fingerprint" ‖ 0x00 ‖ domain), secret)
//
// The error is ErrDestroyed.
func (s *Sealer) Fingerprint(domain string, secret []byte) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.destroyed {
		return nil, ErrDestroyed
	}
	key := suite.HMACSHA256(s.key, []byte("softhem fingerprint\x00"), []byte(domain))
	return suite.HMACSHA256(key, secret)[:FingerprintSize], nil
}

// bind gives the associated data of a record, see Sealer.
func bind(kind, id string) []byte {
	b := make([]byte, 0, 1+4+len(kind)+4+len(id))
	b = append(b, sealVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(len(kind)))
	b = append(b, kind...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(id)))
	return append(b, id...)
}

// Destroy makes everything sealed unreadable, for good: it is the first step
// of a wipe. The data key file is renamed and overwritten with random bytes, then
// the key in memory is wiped. What is left of the file marks the wipe (see
// [Wiped]) until the next Create removes it.
//
// The rename is the point of no return. When it fails, the error is returned
// and nothing has changed. After it the error is an [ErrNotErased], and a crash
// or such an error leaves the bytes for the next Wiped, Create or Open to
// overwrite before anything else. Overwriting reaches the old bytes as far
// as the file system writes in place; on flash and copy-on-write file systems
// it is the root key kept elsewhere that protects the rest.
func (s *Sealer) Destroy() error {
	s.files.Lock()
	defer s.files.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.destroyed {
		return nil
	}
	var err error
	if s.dir != "" {
		doomed := filepath.Join(s.dir, doomedKeyFile)
		if err := os.Rename(filepath.Join(s.dir, dataKeyFile), doomed); err != nil {
			return fmt.Errorf("the data key cannot be destroyed, nothing was changed: %w", err)
		}
		if err = fsync.Dir(s.dir); err == nil {
			_, err = overwrite(s.dir)
		}
	}
	s.key.Wipe()
	// Seal cannot fail, and must never seal under a key that is known: from
	// here it uses one that nobody keeps.
	s.key = suite.Random(KeySize)
	s.destroyed = true
	if err != nil {
		return fmt.Errorf("%w: %s in %s could not be overwritten: %w", ErrNotErased, doomedKeyFile, s.dir, err)
	}
	return nil
}

// String and Format keep the key from being printed with the struct around it.
func (*Sealer) String() string               { return "seal.Sealer" + redacted }
func (*Sealer) Format(f fmt.State, _ rune)   { io.WriteString(f, "seal.Sealer"+redacted) }
func (*Sealer) MarshalText() ([]byte, error) { return []byte("seal.Sealer" + redacted), nil }
