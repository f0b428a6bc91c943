package broker

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/internal/broker/brokerdb"
	"softhem/internal/suite"
)

const (
	kindDomain brokerdb.Kind = "domain" // by prefix
	kindSerial brokerdb.Kind = "serial" // by serial number, 32 hex digits
)

// A domain is a name that was given to a module, and the newest certificate for
// it. The name is its module's, known by its attestation key, until the
// operator releases it.
type domain struct {
	Prefix  string `json:"prefix"`
	Name    string `json:"name,omitzero"` // whole
	SKI     []byte `json:"ski"`           // names the attestation key, 20 bytes
	Genuine int64  `json:"genuine"`       // Unix seconds of the last token: an older one is a replay
	Point   []byte `json:"point"`         // the TLS key, P-256, uncompressed
	Cert    []byte `json:"cert"`          // DER, leaf first; of a CA that takes its time, empty until it is there
	CSR     []byte `json:"csr,omitzero"`  // DER: what such a CA was asked with, for the next one
	IP      string `json:"ip,omitzero"`
	CName   string `json:"cname,omitzero"`
}

// A serial leads from a certificate to its name.
type serial struct {
	Prefix string `json:"prefix"`
	Point  []byte `json:"point"`
}

const (
	maxDomains = 10_000 // names

	// serialMemory is how long after its end a certificate still leads to its
	// name: a module that was off for months gets its new one.
	serialMemory = 365 * 24 * time.Hour
)

var errNotGenuine = refuse(http.StatusUnauthorized, "genuine does not verify, is too old, or was used already; get a new one")

// genuineToken checks an attestation token and returns the attestation key's
// name and the token's time. It shows that the same module, or whoever it gave
// its token to, asks again; not what the module is.
func genuineToken(token string, now int64) (ski []byte, at int64, err error) {
	g, err := hem.VerifyGenuine(token)
	if err != nil || !g.Fresh(time.Unix(now, 0)) {
		return nil, 0, errNotGenuine
	}
	return g.SKI, g.At.Unix(), nil
}

// p256Point is the uncompressed point of a P-256 public key; nil for any other.
func p256Point(public any) []byte {
	key, ok := public.(interface{ Bytes() ([]byte, error) })
	if !ok {
		return nil
	}
	point, err := key.Bytes()
	if err != nil || len(point) != 1+2*suite.P256ScalarSize { // no other curve's point has this length
		return nil
	}
	return point
}

// requested is the public key of a certificate request. The names it asks for
// count for nothing.
func requested(text string) (*x509.CertificateRequest, error) {
	bad := refuse(http.StatusBadRequest, "csr is no PEM certificate request for a P-256 key, signed by it")
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE REQUEST" || strings.TrimSpace(string(rest)) != "" {
		return nil, bad
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || p256Point(csr.PublicKey) == nil || csr.CheckSignature() != nil {
		return nil, bad
	}
	return csr, nil
}

// prefixOf reads the label that a name is to begin with.
func (b *Broker) prefixOf(text string) (string, error) {
	if b.cfg.Domain == "" {
		return "", refuse(http.StatusNotFound, "")
	}
	prefix := strings.ToLower(text)
	if !isLabel(prefix) || len(prefix) > 3 && prefix[2:4] == "--" { // no punycode: it can look like another's
		return "", refuse(http.StatusBadRequest, "the prefix is no host name label of letters, digits and hyphens")
	}
	return prefix, nil
}

func isLabel(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-"
	return len(s) >= 1 && len(s) <= 63 && strings.Trim(s, letters) == "" && s[0] != '-' && s[len(s)-1] != '-'
}

// isName tells whether s is a DNS name of at least two labels, in lower case.
func isName(s string) bool {
	labels := strings.Split(s, ".")
	return len(s) <= 253 && len(labels) > 1 && !slices.ContainsFunc(labels, func(l string) bool { return !isLabel(l) })
}

// domainCheck refuses a free name with 404.
func (b *Broker) domainCheck(ctx context.Context, text string) error {
	prefix, err := b.prefixOf(text)
	if err != nil {
		return err
	}
	value, err := b.cfg.DB.Get(ctx, kindDomain, prefix)
	if err == nil && value == nil {
		return refuse(http.StatusNotFound, "")
	}
	return err
}

