package httpapi_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"softhem/hemtest"
)

// A body that is too long is a 413 that the caller gets to see, over HTTP/2 too:
// curl 7.88 showed an error of the stream, which was reset, instead of the answer.
func TestUnreadBodiesAreAnsweredOverHTTP2(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no curl, which .ci/run installs")
		}
		t.Skip("no curl to send bodies with: apt-get install curl")
	}
	m := hemtest.New(t, nil)
	dir := t.TempDir()
	ca, body := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "body")
	if err := os.WriteFile(ca, m.CACert, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{7301, 1 << 20} {
		if err := os.WriteFile(body, bytes.Repeat([]byte(" "), size), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("curl", "-sS", "--http2", "--cacert", ca, "-H", "Expect:", "--data-binary", "@"+body,
			"-o", os.DevNull, "-w", "%{http_version} %{http_code}", m.URL+"/api/auth/token").CombinedOutput()
		if err != nil || string(out) != "2 413" && string(out) != "1.1 413" { // a curl without HTTP/2
			t.Errorf("%d bytes: %s, %v", size, out, err)
		}
	}
}
