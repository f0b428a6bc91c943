package module

import (
	"context"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/keyring"
	"softhem/internal/suite"
)

// The operations of /api/crypto. Each reads kid and scope, then its other
// fields, then uses the key; what it answers is recorded first.

// HMACHash is the MAC of a message under a stored key, or under the raw ECDH
// secret with a peer.
func (m *Module) HMACHash(ctx context.Context, p *Pass, req api.HMACRequest) (api.HMACAnswer, error) {
	mac, err := m.hmac(ctx, p, OpHMACHash, req, nil)
	if err != nil {
		return api.HMACAnswer{}, err
	}
	return api.HMACAnswer{MAC: api.EncodeBase64(mac)}, nil
}

// HMACVerify checks a MAC at its full length.
func (m *Module) HMACVerify(ctx context.Context, p *Pass, req api.HMACRequest) error {
	_, err := m.hmac(ctx, p, OpHMACVerify, req, &req.MAC)
	return err
}

func (m *Module) hmac(ctx context.Context, p *Pass, op Op, req api.HMACRequest, claimed *string) (mac []byte, err error) {
	p.must(op)
	kid, err := m.Admit(ctx, p, req.KID)
	if err != nil {
		return nil, err
	}
	var f fields
	msg := f.bytes("msg", req.Msg, 1, api.MaxMessageBytes)
	other := f.peer(req.Peer)
	var hash suite.Hash
	if other.given && req.Alg != "" { // a stored HMAC key has its own hash
		hash = f.hash(req.Alg)
	}
	what, want := audit.CryptoHMACHash, []byte(nil)
	if claimed != nil {
		what, want = audit.CryptoHMACVerify, f.bytes("mac", *claimed, 1, api.MaxMACBytes)
	}
	if f.err != nil {
		return nil, f.err
	}
	err = m.use(ctx, p, kid, what, func(u *use, k *keyring.Key) error {
		if !other.given {
			mac, err = k.MAC(msg)
		} else if req.Alg == "" {
			err = suite.ErrMismatch
		} else {
			var secret []byte
			if secret, err = u.secret(ctx, k, other); err == nil {
				mac = hash.MAC(secret, msg)
			}
		}
		if err == nil && claimed != nil && !suite.Equal(mac, want) {
			err = suite.ErrMismatch
		}
		return err
	})
	return mac, err
}

// Sign makes an ECDSA or EdDSA signature. The module hashes.
func (m *Module) Sign(ctx context.Context, p *Pass, req api.SignRequest) (api.SignAnswer, error) {
	p.must(OpSign)
	kid, err := m.Admit(ctx, p, req.KID)
	if err != nil {
		return api.SignAnswer{}, err
	}
	var f fields
	alg, msg, sigCtx := f.signature(req)
	if f.err != nil {
		return api.SignAnswer{}, f.err
	}
	var sig []byte
	err = m.use(ctx, p, kid, audit.CryptoEXDSASign, func(u *use, k *keyring.Key) error {
		if !k.Traits.ExDSA || !k.Private() {
			return suite.ErrMismatch
		}
		sig, err = k.Sign(alg, msg, sigCtx)
		u.pkey = err == nil
		return err
	})
	if err != nil {
		return api.SignAnswer{}, err
	}
	return api.SignAnswer{Sign: api.EncodeBase64(sig)}, nil
}

// Verify checks an ECDSA or EdDSA signature.
func (m *Module) Verify(ctx context.Context, p *Pass, req api.SignRequest) error {
	p.must(OpVerify)
	kid, err := m.Admit(ctx, p, req.KID)
	if err != nil {
		return err
	}
	var f fields
	alg, msg, sigCtx := f.signature(req)
	sig := f.bytes("sign", req.Sign, 1, api.MaxSignatureBytes)
	if f.err != nil {
		return f.err
	}
	return m.use(ctx, p, kid, audit.CryptoEXDSAVerify, func(_ *use, k *keyring.Key) error {
		if !k.Traits.ExDSA {
			return suite.ErrMismatch
		}
		return k.Verify(alg, msg, sigCtx, sig)
	})
}

