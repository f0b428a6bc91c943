package broker

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"softhem/api"
	"softhem/internal/broker/brokerdb"
	"softhem/internal/suite"
)

const kindIssue brokerdb.Kind = "issue" // by prefix

// An issue is a certificate that was asked for from an ACME CA, which takes its
// time. There is one for a name; it is on disk before who asked hears of it, and
// goes on after a restart.
type issue struct {
	ID     string     `json:"id"`
	Prefix string     `json:"prefix"`
	CSR    []byte     `json:"csr"`           // DER
	Emp    string     `json:"emp,omitzero"`  // the key, if the broker made it, sealed for
	Key    string     `json:"key,omitzero"`  // the module; nothing else is left of it
	Order  string     `json:"url,omitzero"`  // at the CA
	Ends   int64      `json:"ends"`          // Unix seconds; when it is given up, or, later, was over
	State  issueState `json:"state"`         // over: it is not pursued any more
	Cert   []byte     `json:"cert,omitzero"` // the chain, once issued
	Why    string     `json:"why,omitzero"`  // it failed, for the operator
}

type issueState string

const (
	underWay issueState = ""
	issued   issueState = "issued"
	failed   issueState = "failed"
)

const (
	issueLife    = 24 * 3600     // seconds that an issue is pursued
	issueMemory  = 7 * 24 * 3600 // and known after its end
	failRest     = 900           // after a failure, before the same name is asked for again
	attemptLife  = 15 * time.Minute
	issuesAtOnce = 4
	firstPause   = time.Second
	longestPause = 10 * time.Minute
)

// issues are all that are known. Its lock is the last one taken.
type issues struct {
	mu     sync.Mutex
	id     map[string]*issue
	prefix map[string]*issue
	wake   chan struct{} // there is one to pursue
	perCA  *rate.Limiter
}

func newIssues(perHour int) *issues {
	if perHour <= 0 {
		perHour = DefaultACMEPerHour
	}
	return &issues{
		id: map[string]*issue{}, prefix: map[string]*issue{}, wake: make(chan struct{}, 1),
		perCA: rate.NewLimiter(rate.Every(time.Hour/time.Duration(perHour)), perHour),
	}
}

// put makes an issue the one of its name.
func (s *issues) put(i *issue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.prefix[i.Prefix]; old != nil {
		delete(s.id, old.ID)
	}
	s.prefix[i.Prefix], s.id[i.ID] = i, i
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// get is a copy of the issue with an id, or of a name; nil: there is none.
func (s *issues) get(in map[string]*issue, key string) *issue {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := in[key]; i != nil {
		c := *i
		return &c
	}
	return nil
}

func (s *issues) sweep(now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, i := range s.id {
		if i.State != underWay && now >= i.Ends+issueMemory {
			delete(s.id, id)
			delete(s.prefix, i.Prefix)
		}
	}
}

func (i *issue) item() brokerdb.Item { return item(kindIssue, i.Prefix, i.Ends+issueMemory, i) }

// mayIssue tells whether a certificate for a name may be asked for now. b.domains is held.
func (b *Broker) mayIssue(prefix string) error {
	old := b.issues.get(b.issues.prefix, prefix)
	switch {
	case old == nil:
	case old.State == underWay:
		return refuse(http.StatusConflict, "a certificate for this name is under way")
	case old.State == failed && b.now() < old.Ends+failRest:
		return refuse(http.StatusServiceUnavailable, "the certificate authority did not give one for this name just now; try again in a quarter of an hour")
	}
	if !b.issues.perCA.AllowN(b.cfg.Now(), 1) {
		return refuse(http.StatusServiceUnavailable, "this broker asks for no more certificates now; try again in an hour")
	}
	return nil
}

// beginIssue keeps a name as d says, with an issue for it. b.domains is held.
func (b *Broker) beginIssue(d domain, csr []byte, emp, key string) (id string, err error) {
	i := &issue{ID: newID(), Prefix: d.Prefix, CSR: csr, Emp: emp, Key: key, Ends: b.now() + issueLife}
	if err := b.cfg.DB.Write(item(kindDomain, d.Prefix, 0, d), i.item()); err != nil {
		return "", err
	}
	b.issues.put(i)
	return i.ID, nil
}

// issueCheck tells what has become of an issue.
func (b *Broker) issueCheck(id string) (bundle api.TLSBundle, pending bool, err error) {
	i := b.issues.get(b.issues.id, id)
	switch {
	case i == nil:
		return bundle, false, refuse(http.StatusNotFound, "")
	case i.State == underWay:
		return bundle, true, nil
	case i.State == failed:
		return bundle, false, refuse(http.StatusGone, "the certificate authority did not give one; the operator of the broker can see why")
	}
	return api.TLSBundle{Emp: i.Emp, Key: i.Key, Crt: api.EncodeBase64(i.Cert)}, false, nil
}

// pursueAll sees to issues until ctx ends.
func (b *Broker) pursueAll(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	places, pursued := make(chan struct{}, issuesAtOnce), map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.issues.wake:
		}
		b.issues.mu.Lock()
		var begin []*issue
		for id, i := range b.issues.id {
			if i.State == underWay && !pursued[id] {
				pursued[id] = true
				begin = append(begin, i)
			}
		}
		b.issues.mu.Unlock()
		for _, i := range begin {
			running.Go(func() {
				select {
				case places <- struct{}{}:
				case <-ctx.Done():
					return
				}
				defer func() { <-places }()
				b.pursue(ctx, i)
			})
		}
	}
}

