package hem

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"fmt"
	"io"

	"softhem/api"
)

// A Signer signs with a key in a module where the standard library wants a
// [crypto.Signer]: it implements [crypto.MessageSigner]. See the section "Keys as Go
// values" of the package documentation for who works with it.
//
// Every signature is one call to the module, with the context the Signer was made with;
// when that ends, signing fails. A Signer may be used by many goroutines at once.
type Signer struct {
	c      *Client
	ctx    context.Context // the interfaces have none
	kid    KID
	t      api.KeyType
	public crypto.PublicKey
}

var _ crypto.MessageSigner = (*Signer)(nil)

// Signer reads the public key of kid and makes a Signer of it. The token it works with is
// for the scope keymgmt:use:<kid>. ctx is kept: it is also that of all signatures.
//
// Errors: those of [Client.GetKey]; [ErrKeyType] when keys of its type do not sign. That
// a key on a NIST curve or secp256k1 is for ECDH only, or that only its public half is
// there, shows as a 406 when it should sign.
func (c *Client) Signer(ctx context.Context, kid KID) (*Signer, error) {
	const op = "make a signer"
	key, err := c.getKey(ctx, kid, kid.scopeUse())
	if err != nil {
		return nil, err
	}
	switch key.Type {
	case api.SECP256R1, api.SECP384R1, api.SECP521R1, api.SECP256K1, api.Ed25519, api.Ed448, api.MLDSA44, api.MLDSA65, api.MLDSA87:
	default:
		return nil, wrongType(op, key.Type)
	}
	public, err := usablePublic(op, key)
	if err != nil {
		return nil, err
	}
	return &Signer{c: c, ctx: ctx, kid: kid, t: key.Type, public: public}, nil
}

func wrongType(op string, t api.KeyType) error {
	return &OpError{Op: op, Err: fmt.Errorf("%w (%s)", ErrKeyType, printable(string(t)))}
}

// usablePublic is the public key the module told of, which is wrong through no fault of
// the caller's.
func usablePublic(op string, key *Key) (crypto.PublicKey, error) {
	public, err := ParsePublic(key.Type, key.Public)
	if err != nil {
		return nil, badAnswer(op, "GET /api/keymgmt/get/"+key.KID.String(), "its public key is none of type %s", key.Type)
	}
	return public, nil
}

// KID is the key's.
func (s *Signer) KID() KID { return s.kid }

// Type is the key's type.
func (s *Signer) Type() api.KeyType { return s.t }

// Public is the key's public half as [ParsePublic] gives it: [*ecdsa.PublicKey],
// [ed25519.PublicKey], or a [RawPublicKey], which the standard library does not know, for
// secp256k1, Ed448 and ML-DSA.
func (s *Signer) Public() crypto.PublicKey { return s.public }

// SignOptions choose how a [Signer] signs, for what [crypto.Hash] and [ed25519.Options]
// cannot say. Alg is as in [Client.Sign], and empty for ML-DSA.
type SignOptions struct {
	Alg     string
	Context []byte
}

// HashFunc implements [crypto.SignerOpts]. It is 0 for what hashes in a way that package
// crypto has no name for, Ed448ph included.
func (o *SignOptions) HashFunc() crypto.Hash {
	switch o.Alg {
	case api.SHA256WithECDSA:
		return crypto.SHA256
	case api.SHA384WithECDSA:
		return crypto.SHA384
	case api.SHA512WithECDSA, api.AlgEd25519ph:
		return crypto.SHA512
	}
	return 0
}

// Sign implements [crypto.Signer] as far as a module can. With Ed25519, Ed448 and ML-DSA,
// and options without a hash, message is the message itself and Sign is
// [Signer.SignMessage]. ECDSA, Ed25519ph and Ed448ph are given a digest here, and always
// fail with [ErrDigest].
func (s *Signer) Sign(rand io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	alg, _, err := s.algorithm(opts)
	if err != nil {
		return nil, err
	}
	switch alg {
	case api.AlgEd25519, api.AlgEd25519ctx, api.AlgEd448, "":
		return s.SignMessage(rand, message, opts)
	}
	return nil, &OpError{Op: opSigner, Err: ErrDigest}
}

