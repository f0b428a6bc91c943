package syslog

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/leodido/go-syslog/v4/rfc5424"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/certs"
	"softhem/internal/seal"
	"softhem/internal/store/sqlitestore"
)

// pair makes a certificate for loopback and whom it comes from.
func pair(t testing.TB) (*tls.Certificate, []byte) {
	t.Helper()
	st, err := sqlitestore.Open(t.Context(), sqlitestore.Config{})
	must(t, err)
	defer st.Close()
	m, err := certs.Open(t.Context(), certs.Config{Store: st, Sealer: seal.InMemory(), Names: []string{"127.0.0.1", "localhost"}, Now: time.Now})
	must(t, err)
	c, err := m.GetCertificate(&tls.ClientHelloInfo{})
	must(t, err)
	return c, m.CAPEM()
}

// fileOf puts together what came for a log file, as a receiver would that writes
// the text of each message on a line.
func fileOf(ms []*rfc5424.SyslogMessage, id string) []byte {
	var b []byte
	for _, m := range ms {
		if data(m)["file"] == id {
			b = append(append(b, *m.Message...), '\n')
		}
	}
	return b
}

// Over every transport another's parser reads each message, and what came of a
// file is that file: it verifies, and is the same byte for byte.
func TestWhatASinkGetsIsTheLog(t *testing.T) {
	dir := t.TempDir()
	cert, ca := pair(t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	peers := []*peer{
		newPeer(t, "tcp", "127.0.0.1:0", nil), newPeer(t, "tls", "127.0.0.1:0", cert),
		newPeer(t, "unix", filepath.Join(dir, "stream"), nil), newPeer(t, "unixgram", filepath.Join(dir, "log"), nil),
	}
	cfg := Config{Roots: roots}
	for _, p := range peers {
		cfg.Targets = append(cfg.Targets, p.target)
	}
	sinks := open(t, cfg)
	l := newLog(t, sinks)
	must(t, l.StartBoot(t.Context(), audit.Record{Type: audit.SelftestPassed}))
	first := l.Current()
	l.add(t, 20)
	must(t, l.Append(t.Context(), audit.Record{Type: audit.CryptoHMACVerify, Result: audit.Failed, Who: "M"}, audit.Record{Type: audit.NonSecureState, Result: audit.Error}))
	must(t, l.StartBoot(t.Context()))
	second := l.Current()
	want := l.read(t, first)
	for _, p := range peers {
		t.Run(p.target.scheme, func(t *testing.T) {
			ms := p.wait("the second boot", hasLeaf(26))
			got := fileOf(ms, first)
			if !bytes.Equal(got, want) {
				t.Fatalf("the sink has\n%s\nand the file\n%s", got, want)
			}
			rep, err := audit.VerifyFile(bytes.NewReader(got), l.signing)
			if err != nil || rep.Records != 25 {
				t.Fatalf("%+v, %v", rep, err)
			}
			leaf := int64(0)
			for i, m := range ms {
				d := data(m)
				if d["eid"] != api.EncodeBase64(l.eid) || *m.Hostname != "host.example" || *m.Appname != "softhem" || *m.ProcID != "4711" || *m.Facility != facility {
					t.Errorf("message %d: %v %v", i, d, m)
				}
				if *m.MsgID == "FILE" {
					if *m.Severity != severityInfo || !strings.HasPrefix(*m.Message, "# softhem test") {
						t.Errorf("a file begins with %v", m)
					}
					continue
				}
				e, err := audit.Parse([]byte(*m.Message))
				must(t, err)
				severity := map[audit.Result]uint8{audit.OK: severityInfo, audit.Failed: severityWarning, audit.Error: severityError}[e.Result]
				if number(t, m, "leaf") != leaf || number(t, m, "seq") != int64(e.Seq) || m.Timestamp.Unix() != e.Time || *m.MsgID != e.Type.String() || *m.Severity != severity {
					t.Errorf("message %d: %v %v", i, d, m)
				}
				leaf++
			}
			if fmt.Sprint(*ms[0].MsgID, " ", data(ms[0])["file"]) != "FILE "+first || data(ms[len(ms)-1])["file"] != second {
				t.Errorf("%v, %v", ms[0], ms[len(ms)-1])
			}
		})
	}
}

// deduplicated checks that records came in order, each at least once, and returns
// the places that are missing, GAP messages applied.
func deduplicated(t *testing.T, ms []*rfc5424.SyslogMessage) (records, missing int64) {
	t.Helper()
	next := int64(0)
	for _, m := range ms {
		switch *m.MsgID {
		case "FILE", "WIPE":
		case "GAP":
			from, to := number(t, m, "from"), number(t, m, "to")
			if to < next { // sent again
				continue
			}
			if from != next || to < from || number(t, m, "count") != to-from+1 || *m.Message != fmt.Sprintf("records %d..%d missing (%d); they are in the files of the log", from, to, to-from+1) {
				t.Fatalf("a gap of %d..%d where %d was to come: %s", from, to, next, *m.Message)
			}
			missing += to - from + 1
			next = to + 1
		default:
			leaf := number(t, m, "leaf")
			if leaf > next {
				t.Fatalf("record %d came where %d was to come", leaf, next)
			}
			if leaf == next {
				records++
				next++
			}
		}
	}
	return records, missing
}

// within fails a test that what is done takes too long for.
func within(t *testing.T, d time.Duration, what string, do func()) {
	t.Helper()
	start := time.Now()
	do()
	if took := time.Since(start); took > d {
		t.Errorf("%s took %s", what, took)
	}
}

// A sink that is down does not hold up the log; when it comes, it gets what the
// queue held, is told exactly what is missing, and gets all that follows.
func TestASinkThatIsDown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sink")
	var told operatorLog
	sinks := open(t, Config{Targets: []Target{{"unix", path}}, QueueBytes: 20_000, Logger: told.logger()})
	l := newLog(t, sinks)
	within(t, 10*time.Second, "writing 2000 records with a dead sink", func() {
		must(t, l.StartBoot(t.Context()))
		l.add(t, 2000) // and 2 of the boot
	})
	st := sinks.Stats()[0]
	if st.Up || st.Dropped < 1000 || st.QueuedBytes > 20_000 || st.Disconnected == 0 || st.Sent != 0 {
		t.Errorf("%+v", st)
	}
	p := newPeer(t, "unix", path, nil)
	p.wait("a word of the gap", hasID("GAP")) // without another record
	l.add(t, 3)
	ms := p.wait("the last record", hasLeaf(2004))
	records, missing := deduplicated(t, ms)
	st = sinks.Stats()[0]
	if missing != int64(st.Dropped) || records+missing != 2005 || !st.Up {
		t.Errorf("%d records, %d missing, %+v", records, missing, st)
	}
	for _, want := range []string{"cannot be reached", "does not keep up", fmt.Sprintf("to=2001 count=%d", missing), "is connected"} {
		if !strings.Contains(told.String(), want) {
			t.Errorf("the operator is not told: %s\n%s", want, told.String())
		}
	}
}