// pursue asks the CA until there is a certificate, it says no, or the issue ends.
// i is changed here alone.
func (b *Broker) pursue(ctx context.Context, i *issue) {
	name := b.nameOf(i.Prefix)
	for wait := firstPause; ; wait = min(2*wait, longestPause) {
		attempt, end := context.WithTimeout(ctx, attemptLife)
		chain, err := b.acme.obtain(attempt, name, i.CSR, i.Order, func(order string) error {
			return b.changeIssue(i, func(i *issue) { i.Order = order })
		})
		end()
		if err == nil {
			err = b.finishIssue(ctx, i, slices.Concat(chain...))
		}
		switch {
		case err == nil:
			return
		case ctx.Err() != nil: // goes on at the next start
			return
		case isFinal(err), errors.Is(err, errWrongCert), b.now() >= i.Ends:
			b.cfg.Logger.Error("a certificate could not be got from the CA", "name", name, "error", err)
			why := strings.ToValidUTF8(err.Error(), "?")
			err := b.changeIssue(i, func(i *issue) { i.State, i.Ends, i.Why = failed, b.now(), why[:min(len(why), 1000)] })
			if err != nil {
				b.cfg.Logger.Error("that could not be kept; the broker asks again after a restart", "name", name, "error", err)
			}
			return
		}
		b.cfg.Logger.Warn("a certificate is not there yet; the CA is asked again", "name", name, "error", err, "in", wait)
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(wait, min(pause(err), time.Hour))):
		}
	}
}

// changeIssue changes an issue on disk, and then for all.
func (b *Broker) changeIssue(i *issue, change func(*issue), more ...brokerdb.Item) error {
	next := *i
	change(&next)
	if err := b.cfg.DB.Write(append(more, next.item())...); err != nil {
		return err
	}
	b.issues.mu.Lock()
	defer b.issues.mu.Unlock()
	*i = next
	return nil
}

var errWrongCert = errors.New("the CA sent a certificate for another key or name, or the name was released meanwhile")

// finishIssue makes what the CA sent the name's certificate.
func (b *Broker) finishIssue(ctx context.Context, i *issue, chain []byte) error {
	csr, err := x509.ParseCertificateRequest(i.CSR)
	if err != nil {
		return damaged(kindIssue, i.Prefix, err)
	}
	leaf, err := leafOf(chain)
	if err != nil || !bytes.Equal(p256Point(leaf.PublicKey), p256Point(csr.PublicKey)) || leaf.VerifyHostname(b.nameOf(i.Prefix)) != nil {
		return errors.Join(errWrongCert, err)
	}
	b.domains.Lock()
	defer b.domains.Unlock()
	d, err := load[domain](ctx, b.cfg.DB, kindDomain, i.Prefix)
	if err != nil {
		return err
	}
	if d == nil {
		return errWrongCert
	}
	d.Cert, d.Point, d.CSR = chain, p256Point(leaf.PublicKey), i.CSR
	err = b.changeIssue(i, func(i *issue) { i.State, i.Cert, i.Ends = issued, chain, b.now() }, domainItems(*d, leaf)...)
	if err == nil {
		b.cfg.Logger.Info("a certificate was issued by the CA", "name", b.nameOf(i.Prefix), "until", leaf.NotAfter)
	}
	return err
}

// requestFor is a certificate request for one name and key, DER.
func requestFor(name string, key *suite.P256Key) ([]byte, error) {
	return x509.CreateCertificateRequest(nil, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}}, key.Signer())
}

// isFor tells whether a request asks for one name and nothing else, which is what
// a CA wants of a request under an order for that.
func isFor(csr *x509.CertificateRequest, name string) bool {
	cn := csr.Subject.CommonName
	return len(csr.DNSNames) == 1 && strings.EqualFold(csr.DNSNames[0], name) && (cn == "" || strings.EqualFold(cn, name)) &&
		len(csr.IPAddresses)+len(csr.URIs)+len(csr.EmailAddresses) == 0
}
