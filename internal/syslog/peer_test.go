package syslog

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	oracle "github.com/leodido/go-syslog/v4"
	"github.com/leodido/go-syslog/v4/octetcounting"
	"github.com/leodido/go-syslog/v4/rfc5424"

	"softhem/internal/audit"
	"softhem/internal/store/sqlitestore"
	"softhem/internal/suite"
)

// patience is what a test waits for what must come; the machine may be busy.
const patience = 30 * time.Second

// A peer is a syslog server that understands messages by another's parser.
type peer struct {
	t      testing.TB
	target Target

	mu       sync.Mutex
	messages []*rfc5424.SyslogMessage
	conns    []net.Conn
	lis      net.Listener
	readers  sync.WaitGroup
	deaf     bool // takes connections and does not read
}

// newPeer listens at a target, or, for tcp and tls, at a port of its own.
func newPeer(t testing.TB, scheme, addr string, pair *tls.Certificate, edit ...func(*tls.Config)) *peer {
	t.Helper()
	p := &peer{t: t}
	switch scheme {
	case "unixgram":
		conn, err := net.ListenPacket("unixgram", addr)
		must(t, err)
		p.target = Target{scheme, addr}
		p.readers.Go(func() { p.readDatagrams(conn) })
		t.Cleanup(func() { conn.Close(); p.readers.Wait() })
		return p
	case "unix":
		l, err := net.Listen("unix", addr)
		must(t, err)
		p.lis = l
	default:
		l, err := net.Listen("tcp", addr)
		must(t, err)
		p.lis, addr = l, l.Addr().String()
	}
	if pair != nil {
		cfg := &tls.Config{Certificates: []tls.Certificate{*pair}, MinVersion: tls.VersionTLS12}
		for _, e := range edit {
			e(cfg)
		}
		p.lis = tls.NewListener(p.lis, cfg)
	}
	p.target = Target{scheme, addr}
	p.readers.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// close ends the listener and all connections.
func (p *peer) close() {
	p.lis.Close()
	p.hangUp()
	p.readers.Wait()
}

func (p *peer) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

func (p *peer) accept() {
	for {
		c, err := p.lis.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.conns = append(p.conns, c)
		deaf := p.deaf
		p.mu.Unlock()
		if !deaf {
			p.readers.Go(func() { p.read(c) })
		}
	}
}

func (p *peer) setDeaf(deaf bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = deaf
}

func (p *peer) read(c io.Reader) {
	octetcounting.NewParser(oracle.WithListener(func(r *oracle.Result) {
		if r.Error != nil { // the end of the stream is one too
			if r.Message != nil || !strings.Contains(r.Error.Error(), "EOF") {
				p.t.Logf("a connection ended with: %v", r.Error)
			}
			return
		}
		p.take(r.Message)
	})).Parse(c)
}

func (p *peer) readDatagrams(c net.PacketConn) {
	b := make([]byte, 64<<10)
	for {
		n, _, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		m, err := rfc5424.NewParser().Parse(b[:n])
		if err != nil {
			p.t.Errorf("%q: %v", b[:n], err)
			return
		}
		p.take(m)
	}
}

func (p *peer) take(m oracle.Message) {
	msg, ok := m.(*rfc5424.SyslogMessage)
	if !ok || !msg.Valid() {
		p.t.Errorf("no message of RFC 5424: %#v", m)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.messages = append(p.messages, msg)
}

func (p *peer) got() []*rfc5424.SyslogMessage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.messages)
}

// wait waits until what has come fulfils done, and returns it.
func (p *peer) wait(what string, done func([]*rfc5424.SyslogMessage) bool) []*rfc5424.SyslogMessage {
	p.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if m := p.got(); done(m) {
			return m
		}
	}
	p.t.Fatalf("%s did not come; %d messages did", what, len(p.got()))
	return nil
}

func data(m *rfc5424.SyslogMessage) map[string]string {
	if m.StructuredData == nil {
		return nil
	}
	return (*m.StructuredData)[structured]
}

func number(t testing.TB, m *rfc5424.SyslogMessage, name string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(data(m)[name], 10, 64)
	if err != nil {
		t.Fatalf("%s of %v: %v", name, data(m), err)
	}
	return n
}

func hasID(id string) func([]*rfc5424.SyslogMessage) bool {
	return func(ms []*rfc5424.SyslogMessage) bool {
		return slices.ContainsFunc(ms, func(m *rfc5424.SyslogMessage) bool { return *m.MsgID == id })
	}
}

// hasLeaf waits for a record by its place.
func hasLeaf(leaf int64) func([]*rfc5424.SyslogMessage) bool {
	want := strconv.FormatInt(leaf, 10)
	return func(ms []*rfc5424.SyslogMessage) bool {
		return slices.ContainsFunc(ms, func(m *rfc5424.SyslogMessage) bool { return data(m)["leaf"] == want })
	}
}

// A testLog is a real one, in a folder, that the tests write.
type testLog struct {
	*audit.Log
	eid, signing []byte
}

type plainSealer struct{}

func (plainSealer) Seal(_, _ string, plaintext []byte) []byte       { return slices.Clone(plaintext) }
func (plainSealer) Open(_, _ string, sealed []byte) ([]byte, error) { return slices.Clone(sealed), nil }

func (l *testLog) add(t testing.TB, n int) {
	t.Helper()
	for range n {
		must(t, l.Append(context.Background(), audit.Record{Type: audit.CryptoEXDSASign, Who: "U", Arg: []byte("0123456789abcdef")}))
	}
}

func (l *testLog) read(t testing.TB, id string) []byte {
	t.Helper()
	r, _, err := l.OpenFile(id)
	must(t, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	must(t, err)
	return b
}

func newLog(t testing.TB, sink audit.Sink) *testLog {
	t.Helper()
	st, err := sqlitestore.Open(t.Context(), sqlitestore.Config{})
	must(t, err)
	key, err := suite.NewEd25519Key(bytes.Repeat([]byte{9}, suite.Ed25519Seed))
	must(t, err)
	l := &testLog{eid: bytes.Repeat([]byte{7}, 32), signing: key.Public()}
	l.Log, err = audit.Open(t.Context(), audit.Config{
		Dir: t.TempDir(), Store: st, Sealer: plainSealer{}, Sign: key.Sign, EIDSign: key.Public(), Origin: audit.Origin(l.eid),
		Product: "softhem test", Now: func() int64 { return time.Now().Unix() }, Sink: sink, Durability: audit.Relaxed,
	})
	must(t, err)
	t.Cleanup(func() { l.Close(context.Background()); st.Close() })
	return l
}

// open makes sinks for the targets that end with the test.
func open(t testing.TB, cfg Config) *Sinks {
	t.Helper()
	cfg.Hostname, cfg.PID = "host.example", 4711
	if cfg.Backoff == 0 {
		cfg.Backoff, cfg.MaxBackoff = 5*time.Millisecond, 100*time.Millisecond
	}
	s, err := Open(cfg)
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.Close(ctx)
	})
	return s
}

// A record of what the operator is told.
type operatorLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *operatorLog) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *operatorLog) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func (o *operatorLog) logger() *slog.Logger { return slog.New(slog.NewTextHandler(o, nil)) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
