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

// A new root key takes the place of another in four steps, and each is on disk
// before the next:
//
//	1  FILE.rekey has the new root key            BeginRekey
//	2  data.key is sealed with it               Sealer.Rewrap, by renaming
//	3  FILE has the new root key, in place      Rekeying.Finish
//	4  FILE.rekey is overwritten and gone         Rekeying.Finish
//
// After a crash LoadSettled asks which of the two files opens data.key: before
// step 2 that is FILE, and FILE.rekey goes; after it FILE.rekey, and 3 and 4 are
// done again. FILE itself may be half written then, and is never needed.
//
// FILE is written in place, not renamed: so the old key's bytes are overwritten
// as far as the file system writes in place, and a FILE that is a link, or
// alone mounted into a container, keeps its owner and its place.
type Rekeying struct {
	file, next string // paths
	key        Secret
	content    []byte // of the file that is to be
	at         *os.File
}

// nextSuffix is not ".new": nobody else shall have called a file of theirs so, as it
// may be removed.
const nextSuffix = ".rekey"

// ErrWantsPassphrase: the root key's passphrase was asked for on a terminal, so
// somebody has to say what the new one is.
var ErrWantsPassphrase = errors.New("the new root key needs a passphrase")

// BeginRekey draws a new root key and keeps it beside the one in src, in the
// same way: raw, or as an age file for the identity or with the passphrase that src
// names, or else with passphrase. root is the key in use. On an error nothing has
// changed. Abort or Finish follows.
func BeginRekey(src RootSource, root Secret, passphrase []byte) (_ *Rekeying, err error) {
	file, err := filepath.EvalSymlinks(src.File)
	if err != nil {
		return nil, fmt.Errorf("there is no root key to replace: %w", err)
	}
	src.File = file
	k := &Rekeying{file: file, next: file + nextSuffix}
	if _, err := os.Lstat(k.next); err == nil {
		return nil, fmt.Errorf("%s is there, from an attempt that was cut off; start the module again, which settles that", k.next)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	old, kind, err := ReadRootFile(src, root)
	if err != nil {
		return nil, err
	}
	defer clear(old)
	// Before anything: FILE will have to be written when there is no way back.
	if k.at, err = os.OpenFile(file, os.O_WRONLY, 0); err != nil {
		return nil, fmt.Errorf("the root key cannot be replaced: %w; the module has to be able to write this file, and beside it", err)
	}
	defer func() {
		if err != nil {
			k.close()
		}
	}()
	k.key = suite.Random(KeySize)
	if kind == RootRaw {
		k.content = bytes.Clone(k.key)
	} else if k.content, err = src.sealNext(k.key, passphrase, isArmor(old)); err != nil {
		return nil, err
	}
	if err := writeNewFile(k.next, k.content); err != nil {
		return nil, fmt.Errorf("the new root key cannot be written: %w; the module has to be able to write the root key, and beside it", err)
	}
	if err := fsync.Dir(filepath.Dir(k.next)); err != nil {
		return nil, errors.Join(err, k.Abort())
	}
	if err := k.opens(src, passphrase); err != nil {
		return nil, errors.Join(err, k.Abort())
	}
	return k, nil
}

// opens checks that what was written can be read at the next start, as far as
// nobody has to be asked for that.
func (k *Rekeying) opens(src RootSource, passphrase []byte) error {
	src.File = k.next
	src.Prompt = func(string) ([]byte, error) { return bytes.Clone(passphrase), nil }
	key, err := LoadRoot(src)
	defer key.Wipe()
	if err == nil && !suite.Equal(key, k.key) {
		err = errors.New("the new root key does not read back as it was written")
	}
	return err
}

// sealNext makes an age file of key.
func (src RootSource) sealNext(key Secret, passphrase []byte, armored bool) ([]byte, error) {
	var to []age.Recipient
	switch {
	case src.Identity != "" || src.PassphraseFile != "":
		var err error
		if to, err = src.recipients(); err != nil {
			return nil, err
		}
	case len(passphrase) == 0:
		return nil, ErrWantsPassphrase
	default:
		r, err := age.NewScryptRecipient(string(passphrase))
		if err != nil {
			return nil, err
		}
		to = []age.Recipient{r}
	}
	var file bytes.Buffer
	var out io.Writer = &file
	end := io.NopCloser(nil).Close
	if armored {
		text := armor.NewWriter(&file)
		out, end = text, text.Close
	}
	w, err := age.Encrypt(out, to...)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(key)
	if err := errors.Join(err, w.Close(), end()); err != nil {
		return nil, err
	}
	return file.Bytes(), nil
}

// recipients are whom the new file is for: who opens the old one.
func (src RootSource) recipients() ([]age.Recipient, error) {
	ids, _, err := src.identities()
	if err != nil {
		return nil, err
	}
	var to []age.Recipient
	for _, id := range ids {
		switch id := id.(type) {
		case *age.X25519Identity:
			to = append(to, id.Recipient())
		case *age.HybridIdentity:
			to = append(to, id.Recipient())
		case *age.ScryptIdentity:
			b, _, err := readSecretFile(src.PassphraseFile)
			if err != nil {
				return nil, err
			}
			defer clear(b)
			r, err := age.NewScryptRecipient(string(bytes.TrimSuffix(b, []byte("\n"))))
			if err != nil {
				return nil, err
			}
			to = append(to, r)
		default:
			return nil, fmt.Errorf("the identity in %s tells nobody whom to encrypt for", src.Identity)
		}
	}
	return to, nil
}

func isArmor(file []byte) bool { return !bytes.HasPrefix(file, []byte(ageBinary)) }

// Key is the new root key. It stays the Rekeying's.
func (k *Rekeying) Key() Secret { return k.key }

// File is where the root key is kept.
func (k *Rekeying) File() string { return k.file }

// Abort removes the new root key, which seals nothing.
func (k *Rekeying) Abort() error { return errors.Join(shredFile(k.next), k.close()) }

// Leave leaves both files as they are, for the next start to settle.
func (k *Rekeying) Leave() error { return k.close() }

// Finish puts the new root key in the old one's place. data.key has to be sealed
// with it. After an error the new key is in FILE.rekey, and in use.
func (k *Rekeying) Finish() error {
	err := overwriteWith(k.at, k.content)
	if err == nil {
		err = shredFile(k.next)
	}
	if err != nil {
		err = fmt.Errorf("the new root key is in use and could not be put into %s: %w; it is in %s: keep that, and start the module again", k.file, err, k.next)
	}
	return errors.Join(err, k.close())
}

func (k *Rekeying) close() error {
	k.key.Wipe()
	clear(k.content)
	if k.at == nil {
		return nil
	}
	return k.at.Close()
}

// overwriteWith replaces what is in f.
func overwriteWith(f *os.File, content []byte) error {
	_, err := f.WriteAt(content, 0)
	return errors.Join(err, f.Truncate(int64(len(content))), f.Sync())
}

// shredFile overwrites a file and removes it.
func shredFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.Write(suite.Random(int(min(info.Size(), maxSecretFile))))
	}
	if err := errors.Join(err, f.Sync(), f.Close(), os.Remove(path)); err != nil {
		return err
	}
	return fsync.Dir(filepath.Dir(path))
}

