package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"softhem/internal/audit"
	"softhem/internal/suite"
)

// A record that was written anew with the key in the file is named by the leaf
// hashes that a follower keeps beside its checkpoint; unless they are those of
// another log.
func TestLeavesNameTheRecord(t *testing.T) {
	raw, err := os.ReadFile("../../internal/audit/testdata/audit.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Header     string
		Lines      []string
		Checkpoint string
		EIDSign    string `json:"eid_sign"`
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	var leaves []byte
	for _, line := range v.Lines {
		h := audit.LeafHash([]byte(line))
		leaves = append(leaves, h[:]...)
	}
	first, err := audit.Parse([]byte(v.Lines[0]))
	if err != nil {
		t.Fatal(err)
	}
	forged := strings.Replace(v.Lines[5], "|14|0|U|", "|14|0|M|", 1)
	forged = forged[:strings.LastIndexByte(forged, '|')+1]
	mac := suite.NewMACKey(first.Key).Sum([]byte(forged))
	v.Lines[5] = forged + base64.RawURLEncoding.EncodeToString(mac[:16])

	dir := t.TempDir()
	file, checkpoint := filepath.Join(dir, "6955b900"), filepath.Join(dir, "kept.checkpoint")
	for path, content := range map[string]string{
		file: v.Header + "\n" + strings.Join(v.Lines, "\n") + "\n", checkpoint: v.Checkpoint,
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	verify := func(leaves []byte) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "kept.leaves"), leaves, 0o600); err != nil {
			t.Fatal(err)
		}
		c := newRootCmd(terminal{in: strings.NewReader(""), out: &bytes.Buffer{}, err: &bytes.Buffer{}, env: noEnv})
		c.SetArgs([]string{"log", "verify", "--checkpoint", checkpoint, "--key", v.EIDSign, "--file", file})
		err := c.ExecuteContext(t.Context())
		if err == nil {
			t.Fatal("a forged log passes")
		}
		return err.Error()
	}
	if got := verify(leaves); !strings.Contains(got, "line 7 on (record 5): record 5 of the log was another") {
		t.Error(got)
	}
	for _, useless := range [][]byte{leaves[:5*32], bytes.Repeat([]byte{1}, len(leaves)), nil} {
		if got := verify(useless); !strings.Contains(got, "between 0 and 12") {
			t.Error(got)
		}
	}
}
