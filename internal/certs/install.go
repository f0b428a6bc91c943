package certs

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"softhem/internal/records"
	"softhem/internal/store"
	"softhem/internal/suite"
)

// ErrRefused: the pair is well-formed and cannot be the module's. The text
// around it says why, and nothing secret.
var ErrRefused = errors.New("the TLS pair was not installed")

// Installed is what can be shown of a pair that came from outside.
type Installed struct {
	Certificate []byte // DER, of the leaf
	KeyInfo     []byte // DER, SubjectPublicKeyInfo of its key
	Point       []byte // its public key, compressed, 33 bytes
	Since       int64  // Unix seconds
}

// Installed is the pair that was installed, if one is in use.
func (m *Manager) Installed() (Installed, bool) {
	shown := m.shown.Load()
	if shown == nil {
		return Installed{}, false
	}
	return *shown, true
}

// Install replaces the pair by chain (DER, leaf first) and the key with this
// scalar, nil being the module's own TLS key. The leaf has to be for that key;
// who signed it, for which names and until when is not judged.
//
// commit is called with what keeps the pair in a transaction, and its error
// handed through; only after it did the new pair is used, by the next handshake.
// Without its error a crash leaves the old pair or the new one. No other pair
// is issued or installed meanwhile.
//
// Errors: [ErrRefused], those of commit.
func (m *Manager) Install(scalar []byte, chain [][]byte, now int64, commit func(save func(context.Context, store.Tx) error) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cfg.CertFile != "" {
		return fmt.Errorf("%w: the operator's files name the pair", ErrRefused)
	}
	if scalar == nil {
		scalar = m.pair.Scalar
	}
	// Never the same second twice: clients see by it that the pair is another.
	next := pairRecord{Scalar: scalar, Chain: chain, Installed: max(now, m.pair.Installed+1)}
	pair, shown, err := next.open()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	err = commit(func(ctx context.Context, tx store.Tx) error {
		return records.Save(ctx, tx, m.cfg.Sealer, kind, idPair, next)
	})
	if err != nil {
		return err
	}
	m.pair = next
	m.current.Store(pair)
	m.shown.Store(shown)
	return nil
}

// open makes a pair usable. The second result is nil for a self-issued one.
func (rec pairRecord) open() (*tls.Certificate, *Installed, error) {
	key, err := suite.NewP256Key(rec.Scalar)
	if err != nil {
		return nil, nil, errors.New("the key is no P-256 scalar")
	}
	if len(rec.Chain) == 0 {
		return nil, nil, errors.New("there is no certificate")
	}
	leaf, err := x509.ParseCertificate(rec.Chain[0])
	if err != nil {
		return nil, nil, errors.New("the certificate does not decode")
	}
	if public, ok := key.Signer().Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(leaf.PublicKey) {
		return nil, nil, errors.New("the certificate is for another key")
	}
	pair := &tls.Certificate{Certificate: rec.Chain, PrivateKey: key.Signer(), Leaf: leaf}
	if rec.Installed == 0 {
		return pair, nil, nil
	}
	return pair, &Installed{
		Certificate: rec.Chain[0], KeyInfo: leaf.RawSubjectPublicKeyInfo, Point: key.Compressed(), Since: rec.Installed,
	}, nil
}
