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
	"time"

	"softhem/api"
)

const (
	maxAnswerBytes = 1 << 20          // of every answer but a log file
	maxBodyBytes   = 7300             // of a request's JSON; the protocol's limit
	maxDrainBytes  = 64 << 10         // of a refusal's body, so that the connection can be used again
	maxRetryAfter  = 90 * time.Second // longer waits are left to the caller
)

// A call is one request as the protocol knows it.
type call struct {
	op     string // in words, for errors
	method string
	path   string
	body   []byte // JSON, or nil
	file   string // not empty: body is raw, and a file of this name

	// freshOpen marks an endpoint that wants a token, except on a module that
	// has not been personalised and could not issue one.
	freshOpen bool
}

func (r call) where() string { return r.method + " " + r.path }

func (r call) fail(err error) error { return &OpError{Op: r.op, Path: r.where(), Err: err} }

// exchange sends r once and returns the answer if it is a success. Every path to
// the network goes through here.
func (c *Client) exchange(ctx context.Context, h *http.Client, base *url.URL, r call, bearer Bearer) (*http.Response, error) {
	target := *base
	target.Path += r.path
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body) // of known length, and net/http can rewind it
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target.String(), body)
	if err != nil {
		return nil, r.fail(err)
	}
	req.Header.Set("Accept", "*/*")
	switch {
	case r.file != "":
		req.Header.Set("Content-Type", "application/octet-stream")
		req.Header.Set("Content-Disposition", `attachment; filename="`+r.file+`"`)
	case r.body != nil:
		req.Header.Set("Content-Type", "application/json")
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+string(bearer))
	}
	resp, err := h.Do(req)
	if err != nil {
		return nil, unreachable(r.op, r.where(), base, err)
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, maxDrainBytes) // whether it succeeds does not matter
	return nil, r.fail(refusal(resp, c.cfg.Now()))
}

// send is exchange with the module, and once more when it asked to wait.
func (c *Client) send(ctx context.Context, r call, bearer Bearer) (*http.Response, error) {
	resp, err := c.exchange(ctx, c.module, c.base, r, bearer)
	if c.waitRetry(ctx, err) {
		return c.exchange(ctx, c.module, c.base, r, bearer)
	}
	return resp, err
}

// waitRetry waits as long as err, if it is a 429, asks for, and tells whether to
// try again. It does not begin a wait that ctx would cut off: the caller
// learns more from the 429.
func (c *Client) waitRetry(ctx context.Context, err error) bool {
	refused, ok := errors.AsType[*api.Error](err)
	if !ok || refused.Status != http.StatusTooManyRequests || refused.RetryAfter <= 0 || refused.RetryAfter > maxRetryAfter {
		return false
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= refused.RetryAfter {
		return false
	}
	c.cfg.Progress(StageWait)
	timer := time.NewTimer(refused.RetryAfter)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// authorised sends r with a token of scope, and logs in anew, once, if the module
// refuses it: tokens die at every reboot.
func (c *Client) authorised(ctx context.Context, r call, scope string) (*http.Response, error) {
	token, err := c.token(ctx, scope)
	if err != nil {
		if !r.freshOpen || !errors.Is(err, api.ErrConflict) {
			return nil, err
		}
		// 409 on a login: not personalised, or failed. Only the former lets us in
		// without a token.
		resp, bare := c.send(ctx, r, "")
		if errors.Is(bare, api.ErrUnauthorized) {
			return nil, err
		}
		return resp, bare
	}
	resp, err := c.send(ctx, r, token.Bearer)
	if !c.canLogin() || !errors.Is(err, api.ErrUnauthorized) {
		return resp, err
	}
	c.discard(ctx, scope, token)
	if token, err = c.token(ctx, scope); err != nil {
		return nil, err
	}
	return c.send(ctx, r, token.Bearer)
}

// get reads an open endpoint into out.
func (c *Client) get(ctx context.Context, op, path string, out any) error {
	r := call{op: op, method: http.MethodGet, path: path}
	resp, err := c.send(ctx, r, "")
	return c.read(resp, err, c.base, r, out)
}

// getAs reads an endpoint that wants a token of scope into out.
func (c *Client) getAs(ctx context.Context, op, path, scope string, out any) error {
	r := call{op: op, method: http.MethodGet, path: path}
	resp, err := c.authorised(ctx, r, scope)
	return c.read(resp, err, c.base, r, out)
}

// post sends in to an open endpoint and reads the answer into out.
func (c *Client) post(ctx context.Context, op, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return &OpError{Op: op, Err: err}
	}
	return c.postRaw(ctx, op, path, body, out)
}

// postRaw is post with a body that is JSON already and must not be touched.
func (c *Client) postRaw(ctx context.Context, op, path string, body []byte, out any) error {
	r := call{op: op, method: http.MethodPost, path: path, body: body}
	resp, err := c.send(ctx, r, "")
	return c.read(resp, err, c.base, r, out)
}

// heldScope picks, of scopes that open the same endpoint, the first that a live
// token is at hand for, and the first of all when there is none: a token that
// someone was given, or confirmed on a phone, saves them the next.
func (c *Client) heldScope(ctx context.Context, scopes ...string) string {
	for _, scope := range scopes {
		if t, ok := c.held(ctx, scope); ok && !t.due(c.cfg.Now(), c.cfg.RenewBefore) {
			return scope
		}
	}
	return scopes[0]
}

// postAs sends in to an endpoint that wants a token of scope and reads the
// answer into out.
func (c *Client) postAs(ctx context.Context, op, path, scope string, in, out any) error {
	r, err := postCall(op, path, in)
	if err != nil {
		return err
	}
	resp, err := c.authorised(ctx, r, scope)
	return c.read(resp, err, c.base, r, out)
}

// postCall makes the request of a POST. A body that every module refuses with
// 413, which also closes the connection, is not sent.
func postCall(op, path string, in any) (call, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return call{}, &OpError{Op: op, Err: err}
	}
	if len(body) > maxBodyBytes {
		return call{}, badArgument(op, "the request has %d bytes, and a module takes %d; the data must be shorter", len(body), maxBodyBytes)
	}
	return call{op: op, method: http.MethodPost, path: path, body: body}, nil
}

// badArgument is the error of a call that is not sent.
func badArgument(op, format string, args ...any) error {
	return &OpError{Op: op, Err: fmt.Errorf("%w: "+format, append([]any{ErrArgument}, args...)...)}
}

// badAnswer is the error of an answer that is JSON, but not the right one.
func badAnswer(op, path, format string, args ...any) error {
	return &OpError{Op: op, Path: path, Err: fmt.Errorf("%w: "+format, append([]any{ErrProtocol}, args...)...)}
}

// read decodes the answer to r, of which base is the origin, into out; nil takes
// any answer. resp and err are what sending returned.
func (c *Client) read(resp *http.Response, err error, base *url.URL, r call, out any) error {
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	if err != nil {
		return unreachable(r.op, r.where(), base, err)
	}
	if len(body) > maxAnswerBytes {
		return r.fail(fmt.Errorf("%w: it is longer than %d bytes", ErrProtocol, maxAnswerBytes))
	}
	if out == nil {
		return nil
	}
	if json.Unmarshal(body, out) != nil {
		// The reason is left out: it could quote the answer.
		return r.fail(fmt.Errorf("%w: not the expected JSON", ErrProtocol))
	}
	return nil
}
