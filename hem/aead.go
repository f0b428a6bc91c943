package hem

import (
	"context"
	"fmt"
	"slices"

	"softhem/api"
)

// An AEAD seals small messages with AES-GCM in a module, in one piece each:
//
//	IV, 16 bytes ‖ ciphertext, as long as the plaintext ‖ tag, 16 bytes
//
// It has the shape of a [crypto/cipher.AEAD] made by
// [crypto/cipher.NewGCMWithRandomNonce], and is none: its methods can fail and take a
// context, the nonce is the module's to choose and has 16 bytes, not 12, an empty
// plaintext cannot be sealed, and plaintexts end at 2048 bytes. Who holds the raw key
// elsewhere opens the pieces with [crypto/cipher.NewGCMWithNonceSize].
//
// One key should seal no more than 2³² messages (SP 800-38D, section 8.3). An AEAD may be
// used by many goroutines at once.
type AEAD struct {
	c   *Client
	kid KID
	alg string
}

// Overhead is by how many bytes [AEAD.Seal] makes a message longer.
func (a *AEAD) Overhead() int { return api.CipherIVBytes + api.CipherTagBytes }

// AEAD makes an AEAD of the AES key kid. alg is [AES128GCM], [AES192GCM] or [AES256GCM],
// and no longer than the key. The module is not asked: a key that does not fit shows as a
// 406 later. Another alg is [ErrArgument].
func (c *Client) AEAD(kid KID, alg string) (*AEAD, error) {
	if !slices.Contains([]string{AES128GCM, AES192GCM, AES256GCM}, alg) {
		return nil, badArgument("make an AEAD", "%q is no AES-GCM", alg)
	}
	return &AEAD{c: c, kid: kid, alg: alg}, nil
}

// Seal encrypts and authenticates plaintext, 1 to 2048 bytes, and authenticates aad, at
// most 1024 bytes (on a device 16) and possibly none.
//
// Errors: those of [Client.Encrypt].
func (a *AEAD) Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	ct, err := a.c.Encrypt(ctx, a.kid, a.alg, plaintext, &CipherOptions{AAD: aad})
	if err != nil {
		return nil, err
	}
	if len(ct.Data) != len(plaintext) {
		return nil, &OpError{Op: "encrypt", Err: fmt.Errorf("%w: the ciphertext is not as long as the plaintext", ErrProtocol)}
	}
	return slices.Concat(ct.IV, ct.Data, ct.Tag), nil
}

// Open returns the plaintext of what [AEAD.Seal] made with the same aad.
//
// Errors: those of [Client.Decrypt], so 406 when sealed or aad was changed, or the key is
// not there; [ErrArgument] when sealed is too short or too long.
func (a *AEAD) Open(ctx context.Context, sealed, aad []byte) ([]byte, error) {
	if len(sealed) <= a.Overhead() || len(sealed) > a.Overhead()+api.MaxMessageBytes {
		return nil, badArgument("decrypt", "a sealed message has %d to %d bytes, not %d", a.Overhead()+1, a.Overhead()+api.MaxMessageBytes, len(sealed))
	}
	end := len(sealed) - api.CipherTagBytes
	ct := Ciphertext{IV: sealed[:api.CipherIVBytes], Data: sealed[api.CipherIVBytes:end], Tag: sealed[end:]}
	return a.c.Decrypt(ctx, a.kid, a.alg, &ct, &CipherOptions{AAD: aad})
}
