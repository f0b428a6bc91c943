// Package load measures a module from outside: prepared requests over
// keep-alive connections, TLS 1.3, reading just enough of each answer, so that
// what is measured is the server. It holds the cases that hem bench and the
// benchmarks share, and the ceiling they are compared with: a bare net/http
// handler behind the same TLS that does the same primitive on the same JSON.
package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Conn is one keep-alive connection. It serves one goroutine.
type Conn struct {
	net.Conn
	r    *bufio.Reader
	body []byte
}

// A Target is a server to be measured.
type Target struct {
	Addr   string      // host:port
	TLS    *tls.Config // whom to believe; it is not changed. nil: no TLS
	Host   string      // for the header of that name
	Prefix string      // before every path
}

// TargetOf reads a base URL, such as https://localhost:8443.
func TargetOf(base string, cfg *tls.Config) (Target, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return Target{}, errors.New("keys are used over TLS only: the address must begin with https://")
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	cfg = cfg.Clone()
	cfg.ServerName = u.Hostname()
	return Target{
		Addr: net.JoinHostPort(u.Hostname(), port), TLS: cfg, Host: u.Host, Prefix: strings.TrimRight(u.EscapedPath(), "/"),
	}, nil
}

// Dial connects, with HTTP/1.1 and TLS 1.3.
func (t Target) Dial() (*Conn, error) {
	if t.TLS == nil {
		c, err := net.DialTimeout("tcp", t.Addr, 10*time.Second)
		if err != nil {
			return nil, err
		}
		return &Conn{Conn: c, r: bufio.NewReader(c)}, nil
	}
	cfg := t.TLS.Clone()
	cfg.NextProtos, cfg.MinVersion = []string{"http/1.1"}, tls.VersionTLS13
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", t.Addr, cfg)
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: c, r: bufio.NewReader(c)}, nil
}

// DialAll makes n connections.
func (t Target) DialAll(n int) ([]*Conn, error) {
	conns := make([]*Conn, 0, n)
	for range n {
		c, err := t.Dial()
		if err != nil {
			CloseAll(conns)
			return nil, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

// CloseAll closes connections.
func CloseAll(conns []*Conn) {
	for _, c := range conns {
		c.Close()
	}
}

// A StatusError is an answer other than 200.
type StatusError struct {
	Status int
	Reason string // of X-Hem-Error
}

func (e *StatusError) Error() string {
	if e.Reason != "" {
		return fmt.Sprintf("HTTP %d (%s)", e.Status, e.Reason)
	}
	return fmt.Sprintf("HTTP %d", e.Status)
}

const maxAnswer = 1 << 20 // bytes

// Do sends a prepared request and returns the body of a 200, which is good
// until the next Do. Another status is a *StatusError, and the connection can
// be used on.
func (c *Conn) Do(request []byte) ([]byte, error) {
	if _, err := c.Write(request); err != nil {
		return nil, err
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	if len(line) < 12 {
		return nil, fmt.Errorf("not an HTTP answer: %q", line)
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return nil, fmt.Errorf("not an HTTP answer: %q", line)
	}
	length, reason := 0, ""
	for {
		h, err := c.r.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		if len(h) <= 2 {
			break
		}
		if v, found := strings.CutPrefix(string(h), "Content-Length: "); found {
			if length, err = strconv.Atoi(strings.TrimSpace(v)); err != nil {
				return nil, err
			}
			if length < 0 || length > maxAnswer {
				return nil, fmt.Errorf("an answer of %d bytes", length)
			}
		}
		if v, found := strings.CutPrefix(string(h), "X-Hem-Error: "); found {
			reason = strings.TrimSpace(v)
		}
	}
	c.body = slices.Grow(c.body[:0], length)[:length]
	if _, err := io.ReadFull(c.r, c.body); err != nil {
		return nil, err
	}
	if status != 200 {
		return nil, &StatusError{status, reason}
	}
	return c.body, nil
}

// Request prepares a request with a JSON body, or with none when body is nil
// and the method is not POST. bearer may be empty.
func (t Target) Request(method, path, bearer string, body []byte) []byte {
	b := fmt.Appendf(nil, "%s %s%s HTTP/1.1\r\nHost: %s\r\n", method, t.Prefix, path, t.Host)
	if bearer != "" {
		b = fmt.Appendf(b, "Authorization: Bearer %s\r\n", bearer)
	}
	if body != nil || method == "POST" {
		b = fmt.Appendf(b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	return append(append(b, "\r\n"...), body...)
}

// A Bound ends a run: after so many operations, or after so much time;
// whatever is not 0 and comes first.
type Bound struct {
	Count int64
	Time  time.Duration
}

// A Result is what a run measured.
type Result struct {
	Count    int64
	Took     time.Duration
	P50, P99 time.Duration
	Worst    time.Duration

	each []time.Duration // sorted
}

// add makes r the result of two runs.
func (r *Result) add(other Result) {
	r.Took += other.Took
	r.sum(append(r.each, other.each...))
}

// sum fills in what follows from the times of all operations.
func (r *Result) sum(each []time.Duration) {
	slices.Sort(each)
	r.each = each
	if r.Count = int64(len(each)); r.Count > 0 {
		r.P50, r.P99, r.Worst = each[len(each)/2], each[len(each)*99/100], each[len(each)-1]
	}
}

// Rate is operations in a second.
func (r Result) Rate() float64 { return float64(r.Count) / r.Took.Seconds() }

// Run has workers do operations at the same time until the bound, the end of
// ctx, or the first error, which it returns. op is told which worker it runs
// for, and which operation of all it is.
func Run(ctx context.Context, workers int, until Bound, op func(worker int, i int64) error) (Result, error) {
	if until.Count == 0 && until.Time == 0 {
		return Result{}, errors.New("a run without an end")
	}
	if until.Time > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, until.Time)
		defer cancel()
	}
	took := make([][]time.Duration, workers)
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	begin := time.Now()
	for w := range workers {
		wg.Go(func() {
			for ctx.Err() == nil && failed.Load() == nil {
				i := next.Add(1) - 1
				if until.Count > 0 && i >= until.Count {
					return
				}
				start := time.Now()
				if err := op(w, i); err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				took[w] = append(took[w], time.Since(start))
			}
		})
	}
	wg.Wait()
	r := Result{Took: time.Since(begin)}
	if err := failed.Load(); err != nil {
		return r, *err
	}
	r.sum(slices.Concat(took...))
	return r, nil
}

// Compare runs two operations by turns, a piece of the bound at a time, so that
// what else the machine is busy with weighs on both alike.
func Compare(ctx context.Context, workers int, until Bound, one, other func(worker int, i int64) error) (a, b Result, err error) {
	turns := int64(10)
	if until.Count > 0 {
		turns = min(turns, until.Count)
	}
	for t := range turns {
		piece := Bound{Count: until.Count*(t+1)/turns - until.Count*t/turns, Time: until.Time / time.Duration(turns)}
		for _, side := range []struct {
			op func(worker int, i int64) error
			to *Result
		}{{one, &a}, {other, &b}} {
			r, err := Run(ctx, workers, piece, side.op)
			if err != nil {
				return a, b, err
			}
			side.to.add(r)
		}
	}
	return a, b, nil
}