// signature reads what sign and verify have in common.
func (f *fields) signature(req api.SignRequest) (alg suite.SignatureAlg, msg, sigCtx []byte) {
	msg = f.bytes("msg", req.Msg, 1, api.MaxMessageBytes)
	sigCtx = f.optional("ctx", req.Ctx, 0, api.MaxSignContext)
	alg, ok := suite.SignatureAlgOf(req.Alg)
	switch {
	case !ok:
		f.bad("alg is no signature algorithm of this module")
	case alg.NeedsContext() && len(sigCtx) == 0:
		f.bad("this alg needs a ctx")
	case !alg.TakesContext():
		sigCtx = nil
	}
	return alg, msg, sigCtx
}

// Encrypt encrypts with a stored AES key, or one derived with a peer, under a
// fresh IV.
func (m *Module) Encrypt(ctx context.Context, p *Pass, req api.CipherRequest) (api.CipherAnswer, error) {
	p.must(OpEncrypt)
	kid, err := m.Admit(ctx, p, req.KID)
	if err != nil {
		return api.CipherAnswer{}, err
	}
	var f fields
	c := f.cipher(req, api.MaxMessageBytes)
	if f.err != nil {
		return api.CipherAnswer{}, f.err
	}
	var ciphertext, iv, tag []byte
	err = m.use(ctx, p, kid, audit.CryptoEncrypt, func(u *use, k *keyring.Key) error {
		key, err := u.symmetric(ctx, k, c.peer, infoCipher, c.ctx)
		if err != nil {
			return err
		}
		ciphertext, iv, tag, err = c.alg.Encrypt(key, c.msg, c.aad)
		return err
	})
	if err != nil {
		return api.CipherAnswer{}, err
	}
	return api.CipherAnswer{
		Ciphertext: api.EncodeBase64(ciphertext), IV: api.EncodeBase64(iv), Tag: api.EncodeBase64(tag),
	}, nil
}

// Decrypt reverses Encrypt.
func (m *Module) Decrypt(ctx context.Context, p *Pass, req api.CipherRequest) (api.PlainAnswer, error) {
	p.must(OpDecrypt)
	kid, err := m.Admit(ctx, p, req.KID)
	if err != nil {
		return api.PlainAnswer{}, err
	}
	var f fields
	var iv, tag []byte
	c := f.cipher(req, api.MaxDecryptBytes)
	if c.alg.HasIV() {
		iv = f.bytes("iv", req.IV, api.CipherIVBytes, api.CipherIVBytes)
	}
	if c.alg.HasTag() {
		tag = f.bytes("tag", req.Tag, api.CipherTagBytes, api.CipherTagBytes)
	}
	if f.err != nil {
		return api.PlainAnswer{}, f.err
	}
	var plain []byte
	err = m.use(ctx, p, kid, audit.CryptoDecrypt, func(u *use, k *keyring.Key) error {
		key, err := u.symmetric(ctx, k, c.peer, infoCipher, c.ctx)
		if err != nil {
			return err
		}
		plain, err = c.alg.Decrypt(key, c.msg, iv, tag, c.aad)
		return err
	})
	if err != nil {
		return api.PlainAnswer{}, err
	}
	return api.PlainAnswer{Plaintext: api.EncodeBase64(plain)}, nil
}

// cipherFields are what encrypt and decrypt have in common.
type cipherFields struct {
	alg           suite.CipherAlg
	msg, aad, ctx []byte
	peer          peer
}

func (f *fields) cipher(req api.CipherRequest, most int) (c cipherFields) {
	c.msg = f.bytes("msg", req.Msg, 1, most)
	c.ctx = f.optional("ctx", req.Ctx, 0, api.MaxKDFContext)
	c.peer = f.peer(req.Peer)
	var ok bool
	if c.alg, ok = suite.CipherAlgOf(req.Alg); !ok {
		f.bad("alg is no cipher of this module")
		return c
	}
	if c.alg.Blocks() && len(c.msg)%16 != 0 {
		f.bad("msg is not a multiple of 16 bytes")
	}
	if aad := f.optional("aad", req.AAD, 0, api.MaxAADBytes); c.alg.HasTag() {
		c.aad = aad
	}
	return c
}

