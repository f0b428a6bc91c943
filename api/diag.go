package api

// Bodies of /api/diag, which only a diagnostic build has: one whose Version.FWV
// ends with "-DIAG".

// Lengths of what the diagnostics give, in bytes.
const (
	DiagRandomBytes = 8192
	MaxDiagDump     = 4095
)

// DiagRandom is the answer of GET /api/diag/test_trng.
type DiagRandom struct {
	Rnd string `json:"rnd"` // base64 of DiagRandomBytes
}

// DiagTRNGState is the answer of GET /api/diag/break_trng: the source of random
// bytes as it was before the call.
type DiagTRNGState struct {
	Mode    int   `json:"mode"`     // 0, or DiagTRNGBroken
	LastTS  int64 `json:"last_ts"`  // last health test, Unix seconds of the module's clock
	LastVal int   `json:"last_val"` // the last byte it looked at
}

// DiagTRNGBroken is DiagTRNGState.Mode once the source was broken.
const DiagTRNGBroken = 1

// DiagDump is the answer of GET /api/diag/memdump/{address}/{length}: the
// repository's memory, in which KeyInfo.Addr tells where a key lies.
type DiagDump struct {
	Address int64  `json:"address"`
	Length  int64  `json:"length"` // at most MaxDiagDump
	Dump    string `json:"dump"`   // base64
}

// DiagCorrupted is the answer of GET /api/diag/corrupt_repo/{address}.
type DiagCorrupted struct {
	Address int64  `json:"address"`
	Status  string `json:"status"` // "OK"
}