// Rewrap seals the data key with another root key: from here the old one opens
// nothing. The data key itself stays, and so does every record. On an error
// that is no [ErrUnsettled] nothing has changed; a crash leaves the one or the
// other.
func (s *Sealer) Rewrap(root Secret) error {
	if err := checkRoot(root); err != nil {
		return err
	}
	if s.dir == "" {
		return errors.New("a data key in memory is sealed with nothing")
	}
	s.files.Lock()
	defer s.files.Unlock()
	s.mu.RLock()
	blob, gone := newDataKeyBlob(root, s.key), s.destroyed
	s.mu.RUnlock()
	if gone {
		return ErrDestroyed
	}
	path := filepath.Join(s.dir, dataKeyFile)
	old, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("cannot replace the data key: %w", err)
	}
	defer old.Close()
	if err := replaceFile(s.dir, newKeyFile, dataKeyFile, blob); err != nil {
		if now, readErr := readLimited(path, dataKeySize); readErr == nil && !bytes.Equal(now, blob) {
			return fmt.Errorf("cannot replace the data key: %w", err)
		}
		return fmt.Errorf("%w: %w", ErrUnsettled, err)
	}
	// The old seal has no name any more. Overwritten, it is of no use to who
	// has the old root key and finds the block; but nothing hangs on it.
	_, err = old.WriteAt(suite.Random(dataKeySize), 0)
	if err := errors.Join(err, old.Sync()); err != nil {
		return fmt.Errorf("%w: the old seal could not be overwritten: %w", ErrNotErased, err)
	}
	return nil
}

