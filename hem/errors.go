package hem

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"softhem/api"
)

var (
	// ErrProtocol marks an answer that does not follow the protocol: whatever
	// answers at the URL, it is hardly a module.
	ErrProtocol = errors.New("the answer does not follow the HEM protocol")

	// ErrOtherModule marks an answer of a module other than [Config.EID].
	ErrOtherModule = errors.New("another module answers than the pinned one")

	// ErrArgument marks a call that was not sent because an argument is wrong.
	ErrArgument = errors.New("invalid argument")

	// ErrVerification is returned by the verifying calls when the module did
	// not confirm a signature or MAC. It answers all of them with one status, so that
	// the error does not tell a wrong signature from an unknown key, or from one
	// of the wrong type. Whatever the cause, the data is not to be trusted.
	ErrVerification = errors.New("not verified: the signature or MAC is wrong, or the module has no such key for it")

	// ErrKeyType marks a key whose type cannot do what was asked of it.
	ErrKeyType = errors.New("the key is of a type that cannot do this")

	// ErrDigest is returned by [Signer.Sign] for a message that was hashed
	// already. A module hashes what it signs, and signs no digests: use
	// [Signer.SignMessage] or [crypto.SignMessage].
	ErrDigest = errors.New("a module cannot sign a digest, it hashes the message itself; use SignMessage")

	// ErrForgotten is returned when a [PersonaKey] is used after it was wiped.
	ErrForgotten = errors.New("the key has been wiped")
)

// An OpError says which operation failed, and at which endpoint. Err is an
// [*api.Error] when the module refused.
type OpError struct {
	Op   string // what was attempted, in words
	Path string // method and URL path; empty when nothing was sent
	Err  error
}

func (e *OpError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("%s: %v", e.Op, e.Err)
	}
	return fmt.Sprintf("%s: %s: %v", e.Op, e.Path, e.Err)
}

func (e *OpError) Unwrap() error { return e.Err }

// An UnreachableError says that no answer came: nothing listens there, the
// certificate is not trusted, the connection broke or time ran out. Whether
// the module did what was asked is unknown when the connection broke late.
type UnreachableError struct {
	Op   string // what was attempted, in words
	URL  string // scheme and host
	Hint string // a sentence on the cause, and what to do next
	Err  error
}

func (e *UnreachableError) Error() string {
	// net/http quotes what the other end sent, at any length.
	return fmt.Sprintf("%s: %s cannot be reached: %s (%s)", e.Op, e.URL, e.Hint, printable(e.Err.Error()))
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// unreachable turns what net/http reports into the package's errors.
func unreachable(op, path string, base *url.URL, err error) error {
	// url.Error repeats method and URL, which the wrappers say already.
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	if errors.Is(err, context.Canceled) {
		return &OpError{Op: op, Path: path, Err: context.Canceled}
	}
	return &UnreachableError{Op: op, URL: base.Scheme + "://" + base.Host, Hint: hint(err), Err: err}
}

func hint(err error) string {
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "its certificate is for another name; use a name the certificate holds, or have the module issue one for this name"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "its certificate comes from an authority that is not trusted here; give the module's CA certificate (ca.pem)"
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "its certificate is not valid; check both clocks and give the module's CA certificate (ca.pem)"
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "it does not speak TLS at this port; check the port, or use http:// for the plain listener"
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return "it refused the TLS handshake; TLS 1.3 is required"
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "its name cannot be resolved; check the URL"
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return "it did not answer in time; check the address and the network, or allow more time"
	}
	switch {
	case errors.Is(err, http.ErrSchemeMismatch):
		return "it does not speak TLS at this port; check the port, or use http:// for the plain listener"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there; is the module running, and is the port right?"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection was closed before the answer was complete; the module may be restarting, try again"
	}
	return "the connection failed; check the URL and the network"
}

const maxReasonChars = 200 // of text the other end chose

// refusal reads an answer that is not a success. Its body is not looked at.
func refusal(resp *http.Response, now time.Time) *api.Error {
	e := &api.Error{Status: resp.StatusCode, Reason: printable(resp.Header.Get(api.HeaderError))}
	if e.Status >= 300 && e.Status < 400 {
		e.Reason = "a redirect, which is not followed: it could lead the token elsewhere"
	}
	if e.Status == http.StatusTooManyRequests {
		e.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), now)
	}
	return e
}

// printable keeps a hostile server from writing to the user's terminal.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	if len(s) > maxReasonChars {
		s = s[:maxReasonChars] + "..."
	}
	return s
}

// retryAfter reads the header of that name (RFC 9110 section 10.2.3), 0 when
// it is absent, unreadable or in the past.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}
