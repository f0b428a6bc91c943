package syslog

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"softhem/internal/audit"
)

// rsyslogConfig has rsyslog listen at what a sink can be, and write the text of
// each message to a file named by module and log file, as docs/operations.md has
// it.
const rsyslogConfig = `
module(load="imtcp")
module(load="imptcp")
module(load="imuxsock" SysSock.Use="off")
module(load="mmpstrucdata")
global(workDirectory="%[1]s" maxMessageSize="64k" DefaultNetstreamDriverCAFile="%[1]s/ca.pem" DefaultNetstreamDriverCertFile="%[1]s/cert.pem" DefaultNetstreamDriverKeyFile="%[1]s/key.pem")
template(name="place" type="string" string="%[1]s/%%inputname%%-%%$!rfc5424-sd!softhem@32473!file%%")
template(name="line" type="string" string="%%msg%%\n")
ruleset(name="softhem") {
  action(type="mmpstrucdata")
  action(type="omfile" dynaFile="place" template="line" flushOnTXEnd="on" asyncWriting="off")
}
input(type="imtcp" port="0" listenPortFileName="%[1]s/tcp.port" name="tcp" ruleset="softhem")
input(type="imtcp" port="0" listenPortFileName="%[1]s/tls.port" name="tls" ruleset="softhem" StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="anon")
input(type="imptcp" path="%[1]s/stream" name="unix" ruleset="softhem")
input(type="imuxsock" socket="%[1]s/log" useSpecialParser="off" parseHostname="on" rateLimit.interval="0" ruleset="softhem")
`

// What rsyslog makes of the messages, over every transport, is the log's file,
// byte for byte.
func TestRsyslogWritesTheLog(t *testing.T) {
	rsyslogd, err := exec.LookPath("rsyslogd")
	if err != nil { // its folder is not in everybody's PATH
		rsyslogd, err = exec.LookPath("/usr/sbin/rsyslogd")
	}
	if gtls, _ := filepath.Glob("/usr/lib/*/rsyslog/lmnsd_gtls.so"); err == nil && len(gtls) == 0 {
		err = os.ErrNotExist
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no rsyslogd with GnuTLS, which .ci/run installs")
		}
		t.Skip("rsyslogd (of the Debian packages rsyslog and rsyslog-gnutls) is not installed")
	}
	dir, err := os.MkdirTemp("", "rsyslog") // the path of a socket has to be short
	must(t, err)
	defer os.RemoveAll(dir)
	cert, ca := pair(t)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	must(t, err)
	var chain []byte
	for _, c := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c})...)
	}
	for name, text := range map[string][]byte{
		"ca.pem": ca, "cert.pem": chain, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		"conf": fmt.Appendf(nil, rsyslogConfig, dir),
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	var out bytes.Buffer
	cmd := exec.Command(rsyslogd, "-n", "-f", filepath.Join(dir, "conf"), "-i", "NONE")
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, cmd.Start())
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("rsyslogd says:\n%s", out.String())
		}
	}()
	read := func(name string) string {
		for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
			if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil && len(b) > 0 {
				return strings.TrimSpace(string(b))
			}
			if time.Now().After(end) {
				t.Fatalf("rsyslogd makes no %s", name)
			}
		}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	sinks := open(t, Config{Roots: roots, Targets: []Target{
		{"tcp", "127.0.0.1:" + read("tcp.port")}, {"tls", "127.0.0.1:" + read("tls.port")},
		{"unix", filepath.Join(dir, "stream")}, {"unixgram", filepath.Join(dir, "log")},
	}})
	l := newLog(t, sinks)
	must(t, l.StartBoot(t.Context(), audit.Record{Type: audit.SelftestPassed}))
	id := l.Current()
	l.add(t, 300)
	must(t, l.StartBoot(t.Context()))
	want := l.read(t, id)
	for _, input := range []string{"tcp", "tls", "unix", "imuxsock"} {
		file := filepath.Join(dir, input+"-"+id)
		var got []byte
		for end := time.Now().Add(patience); time.Now().Before(end) && !bytes.Equal(got, want); time.Sleep(20 * time.Millisecond) {
			got, _ = os.ReadFile(file)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: rsyslog has %d bytes of %d\n%.300s", input, len(got), len(want), got)
			continue
		}
		if rep, err := audit.VerifyFile(bytes.NewReader(got), l.signing); err != nil || rep.Records != 303 {
			t.Errorf("%s: %+v, %v", input, rep, err)
		}
	}
}
