package server_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/server"
	"softhem/internal/session"
)

// envServe makes the test's own binary a module on the folder it names, so
// that a test can kill a whole process.
const envServe = "SOFTHEM_TEST_SERVE"

func TestMain(m *testing.M) {
	if _, ok := os.LookupEnv(envBare); ok {
		serveBare()
	}
	if dir, ok := os.LookupEnv(envRepair); ok {
		repairAndExit(dir)
	}
	if dir, ok := os.LookupEnv(envServe); ok {
		serve(dir)
		return
	}
	os.Exit(m.Run())
}

// envRepair makes it a repair of the folder it names.
const envRepair = "SOFTHEM_TEST_REPAIR"

func repairAndExit(dir string) {
	fmt.Println("begins")
	r, err := server.OpenRepair(context.Background(), testConfig(dir))
	if err == nil {
		_, err = r.Do(context.Background())
		err = errors.Join(err, r.Close(context.Background()))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve runs a module until the process is killed.
func serve(dir string) {
	server.TuneGC()
	cfg := testConfig(dir)
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	if delay, err := time.ParseDuration(os.Getenv(envServe + "_DAMPING")); err == nil {
		cfg.Damping = session.DefaultDamping()
		cfg.Damping.Delay, cfg.Damping.Limits = delay, false
	}
	if key, err := api.DecodeBase64(os.Getenv(envServe + "_UPGRADE_KEY")); err == nil && len(key) > 0 {
		cfg.UpgradeKeys = [][]byte{key}
	}
	if os.Getenv(envServe+"_DURABILITY") == "relaxed" {
		cfg.AuditDurability = audit.Relaxed
	}
	s, err := server.Start(context.Background(), cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(s.ReadyLine())
	if err := s.Wait(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := s.Stop(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func testConfig(dir string) server.Config {
	cfg := server.DefaultConfig()
	cfg.HTTPAddr, cfg.HTTPSAddr = "127.0.0.1:0", "127.0.0.1:0"
	cfg.DataDir, cfg.Memory = dir, dir == ""
	cfg.Damping = session.Damping{}
	return cfg
}

// process is a module in a process of its own.
type process struct {
	cmd    *exec.Cmd
	stderr *lockedBuffer
	ready  map[string]string // of the ready line
	took   time.Duration     // from the start to the ready line
}

func startProcess(t testing.TB, dir string, env ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0]), stderr: new(lockedBuffer)}
	p.cmd.Env = append(append(os.Environ(), env...), envServe+"="+dir)
	p.cmd.Stderr = p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	p.took = time.Since(start)
	if err != nil || !strings.HasPrefix(line, "ready ") {
		p.kill()
		t.Fatalf("the module did not come up: %q %v\n%s", line, err, p.stderr.text())
	}
	p.ready = make(map[string]string)
	for _, field := range strings.Fields(line)[1:] {
		name, value, _ := strings.Cut(field, "=")
		p.ready[name] = value
	}
	t.Cleanup(p.kill)
	return p
}

// kill is power loss for the process: nothing in it gets to run.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// plainClient talks to the HTTP listener on fresh connections.
func plainClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext},
		Timeout:   30 * time.Second,
	}
}
