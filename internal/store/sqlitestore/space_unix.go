//go:build linux || darwin || freebsd

package sqlitestore

import "syscall"

// diskFull tells whether the file system of dir has less room than SQLite
// asks for in one piece (32 KiB of -shm), or no room for another file.
func diskFull(dir string) bool {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return false
	}
	// File systems without a fixed number of files report 0 of 0.
	return uint64(s.Bavail)*uint64(s.Bsize) < 32<<10 || s.Files > 0 && s.Ffree == 0
}
