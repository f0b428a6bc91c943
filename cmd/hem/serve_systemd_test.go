package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// states reads what sd_notify sends.
func states(t *testing.T) (env string, got func() string) {
	t.Helper()
	// Paths of sockets are short, and those of t.TempDir may not be.
	dir, err := os.MkdirTemp("", "hem")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	all := &locked{first: make(chan struct{})}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			fmt.Fprintf(all, "%s\n--\n", buf[:n])
		}
	}()
	t.Cleanup(func() { conn.Close() })
	return "NOTIFY_SOCKET=" + path, all.String
}

func testServeSystemd(t *testing.T, p program) {
	env, got := states(t)
	r := p.start(t, []string{env, "WATCHDOG_USEC=100000"}, "--memory")
	heard := func(text string) {
		t.Helper()
		eventually(t, "the manager hears "+text, func() bool { return strings.Contains(got(), text) })
	}
	heard("READY=1\nSTATUS=ready http=")
	heard("WATCHDOG=1\n")
	r.signal(syscall.SIGHUP)
	heard("RELOADING=1\nMONOTONIC_USEC=")
	eventually(t, "READY=1 after the reload", func() bool {
		_, after, _ := strings.Cut(got(), "RELOADING=1")
		return strings.Contains(after, "READY=1")
	})
	r.stop()
	heard("STOPPING=1\n")
}

func testServeSockets(t *testing.T, p program) {
	files := func(n int) (fs []*os.File, addrs []string) {
		for range n {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			f, err := l.(*net.TCPListener).File()
			must(t, err)
			l.Close()
			t.Cleanup(func() { f.Close() })
			fs, addrs = append(fs, f), append(addrs, l.Addr().String())
		}
		return fs, addrs
	}
	// The process that is to use the sockets is named by its id.
	with := func(fs []*os.File, names string, args ...string) *exec.Cmd {
		cmd := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, p.path, "serve"}, args...)...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir(),
			fmt.Sprintf("LISTEN_FDS=%d", len(fs)), "LISTEN_FDNAMES=" + names}
		cmd.ExtraFiles = fs
		return cmd
	}
	fs, addrs := files(2)
	r := startServe(t, with(fs, "http:https", "--memory"))
	if r.ready["http"] != addrs[0] || r.ready["https"] != addrs[1] {
		t.Error(addrs, r.ready)
	}
	r.stop()

	fs, addrs = files(2)
	r = startServe(t, with(fs, "softhem.socket:softhem.socket", "--dev"))
	if r.ready["https"] != addrs[0] || r.ready["http"] != addrs[1] {
		t.Error(addrs, r.ready)
	}
	r.stop()

	// Nothing else is listened on unless it was asked for.
	fs, addrs = files(1)
	r = startServe(t, with(fs, "https", "--memory"))
	if r.ready["https"] != addrs[0] || r.ready["http"] != "" {
		t.Error(addrs, r.ready)
	}
	r.stop()

	for _, tc := range []struct {
		names string
		args  []string
		want  string
	}{
		{"a:b:c", nil, "more sockets than there are listeners"},
		{"https:https", nil, "more than one socket named https"},
		{"https:http", []string{"--http=off"}, "passes a socket for http, and --http turns it off"},
	} {
		fs, _ = files(strings.Count(tc.names, ":") + 1)
		out, err := with(fs, tc.names, append(tc.args, "--memory")...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), tc.want) {
			t.Errorf("%v: %s, want %q", err, out, tc.want)
		}
	}
}
