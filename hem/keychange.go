package hem

import (
	"context"
	"net/http"

	"softhem/api"
)

// A KeySpec describes a key to be made or stored.
type KeySpec struct {
	// Label is the key's name, 1 to [api.MaxLabelChars] printable ASCII characters.
	// Labels need not be unique.
	Label string

	// Type is one of [api.KeyTypes].
	Type api.KeyType

	// Mode says what a key on a NIST curve or secp256k1 is for: [api.ModeECDH] (also when
	// empty), [api.ModeExDSA] or [api.ModeBoth]. Other types take no heed of it.
	Mode string

	// Descr is any data, at most [api.MaxDescrBytes], by which keys can be searched for.
	// It may not begin with [api.PairingPrefix] (406).
	Descr []byte
}

func (s KeySpec) check(op string) error {
	if s.Type == "" {
		return badArgument(op, "the key has no type")
	}
	return checkAttributes(op, s.Label, s.Descr)
}

func checkAttributes(op, label string, descr []byte) error {
	if len(label) < 1 || len(label) > api.MaxLabelChars {
		return badArgument(op, "the label has %d characters, not 1 to %d", len(label), api.MaxLabelChars)
	}
	if printable(label) != label {
		return badArgument(op, "the label has characters other than printable ASCII")
	}
	if len(descr) > api.MaxDescrBytes {
		return badArgument(op, "the description has %d bytes, more than %d", len(descr), api.MaxDescrBytes)
	}
	return nil
}

// CreateKey has the module make a key: POST /api/keymgmt/create, scope keymgmt:gen.
//
// Errors: those of [Client.Login]; [ErrArgument], 400 for an unknown type or mode, 403
// for the administrator, 406 when the module is full.
func (c *Client) CreateKey(ctx context.Context, spec KeySpec) (KID, error) {
	const op = "create a key"
	if err := spec.check(op); err != nil {
		return KID{}, err
	}
	return c.newKey(ctx, op, "/api/keymgmt/create", api.ScopeKeyGen, api.KeyCreate{
		Label: spec.Label, Type: spec.Type, Mode: spec.Mode, Descr: api.EncodeBase64(spec.Descr),
	})
}

// ImportKey stores someone's public key, in its raw form (see [RawPublic]): POST
// /api/keymgmt/import, scope keymgmt:imp. All asymmetric types can be imported, private
// keys never. The kid is the beginning of SHA-1(public).
//
// Errors: those of [Client.Login]; [ErrArgument], 400 for an unknown mode, 403 for the
// administrator, 406 when public is no key of the type, is stored already, or the module
// is full.
func (c *Client) ImportKey(ctx context.Context, spec KeySpec, public []byte) (KID, error) {
	const op = "import a key"
	if err := spec.check(op); err != nil {
		return KID{}, err
	}
	if len(public) == 0 {
		return KID{}, badArgument(op, "there is no public key")
	}
	return c.newKey(ctx, op, "/api/keymgmt/import", api.ScopeKeyImport, api.KeyImport{
		Label: spec.Label, Type: spec.Type, PubKey: api.EncodeBase64(public), Mode: spec.Mode, Descr: api.EncodeBase64(spec.Descr),
	})
}

// DeriveKey makes a key from the ECDH secret of kid and peer, by HKDF-SHA256 (RFC 5869)
// without salt, info being "encedo-" and the type: POST /api/keymgmt/derive, scope
// keymgmt:derive or keymgmt:gen, whichever a token is at hand for, else the first. The
// other side, with the two halves exchanged, gets the same key. The secret must be at
// least as long as the new key, so X25519 gives keys of 32 bytes and less; post-quantum
// keys cannot be derived.
//
// Keys derived by modules of different makers agree only where these do the same with the
// output of HKDF, which firmware does not document.
//
// Errors: those of [Client.Login]; [ErrArgument], 400 for a type that cannot be derived
// or an unknown mode, 403 for the administrator, 406 when a key is unknown or of another
// curve, the secret too short, the new key there already, or the module full.
func (c *Client) DeriveKey(ctx context.Context, kid KID, peer Peer, spec KeySpec) (KID, error) {
	const op = "derive a key"
	if err := spec.check(op); err != nil {
		return KID{}, err
	}
	if peer.none() {
		return KID{}, badArgument(op, "there is no peer")
	}
	scope := c.heldScope(ctx, api.ScopeKeyDerive, api.ScopeKeyGen)
	return c.newKey(ctx, op, "/api/keymgmt/derive", scope, api.KeyDerive{
		KID: kid.String(), Label: spec.Label, Type: spec.Type, Peer: peer.wire(), Mode: spec.Mode, Descr: api.EncodeBase64(spec.Descr),
	})
}

func (c *Client) newKey(ctx context.Context, op, path, scope string, body any) (KID, error) {
	var answer api.KeyCreated
	if err := c.postAs(ctx, op, path, scope, body, &answer); err != nil {
		return KID{}, err
	}
	kid, err := ParseKID(answer.KID)
	if err != nil {
		return KID{}, badAnswer(op, "POST "+path, "no kid in it")
	}
	return kid, nil
}

// UpdateKey replaces a key's label and description: POST /api/keymgmt/update, scope
// keymgmt:upd. Both are replaced: an empty descr removes the one there was.
//
// Errors: those of [Client.Login]; [ErrArgument], 403 for the administrator, 406 when
// there is no such key, or it is a paired authenticator whose description would change.
func (c *Client) UpdateKey(ctx context.Context, kid KID, label string, descr []byte) error {
	const op = "update a key"
	if err := checkAttributes(op, label, descr); err != nil {
		return err
	}
	return c.postAs(ctx, op, "/api/keymgmt/update", api.ScopeKeyUpdate, api.KeyUpdate{
		KID: kid.String(), Label: label, Descr: api.EncodeBase64(descr),
	}, nil)
}

// DeleteKey destroys a key: DELETE /api/keymgmt/delete/{kid}, scope keymgmt:del. It
// cannot be undone, and what was encrypted with the key is lost.
//
// Errors: those of [Client.Login]; 403 for the administrator, 406 when there is no such
// key, or the module needs it.
func (c *Client) DeleteKey(ctx context.Context, kid KID) error {
	r := call{op: "delete a key", method: http.MethodDelete, path: "/api/keymgmt/delete/" + kid.String()}
	resp, err := c.authorised(ctx, r, api.ScopeKeyDelete)
	return c.read(resp, err, c.base, r, nil)
}
