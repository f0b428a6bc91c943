package broker

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"time"

	"softhem/internal/broker/brokerdb"
	"softhem/internal/suite"
)

const (
	kindCA   brokerdb.Kind = "ca"
	idCA                   = "ca"
	leafLife               = 90 * 24 * time.Hour
	renewAt                = 30 * 24 * time.Hour // a check-in brings a new leaf when less is left
)

// A domainCA signs for the names directly under one domain. Its own certificate
// says so (RFC 5280 section 4.2.1.10): who trusts it trusts it for no other name
// and for no address.
type domainCA struct {
	domain string
	key    *suite.P256Key
	cert   *x509.Certificate
}

type caRecord struct {
	Domain string `json:"domain"`
	Scalar []byte `json:"scalar"`
	Cert   []byte `json:"cert"` // DER
}

// openCA loads the CA, or makes one.
func openCA(ctx context.Context, db *brokerdb.DB, domain string, now time.Time) (*domainCA, error) {
	if !isName(domain) {
		return nil, fmt.Errorf("%q is no domain to give names under; it has at least two labels, like hem.example", domain)
	}
	rec, err := load[caRecord](ctx, db, kindCA, idCA)
	if err != nil {
		return nil, err
	}
	if rec == nil {
		if rec, err = createCA(domain, now); err != nil {
			return nil, err
		}
		if err := db.Write(item(kindCA, idCA, 0, rec)); err != nil {
			return nil, err
		}
	}
	if rec.Domain != domain {
		return nil, fmt.Errorf("this broker's CA is for %s; take that domain, or start a broker in another folder for %s", rec.Domain, domain)
	}
	ca := &domainCA{domain: domain}
	if ca.key, err = suite.NewP256Key(rec.Scalar); err == nil {
		ca.cert, err = x509.ParseCertificate(rec.Cert)
	}
	if err != nil {
		return nil, damaged(kindCA, idCA, err)
	}
	return ca, nil
}

func createCA(domain string, now time.Time) (*caRecord, error) {
	key, scalar := suite.RandomP256Key()
	template := key.Authority("SoftHEM broker CA", now)
	template.PermittedDNSDomainsCritical = true
	template.PermittedDNSDomains = []string{domain}
	template.ExcludedIPRanges = []*net.IPNet{{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, {IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}}
	der, err := x509.CreateCertificate(nil, template, template, key.Signer().Public(), key.Signer())
	if err != nil {
		return nil, fmt.Errorf("make the CA: %w", err)
	}
	return &caRecord{domain, scalar, der}, nil
}

func (ca *domainCA) nameOf(prefix string) string { return prefix + "." + ca.domain }

// issue signs a certificate for one name, DER. It ends no later than the CA.
func (ca *domainCA) issue(name string, public crypto.PublicKey, unix int64) ([]byte, error) {
	now := time.Unix(unix, 0)
	end := now.Add(leafLife)
	if ca.cert.NotAfter.Before(end) {
		end = ca.cert.NotAfter
	}
	if !end.After(now) {
		return nil, errors.New("the broker's CA has ended; start a broker in another folder")
	}
	template := &x509.Certificate{
		SerialNumber: suite.CertificateSerial(),
		Subject:      pkix.Name{CommonName: "SoftHEM"},
		DNSNames:     []string{name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     end,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	return x509.CreateCertificate(nil, template, ca.cert, public, ca.key.Signer())
}

// DomainCA is the certificate of the broker's CA, PEM: what the clients of
// modules with its names have to trust. nil: it has none.
func DomainCA(ctx context.Context, db *brokerdb.DB) ([]byte, error) {
	rec, err := load[caRecord](ctx, db, kindCA, idCA)
	if err != nil || rec == nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rec.Cert}), nil
}

// A Domain is a name that a module was given.
type Domain struct {
	Prefix string    `json:"prefix"`
	Name   string    `json:"name"`
	IP     string    `json:"ip,omitzero"` // where the module said the name shall lead
	CName  string    `json:"cname,omitzero"`
	Ends   time.Time `json:"ends"` // of the newest certificate
	SKI    string    `json:"ski"`  // of the module's attestation key, hex
}

// Domains lists the names, in order of their prefix.
func Domains(ctx context.Context, db *brokerdb.DB) ([]Domain, error) {
	var all []Domain
	var bad error
	err := readAll(ctx, db, kindDomain, func(d *domain) {
		cert, err := x509.ParseCertificate(d.Cert)
		if err != nil || len(cert.DNSNames) != 1 {
			bad = damaged(kindDomain, d.Prefix, errors.Join(err, errors.New("no certificate for one name")))
			return
		}
		all = append(all, Domain{d.Prefix, cert.DNSNames[0], d.IP, d.CName, cert.NotAfter.UTC(), hex.EncodeToString(d.SKI)})
	})
	return all, errors.Join(err, bad)
}

// ReleaseDomain makes a name free. What was issued for it stays good until it
// ends, and is not renewed.
func ReleaseDomain(ctx context.Context, db *brokerdb.DB, prefix string) error {
	d, err := load[domain](ctx, db, kindDomain, prefix)
	if err != nil {
		return err
	}
	if d == nil {
		return fmt.Errorf("no name begins with %q; hem broker domain list tells those that are taken", prefix)
	}
	return db.Write(brokerdb.Item{Kind: kindDomain, ID: prefix})
}
