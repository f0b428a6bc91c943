package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"softhem/internal/broker"
	"softhem/internal/broker/brokerdb"
)

// defaultDevBroker is where --with-broker listens if it does not say.
const defaultDevBroker = "127.0.0.1:8090"

// startDevBroker runs a broker inside a development module, in memory, which the
// module trusts and checks in with.
func (s *service) startDevBroker(ctx context.Context) error {
	l, err := net.Listen("tcp", s.o.withBroker)
	if err != nil {
		return fmt.Errorf("--with-broker: %w; another address goes with it: --with-broker=127.0.0.1:0", err)
	}
	if addr, ok := l.Addr().(*net.TCPAddr); !s.o.devAllowRemote && (!ok || !addr.IP.IsLoopback()) {
		return errors.Join(fmt.Errorf("the broker of a development module listens on loopback only, and not on %s; to let it be reached from elsewhere, add --dev-allow-remote", l.Addr()), l.Close())
	}
	db, err := brokerdb.Open(ctx, "")
	if err != nil {
		return errors.Join(err, l.Close())
	}
	b, err := broker.New(ctx, broker.Config{
		DB: db, Now: time.Now, Logger: s.log, PerAddress: broker.DefaultPerAddress, PerPID: broker.DefaultPerPID,
	})
	if err != nil {
		return errors.Join(err, db.Close(), l.Close())
	}
	server := &http.Server{Handler: b.Handler(), ReadHeaderTimeout: brokerPatience, ReadTimeout: brokerRead, IdleTimeout: brokerIdle,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
	go server.Serve(l) // until Close
	s.o.TrustedBackends = append(s.o.TrustedBackends, b.PublicKey())
	s.o.Broker = "http://" + onThisHost(l.Addr().String())
	s.backend = &devBackend{url: s.o.Broker, server: server, more: func() {
		b.Close()
		if err := db.Close(); err != nil {
			s.log.Error("the broker's database did not close", "error", err)
		}
	}}
	return nil
}

// readyLine is the module's, with the broker inside it.
func (s *service) readyLine() string {
	line := s.server.ReadyLine()
	if s.o.withBroker != "" {
		line += " broker=" + s.backend.url
	}
	return line
}
