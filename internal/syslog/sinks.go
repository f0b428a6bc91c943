// Package syslog sends the audit log's records to syslog sinks, beside the
// files: RFC 5424 messages over TCP, TLS or a unix socket.
//
// # What holds
//
//   - Who writes a record never waits for a sink: it is copied into a queue, and
//     if there is no room, it is dropped there and counted.
//   - Records come in the order of the log, each when it is as durable as the log
//     makes it, and say their place in it (message.go).
//   - What was dropped is said in its place, to the sink and to the operator.
//   - A record comes at least once: what was written shortly before a connection
//     broke is sent again. What the queue holds when the process is killed is in
//     the files only; the receiver sees by the next record's place that it is missing.
package syslog

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"sync"
	"time"

	"softhem/internal/audit"
)

// Config says where records go.
type Config struct {
	// Targets get all records each, independently of each other.
	Targets []Target
	// Roots are whom the certificates of TLS peers must come from; nil means
	// the system's.
	Roots *x509.CertPool
	// Certificate is shown to a TLS peer that asks for one; it is called for each
	// connection. nil: none.
	Certificate func() (*tls.Certificate, error)
	// Hostname and PID stand in each message.
	Hostname string
	PID      int
	// QueueBytes of lines are kept for each sink that does not keep up; 0 means
	// 4 MiB, which is some 30 000 records.
	QueueBytes int
	// Backoff is how long a sink is left alone after its first failure; it
	// doubles with each further one, up to MaxBackoff. 0 means 100 ms and 30 s.
	Backoff, MaxBackoff time.Duration
	Logger              *slog.Logger
}

const (
	defaultQueueBytes = 4 << 20
	defaultBackoff    = 100 * time.Millisecond
	defaultMaxBackoff = 30 * time.Second
)

// tls is what connections to TLS peers begin with. RFC 5425 is from before TLS 1.3,
// which not all servers of today speak.
func (c *Config) tls() *tls.Config {
	t := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.Roots}
	if c.Certificate != nil {
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.Certificate() }
	}
	return t
}

// Sinks are all sinks of a process. They outlive a module that is wiped.
type Sinks struct {
	all  []*sink
	work sync.WaitGroup
}

// Open begins to connect. That a sink cannot be reached is no error; it is
// tried until Close.
func Open(cfg Config) (*Sinks, error) {
	if cfg.QueueBytes < 0 || cfg.Backoff < 0 || cfg.MaxBackoff < 0 {
		return nil, errors.New("syslog: a negative limit")
	}
	if cfg.QueueBytes == 0 {
		cfg.QueueBytes = defaultQueueBytes
	}
	if cfg.Backoff == 0 {
		cfg.Backoff = defaultBackoff
	}
	if cfg.MaxBackoff == 0 {
		cfg.MaxBackoff = defaultMaxBackoff
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Sinks{}
	for _, t := range cfg.Targets {
		k := newSink(cfg, t)
		s.all = append(s.all, k)
		s.work.Go(k.run)
	}
	return s, nil
}

// Records implements audit.Sink.
func (s *Sinks) Records(w audit.Written) {
	e := newEntry(w)
	for _, k := range s.all {
		k.put(e)
	}
}

// Say puts a message of the module's own in line, after the records so far. It
// has room where a record has none.
func (s *Sinks) Say(origin, msgID, text string) {
	e := &entry{w: audit.Written{Origin: origin}, at: time.Now(), msgID: msgID, text: text}
	for _, k := range s.all {
		k.say(e)
	}
}

// Flush waits until every sink that is connected has got what was put in line
// before, or ctx ends. Who is not connected is not waited for.
func (s *Sinks) Flush(ctx context.Context) error {
	for _, k := range s.all {
		if err := k.flush(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close gives sinks that are connected until ctx ends to take what is in line,
// and ends the connections.
func (s *Sinks) Close(ctx context.Context) {
	for _, k := range s.all {
		k.finish()
	}
	stop := context.AfterFunc(ctx, func() {
		for _, k := range s.all {
			k.cut()
		}
	})
	s.work.Wait()
	stop()
	for _, k := range s.all {
		k.cut()
		k.lastWord()
	}
}

// A Stat is how a sink does.
type Stat struct {
	Target       string
	Up           bool
	QueuedBytes  int    // of lines
	Sent         uint64 // records, those sent again counted again
	Dropped      uint64 // records
	Disconnected uint64 // connections that broke, and attempts that failed
}

// Stats are those of all sinks, in the order of Config.Targets.
func (s *Sinks) Stats() []Stat {
	stats := make([]Stat, len(s.all))
	for i, k := range s.all {
		stats[i] = k.stat()
	}
	return stats
}
