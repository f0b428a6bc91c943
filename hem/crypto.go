package hem

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"softhem/api"
)

// A Peer is the other side of an ECDH: a key stored in the module, or a raw public key.
// The zero Peer is none.
type Peer struct {
	kid    KID
	stored bool
	public []byte
}

// PeerKey is a key in the module, imported or its own. Its curve must be that of the key
// it meets; no scope is needed for it.
func PeerKey(kid KID) Peer { return Peer{kid: kid, stored: true} }

// PeerPublic is a public key in its raw form, see [RawPublic]. An empty one is no peer.
func PeerPublic(raw []byte) Peer { return Peer{public: raw} }

func (p Peer) none() bool { return !p.stored && len(p.public) == 0 }

func (p Peer) wire() api.Peer {
	if p.stored {
		return api.Peer{ExtKID: p.kid.String()}
	}
	return api.Peer{PubKey: api.EncodeBase64(p.public)}
}

// use posts to an endpoint of /api/crypto, with the scope of using kid.
func (c *Client) use(ctx context.Context, op, path string, kid KID, in, out any) error {
	return c.postAs(ctx, op, path, kid.scopeUse(), in, out)
}

// confirm is use for the verifying endpoints, whose 406 becomes ErrVerification.
func (c *Client) confirm(ctx context.Context, op, path string, kid KID, in any) error {
	err := c.use(ctx, op, path, kid, in, nil)
	refused, ok := errors.AsType[*api.Error](err)
	// Firmware 1.2.2 has a status of its own for a wrong ML-DSA signature.
	const wrongMLDSA = 795
	if !ok || refused.Status != http.StatusNotAcceptable && (refused.Status != wrongMLDSA || path != pathVerifyMLDSA) {
		return err
	}
	return &OpError{Op: op, Path: "POST " + path, Err: fmt.Errorf("%w (%w)", ErrVerification, refused)}
}

// answered decodes a binary field of an answer that cannot be empty.
func answered(op, path, name, text string) ([]byte, error) {
	raw, err := api.DecodeBase64(text)
	if err != nil {
		return nil, badAnswer(op, "POST "+path, "%s is %w", name, err)
	}
	if len(raw) == 0 {
		return nil, badAnswer(op, "POST "+path, "no %s in it", name)
	}
	return raw, nil
}

// answeredSize is answered for a field of known length in bytes.
func answeredSize(op, path, name, text string, size int) ([]byte, error) {
	raw, err := answered(op, path, name, text)
	if err == nil && len(raw) != size {
		return nil, badAnswer(op, "POST "+path, "%s has %d bytes, not %d", name, len(raw), size)
	}
	return raw, err
}

// checkSize checks the length of data that cannot be empty.
func checkSize(op, what string, data []byte, most int) error {
	if len(data) < 1 || len(data) > most {
		return badArgument(op, "the %s has %d bytes, not 1 to %d", what, len(data), most)
	}
	return nil
}

// MACOptions vary a MAC.
type MACOptions struct {
	// Peer, if given, makes the HMAC key the raw ECDH secret of the key and Peer. The key
	// is then one on a curve, and not an HMAC key.
	Peer Peer

	// Hash is the hash of a MAC with a Peer, [api.SHA2x256] to [api.SHA3x512]. A stored
	// HMAC key has its own, whatever is said here.
	Hash api.KeyType
}

func macRequest(op string, kid KID, msg []byte, o *MACOptions) (api.HMACRequest, error) {
	if o == nil {
		o = &MACOptions{}
	}
	if !o.Peer.none() && o.Hash == "" {
		return api.HMACRequest{}, badArgument(op, "a MAC with a peer needs a hash")
	}
	return api.HMACRequest{
		KID: kid.String(), Msg: api.EncodeBase64(msg), Alg: string(o.Hash), Peer: o.Peer.wire(),
	}, checkSize(op, "message", msg, api.MaxMessageBytes)
}

// HMAC authenticates msg, 1 to 2048 bytes (FIPS 198-1): POST /api/crypto/hmac/hash, scope
// keymgmt:use:<kid>. The MAC has the length of the hash. nil options are for an HMAC key.
//
// Errors: those of [Client.Login]; [ErrArgument], 400 for an unknown hash, 403 for the
// administrator, 406 when there is no such key or peer, or it is of another type.
func (c *Client) HMAC(ctx context.Context, kid KID, msg []byte, o *MACOptions) ([]byte, error) {
	const op, path = "compute a MAC", "/api/crypto/hmac/hash"
	body, err := macRequest(op, kid, msg, o)
	if err != nil {
		return nil, err
	}
	var answer api.HMACAnswer
	if err := c.use(ctx, op, path, kid, body, &answer); err != nil {
		return nil, err
	}
	return answered(op, path, "mac", answer.MAC)
}

