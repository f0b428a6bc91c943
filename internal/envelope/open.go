package envelope

import (
	"bufio"
	"bytes"
	"crypto/hpke"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"

	"softhem/api"
)

// beginning is how much of a file Is looks at.
const beginning = 1024

// Is tells by the beginning of a file, 1024 bytes or all of it, whether it is
// an age file, and so perhaps an envelope.
func Is(file []byte) bool {
	return bytes.HasPrefix(file, []byte(intro)) || isArmored(file)
}

func isArmored(file []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(file, "\r\n\t "), []byte(armor.Header))
}

// A Key is a key in a module that envelopes are opened with. The envelope says
// what kind it is, so one of the functions is called, once.
type Key struct {
	KID string // 32 hex digits in lower case

	// Unwrap is RFC 3394 with as much of the key as alg says.
	Unwrap func(alg api.KeyType, wrapped []byte) ([]byte, error)

	// Private gives the key, which should be of type t.
	Private func(t api.KeyType) (hpke.PrivateKey, error)
}

// Open reads the header of an envelope and returns the content. Errors: those of key's
// functions and of src, as they are; *OtherKeyError; ErrDamaged, also of
// the reader that is returned.
func Open(src io.Reader, key Key) (io.Reader, error) {
	watched := &watchedReader{r: src}
	buffered := bufio.NewReader(watched)
	var file io.Reader = buffered
	if head, _ := buffered.Peek(beginning); isArmored(head) {
		file = armor.NewReader(buffered)
	}
	id := &identity{key: key}
	content, err := age.Decrypt(file, id)
	switch {
	case err == nil:
		return &contentReader{content, watched}, nil
	case id.err != nil:
		return nil, id.err
	}
	return nil, watched.orDamaged()
}

// A watchedReader remembers the error that its reader ended with.
type watchedReader struct {
	r   io.Reader
	err error // not io.EOF
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

// orDamaged is why reading failed: the disk's fault, or the envelope's.
func (w *watchedReader) orDamaged() error {
	if w.err != nil {
		return w.err
	}
	return ErrDamaged
}

type contentReader struct {
	r   io.Reader
	src *watchedReader
}

func (c *contentReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err != nil && err != io.EOF {
		err = c.src.orDamaged()
	}
	return n, err
}

// An identity is a Key as age wants it.
type identity struct {
	key Key
	err error // why it could not unwrap
}

// Unwrap implements [age.Identity].
func (i *identity) Unwrap(stanzas []*age.Stanza) (fileKey []byte, err error) {
	defer func() { i.err = err }()
	other := &OtherKeyError{}
	for _, s := range stanzas {
		if s.Type != stanzaWrap && s.Type != stanzaHPKE {
			other.Types = append(other.Types, fmt.Sprintf("%.40q", s.Type))
			continue
		}
		if len(s.Args) != 2 || !isKID(s.Args[0]) {
			return nil, ErrDamaged
		}
		if s.Args[0] != i.key.KID {
			other.KIDs = append(other.KIDs, s.Args[0])
			continue
		}
		fileKey, err := i.key.open(s.Type, api.KeyType(s.Args[1]), s.Body)
		if err == nil && len(fileKey) != fileKeySize {
			err = ErrDamaged
		}
		return fileKey, err
	}
	return nil, other
}

func isKID(s string) bool {
	return len(s) == 2*api.KIDBytes && strings.Trim(s, "0123456789abcdef") == ""
}

func (k Key) open(stanza string, t api.KeyType, body []byte) ([]byte, error) {
	if stanza == stanzaWrap {
		if !isAES(t) || len(body) != wrappedSize {
			return nil, ErrDamaged
		}
		return k.Unwrap(t, body)
	}
	size := encSize(t)
	if size == 0 || len(body) != size+fileKeySize+tagSize {
		return nil, ErrDamaged
	}
	private, err := k.Private(t)
	if err != nil {
		return nil, err
	}
	if private.KEM().ID() != kem(t) {
		return nil, errors.New("the key is not of the type that the envelope was made for")
	}
	// enc has the right length, so what fails here is the module.
	recipient, err := hpke.NewRecipient(body[:size], private, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info(k.KID))
	if err != nil {
		return nil, err
	}
	fileKey, err := recipient.Open(nil, body[size:])
	if err != nil {
		return nil, ErrDamaged
	}
	return fileKey, nil
}

// encSize is the length of enc in HPKE, for the types that have a kem.
func encSize(t api.KeyType) int {
	switch t {
	case api.Curve25519:
		return 32
	case api.MLKEM768:
		return 1088
	case api.MLKEM1024:
		return 1568
	}
	return 0
}
