package broker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/crypto/acme"

	"softhem/internal/broker/brokerdb"
	"softhem/internal/suite"
)

// ACME says that certificates come from a certificate authority that speaks ACME
// (RFC 8555), and which.
type ACME struct {
	// Directory is the CA's URL, https; empty: the broker is its own CA.
	Directory string
	Email     string // where the CA can reach the operator; may be empty
	// DNSHook makes ("present") and removes ("cleanup") a TXT record, and returns
	// when the world can see that; then dns-01 is what names are proven by. nil:
	// it is http-01, which the broker answers itself: so names have to lead to it, port 80.
	DNSHook func(ctx context.Context, action, name, value string) error
	// PerHour is how many certificates are asked for in an hour, and at once;
	// 0 is DefaultACMEPerHour.
	PerHour int
	// HTTPClient reaches the CA; nil is one with a timeout that trusts the system's authorities.
	HTTPClient *http.Client
}

// DefaultACMEPerHour stays below what public CAs allow for one domain.
const DefaultACMEPerHour = 20

const kindACME brokerdb.Kind = "acme" // by directory

// acmeRecord is an account at a CA.
type acmeRecord struct {
	Scalar []byte `json:"scalar"` // its key, P-256
}

// An acmeCA gets certificates from a CA. The account is made there when it is first
// needed: a CA that cannot be reached keeps no broker from starting.
type acmeCA struct {
	cfg    ACME
	client *acme.Client

	registering sync.Mutex
	registered  bool

	mu     sync.Mutex
	tokens map[string]string // http-01: what to answer, by token
}

// openACME loads the account's key, or makes one.
func openACME(ctx context.Context, db *brokerdb.DB, cfg ACME) (*acmeCA, error) {
	u, err := url.Parse(cfg.Directory)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q is no ACME directory; its address begins with https://", cfg.Directory)
	}
	rec, err := load[acmeRecord](ctx, db, kindACME, cfg.Directory)
	if err != nil {
		return nil, err
	}
	if rec == nil {
		_, scalar := suite.RandomP256Key()
		rec = &acmeRecord{scalar}
		if err := db.Write(item(kindACME, cfg.Directory, 0, rec)); err != nil {
			return nil, err
		}
	}
	key, err := suite.NewP256Key(rec.Scalar)
	if err != nil {
		return nil, damaged(kindACME, cfg.Directory, err)
	}
	if cfg.HTTPClient == nil {
		cfg.HTTPClient = &http.Client{Timeout: time.Minute}
	}
	return &acmeCA{cfg: cfg, tokens: map[string]string{}, client: &acme.Client{
		Key: key.Signer(), DirectoryURL: cfg.Directory, HTTPClient: cfg.HTTPClient, UserAgent: "softhem-broker",
	}}, nil
}

// register sees to it that the CA knows the account.
func (a *acmeCA) register(ctx context.Context) error {
	a.registering.Lock()
	defer a.registering.Unlock()
	if a.registered {
		return nil
	}
	account := &acme.Account{}
	if a.cfg.Email != "" {
		account.Contact = []string{"mailto:" + a.cfg.Email}
	}
	// Who names a CA has agreed to its terms; the command asks for that.
	if _, err := a.client.Register(ctx, account, acme.AcceptTOS); err != nil && !errors.Is(err, acme.ErrAccountAlreadyExists) {
		return fmt.Errorf("register with the CA: %w", err)
	}
	a.registered = true
	return nil
}

