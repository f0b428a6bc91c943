package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"softhem/hem"
	"softhem/internal/envelope"
	"softhem/internal/fsync"
	"softhem/internal/keystore"
)

// pairingsFile is where an authenticator keeps its pairings: an age file sealed
// with a passphrase, JSON inside. Several commands may use it at once: it is
// changed under a lock, and replaced whole.
//
// The passphrase is a person's, or a random one that the key store of the system
// keeps. That it keeps no more has it hold a few bytes whatever is paired, and
// leaves one form of file, written in one way.
type pairingsFile struct {
	o                *options
	path, passphrase string // the second is a file
	keystore         keystoreFlag
	secret           []byte // once it is known
	random           bool   // secret was drawn, not chosen

	// What was read last, so that a file that did not change is not opened again:
	// that takes a second.
	sealed []byte
	plain  []byte
}

type keptPairings struct {
	Pairings []hem.Pairing `json:"pairings"`
}

func (f *pairingsFile) file() (string, error) {
	if f.path != "" {
		return f.path, nil
	}
	dir, err := dataHome(f.o.t)
	return filepath.Join(dir, "softhem", "authenticator.age"), err
}

func (f *pairingsFile) ask(ctx context.Context, prompt string) error {
	if f.secret != nil {
		return nil
	}
	if inSystem, err := f.keystore.system(f.o); err != nil {
		return err
	} else if inSystem {
		if f.passphrase != "" {
			return &usageError{"hem authenticator", "--keys-passphrase-file and --keystore os exclude each other"}
		}
		f.secret, err = f.fromSystem(ctx)
		f.random = err == nil
		return err
	}
	path := f.passphrase
	if path == "" {
		path = f.o.getenv("HEM_AUTHENTICATOR_PASSPHRASE_FILE")
	}
	var err error
	f.secret, err = f.o.secret(ctx, "--keys-passphrase-file", path, prompt)
	if err == nil && len(f.secret) == 0 {
		err = errors.New("the passphrase of the authenticator's keys cannot be empty")
	}
	return err
}

// keystoreFlag is where the passphrase of the file comes from.
type keystoreFlag string

const (
	keystoreFile keystoreFlag = "file" // a person, or a file
	keystoreOS   keystoreFlag = "os"
)

// system tells whether it is the key store of the system.
func (k keystoreFlag) system(o *options) (bool, error) {
	if k == "" {
		k = keystoreFlag(o.getenv("HEM_AUTHENTICATOR_KEYSTORE"))
	}
	switch k {
	case "", keystoreFile:
		return false, nil
	case keystoreOS:
		return true, nil
	}
	return false, &usageError{"hem authenticator", fmt.Sprintf("--keystore is %q; it can be file or os", k)}
}

// fromSystem is the passphrase that the system keeps for the file. A file that is
// not there yet gets one; a crash before it is there leaves one that it gets then.
func (f *pairingsFile) fromSystem(ctx context.Context) ([]byte, error) {
	path, err := f.file()
	if err != nil {
		return nil, err
	}
	// The name is the file's, so that each has its own.
	name, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	name = "authenticator " + name
	secret, err := keystore.Get(ctx, name)
	if !errors.Is(err, keystore.ErrNone) {
		return secret, err
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("%s cannot be opened: %w; was it made without --keystore os, or elsewhere?", path, keystore.ErrNone), err)
	}
	made := rand.Text() // 130 bits
	return []byte(made), keystore.Set(ctx, name, made)
}

// load reads the pairings; without a file there are none.
func (f *pairingsFile) load(ctx context.Context) (all keptPairings, err error) {
	path, err := f.file()
	if err != nil {
		return all, err
	}
	sealed, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return all, err
	}
	if f.plain == nil || !bytes.Equal(sealed, f.sealed) {
		if err := f.ask(ctx, "Passphrase of the authenticator's keys: "); err != nil {
			return all, err
		}
		plain, err := envelope.OpenPassphrase(f.secret, sealed)
		if err != nil {
			return all, fmt.Errorf("%s does not open with this passphrase: %w", path, err)
		}
		clear(f.plain)
		f.sealed, f.plain = sealed, plain
	}
	if json.Unmarshal(f.plain, &all) != nil {
		return all, fmt.Errorf("%s holds no pairings", path)
	}
	return all, nil
}

// change reads the pairings, changes them, and replaces the file: the new one is
// whole on disk before the old one goes.
func (f *pairingsFile) change(ctx context.Context, change func(*keptPairings)) error {
	path, err := f.file()
	if err != nil {
		return err
	}
	inSystem := false
	if f.secret == nil {
		if inSystem, err = f.keystore.system(f.o); err != nil {
			return err
		}
	}
	ask := func() error { return f.ask(ctx, "New passphrase for the authenticator's keys: ") }
	if !inSystem { // a person may take long
		if err := ask(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|openNoFollow, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // and with it, the lock ends
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	// Of the system under the lock: of two passphrases drawn at once for a file that
	// is not there yet, the system would keep one, and the file could have the other.
	if err := ask(); err != nil {
		return err
	}
	all, err := f.load(ctx)
	if err != nil {
		return err
	}
	change(&all)
	plain, err := json.Marshal(all)
	if err != nil {
		return err
	}
	seal := envelope.SealPassphrase
	if f.random {
		seal = envelope.SealRandom
	}
	sealed, err := seal(f.secret, plain)
	if err != nil {
		return err
	}
	if err := replaceFile(path, sealed); err != nil {
		return err
	}
	clear(f.plain)
	f.sealed, f.plain = sealed, plain
	return nil
}

// replaceFile puts a file of mode 0600 in the place of another.
func replaceFile(path string, content []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".authenticator-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(content)
	if err = errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	return fsync.Dir(filepath.Dir(path))
}
