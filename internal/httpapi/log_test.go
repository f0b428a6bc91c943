package httpapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"softhem/api"
	"softhem/hemtest"
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

// The tail has every record of all files, and the checkpoint is theirs.
func TestLogTailAndCheckpoint(t *testing.T) {
	m := hemtest.New(t, nil)
	p := newPeer(t, m)
	p.expect("GET", "/api/system/reboot", p.token(api.RoleUser, "system:config"), 200)
	token := p.token(api.RoleUser, "logger:get")
	tail := func(leaf any) answer {
		t.Helper()
		a := p.expect("GET", fmt.Sprint("/api/logger/tail/", leaf), token, 200)
		if a.header.Get("Content-Type") != "text/plain; charset=utf-8" || a.header.Get("Content-Length") != fmt.Sprint(len(a.body)) {
			t.Errorf("tail %v: %v", leaf, a.header)
		}
		return a
	}
	checkpoint := func() audit.Checkpoint {
		t.Helper()
		a := p.expect("GET", "/api/logger/checkpoint", token, 200)
		var k api.LoggerKey
		if err := json.Unmarshal(p.expect("GET", "/api/logger/key", token, 200).body, &k); err != nil {
			t.Fatal(err)
		}
		key, _ := api.DecodeBase64(k.Key)
		c, err := audit.ParseCheckpoint(a.body, key)
		if err != nil {
			t.Fatalf("%v: %s", err, a.body)
		}
		eid, _ := api.DecodeBase64(m.EID)
		if c.Origin != audit.Origin(eid) {
			t.Errorf("origin %s", c.Origin)
		}
		v, err := audit.NewVerification(key)
		if err == nil {
			err = v.Expect(c)
		}
		if err == nil {
			err = v.Tail(tail(0).body, new(audit.Report))
		}
		if held, ok := v.Held(); err != nil || !ok || held != c.Size {
			t.Fatalf("the tail does not have the checkpoint's root: %v", err)
		}
		return c
	}
	checkpoint()

	all := bytes.SplitAfter(tail(0).body, []byte("\n"))
	size := len(all) - 1
	if n := bytes.Count(tail(0).body, []byte("|1|0||")); n < 2 {
		t.Errorf("%d boots in the tail", n)
	}
	for leaf := range size {
		got := tail(leaf).body
		if want := bytes.Join(all[leaf:size], nil); !bytes.HasPrefix(got, want) {
			t.Fatalf("tail %d:\n%s", leaf, got)
		}
	}
	// A read is recorded, with who and from where; reading that record is not.
	size = int(checkpoint().Size) + 1 // and the read that it made
	p.expect("GET", "/api/logger/list", token, 200)
	first := tail(size).body
	if n := bytes.Count(first, []byte("\n")); n != 1 || !bytes.Contains(first, []byte("|9|0|U|")) {
		t.Fatalf("after a listing:\n%s", first)
	}
	second := tail(size + 1).body
	e, err := audit.Parse(bytes.TrimSuffix(second, []byte("\n")))
	if err != nil || e.Type != audit.LoggerReadLog || e.Who != "U" || !bytes.Equal(e.Arg, []byte{byte(size), 0, 0, 0, 0, 0, 0, 0}) {
		t.Fatalf("the read is recorded as\n%s%v", second, err)
	}
	for range 3 {
		if again := tail(size + 2).body; len(again) != 0 {
			t.Fatalf("the log grows from being followed:\n%s", again)
		}
	}
	for _, leaf := range []string{fmt.Sprint(size + 3), "-1", "-0", "+0", "x", "0x1", "99999999999999999999", "0.0"} {
		p.expect("GET", "/api/logger/tail/"+leaf, token, 406)
	}
	p.expect("GET", "/api/logger/tail/", token, 404)
	p.expect("GET", "/api/logger/tail", token, 404)
}