// obtain gets a certificate for one name, DER, leaf first. order is where an earlier
// attempt came to, or empty; a new one is handed to keep before anything hangs on
// it, so that who is killed goes on with it and does not order twice.
func (a *acmeCA) obtain(ctx context.Context, name string, csr []byte, order string, keep func(order string) error) ([][]byte, error) {
	if err := a.register(ctx); err != nil {
		return nil, err
	}
	o, err := a.order(ctx, name, order)
	if err != nil {
		return nil, fmt.Errorf("order a certificate: %w", err)
	}
	if o.URI != order {
		if err := keep(o.URI); err != nil {
			return nil, err
		}
	}
	if o.Status == acme.StatusPending {
		for _, authz := range o.AuthzURLs {
			if err := a.prove(ctx, authz); err != nil {
				return nil, fmt.Errorf("prove the name: %w", err)
			}
		}
	}
	if o, err = a.client.WaitOrder(ctx, o.URI); err != nil {
		return nil, fmt.Errorf("wait for the order: %w", err)
	}
	var chain [][]byte
	if o.Status == acme.StatusValid { // it was finished by who was killed
		chain, err = a.client.FetchCert(ctx, o.CertURL, true)
	} else {
		chain, _, err = a.client.CreateCertFromOrder(ctx, o, csr, true)
	}
	if err != nil {
		return nil, fmt.Errorf("fetch the certificate: %w", err)
	}
	return chain, nil
}

// order is the one that was begun, if it is good for anything, or a new one.
func (a *acmeCA) order(ctx context.Context, name, begun string) (*acme.Order, error) {
	if begun != "" {
		o, err := a.client.GetOrder(ctx, begun)
		switch {
		case err == nil && o.Status != acme.StatusInvalid && o.Status != acme.StatusExpired:
			return o, nil
		case err != nil && !isFinal(err):
			return nil, err
		}
	}
	return a.client.AuthorizeOrder(ctx, acme.DomainIDs(name))
}

// prove shows the CA that the name is the operator's.
func (a *acmeCA) prove(ctx context.Context, authz string) error {
	z, err := a.client.GetAuthorization(ctx, authz)
	if err != nil {
		return err
	}
	if z.Status == acme.StatusValid {
		return nil
	}
	way, present := "http-01", a.presentHTTP
	if a.cfg.DNSHook != nil {
		way, present = "dns-01", a.presentDNS
	}
	for _, c := range z.Challenges {
		if c.Type != way {
			continue
		}
		cleanup, err := present(ctx, z.Identifier.Value, c.Token)
		if err != nil {
			return err
		}
		defer cleanup()
		if c.Status == acme.StatusPending {
			if _, err := a.client.Accept(ctx, c); err != nil {
				return err
			}
		}
		_, err = a.client.WaitAuthorization(ctx, authz)
		return err
	}
	return fmt.Errorf("the CA takes no %s for %s", way, z.Identifier.Value)
}

func (a *acmeCA) presentHTTP(_ context.Context, _, token string) (cleanup func(), err error) {
	answer, err := a.client.HTTP01ChallengeResponse(token)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens[token] = answer
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.tokens, token)
	}, nil
}

func (a *acmeCA) presentDNS(ctx context.Context, name, token string) (cleanup func(), err error) {
	value, err := a.client.DNS01ChallengeRecord(token)
	if err != nil {
		return nil, err
	}
	name = "_acme-challenge." + name
	if err := a.cfg.DNSHook(ctx, "present", name, value); err != nil {
		return nil, fmt.Errorf("the DNS hook: %w", err)
	}
	return func() {
		// Also when ctx has ended. A record that stays does no harm.
		ctx, end := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer end()
		_ = a.cfg.DNSHook(ctx, "cleanup", name, value)
	}, nil
}

// challenge is the answer to the CA's question, http-01 (RFC 8555 section 8.3).
func (a *acmeCA) challenge(token string) (string, bool) {
	if a == nil {
		return "", false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	answer, ok := a.tokens[token]
	return answer, ok
}

// isFinal tells whether the CA said no; what else goes wrong is tried again.
func isFinal(err error) bool {
	if _, no := errors.AsType[*acme.AuthorizationError](err); no {
		return true
	}
	if _, no := errors.AsType[*acme.OrderError](err); no {
		return true
	}
	said, ok := errors.AsType[*acme.Error](err)
	return ok && said.StatusCode >= 400 && said.StatusCode < 500 && said.StatusCode != http.StatusTooManyRequests && said.StatusCode != http.StatusRequestTimeout
}

// pause is how long the CA asks to be left alone after an error; 0: it does not say.
func pause(err error) time.Duration {
	if said, ok := errors.AsType[*acme.Error](err); ok {
		if d, limited := acme.RateLimit(said); limited {
			return d
		}
	}
	return 0
}