// SignMessage implements [crypto.MessageSigner]: it has the module hash and sign msg, 1
// to 2048 bytes. rand is not used; the module has its own. Signatures have the form of
// [Client.Sign] and [Client.SignMLDSA]. opts is
//
//   - with ECDSA: [crypto.SHA256], [crypto.SHA384] or [crypto.SHA512], or options with
//     that HashFunc
//   - with Ed25519: [crypto.Hash](0), nil or [ed25519.Options]: a Context makes it
//     Ed25519ctx, Hash SHA-512 makes it Ed25519ph
//   - with Ed448 and ML-DSA: crypto.Hash(0) or nil
//   - with any: [SignOptions]
//
// Errors: those of [Client.Sign]; [ErrArgument] for other options.
func (s *Signer) SignMessage(_ io.Reader, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	alg, sigctx, err := s.algorithm(opts)
	if err != nil {
		return nil, err
	}
	if alg == "" {
		return s.c.SignMLDSA(s.ctx, s.kid, msg, sigctx)
	}
	return s.c.Sign(s.ctx, s.kid, msg, alg, sigctx)
}

const opSigner = "sign"

// algorithm reads opts: the protocol's name for the algorithm, empty for ML-DSA, and the
// context.
func (s *Signer) algorithm(opts crypto.SignerOpts) (alg string, sigctx []byte, err error) {
	var hash crypto.Hash
	switch o := opts.(type) {
	case nil:
	case *SignOptions:
		if alg, sigctx = o.Alg, o.Context; !s.fits(alg) {
			return "", nil, badArgument(opSigner, "a key of type %s does not sign with algorithm %q", s.t, alg)
		}
		return alg, sigctx, nil
	case *ed25519.Options:
		if s.t != api.Ed25519 {
			return "", nil, badArgument(opSigner, "options for Ed25519 with a key of type %s", s.t)
		}
		hash, sigctx = o.Hash, []byte(o.Context)
	default:
		hash = o.HashFunc()
	}
	if scalarSize(s.t) > 0 {
		switch hash {
		case crypto.SHA256:
			return api.SHA256WithECDSA, nil, nil
		case crypto.SHA384:
			return api.SHA384WithECDSA, nil, nil
		case crypto.SHA512:
			return api.SHA512WithECDSA, nil, nil
		}
		return "", nil, badArgument(opSigner, "ECDSA in a module hashes with SHA-256, SHA-384 or SHA-512, not with %v", hash)
	}
	switch {
	case s.t == api.Ed25519 && hash == crypto.SHA512:
		return api.AlgEd25519ph, sigctx, nil
	case hash != 0:
		return "", nil, badArgument(opSigner, "a key of type %s does not sign with %v", s.t, hash)
	case s.t == api.Ed25519 && len(sigctx) > 0:
		return api.AlgEd25519ctx, sigctx, nil
	case s.t == api.Ed25519:
		return api.AlgEd25519, nil, nil
	case s.t == api.Ed448:
		return api.AlgEd448, nil, nil
	}
	return "", nil, nil
}

// fits tells whether alg is one for the key's type.
func (s *Signer) fits(alg string) bool {
	switch alg {
	case api.SHA256WithECDSA, api.SHA384WithECDSA, api.SHA512WithECDSA:
		return scalarSize(s.t) > 0
	case api.AlgEd25519, api.AlgEd25519ctx, api.AlgEd25519ph:
		return s.t == api.Ed25519
	case api.AlgEd448, api.AlgEd448ph:
		return s.t == api.Ed448
	case "":
		return scalarSize(s.t) == 0 && s.t != api.Ed25519 && s.t != api.Ed448
	}
	return false
}
