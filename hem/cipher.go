package hem

import (
	"context"
	"strings"

	"softhem/api"
)

// The algorithms of [Client.Encrypt]. ECB shows which blocks are equal, and CBC does not
// notice changes: take GCM unless something else dictates the format.
const (
	AES128ECB = "AES128-ECB"
	AES192ECB = "AES192-ECB"
	AES256ECB = "AES256-ECB"
	AES128CBC = "AES128-CBC"
	AES192CBC = "AES192-CBC"
	AES256CBC = "AES256-CBC"
	AES128GCM = "AES128-GCM"
	AES192GCM = "AES192-GCM"
	AES256GCM = "AES256-GCM"
)

// CipherOptions vary encryption. What is given for encrypting must be given for
// decrypting, too.
type CipherOptions struct {
	// AAD is authenticated and not encrypted: GCM only, at most 1024 bytes, on a device
	// 16.
	AAD []byte

	// Peer, if given, makes the AES key from the ECDH secret of the key and Peer:
	// HKDF-SHA256 (RFC 5869) without salt, info being "encedo-aes" and Context. The key
	// is then one on a curve, and not an AES key.
	Peer Peer

	// Context separates the keys made with one Peer, at most 64 bytes.
	Context []byte
}

// isGCM tells whether alg authenticates.
func isGCM(alg string) bool { return strings.HasSuffix(alg, "-GCM") }

// hasIV tells whether alg has an initialisation vector.
func hasIV(alg string) bool { return !strings.HasSuffix(alg, "-ECB") }

// A Ciphertext is what encrypting gives.
type Ciphertext struct {
	Data []byte // as long as the plaintext; with CBC padded to whole blocks (PKCS #7)
	IV   []byte // 16 bytes, chosen by the module; nil for ECB
	Tag  []byte // 16 bytes with GCM, else nil
}

func cipherRequest(op string, kid KID, alg string, msg []byte, most int, o *CipherOptions) (api.CipherRequest, error) {
	if o == nil {
		o = &CipherOptions{}
	}
	r := api.CipherRequest{
		KID: kid.String(), Msg: api.EncodeBase64(msg), Alg: alg,
		AAD: api.EncodeBase64(o.AAD), Ctx: api.EncodeBase64(o.Context), Peer: o.Peer.wire(),
	}
	switch {
	case alg == "":
		return r, badArgument(op, "there is no algorithm")
	case len(o.AAD) > api.MaxAADBytes:
		return r, badArgument(op, "the additional data has %d bytes, more than %d", len(o.AAD), api.MaxAADBytes)
	case len(o.AAD) > 0 && !isGCM(alg):
		return r, badArgument(op, "%s does not authenticate additional data", alg)
	}
	if err := checkKDFContext(op, o.Context, o.Peer); err != nil {
		return r, err
	}
	return r, checkSize(op, "data", msg, most)
}

// checkKDFContext also refuses a context that would have no effect.
func checkKDFContext(op string, context []byte, peer Peer) error {
	switch {
	case len(context) > api.MaxKDFContext:
		return badArgument(op, "the context has %d bytes, more than %d", len(context), api.MaxKDFContext)
	case len(context) > 0 && peer.none():
		return badArgument(op, "a context needs a peer")
	}
	return nil
}

// Encrypt encrypts plaintext, 1 to 2048 bytes, with AES: POST /api/crypto/cipher/encrypt,
// scope keymgmt:use:<kid>. alg is [AES256GCM] or one of its like; the key may be longer
// than it says (its first bytes are used), not shorter. ECB takes whole blocks of 16
// bytes only. The module draws the IV, 16 random bytes also for GCM (SP 800-38D allows
// it; most others use 12). nil options are for an AES key without additional data.
//
// Errors: those of [Client.Login]; [ErrArgument], 400 for an unknown alg or a broken
// block, 403 for the administrator, 406 when there is no such key or peer, or it does not
// fit.
func (c *Client) Encrypt(ctx context.Context, kid KID, alg string, plaintext []byte, o *CipherOptions) (*Ciphertext, error) {
	const op, path = "encrypt", "/api/crypto/cipher/encrypt"
	body, err := cipherRequest(op, kid, alg, plaintext, api.MaxMessageBytes, o)
	if err != nil {
		return nil, err
	}
	var answer api.CipherAnswer
	if err := c.use(ctx, op, path, kid, body, &answer); err != nil {
		return nil, err
	}
	ct := &Ciphertext{}
	if ct.Data, err = answered(op, path, "ciphertext", answer.Ciphertext); err != nil {
		return nil, err
	}
	if hasIV(alg) {
		if ct.IV, err = answeredSize(op, path, "iv", answer.IV, api.CipherIVBytes); err != nil {
			return nil, err
		}
	}
	if isGCM(alg) {
		if ct.Tag, err = answeredSize(op, path, "tag", answer.Tag, api.CipherTagBytes); err != nil {
			return nil, err
		}
	}
	return ct, nil
}

