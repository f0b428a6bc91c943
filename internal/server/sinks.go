package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"time"

	"softhem/internal/module"
	"softhem/internal/syslog"
)

// openSinks begins to connect to the log's sinks. They are the server's, not the
// module's, so that they hear of a wipe and of what comes after it.
func (s *Server) openSinks() error {
	cfg := s.cfg
	if len(cfg.AuditSyslog) == 0 {
		return nil
	}
	sc := syslog.Config{Targets: cfg.AuditSyslog, PID: os.Getpid(), Logger: cfg.Logger}
	var err error
	if cfg.AuditSyslogCA != "" {
		if sc.Roots, err = syslog.LoadRoots(cfg.AuditSyslogCA); err != nil {
			return fmt.Errorf("the CA of the syslog sinks cannot be read: %w", err)
		}
	}
	if cfg.AuditSyslogCert != "" {
		sc.Certificate = func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cfg.AuditSyslogCert, cfg.AuditSyslogKey)
			return &pair, err
		}
		if _, err := sc.Certificate(); err != nil {
			return fmt.Errorf("the certificate for syslog sinks cannot be used: %w", err)
		}
	}
	if sc.Hostname, err = os.Hostname(); err != nil {
		cfg.Logger.Warn("the host's name, which syslog messages carry, is not known", "error", err)
	}
	s.sinks, err = syslog.Open(sc)
	return err
}

// auditSink is nil, not an interface that holds nil, where there are no sinks.
func (s *Server) auditSink() module.AuditSink {
	if s.sinks == nil {
		return nil
	}
	return s.sinks
}

// sinksTimeout is what the log's sinks have to take the last records.
const sinksTimeout = 2 * time.Second

// closeSinks is called after the last record.
func (s *Server) closeSinks(ctx context.Context) {
	if s.sinks == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sinksTimeout)
	defer cancel()
	s.sinks.Close(ctx)
}
