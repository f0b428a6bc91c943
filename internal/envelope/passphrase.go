package envelope

import (
	"bytes"
	"io"

	"filippo.io/age"
)

// SealPassphrase encrypts what is sealed under a passphrase alone, as an age
// file.
func SealPassphrase(passphrase, plain []byte) ([]byte, error) {
	to, err := age.NewScryptRecipient(string(passphrase))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}

// OpenPassphrase reverses it. The caller clears the result.
func OpenPassphrase(passphrase, file []byte) ([]byte, error) {
	id, err := age.NewScryptIdentity(string(passphrase))
	if err != nil {
		return nil, err
	}
	r, err := age.Decrypt(bytes.NewReader(file), id)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}
