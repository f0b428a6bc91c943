package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"softhem/api"
	"softhem/hem"
)

// TestServe runs the program as a process of its own, as an operator does.
func TestServe(t *testing.T) {
	p := program{path: filepath.Join(t.TempDir(), "hem")}
	build := []string{"build", "-o", p.path}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		build = append(build, "-race")
	}
	if out, err := exec.Command("go", append(build, ".")...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, test := range map[string]func(*testing.T, program){
		"ready and stop":    testServeReady,
		"refusals":          testServeRefusals,
		"second process":    testServeSecondProcess,
		"age root key":      testServeAgeRootKey,
		"listeners":         testServeListeners,
		"settings":          testServeSettings,
		"development":       testServeDev,
		"development words": testServeDevWords,
		"check-in in dev":   testServeDevCheckin,
		"API shutdown":      testServeAPIShutdown,
		"reload":            testServeReload,
		"systemd":           testServeSystemd,
		"sockets":           testServeSockets,
		"second signal":     testServeSecondSignal,
		"early signal":      testServeEarlySignal,
		"metrics":           testServeMetrics,
		"hardening":         testServeHarden,
		"remote approval":   testRemoteApproval,
		"names of a broker": testDomain,
		"ACME":              testACMEBroker,
		"broker inside":     testServeWithBroker,
		"broker killed":     testBrokerKilled,
		"fast clock":        testRemoteFastClock,
		"backup killed":     testBackupKilled,
		"upgrade":           testServeUpgrade,
		"announcements":     testAnnounce,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, p)
		})
	}
}

var readyLine = regexp.MustCompile(`^ready http=127\.0\.0\.1:\d+ https=127\.0\.0\.1:\d+ ca=/\S+/ca\.pem eid=[A-Za-z0-9+/]{43}=\n$`)

func testServeReady(t *testing.T, p program) {
	xdg := t.TempDir()
	r := p.start(t, []string{"XDG_DATA_HOME=" + xdg})
	if !readyLine.MatchString(r.stdout.String()) {
		t.Errorf("ready line: %q", r.stdout)
	}
	data := filepath.Join(xdg, "softhem")
	if r.ready["ca"] != filepath.Join(data, "ca.pem") {
		t.Error(r.ready["ca"])
	}
	if info, err := os.Stat(data); err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info, err)
	}
	if _, err := r.client(hem.Config{}).Status(t.Context()); err != nil {
		t.Error(err)
	}
	resp, err := http.Get("http://" + r.ready["http"] + "/api/system/status")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	r.says("hem init")
	r.stop()
	if n := strings.Count(r.stderr.String(), "it protects nothing if the whole folder is stolen"); n != 1 {
		t.Errorf("%d remarks on the root key", n)
	}

	eid := r.ready["eid"]
	key := filepath.Join(t.TempDir(), "elsewhere.key")
	if err := os.Rename(filepath.Join(data, "root.key"), key); err != nil {
		t.Fatal(err)
	}
	r = p.start(t, []string{"XDG_DATA_HOME=" + xdg}, "--root-key", key)
	if r.ready["eid"] != eid {
		t.Error("another identity after a restart")
	}
	r.signal(syscall.SIGINT)
	r.waitEnd(0)
	if strings.Contains(r.stderr.String(), "stolen") {
		t.Error("a remark on a root key that lies elsewhere")
	}
}

func testServeRefusals(t *testing.T, p program) {
	made := privateTemp(t)
	p.start(t, nil, "--data", made).stop()
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, dir string)
		args   []string
		want   string
	}{
		{"folder others can read", func(t *testing.T, dir string) {
			must(t, os.Chmod(dir, 0o755))
		}, nil, "others can look into the data folder (mode 0755); run: chmod 700 "},
		{"root key others can read", func(t *testing.T, dir string) {
			must(t, os.Chmod(filepath.Join(dir, "root.key"), 0o644))
		}, nil, "run: chmod 600 "},
		{"wrong root key", func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "root.key"), bytes.Repeat([]byte{7}, 32), 0o600))
		}, nil, "wrong root key: the data in "},
		{"no root key", func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, "root.key")))
		}, nil, "put the key back, or name it with --root-key"},
		{"newer schema", func(t *testing.T, dir string) {
			// PRAGMA user_version, as SQLite keeps it in the file's header.
			f, err := os.OpenFile(filepath.Join(dir, "hem.db"), os.O_RDWR, 0)
			must(t, err)
			_, err = f.WriteAt(binary.BigEndian.AppendUint32(nil, 9999), 60)
			must(t, err)
			must(t, f.Close())
		}, nil, "has schema version 9999 and this program knows 2; run the newer program, or restore a backup"},
		{"no certificate", func(*testing.T, string) {}, []string{"--tls-cert", "/nowhere", "--tls-key", "/nowhere"}, "the TLS pair /nowhere, /nowhere cannot be used"},
		{"half a pair", func(*testing.T, string) {}, []string{"--tls-cert", "/nowhere"}, "both a certificate file and a key file"},
		{"no listener", func(*testing.T, string) {}, []string{"--http=off", "--https=off"}, "both listeners are off"},
		{"useless backend", func(*testing.T, string) {}, []string{"--trusted-backend", api.EncodeBase64(make([]byte, 32))}, "no usable X25519 key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := privateTemp(t)
			must(t, os.CopyFS(dir, os.DirFS(made)))
			must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				return os.Chmod(path, 0o600)
			}))
			tc.change(t, dir)
			text := p.fails(t, 1, nil, append([]string{"--data", dir}, tc.args...)...)
			last := text[strings.LastIndex(strings.TrimSpace(text), "\n")+1:]
			if !strings.HasPrefix(last, "hem: ") || !strings.Contains(last, tc.want) {
				t.Errorf("%s, want %q", text, tc.want)
			}
			t.Log(last)
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testServeSecondProcess(t *testing.T, p program) {
	dir := privateTemp(t)
	r := p.start(t, nil, "--data", dir)
	if text := p.fails(t, 1, nil, "--data", dir); !strings.Contains(text, "another process runs on "+dir) {
		t.Error(text)
	}
	taken := p.fails(t, 1, nil, "--memory", "--https", r.ready["https"])
	if !strings.Contains(taken, "cannot listen on "+r.ready["https"]) {
		t.Error(taken)
	}
	r.stop()
	p.start(t, nil, "--data", dir).stop()
}

