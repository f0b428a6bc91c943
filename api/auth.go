package api

// Challenge is the answer of GET /api/auth/token.
type Challenge struct {
	Exp int64  `json:"exp"` // when the challenge ends
	SPK string `json:"spk"` // the module's session key, X25519, 32 bytes
	JTI string `json:"jti"` // the nonce, 32 bytes
	Lbl string `json:"lbl"` // the configured user name
	EID string `json:"eid"` // the module's identity, X25519, 32 bytes; its text is the KDF salt
}

// AuthRequest is the body of POST /api/auth/token. Auth is an eJWT of
// [LoginClaims].
type AuthRequest struct {
	Auth string `json:"auth"`
}

// LoginClaims is what a persona signs to get a bearer token. The MAC key is
// X25519(persona private key, spk).
type LoginClaims struct {
	JTI   string `json:"jti"`          // the challenge's
	Aud   string `json:"aud"`          // = spk
	Exp   int64  `json:"exp,omitzero"` // wanted expiry of the bearer token; absent: 8 hours
	Iat   int64  `json:"iat"`          // at most 60 s ahead of the module
	Iss   string `json:"iss"`          // persona public key
	Scope string `json:"scope"`        // at most MaxScopeChars; may be empty
	Ctx   string `json:"ctx,omitzero"` // at most MaxContextChars; copied to the token
}

// TokenAnswer is the answer of POST /api/auth/token.
type TokenAnswer struct {
	Token string `json:"token"`
}

// TokenClaims is the payload of a bearer token, in the order it is written.
type TokenClaims struct {
	Scope string `json:"scope"`
	Sub   Role   `json:"sub"`
	Iat   int64  `json:"iat"`
	Exp   int64  `json:"exp"`
	JTI   string `json:"jti"`
	Ctx   string `json:"ctx,omitzero"`
}

// InitChallenge is the answer of GET /api/auth/init.
type InitChallenge struct {
	Exp     int64  `json:"exp"`
	SPK     string `json:"spk"`
	JTI     string `json:"jti"`
	Genuine string `json:"genuine"` // attestation token, see docs/api.md
	EID     string `json:"eid"`
}

// InitRequest is the body of POST /api/auth/init. Init is an eJWT of
// [InitClaims], signed with the master key.
type InitRequest struct {
	Init string `json:"init"`
}

// InitClaims is what the administrator signs to personalise a fresh module.
type InitClaims struct {
	JTI string     `json:"jti"`
	Aud string     `json:"aud"`
	Exp int64      `json:"exp"`
	Iat int64      `json:"iat"`
	Iss string     `json:"iss"`
	Cfg InitConfig `json:"cfg"`
}

// InitConfig is the first configuration of a module. Pointers are the fields
// a module has a default for.
type InitConfig struct {
	MasterKey        string  `json:"masterkey"` // X25519 public key, 32 bytes
	UserKey          string  `json:"userkey"`   // X25519 public key, 32 bytes
	User             string  `json:"user"`      // 1..64 bytes
	Email            string  `json:"email"`     // may be empty
	Hostname         string  `json:"hostname"`
	IP               *string `json:"ip,omitzero"`                // address, with or without /prefix
	StorageMode      *int    `json:"storage_mode,omitzero"`      //
	StorageDisk0Size *int64  `json:"storage_disk0size,omitzero"` // sectors of 512 bytes
	DNSD             *bool   `json:"dnsd,omitzero"`
	TrustedTS        bool    `json:"trusted_ts"`      // logins need a trusted clock
	TrustedBackend   bool    `json:"trusted_backend"` // obey orders that come with a check-in
	AllowKeySearch   bool    `json:"allow_keysearch"`
	Ctx              *int64  `json:"ctx,omitzero"` // a number the owner chooses
	GenCSR           bool    `json:"gen_csr,omitzero"`
	Origin           string  `json:"origin"` // CORS allow-list
}

// InitAnswer is the answer of POST /api/auth/init.
type InitAnswer struct {
	InstanceID     string `json:"instanceid"` // UUID
	Token          string `json:"token"`      // scope system:config, role U, 8 hours
	Genuine        string `json:"genuine"`
	CSR            string `json:"csr,omitzero"` // PEM, when gen_csr was asked for
	RebootRequired bool   `json:"reboot_required,omitzero"`
}
