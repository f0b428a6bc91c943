// Package certs owns the TLS pair of the module: one it issues itself from a
// small CA of its own, one that was installed over the API, or one in the
// operator's files, which wins over both.
//
// The CA's and the pair's private keys are sealed records; the CA certificate
// is the only thing clients need and is written out by the server.
package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"softhem/internal/records"
	"softhem/internal/store"
	"softhem/internal/suite"
)

const (
	kind     store.Kind = "tls"
	idCA                = "ca"
	idPair              = "pair"
	leafLife            = 90 * 24 * time.Hour
	renewAt             = 30 * 24 * time.Hour // a self-issued leaf is replaced when less is left
)

// Config says where the pair comes from.
type Config struct {
	Store  store.Store
	Sealer records.Sealer
	Names  []string // DNS names and IP addresses of a self-issued certificate
	// CertFile and KeyFile are PEM files of an own pair. Without them the
	// module issues itself one.
	CertFile, KeyFile string
	Now               func() time.Time // the host's clock
	Logger            *slog.Logger
}

// Manager holds the pair in use. Its methods may be called concurrently.
type Manager struct {
	cfg     Config
	current atomic.Pointer[tls.Certificate]
	shown   atomic.Pointer[Installed] // what was installed; nil: nothing
	caPEM   []byte

	mu   sync.Mutex // one issue or reload at a time
	ca   issuer
	pair pairRecord
}

// issuer is the CA with its key.
type issuer struct {
	cert *x509.Certificate
	key  *suite.P256Key
}

// caRecord and pairRecord are what is kept, sealed, of the CA and the pair.
type caRecord struct {
	Scalar []byte `json:"scalar"`
	Cert   []byte `json:"cert"` // DER
}

type pairRecord struct {
	Scalar []byte   `json:"scalar"`
	Chain  [][]byte `json:"chain"` // DER, leaf first
	Names  []string `json:"names"` // what a self-issued leaf was asked for
	// Installed is when the chain came from outside, Unix seconds; 0: the
	// module issued it.
	Installed int64 `json:"installed,omitzero"`
}

// Open loads the CA and the pair, makes what is missing, and puts the pair to
// use.
func Open(ctx context.Context, cfg Config) (*Manager, error) {
	m := &Manager{cfg: cfg}
	if err := m.loadCA(ctx); err != nil {
		return nil, err
	}
	if err := m.loadPair(ctx); err != nil {
		return nil, err
	}
	return m, m.Reload(ctx)
}

// CAPEM is the certificate clients have to trust, or nil when the pair
// is not from the module's CA.
func (m *Manager) CAPEM() []byte {
	if m.cfg.CertFile != "" || m.shown.Load() != nil {
		return nil
	}
	return m.caPEM
}

// GetCertificate serves crypto/tls: every new handshake gets the pair in use
// at that moment.
func (m *Manager) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c := m.current.Load()
	if m.cfg.CertFile == "" && m.shown.Load() == nil && m.cfg.Now().After(c.Leaf.NotAfter.Add(-renewAt)) {
		if err := m.Reload(context.Background()); err != nil {
			m.cfg.Logger.Error("the TLS certificate could not be renewed", "error", err)
		}
		c = m.current.Load()
	}
	return c, nil
}

// Serial is the serial number of the certificate in use as 16 bytes,
// big-endian: padded in front when it is shorter, its last bytes when longer.
func (m *Manager) Serial() []byte {
	raw := m.current.Load().Leaf.SerialNumber.Bytes()
	if len(raw) > 16 {
		return raw[len(raw)-16:]
	}
	return append(make([]byte, 16-len(raw)), raw...)
}

// Request makes a certificate signing request (PEM, PKCS#10) for a host name
// and the key with this scalar; nil is the module's own TLS key.
func (m *Manager) Request(hostname string, scalar []byte) (string, error) {
	if scalar == nil {
		m.mu.Lock()
		scalar = m.pair.Scalar
		m.mu.Unlock()
	}
	key, err := suite.NewP256Key(scalar)
	if err != nil {
		return "", err
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: hostname}}
	template.DNSNames, template.IPAddresses = splitNames([]string{hostname})
	der, err := x509.CreateCertificateRequest(nil, template, key.Signer())
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

// Reload puts the right pair to use: the operator's files, read again; or the
// one that was installed; or the self-issued pair, issued again if its names changed or its end is near. On
// an error the pair that was in use stays.
func (m *Manager) Reload(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cfg.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(m.cfg.CertFile, m.cfg.KeyFile)
		if err != nil {
			return fmt.Errorf("the TLS pair %s, %s cannot be used: %w", m.cfg.CertFile, m.cfg.KeyFile, err)
		}
		m.current.Store(&pair)
		return nil
	}
	if m.pair.Installed == 0 && !m.pairFits() {
		if err := m.issue(ctx); err != nil {
			return err
		}
	}
	pair, shown, err := m.pair.open()
	if err != nil {
		return err
	}
	if shown != nil && m.cfg.Now().After(pair.Leaf.NotAfter) {
		m.cfg.Logger.Warn("the installed TLS certificate has ended; clients will refuse it", "ended", pair.Leaf.NotAfter)
	}
	m.current.Store(pair)
	m.shown.Store(shown)
	return nil
}

