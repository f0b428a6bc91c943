package syslog

import (
	"net"

	"golang.org/x/sys/unix"
)

// giveUpUnacknowledged ends a connection whose peer has not acknowledged what
// was written for as long as writeTimeout; by itself the kernel would try for a
// quarter of an hour, and take more all the while.
func giveUpUnacknowledged(conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(writeTimeout.Milliseconds()))
	}); err != nil {
		return err
	}
	return set
}
