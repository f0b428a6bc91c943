package httpapi

import (
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"softhem/api"
)

// unreadPatience is how long a connection is read on after a body was refused
// unread, so that a caller who is still sending gets to see the answer.
const unreadPatience = 500 * time.Millisecond

// fail is the one place where an error becomes an answer: a status, an empty
// body (but for an invalid field of the configuration), and a reason only where the error brought one for the caller. Anything
// that is not an api.Error is a 500 whose cause stays in the operator's log.
func (c *call) fail(err error) int {
	var told *api.Error
	if !errors.As(err, &told) {
		c.log.ErrorContext(c.ctx, "a request failed", "method", c.r.Method, "path", c.r.URL.Path, "error", err)
		told = api.ErrInternal
	}
	h := c.w.Header()
	h["Content-Type"] = c.typeJSON
	var body []byte
	if told.Status == http.StatusBadRequest && c.beside400 != nil {
		body, _ = json.Marshal(c.beside400) // a struct of plain fields
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if told.Reason != "" {
		h.Set(api.HeaderError, told.Reason)
	}
	if told.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(told.RetryAfter.Seconds()))))
	}
	c.drain()
	c.w.WriteHeader(told.Status)
	_, _ = c.w.Write(body)
	if told.Status == http.StatusRequestEntityTooLarge || told.Status == http.StatusLengthRequired {
		// The connection closes; whether a body still comes is not waited for.
		_ = http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(unreadPatience))
	}
	return told.Status
}

// maxUnread is how much is read, in bytes, of a body that is not wanted.
const maxUnread = 32 << 20

// drain reads, for a moment, what is left of a body over HTTP/2. Its stream would be
// reset after the answer, and curl, for one, then shows an error instead of it. Over HTTP/1.1
// net/http sees to that.
func (c *call) drain() {
	if c.r.ProtoMajor < 2 || c.r.ContentLength == 0 || c.cutOff {
		return
	}
	rc := http.NewResponseController(c.w)
	_ = rc.SetReadDeadline(time.Now().Add(unreadPatience))
	_, _ = io.CopyN(io.Discard, c.r.Body, maxUnread) // whoever is slower sees the reset
}
