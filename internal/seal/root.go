package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"
	"filippo.io/age/armor"

	"softhem/internal/fsync"
	"softhem/internal/suite"
)

// A RootSource says where the root key is and what opens it.
type RootSource struct {
	// File holds the root key: either 32 raw bytes, accepted only when no one
	// but the owner may read the file, or an age file (binary or armored)
	// whose content is the 32 bytes.
	File string
	// Identity is the file of age identities (AGE-SECRET-KEY-…) that opens an
	// age file made for a recipient. Not together with PassphraseFile.
	Identity string
	// PassphraseFile holds the passphrase of an age file; one newline at its
	// end is not part of it.
	PassphraseFile string
	// Prompt asks for the passphrase of an age file when neither file is
	// given; what names the thing to be opened. nil: nobody can be asked.
	Prompt func(what string) ([]byte, error)
}

// No file read here is longer than this many bytes, or it is not what it was
// taken for.
const maxSecretFile = 64 << 10

// ageBinary and ageArmor start an age file (age-encryption.org/v1).
const (
	ageBinary = "age-encryption.org/"
	ageArmor  = armor.Header
)

// LoadRoot reads the root key. Every error is a sentence for the operator.
// The caller wipes the key when it is no longer needed.
func LoadRoot(src RootSource) (Secret, error) {
	if src.Identity != "" && src.PassphraseFile != "" {
		return nil, errors.New("the root key is opened by an identity or by a passphrase: give --root-key-identity or --root-key-passphrase-file, not both")
	}
	b, mode, err := readSecretFile(src.File)
	if err != nil {
		return nil, fmt.Errorf("cannot read the root key: %w", err)
	}
	if isAge(b) {
		return src.openAge(b)
	}
	defer clear(b)
	if err := checkPrivate(src.File, mode); err != nil {
		return nil, err
	}
	switch {
	case len(b) == 0:
		return nil, fmt.Errorf("the root key file %s is empty; if the first start was interrupted, remove it and start again, else put it back from a backup", src.File)
	case len(b) != KeySize:
		return nil, fmt.Errorf("the root key file %s is neither %d raw bytes nor an age file; name the right file with --root-key", src.File, KeySize)
	case src.Identity != "" || src.PassphraseFile != "":
		// Someone who names what opens it believes that it is encrypted.
		return nil, fmt.Errorf("the root key file %s is not encrypted; encrypt it with age, or leave out --root-key-identity and --root-key-passphrase-file", src.File)
	}
	return bytes.Clone(b), nil
}

// CreateRoot writes a new random root key, raw, to a file of mode 0600. It
// refuses (fs.ErrExist) when there is a file of that name. When it returns nil
// the key is on disk.
func CreateRoot(file string) error {
	key := Secret(suite.Random(KeySize))
	defer key.Wipe()
	err := writeNewFile(file, key)
	if err == nil {
		err = fsync.Dir(filepath.Dir(file))
	}
	if err != nil {
		return fmt.Errorf("cannot create the root key: %w", err)
	}
	return nil
}

// openAge decrypts an age file.
func (src RootSource) openAge(file []byte) (Secret, error) {
	identities, what, err := src.identities()
	if err != nil {
		return nil, err
	}
	var r io.Reader = bytes.NewReader(file)
	if !bytes.HasPrefix(file, []byte(ageBinary)) {
		r = armor.NewReader(r)
	}
	r, err = age.Decrypt(r, identities...)
	if err != nil {
		if mismatch, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
			return nil, src.mismatch(what, mismatch)
		}
		return nil, fmt.Errorf("the root key file %s is damaged (%w); put it back from a backup", src.File, err)
	}
	key, err := io.ReadAll(io.LimitReader(r, KeySize+1))
	switch {
	case err != nil:
		clear(key)
		return nil, fmt.Errorf("the root key file %s is damaged (%w); put it back from a backup", src.File, err)
	case len(key) != KeySize:
		clear(key)
		return nil, fmt.Errorf("the age file %s opens, but its content is not a root key of %d raw bytes; name the right file with --root-key", src.File, KeySize)
	}
	return key, nil
}

