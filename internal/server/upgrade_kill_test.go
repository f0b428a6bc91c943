package server_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/audit"
	"softhem/internal/suite"
	"softhem/internal/upgrade"
)

// upgrading is somebody who installs one image after the other.
type upgrading struct {
	*testing.T
	dir      string
	key      *suite.Ed25519Key
	n        int          // of the image on its way
	answered atomic.Int64 // installations, in all
	firmware int          // the last that was answered in this round; 0: none
	console  int          // the last there was; 0: none
}

func firmwareOf(n int) []byte { return fmt.Appendf(nil, "#!/bin/sh\n# %d\n", n) }

func consoleOf(t testing.TB, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	page := fmt.Sprintf("<p>%d</p>", n)
	err := w.WriteHeader(&tar.Header{Name: "index.html", Mode: 0o644, Size: int64(len(page))})
	_, err2 := io.WriteString(w, page)
	if err := errors.Join(err, err2, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (u *upgrading) sign(payload []byte) []byte {
	footer, err := upgrade.Sign(bytes.NewReader(payload), u.key)
	if err != nil {
		u.Fatal(err)
	}
	return append(bytes.Clone(payload), footer...)
}

// work installs firmware of even numbers and consoles of odd ones until the module
// is gone.
func (u *upgrading) work(p *process) {
	ctx, client := context.Background(), newClient(u.T, p, nil)
	for {
		u.n++
		kind, payload := hem.UpgradeFirmware, firmwareOf(u.n)
		if u.n%2 == 1 {
			kind, payload = hem.UpgradeConsole, consoleOf(u.T, u.n)
		}
		err := client.UploadUpgrade(ctx, kind, u.sign(payload))
		if err == nil {
			err = client.CheckUpgrade(ctx, kind)
		}
		if err == nil {
			err = client.InstallUpgrade(ctx, kind)
		}
		if err != nil {
			if _, refused := errors.AsType[*api.Error](err); refused {
				u.Errorf("image %d: %v", u.n, err)
			}
			return
		}
		u.answered.Add(1)
		if kind == hem.UpgradeConsole {
			u.console = u.n
		} else {
			u.firmware = u.n
		}
	}
}

// A module is killed at any instant while firmware and consoles are uploaded,
// checked and installed. Each time what is installed is either the last that was
// answered, or the one that was under way; both whole; and all of it is on record.
func TestThreat_T127_KilledWhileUpgrading(t *testing.T) {
	rounds := 8
	key, err := suite.NewEd25519Key(bytes.Repeat([]byte{5}, suite.Ed25519Seed))
	if err != nil {
		t.Fatal(err)
	}
	u := &upgrading{T: t, dir: filepath.Join(t.TempDir(), "data"), key: key}
	env := envServe + "_UPGRADE_KEY=" + api.EncodeBase64(key.Public())
	for range rounds {
		p := startProcess(t, u.dir, env)
		u.firmware = 0 // that of the last round was found tried, and is out of use
		done := make(chan struct{})
		before := u.answered.Load()
		go func() { u.work(p); close(done) }()
		for wanted, end := before+int64(rand.N(6)), time.Now().Add(10*time.Second); u.answered.Load() < wanted && time.Now().Before(end); {
			time.Sleep(200 * time.Microsecond)
		}
		time.Sleep(time.Duration(rand.N(8_000)) * time.Microsecond)
		p.kill()
		<-done
		p = startProcess(t, u.dir, env)
		v, err := newClient(t, p, nil).Version(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		u.console = u.oneOf("console", v.UIS, hashOf(nil), u.console, func(n int) string { return hashOf(consoleOf(t, n)) })
		p.kill()
		if got := u.onRecord(); got < u.answered.Load() {
			t.Errorf("%d installations are on record, %d were answered", got, u.answered.Load())
		}
		program, err := upgrade.Launch(upgrade.Config{Dir: filepath.Join(u.dir, "upgrade"), Keys: [][]byte{key.Public()}, Version: "1.0.0", Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		content := []byte{}
		if program != nil {
			if content, err = os.ReadFile(program.Path); err != nil {
				t.Fatal(err)
			}
		}
		u.oneOf("firmware", string(content), "", u.firmware, func(n int) string { return string(firmwareOf(n)) })
		if t.Failed() {
			t.FailNow()
		}
	}
	if u.answered.Load() < int64(rounds)/2 {
		t.Errorf("only %d installations were answered", u.answered.Load())
	}
	t.Logf("%d kills, %d installations were answered before them", rounds, u.answered.Load())
}

func hashOf(archive []byte) string {
	hash := suite.SHA256(archive)
	return api.EncodeBase64(hash[:])
}

// oneOf wants what is there to be the image of a number that was answered last, or
// the one that was under way, and returns which. Before any was, there may be none.
func (u *upgrading) oneOf(what, got, none string, answered int, image func(n int) string) (n int) {
	u.Helper()
	if answered == 0 && got == none || answered > 0 && got == image(answered) {
		return answered
	}
	if got == image(u.n) {
		return u.n
	}
	u.Errorf("%s: %q is neither that of %d, which was answered, nor of %d, which was under way", what, got, answered, u.n)
	return 0
}

// onRecord wants what was recorded last of each kind to be in the folder: no record
// without its change. It returns how many installations are on record.
func (u *upgrading) onRecord() (installs int64) {
	u.Helper()
	last, out := make(map[string]string), make(map[string]bool)
	for _, e := range recordsOf(u.T, u.dir, nil) {
		action, id, _ := strings.Cut(string(e.Arg), " ")
		if e.Type == audit.Upgrade && e.Result == audit.OK && strings.HasPrefix(action, "install_") {
			if last[action] != id { // one may be recorded twice
				installs++
			}
			last[action] = id
			delete(out, id)
		} else if action == "run_fw" && e.Result == audit.Failed {
			out[id] = true
		}
	}
	for action, id := range last {
		if out[id] {
			continue
		}
		name := strings.TrimPrefix(action, "install_") + "-" + id
		if _, err := os.Stat(filepath.Join(u.dir, "upgrade", name)); err != nil {
			u.Errorf("%s is on record: %v", action, err)
		}
	}
	return installs
}
