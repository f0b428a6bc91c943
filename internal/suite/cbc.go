package suite

// AES-128-CBC (NIST SP 800-38A) with PKCS #7 padding, under a key and an IV of
// 16 bytes that were derived for one message: sealed scopes have no room for an
// IV of their own. For everything else there is [CipherAlg], which draws one.

// EncryptCBC128 encrypts plain.
func EncryptCBC128(key, iv [16]byte, plain []byte) []byte {
	out, _, err := cbc128().encrypt(key[:], plain, iv[:], nil)
	if err != nil {
		panic("suite: AES-128-CBC: " + err.Error()) // the lengths are right
	}
	return out
}

// DecryptCBC128 reverses it; whatever is wrong, it returns ErrMismatch.
func DecryptCBC128(key, iv [16]byte, ciphertext []byte) ([]byte, error) {
	return cbc128().Decrypt(key[:], ciphertext, iv[:], nil, nil)
}

func cbc128() CipherAlg { return CipherAlg{keySize: 16, mode: cbc} }
