package hem

import (
	"bytes"
	"crypto/ecdh"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"softhem/api"
)

const (
	keySize = 32 // bytes of an X25519 scalar, point and shared secret

	personaRounds = 600_000 // PBKDF2 rounds from a passphrase to a seed
	phraseRounds  = 2048    // PBKDF2 rounds of BIP39
	phraseWords   = 24
	seed64Size    = 64
)

// A PersonaKey is the X25519 key pair (RFC 7748) by which the user or the
// administrator is known to a module. It never leaves the client. It cannot be
// printed: every verb of package fmt shows the public half.
//
// Use it through the pointer its constructors return.
type PersonaKey struct {
	public [keySize]byte

	mu   sync.Mutex
	seed *[keySize]byte // nil once wiped; behind a pointer, which %+v of an enclosing struct does not follow

	// The last secret, for peer: a module keeps its session key for a whole
	// boot, and two multiplications a login are most of what a login costs here.
	peer   [keySize]byte
	secret *[keySize]byte
}

// DeriveKey makes the key of a persona from its passphrase, in UTF-8 and
// possibly empty: seed = PBKDF2-HMAC-SHA256 (RFC 8018), 600 000 rounds, 32
// bytes. The salt is the text of eid exactly as the module writes it, base64 of
// 32 bytes, and not the bytes it stands for: another spelling of the same
// eid gives another key. It takes some tenths of a second.
//
// The caller keeps passphrase and should clear it. The Argon2 derivation of
// some older tools is not offered, because the standard library lacks Argon2; who
// has such a seed can use [KeyFromSeed].
func DeriveKey(passphrase []byte, eid string) (*PersonaKey, error) {
	if _, err := decode32("eid", eid); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrArgument, err)
	}
	// pbkdf2 wants a string, and keeps the passphrase in its HMAC state anyway.
	seed, err := pbkdf2.Key(sha256.New, string(passphrase), []byte(eid), personaRounds, keySize)
	if err != nil {
		return nil, fmt.Errorf("deriving the key: %w", err)
	}
	defer clear(seed)
	return KeyFromSeed(seed)
}

// KeyFromSeed makes a key pair from its 32-byte private scalar, of which it
// keeps a copy. Clamping is part of X25519 and need not have been done.
func KeyFromSeed(seed []byte) (*PersonaKey, error) {
	private, err := ecdh.X25519().NewPrivateKey(seed)
	if err != nil {
		return nil, fmt.Errorf("%w: a seed has %d bytes, not %d", ErrArgument, keySize, len(seed))
	}
	k := &PersonaKey{seed: new([keySize]byte)}
	copy(k.seed[:], seed)
	copy(k.public[:], private.PublicKey().Bytes())
	return k, nil
}

// MasterSecret makes the 32-byte secret that a phrase of 24 words stands for;
// give it to [KeyFromSeed]. It is the seed of BIP39 without a passphrase
// (PBKDF2-HMAC-SHA512, salt "mnemonic", 2048 rounds), cut by
// [SecretFromSeed64].
//
// BIP39 wants Unicode normalisation (NFKD), which the standard library lacks, so
// only words of the letters a to z are taken; any white space separates them.
// Neither the word list nor the check word is verified: a mistyped word
// gives another secret, and no error.
func MasterSecret(words string) ([]byte, error) {
	list := strings.Fields(words)
	if len(list) != phraseWords {
		return nil, fmt.Errorf("%w: a master secret has %d words, not %d", ErrArgument, phraseWords, len(list))
	}
	for i, word := range list {
		if strings.Trim(word, "abcdefghijklmnopqrstuvwxyz") != "" {
			return nil, fmt.Errorf("%w: word %d has characters other than the letters a to z in lower case", ErrArgument, i+1)
		}
	}
	seed64, err := pbkdf2.Key(sha512.New, strings.Join(list, " "), []byte("mnemonic"), phraseRounds, seed64Size)
	if err != nil {
		return nil, fmt.Errorf("deriving the master secret: %w", err)
	}
	defer clear(seed64)
	return SecretFromSeed64(seed64)
}

// SecretFromSeed64 cuts the 32-byte master secret out of a 64-byte BIP39 seed:
// written in hex, it is the digits 1 to 64 counted from 0. The shift by one
// digit is a mistake that became the format.
func SecretFromSeed64(seed64 []byte) ([]byte, error) {
	if len(seed64) != seed64Size {
		return nil, fmt.Errorf("%w: a BIP39 seed has %d bytes, not %d", ErrArgument, seed64Size, len(seed64))
	}
	secret := make([]byte, keySize)
	for i := range secret {
		secret[i] = seed64[i]<<4 | seed64[i+1]>>4
	}
	return secret, nil
}

// Public is the public key, 32 bytes.
func (k *PersonaKey) Public() []byte { return append([]byte(nil), k.public[:]...) }

// Wipe overwrites the private half. Whatever needs it afterwards fails with
// [ErrForgotten].
func (k *PersonaKey) Wipe() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.seed != nil {
		clear(k.seed[:])
		k.seed = nil
	}
	if k.secret != nil {
		clear(k.secret[:])
		k.secret = nil
	}
}

// Format implements [fmt.Formatter]: the public half, whatever the verb.
func (k *PersonaKey) Format(s fmt.State, _ rune) {
	if k == nil {
		io.WriteString(s, "PersonaKey(nil)")
		return
	}
	fmt.Fprintf(s, "PersonaKey(public %s)", api.EncodeBase64(k.public[:]))
}

// shared is X25519(private, peer). The caller clears it.
func (k *PersonaKey) shared(peer []byte) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.seed == nil {
		return nil, ErrForgotten
	}
	if k.secret != nil && bytes.Equal(k.peer[:], peer) { // public keys
		return bytes.Clone(k.secret[:]), nil
	}
	private, err := ecdh.X25519().NewPrivateKey(k.seed[:])
	if err != nil {
		return nil, err
	}
	point, err := ecdh.X25519().NewPublicKey(peer)
	if err != nil {
		return nil, err
	}
	secret, err := private.ECDH(point)
	if err != nil {
		return nil, err
	}
	if k.secret == nil {
		k.secret = new([keySize]byte)
	}
	copy(k.peer[:], peer)
	copy(k.secret[:], secret)
	return secret, nil
}

// decode32 reads a base64 field that must hold 32 bytes.
func decode32(field, text string) ([]byte, error) {
	raw, err := api.DecodeBase64(text)
	if err != nil || len(raw) != keySize {
		return nil, fmt.Errorf("%s is not base64 of %d bytes", field, keySize)
	}
	return raw, nil
}

var errLowOrder = errors.New("a point of low order")

// goodPoints refuses the points with which every private key shares the same,
// known secret (RFC 7748 section 6.1), and remembers the few it found good: a
// module states the same two in every challenge.
type goodPoints struct {
	mu   sync.Mutex
	good [2][keySize]byte
	next int
}

// check tries a point out: crypto/ecdh reports those of low order when they
// are used, and any scalar will do for that.
func (g *goodPoints) check(raw []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.good {
		// The zero value of an empty place is itself a point of low order.
		if g.good[i] != [keySize]byte{} && bytes.Equal(g.good[i][:], raw) {
			return nil
		}
	}
	scalar, err := ecdh.X25519().NewPrivateKey(make([]byte, keySize))
	if err != nil {
		return err
	}
	point, err := ecdh.X25519().NewPublicKey(raw)
	if err != nil {
		return err
	}
	if _, err := scalar.ECDH(point); err != nil {
		return errLowOrder
	}
	copy(g.good[g.next][:], raw)
	g.next = (g.next + 1) % len(g.good)
	return nil
}
