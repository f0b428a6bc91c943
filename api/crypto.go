package api

// Requests and answers of /api/crypto. Binary fields are base64. Every one is
// a POST with scope keymgmt:use:<kid>.

// HMACRequest is the body of hmac/hash, and with MAC of hmac/verify. Alg is
// needed with a peer only.
type HMACRequest struct {
	KID string `json:"kid"`
	Msg string `json:"msg"`
	Alg string `json:"alg,omitzero"` // a hash: SHA2-256 … SHA3-512
	MAC string `json:"mac,omitzero"` // verify
	Peer
}

// HMACAnswer is the answer of hmac/hash.
type HMACAnswer struct {
	MAC string `json:"mac"`
}

// The signature algorithms of exdsa.
const (
	SHA256WithECDSA = "SHA256WithECDSA"
	SHA384WithECDSA = "SHA384WithECDSA"
	SHA512WithECDSA = "SHA512WithECDSA"
	AlgEd25519      = "Ed25519"
	AlgEd25519ph    = "Ed25519ph"
	AlgEd25519ctx   = "Ed25519ctx"
	AlgEd448        = "Ed448"
	AlgEd448ph      = "Ed448ph"
)

// SignRequest is the body of exdsa/sign, and with Sign of exdsa/verify; of
// pqc/mldsa/sign and pqc/mldsa/verify it is the same without Alg.
type SignRequest struct {
	KID  string `json:"kid"`
	Msg  string `json:"msg"`
	Alg  string `json:"alg,omitzero"`
	Ctx  string `json:"ctx,omitzero"`
	Sign string `json:"sign,omitzero"` // verify
}

// SignAnswer is the answer of exdsa/sign.
type SignAnswer struct {
	Sign string `json:"sign"` // DER for ECDSA, raw for EdDSA
}

// CipherRequest is the body of cipher/encrypt, and with Msg as the ciphertext
// of cipher/decrypt.
type CipherRequest struct {
	KID string `json:"kid"`
	Msg string `json:"msg"`
	Alg string `json:"alg"`          // AES128|192|256-ECB|CBC|GCM
	IV  string `json:"iv,omitzero"`  // decrypt; CBC and GCM
	Tag string `json:"tag,omitzero"` // decrypt; GCM
	AAD string `json:"aad,omitzero"` // GCM
	Ctx string `json:"ctx,omitzero"` // with a peer
	Peer
}

// CipherAnswer is the answer of cipher/encrypt.
type CipherAnswer struct {
	Ciphertext string `json:"ciphertext"`
	IV         string `json:"iv,omitzero"`  // CBC and GCM
	Tag        string `json:"tag,omitzero"` // GCM
}

// PlainAnswer is the answer of cipher/decrypt.
type PlainAnswer struct {
	Plaintext string `json:"plaintext"`
}

// WrapRequest is the body of cipher/wrap and cipher/unwrap (RFC 3394).
type WrapRequest struct {
	KID string `json:"kid"`
	Msg string `json:"msg"`
	Alg string `json:"alg,omitzero"` // AES128|AES192|AES256, the default
	IV  string `json:"iv,omitzero"`  // 8 bytes instead of A6…A6
	Ctx string `json:"ctx,omitzero"` // with a peer
	Peer
}

// WrapAnswer is the answer of cipher/wrap.
type WrapAnswer struct {
	Wrapped string `json:"wrapped"`
}

// UnwrapAnswer is the answer of cipher/unwrap.
type UnwrapAnswer struct {
	Unwrapped string `json:"unwrapped"`
}

// ECDHRequest is the body of ecdh.
type ECDHRequest struct {
	KID string `json:"kid"`
	Peer
	Alg string `json:"alg,omitzero"` // a hash of the secret instead of the secret
}

// ECDHAnswer is the answer of ecdh.
type ECDHAnswer struct {
	ECDH string `json:"ecdh"`
}

// EncapsRequest is the body of pqc/mlkem/encaps.
type EncapsRequest struct {
	KID string `json:"kid"`
}

// EncapsAnswer is the answer of pqc/mlkem/encaps.
type EncapsAnswer struct {
	Alg string `json:"alg"` // MLKEM512 …
	SS  string `json:"ss"`  // shared secret, 32 bytes
	CT  string `json:"ct"`
}

// DecapsRequest is the body of pqc/mlkem/decaps.
type DecapsRequest struct {
	KID string `json:"kid"`
	CT  string `json:"ct"`
}

// DecapsAnswer is the answer of pqc/mlkem/decaps.
type DecapsAnswer struct {
	Alg string `json:"alg"`
	SS  string `json:"ss"`
}

// MLDSAAnswer is the answer of pqc/mldsa/sign.
type MLDSAAnswer struct {
	Alg  string `json:"alg"` // MLDSA44 …
	Sign string `json:"sign"`
}
