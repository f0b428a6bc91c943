// Package upgrade takes in what a module can be upgraded with, firmware and the
// files of a web console, and keeps it in a folder of its own inside the data
// folder. Nothing in it is secret, and nothing in it is believed: an image is
// verified before it is installed, and again each time it is put to use.
package upgrade

import (
	"errors"
	"fmt"
	"io"
	"os"

	"softhem/internal/suite"
)

// A Kind is a kind of image.
type Kind string

const (
	Firmware Kind = "fw" // the program
	Console  Kind = "ui" // the files of the web console
)

const (
	// MaxImage is the longest image in bytes, its signature included.
	MaxImage = 16 << 20
	// FooterSize is the length of the signature at its end.
	FooterSize = suite.Ed25519Sig
)

var (
	// ErrShort: the image is shorter than was promised, or than its signature.
	ErrShort = errors.New("the image is too short")
	// ErrImage: the image is not what it should be, or not signed by a key that is
	// trusted. Which, is for the operator to know.
	ErrImage = errors.New("the image does not verify")
)

// An image is
//
//	 0                                    n-64              n
//	┌────────────────────────────────────┬─────────────────┐
//	│ payload                            │ signature (64)  │
//	└────────────────────────────────────┴─────────────────┘
//
// where the signature is plain Ed25519 (RFC 8032 section 5.1, not Ed25519ph) of
// the 64 bytes of SHA-512(payload). What kind it is, is not signed: firmware is no
// tar archive, and a console is nothing else, see expand and readArchive.

// Sign returns the footer for a payload.
func Sign(payload io.Reader, key *suite.Ed25519Key) ([]byte, error) {
	digest := suite.NewSHA512()
	if _, err := io.Copy(digest, payload); err != nil {
		return nil, err
	}
	return key.Sign(digest.Sum(nil)), nil
}

// verify returns the payload of an image whose signature holds under one of keys,
// ready to be read from its beginning.
func verify(image io.ReaderAt, size int64, keys [][]byte) (*io.SectionReader, error) {
	if size <= FooterSize {
		return nil, ErrShort
	}
	payload := io.NewSectionReader(image, 0, size-FooterSize)
	digest, footer := suite.NewSHA512(), make([]byte, FooterSize)
	if _, err := io.Copy(digest, payload); err != nil {
		return nil, err
	}
	if _, err := image.ReadAt(footer, size-FooterSize); err != nil && err != io.EOF {
		return nil, err
	}
	sum := digest.Sum(nil)
	for _, key := range keys {
		if suite.VerifyEd25519(key, sum, footer) {
			_, err := payload.Seek(0, io.SeekStart)
			return payload, err
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: no key is trusted with upgrades", ErrImage)
	}
	return nil, fmt.Errorf("%w: none of the trusted keys has signed it", ErrImage)
}

// open verifies the image in a file. The caller closes the file.
func open(path string, keys [][]byte) (*os.File, *io.SectionReader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() > MaxImage {
		err = fmt.Errorf("%w: it has more than %d bytes", ErrImage, MaxImage)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	payload, err := verify(f, info.Size(), keys)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, payload, nil
}

// Validate tells what a module would say of a payload of this kind, once it is
// signed.
func Validate(k Kind, payload io.Reader) error {
	if k == Console {
		_, err := readArchive(payload)
		return err
	}
	_, err := expand(io.Discard, payload)
	return err
}