// ErrUnsettled: whether the data key is sealed with the old root key or the new
// one will be seen at the next start, which takes either.
var ErrUnsettled = errors.New("the data key may be sealed with either root key")

// LoadSettled is LoadRoot for the data key in dir. If a change of the root key
// was cut off, it finds out which key is in use and finishes or undoes the
// change: told says so, in words for the operator's log, and unfinished that the
// key in use could not be put into its place.
func LoadSettled(dir string, src RootSource) (root Secret, told string, unfinished error, err error) {
	next := src.File + nextSuffix
	if file, err := filepath.EvalSymlinks(src.File); err == nil {
		next = file + nextSuffix
	}
	if _, err := os.Lstat(next); err != nil {
		root, err := LoadRoot(src)
		return root, "", nil, err
	}
	asked := &memo{ask: src.Prompt}
	defer asked.forget()
	if src.Prompt != nil {
		src.Prompt = asked.prompt
	}
	root, loadErr := LoadRoot(src)
	if loadErr == nil {
		fits, err := sealedWith(dir, root)
		if err != nil {
			return nil, "", nil, err
		}
		if fits {
			if err := shredFile(next); err != nil {
				return root, "", fmt.Errorf("a new root key that is not in use cannot be removed: %w", err), nil
			}
			return root, "what a change of the root key that was cut off had left was removed", nil, nil
		}
		root.Wipe()
		loadErr = fmt.Errorf("%w: neither %s nor %s is what the data in %s is sealed with", ErrWrongRootKey, src.File, next, dir)
	}
	other := src
	other.File = next
	key, err := LoadRoot(other)
	if err != nil && asked.again() {
		key, err = LoadRoot(other)
	}
	if err != nil {
		return nil, "", nil, errors.Join(loadErr, err)
	}
	if fits, err := sealedWith(dir, key); err != nil || !fits {
		key.Wipe()
		return nil, "", nil, errors.Join(err, loadErr)
	}
	return key, "a change of the root key that was cut off has been finished", install(src.File, next), nil
}

// install does steps 3 and 4 again.
func install(file, next string) error {
	content, _, err := readSecretFile(next)
	if err != nil {
		return err
	}
	defer clear(content)
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err == nil {
		err = errors.Join(overwriteWith(f, content), f.Close())
	}
	if err == nil {
		err = shredFile(next)
	}
	if err != nil {
		return fmt.Errorf("the root key in use is in %s and cannot be put into %s: %w; copy it there", next, file, err)
	}
	return nil
}

// sealedWith tells whether root opens the data key in dir. Where there is none,
// after a wipe, any does.
func sealedWith(dir string, root Secret) (bool, error) {
	if !Exists(dir) {
		return true, nil
	}
	b, err := readLimited(filepath.Join(dir, dataKeyFile), dataKeySize)
	if err != nil {
		return false, err
	}
	key, err := dataKeyBlob(b).open(root)
	key.Wipe()
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, ErrWrongRootKey):
		return false, nil
	}
	return false, fmt.Errorf("%s: %w", filepath.Join(dir, dataKeyFile), err)
}

// A memo asks for a passphrase once, and gives it for a second file too.
type memo struct {
	ask  func(what string) ([]byte, error)
	said []byte
}

func (m *memo) prompt(what string) ([]byte, error) {
	if m.said == nil {
		said, err := m.ask(what)
		if err != nil {
			return nil, err
		}
		m.said = said
	}
	return bytes.Clone(m.said), nil
}

// again has the next prompt ask anew, if there was one.
func (m *memo) again() bool {
	had := m.said != nil
	m.forget()
	return had
}

func (m *memo) forget() {
	clear(m.said)
	m.said = nil
}