// nameOf is the name that begins with prefix.
func (b *Broker) nameOf(prefix string) string { return prefix + "." + b.cfg.Domain }

// domainRegister gives a free name to a module, or the name's module a new
// certificate: at once, an api.TLSBundle, or an api.DomainOrdered of one that a CA was asked for.
func (b *Broker) domainRegister(ctx context.Context, text, authKey string, req api.DomainRegister) (answer any, err error) {
	prefix, err := b.prefixOf(text)
	if err != nil {
		return nil, err
	}
	now := b.now()
	next := domain{Prefix: prefix, Name: b.nameOf(prefix)}
	if next.IP, next.CName, err = addresses(req); err != nil {
		return nil, err
	}
	if next.SKI, next.Genuine, err = genuineToken(req.Genuine, now); err != nil {
		return nil, err
	}
	b.domains.Lock() // names are rare, and one must not be given twice
	defer b.domains.Unlock()
	old, err := load[domain](ctx, b.cfg.DB, kindDomain, prefix)
	if err != nil {
		return nil, err
	}
	switch {
	case old == nil:
		if err := b.mayRegister(ctx, authKey); err != nil {
			return nil, err
		}
	case !suite.Equal(old.SKI, next.SKI):
		return nil, refuse(http.StatusConflict, "the name is another module's")
	case next.Genuine <= old.Genuine:
		return nil, errNotGenuine
	}
	csr, emp, sealed, err := b.keyFor(prefix, req)
	if err != nil {
		return nil, err
	}
	if b.acme != nil {
		if err := b.mayIssue(prefix); err != nil {
			return nil, err
		}
		if old != nil { // what it has is good until the next is there
			next.Point, next.Cert, next.CSR = old.Point, old.Cert, old.CSR
		}
		id, err := b.beginIssue(next, csr.Raw, emp, sealed)
		if err != nil {
			return nil, err
		}
		b.cfg.Logger.Info("a certificate is asked for from the CA", "name", b.nameOf(prefix), "new", old == nil)
		return api.DomainOrdered{ID: id}, nil
	}
	next.Point = p256Point(csr.PublicKey)
	if next.Cert, err = b.ca.issue(b.nameOf(prefix), csr.PublicKey, now); err != nil {
		return nil, err
	}
	if err := b.saveDomain(next); err != nil {
		return nil, err
	}
	b.cfg.Logger.Info("a certificate was issued", "name", b.nameOf(prefix), "new", old == nil)
	return api.TLSBundle{Emp: emp, Key: sealed, Crt: api.EncodeBase64(next.Cert)}, nil
}

// keyFor is the request with the key that a certificate is for: the module's, or
// one of a key made here, which is sealed for the module at once and not kept.
func (b *Broker) keyFor(prefix string, req api.DomainRegister) (csr *x509.CertificateRequest, emp, sealed string, err error) {
	if req.CSR != "" {
		if csr, err = requested(req.CSR); err != nil {
			return nil, "", "", err
		}
		if b.acme != nil && !isFor(csr, b.nameOf(prefix)) {
			return nil, "", "", refuse(http.StatusBadRequest, "csr is not for "+b.nameOf(prefix)+" alone, as this broker's certificate authority wants it; a module asks for its host name")
		}
		return csr, "", "", nil
	}
	key, scalar := suite.RandomP256Key()
	clear(scalar)
	der, err := requestFor(b.nameOf(prefix), key)
	if err == nil {
		csr, err = x509.ParseCertificateRequest(der)
	}
	if err == nil {
		emp, sealed, err = hem.SealTLSKey(req.Genuine, key.Signer())
	}
	return csr, emp, sealed, err
}

// addresses checks where the name shall lead. They are for the operator, who
// has the DNS; no certificate says them.
func addresses(req api.DomainRegister) (ip, cname string, err error) {
	if req.IP != "" {
		addr, err := netip.ParseAddr(req.IP)
		if err != nil || addr.Zone() != "" {
			return "", "", refuse(http.StatusBadRequest, "ip is no IP address")
		}
		ip = addr.String()
	}
	if cname = strings.ToLower(req.CName); cname != "" && !isName(cname) {
		return "", "", refuse(http.StatusBadRequest, "cname is no host name")
	}
	return ip, cname, nil
}