// What was missed of a module that was wiped meanwhile, and of the one after it, is
// said of each.
func TestGapsOfTwoModules(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sink")
	sinks := open(t, Config{Targets: []Target{{"unix", path}}, QueueBytes: 150})
	line := []byte(strings.Repeat("x", 99) + "\n")
	one, two := audit.Origin(bytes.Repeat([]byte{1}, 32)), audit.Origin(bytes.Repeat([]byte{2}, 32))
	for leaf := range int64(4) { // the first is taken
		sinks.Records(audit.Written{Origin: one, File: "00000001", Leaf: leaf, Lines: line})
	}
	sinks.Records(audit.Written{Origin: two, File: "00000002", Leaf: 0, Lines: append(line, line...)})
	p := newPeer(t, "unix", path, nil)
	ms := p.wait("two gaps", func(ms []*rfc5424.SyslogMessage) bool { return len(ms) >= 3 })
	for i, want := range []map[string]string{
		{"eid": eid(one), "file": "00000001", "leaf": "0", "seq": ""},
		{"eid": eid(one), "from": "1", "to": "3", "count": "3"},
		{"eid": eid(two), "from": "0", "to": "1", "count": "2"},
	} {
		if got := data(ms[i]); !maps.Equal(got, want) {
			t.Errorf("message %d says %v, want %v", i, got, want)
		}
	}
}

