package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"syscall"
	"testing"
)

// testServeHarden looks at the process from outside.
func testServeHarden(t *testing.T, p program) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no /proc")
	}
	data := filepath.Join(t.TempDir(), "data")
	cmd := p.command(t, nil, "--data", data)
	r := startServe(t, cmd)
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", r.cmd.Process.Pid))
	must(t, err)
	if !regexp.MustCompile(`(?m)^Max core file size +0 +0 `).Match(limits) {
		t.Errorf("%s", limits)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	must(t, err)
	if !regexp.MustCompile(`(?m)^Umask:\s+0077$`).Match(status) {
		t.Errorf("%s", status)
	}
	// The files of a process that is closed to debuggers belong to root.
	if info, err := os.Stat(fmt.Sprintf("/proc/%d/mem", r.cmd.Process.Pid)); err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Error(info, err)
	}
	r.stop()
	must(t, filepath.WalkDir(data, func(path string, d os.DirEntry, err error) error {
		must(t, err)
		if info, err := d.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		return nil
	}))
}