// Wrap encrypts key material (RFC 3394).
func (m *Module) Wrap(ctx context.Context, p *Pass, req api.WrapRequest) (api.WrapAnswer, error) {
	p.must(OpWrap)
	kid, err := m.Admit(ctx, p, req.KID)
	if err != nil {
		return api.WrapAnswer{}, err
	}
	var f fields
	w := f.wrap(req, api.MaxMessageBytes)
	if f.err != nil {
		return api.WrapAnswer{}, f.err
	}
	var wrapped []byte
	err = m.use(ctx, p, kid, audit.CryptoWrap, func(u *use, k *keyring.Key) error {
		kek, err := u.symmetric(ctx, k, w.peer, infoWrap, w.ctx)
		if err != nil {
			return err
		}
		wrapped, err = w.alg.Wrap(kek, w.msg, w.iv)
		return err
	})
	if err != nil {
		return api.WrapAnswer{}, err
	}
	return api.WrapAnswer{Wrapped: api.EncodeBase64(wrapped)}, nil
}

// Unwrap reverses Wrap.
func (m *Module) Unwrap(ctx context.Context, p *Pass, req api.WrapRequest) (api.UnwrapAnswer, error) {
	p.must(OpUnwrap)
	kid, err := m.Admit(ctx, p, req.KID)
	if err != nil {
		return api.UnwrapAnswer{}, err
	}
	var f fields
	w := f.wrap(req, api.MaxUnwrapBytes)
	if len(w.msg)%8 != 0 {
		f.bad("msg is not a multiple of 8 bytes")
	}
	if f.err != nil {
		return api.UnwrapAnswer{}, f.err
	}
	var plain []byte
	err = m.use(ctx, p, kid, audit.CryptoUnwrap, func(u *use, k *keyring.Key) error {
		kek, err := u.symmetric(ctx, k, w.peer, infoWrap, w.ctx)
		if err != nil {
			return err
		}
		plain, err = w.alg.Unwrap(kek, w.msg, w.iv)
		return err
	})
	if err != nil {
		return api.UnwrapAnswer{}, err
	}
	return api.UnwrapAnswer{Unwrapped: api.EncodeBase64(plain)}, nil
}

type wrapFields struct {
	alg          suite.WrapAlg
	msg, iv, ctx []byte
	peer         peer
}

func (f *fields) wrap(req api.WrapRequest, most int) (w wrapFields) {
	w.msg = f.bytes("msg", req.Msg, 1, most)
	w.iv = f.optional("iv", req.IV, api.WrapIVBytes, api.WrapIVBytes)
	w.ctx = f.optional("ctx", req.Ctx, 0, api.MaxKDFContext)
	w.peer = f.peer(req.Peer)
	var ok bool
	if w.alg, ok = suite.WrapAlgOf(req.Alg); !ok {
		f.bad("alg is none of AES128, AES192 and AES256")
	}
	return w
}

// ECDH is the raw secret of a key and a peer, or its digest.
func (m *Module) ECDH(ctx context.Context, p *Pass, req api.ECDHRequest) (api.ECDHAnswer, error) {
	p.must(OpECDH)
	kid, err := m.Admit(ctx, p, req.KID)
	if err != nil {
		return api.ECDHAnswer{}, err
	}
	var f fields
	other := f.requiredPeer(req.Peer)
	var hash suite.Hash
	if req.Alg != "" {
		hash = f.hash(req.Alg)
	}
	if f.err != nil {
		return api.ECDHAnswer{}, f.err
	}
	var answer api.ECDHAnswer
	err = m.use(ctx, p, kid, audit.CryptoECDH, func(u *use, k *keyring.Key) error {
		secret, err := u.secret(ctx, k, other)
		if req.Alg == "" {
			secret = m.cfg.Quirks.rawSecret(secret)
		} else if err == nil {
			secret = hash.Sum(secret)
		}
		answer.ECDH = api.EncodeBase64(secret)
		return err
	})
	if err != nil {
		return api.ECDHAnswer{}, err
	}
	return answer, nil
}

