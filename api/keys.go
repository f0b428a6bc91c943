package api

import "strings"

// A KeyType is the name a key is created under and shown by.
type KeyType string

// The key types of the protocol, 23 of them.
const (
	SECP256R1  KeyType = "SECP256R1" // NIST P-256
	SECP384R1  KeyType = "SECP384R1" // NIST P-384
	SECP521R1  KeyType = "SECP521R1" // NIST P-521
	SECP256K1  KeyType = "SECP256K1" // SEC 2
	Curve25519 KeyType = "CURVE25519"
	Curve448   KeyType = "CURVE448"
	Ed25519    KeyType = "ED25519"
	Ed448      KeyType = "ED448"
	SHA2x256   KeyType = "SHA2-256" // HMAC keys, named by their hash
	SHA2x384   KeyType = "SHA2-384"
	SHA2x512   KeyType = "SHA2-512"
	SHA3x256   KeyType = "SHA3-256"
	SHA3x384   KeyType = "SHA3-384"
	SHA3x512   KeyType = "SHA3-512"
	AES128     KeyType = "AES128"
	AES192     KeyType = "AES192"
	AES256     KeyType = "AES256"
	MLKEM512   KeyType = "MLKEM512" // FIPS 203
	MLKEM768   KeyType = "MLKEM768"
	MLKEM1024  KeyType = "MLKEM1024"
	MLDSA44    KeyType = "MLDSA44" // FIPS 204
	MLDSA65    KeyType = "MLDSA65"
	MLDSA87    KeyType = "MLDSA87"
)

// KeyTypes lists the key types in the order above.
func KeyTypes() []KeyType {
	return []KeyType{
		SECP256R1, SECP384R1, SECP521R1, SECP256K1, Curve25519, Curve448, Ed25519, Ed448,
		SHA2x256, SHA2x384, SHA2x512, SHA3x256, SHA3x384, SHA3x512, AES128, AES192, AES256,
		MLKEM512, MLKEM768, MLKEM1024, MLDSA44, MLDSA65, MLDSA87,
	}
}

// Limits of part 3 and 4 of the protocol, in bytes unless said otherwise.
const (
	KIDBytes          = 16
	MaxLabelChars     = 32   // printable ASCII, at least one
	MaxDescrBytes     = 64   // decoded
	MaxPageKeys       = 15   // keys on a page of a list, whatever is asked for
	MinOpenSearch     = 6    // bytes after ^ of a search without a token
	MaxMessageBytes   = 2048 // decoded
	MaxDecryptBytes   = 2064 // a message and a block of padding
	MaxUnwrapBytes    = 2056 // a message and the integrity check value
	MaxMACBytes       = 64
	MaxSignatureBytes = 148  // of exdsa
	MaxMLDSASignature = 4627 // FIPS 204, ML-DSA-87
	MaxSignContext    = 255  // ctx of signatures, RFC 8032 and FIPS 204
	MaxKDFContext     = 64   // ctx of peer encryption and wrapping
	MaxAADBytes       = 1024 // a device takes 16
	CipherIVBytes     = 16   // of CBC and GCM
	CipherTagBytes    = 16   // of GCM
	WrapIVBytes       = 8    // RFC 3394 initial value
)

// PairingPrefix is how the descr of a paired authenticator begins. Nobody but
// the pairing itself can make such a key.
const PairingPrefix = "EXTAID"

// The modes of a key on a NIST curve or secp256k1.
const (
	ModeECDH  = "ECDH" // the default
	ModeExDSA = "ExDSA"
	ModeBoth  = "ECDH,ExDSA"
)

// KeyTraits is what the type string of a list says of a key, such as
// "ATT,PKEY,ECDH,ExDSA,SECP256R1".
type KeyTraits struct {
	Made    bool // ATT: made in the module
	Private bool // PKEY: the private part is held
	ECDH    bool
	ExDSA   bool
	PQC     bool
	Cert    bool
	Type    KeyType
}

// String is the type string of a list.
func (t KeyTraits) String() string {
	var b strings.Builder
	for _, trait := range []struct {
		has  bool
		name string
	}{{t.Made, "ATT"}, {t.Private, "PKEY"}, {t.ECDH, "ECDH"}, {t.ExDSA, "ExDSA"}, {t.PQC, "PQC"}, {t.Cert, "CERT"}} {
		if trait.has {
			b.WriteString(trait.name)
			b.WriteByte(',')
		}
	}
	b.WriteString(string(t.Type))
	return b.String()
}

