package server_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/module"
	"softhem/internal/seal"
	"softhem/internal/server"
	"softhem/internal/syslog"
)

// collector is a syslog server on a unix socket that keeps what comes.
type collector struct {
	target syslog.Target
	got    lockedBuffer
	lis    net.Listener
	deaf   bool
	first  chan struct{} // closed by the first connection
}

func collect(t *testing.T, deaf bool) *collector {
	t.Helper()
	dir, err := os.MkdirTemp("", "sink") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &collector{deaf: deaf, first: make(chan struct{})}
	if c.target, err = syslog.ParseTarget("unix://" + filepath.Join(dir, "s")); err != nil {
		t.Fatal(err)
	}
	if c.lis, err = net.Listen("unix", filepath.Join(dir, "s")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.lis.Close() })
	go func() {
		var conns []net.Conn // else what is not read is closed by the garbage collector
		for {
			conn, err := c.lis.Accept()
			if err != nil {
				for _, conn := range conns {
					conn.Close()
				}
				return
			}
			if conns = append(conns, conn); len(conns) == 1 {
				close(c.first)
			}
			if !c.deaf {
				go func() { _, _ = io.Copy(&c.got, conn) }()
			}
		}
	}()
	return c
}

// wait waits for texts to come in this order.
func (c *collector) wait(t *testing.T, texts ...string) string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		all := c.got.text()
		rest, found := all, 0
		for _, text := range texts {
			_, after, ok := strings.Cut(rest, text)
			if !ok {
				break
			}
			rest, found = after, found+1
		}
		if found == len(texts) {
			return all
		}
		if time.Now().After(deadline) {
			t.Fatalf("the sink did not get %q; it has\n%s", texts[found], all)
		}
	}
}

// T182: a sink hears of a wipe before anything is destroyed, and of the log of the
// fresh module after it.
func TestThreat_T182_SinksHearOfAWipe(t *testing.T) {
	ctx := context.Background()
	c := collect(t, false)
	cfg := testConfig(filepath.Join(t.TempDir(), "data"))
	cfg.AuditSyslog = []syslog.Target{c.target}
	cfg.MetricsAddr = "127.0.0.1:0"
	s := start(t, cfg)
	user, master := loadKeys(t)
	o := own(t, await(t, "https://"+s.Addresses().HTTPS, s.CAFile(), "", user), user, master)
	if err := o.client.Wipe(ctx); err != nil {
		t.Fatal(err)
	}
	// The answer left after the destruction, which came after the notice.
	all := c.got.text()
	if !strings.Contains(all, "WIPE [softhem@32473 eid=\""+o.eid+"\"] the module is being wiped") {
		t.Errorf("the wipe is answered, and the sink has\n%s", all)
	}
	await(t, "https://"+s.Addresses().HTTPS, s.CAFile(), o.eid, user)
	all = c.wait(t, "DEVICE_INITED", "CONFIG_UPDATED", "WIPE", "FILE", "KEY_INIT", fmt.Sprintf("eid=%q", s.Module().EID()))
	if strings.Count(all, "FILE [") != 2 {
		t.Errorf("the sink has\n%s", all)
	}
	resp, err := http.Get("http://" + s.Addresses().Metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	for _, want := range []string{"up", "queued_bytes", "records_sent_total", "records_dropped_total", "failures_total"} {
		if !strings.Contains(string(text), fmt.Sprintf("softhem_audit_sink_%s{sink=%q}", want, c.target)) {
			t.Errorf("no metric %s in\n%s", want, text)
		}
	}
	if !strings.Contains(string(text), fmt.Sprintf("softhem_audit_sink_up{sink=%q} 1", c.target)) {
		t.Error("the sink is not up")
	}
}

// T180: neither a sink that is dead nor one that takes a connection and never
// reads holds up an operation; a wipe waits for two seconds and goes on, and the
// process ends in time.
func TestThreat_T180_SinksHoldUpNobody(t *testing.T) {
	ctx := context.Background()
	dead, deaf := collect(t, false), collect(t, true)
	dead.lis.Close()
	cfg := testConfig("")
	cfg.AuditSyslog = []syslog.Target{dead.target, deaf.target}
	s, err := server.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	user, master := loadKeys(t)
	o := own(t, await(t, "https://"+s.Addresses().HTTPS, s.CAFile(), "", user), user, master)
	<-deaf.first
	kid, err := o.client.CreateKey(ctx, hem.KeySpec{Label: "busy", Type: api.Ed25519})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for range 800 { // more than the buffers of a socket take, so that the sink is stuck
		if _, err := o.client.Sign(ctx, kid, []byte("message"), api.AlgEd25519, nil); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("operations took %s", took)
	}
	start = time.Now()
	if err := o.client.Wipe(ctx); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 10*time.Second || took < 2*time.Second {
		t.Errorf("the wipe took %s; a sink that does not read has two seconds", took)
	}
	start = time.Now()
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("the end took %s", took)
	}
}

// On an EPA, which does not give its files away, a sink is how its log is got.
func TestAnEPAHasSinks(t *testing.T) {
	c := collect(t, false)
	cfg := testConfig("")
	cfg.Profile = module.EPA
	cfg.AuditSyslog = []syslog.Target{c.target}
	start(t, cfg)
	c.wait(t, "FILE [softhem@32473 eid=", "# softhem", "KEY_INIT", "STARTUP", "SELFTEST_PASSED")
}

// What cannot work is said before anything is touched.
func TestSinkSettings(t *testing.T) {
	parse := func(text string) syslog.Target {
		target, err := syslog.ParseTarget(text)
		if err != nil {
			t.Fatal(err)
		}
		return target
	}
	dir := t.TempDir()
	raw := filepath.Join(dir, "no.pem")
	if err := seal.CreateRoot(raw); err != nil {
		t.Fatal(err)
	}
	for want, set := range map[string]func(*server.Config){
		"named twice": func(c *server.Config) {
			c.AuditSyslog = []syslog.Target{parse("tcp://127.0.0.1:1"), parse("tcp://127.0.0.1:1")}
		},
		"both a certificate file and a key file": func(c *server.Config) {
			c.AuditSyslog, c.AuditSyslogKey = []syslog.Target{parse("tls://127.0.0.1:1")}, raw
		},
		"the certificate for syslog sinks cannot be used": func(c *server.Config) {
			c.AuditSyslog, c.AuditSyslogCert, c.AuditSyslogKey = []syslog.Target{parse("tls://127.0.0.1:1")}, raw, raw
		},
		"there is no sink on TLS": func(c *server.Config) {
			c.AuditSyslog, c.AuditSyslogCA = []syslog.Target{parse("tcp://127.0.0.1:1")}, raw
		},
		"no such file": func(c *server.Config) {
			c.AuditSyslog, c.AuditSyslogCA = []syslog.Target{parse("tls://127.0.0.1:1")}, filepath.Join(dir, "none")
		},
		"no certificate in": func(c *server.Config) {
			c.AuditSyslog, c.AuditSyslogCA = []syslog.Target{parse("tls://127.0.0.1:1")}, raw
		},
	} {
		cfg := testConfig("")
		set(&cfg)
		s, err := server.Start(t.Context(), cfg)
		if err == nil {
			t.Errorf("%s: it starts", want)
			_ = s.Stop(context.Background())
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
