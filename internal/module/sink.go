package module

import (
	"context"
	"time"

	"softhem/internal/audit"
)

// An AuditSink sends records away, and outlives the module.
type AuditSink interface {
	audit.Sink
	// Say puts a message in line after the records so far.
	Say(origin, msgID, text string)
	// Flush waits until all in line is sent to whom it can be sent, or ctx ends.
	Flush(ctx context.Context) error
}

// sink is the log's: nil, not an interface that holds nil.
func (c *Config) sink() audit.Sink {
	if c.AuditSink == nil {
		return nil
	}
	return c.AuditSink
}

// wipeNotice is how long a wipe waits for sinks to hear of it. An owner who
// wipes must not be kept from it by who holds a connection open and does not read.
const wipeNotice = 2 * time.Second

// tellSinksOfWipe says before anything is destroyed that the module's log ends
// here by its owner's will, also when the record of it could not be written.
func (m *Module) tellSinksOfWipe(ctx context.Context) {
	if m.cfg.AuditSink == nil {
		return
	}
	m.cfg.AuditSink.Say(audit.Origin(m.state.Load().identity.key.Public()), "WIPE", "the module is being wiped, and its log with it")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), wipeNotice)
	defer cancel()
	if err := m.cfg.AuditSink.Flush(ctx); err != nil {
		m.log.WarnContext(ctx, "a log sink may not have heard of the wipe, which goes on", "error", err)
	}
}
