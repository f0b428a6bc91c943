package api

import (
	"encoding/binary"
	"strings"
)

// Limits of external authenticators.
const (
	MaxPairings        = 8
	MaxExtScopeChars   = 1023 // printable ASCII without #
	MaxExtContextChars = 64
	MaxExtNoteChars    = 128
	MaxBindSecret      = 128 // bytes
	PairingIDBytes     = 32
	// MaxExtWaiting is how many requests may wait for one pairing: a broker takes
	// no more, and an authenticator reads no more.
	MaxExtWaiting = 64
)

// How long a request can be approved, in seconds from the moment that its nonce
// names; those for the use of a key end sooner.
const (
	ExtRequestLife       = 3600
	ExtKeyUseRequestLife = 900
)

// ExtRequestLifeOf is how long a request for scope can be approved, in seconds.
func ExtRequestLifeOf(scope string) int64 {
	if _, ok := KeyUseKID(scope); ok {
		return ExtKeyUseRequestLife
	}
	return ExtRequestLife
}

// NonceTime is the module's clock when it made a nonce, in Unix seconds: bytes 0
// to 3, little-endian. A nonce that is shorter has none, 0.
func NonceTime(nonce []byte) int64 {
	if len(nonce) < 4 {
		return 0
	}
	return int64(binary.LittleEndian.Uint32(nonce))
}

// ExtInit is the body of POST /api/auth/ext/init and of POST /api/auth/ext/mac.
type ExtInit struct {
	EPK string `json:"epk"` // the broker's session key, X25519, 32 bytes
}

// ExtInitAnswer is the answer of POST /api/auth/ext/init. Request is an eJWT of
// [PairingRequestClaims].
type ExtInitAnswer struct {
	Request string `json:"request"`
	EID     string `json:"eid"`
}

// PairingRequestClaims is what the module signs under X25519(eid, epk) to ask an
// authenticator for a pairing.
type PairingRequestClaims struct {
	JTI string `json:"jti"`
	Exp int64  `json:"exp"` // a day ahead
	Aud string `json:"aud"` // epk
	Iss string `json:"iss"` // eid
}

// ExtValidate is the body of POST /api/auth/ext/validate. Reply is an eJWT of
// [PairingReplyClaims].
type ExtValidate struct {
	PID   string `json:"pid"` // 32 bytes
	Reply string `json:"reply"`
}

// PairingReplyClaims is what an authenticator signs under X25519(aid, eid) to be
// paired.
type PairingReplyClaims struct {
	JTI   string `json:"jti"` // the request's
	Iss   string `json:"iss"` // aid, the authenticator's key for this pairing
	Aud   string `json:"aud,omitzero"`
	EPK   string `json:"epk"`
	Label string `json:"label"` // becomes the key's label
	// KP is HMAC-SHA256(k, aid), where k came with the QR code and never met
	// the broker; absent from authenticators that do not know it.
	KP string `json:"kp,omitzero"`
}

// ExtValidateAnswer is the answer of POST /api/auth/ext/validate.
type ExtValidateAnswer struct {
	KID  string `json:"kid"`
	Code string `json:"code"` // HMAC-SHA256(X25519(eid, epk), reply), 32 bytes
}

// ExtMACAnswer is the answer of POST /api/auth/ext/mac.
type ExtMACAnswer struct {
	Nonce string `json:"nonce"` // 32 bytes
	MAC   string `json:"mac"`   // HMAC-SHA256(X25519(eid, epk), nonce), 32 bytes
	EID   string `json:"eid"`
}

// ExtRequest is the body of POST /api/auth/ext/request.
type ExtRequest struct {
	EPK   string `json:"epk"`           // 32 bytes
	Scope string `json:"scope"`         // 1 to MaxExtScopeChars
	Ctx   string `json:"ctx,omitzero"`  // at most MaxExtContextChars
	Note  string `json:"note,omitzero"` // at most MaxExtNoteChars
	// Bind is the SHA-256 of a secret that has to come with the approval.
	Bind string `json:"bind,omitzero"`
}

// ExtRequestAnswer is the answer of POST /api/auth/ext/request. AuthReq is an
// eJWT of [AuthReqClaims].
type ExtRequestAnswer struct {
	AuthReq string `json:"authreq"`
	EPK     string `json:"epk"`
}

// AuthReqClaims is what the module signs under X25519(eid, epk) to ask its
// authenticators for a scope.
type AuthReqClaims struct {
	Iss  string `json:"iss"` // eid
	Aud  string `json:"aud"` // epk
	Iat  int64  `json:"iat"`
	Exp  int64  `json:"exp"`
	JTI  string `json:"jti"`
	Ctx  string `json:"ctx,omitzero"`
	Note string `json:"note,omitzero"`
	// Scope has the sealed scope for each pairing, under its pid.
	Scope map[string]string `json:"scope"`
	// From has, sealed for each pairing, the address that asked, as the module saw
	// it; only where the request was bound.
	From map[string]string `json:"from,omitempty"`
}

// ExtToken is the body of POST /api/auth/ext/token. AuthReply is an eJWT of
// [AuthReplyClaims].
type ExtToken struct {
	AuthReply string `json:"authreply"`
	Proof     string `json:"proof,omitzero"` // the secret of ExtRequest.Bind
}

// AuthReplyClaims is what an authenticator signs under X25519(aid, eid) to
// allow a request.
type AuthReplyClaims struct {
	Aud   string `json:"aud"` // eid
	JTI   string `json:"jti"` // the request's
	Exp   int64  `json:"exp"` // of the bearer token; 0: 8 hours
	Iat   int64  `json:"iat"`
	PID   string `json:"pid"`
	Iss   string `json:"iss"`   // aid
	Scope string `json:"scope"` // sealed
	Ctx   string `json:"ctx,omitzero"`
}

// A KeyNote is what the module appends, after a # and in base64, to the scope of
// the use of a key, so that the authenticator can name the key.
type KeyNote struct {
	Type  string `json:"t"` // as in a list
	Label string `json:"l"`
}

// KeyUseKID is the kid of a scope that is exactly keymgmt:use:<kid>.
func KeyUseKID(scope string) (kid string, ok bool) {
	kid, ok = strings.CutPrefix(scope, "keymgmt:use:")
	if !ok || len(kid) != 2*KIDBytes {
		return "", false
	}
	for _, c := range []byte(kid) {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
			return "", false
		}
	}
	return kid, true
}

// WiderDiskScope is storage:disk<N>:rw for storage:disk<N>: what may have been
// asked for when the other is granted.
func WiderDiskScope(scope string) (wider string, ok bool) {
	number, ok := strings.CutPrefix(scope, "storage:disk")
	if !ok || number == "" || strings.Trim(number, "0123456789") != "" {
		return "", false
	}
	return scope + ":rw", true
}
