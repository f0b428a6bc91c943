package suite

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"hash"
	"sync"
)

// A Hash is one of the six hash functions of the protocol: SHA-2 (FIPS 180-4)
// and SHA-3 (FIPS 202). The zero Hash is none of them and must not be used.
type Hash struct{ id hashID }

type hashID uint8

const (
	sha2x256 hashID = iota + 1
	sha2x384
	sha2x512
	sha3x256
	sha3x384
	sha3x512
)

// HashOf finds a hash by the protocol's name for it, such as SHA2-256.
func HashOf(name string) (Hash, bool) {
	switch name {
	case "SHA2-256":
		return Hash{sha2x256}, true
	case "SHA2-384":
		return Hash{sha2x384}, true
	case "SHA2-512":
		return Hash{sha2x512}, true
	case "SHA3-256":
		return Hash{sha3x256}, true
	case "SHA3-384":
		return Hash{sha3x384}, true
	case "SHA3-512":
		return Hash{sha3x512}, true
	}
	return Hash{}, false
}

func (h Hash) new() hash.Hash {
	switch h.id {
	case sha2x256:
		return sha256.New()
	case sha2x384:
		return sha512.New384()
	case sha2x512:
		return sha512.New()
	case sha3x256:
		return sha3.New256()
	case sha3x384:
		return sha3.New384()
	case sha3x512:
		return sha3.New512()
	}
	panic("suite: the zero Hash was used")
}

// Size is the length of a digest in bytes.
func (h Hash) Size() int {
	switch h.id {
	case sha2x256, sha3x256:
		return 32
	case sha2x384, sha3x384:
		return 48
	case sha2x512, sha3x512:
		return 64
	}
	panic("suite: the zero Hash was used")
}

// Sum is the digest of msg.
func (h Hash) Sum(msg []byte) []byte {
	d := h.new()
	d.Write(msg)
	return d.Sum(nil)
}

// MAC is HMAC (RFC 2104) with this hash, at full length.
func (h Hash) MAC(key, msg []byte) []byte {
	m := hmac.New(h.new, key)
	m.Write(msg)
	return m.Sum(nil)
}

// HKDFSHA256 derives n bytes from secret by HKDF-SHA256 without salt (RFC
// 5869). n is at most 8160.
func HKDFSHA256(secret []byte, info []byte, n int) []byte {
	okm, err := hkdf.Key(sha256.New, secret, nil, string(info), n)
	if err != nil {
		panic("suite: HKDF: " + err.Error()) // n is a size of the table
	}
	return okm
}

// hmacStates are the states of HMAC under one key. Setting one up costs as
// much as a short message, so they are kept for the next.
type hmacStates struct{ pool sync.Pool }

func newHMACStates(newHash func() hash.Hash, key []byte) *hmacStates {
	key = bytes.Clone(key)
	s := new(hmacStates)
	s.pool.New = func() any { return hmac.New(newHash, key) }
	return s
}

// sum appends the MAC of the concatenation of parts to dst.
func (s *hmacStates) sum(dst []byte, parts ...[]byte) []byte {
	h := s.pool.Get().(hash.Hash)
	defer s.pool.Put(h)
	h.Reset()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(dst)
}

// hmacScheme are the keys of HMAC with one hash.
type hmacScheme struct {
	hash Hash
	size int // bytes
}

func (s hmacScheme) newMaterial() []byte { return Random(s.size) }

func (s hmacScheme) open(material []byte) (opened, error) {
	return &hmacKey{plainKey{bytes.Clone(material)}, s.hash.Size(), newHMACStates(s.hash.new, material)}, nil
}

func (hmacScheme) openPublic([]byte) (opened, error) { return nil, ErrKey }

type hmacKey struct {
	plainKey
	size   int // of the MAC in bytes
	states *hmacStates
}

// MAC is the HMAC of msg under a stored HMAC key and that key's own hash, at
// full length. It returns ErrMismatch for keys of other types.
func (k *Key) MAC(msg []byte) ([]byte, error) {
	m, ok := k.opened().(*hmacKey)
	if !ok {
		return nil, ErrMismatch
	}
	return m.states.sum(make([]byte, 0, m.size), msg), nil
}

// plainKeys are symmetric keys of that many bytes which are used as they are.
type plainKeys int

func (n plainKeys) newMaterial() []byte { return Random(int(n)) }

func (plainKeys) open(material []byte) (opened, error) {
	return &plainKey{bytes.Clone(material)}, nil
}

func (plainKeys) openPublic([]byte) (opened, error) { return nil, ErrKey }

type plainKey struct{ bytes []byte }

func (*plainKey) wire() []byte     { return nil }
func (k *plainKey) secret() []byte { return k.bytes }
