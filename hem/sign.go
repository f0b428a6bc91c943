package hem

import (
	"context"

	"softhem/api"
)

const (
	pathSign        = "/api/crypto/exdsa/sign"
	pathVerify      = "/api/crypto/exdsa/verify"
	pathSignMLDSA   = "/api/crypto/pqc/mldsa/sign"
	pathVerifyMLDSA = "/api/crypto/pqc/mldsa/verify"
)

// signRequest checks what signing and verifying have in common. alg is empty for ML-DSA.
func signRequest(op string, kid KID, msg []byte, alg string, sigctx []byte) (api.SignRequest, error) {
	r := api.SignRequest{KID: kid.String(), Msg: api.EncodeBase64(msg), Alg: alg, Ctx: api.EncodeBase64(sigctx)}
	if len(sigctx) > api.MaxSignContext {
		return r, badArgument(op, "the context has %d bytes, more than %d", len(sigctx), api.MaxSignContext)
	}
	switch alg {
	case api.AlgEd25519ctx:
		if len(sigctx) == 0 {
			return r, badArgument(op, "%s needs a context", alg)
		}
	case api.AlgEd25519, api.SHA256WithECDSA, api.SHA384WithECDSA, api.SHA512WithECDSA:
		// The module would sign without it, and say nothing.
		if len(sigctx) > 0 {
			return r, badArgument(op, "%s has no context", alg)
		}
	}
	return r, checkSize(op, "message", msg, api.MaxMessageBytes)
}

// Sign signs msg, 1 to 2048 bytes: POST /api/crypto/exdsa/sign, scope keymgmt:use:<kid>.
// The module hashes msg itself; a digest cannot be signed in its place.
//
// alg is [api.SHA256WithECDSA] and its like for the NIST curves and secp256k1 (FIPS
// 186-5; the signature is ASN.1 DER, see [ECDSAToRaw]), any of the three with any curve;
// or [api.AlgEd25519] and its like for Ed25519 and Ed448 (RFC 8032; 64 and 114 bytes).
// sigctx is a context of at most 255 bytes: needed for Ed25519ctx, possible for
// Ed25519ph, Ed448 and Ed448ph, and [ErrArgument] elsewhere.
//
// Errors: those of [Client.Login]; [ErrArgument], 400 for an unknown alg, 403 for the
// administrator, 406 when there is no such key, it does not sign, or alg is not for its
// curve.
func (c *Client) Sign(ctx context.Context, kid KID, msg []byte, alg string, sigctx []byte) ([]byte, error) {
	const op = "sign"
	if alg == "" {
		return nil, badArgument(op, "there is no algorithm")
	}
	body, err := signRequest(op, kid, msg, alg, sigctx)
	if err != nil {
		return nil, err
	}
	var answer api.SignAnswer
	if err := c.use(ctx, op, pathSign, kid, body, &answer); err != nil {
		return nil, err
	}
	return answered(op, pathSign, "sign", answer.Sign)
}

// Verify returns nil if sig, at most 148 bytes, is a signature of msg by kid: POST
// /api/crypto/exdsa/verify, scope keymgmt:use:<kid>. kid may be an imported public key.
// See [Client.Sign] for alg and sigctx.
//
// Errors: those of [Client.Login]; [ErrArgument], [ErrVerification], 400 for an unknown
// alg, 403 for the administrator.
func (c *Client) Verify(ctx context.Context, kid KID, msg, sig []byte, alg string, sigctx []byte) error {
	const op = "verify a signature"
	if alg == "" {
		return badArgument(op, "there is no algorithm")
	}
	body, err := signRequest(op, kid, msg, alg, sigctx)
	if err == nil {
		err = checkSize(op, "signature", sig, api.MaxSignatureBytes)
	}
	if err != nil {
		return err
	}
	body.Sign = api.EncodeBase64(sig)
	return c.confirm(ctx, op, pathVerify, kid, body)
}

// SignMLDSA signs msg, 1 to 2048 bytes, with an ML-DSA key (FIPS 204, pure, hedged): POST
// /api/crypto/pqc/mldsa/sign, scope keymgmt:use:<kid>. sigctx is a context of at most 255
// bytes, or nil. The signature has 2420, 3309 or 4627 bytes.
//
// Errors: those of [Client.Login]; [ErrArgument], 403 for the administrator, 406 when
// there is no such key, or it is of another type.
func (c *Client) SignMLDSA(ctx context.Context, kid KID, msg, sigctx []byte) ([]byte, error) {
	const op = "sign"
	body, err := signRequest(op, kid, msg, "", sigctx)
	if err != nil {
		return nil, err
	}
	var answer api.MLDSAAnswer
	if err := c.use(ctx, op, pathSignMLDSA, kid, body, &answer); err != nil {
		return nil, err
	}
	return answered(op, pathSignMLDSA, "sign", answer.Sign)
}

// VerifyMLDSA returns nil if sig is a signature of msg by kid: POST
// /api/crypto/pqc/mldsa/verify, scope keymgmt:use:<kid>. A request has room for 7300
// bytes of JSON, and so beside an ML-DSA-87 signature for some 790 bytes of message; a
// longer one is [ErrArgument]. A device refuses imported keys here; SoftHEM takes them.
//
// Errors: those of [Client.Login]; [ErrArgument], [ErrVerification], 403 for the
// administrator.
func (c *Client) VerifyMLDSA(ctx context.Context, kid KID, msg, sig, sigctx []byte) error {
	const op = "verify a signature"
	body, err := signRequest(op, kid, msg, "", sigctx)
	if err == nil {
		err = checkSize(op, "signature", sig, api.MaxMLDSASignature)
	}
	if err != nil {
		return err
	}
	body.Sign = api.EncodeBase64(sig)
	return c.confirm(ctx, op, pathVerifyMLDSA, kid, body)
}
