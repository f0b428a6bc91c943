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
