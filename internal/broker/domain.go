package broker

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
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
	SKI     []byte `json:"ski"`     // names the attestation key, 20 bytes
	Genuine int64  `json:"genuine"` // Unix seconds of the last token: an older one is a replay
	Point   []byte `json:"point"`   // the TLS key, P-256, uncompressed
	Cert    []byte `json:"cert"`    // DER
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
	if b.ca == nil {
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

// domainRegister gives a free name to a module, or the name's module a new
// certificate.
func (b *Broker) domainRegister(ctx context.Context, text, authKey string, req api.DomainRegister) (answer api.TLSBundle, err error) {
	prefix, err := b.prefixOf(text)
	if err != nil {
		return answer, err
	}
	now := b.now()
	next := domain{Prefix: prefix}
	if next.IP, next.CName, err = addresses(req); err != nil {
		return answer, err
	}
	if next.SKI, next.Genuine, err = genuineToken(req.Genuine, now); err != nil {
		return answer, err
	}
	b.domains.Lock() // names are rare, and one must not be given twice
	defer b.domains.Unlock()
	old, err := load[domain](ctx, b.cfg.DB, kindDomain, prefix)
	if err != nil {
		return answer, err
	}
	switch {
	case old == nil:
		if err := b.mayRegister(ctx, authKey); err != nil {
			return answer, err
		}
	case !suite.Equal(old.SKI, next.SKI):
		return answer, refuse(http.StatusConflict, "the name is another module's")
	case next.Genuine <= old.Genuine:
		return answer, errNotGenuine
	}
	var key *suite.P256Key
	if req.CSR != "" {
		csr, err := requested(req.CSR)
		if err != nil {
			return answer, err
		}
		next.Point = p256Point(csr.PublicKey)
		next.Cert, err = b.ca.issue(b.ca.nameOf(prefix), csr.PublicKey, now)
		if err != nil {
			return answer, err
		}
	} else {
		var scalar []byte
		key, scalar = suite.RandomP256Key()
		clear(scalar)
		next.Point = key.Point()
		if next.Cert, err = b.ca.issue(b.ca.nameOf(prefix), key.Signer().Public(), now); err != nil {
			return answer, err
		}
		if answer.Emp, answer.Key, err = hem.SealTLSKey(req.Genuine, key.Signer()); err != nil {
			return answer, err
		}
	}
	if err := b.saveDomain(next); err != nil {
		return api.TLSBundle{}, err
	}
	answer.Crt = api.EncodeBase64(next.Cert)
	b.cfg.Logger.Info("a certificate was issued", "name", b.ca.nameOf(prefix), "new", old == nil)
	return answer, nil
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
	cert, err := x509.ParseCertificate(d.Cert)
	if err != nil {
		return err
	}
	return b.cfg.DB.Write(item(kindDomain, d.Prefix, 0, d),
		item(kindSerial, hex.EncodeToString(cert.SerialNumber.Bytes()), cert.NotAfter.Add(serialMemory).Unix(), serial{d.Prefix, d.Point}))
}

// newCrt is the certificate that a module should have, which has the one with
// the serial number csn; nil if it has that. Serial numbers are public, so
// anybody can ask: a certificate is of no use without its key.
func (b *Broker) newCrt(ctx context.Context, csn []byte) ([]byte, error) {
	if b.ca == nil {
		return nil, nil
	}
	b.domains.Lock()
	defer b.domains.Unlock()
	s, err := load[serial](ctx, b.cfg.DB, kindSerial, hex.EncodeToString(csn))
	if err != nil || s == nil {
		return nil, err
	}
	d, err := load[domain](ctx, b.cfg.DB, kindDomain, s.Prefix)
	if err != nil || d == nil || !suite.Equal(d.Point, s.Point) { // released, or another key by now
		return nil, err
	}
	cert, err := x509.ParseCertificate(d.Cert)
	if err != nil {
		return nil, err
	}
	now := b.now()
	if cert.NotAfter.Unix()-now < int64(renewAt/time.Second) {
		if d.Cert, err = b.ca.issue(b.ca.nameOf(d.Prefix), cert.PublicKey, now); err != nil {
			return nil, err
		}
		b.cfg.Logger.Info("a certificate was renewed", "name", b.ca.nameOf(d.Prefix))
		return d.Cert, b.saveDomain(*d)
	}
	if suite.Equal(cert.SerialNumber.Bytes(), csn) {
		return nil, nil
	}
	return d.Cert, nil
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
