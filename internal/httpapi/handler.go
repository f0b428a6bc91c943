// Package httpapi is the module on HTTP: a table of routes, one wrapper that
// every request passes through, and one place that writes errors.
package httpapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"softhem/api"
	"softhem/internal/module"
)

// Config says how requests are taken.
type Config struct {
	Module *module.Module
	// Proxies are peers whose X-Forwarded-Proto and X-Forwarded-For are
	// believed.
	Proxies []netip.Prefix
	// Broker is the base URL of the broker that clients are to use; empty:
	// none is named.
	Broker string
	// LoopbackOnly refuses requests whose Host or Origin is not loopback, so
	// that no web page can reach a development module by a name it controls.
	LoopbackOnly bool
	// DiagRemote lets others than this host use the diagnostics.
	DiagRemote bool
	// Shutdown ends the process; it is called after the answer has left.
	Shutdown func()
	// Wiped starts a fresh module in the place of this one, which was wiped; it
	// is called after the answer has left.
	Wiped func()
	// Blocked closes the listeners of the API until the process is started
	// again; it is called after the answer has left.
	Blocked func()
	// Observe is told of every answer to a known path, for metrics.
	Observe func(route string, status int, took time.Duration)
	Logger  *slog.Logger
}

// Handler serves the API.
type Handler struct {
	cfg    Config
	module *module.Module
	router *router
	log    *slog.Logger

	// Header values that every answer has; http.Header wants slices, and these
	// are shared instead of made each time. Nothing may append to them.
	typeJSON, noStore, noSniff, varyOrigin, hsts []string
}

// New makes the handler.
func New(cfg Config) *Handler {
	return &Handler{
		cfg: cfg, module: cfg.Module, router: newRouter(cfg.Module.Profile(), cfg.Module.Diag()), log: cfg.Logger,
		typeJSON: []string{"application/json"}, noStore: []string{"no-store"}, noSniff: []string{"nosniff"}, varyOrigin: []string{"Origin"},
		hsts: []string{"max-age=31536000"},
	}
}

// call is one request on its way through.
type call struct {
	*Handler
	ctx   context.Context
	w     http.ResponseWriter
	r     *http.Request
	pass  *module.Pass
	args  routeArgs
	after func() // runs when the answer has left
	// cutOff: the body took too long. net/http then takes the caller for gone, who
	// is still to be told.
	cutOff bool
	// beside400 is what a 400 carries where the protocol gives it a body.
	beside400 any
}

// nothing is an empty answer: 200 without a body.
type nothing struct{}

// text is an answer that is not JSON.
type text struct {
	content io.ReadCloser
	size    int64
}

// plain is content as such an answer.
func plain(content []byte, err error) (any, error) {
	return text{io.NopCloser(bytes.NewReader(content)), int64(len(content))}, err
}

func (c *call) shutdown() { c.cfg.Shutdown() }

// statusGone is what the metrics count for a caller that hung up.
const statusGone = 499

// ServeHTTP takes a request through the protocol's checks in their order:
// path 404, origin 412, size 413 and length 411, then what the module decides,
// then the body.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	c := &call{Handler: h, ctx: r.Context(), w: w, r: r}
	name, status := "", 0
	defer func() {
		v := recover()
		if v != nil && v != http.ErrAbortHandler {
			h.log.Error("a request made the program panic", "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
			if c.pass != nil { // its place must not stay taken
				ended, end := context.WithCancel(c.ctx)
				end()
				_ = c.pass.Leave(ended)
			}
			status = c.fail(errors.New("panic"))
		}
		if name != "" && h.cfg.Observe != nil {
			h.cfg.Observe(name, status, time.Since(start))
		}
		if c.after != nil {
			c.after()
		}
		if v == http.ErrAbortHandler { // no answer, or half of one: only the connection can say so
			panic(v)
		}
	}()
	header := w.Header()
	header["Cache-Control"], header["X-Content-Type-Options"], header["Vary"] = h.noStore, h.noSniff, h.varyOrigin
	header["Content-Type"] = h.typeJSON
	if h.module.HSTS() && c.caller().TLS { // RFC 6797 section 7.2: over TLS only
		header["Strict-Transport-Security"] = h.hsts
	}
	if !strings.HasPrefix(r.URL.Path, "/api/") && r.Method != http.MethodOptions {
		status = c.serveConsole()
		return
	}
	rt, answer, err := c.run()
	if rt != nil {
		name = rt.method + " " + rt.path
	}
	if c.pass != nil {
		_ = c.pass.Leave(c.ctx)
	}
	if c.ctx.Err() != nil && !c.cutOff {
		// Nobody waits for the answer. It must not end as an empty 200, which
		// net/http would make of it for a caller who closed one half only.
		c.discard(answer)
		status = statusGone
		panic(http.ErrAbortHandler)
	}
	if err != nil {
		status = c.fail(err)
		return
	}
	status = http.StatusOK
	if rt == nil {
		status = http.StatusNoContent // OPTIONS
	} else if rt.closes {
		w.Header().Set("Connection", "close")
	}
	if code, ok := answer.(bare); ok {
		status, answer = int(code), nil
	}
	c.write(status, answer)
}