// A sink that takes a connection and does not read holds up nobody either.
func TestASinkThatDoesNotRead(t *testing.T) {
	p := newPeer(t, "unix", filepath.Join(t.TempDir(), "sink"), nil)
	p.setDeaf(true)
	sinks := open(t, Config{Targets: []Target{p.target}, QueueBytes: 50_000})
	l := newLog(t, sinks)
	must(t, l.StartBoot(t.Context()))
	within(t, 20*time.Second, "writing to a deaf sink", func() {
		for sinks.Stats()[0].Dropped == 0 {
			l.add(t, 100)
		}
	})
	within(t, 5*time.Second, "a flush of 100 ms", func() {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if sinks.Flush(ctx) == nil {
			t.Error("a flush to a deaf sink says that all was sent")
		}
	})
	p.setDeaf(false)
	p.hangUp()
	ms := p.wait("a word of the gap", hasID("GAP"))
	if _, missing := deduplicated(t, ms); missing != int64(sinks.Stats()[0].Dropped) {
		t.Errorf("%d missing, %+v", missing, sinks.Stats())
	}
	within(t, 5*time.Second, "a close of 100 ms", func() {
		p.setDeaf(true)
		p.hangUp()
		l.add(t, 2000)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		sinks.Close(ctx)
	})
}