// identities returns what age tries on the file, and its name in a sentence.
func (src RootSource) identities() (ids []age.Identity, what string, err error) {
	if src.Identity != "" {
		b, mode, err := readSecretFile(src.Identity)
		if err != nil {
			return nil, "", fmt.Errorf("cannot read the identity for the root key: %w", err)
		}
		defer clear(b)
		if err := checkPrivate(src.Identity, mode); err != nil {
			return nil, "", err
		}
		ids, err := age.ParseIdentities(bytes.NewReader(b))
		if err != nil {
			// age's own text may quote the line it could not read: a secret.
			return nil, "", fmt.Errorf("%s is no file of age identities (lines AGE-SECRET-KEY-…); name the right file with --root-key-identity", src.Identity)
		}
		return ids, "the identity in " + src.Identity, nil
	}

	var pass []byte
	switch {
	case src.PassphraseFile != "":
		b, mode, err := readSecretFile(src.PassphraseFile)
		if err != nil {
			return nil, "", fmt.Errorf("cannot read the passphrase of the root key: %w", err)
		}
		defer clear(b)
		if err := checkPrivate(src.PassphraseFile, mode); err != nil {
			return nil, "", err
		}
		pass, what = bytes.TrimSuffix(b, []byte("\n")), "the passphrase in "+src.PassphraseFile
	case src.Prompt != nil:
		b, err := src.Prompt("root key file " + src.File)
		if err != nil {
			return nil, "", fmt.Errorf("cannot ask for the passphrase of the root key: %w", err)
		}
		defer clear(b)
		pass, what = b, "the passphrase"
	default:
		return nil, "", fmt.Errorf("the root key file %s is encrypted; give --root-key-identity or --root-key-passphrase-file, or start on a terminal to be asked", src.File)
	}
	if len(pass) == 0 {
		return nil, "", errors.New("the passphrase of the root key is empty")
	}
	id, err := age.NewScryptIdentity(string(pass))
	if err != nil {
		return nil, "", fmt.Errorf("the passphrase of the root key cannot be used: %w", err)
	}
	return []age.Identity{id}, what, nil
}

// mismatch explains that what does not open the file.
func (src RootSource) mismatch(what string, err *age.NoIdentityMatchError) error {
	wantsPassphrase := len(err.StanzaTypes) == 1 && err.StanzaTypes[0] == "scrypt"
	switch {
	case wantsPassphrase && src.Identity != "":
		return fmt.Errorf("the root key file %s is encrypted with a passphrase; give --root-key-passphrase-file instead of --root-key-identity", src.File)
	case !wantsPassphrase && src.Identity == "":
		return fmt.Errorf("the root key file %s is encrypted for an age identity; give --root-key-identity instead of a passphrase", src.File)
	}
	return fmt.Errorf("%s does not open the root key file %s; try another one", what, src.File)
}

// readSecretFile reads a file and the mode it had when it was opened, so that
// what is checked is what was read.
func readSecretFile(path string) ([]byte, fs.FileMode, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if info.IsDir() {
		return nil, 0, fmt.Errorf("%s is a folder", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		clear(b)
		return nil, 0, err
	}
	if len(b) > maxSecretFile {
		clear(b)
		return nil, 0, fmt.Errorf("%s is longer than %d bytes, so it is something else", path, maxSecretFile)
	}
	return b, info.Mode().Perm(), nil
}

// checkPrivate refuses a file that others than its owner may use: who can
// read it can read everything that is sealed.
func checkPrivate(path string, mode fs.FileMode) error {
	if mode&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o, so others than its owner may read or change it; run: chmod 600 %s", path, mode, path)
	}
	return nil
}
