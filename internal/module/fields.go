package module

import (
	"softhem/api"
	"softhem/internal/keyring"
	"softhem/internal/store"
	"softhem/internal/suite"
)

// fields reads the fields of a request and keeps the first that is wrong: all
// of them are a 400.
type fields struct{ err error }

func (f *fields) bad(format string, args ...any) {
	if f.err == nil {
		f.err = api.ErrBadRequest.Becausef(format, args...)
	}
}

// bytes decodes base64 of at least and at most so many bytes.
func (f *fields) bytes(name, text string, least, most int) []byte {
	b, err := api.DecodeBase64(text)
	switch {
	case err != nil:
		f.bad("%s is not base64", name)
	case len(b) < least && least == most:
		f.bad("%s must have %d bytes", name, least)
	case len(b) < least:
		f.bad("%s is missing or too short", name)
	case len(b) > most:
		f.bad("%s has more than %d bytes", name, most)
	}
	return b
}

// optional is bytes for a field that may be absent: then nil.
func (f *fields) optional(name, text string, least, most int) []byte {
	if text == "" {
		return nil
	}
	return f.bytes(name, text, least, most)
}

func (f *fields) label(text string) string {
	if len(text) == 0 || len(text) > api.MaxLabelChars {
		f.bad("label must have 1 to %d characters", api.MaxLabelChars)
	}
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' {
			f.bad("label may have printable ASCII characters only")
		}
	}
	return text
}

func (f *fields) descr(text string) []byte {
	return f.optional("descr", text, 0, api.MaxDescrBytes)
}

// mode reads the mode of a key on a curve that has one; elsewhere any text is
// taken and means nothing, since clients send the type there.
func (f *fields) mode(text string, a *suite.Algorithm) string {
	if a == nil || !a.HasMode {
		return ""
	}
	switch text {
	case "":
		return api.ModeECDH
	case api.ModeECDH, api.ModeExDSA, api.ModeBoth:
		return text
	}
	f.bad("mode is none of ECDH, ExDSA and ECDH,ExDSA")
	return ""
}

// newKey reads what every key is given when it is made. a may be nil.
func (f *fields) newKey(a *suite.Algorithm, label, mode, descr string) keyring.NewKey {
	return keyring.NewKey{Algorithm: a, Label: f.label(label), Mode: f.mode(mode, a), Descr: f.descr(descr)}
}

// algorithm reads the type of a key.
func (f *fields) algorithm(t api.KeyType) *suite.Algorithm {
	a, ok := suite.AlgorithmOf(t)
	if !ok {
		f.bad("there is no such key type")
	}
	return a
}

func (f *fields) hash(name string) suite.Hash {
	h, ok := suite.HashOf(name)
	if !ok {
		f.bad("alg is no hash of this module")
	}
	return h
}

// kid reads a kid that is not the one the scope names.
func (f *fields) kid(name, text string) store.KID {
	kid, ok := keyring.ParseKID(text)
	if !ok {
		f.bad("%s is not 32 hex digits", name)
	}
	return kid
}

// A peer is the other side of an ECDH as a request names it.
type peer struct {
	given  bool
	byKID  bool
	kid    store.KID
	public []byte
}

// maxPublicBytes is the longest public key of the protocol, ML-DSA-87.
const maxPublicBytes = 2592

func (f *fields) peer(p api.Peer) peer {
	switch {
	case p.ExtKID != "":
		return peer{given: true, byKID: true, kid: f.kid("ext_kid", p.ExtKID)}
	case p.PubKey != "":
		return peer{given: true, public: f.bytes("pubkey", p.PubKey, 1, maxPublicBytes)}
	}
	return peer{}
}

func (f *fields) requiredPeer(p api.Peer) peer {
	other := f.peer(p)
	if !other.given {
		f.bad("neither ext_kid nor pubkey is given")
	}
	return other
}
