package main

import (
	"log/slog"

	"golang.org/x/sys/unix"
)

// harden keeps what is in memory out of files and what is in files from other
// people. A system that refuses leaves the module no worse than its
// surroundings, so failures are said and no more.
func harden(log *slog.Logger) {
	unix.Umask(0o077)
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		log.Warn("core dumps cannot be turned off; after a crash, one may hold keys", "error", err)
	}
	if err := denyTracing(); err != nil {
		log.Warn("the process cannot be closed to debuggers of the same user", "error", err)
	}
}
