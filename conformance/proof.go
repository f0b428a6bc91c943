package conformance

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"

	"softhem/api"
)

// An eJWT is a JWS whose MAC key is an X25519 secret. The suite makes them by
// hand, because most of them are to be wrong.
const (
	personaHeader = `{"ecdh":"x25519","alg":"HS256","typ":"JWT"}`
	backendHeader = `{"ecdh":"x25519","typ":"JWT","alg":"HS256"}`
)

// A claims is the payload of an eJWT.
type claims map[string]any

// with is a copy with other values; nil takes a claim away.
func (c claims) with(pairs ...any) claims {
	out := make(claims)
	for k, v := range c {
		out[k] = v
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == nil {
			delete(out, pairs[i].(string))
		} else {
			out[pairs[i].(string)] = pairs[i+1]
		}
	}
	return out
}

func segment(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// jws signs a payload, claims or text as it is.
func jws(header string, payload any, key []byte) string {
	body, ok := payload.(string)
	if !ok {
		raw, err := json.Marshal(payload)
		if err != nil {
			panic("conformance: " + err.Error())
		}
		body = string(raw)
	}
	signed := segment([]byte(header)) + "." + segment([]byte(body))
	return signed + "." + segment(mac(key, []byte(signed)))
}

func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// openJWS reads a JWS: its header and claims, and whether key made its MAC.
func openJWS(token string, key []byte) (header, payload object, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, nil, errors.New("it has not three segments")
	}
	var raw [3][]byte
	for i, p := range parts {
		if raw[i], err = base64.RawURLEncoding.DecodeString(p); err != nil {
			return nil, nil, errors.New("a segment is not base64url without padding")
		}
	}
	if key != nil && !hmac.Equal(raw[2], mac(key, []byte(parts[0]+"."+parts[1]))) {
		return nil, nil, errors.New("the MAC is wrong")
	}
	if header, err = parseObject(raw[0]); err != nil {
		return nil, nil, errors.New("the header is no JSON object")
	}
	if payload, err = parseObject(raw[1]); err != nil {
		return nil, nil, errors.New("the claims are no JSON object")
	}
	return header, payload, nil
}

// order tells whether the names of a JSON object come in this order.
func order(token string, part int, names ...string) bool {
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[part])
	if err != nil {
		return false
	}
	at := 0
	for _, name := range names {
		i := bytes.Index(raw[at:], []byte(`"`+name+`":`))
		if i < 0 {
			return false
		}
		at += i + 1
	}
	return true
}

// A party is an X25519 key pair: a persona, the backend, an authenticator.
type party struct{ private *ecdh.PrivateKey }

func newParty(private []byte) (*party, error) {
	k, err := ecdh.X25519().NewPrivateKey(private)
	if err != nil {
		return nil, err
	}
	return &party{k}, nil
}

func (p *party) public() string { return api.EncodeBase64(p.private.PublicKey().Bytes()) }

// shared is the secret with a peer's public key, base64. The error is the peer's.
func (p *party) shared(peer string) ([]byte, error) {
	raw, err := api.DecodeBase64(peer)
	if err != nil {
		return nil, err
	}
	point, err := ecdh.X25519().NewPublicKey(raw)
	if err != nil {
		return nil, err
	}
	return p.private.ECDH(point)
}

// sign makes an eJWT for peer. A peer that is no key of the protocol has been
// looked at before; what is signed then fails anyway.
func (p *party) sign(header string, payload any, peer string) string {
	key, err := p.shared(peer)
	if err != nil {
		key = make([]byte, 32)
	}
	return jws(header, payload, key)
}

// NewBackendKey makes a key pair for [Options.BackendKey]: what the module has to
// trust is its public half.
func NewBackendKey() (private, public []byte, err error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	return k.Bytes(), k.PublicKey().Bytes(), nil
}