func testServeAgeRootKey(t *testing.T, p program) {
	dir := t.TempDir()
	identity, err := age.GenerateX25519Identity()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "identity"), []byte(identity.String()+"\n"), 0o600))
	passphrase, err := age.NewScryptRecipient("correct horse")
	must(t, err)
	passphrase.SetWorkFactor(10)
	must(t, os.WriteFile(filepath.Join(dir, "passphrase"), []byte("correct horse\n"), 0o600))
	for name, to := range map[string]age.Recipient{"x.age": identity.Recipient(), "p.age": passphrase} {
		var sealed bytes.Buffer
		w, err := age.Encrypt(&sealed, to)
		must(t, err)
		w.Write(bytes.Repeat([]byte{3}, 32))
		must(t, w.Close())
		must(t, os.WriteFile(filepath.Join(dir, name), sealed.Bytes(), 0o600))
	}
	data := privateTemp(t)
	key, pass := filepath.Join(dir, "x.age"), filepath.Join(dir, "p.age")
	p.start(t, nil, "--data", data, "--root-key", key, "--root-key-identity", filepath.Join(dir, "identity")).stop()
	// The same key, opened by a passphrase.
	p.start(t, nil, "--data", data, "--root-key", pass, "--root-key-passphrase-file", filepath.Join(dir, "passphrase")).stop()
	text := p.fails(t, 1, nil, "--data", data, "--root-key", pass)
	if !strings.Contains(text, "there is no terminal; give --root-key-passphrase-file") {
		t.Error(text)
	}
	// An encrypted key may lie beside the data.
	must(t, os.Rename(pass, filepath.Join(data, "root.key")))
	r := p.start(t, nil, "--data", data, "--root-key-passphrase-file", filepath.Join(dir, "passphrase"))
	r.stop()
	if strings.Contains(r.stderr.String(), "stolen") {
		t.Error("a remark on a root key that is encrypted")
	}
}

func testServeListeners(t *testing.T, p program) {
	r := p.start(t, nil, "--memory", "--https=off")
	if out := r.stdout.String(); r.ready["http"] == "" || strings.Contains(out, "https=") {
		t.Error(out)
	}
	r.stop()
	r = p.start(t, nil, "--memory", "--http=off")
	if out := r.stdout.String(); r.ready["https"] == "" || strings.Contains(out, "http=") {
		t.Error(out)
	}
	ca := r.ready["ca"]
	r.stop()
	if _, err := os.Stat(ca); err == nil {
		t.Error("the CA file of a module in memory is left behind")
	}
}

func testServeSettings(t *testing.T, p program) {
	dir := t.TempDir()
	file := filepath.Join(dir, "serve.toml")
	must(t, os.WriteFile(file, []byte("memory = true\nlog-format = \"json\"\nlog-level = \"debug\"\nunsafe-fast-login = true\nlogin-delay = \"0s\"\n"), 0o600))
	r := p.start(t, []string{"HEM_SERVE_CONFIG=" + file, "HEM_SERVE_LOG_LEVEL=info", "HEM_SERVE_BROKERS=https://x", "HEM_SERVE_DATA=", "HEM_SERVE_QUIRKS=fw1.2.2", "HEM_SERVE_DIAG=true"})
	r.says(`"level":"INFO"`)
	r.says("UNSAFE: logins are not slowed down")
	r.says("DIAG: anybody who reaches this module can break it")
	r.says("QUIRKS: this module imitates the faults of a firmware")
	r.says(`"variable":"HEM_SERVE_BROKERS"`)
	r.stop()
	r = p.start(t, []string{"HEM_SERVE_CONFIG=" + file}, "--log-level=error")
	r.stop()
	if text := r.stderr.String(); text != "" {
		t.Error(text)
	}

	must(t, os.WriteFile(file, []byte("memory = true\nlogin-dleay = \"0s\"\n"), 0o600))
	text := p.fails(t, 2, nil, "--config", file)
	if !strings.Contains(text, file+", line 2: there is no setting login-dleay") {
		t.Error(text)
	}
	for _, args := range [][]string{
		{"--memory", "--login-delay=0"}, {"--dev", "--data=" + dir}, {"--dev", "--rtc=moon"}, {"--broker=x"}, {"--memory", "more"},
		{"--memory", "--url=https://x"}, {"--memory", "--passphrase-file=x"},
	} {
		p.fails(t, 2, nil, args...)
	}
	if text := p.fails(t, 2, nil, "--memory", "--login-delay=0"); !strings.Contains(text, "--unsafe-fast-login") {
		t.Error(text)
	}
}

