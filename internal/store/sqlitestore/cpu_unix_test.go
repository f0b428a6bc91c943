//go:build unix

package sqlitestore

import (
	"syscall"
	"time"
)

// cpuTime is what the process has used of the processors, in user and in
// system mode. Unlike time it does not tell of the neighbours.
func cpuTime() (user, system time.Duration) {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano()), time.Duration(r.Stime.Nano())
}
