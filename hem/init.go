package hem

import (
	"context"
	"fmt"

	"softhem/api"
)

const pathInit = "/api/auth/init"

// InitParams personalises a module.
type InitParams struct {
	// The two personas: for each either a passphrase or a ready key. A nil
	// passphrase counts as missing, an empty one does not. All stay the caller's, who
	// should clear the passphrases.
	MasterPassphrase, UserPassphrase []byte
	MasterKey, UserKey               *PersonaKey

	// Config is the first configuration. MasterKey and UserKey are filled in;
	// User (1 to 64 bytes), Hostname and Origin are required.
	Config api.InitConfig
}

// Init personalises a fresh module: it derives both keys for the module's
// identity, and has the administrator's sign the configuration. The token of the answer (scope
// system:config, role U) is also kept for later calls of this Client, if
// its Role is the user's.
//
// Errors: 400 when the configuration is invalid, 401 when the proof is, 403 when the module's
// clock is not set (do [Client.CheckIn] first), 406 when it is personalised
// already, 409 when it has failed; [ErrProtocol], [ErrOtherModule].
func (c *Client) Init(ctx context.Context, p InitParams) (*api.InitAnswer, error) {
	const op = "personalise"
	began := c.cfg.Now()
	var ch api.InitChallenge
	if err := c.get(ctx, op, pathInit, &ch); err != nil {
		return nil, err
	}
	err := c.points.checkChallenge(ch.Exp, ch.SPK, ch.JTI, ch.EID)
	if err == nil {
		err = c.meet(ch.EID)
	}
	if err != nil {
		return nil, &OpError{Op: op, Path: "GET " + pathInit, Err: err}
	}
	epoch := c.currentEpoch()

	c.cfg.Progress(StageDerive)
	init, err := signInit(p, &ch)
	if err != nil {
		return nil, &OpError{Op: op, Err: err}
	}
	var answer api.InitAnswer
	if err := c.post(ctx, op, pathInit, api.InitRequest{Init: init}, &answer); err != nil {
		return nil, err
	}
	if c.cfg.Role == api.RoleUser {
		// Without a usable token the module is personalised all the same.
		if token, err := newToken(answer.Token, ch.EID, began, ch.Exp-challengeSeconds); err == nil {
			c.keep(ctx, api.ScopeSystemConfig, token, epoch)
		}
	}
	return &answer, nil
}

// signInit makes the eJWT of an initialisation. As in a login, the time is the module's.
func signInit(p InitParams, ch *api.InitChallenge) (string, error) {
	master, wipe, err := initKey("administrator", p.MasterPassphrase, p.MasterKey, ch.EID)
	if err != nil {
		return "", err
	}
	defer wipe()
	user, wipe, err := initKey("user", p.UserPassphrase, p.UserKey, ch.EID)
	if err != nil {
		return "", err
	}
	defer wipe()
	spk, err := decode32("spk", ch.SPK)
	if err != nil {
		return "", err
	}
	config := p.Config
	config.MasterKey, config.UserKey = api.EncodeBase64(master.Public()), api.EncodeBase64(user.Public())
	return signEJWT(master, spk, api.InitClaims{
		JTI: ch.JTI, Aud: ch.SPK, Exp: ch.Exp, Iat: ch.Exp - challengeSeconds - iatLeadSeconds,
		Iss: config.MasterKey, Cfg: config,
	})
}

// initKey returns the key of one persona, and what to call when it is no longer needed.
func initKey(who string, passphrase []byte, key *PersonaKey, eid string) (*PersonaKey, func(), error) {
	switch {
	case (passphrase != nil) == (key != nil):
		return nil, nil, fmt.Errorf("%w: the %s needs either a passphrase or a key", ErrArgument, who)
	case key != nil:
		return key, func() {}, nil
	}
	key, err := DeriveKey(passphrase, eid)
	if err != nil {
		return nil, nil, err
	}
	return key, key.Wipe, nil
}
