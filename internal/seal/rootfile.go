package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"softhem/internal/fsync"
	"softhem/internal/suite"
)

// A RootKind is how a root key is kept.
type RootKind uint8

const (
	RootRaw RootKind = iota + 1 // 32 bytes
	RootAge                     // an age file
)

func (k RootKind) String() string {
	if k == RootAge {
		return "age"
	}
	return "raw"
}

// isAge tells an age file by its beginning.
func isAge(file []byte) bool {
	trimmed := bytes.TrimLeft(file, " \t\r\n") // armor may follow white space
	return bytes.HasPrefix(file, []byte(ageBinary)) || bytes.HasPrefix(trimmed, []byte(ageArmor))
}

// ReadRootFile reads the file of src as it is, and tells its kind. It must hold root,
// the key that is in use, which cannot be seen of an age file whose passphrase
// a person was asked for. What is there but is no file, such as a pipe, is
// fs.ErrNotExist: it was read once and is empty now.
func ReadRootFile(src RootSource, root Secret) ([]byte, RootKind, error) {
	path := src.File
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is no file any more: %w", path, fs.ErrNotExist)
	}
	b, _, err := readSecretFile(path)
	if err != nil {
		return nil, 0, err
	}
	if isAge(b) {
		return b, RootAge, src.holds(root)
	}
	if !suite.Equal(b, root) {
		clear(b)
		return nil, 0, fmt.Errorf("the root key file %s is not the key that the module runs with; put that back", path)
	}
	return b, RootRaw, nil
}

// holds checks that an age file has root in it, as far as nobody has to be asked
// for that.
func (src RootSource) holds(root Secret) error {
	if src.Identity == "" && src.PassphraseFile == "" {
		return nil
	}
	now, err := LoadRoot(src)
	if err != nil {
		return err
	}
	defer now.Wipe()
	if !suite.Equal(now, root) {
		return fmt.Errorf("the root key file %s is not the key that the module runs with; put that back", src.File)
	}
	return nil
}

// PutRootFile writes the file of a root key, as ReadRootFile has read it, to
// where there is none (else fs.ErrExist). When it returns nil, it is on disk.
func PutRootFile(path string, file []byte) error {
	if err := writeNewFile(path, file); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return err
		}
		return fmt.Errorf("cannot write the root key: %w", err)
	}
	return fsync.Dir(filepath.Dir(path))
}
