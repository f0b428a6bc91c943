package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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

// ReadRootFile reads the file of a root key as it is, and tells its kind. A
// raw one must be root, the key that is in use. What is there but is no file, such
// as a pipe, is fs.ErrNotExist: it was read once and is empty now.
func ReadRootFile(path string, root Secret) ([]byte, RootKind, error) {
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
		return b, RootAge, nil
	}
	if !suite.Equal(b, root) {
		clear(b)
		return nil, 0, fmt.Errorf("the root key file %s is not the key that the module runs with; put that back", path)
	}
	return b, RootRaw, nil
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
	return syncDir(filepath.Dir(path))
}