func testServeAPIShutdown(t *testing.T, p program) {
	r := p.start(t, nil, "--dev")
	must(t, r.client(hem.Config{Passphrase: fixed("user")}).Shutdown(t.Context()))
	r.waitEnd(0)
}

// writePair leaves a self-signed pair of the given serial in dir.
func writePair(t testing.TB, dir string, serial int64) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	must(t, err)
	scalar, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	must(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: scalar}), 0o600))
	return cert, key
}

func testServeReload(t *testing.T, p program) {
	dir := t.TempDir()
	cert, key := writePair(t, dir, 1001)
	file := filepath.Join(dir, "serve.toml")
	must(t, os.WriteFile(file, []byte("log-level = \"info\"\n"), 0o600))
	r := p.start(t, nil, "--memory", "--config", file, "--tls-cert", cert, "--tls-key", key)
	if _, ok := r.ready["ca"]; ok {
		t.Error("a CA file is named beside an own pair")
	}
	serial := func() int64 {
		c, err := tls.Dial("tcp", r.ready["https"], &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
		must(t, err)
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if n := serial(); n != 1001 {
		t.Error(n)
	}
	writePair(t, dir, 1002)
	must(t, os.WriteFile(file, []byte("log-level = \"debug\"\n"), 0o600))
	r.signal(syscall.SIGHUP)
	r.says("level=DEBUG")
	eventually(t, "the new certificate is shown", func() bool { return serial() == 1002 })

	// What cannot be read stays as it was.
	must(t, os.WriteFile(cert, nil, 0o600))
	must(t, os.WriteFile(file, []byte("log-level = \"loud\"\n"), 0o600))
	r.signal(syscall.SIGHUP)
	r.says("the certificate cannot be read again and stays as it is")
	r.says("the settings cannot be read again and stay as they are")
	if n := serial(); n != 1002 {
		t.Error(n)
	}
	r.stop()
}

// halfRequest occupies a handler.
func (r *running) halfRequest() net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.ready["http"])
	must(r.t, err)
	r.t.Cleanup(func() { c.Close() })
	_, err = io.WriteString(c, "POST /api/auth/init HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
	must(r.t, err)
	line, err := bufio.NewReader(c).ReadString('\n') // the handler asks for the body
	if err != nil || !strings.Contains(line, "100") {
		r.t.Fatalf("%q, %v", line, err)
	}
	return c
}

func testServeSecondSignal(t *testing.T, p program) {
	r := p.start(t, nil, "--memory")
	r.halfRequest()
	r.signal(syscall.SIGTERM)
	r.says("the module ends")
	time.Sleep(100 * time.Millisecond)
	select {
	case <-r.ended:
		t.Fatal("it did not wait for the request")
	default:
	}
	start := time.Now()
	r.signal(syscall.SIGTERM)
	<-r.ended
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %s to end at once", took)
	}
	if status := r.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() {
		t.Errorf("it ended by itself: %s", r.cmd.ProcessState)
	}

	// A request that is finished in time gets its answer.
	r = p.start(t, nil, "--memory")
	c := r.halfRequest()
	r.signal(syscall.SIGTERM)
	r.says("the module ends")
	_, err := io.WriteString(c, `{"init":1}`)
	must(t, err)
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "HTTP/1.1 4") {
		t.Errorf("%q, %v", line, err)
	}
	r.waitEnd(0)
}

// A signal while it starts ends it too, without an error.
func testServeEarlySignal(t *testing.T, p program) {
	temp := t.TempDir()
	cmd := p.command(t, []string{"TMPDIR=" + temp}, "--dev")
	stderr := locked{first: make(chan struct{})}
	cmd.Stderr = &stderr
	must(t, cmd.Start())
	eventually(t, "the CA file is there, so the keys are being derived", func() bool {
		found, _ := filepath.Glob(filepath.Join(temp, "*", "ca.pem"))
		return len(found) == 1
	})
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, &stderr)
	}
}

func testServeMetrics(t *testing.T, p program) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	addr := l.Addr().String()
	must(t, l.Close())
	r := p.start(t, nil, "--memory", "--metrics", addr)
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ok", "/metrics": "softhem_ready 1"} {
		resp, err := http.Get("http://" + addr + path)
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s\n%s", path, resp.Status, body)
		}
	}
	r.stop()
}
