//go:build !linux

package sqlitestore

import "testing"

func smallDisk(t *testing.T) (dir string, makeRoom func()) {
	t.Skip("mounts a tmpfs, which is of Linux; \"page limit\" stands in")
	return "", nil
}

func fullDisk(t *testing.T) { smallDisk(t) }
