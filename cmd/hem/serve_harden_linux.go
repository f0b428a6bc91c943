package main

import "golang.org/x/sys/unix"

// denyTracing closes the process to ptrace and /proc/PID/mem of others of its
// user, and to core dumps that a handler outside its limits would take.
func denyTracing() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
