package httpapi_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/suite"
)

// verifyLog checks a log file under the key the module states, and that the
// module proves to hold it.
func verifyLog(t *testing.T, p *peer, token *string, file []byte) audit.Report {
	t.Helper()
	a := p.do(request{method: "GET", path: "/api/logger/key", token: token})
	var k api.LoggerKey
	if err := json.Unmarshal(a.body, &k); err != nil {
		t.Fatal(err)
	}
	key, err1 := api.DecodeBase64(k.Key)
	nonce, err2 := api.DecodeBase64(k.Nonce)
	sig, err3 := api.DecodeBase64(k.NonceSigned)
	if err1 != nil || err2 != nil || err3 != nil || !suite.VerifyEd25519(key, nonce, sig) {
		t.Fatalf("logger/key does not prove itself: %+v", k)
	}
	report, err := audit.VerifyFile(bytes.NewReader(file), key)
	if err != nil {
		t.Fatalf("the log does not verify: %v\n%s", err, file)
	}
	return report
}
