package api

// Version is the answer of GET /api/system/version.
type Version struct {
	HWV   string `json:"hwv"` // hardware version; contains the form factor, PPA or EPA
	FWV   string `json:"fwv"` // firmware name
	FWK   string `json:"fwk"` // Ed25519 public key of the release, 32 bytes
	FWS   string `json:"fws"` // its signature, 64 bytes
	BLV   string `json:"blv"` // the same for what the firmware runs on
	BLK   string `json:"blk"`
	BLS   string `json:"bls"`
	UIS   string `json:"uis,omitzero"`    // PPA: hash of the web console, 32 bytes
	SDCSD string `json:"sd_csd,omitzero"` // PPA, with a token or on a fresh module; hex
	SDCID string `json:"sd_cid,omitzero"`
}

// Status is the answer of GET /api/system/status. Pointers are absent in the
// usual case, as each comment says.
type Status struct {
	Inited    *bool    `json:"inited,omitzero"` // only when false
	HTTPS     bool     `json:"https"`
	Hostname  string   `json:"hostname,omitzero"` // only when the Host header differs
	TTS       *bool    `json:"tts,omitzero"`      // only when false
	Ctx       int64    `json:"ctx"`
	Uptime    int64    `json:"uptime"`           // seconds since boot
	TS        string   `json:"ts,omitzero"`      // RFC 3339, only when the clock is set
	Time      *int64   `json:"time,omitzero"`    // the same in Unix seconds
	Storage   []string `json:"storage,omitzero"` // PPA: "<sectors>:rw|ro|-"
	Format    string   `json:"format,omitzero"`  // PPA, while or after formatting
	Temp      int      `json:"temp"`             // degrees Celsius
	FLSState  int      `json:"fls_state"`        // bit mask, 0 is healthy
	FWUpgrade bool     `json:"fw_upgrade,omitzero"`
}

// Check is the answer of GET /api/system/checkin and the body for the
// backend's POST /checkin.
type Check struct {
	Check string `json:"check"` // eJWT of CheckClaims
}

// CheckClaims is what a module tells a backend.
type CheckClaims struct {
	JTI string `json:"jti"`
	Iss string `json:"iss"`          // = spk
	QID string `json:"qid"`          // 32 bytes: HMAC-SHA256(instance id, jti bytes)
	Aud string `json:"aud"`          // the backend's key
	FWS string `json:"fws"`          // 64 bytes
	BLS string `json:"bls"`          // 64 bytes
	UIS string `json:"uis,omitzero"` // 32 bytes, PPA
	CSN string `json:"csn"`          // serial number of the TLS certificate, 16 bytes
}

// Checked is the backend's answer and the body of POST /api/system/checkin.
type Checked struct {
	Checked string `json:"checked"` // eJWT of CheckedClaims
}

// CheckedClaims is what a backend answers.
type CheckedClaims struct {
	JTI    string `json:"jti"`
	Iat    int64  `json:"iat"`    // the backend's time
	Iss    string `json:"iss"`    // the backend's key
	Aud    string `json:"aud"`    // = spk
	Status string `json:"status"` // 32 bytes
	NewCrt string `json:"newcrt,omitzero"`
	NewFWS string `json:"newfws,omitzero"`
	NewUIS string `json:"newuis,omitzero"`
}

// CheckinResult is the answer of POST /api/system/checkin.
type CheckinResult struct {
	Status string `json:"status"` // OK, an action letter, or ??? when it was not understood
	NewCrt string `json:"newcrt,omitzero"`
	NewFWS string `json:"newfws,omitzero"`
	NewUIS string `json:"newuis,omitzero"`
}

// Config is the answer of GET /api/system/config.
type Config struct {
	Iat              int64  `json:"iat"` // when the module was personalised
	Uts              int64  `json:"uts"` // last change of the configuration
	DevID            string `json:"devid"`
	InstanceID       string `json:"instanceid"`
	EID              string `json:"eid"`
	EIDSign          string `json:"eid_sign"`
	User             string `json:"user"`
	Email            string `json:"email"`
	Hostname         string `json:"hostname"`
	DNSD             bool   `json:"dnsd"`
	TrustedTS        bool   `json:"trusted_ts"`
	TrustedBackend   bool   `json:"trusted_backend"`
	AllowKeySearch   bool   `json:"allow_keysearch"`
	Origin           string `json:"origin"`
	Ctx              int64  `json:"ctx"`
	IP               string `json:"ip"` // CIDR
	HTTPOptionHSTS   bool   `json:"http_option_hsts"`
	HTTPOptionDoS    int    `json:"http_option_dosprot_mode"`   // 0..4
	GenuineID        string `json:"genuine_id,omitzero"`        // PPA
	StorageMode      *int   `json:"storage_mode,omitzero"`      // PPA
	StorageDisk0Size *int64 `json:"storage_disk0size,omitzero"` // PPA; sectors of 512 bytes
	StorageCapacity  *int64 `json:"storage_capacity,omitzero"`  // PPA; sectors of 512 bytes
	SPK              string `json:"spk"`                        // for the user-key change
	Nonce            string `json:"nonce"`                      // for the user-key change
}