// VerifyHMAC returns nil if mac is what [Client.HMAC] gives for the same arguments, at
// full length: POST /api/crypto/hmac/verify, scope keymgmt:use:<kid>.
//
// Errors: those of [Client.Login]; [ErrArgument], [ErrVerification], 400 for an unknown
// hash, 403 for the administrator.
func (c *Client) VerifyHMAC(ctx context.Context, kid KID, msg, mac []byte, o *MACOptions) error {
	const op, path = "verify a MAC", "/api/crypto/hmac/verify"
	body, err := macRequest(op, kid, msg, o)
	if err == nil {
		err = checkSize(op, "MAC", mac, api.MaxMACBytes)
	}
	if err != nil {
		return err
	}
	body.MAC = api.EncodeBase64(mac)
	return c.confirm(ctx, op, path, kid, body)
}

// ECDH computes the shared secret of kid and peer: POST /api/crypto/ecdh, scope
// keymgmt:use:<kid>. On a NIST curve and secp256k1 it is the x coordinate (SEC 1, 32, 48,
// 66 or 32 bytes), on the others what RFC 7748 says (32 and 56 bytes). With a hash,
// [api.SHA2x256] to [api.SHA3x512], it is the digest of that instead. Firmware 1.2.2 cuts
// a raw secret to 32 bytes.
//
// A raw secret is not uniformly random; derive keys from it.
//
// Errors: those of [Client.Login]; [ErrArgument], 400 for an unknown hash, 403 for the
// administrator, 406 when there is no such key or peer, or they are not for ECDH on one
// curve.
func (c *Client) ECDH(ctx context.Context, kid KID, peer Peer, hash api.KeyType) ([]byte, error) {
	const op, path = "compute a shared secret", "/api/crypto/ecdh"
	if peer.none() {
		return nil, badArgument(op, "there is no peer")
	}
	var answer api.ECDHAnswer
	if err := c.use(ctx, op, path, kid, api.ECDHRequest{KID: kid.String(), Peer: peer.wire(), Alg: string(hash)}, &answer); err != nil {
		return nil, err
	}
	return answered(op, path, "ecdh", answer.ECDH)
}

// FIPS 203, table 3, in bytes.
const (
	sharedKeyBytes  = 32
	maxEncapsulated = 1568 // a ciphertext of ML-KEM-1024
)

// Encapsulate makes a shared secret for the holder of an ML-KEM key (FIPS 203), and the
// ciphertext that brings it there: POST /api/crypto/pqc/mlkem/encaps, scope
// keymgmt:use:<kid>. The secret has 32 bytes, the ciphertext 768, 1088 or 1568. A device
// encapsulates for its own keys only; SoftHEM for imported ones too. With the public key
// at hand no module is needed, see [ParsePublic].
//
// Errors: those of [Client.Login]; 403 for the administrator, 406 when there is no such
// key, or it is of another type.
func (c *Client) Encapsulate(ctx context.Context, kid KID) (sharedKey, ciphertext []byte, err error) {
	const op, path = "encapsulate", "/api/crypto/pqc/mlkem/encaps"
	var answer api.EncapsAnswer
	if err = c.use(ctx, op, path, kid, api.EncapsRequest{KID: kid.String()}, &answer); err != nil {
		return nil, nil, err
	}
	if sharedKey, err = answeredSize(op, path, "ss", answer.SS, sharedKeyBytes); err != nil {
		return nil, nil, err
	}
	if ciphertext, err = answered(op, path, "ct", answer.CT); err != nil {
		return nil, nil, err
	}
	return sharedKey, ciphertext, nil
}

// Decapsulate recovers the 32-byte secret that ciphertext brings (FIPS 203): POST
// /api/crypto/pqc/mlkem/decaps, scope keymgmt:use:<kid>. A ciphertext that was tampered
// with, or is for another key, is no error: it gives a secret that the sender does not
// have.
//
// Errors: those of [Client.Login]; [ErrArgument], 403 for the administrator, 406 when
// there is no such key, or the ciphertext's length is not that of its type.
func (c *Client) Decapsulate(ctx context.Context, kid KID, ciphertext []byte) (sharedKey []byte, err error) {
	const op, path = "decapsulate", "/api/crypto/pqc/mlkem/decaps"
	if err := checkSize(op, "ciphertext", ciphertext, maxEncapsulated); err != nil {
		return nil, err
	}
	var answer api.DecapsAnswer
	body := api.DecapsRequest{KID: kid.String(), CT: api.EncodeBase64(ciphertext)}
	if err := c.use(ctx, op, path, kid, body, &answer); err != nil {
		return nil, err
	}
	return answeredSize(op, path, "ss", answer.SS, sharedKeyBytes)
}