// pairFits tells whether a self-issued pair can stay in use.
func (m *Manager) pairFits() bool {
	if len(m.pair.Chain) == 0 || !slices.Equal(m.pair.Names, m.cfg.Names) {
		return false
	}
	leaf, err := x509.ParseCertificate(m.pair.Chain[0])
	now := m.cfg.Now()
	return err == nil && leaf.CheckSignatureFrom(m.ca.cert) == nil &&
		now.After(leaf.NotBefore) && now.Before(leaf.NotAfter.Add(-renewAt))
}

// issue makes a new leaf for the module's TLS key and keeps it. A crash here
// leaves the old record, or the new one.
func (m *Manager) issue(ctx context.Context) error {
	key, err := suite.NewP256Key(m.pair.Scalar)
	if err != nil {
		return err
	}
	now := m.cfg.Now()
	template := &x509.Certificate{
		SerialNumber: suite.CertificateSerial(),
		Subject:      pkix.Name{CommonName: "SoftHEM"},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	template.DNSNames, template.IPAddresses = splitNames(m.cfg.Names)
	der, err := x509.CreateCertificate(nil, template, m.ca.cert, key.Signer().Public(), m.ca.key.Signer())
	if err != nil {
		return fmt.Errorf("issue the TLS certificate: %w", err)
	}
	next := pairRecord{Scalar: m.pair.Scalar, Chain: [][]byte{der}, Names: m.cfg.Names}
	err = m.cfg.Store.Update(ctx, func(tx store.Tx) error {
		return records.Save(ctx, tx, m.cfg.Sealer, kind, idPair, next)
	})
	if err != nil {
		return fmt.Errorf("keep the TLS certificate: %w", err)
	}
	m.pair = next
	return nil
}

// loadCA loads the module's CA, or makes and keeps one on first start.
func (m *Manager) loadCA(ctx context.Context) error {
	rec, err := load[caRecord](ctx, m, idCA)
	if errors.Is(err, store.ErrNotFound) {
		rec, err = m.createCA(ctx)
	}
	if err != nil {
		return err
	}
	if m.ca.key, err = suite.NewP256Key(rec.Scalar); err != nil {
		return err
	}
	if m.ca.cert, err = x509.ParseCertificate(rec.Cert); err != nil {
		return err
	}
	m.caPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rec.Cert})
	return nil
}

func (m *Manager) createCA(ctx context.Context) (caRecord, error) {
	key, scalar := suite.RandomP256Key()
	template := key.Authority("SoftHEM CA", m.cfg.Now())
	der, err := x509.CreateCertificate(nil, template, template, key.Signer().Public(), key.Signer())
	if err != nil {
		return caRecord{}, fmt.Errorf("make the CA: %w", err)
	}
	rec := caRecord{Scalar: scalar, Cert: der}
	return rec, m.cfg.Store.Update(ctx, func(tx store.Tx) error {
		return records.Save(ctx, tx, m.cfg.Sealer, kind, idCA, rec)
	})
}

// loadPair loads the module's TLS key and leaf. Without a record there is a
// new key and no leaf yet; Reload issues one and keeps both.
func (m *Manager) loadPair(ctx context.Context) error {
	rec, err := load[pairRecord](ctx, m, idPair)
	if errors.Is(err, store.ErrNotFound) {
		_, scalar := suite.RandomP256Key()
		rec = pairRecord{Scalar: scalar}
		err = m.cfg.Store.Update(ctx, func(tx store.Tx) error {
			return records.Save(ctx, tx, m.cfg.Sealer, kind, idPair, rec)
		})
	}
	m.pair = rec
	return err
}

// Check opens again what is kept of CA and pair.
func (m *Manager) Check(ctx context.Context) error {
	return m.cfg.Store.View(ctx, func(r store.Reader) error {
		for _, id := range []string{idCA, idPair} {
			// With an operator's files there need not be either.
			if err := records.Check(ctx, r, m.cfg.Sealer, kind, id); err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
		return nil
	})
}

func load[T any](ctx context.Context, m *Manager, id string) (rec T, err error) {
	err = m.cfg.Store.View(ctx, func(r store.Reader) error {
		rec, err = records.Load[T](ctx, r, m.cfg.Sealer, kind, id)
		return err
	})
	return rec, err
}

func splitNames(names []string) (dns []string, ips []net.IP) {
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			ips = append(ips, ip)
		} else {
			dns = append(dns, n)
		}
	}
	return dns, ips
}