// run checks a request and does what it asks. A nil route without an error is
// an OPTIONS request.
func (c *call) run() (*route, any, error) {
	h, r := c.Handler, c.r
	if h.cfg.LoopbackOnly && !isLoopbackName(r.Host) {
		return nil, nil, api.ErrNotFound.Because("this module answers to loopback names only")
	}
	var rt *route
	if r.Method != http.MethodOptions {
		var err error
		if rt, c.args, err = h.router.find(r); err != nil {
			return nil, nil, err
		}
	}
	if err := c.checkOrigin(); err != nil {
		return rt, nil, err
	}
	if rt == nil {
		c.preflight()
		return nil, nil, nil
	}
	if err := c.checkDiag(rt); err != nil {
		return rt, nil, err
	}
	maxBody := int64(maxJSONBody)
	if rt.maxBody != 0 {
		maxBody = rt.maxBody
	}
	if r.ContentLength > maxBody {
		c.w.Header().Set("Connection", "close")
		return rt, nil, api.ErrTooLarge.Becausef("a body has at most %d bytes", maxBody)
	}
	if r.ContentLength < 0 || r.Method == http.MethodPost && r.Header.Get("Content-Length") == "" && r.ContentLength == 0 {
		c.w.Header().Set("Connection", "close")
		return rt, nil, api.ErrLengthRequired.Because("send Content-Length, not chunks")
	}
	pass, err := h.module.Enter(c.ctx, rt.op, c.caller())
	if err != nil {
		return rt, nil, err
	}
	c.pass = pass
	answer, err := rt.serve(c)
	return rt, answer, err
}

// decoded reads the request's JSON and hands it to an operation.
func decoded[Req, Ans any](c *call, op func(context.Context, *module.Pass, Req) (Ans, error)) (any, error) {
	var req Req
	body, err := c.body()
	if err != nil {
		return nil, err
	}
	if err := c.module.Arrived(c.ctx, c.pass); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, errUnreadable
	}
	return op(c.ctx, c.pass, req)
}

// body reads the request's body, within the time the configuration gives it: who
// sends more slowly is cut off. The limit ends with the body, or it would cut off
// those whose answer is held back.
func (c *call) body() ([]byte, error) {
	body := make([]byte, c.r.ContentLength)
	limit := c.module.RequestLimit()
	if limit > 0 {
		_ = http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(limit))
		defer c.bodyEnds(answerPatience)
	}
	_, err := io.ReadFull(c.r.Body, body)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.cutOff = true
		c.w.Header().Set("Connection", "close")
		return nil, api.ErrBadRequest.Becausef("the body did not arrive within %v", limit)
	}
	if err != nil {
		return nil, api.ErrBadRequest.Because("the body ended early")
	}
	return body, nil
}

// bodyEnds is called when nothing more is wanted of a body that had time limits of its
// own: they must not cut off who waits for an answer. net/http reads what is left
// of a body before it answers, and would for as long as the caller keeps the connection: so
// there is a limit from here on, too. One that has passed stays.
func (c *call) bodyEnds(patience time.Duration) {
	if !c.cutOff {
		_ = http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(patience))
	}
}

// answerPatience is longer than any answer is held back.
const answerPatience = time.Minute

var errUnreadable = api.ErrBadRequest.Because("the body is not the JSON object this takes")

// confirmed is decoded for an operation whose success has nothing to tell: 200
// without a body.
func confirmed[Req any](c *call, op func(context.Context, *module.Pass, Req) error) (any, error) {
	return decoded(c, func(ctx context.Context, p *module.Pass, req Req) (any, error) { return nil, op(ctx, p, req) })
}

