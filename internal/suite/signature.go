package suite

import "softhem/api"

// maxContext is the most bytes that a signature's context may have, by RFC
// 8032 and FIPS 204.
const maxContext = 255

// A SignatureAlg is one of the eight signature algorithms of exdsa. The zero
// SignatureAlg fits no key.
type SignatureAlg struct {
	hash    Hash        // of ECDSA
	keys    api.KeyType // of EdDSA: the only type that fits
	preHash bool        // of EdDSA: the ph variants
	context contextUse
}

type contextUse uint8

const (
	contextIgnored contextUse = iota
	contextOptional
	contextNeeded
)

// SignatureAlgOf finds a signature algorithm by the protocol's name for it.
func SignatureAlgOf(name string) (SignatureAlg, bool) {
	switch name {
	case api.SHA256WithECDSA:
		return SignatureAlg{hash: Hash{sha2x256}}, true
	case api.SHA384WithECDSA:
		return SignatureAlg{hash: Hash{sha2x384}}, true
	case api.SHA512WithECDSA:
		return SignatureAlg{hash: Hash{sha2x512}}, true
	case api.AlgEd25519:
		return SignatureAlg{keys: api.Ed25519}, true
	case api.AlgEd25519ph:
		return SignatureAlg{keys: api.Ed25519, preHash: true, context: contextOptional}, true
	case api.AlgEd25519ctx:
		return SignatureAlg{keys: api.Ed25519, context: contextNeeded}, true
	case api.AlgEd448:
		return SignatureAlg{keys: api.Ed448, context: contextOptional}, true
	case api.AlgEd448ph:
		return SignatureAlg{keys: api.Ed448, preHash: true, context: contextOptional}, true
	}
	return SignatureAlg{}, false
}

// TakesContext tells whether ctx has a meaning: it is ignored by ECDSA and by
// Ed25519 proper.
func (s SignatureAlg) TakesContext() bool { return s.context != contextIgnored }

// NeedsContext tells whether ctx must not be empty: with Ed25519ctx alone.
func (s SignatureAlg) NeedsContext() bool { return s.context == contextNeeded }

// contextFor is the context to use, and whether there may be such a one.
func (s SignatureAlg) contextFor(ctx []byte) ([]byte, bool) {
	if !s.TakesContext() {
		return nil, true
	}
	return ctx, len(ctx) <= maxContext && (len(ctx) > 0 || !s.NeedsContext())
}

// Sign signs msg, which is hashed here. The signature is DER for ECDSA (FIPS
// 186-5), 64 bytes for Ed25519 and 114 for Ed448 (RFC 8032). It returns
// ErrMismatch if the key holds no private part or does not fit alg, or ctx is
// too long or missing.
func (k *Key) Sign(alg SignatureAlg, msg, ctx []byte) ([]byte, error) {
	ctx, ok := alg.contextFor(ctx)
	if !ok || !k.private {
		return nil, ErrMismatch
	}
	switch o := k.opened().(type) {
	case digestSigner:
		if alg.hash == (Hash{}) {
			return nil, ErrMismatch
		}
		return o.signDigest(alg.hash.Sum(msg))
	case edSigner:
		if alg.keys != k.alg.Type {
			return nil, ErrMismatch
		}
		return o.sign(alg.preHash, msg, ctx)
	}
	return nil, ErrMismatch
}

// Verify checks a signature as Sign makes them, under a private or a public
// key. Of ECDSA it takes every valid signature, also one with a high s. It
// returns ErrMismatch in all other cases.
func (k *Key) Verify(alg SignatureAlg, msg, ctx, sig []byte) error {
	ctx, ok := alg.contextFor(ctx)
	if !ok {
		return ErrMismatch
	}
	valid := false
	switch o := k.opened().(type) {
	case digestSigner:
		valid = alg.hash != (Hash{}) && o.verifyDigest(alg.hash.Sum(msg), sig)
	case edSigner:
		valid = alg.keys == k.alg.Type && o.verify(alg.preHash, msg, ctx, sig)
	}
	if !valid {
		return ErrMismatch
	}
	return nil
}
