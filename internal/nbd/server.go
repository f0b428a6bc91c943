package nbd

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"
)

const (
	maxClients     = 16
	handshakeLimit = 10 * time.Second // then nothing has to come, for as long as it likes
	closingLimit   = 2 * time.Second  // for a client to take the answers that are due
)

// Config says what is served, and how.
type Config struct {
	Device Device
	// Name is the export's; a client may also ask for the default one.
	Name     string
	ReadOnly bool
	// Allowed is asked before each command is looked at; false cuts the client
	// off. Nil is always.
	Allowed func() bool
	Logger  *slog.Logger
}

// A Server serves the device on a listener to up to 16 clients.
type Server struct {
	cfg      Config
	listener net.Listener

	mu      sync.Mutex
	closing bool
	conns   map[net.Conn]bool
	running sync.WaitGroup
}

// Start serves until Close.
func Start(l net.Listener, cfg Config) *Server {
	if cfg.Allowed == nil {
		cfg.Allowed = func() bool { return true }
	}
	s := &Server{cfg: cfg, listener: l, conns: make(map[net.Conn]bool)}
	s.running.Go(s.accept)
	return s
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			s.cfg.Logger.Warn("a client of a disk could not be taken", "disk", s.cfg.Name, "error", err)
			time.Sleep(100 * time.Millisecond) // no file descriptor left; there may be one again
			continue
		}
		if !s.cfg.Allowed() || !s.add(conn) {
			conn.Close()
			continue
		}
		s.running.Go(func() { s.client(conn) })
	}
}

// add takes a client in, unless there are too many or the server is closing.
func (s *Server) add(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || len(s.conns) >= maxClients {
		return false
	}
	s.conns[conn] = true
	return true
}

// client serves one connection. When the server is closing it leaves the end of
// it to Close, which has what was written put on disk first.
func (s *Server) client(conn net.Conn) {
	session := newSession(&s.cfg, conn, func() bool { return s.open() && s.cfg.Allowed() })
	s.expect(conn, time.Now().Add(handshakeLimit))
	err := session.handshake()
	if err == nil {
		s.cfg.Logger.Debug("a client has attached a disk", "disk", s.cfg.Name)
		s.expect(conn, time.Time{})
		err = session.transmit()
	}
	s.cfg.Logger.Debug("a client of a disk has gone", "disk", s.cfg.Name, "cause", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		delete(s.conns, conn)
		conn.Close()
	}
}

func (s *Server) open() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closing
}

// expect sets when the client's next bytes have to be there. While the server
// closes that stays now.
func (s *Server) expect(conn net.Conn, by time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		_ = conn.SetReadDeadline(by)
	}
}

// Close takes no more commands, lets those that are being done end, has what
// was written put on disk if flush is set, and then cuts the clients off. Its
// error is that of the flush; everything else is done all the same.
func (s *Server) Close(flush bool) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		s.running.Wait()
		return nil
	}
	s.closing = true
	for conn := range s.conns {
		_ = conn.SetReadDeadline(time.Unix(1, 0))
		_ = conn.SetWriteDeadline(time.Now().Add(closingLimit))
	}
	s.mu.Unlock()
	s.listener.Close()
	s.running.Wait()
	var err error
	if flush && !s.cfg.ReadOnly {
		err = s.cfg.Device.Sync()
	}
	for conn := range s.conns {
		conn.Close()
	}
	return err
}