// However often the connection breaks, every record comes, in order.
func TestConnectionsThatBreak(t *testing.T) {
	cert, ca := pair(t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	p := newPeer(t, "tls", "127.0.0.1:0", cert)
	sinks := open(t, Config{Targets: []Target{p.target}, Roots: roots})
	l := newLog(t, sinks)
	must(t, l.StartBoot(t.Context()))
	for i := range 20 {
		l.add(t, 50)
		if i%4 == 3 {
			p.wait("a record", func(ms []*rfc5424.SyslogMessage) bool { return len(ms) > 0 })
		}
		p.hangUp()
	}
	ms := p.wait("the last record", hasLeaf(1001))
	if records, missing := deduplicated(t, ms); records != 1002 || missing != 0 {
		t.Errorf("%d records, %d missing", records, missing)
	}
}

// T181: who cannot show a certificate of the CA for the name asked for gets nothing.
func TestThreat_T181_TLSPeersAreKnown(t *testing.T) {
	cert, ca := pair(t)
	_, otherCA := pair(t)
	for name, c := range map[string]struct {
		ca   []byte
		addr string
	}{
		"another CA":   {otherCA, "127.0.0.1"},
		"another name": {ca, "127.0.0.2"}, // all of 127/8 is loopback, and the certificate is for .1
	} {
		t.Run(name, func(t *testing.T) {
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(c.ca)
			p := newPeer(t, "tls", c.addr+":0", cert)
			var told operatorLog
			sinks := open(t, Config{Targets: []Target{p.target}, Roots: roots, Logger: told.logger()})
			l := newLog(t, sinks)
			must(t, l.StartBoot(t.Context()))
			for end := time.Now().Add(patience); sinks.Stats()[0].Disconnected < 3 && time.Now().Before(end); time.Sleep(time.Millisecond) {
			}
			if st := sinks.Stats()[0]; st.Disconnected < 3 || st.Sent > 0 || len(p.got()) > 0 || !strings.Contains(told.String(), "x509") {
				t.Errorf("%+v, %d messages, %s", st, len(p.got()), told.String())
			}
		})
	}
}

// A peer that wants to know who sends is shown the certificate there is.
func TestClientCertificates(t *testing.T) {
	cert, ca := pair(t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	for _, shown := range []bool{true, false} {
		p := newPeer(t, "tls", "127.0.0.1:0", cert, func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert })
		cfg := Config{Targets: []Target{p.target}, Roots: roots}
		asked := make(chan struct{}, 100)
		cfg.Certificate = func() (*tls.Certificate, error) {
			select {
			case asked <- struct{}{}:
			default:
			}
			if !shown {
				return nil, errors.New("there is none today")
			}
			return cert, nil
		}
		sinks := open(t, cfg)
		l := newLog(t, sinks)
		must(t, l.StartBoot(t.Context()))
		<-asked
		if shown {
			p.wait("the boot", hasLeaf(1))
			continue
		}
		<-asked // and it tries again
		if len(p.got()) > 0 || sinks.Stats()[0].Sent > 0 {
			t.Error("a peer that was shown nothing got records")
		}
	}
}

// Flush and Close return when all is sent; what comes after Close is not taken.
func TestFlushAndClose(t *testing.T) {
	p := newPeer(t, "tcp", "127.0.0.1:0", nil)
	sinks := open(t, Config{Targets: []Target{p.target}})
	l := newLog(t, sinks)
	must(t, l.StartBoot(t.Context()))
	l.add(t, 500)
	sinks.Say(audit.Origin(l.eid), "WIPE", "the module is being wiped")
	must(t, sinks.Flush(t.Context()))
	if st := sinks.Stats()[0]; st.Sent != 502 || st.QueuedBytes != 0 {
		t.Errorf("after a flush: %+v", st)
	}
	ms := p.wait("the wipe", hasID("WIPE"))
	if last := ms[len(ms)-1]; *last.MsgID != "WIPE" || *last.Severity != severityWarning {
		t.Errorf("the last message is %v", last)
	}
	l.add(t, 500)
	sinks.Close(t.Context())
	p.wait("the last record", hasLeaf(1001))
	l.add(t, 1)
	if st := sinks.Stats()[0]; st.Sent != 1002 || st.QueuedBytes != 0 {
		t.Errorf("after Close: %+v", st)
	}
}

func TestTargets(t *testing.T) {
	for text, want := range map[string]string{
		"tcp://log.example:514": "tcp://log.example:514", "tls://log.example": "tls://log.example:6514", "tls://[::1]:99": "tls://[::1]:99",
		"unix:///run/log": "unix:///run/log", "unixgram:///dev/log": "unixgram:///dev/log",
	} {
		got, err := ParseTarget(text)
		if err != nil || got.String() != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
		if again, err := ParseTarget(got.String()); err != nil || again != got {
			t.Errorf("%s: %v, %v", got, again, err)
		}
	}
	for _, text := range []string{
		"", "log.example:514", "udp://log.example:514", "tcp://log.example", "tcp://:514", "tls://", "tcp://a:1/path", "tcp://user:secret@a:1",
		"tcp://a:1?x=y", "tcp://a:1#f", "unix://run/log", "unixgram://", "unix:run/log", "unix:///a,b", "tcp:a:1", "tcp://a:port",
	} {
		if got, err := ParseTarget(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
	for text, want := range map[string]bool{"tcp://10.1.1.1:514": true, "tcp://log.example:514": true, "tcp://127.0.0.1:514": false, "tcp://localhost:1": false, "tls://log.example": false, "unix:///x": false} {
		if target, err := ParseTarget(text); err != nil || target.Open() != want {
			t.Errorf("%s is open: %v, %v", text, target.Open(), err)
		}
	}
}

// A host's name that does not fit a message is left out.
func TestHostnames(t *testing.T) {
	for name, want := range map[string]string{"a.example": "a.example", "": "-", "two words": "-", "größe": "-", strings.Repeat("x", 256): "-"} {
		if got := newHead(name, 1).hostname; got != want {
			t.Errorf("%q: %q", name, got)
		}
	}
}

// BenchmarkRecords is what a sink costs whoever writes the log.
func BenchmarkRecords(b *testing.B) {
	p := newPeer(b, "tcp", "127.0.0.1:0", nil)
	p.setDeaf(true)
	lines := []byte(strings.Repeat("x", 99) + "\n")
	for name, target := range map[string]Target{"up, not reading": p.target, "down": {"tcp", deadPort(b)}} {
		b.Run(name, func(b *testing.B) {
			sinks := open(b, Config{Targets: []Target{target}})
			b.ReportAllocs()
			for i := range b.N {
				sinks.Records(audit.Written{Origin: "softhem/00", File: "00000000", Leaf: int64(i), Lines: lines})
			}
		})
	}
}

// BenchmarkAppend is what sinks cost an appender, where the disk is not waited for.
func BenchmarkAppend(b *testing.B) {
	reading, deaf := newPeer(b, "tcp", "127.0.0.1:0", nil), newPeer(b, "tcp", "127.0.0.1:0", nil)
	deaf.setDeaf(true)
	for _, c := range []struct {
		name    string
		targets []Target
	}{
		{"no sink", nil}, {"down", []Target{{"tcp", deadPort(b)}}}, {"not reading", []Target{deaf.target}}, {"reading", []Target{reading.target}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var sink audit.Sink
			if c.targets != nil {
				sink = open(b, Config{Targets: c.targets})
			}
			l := newLog(b, sink)
			must(b, l.StartBoot(b.Context()))
			b.ReportAllocs()
			b.ResetTimer()
			l.add(b, b.N)
		})
	}
}

func deadPort(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}
