package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"softhem/internal/fsync"
	"softhem/internal/suite"
)

var (
	// ErrWrongRootKey: data.key is whole, but was sealed with another root key.
	ErrWrongRootKey = errors.New("wrong root key")
	// ErrDamagedDataKey: data.key is no data key file, or its bytes have changed.
	ErrDamagedDataKey = errors.New("the data key file is damaged")
)

const (
	dataKeyFile   = "data.key"
	newKeyFile    = "data.key.new"  // being written by Create; never read
	doomedKeyFile = "data.key.gone" // set aside by Destroy; never read, and the mark of a wipe until Create
)

// A dataKeyBlob is what data.key holds, 109 bytes:
//
//	 0      4      5               29                   61        77            109
//	┌──────┬──────┬───────────────┬────────────────────┬─────────┬──────────────┐
//	│"HEMK"│ 0x01 │ nonce         │ ciphertext (32)    │ tag     │ SHA-256      │
//	└──────┴──────┴───────────────┴────────────────────┴─────────┴──────────────┘
//	         │      └─ XChaCha20-Poly1305 of the data key      of bytes 0 to 76
//	         └─ version    under the root key; associated data: bytes 0 to 4
//
// The digest is no protection, the tag is. It is there to tell a damaged file
// (restore it) from the wrong root key (find the right one).
type dataKeyBlob []byte

const (
	dataKeyHeader = "HEMK\x01"
	dataKeySealed = 24 + KeySize + 16
	dataKeySum    = 32
	dataKeySize   = len(dataKeyHeader) + dataKeySealed + dataKeySum
)

func newDataKeyBlob(root, key Secret) dataKeyBlob {
	b := append([]byte(dataKeyHeader), suite.SealAEAD(root, key, []byte(dataKeyHeader))...)
	sum := suite.SHA256(b)
	return append(b, sum[:]...)
}

func (b dataKeyBlob) open(root Secret) (Secret, error) {
	if len(b) != dataKeySize {
		return nil, fmt.Errorf("%w: it has not the %d bytes of a data key file", ErrDamagedDataKey, dataKeySize)
	}
	body := b[:dataKeySize-dataKeySum]
	if sum := suite.SHA256(body); !bytes.Equal(sum[:], b[len(body):]) {
		return nil, fmt.Errorf("%w: its checksum does not fit", ErrDamagedDataKey)
	}
	sealed, ok := bytes.CutPrefix(body, []byte(dataKeyHeader))
	if !ok {
		return nil, fmt.Errorf("%w: it is of an unknown version", ErrDamagedDataKey)
	}
	key, err := suite.OpenAEAD(root, sealed, []byte(dataKeyHeader))
	if err != nil {
		return nil, ErrWrongRootKey
	}
	return key, nil
}

// Exists tells whether dir holds a data key. When it does not, but the folder
// holds records, they are unreadable for good; see [Wiped].
func Exists(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, dataKeyFile))
	return err == nil
}

// Wiped tells whether the data key of dir was destroyed and no other made
// since: what else is in the folder is to go before Create. The key's bytes are
// overwritten when it returns, whatever cut Destroy off.
func Wiped(dir string) (bool, error) {
	if Exists(dir) {
		return false, nil
	}
	found, err := overwrite(dir)
	if err != nil {
		return found, fmt.Errorf("cannot overwrite the data key of an interrupted wipe, remove what else is in the folder and then %s by hand: %w", filepath.Join(dir, doomedKeyFile), err)
	}
	return found, nil
}

// Create draws a data key, seals it with root and keeps it in dir. It refuses
// (fs.ErrExist) when there is one: replacing it would lose every record.
// A crash before it returns leaves either no data key or a whole one.
func Create(dir string, root Secret) (*Sealer, error) {
	if err := checkRoot(root); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, dataKeyFile)
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("%s holds a data key already, and without it the data of the module is lost; it is not replaced: %w", path, fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot look for the data key: %w", err)
	}
	if err := shred(dir); err != nil {
		return nil, fmt.Errorf("cannot remove the data key of an interrupted wipe, remove %s by hand: %w", filepath.Join(dir, doomedKeyFile), err)
	}
	s := &Sealer{dir: dir, key: suite.Random(KeySize)}
	if err := replaceFile(dir, newKeyFile, dataKeyFile, newDataKeyBlob(root, s.key)); err != nil {
		s.key.Wipe()
		return nil, fmt.Errorf("cannot write the data key: %w", err)
	}
	return s, nil
}

// Open reads the data key in dir with the root key that sealed it. Errors are
// ErrWrongRootKey, ErrDamagedDataKey, or of the file (fs.ErrNotExist).
func Open(dir string, root Secret) (*Sealer, error) {
	if err := checkRoot(root); err != nil {
		return nil, err
	}
	if err := shred(dir); err != nil {
		return nil, fmt.Errorf("cannot remove the data key of an interrupted wipe, remove %s by hand: %w", filepath.Join(dir, doomedKeyFile), err)
	}
	path := filepath.Join(dir, dataKeyFile)
	b, err := readLimited(path, dataKeySize)
	if err != nil {
		return nil, fmt.Errorf("cannot read the data key: %w", err)
	}
	key, err := dataKeyBlob(b).open(root)
	switch {
	case errors.Is(err, ErrWrongRootKey):
		return nil, fmt.Errorf("%w: the data in %s is sealed with another one; name the right file with --root-key", err, dir)
	case err != nil:
		return nil, fmt.Errorf("%s: %w; put it back from a backup, without it nothing in %s can be read", path, err, dir)
	}
	return &Sealer{dir: dir, key: key}, nil
}

func checkRoot(root Secret) error {
	if len(root) != KeySize {
		return fmt.Errorf("a root key has %d bytes, not %d", KeySize, len(root))
	}
	return nil
}

// shred overwrites and removes the data key file that Destroy has set aside.
// It does nothing when there is none.
func shred(dir string) error {
	found, err := overwrite(dir)
	if err != nil || !found {
		return err
	}
	if err := os.Remove(filepath.Join(dir, doomedKeyFile)); err != nil {
		return err
	}
	return fsync.Dir(dir)
}

// overwrite puts random bytes over the file that Destroy has set aside, and
// tells whether there is one.
func overwrite(dir string) (bool, error) {
	f, err := os.OpenFile(filepath.Join(dir, doomedKeyFile), os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	_, err = f.Write(suite.Random(dataKeySize))
	return true, errors.Join(err, f.Sync(), f.Close())
}

// replaceFile writes name by way of temp, so that a crash leaves the old state
// or the new one. Both are in dir.
func replaceFile(dir, temp, name string, content []byte) error {
	path := filepath.Join(dir, temp)
	// What a crash left under this name is never read. It is removed rather
	// than truncated, so that its mode and owner do not live on.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeNewFile(path, content); err != nil {
		return err
	}
	if err := os.Rename(path, filepath.Join(dir, name)); err != nil {
		os.Remove(path)
		return err
	}
	return fsync.Dir(dir)
}

// writeNewFile creates path with mode 0600 and returns when content is on
// disk. On failure it leaves no file, except when there was one before.
func writeNewFile(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(path)
		return err
	}
	return nil
}

// readLimited reads a file, and one byte more than limit when there is more.
func readLimited(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, int64(limit)+1))
}
