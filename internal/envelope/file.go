package envelope

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// A FileError says why a file of a person's could not be used: a sentence for who
// gave it, with no secret in it.
type FileError struct{ text string }

func (e *FileError) Error() string { return e.text }

// SealFor writes the header of an age file for people to dst, and returns where
// to write the content; Close ends it, not dst. recipients are age's (age1…), and
// with none it is for who knows the passphrase.
func SealFor(dst io.Writer, recipients []string, passphrase []byte) (io.WriteCloser, error) {
	if len(recipients) == 0 {
		if len(passphrase) == 0 {
			return nil, &FileError{"the passphrase is empty"}
		}
		to, err := age.NewScryptRecipient(string(passphrase))
		if err != nil {
			return nil, err
		}
		return age.Encrypt(dst, to)
	}
	var to []age.Recipient
	for _, text := range recipients {
		r, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil { // not age's words: it may be a secret key that was given by mistake
			return nil, &FileError{"there is a recipient that is none of age's (age1… or age1pq1…)"}
		}
		to = append(to, r...)
	}
	w, err := age.Encrypt(dst, to...)
	if err != nil && strings.Contains(err.Error(), "incompatible") {
		return nil, &FileError{"recipients with and without protection from quantum computers (age1pq1… and age1…) cannot be mixed"}
	}
	return w, err
}

// OpenFor reads the header of an age file for people and returns its content.
// identities is a file of age identities, or nil; then passphrase is asked for
// the passphrase, which is cleared. Errors: *FileError; those of passphrase and of src,
// as they are; ErrDamaged, also of the reader that is returned.
func OpenFor(src io.Reader, identities []byte, passphrase func() ([]byte, error)) (io.Reader, error) {
	watched := &watchedReader{r: src}
	buffered := bufio.NewReader(watched)
	head, _ := buffered.Peek(beginning)
	if !Is(head) {
		if watched.err != nil {
			return nil, watched.err
		}
		return nil, &FileError{"it is no age file"}
	}
	var file io.Reader = buffered
	if isArmored(head) {
		file = armor.NewReader(buffered)
	}
	asks := bytes.Contains(head, []byte("\n-> scrypt "))
	var ids []age.Identity
	switch {
	case identities != nil:
		var err error
		if ids, err = age.ParseIdentities(bytes.NewReader(identities)); err != nil {
			return nil, &FileError{"the identity is no file of age identities (lines AGE-SECRET-KEY-…)"}
		}
	case !asks && !isArmored(head):
		return nil, &FileError{"it is encrypted for an age identity, not with a passphrase"}
	default:
		word, err := passphrase()
		if err != nil {
			return nil, err
		}
		defer clear(word)
		id, err := age.NewScryptIdentity(string(word))
		if err != nil {
			return nil, &FileError{"the passphrase is empty"}
		}
		ids = []age.Identity{id}
	}
	content, err := age.Decrypt(file, ids...)
	if err == nil {
		return &contentReader{content, watched}, nil
	}
	if mismatch, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
		wantsPassphrase := len(mismatch.StanzaTypes) == 1 && mismatch.StanzaTypes[0] == "scrypt"
		switch {
		case wantsPassphrase && identities != nil:
			return nil, &FileError{"it is encrypted with a passphrase, not for an age identity"}
		case !wantsPassphrase && identities == nil:
			return nil, &FileError{"it is encrypted for an age identity, not with a passphrase"}
		case wantsPassphrase:
			return nil, &FileError{"the passphrase does not open it"}
		}
		return nil, &FileError{"the identity does not open it"}
	}
	return nil, watched.orDamaged()
}

// Recipients are the age recipients of a file of identities, as text.
func Recipients(identities []byte) ([]string, error) {
	ids, err := age.ParseIdentities(bytes.NewReader(identities))
	if err != nil {
		return nil, &FileError{"the identity is no file of age identities (lines AGE-SECRET-KEY-…)"}
	}
	var all []string
	for _, id := range ids {
		switch id := id.(type) {
		case *age.X25519Identity:
			all = append(all, id.Recipient().String())
		case *age.HybridIdentity:
			all = append(all, id.Recipient().String())
		default:
			return nil, &FileError{fmt.Sprintf("an identity of the kind %T has no recipient of its own", id)}
		}
	}
	return all, nil
}
