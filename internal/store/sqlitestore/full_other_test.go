//go:build !linux

package sqlitestore

import "testing"

func fullDisk(t *testing.T) { t.Skip("mounts a tmpfs, which is of Linux; \"page limit\" stands in") }
