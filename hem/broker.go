package hem

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"softhem/api"
)

// BrokerConfig says which broker to talk to. Only URL is required.
type BrokerConfig struct {
	// URL is the broker's base address; /checkin and /notify follow it.
	URL string
	// HTTPClient, if not nil, does the exchanges; it is copied, and the copy
	// follows no redirects. nil makes one like that of [Config].
	HTTPClient *http.Client
	// CACert holds PEM certificates to trust besides the system's.
	CACert []byte
	// Now is the local clock; nil is [time.Now].
	Now func() time.Time
	// Poll is how long one request waits for news, at most 30 s, which 0 means.
	// A broker that answers at once, because it knows no waiting, is asked
	// again after a second.
	Poll time.Duration
	// Timeout is how long one answer may take, beside what it was asked to wait
	// for news; 0 is 30 s.
	Timeout time.Duration
}

// A Broker is a client of a broker: it carries messages between a module and the
// authenticators paired with it, and knows the time. Nothing here needs a token.
type Broker struct {
	cfg  BrokerConfig
	base *url.URL
	http *http.Client
}

// NewBroker checks cfg and makes a Broker. It does not connect.
func NewBroker(cfg BrokerConfig) (*Broker, error) {
	base, err := parseBase(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("hem.BrokerConfig: %w: URL %w", ErrArgument, err)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Poll <= 0 || cfg.Poll > maxPoll {
		cfg.Poll = maxPoll
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = answerTimeout
	}
	b := &Broker{cfg: cfg, base: base}
	if cfg.HTTPClient != nil {
		b.http = unredirected(*cfg.HTTPClient)
		return b, nil
	}
	var like Client
	if err := like.makeHTTPClients(Config{CACert: cfg.CACert}); err != nil {
		return nil, fmt.Errorf("hem.BrokerConfig: %w: %w", ErrArgument, err)
	}
	b.http = like.backend
	return b, nil
}

const (
	maxPoll       = 30 * time.Second
	shortPoll     = time.Second // between answers that came sooner than asked for
	answerTimeout = 30 * time.Second
)

// URL is the broker's base address.
func (b *Broker) URL() string { return b.base.String() }

// do sends one request and reads the answer into out. pending is a 202.
func (b *Broker) do(ctx context.Context, op, method, path, query string, in, out any) (pending bool, err error) {
	target := *b.base
	target.Path += path
	target.RawQuery = query
	return b.doAt(ctx, op, method, &target, in, out)
}

func (b *Broker) doAt(ctx context.Context, op, method string, target *url.URL, in, out any) (pending bool, err error) {
	return b.doAs(ctx, op, method, target.Path, target, in, out)
}

// doAs is doAt for a target whose path errors do not show; they show path.
func (b *Broker) doAs(ctx context.Context, op, method, path string, target *url.URL, in, out any) (pending bool, err error) {
	op += ", at the broker"
	where := method + " " + path
	limit := b.cfg.Timeout
	if target.RawQuery != "" { // it was asked to wait for news
		limit += b.cfg.Poll
	}
	caller := ctx
	ctx, end := context.WithTimeout(caller, limit)
	defer end()
	lost := func(err error) error {
		if ctx.Err() != nil && caller.Err() == nil {
			err = os.ErrDeadlineExceeded // ours, after which it can be asked again
		}
		return unreachable(op, where, target, err)
	}
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return false, &OpError{Op: op, Err: err}
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, target.String(), body)
	if err != nil {
		return false, &OpError{Op: op, Path: where, Err: err}
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := b.http.Do(req)
	if err != nil {
		return false, lost(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	if err != nil {
		return false, lost(err)
	}
	if len(raw) > maxAnswerBytes {
		return false, &OpError{Op: op, Path: where, Err: fmt.Errorf("%w: it is longer than %d bytes", ErrProtocol, maxAnswerBytes)}
	}
	if resp.StatusCode < 200 || resp.StatusCode >= 300 {
		refused := refusal(resp, b.cfg.Now())
		var why struct{ Err, Reason string }
		if refused.Reason == "" && json.Unmarshal(raw, &why) == nil {
			refused.Reason = printable(why.Err + why.Reason)
		}
		return false, &OpError{Op: op, Path: where, Err: refused}
	}
	if resp.StatusCode == http.StatusAccepted {
		return true, nil
	}
	if out != nil && json.Unmarshal(raw, out) != nil {
		return false, &OpError{Op: op, Path: where, Err: fmt.Errorf("%w: not the expected JSON", ErrProtocol)}
	}
	return false, nil
}

// poll asks until there is an answer, ctx ends, or the local clock reaches until.
func (b *Broker) poll(ctx context.Context, op, path string, until time.Time, out any) error {
	for {
		left := until.Sub(b.cfg.Now())
		if left <= 0 {
			return &OpError{Op: op, Err: ErrRemoteTimeout}
		}
		began := time.Now()
		seconds := max(int(min(b.cfg.Poll, left)/time.Second), 1)
		pending, err := b.do(ctx, op, http.MethodGet, path, fmt.Sprintf("wait=%d", seconds), nil, out)
		if !pending && !retriable(err) {
			return err
		}
		if time.Since(began) < shortPoll {
			select {
			case <-ctx.Done():
				return &OpError{Op: op, Err: ctx.Err()}
			case <-time.After(shortPoll):
			}
		}
	}
}

// retriable tells whether a poll may simply be sent again: the broker was too
// busy, or restarts.
func retriable(err error) bool {
	if refused, ok := errors.AsType[*api.Error](err); ok {
		return refused.Status == http.StatusTooManyRequests || refused.Status >= 500
	}
	_, lost := errors.AsType[*UnreachableError](err)
	return lost && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

var (
	// ErrDenied: a person refused on an authenticator.
	ErrDenied = errors.New("it was denied on the authenticator")
	// ErrRemoteTimeout: nobody answered on an authenticator in time.
	ErrRemoteTimeout = errors.New("nobody answered on an authenticator in time")
	// ErrNoAuthenticator: the broker knows no authenticator of the module that
	// could be asked.
	ErrNoAuthenticator = errors.New("no authenticator of this module is known to the broker; pair one first")
	// ErrPairingForged: the reply to a pairing was not made by who saw the QR
	// code. Nothing was paired.
	ErrPairingForged = errors.New("the reply was not made by the device that saw the QR code; nothing was paired")
)
