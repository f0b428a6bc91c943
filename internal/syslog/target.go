package syslog

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A Target is where messages go.
//
//	tcp://HOST:PORT    RFC 6587, octet counting; everybody on the way can read and change it
//	tls://HOST[:PORT]  RFC 5425; port 6514 unless another is named
//	unix:///PATH       a stream socket, octet counting
//	unixgram:///PATH   a datagram socket, such as /dev/log
type Target struct {
	scheme, addr string
}

const defaultTLSPort = "6514" // RFC 5425, section 4.1

// ParseTarget reads a URL of one of the forms above and no other part: there is
// nothing secret to be told of a sink.
func ParseTarget(text string) (Target, error) {
	u, err := url.Parse(text)
	if err != nil {
		return Target{}, errors.New("want tcp://HOST:PORT, tls://HOST:PORT, unix:///PATH or unixgram:///PATH")
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" {
		return Target{}, errors.New("a sink has an address and nothing else: no user, no query, no fragment")
	}
	switch u.Scheme {
	case "tcp", "tls":
		host, port := u.Hostname(), u.Port()
		if port == "" && u.Scheme == "tls" {
			port = defaultTLSPort
		}
		if host == "" || port == "" || u.Path != "" {
			return Target{}, fmt.Errorf("want %s://HOST:PORT", u.Scheme)
		}
		if strings.ContainsAny(host, "\"\\],% \x00") {
			return Target{}, errors.New("this is no name of a host")
		}
		return Target{u.Scheme, net.JoinHostPort(host, port)}, nil
	case "unix", "unixgram":
		if u.Host != "" || !filepath.IsAbs(u.Path) || strings.ContainsAny(u.Path, ",\x00") {
			return Target{}, fmt.Errorf("want %s:///PATH, from the root and without commas", u.Scheme)
		}
		return Target{u.Scheme, u.Path}, nil
	}
	return Target{}, errors.New("want tcp://HOST:PORT, tls://HOST:PORT, unix:///PATH or unixgram:///PATH")
}

// String is the target as ParseTarget reads it.
func (t Target) String() string {
	if t.scheme == "unix" || t.scheme == "unixgram" {
		return (&url.URL{Scheme: t.scheme, Path: t.addr}).String()
	}
	return t.scheme + "://" + t.addr
}

// IsTLS tells whether the peer is known by its certificate.
func (t Target) IsTLS() bool { return t.scheme == "tls" }

// Open tells whether the messages go over a network that others may read.
func (t Target) Open() bool {
	host, _, err := net.SplitHostPort(t.addr)
	if t.scheme != "tcp" || err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host != "localhost" && (ip == nil || !ip.IsLoopback())
}

// framed tells whether the transport is a stream, in which each message is led
// by its length.
func (t Target) framed() bool { return t.scheme != "unixgram" }

const (
	dialTimeout  = 10 * time.Second
	writeTimeout = 10 * time.Second
)

// dial connects. secure is for TLS: whom the peer's certificate must come from, and
// what is shown to a peer that asks who is there.
func (t Target) dial(ctx context.Context, secure *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
	network := t.scheme
	if t.scheme == "tls" {
		network = "tcp"
	}
	conn, err := d.DialContext(ctx, network, t.addr)
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := giveUpUnacknowledged(tcp); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	if t.scheme != "tls" {
		return conn, nil
	}
	host, _, err := net.SplitHostPort(t.addr)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	cfg := secure.Clone()
	cfg.ServerName = host
	over := tls.Client(conn, cfg)
	if err := over.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return over, nil
}

// LoadRoots reads the certificates of a PEM file.
func LoadRoots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("there is no certificate in %s", file)
	}
	return roots, nil
}