// mayRegister tells whether a name that is free may be taken.
func (b *Broker) mayRegister(ctx context.Context, authKey string) error {
	if want := b.cfg.DomainKey; want != "" {
		// Of equal length whatever was sent, so that the time tells nothing.
		got, want := suite.SHA256([]byte(authKey)), suite.SHA256([]byte(want))
		if !suite.Equal(got[:], want[:]) {
			return refuse(http.StatusUnauthorized, "the key to register new names with is missing or wrong")
		}
	}
	n, err := b.cfg.DB.Count(ctx, kindDomain)
	if err == nil && n >= maxDomains {
		return refuse(http.StatusServiceUnavailable, "this broker gives no more names")
	}
	return err
}

// saveDomain keeps a name with what leads to it from its certificate.
func (b *Broker) saveDomain(d domain) error {
	leaf, err := leafOf(d.Cert)
	if err != nil {
		return err
	}
	return b.cfg.DB.Write(domainItems(d, leaf)...)
}

func domainItems(d domain, leaf *x509.Certificate) []brokerdb.Item {
	return []brokerdb.Item{
		item(kindDomain, d.Prefix, 0, d),
		item(kindSerial, serialID(leaf.SerialNumber.Bytes()), leaf.NotAfter.Add(serialMemory).Unix(), serial{d.Prefix, d.Point}),
	}
}

// serialID is a serial number as it is looked for: modules name 16 bytes, whatever
// length the CA took, its last ones where it took more.
func serialID(number []byte) string {
	id := make([]byte, max(16-len(number), 0), 16)
	return hex.EncodeToString(append(id, number[max(len(number)-16, 0):]...))
}

// leafOf is the first certificate of a chain, DER.
func leafOf(chain []byte) (*x509.Certificate, error) {
	all, err := x509.ParseCertificates(chain)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.New("no certificate")
	}
	return all[0], nil
}

// newCrt is the certificate that a module should have, which has the one with
// the serial number csn; nil if it has that. Serial numbers are public, so
// anybody can ask: a certificate is of no use without its key.
func (b *Broker) newCrt(ctx context.Context, csn []byte) ([]byte, error) {
	if b.cfg.Domain == "" {
		return nil, nil
	}
	b.domains.Lock()
	defer b.domains.Unlock()
	s, err := load[serial](ctx, b.cfg.DB, kindSerial, serialID(csn))
	if err != nil || s == nil {
		return nil, err
	}
	d, err := load[domain](ctx, b.cfg.DB, kindDomain, s.Prefix)
	if err != nil || d == nil || !suite.Equal(d.Point, s.Point) { // released, or another key by now
		return nil, err
	}
	leaf, err := leafOf(d.Cert)
	if err != nil {
		return nil, damaged(kindDomain, d.Prefix, err)
	}
	now := b.now()
	due := now >= leaf.NotAfter.Unix()-int64(leaf.NotAfter.Sub(leaf.NotBefore)/renewPart/time.Second)
	switch {
	case due && b.acme != nil: // a later check-in brings the next one
		if err := b.renew(*d); err != nil {
			return nil, err
		}
	case due:
		if d.Cert, err = b.ca.issue(b.nameOf(d.Prefix), leaf.PublicKey, now); err != nil {
			return nil, err
		}
		b.cfg.Logger.Info("a certificate was renewed", "name", b.nameOf(d.Prefix))
		return d.Cert, b.saveDomain(*d)
	}
	if serialID(leaf.SerialNumber.Bytes()) == serialID(csn) {
		return nil, nil
	}
	return d.Cert, nil
}

// renew asks the CA for the next certificate of a name, if it may be asked and
// was asked for this one. b.domains is held.
func (b *Broker) renew(d domain) error {
	if len(d.CSR) == 0 || b.mayIssue(d.Prefix) != nil {
		return nil
	}
	b.cfg.Logger.Info("a certificate is to be renewed by the CA", "name", b.nameOf(d.Prefix))
	_, err := b.beginIssue(d, d.CSR, "", "")
	return err
}

// load is one record; nil if there is none.
func load[T any](ctx context.Context, db *brokerdb.DB, kind brokerdb.Kind, id string) (*T, error) {
	value, err := db.Get(ctx, kind, id)
	if err != nil || value == nil {
		return nil, err
	}
	v := new(T)
	if err := json.Unmarshal(value, v); err != nil {
		return nil, damaged(kind, id, err)
	}
	return v, nil
}
