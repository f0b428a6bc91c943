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
	kindCA    brokerdb.Kind = "ca"
	idCA                    = "ca"
	leafLife                = 90 * 24 * time.Hour
	renewPart               = 3 // of a leaf's life: a check-in brings a new one in the last part
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

func errNoDomain(domain string) error {
	return fmt.Errorf("%q is no domain to give names under; it has at least two labels, like hem.example", domain)
}

// openCA loads the CA, or makes one.
func openCA(ctx context.Context, db *brokerdb.DB, domain string, now time.Time) (*domainCA, error) {
	if !isName(domain) {
		return nil, errNoDomain(domain)
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
	Ends   time.Time `json:"ends,omitzero"` // of the newest certificate; zero: there is none yet
	SKI    string    `json:"ski"`           // of the module's attestation key, hex
	// State is what became of the last request to an ACME CA: "under way", "issued"
	// or "failed", and Why it failed; empty with a CA of the broker's own.
	State string `json:"state,omitzero"`
	Why   string `json:"why,omitzero"`
}

// Domains lists the names, in order of their prefix.
func Domains(ctx context.Context, db *brokerdb.DB) ([]Domain, error) {
	asked := map[string]*issue{}
	if err := readAll(ctx, db, kindIssue, func(i *issue) { asked[i.Prefix] = i }); err != nil {
		return nil, err
	}
	var all []Domain
	var bad error
	err := readAll(ctx, db, kindDomain, func(d *domain) {
		one := Domain{Prefix: d.Prefix, Name: d.Name, IP: d.IP, CName: d.CName, SKI: hex.EncodeToString(d.SKI)}
		if i := asked[d.Prefix]; i != nil {
			one.State, one.Why = string(i.State), i.Why
			if i.State == underWay {
				one.State = "under way"
			}
		}
		if len(d.Cert) > 0 {
			leaf, err := leafOf(d.Cert)
			if err != nil || len(leaf.DNSNames) != 1 {
				bad = damaged(kindDomain, d.Prefix, errors.Join(err, errors.New("no certificate for one name")))
				return
			}
			one.Name, one.Ends = leaf.DNSNames[0], leaf.NotAfter.UTC()
		}
		all = append(all, one)
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