// Encapsulate makes an ML-KEM secret for a key, own or imported.
func (m *Module) Encapsulate(ctx context.Context, p *Pass, req api.EncapsRequest) (api.EncapsAnswer, error) {
	p.must(OpEncapsulate)
	kid, err := m.Admit(ctx, p, req.KID)
	if err != nil {
		return api.EncapsAnswer{}, err
	}
	var answer api.EncapsAnswer
	err = m.use(ctx, p, kid, audit.CryptoPQCMLKEMEncaps, func(_ *use, k *keyring.Key) error {
		secret, ciphertext, err := k.Encapsulate()
		answer = api.EncapsAnswer{
			Alg: string(k.Traits.Type), SS: api.EncodeBase64(secret), CT: api.EncodeBase64(ciphertext),
		}
		return err
	})
	if err != nil {
		return api.EncapsAnswer{}, err
	}
	return answer, nil
}

// Decapsulate recovers an ML-KEM secret.
func (m *Module) Decapsulate(ctx context.Context, p *Pass, req api.DecapsRequest) (api.DecapsAnswer, error) {
	p.must(OpDecapsulate)
	kid, err := m.Admit(ctx, p, req.KID)
	if err != nil {
		return api.DecapsAnswer{}, err
	}
	var f fields
	ciphertext := f.bytes("ct", req.CT, 1, maxBody)
	if f.err != nil {
		return api.DecapsAnswer{}, f.err
	}
	var answer api.DecapsAnswer
	err = m.use(ctx, p, kid, audit.CryptoPQCMLKEMDecaps, func(u *use, k *keyring.Key) error {
		secret, err := k.Decapsulate(ciphertext)
		u.pkey = err == nil
		answer = api.DecapsAnswer{Alg: m.cfg.Quirks.decapsAlg(string(k.Traits.Type), p.claims.Scope), SS: api.EncodeBase64(secret)}
		return err
	})
	if err != nil {
		return api.DecapsAnswer{}, err
	}
	return answer, nil
}

// maxBody is more than any field can hold: the body's limit comes first.
const maxBody = 7300

// MLDSASign makes a pure, hedged ML-DSA signature.
func (m *Module) MLDSASign(ctx context.Context, p *Pass, req api.SignRequest) (api.MLDSAAnswer, error) {
	p.must(OpMLDSASign)
	kid, err := m.Admit(ctx, p, req.KID)
	if err != nil {
		return api.MLDSAAnswer{}, err
	}
	var f fields
	msg := f.bytes("msg", req.Msg, 1, api.MaxMessageBytes)
	sigCtx := f.optional("ctx", req.Ctx, 0, api.MaxSignContext)
	if f.err != nil {
		return api.MLDSAAnswer{}, f.err
	}
	var answer api.MLDSAAnswer
	err = m.use(ctx, p, kid, audit.CryptoPQCMLDSASign, func(u *use, k *keyring.Key) error {
		sig, err := k.SignMLDSA(msg, sigCtx)
		u.pkey = err == nil
		answer = api.MLDSAAnswer{Alg: string(k.Traits.Type), Sign: api.EncodeBase64(sig)}
		return err
	})
	if err != nil {
		return api.MLDSAAnswer{}, err
	}
	return answer, nil
}

// MLDSAVerify checks an ML-DSA signature.
func (m *Module) MLDSAVerify(ctx context.Context, p *Pass, req api.SignRequest) error {
	p.must(OpMLDSAVerify)
	kid, err := m.Admit(ctx, p, req.KID)
	if err != nil {
		return err
	}
	var f fields
	msg := f.bytes("msg", req.Msg, 1, api.MaxMessageBytes)
	sigCtx := f.optional("ctx", req.Ctx, 0, api.MaxSignContext)
	sig := f.bytes("sign", req.Sign, 1, api.MaxMLDSASignature)
	if f.err != nil {
		return f.err
	}
	err = m.use(ctx, p, kid, audit.CryptoPQCMLDSAVerify, func(_ *use, k *keyring.Key) error {
		if !k.Private() && !m.cfg.Quirks.importedMLDSA() {
			return suite.ErrMismatch
		}
		return k.VerifyMLDSA(msg, sigCtx, sig)
	})
	return m.cfg.Quirks.mldsaUnverified(err)
}
