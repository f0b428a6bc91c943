package api

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// HeaderError is the response header in which a module may say, in a few
// words, why it refused. The bodies of errors are empty.
const HeaderError = "X-Hem-Error"

// HeaderBroker is the header of GET /api/system/version in which a module may
// name the base URL of the broker that its clients are to use.
const HeaderBroker = "X-Hem-Broker"

// An Error is a refusal as it crosses the wire: an HTTP status and at most a
// short reason. It is the only text of an error that a client ever sees, so
// what goes into Reason is decided where the error is made: nothing secret,
// nothing that tells one failed proof from another.
//
// Errors compare by status: errors.Is(err, api.ErrUnauthorized) is true for
// every 401.
type Error struct {
	Status     int           // HTTP status code
	Reason     string        // contents of X-Hem-Error; may be empty
	RetryAfter time.Duration // with 429: how long to wait; else 0
}

// The refusals of the protocol, one for each status a module answers with.
// Use [Error.Because] to give a reason.
var (
	ErrBadRequest     = &Error{Status: http.StatusBadRequest}
	ErrUnauthorized   = &Error{Status: http.StatusUnauthorized}
	ErrForbidden      = &Error{Status: http.StatusForbidden}
	ErrNotFound       = &Error{Status: http.StatusNotFound}
	ErrNotAcceptable  = &Error{Status: http.StatusNotAcceptable}
	ErrConflict       = &Error{Status: http.StatusConflict}
	ErrGone           = &Error{Status: http.StatusGone}
	ErrLengthRequired = &Error{Status: http.StatusLengthRequired}
	ErrOrigin         = &Error{Status: http.StatusPreconditionFailed}
	ErrTooLarge       = &Error{Status: http.StatusRequestEntityTooLarge}
	ErrTLSRequired    = &Error{Status: http.StatusTeapot}
	ErrTooMany        = &Error{Status: http.StatusTooManyRequests}
	ErrInternal       = &Error{Status: http.StatusInternalServerError}
)

// Meaning says in a sentence what a status of the protocol means, or returns
// "" for a status it does not use.
func Meaning(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "the module could not read the request: malformed JSON, or a field missing or invalid"
	case http.StatusUnauthorized:
		return "not authenticated: the token or the proof is missing, wrong or expired"
	case http.StatusForbidden:
		return "not allowed: wrong scope or role, or the module's clock is not set"
	case http.StatusNotFound:
		return "no such endpoint on this module, or no such file"
	case http.StatusNotAcceptable:
		return "cannot be done: unknown key, wrong key type, failed verification, duplicate or already initialised"
	case http.StatusConflict:
		return "the module is in the wrong state: not initialised, failed or busy"
	case http.StatusGone:
		return "the key repository is not ready"
	case http.StatusLengthRequired:
		return "the request must carry its Content-Length"
	case http.StatusPreconditionFailed:
		return "the module does not allow requests from this web origin"
	case http.StatusRequestEntityTooLarge:
		return "the request is larger than the module takes"
	case http.StatusTeapot:
		return "the module does this over TLS only"
	case http.StatusTooManyRequests:
		return "too many logins are waiting or have failed"
	case http.StatusInternalServerError:
		return "the module failed; its operator's log says why"
	}
	return ""
}

// Because returns a copy of e that carries a reason.
func (e *Error) Because(reason string) *Error {
	c := *e
	c.Reason = reason
	return &c
}

// Becausef is Because with a format.
func (e *Error) Becausef(format string, args ...any) *Error {
	return e.Because(fmt.Sprintf(format, args...))
}

func (e *Error) Error() string {
	text := Meaning(e.Status)
	if text == "" {
		text = "unexpected answer"
	}
	if e.Reason != "" {
		text = e.Reason + " (" + text + ")"
	}
	return fmt.Sprintf("HTTP %d: %s", e.Status, text)
}

// Is makes errors of one status equal.
func (e *Error) Is(target error) bool {
	var t *Error
	return errors.As(target, &t) && t.Status == e.Status
}
