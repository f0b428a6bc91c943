package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// A certificate with its key goes in from PEM files, and then one for the key
// that the module now has, from a request.
func TestConfigCertificate(t *testing.T) {
	dir := t.TempDir()
	env := append(plainModule(t, "--dev"), "XDG_STATE_HOME="+dir, "HEM_PASSPHRASE_FILE="+filepath.Join(dir, "pass"))
	write := func(name, block string, content []byte) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if block != "" {
			content = pem.EncodeToMemory(&pem.Block{Type: block, Bytes: content})
		}
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	write("pass", "", []byte("user\n"))
	run := func(args ...string) []byte {
		t.Helper()
		cmd := exec.Command("hem", args...)
		cmd.Env = append(env, "PATH="+os.Getenv("PATH"))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("hem %v: %v\n%s", args, err, &stderr)
		}
		return out
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate := func() []byte {
		template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	run("config", "certificate", write("cert.pem", "CERTIFICATE", certificate()), "--key", write("key.pem", "PRIVATE KEY", pkcs8))
	block, _ := pem.Decode(run("config", "csr"))
	if block == nil {
		t.Fatal("no request")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || !key.PublicKey.Equal(csr.PublicKey) {
		t.Fatalf("the request is for another key: %v", err)
	}
	run("config", "certificate", write("again.pem", "CERTIFICATE", certificate()))
}
