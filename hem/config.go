package hem

import (
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"softhem/api"
)

const pathConfig = "/api/system/config"

// UpdateConfig changes any part of the configuration, all of it or nothing:
// POST /api/system/config, scope system:config, either role. Pointers that are nil
// leave what they stand for as it is. On a fresh module it needs no token and
// takes TLS alone, and the answer is empty.
//
// For a user key and for a wipe there are [Client.ChangeUserKey] and [Client.Wipe].
//
// Errors: those of [Client.Login]; 400 for a field that is invalid, 406 when a TLS
// pair does not fit, 409 in a fail state. After an error nothing has changed.
func (c *Client) UpdateConfig(ctx context.Context, u api.ConfigUpdate) (*api.ConfigUpdated, error) {
	const op = "change the configuration"
	r, err := postCall(op, pathConfig, u)
	if err != nil {
		return nil, err
	}
	r.freshOpen = true
	resp, err := c.authorised(ctx, r, api.ScopeSystemConfig)
	if err == nil && resp.ContentLength == 0 {
		resp.Body.Close()
		return &api.ConfigUpdated{}, nil
	}
	var answer api.ConfigUpdated
	if err := c.read(resp, err, c.base, r, &answer); err != nil {
		return nil, err
	}
	return &answer, nil
}

// ChangeUserKey gives the module's user another key, by passphrase or as it is
// (one of the two, the other nil), with the proof that it is held: POST
// /api/system/config, scope system:config, either role. All tokens of the user end.
// passphrase stays the caller's, who should clear it.
//
// What this Client knows of the user is forgotten. A [Config.Key] or
// [Config.Passphrase] that stands for the old key is of no use any more.
//
// Errors: those of [Client.Login]; [ErrArgument], 401 when it took longer than a minute, 409 in
// a fail state.
func (c *Client) ChangeUserKey(ctx context.Context, passphrase []byte, key *PersonaKey) error {
	const op = "change the user's key"
	if (passphrase != nil) == (key != nil) {
		return badArgument(op, "it needs either a passphrase or a key")
	}
	conf, err := c.Config(ctx)
	if err != nil {
		return err
	}
	if key == nil {
		c.cfg.Progress(StageDerive)
		if key, err = DeriveKey(passphrase, conf.EID); err != nil {
			return &OpError{Op: op, Path: "GET " + pathConfig, Err: fmt.Errorf("%w: %w", ErrProtocol, err)}
		}
		defer key.Wipe()
		// A fresh nonce: who answers a login in between may have taken the time.
		if conf, err = c.Config(ctx); err != nil {
			return err
		}
	}
	u, err := proveUserKey(key, conf.SPK, conf.Nonce)
	if err != nil {
		return &OpError{Op: op, Path: "GET " + pathConfig, Err: err}
	}
	if err := c.postAs(ctx, op, pathConfig, api.ScopeSystemConfig, u, nil); err != nil {
		return err
	}
	if c.cfg.Role == api.RoleUser {
		c.Forget()
	}
	return nil
}

// proveUserKey makes the triple of a user-key change:
//
//	userkey_hmac = HMAC-SHA256(X25519(new private key, spk), nonce ‖ new public key)
func proveUserKey(key *PersonaKey, spk, nonce string) (api.ConfigUpdate, error) {
	point, err := decode32("spk", spk)
	if err != nil {
		return api.ConfigUpdate{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	raw, err := decode32("nonce", nonce)
	if err != nil {
		return api.ConfigUpdate{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	secret, err := key.shared(point)
	if err != nil {
		return api.ConfigUpdate{}, err
	}
	defer clear(secret)
	mac := hmac.New(sha256.New, secret)
	mac.Write(raw)
	mac.Write(key.Public())
	return api.ConfigUpdate{
		UserKey: api.EncodeBase64(key.Public()), UserKeyNonce: nonce, UserKeyHMAC: api.EncodeBase64(mac.Sum(nil)),
	}, nil
}

// Wipe destroys everything the module holds: keys, configuration, identity, TLS
// pair, logs. POST /api/system/config, scope system:config, either role; also in
// a fail state. When it returns nil nothing of it can be read any more, and a fresh
// module with another identity and another certificate takes its place. What this
// Client knows of the old one is forgotten.
//
// Errors: those of [Client.Login]; 406 when the module could not, and is as it was.
func (c *Client) Wipe(ctx context.Context) error {
	r, err := postCall("wipe the module", pathConfig, api.ConfigUpdate{Wipeout: true})
	if err != nil {
		return err
	}
	resp, err := c.authorised(ctx, r, api.ScopeSystemConfig)
	if err != nil {
		return err
	}
	resp.Body.Close() // the status is the answer
	c.Forget()
	return nil
}

// SealTLSKey encrypts a TLS key, an [*ecdsa.PrivateKey] on P-256, to the module that gave this attestation
// token (genuine of [Client.Init], or of [Client.UpdateConfig] with GenCSR), for the
// fields Emp and Key of [api.TLSBundle]. Nobody else can read it, if the token is
// that module's: whoever hands out another gets the key.
func SealTLSKey(genuine string, tlsKey crypto.PrivateKey) (emp, sealed string, err error) {
	bad := func(format string, args ...any) (string, string, error) {
		return "", "", fmt.Errorf("%w: "+format, append([]any{ErrArgument}, args...)...)
	}
	key, ok := tlsKey.(*ecdsa.PrivateKey)
	if !ok || key == nil || key.Curve != elliptic.P256() {
		return bad("the TLS key is not on P-256")
	}
	g, err := VerifyGenuine(genuine)
	if err != nil {
		return bad("%w", err)
	}
	peer, err := g.Key.ECDH()
	if err != nil {
		return "", "", err
	}
	own, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return "", "", err
	}
	secret, err := own.ECDH(peer)
	if err != nil {
		return "", "", err
	}
	defer clear(secret)
	aesKey := sha256.Sum256(secret)
	defer clear(aesKey[:])
	block, err := aes.NewCipher(aesKey[:])
	if err != nil {
		return "", "", err
	}
	scalar, err := key.Bytes() // the key's own bytes: not to be cleared
	if err != nil {
		return "", "", err
	}
	digits := hex.AppendEncode(nil, scalar)
	defer clear(digits)
	iv := make([]byte, aes.BlockSize)
	rand.Read(iv)
	out := make([]byte, len(digits))
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(out, digits)
	return api.EncodeBase64(own.PublicKey().Bytes()), api.EncodeBase64(iv) + "." + api.EncodeBase64(out), nil
}
