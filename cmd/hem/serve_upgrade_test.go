package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/suite"
	"softhem/internal/upgrade"
)

// upgradable is a module in a folder, started again and again with one of a few
// programs. It is fresh, so nobody needs a token.
type upgradable struct {
	*testing.T
	p    program
	args []string
	key  *suite.Ed25519Key
	r    *running
}

// testServeUpgrade takes a module through upgrades with real programs: the one of
// the other tests, and a newer one.
func testServeUpgrade(t *testing.T, p program) {
	newer := filepath.Join(t.TempDir(), "newer")
	out, err := exec.Command("go", "build", "-ldflags", "-s -w -X softhem/internal/build.version=0.2.0", "-o", newer, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	key, err := suite.NewEd25519Key(bytes.Repeat([]byte{9}, suite.Ed25519Seed))
	must(t, err)
	u := &upgradable{T: t, p: p, key: key, args: []string{
		"--data", filepath.Join(t.TempDir(), "data"), "--upgrade-key", api.EncodeBase64(key.Public()),
	}}
	u.start()
	u.is("0.1.0-dev", false)

	// Nothing happens before the next start, and then it is the newer one for good.
	program, err := os.ReadFile(newer)
	must(t, err)
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	must(t, err)
	_, err = z.Write(program)
	must(t, errors.Join(err, z.Close()))
	u.install(packed.Bytes())
	u.is("0.1.0-dev", false)
	u.restart()
	u.is("0.2.0", true) // said once
	u.is("0.2.0", false)
	u.restart()
	u.is("0.2.0", false)

	// One that ends, one that hangs and is killed, and one that is killed by a
	// power cut at its beginning: the next start runs what ran before.
	for name, script := range map[string]string{"ends": "exit 1", "hangs": "echo started >&2; exec sleep 600"} {
		u.install([]byte("#!/bin/sh\n" + script))
		u.r.signal(syscall.SIGKILL)
		<-u.r.ended
		u.fails(name == "hangs")
		u.start()
		u.is("0.2.0", false)
		u.r.says("did not get ready")
	}
	// An older one steps back at once, in the same process.
	u.install(fmt.Appendf(nil, "#!/bin/sh\nexec '%s' \"$@\"", p.path))
	u.restart()
	u.is("0.2.0", false)
	u.r.says("older than what it was to replace")

	// Without its key the upgrade is not run; nothing else is lost.
	eid := u.r.ready["eid"]
	u.r.stop()
	u.r = p.start(t, nil, u.args[:2]...)
	u.is("0.1.0-dev", false)
	if u.r.ready["eid"] != eid {
		t.Error("it is another module")
	}
	u.r.says("cannot be run; this program runs instead")
	u.restart()
	u.is("0.2.0", false)
	u.r.stop()
	if said := p.fails(t, 1, []string{firmwareEnv + "=x"}, u.args...); !strings.Contains(said, firmwareEnv) {
		t.Errorf("with a stray variable: %s", said)
	}
}

func (u *upgradable) start() { u.r = u.p.start(u.T, nil, u.args...) }

func (u *upgradable) restart() {
	u.r.stop()
	u.start()
}

// fails starts what must not get ready.
func (u *upgradable) fails(hangs bool) {
	cmd := u.p.command(u.T, nil, u.args...)
	stderr := &locked{first: make(chan struct{})}
	var stdout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, stderr
	must(u.T, cmd.Start())
	if hangs {
		eventually(u.T, "it has started", func() bool { return strings.Contains(stderr.String(), "started") })
		must(u.T, cmd.Process.Kill())
	}
	if err := cmd.Wait(); err == nil || stdout.Len() > 0 {
		u.Errorf("it ended with %v, and said %q\n%s", err, &stdout, stderr)
	}
}

// is wants the module to run a version, and to say or not that it was upgraded.
func (u *upgradable) is(version string, upgraded bool) {
	u.Helper()
	c := u.r.client(hem.Config{})
	v, err := c.Version(context.Background())
	must(u.T, err)
	s, err := c.Status(context.Background())
	must(u.T, err)
	if v.FWV != "softhem v"+version || s.FWUpgrade != upgraded {
		u.Fatalf("%s, upgraded: %v; want %s, %v\n%s", v.FWV, s.FWUpgrade, version, upgraded, u.r.stderr)
	}
}

func (u *upgradable) install(payload []byte) {
	u.Helper()
	ctx, c := context.Background(), u.r.client(hem.Config{})
	footer, err := upgrade.Sign(bytes.NewReader(payload), u.key)
	must(u.T, err)
	must(u.T, c.UploadUpgrade(ctx, hem.UpgradeFirmware, append(bytes.Clone(payload), footer...)))
	must(u.T, c.CheckUpgrade(ctx, hem.UpgradeFirmware))
	must(u.T, c.InstallUpgrade(ctx, hem.UpgradeFirmware))
}