// ParseKeyTraits reads a type string. Words it does not know are left out; the
// last is the type.
func ParseKeyTraits(s string) KeyTraits {
	words := strings.Split(s, ",")
	t := KeyTraits{Type: KeyType(words[len(words)-1])}
	for _, w := range words[:len(words)-1] {
		switch w {
		case "ATT":
			t.Made = true
		case "PKEY":
			t.Private = true
		case "ECDH":
			t.ECDH = true
		case "ExDSA":
			t.ExDSA = true
		case "PQC":
			t.PQC = true
		case "CERT":
			t.Cert = true
		}
	}
	return t
}

// KeyInfo is a key in a list.
type KeyInfo struct {
	KID     string `json:"kid"`     // 32 hex digits, lower case
	Created int64  `json:"created"` // Unix seconds
	Type    string `json:"type"`    // see KeyTraits
	Label   string `json:"label"`
	Descr   string `json:"descr,omitzero"` // base64
	Updated int64  `json:"updated"`        // grows with every change
	// Of a diagnostic build: where the key lies, see DiagDump, and how many bytes.
	// Not of the TLS pair, which lies elsewhere.
	Addr int64 `json:"_addr,omitzero"`
	Len  int64 `json:"_len,omitzero"`
}

// KeyList is the answer of GET /api/keymgmt/list and POST /api/keymgmt/search:
// a page of the keys in order of creation. The last page is the one where
// Offset+Listed >= Total.
type KeyList struct {
	Offset  int64     `json:"offset"`
	Deleted int64     `json:"deleted"` // keys deleted so far
	Total   int64     `json:"total"`   // keys in the list, or found
	Listed  int       `json:"listed"`  // keys on this page
	List    []KeyInfo `json:"list"`
}

// KeySearch is the body of POST /api/keymgmt/search. Descr is the base64 of
// what to look for in descr, with ^ before it for "starts with", $ after it
// for "ends with", both for "equals", none for "contains".
type KeySearch struct {
	Descr  string `json:"descr"`
	Offset int64  `json:"offset,omitzero"`
	Limit  int64  `json:"limit,omitzero"` // 0: MaxPageKeys
}

// Key is the answer of GET /api/keymgmt/get/{kid}.
type Key struct {
	Type    string `json:"type"`            // bare name, or ATT,<name> for symmetric keys
	PubKey  string `json:"pubkey,omitzero"` // of asymmetric keys
	DER     string `json:"der,omitzero"`    // of certificates
	Updated int64  `json:"updated"`
	Descr   string `json:"descr,omitzero"` // base64
}

// KeyCreate is the body of POST /api/keymgmt/create.
type KeyCreate struct {
	Label string  `json:"label"`
	Type  KeyType `json:"type"`
	Mode  string  `json:"mode,omitzero"`  // NIST curves and secp256k1
	Descr string  `json:"descr,omitzero"` // base64
}

// KeyImport is the body of POST /api/keymgmt/import: a public key.
type KeyImport struct {
	Label  string  `json:"label"`
	Type   KeyType `json:"type"`
	PubKey string  `json:"pubkey"`
	Mode   string  `json:"mode,omitzero"`
	Descr  string  `json:"descr,omitzero"`
}

// KeyDerive is the body of POST /api/keymgmt/derive: a new key from the ECDH
// secret of KID and the peer.
type KeyDerive struct {
	KID   string  `json:"kid"`
	Label string  `json:"label"`
	Type  KeyType `json:"type"` // of the new key
	Peer
	Mode  string `json:"mode,omitzero"`
	Descr string `json:"descr,omitzero"`
}

// KeyUpdate is the body of POST /api/keymgmt/update. An absent Descr clears
// the key's.
type KeyUpdate struct {
	KID   string `json:"kid"`
	Label string `json:"label"`
	Descr string `json:"descr,omitzero"`
}

// KeyCreated is the answer of create, import and derive.
type KeyCreated struct {
	KID string `json:"kid"`
}

// Peer is the other side of an ECDH: a key in the module, or a raw public key.
// If both are given, ExtKID counts.
type Peer struct {
	ExtKID string `json:"ext_kid,omitzero"`
	PubKey string `json:"pubkey,omitzero"`
}
