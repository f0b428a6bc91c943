package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// manager talks to the service manager that started the process, if one did.
type manager struct{ log *slog.Logger }

// notify sends what sd_notify(3) calls a state: assignments, one a line.
func (m manager) notify(assignments ...string) {
	if _, err := daemon.SdNotify(false, strings.Join(assignments, "\n")); err != nil {
		m.log.Warn("the service manager cannot be told", "error", err)
	}
}

// notifyReloading says that a reload begins; the time tells the manager which
// READY=1 belongs to it.
func (m manager) notifyReloading() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		m.log.Warn("the monotonic clock cannot be read", "error", err)
		return
	}
	m.notify(daemon.SdNotifyReloading, fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
}

// watchdog ticks twice as often as the manager wants to hear of the process.
// Without a watchdog it never does.
func (m manager) watchdog() (ticks <-chan time.Time, stop func()) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		m.log.Warn("the service manager's watchdog is not served", "error", err)
	}
	if interval <= 0 {
		return nil, func() {}
	}
	t := time.NewTicker(max(interval/2, time.Millisecond))
	return t.C, t.Stop
}

// takeSockets takes over the sockets the manager opened. They win over
// addresses; an address that nobody asked for is not listened on beside them.
func (s *service) takeSockets() error {
	secure, plain, err := activated()
	if err != nil || secure == nil && plain == nil {
		return err
	}
	for _, x := range []struct {
		flag, addr string
		socket     net.Listener
	}{{"https", s.o.HTTPSAddr, secure}, {"http", s.o.HTTPAddr, plain}} {
		if x.socket != nil && x.addr == "" {
			return fmt.Errorf("the service manager passes a socket for %s, and %s turns it off; take back one of them", x.flag, s.settings.source(x.flag))
		}
	}
	s.o.HTTPSListener, s.o.HTTPListener = secure, plain
	if !s.given("http") {
		s.o.HTTPAddr = ""
	}
	if !s.given("https") {
		s.o.HTTPSAddr = ""
	}
	return nil
}

// activated returns the sockets of sd_listen_fds(3): by the names http and
// https, and those of other names in their order, TLS first.
func activated() (secure, plain net.Listener, err error) {
	var others []net.Listener
	for _, f := range activation.Files(true) {
		l, err := net.FileListener(f)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return nil, nil, fmt.Errorf("the socket %s of the service manager cannot be used: %w", f.Name(), err)
		}
		if l.Addr().Network() != "tcp" {
			return nil, nil, fmt.Errorf("the socket %s of the service manager is not a TCP socket", f.Name())
		}
		// A second one of a name must not become the other listener: clients
		// would meet plain HTTP where they expect TLS.
		switch name := f.Name(); {
		case name == "https" && secure == nil:
			secure = l
		case name == "http" && plain == nil:
			plain = l
		case name == "https" || name == "http":
			return nil, nil, fmt.Errorf("the service manager passes more than one socket named %s; there is one listener of that name", name)
		default:
			others = append(others, l)
		}
	}
	for _, l := range others {
		switch {
		case secure == nil:
			secure = l
		case plain == nil:
			plain = l
		default:
			return nil, nil, errors.New("the service manager passes more sockets than there are listeners: https and http")
		}
	}
	return secure, plain, nil
}