// caller is what the transport tells of who asks.
func (c *call) caller() module.Caller {
	peer, _ := netip.ParseAddrPort(c.r.RemoteAddr)
	who := module.Caller{Addr: peer.Addr().Unmap(), TLS: c.r.TLS != nil, Host: hostname(c.r.Host)}
	if c.trusted(who.Addr) {
		// The last value is the nearest proxy's; what stands before it may be
		// the caller's own.
		if protos := c.r.Header.Values("X-Forwarded-Proto"); len(protos) > 0 {
			last := protos[len(protos)-1]
			who.TLS = strings.EqualFold(strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:]), "https")
		}
		who.Addr = c.forwardedFor(who.Addr)
	}
	values := c.r.Header.Values("Authorization")
	for _, v := range values {
		scheme, token := v, ""
		if i := strings.IndexAny(v, " \t"); i >= 0 {
			scheme, token = v[:i], v[i+1:]
		}
		if strings.EqualFold(scheme, "Bearer") {
			// Two tokens are no token: the empty one is valid nowhere.
			who.HasBearer, who.Bearer = true, strings.TrimSpace(token)
			if len(values) > 1 {
				who.Bearer = ""
			}
		}
	}
	return who
}

func (c *call) trusted(peer netip.Addr) bool {
	for _, proxy := range c.cfg.Proxies {
		if proxy.Contains(peer) {
			return true
		}
	}
	return false
}

// forwardedFor walks X-Forwarded-For from its end, over proxies that are
// trusted, to the first address that is not: what stands before it was written
// by a stranger. A hop that cannot be read makes the caller unknown, which is
// never loopback.
func (c *call) forwardedFor(peer netip.Addr) netip.Addr {
	values := c.r.Header.Values("X-Forwarded-For")
	if len(values) == 0 {
		return peer
	}
	hops := strings.Split(strings.Join(values, ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop := strings.TrimSpace(hops[i])
		addr, err := netip.ParseAddr(strings.Trim(hop, "[]"))
		if err != nil { // some proxies add the port
			withPort, err := netip.ParseAddrPort(hop)
			if err != nil {
				return netip.Addr{}
			}
			addr = withPort.Addr()
		}
		peer = addr.Unmap().WithZone("")
		if !c.trusted(peer) {
			break
		}
	}
	return peer
}

// write sends a success.
func (c *call) write(status int, answer any) {
	header := c.w.Header()
	switch v := answer.(type) {
	case nil:
		if status != http.StatusNoContent {
			header.Set("Content-Length", "0")
		}
		c.w.WriteHeader(status)
	case nothing:
		header.Set("Content-Length", "0")
		c.w.WriteHeader(status)
		_ = http.NewResponseController(c.w).Flush()
	case text:
		defer v.content.Close()
		header.Set("Content-Type", "text/plain; charset=utf-8")
		header.Set("Content-Length", strconv.FormatInt(v.size, 10))
		c.w.WriteHeader(status)
		c.stream(v.content)
	default:
		body, err := json.Marshal(v)
		if err != nil {
			c.fail(err)
			return
		}
		header.Set("Content-Length", strconv.Itoa(len(body)))
		c.w.WriteHeader(status)
		_, _ = c.w.Write(body) // the caller may have gone
	}
}

// streamPatience is how long a reader of a file may take for each piece.
const streamPatience = 30 * time.Second

// stream copies a file piece by piece, each with a deadline of its own: a
// large log takes its time, a reader that stalls does not.
func (c *call) stream(from io.Reader) {
	rc := http.NewResponseController(c.w)
	piece := make([]byte, 64<<10)
	for {
		n, err := from.Read(piece)
		if n > 0 {
			_ = rc.SetWriteDeadline(time.Now().Add(streamPatience))
			if _, err := c.w.Write(piece[:n]); err != nil {
				return
			}
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			c.log.Error("a log file could not be read to its end", "error", err)
			panic(http.ErrAbortHandler) // the length that was promised is not kept
		}
	}
}

func (c *call) discard(answer any) {
	if v, ok := answer.(text); ok && v.content != nil {
		v.content.Close()
	}
}

// hostname is a Host without its port.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

func isLoopbackName(host string) bool {
	name := hostname(host)
	if strings.EqualFold(name, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.IsLoopback()
}