// Decrypt decrypts what [Client.Encrypt] gave for the same arguments: POST
// /api/crypto/cipher/decrypt, scope keymgmt:use:<kid>. Only with GCM does success mean
// that the data is what was encrypted. Ciphertexts made elsewhere must have an IV of 16
// bytes, too.
//
// Errors: those of [Client.Login]; [ErrArgument], 400 for an unknown alg or a broken
// block, 403 for the administrator, 406 when there is no such key or peer, it does not
// fit, or the data was changed; which of these is not told.
func (c *Client) Decrypt(ctx context.Context, kid KID, alg string, ct *Ciphertext, o *CipherOptions) ([]byte, error) {
	const op, path = "decrypt", "/api/crypto/cipher/decrypt"
	body, err := cipherRequest(op, kid, alg, ct.Data, api.MaxDecryptBytes, o)
	switch {
	case err != nil:
		return nil, err
	case hasIV(alg) && len(ct.IV) != api.CipherIVBytes:
		return nil, badArgument(op, "the IV has %d bytes, not %d", len(ct.IV), api.CipherIVBytes)
	case isGCM(alg) && len(ct.Tag) != api.CipherTagBytes:
		return nil, badArgument(op, "the tag has %d bytes, not %d", len(ct.Tag), api.CipherTagBytes)
	}
	body.IV, body.Tag = api.EncodeBase64(ct.IV), api.EncodeBase64(ct.Tag)
	var answer api.PlainAnswer
	if err := c.use(ctx, op, path, kid, body, &answer); err != nil {
		return nil, err
	}
	if answer.Plaintext == "" && strings.HasSuffix(alg, "-CBC") {
		return nil, nil // someone else may have encrypted nothing but padding
	}
	return answered(op, path, "plaintext", answer.Plaintext)
}

// WrapOptions vary key wrapping. What is given for wrapping must be given for unwrapping,
// too.
type WrapOptions struct {
	// Alg is the cipher: [api.AES128], [api.AES192] or [api.AES256], the default. The key
	// may be longer than it says.
	Alg api.KeyType

	// IV, 8 bytes, replaces the initial value A6A6A6A6A6A6A6A6.
	IV []byte

	// Peer, if given, makes the key-encryption key from the ECDH secret of the key and
	// Peer: HKDF-SHA256 without salt, info being "encedo-kek" and Context.
	Peer Peer

	// Context separates the keys made with one Peer, at most 64 bytes.
	Context []byte
}

const semiblock = 8 // bytes; RFC 3394 wraps two or more, and adds one

func wrapRequest(op string, kid KID, msg []byte, least, most int, o *WrapOptions) (api.WrapRequest, error) {
	if o == nil {
		o = &WrapOptions{}
	}
	r := api.WrapRequest{
		KID: kid.String(), Msg: api.EncodeBase64(msg), Alg: string(o.Alg),
		IV: api.EncodeBase64(o.IV), Ctx: api.EncodeBase64(o.Context), Peer: o.Peer.wire(),
	}
	if len(o.IV) != 0 && len(o.IV) != api.WrapIVBytes {
		return r, badArgument(op, "the initial value has %d bytes, not %d", len(o.IV), api.WrapIVBytes)
	}
	if err := checkKDFContext(op, o.Context, o.Peer); err != nil {
		return r, err
	}
	if len(msg)%semiblock != 0 || len(msg) < least || len(msg) > most {
		return r, badArgument(op, "the data has %d bytes, not a multiple of %d from %d to %d", len(msg), semiblock, least, most)
	}
	return r, nil
}

// Wrap encrypts key, a multiple of 8 bytes from 16 to 2048, with AES key wrap (RFC 3394):
// POST /api/crypto/cipher/wrap, scope keymgmt:use:<kid>. The result is 8 bytes longer.
// nil options are for an AES256 key.
//
// Errors: those of [Client.Login]; [ErrArgument], 400 for an unknown Alg, 403 for the
// administrator, 406 when there is no such key or peer, or it does not fit.
func (c *Client) Wrap(ctx context.Context, kid KID, key []byte, o *WrapOptions) ([]byte, error) {
	const op, path = "wrap a key", "/api/crypto/cipher/wrap"
	body, err := wrapRequest(op, kid, key, 2*semiblock, api.MaxMessageBytes, o)
	if err != nil {
		return nil, err
	}
	var answer api.WrapAnswer
	if err := c.use(ctx, op, path, kid, body, &answer); err != nil {
		return nil, err
	}
	return answered(op, path, "wrapped", answer.Wrapped)
}

// Unwrap decrypts what [Client.Wrap] gave for the same arguments: POST
// /api/crypto/cipher/unwrap, scope keymgmt:use:<kid>. wrapped has 24 to 2056 bytes.
//
// Errors: those of [Client.Login]; [ErrArgument], 400 for an unknown Alg, 403 for the
// administrator, 406 when there is no such key or peer, it does not fit, or the data was
// changed; which of these is not told.
func (c *Client) Unwrap(ctx context.Context, kid KID, wrapped []byte, o *WrapOptions) ([]byte, error) {
	const op, path = "unwrap a key", "/api/crypto/cipher/unwrap"
	body, err := wrapRequest(op, kid, wrapped, 3*semiblock, api.MaxUnwrapBytes, o)
	if err != nil {
		return nil, err
	}
	var answer api.UnwrapAnswer
	if err := c.use(ctx, op, path, kid, body, &answer); err != nil {
		return nil, err
	}
	return answered(op, path, "unwrapped", answer.Unwrapped)
}