// ConfigUpdate is the body of POST /api/system/config: any subset of its fields,
// nil for those that stay. The three of the user key go together. Wipeout goes
// alone; what stands beside it does not count.
type ConfigUpdate struct {
	User             *string `json:"user,omitzero"`  // 1 to 64 bytes
	Email            *string `json:"email,omitzero"` // at most 254 bytes
	Origin           *string `json:"origin,omitzero"`
	TrustedTS        *bool   `json:"trusted_ts,omitzero"`
	TrustedBackend   *bool   `json:"trusted_backend,omitzero"`
	AllowKeySearch   *bool   `json:"allow_keysearch,omitzero"`
	Ctx              *int64  `json:"ctx,omitzero"`
	HTTPOptionHSTS   *bool   `json:"http_option_hsts,omitzero"`
	HTTPOptionDoS    *int    `json:"http_option_dosprot_mode,omitzero"` // 0..4
	DNSD             *bool   `json:"dnsd,omitzero"`                     // PPA
	StorageMode      *int    `json:"storage_mode,omitzero"`             // PPA
	StorageDisk0Size *int64  `json:"storage_disk0size,omitzero"`        // PPA; sectors of 512 bytes

	TLS    *TLSBundle `json:"tls,omitzero"`
	GenCSR bool       `json:"gen_csr,omitzero"` // answer with a certificate request

	UserKey      string `json:"userkey,omitzero"`       // new public key, 32 bytes
	UserKeyHMAC  string `json:"userkey_hmac,omitzero"`  // HMAC-SHA256(X25519(new private key, spk), nonce bytes ‖ new public key)
	UserKeyNonce string `json:"userkey_nonce,omitzero"` // of GET

	Wipeout bool `json:"wipeout,omitzero"` // destroy everything
}

// TLSBundle is a certificate for the module's TLS key, or for a key that comes
// with it.
type TLSBundle struct {
	Crt string `json:"crt"`          // DER, the leaf or a chain with the leaf first
	Emp string `json:"emp,omitzero"` // P-256 point, uncompressed, 65 bytes
	// Key is "<b64 IV>.<b64 AES-256-CBC>" of the 32-byte P-256 scalar, as 64 hex
	// digits without padding or as 32 bytes padded by PKCS #7, under
	// SHA-256 of the x coordinate of ECDH(emp, attestation key).
	Key string `json:"key,omitzero"`
}

// ConfigUpdated is the answer of POST /api/system/config, also that of a 400
// for an invalid field, after which nothing has changed. On a fresh module, and for a
// wipe, the answer is empty.
type ConfigUpdated struct {
	Updated        bool   `json:"updated"`                  // did anything change
	CSR            string `json:"csr,omitzero"`             // PEM, PKCS #10
	Genuine        string `json:"genuine,omitzero"`         // attestation token, with csr
	RebootRequired bool   `json:"reboot_required,omitzero"` // only when true
}

// Attestation is the answer of GET /api/system/config/attestation.
type Attestation struct {
	Genuine string `json:"genuine"`      // attestation token, made for this answer
	Crt     string `json:"crt,omitzero"` // DER chain of the attestation key, leaf first, once it was given one
	CSR     string `json:"csr,omitzero"` // before that: PEM, PKCS #10, for the attestation key
	Key     string `json:"key,omitzero"` // with csr: the attestation key, P-256 point, uncompressed, 65 bytes
}

// Provisioning is the body of POST /api/system/config/provisioning.
type Provisioning struct {
	Genuine string `json:"genuine"` // attestation token of this module, of any age
	Crt     string `json:"crt"`     // DER, the leaf or a chain with the leaf first
}

// SelfTest is the answer of GET /api/system/selftest. Times are Unix seconds of the
// module's clock, set or not; 0: not in this boot, or before any time was known.
type SelfTest struct {
	LastSelfTestTS    int64 `json:"last_selftest_ts"` // when the battery before this one began
	LastFLSState      int   `json:"last_fls_state"`   // the fail state it ended with
	LastEntropyTestTS int64 `json:"last_entropytest_ts"`
	LastKATTS         int64 `json:"last_kat_ts"` // last known answers
	// KATBusy, there only when true: the battery goes on, ask again. Else
	// FLSState and RepoStats are its result.
	KATBusy    bool      `json:"kat_busy,omitzero"`
	FLSState   int       `json:"fls_state"`   // bit mask, 0 is healthy
	SelfTestTS int64     `json:"selftest_ts"` // when this battery began
	RepoStats  RepoStats `json:"repo_stats"`
	SEState    int       `json:"se_state"` // SEUnprovisioned or SEProvisioned
}

// What SelfTest.SEState says of the attestation key.
const (
	SEUnprovisioned = 0 // its certificate is the module's own
	SEProvisioned   = 1 // it was given one
)

// RepoStats is how the key repository is. The TLS pair is not in it.
type RepoStats struct {
	Total      int64 `json:"total"`      // keys
	Deleted    int64 `json:"deleted"`    // so far
	Invalid    int64 `json:"invalid"`    // damaged ones that the last whole check found
	Fragmented int64 `json:"fragmented"` // places made for keys that hold none now; the next keys take them
	FreeSlots  int64 `json:"freeslots"`  // keys that can be added
}

// LoggerKey is the answer of GET /api/logger/key.
type LoggerKey struct {
	Key         string `json:"key"`          // eid_sign, Ed25519, 32 bytes
	Nonce       string `json:"nonce"`        // 32 bytes
	NonceSigned string `json:"nonce_signed"` // Ed25519 signature of the nonce's bytes
}

// LogList is the answer of GET /api/logger/list.
type LogList struct {
	Total int      `json:"total"`
	ID    []string `json:"id"` // at most 128, oldest first
}
