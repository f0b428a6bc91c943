package envelope

import (
	"bytes"
	"io"

	"filippo.io/age"
)

// SealPassphrase encrypts what is sealed under a passphrase alone, as an age
// file.
func SealPassphrase(passphrase, plain []byte) ([]byte, error) {
	return sealPassphrase(passphrase, plain, 0)
}

// SealRandom is SealPassphrase for one that was drawn at random, 128 bits or
// more, which nobody guesses: it is not stretched, and so takes no second.
// OpenPassphrase opens it.
func SealRandom(passphrase, plain []byte) ([]byte, error) {
	const logN = 8
	return sealPassphrase(passphrase, plain, logN)
}

// sealPassphrase seals with age's own work factor if logN is 0.
func sealPassphrase(passphrase, plain []byte, logN int) ([]byte, error) {
	to, err := age.NewScryptRecipient(string(passphrase))
	if err != nil {
		return nil, err
	}
	if logN > 0 {
		to.SetWorkFactor(logN)
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
