package hem

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"softhem/api"
)

const opDomain = "register a name"

// RegisterDomain has a broker give a module the name <prefix>.<domain of the
// broker> and a certificate for it. req.Genuine and req.CSR are those of
// [Client.UpdateConfig] with GenCSR; the answer is for its TLS field. authKey is
// what the broker's operator gave out to register new names with, or empty.
// Later certificates come by [Client.CheckIn] with the same broker.
//
// A broker that has to ask a certificate authority takes seconds to minutes, for
// which this waits, a quarter of an hour at most. For such a one the request has to be
// for <prefix>.<domain> and nothing else: that is the module's host name.
//
// Without req.CSR the broker makes the key, and whoever runs it could keep it.
//
// Errors: 400 for a prefix that is no host name label; 401 for a token or key
// that is not taken; 404 when the broker gives no names; 409 when the name is
// another module's or is under way; 410 when the certificate authority gave none; 503
// when the broker may not ask it now; [ErrCertificatePending].
func (b *Broker) RegisterDomain(ctx context.Context, prefix, authKey string, req api.DomainRegister) (*api.TLSBundle, error) {
	if prefix == "" || req.Genuine == "" {
		return nil, badArgument(opDomain, "a prefix and the module's attestation token are needed")
	}
	path := "/domain/register/" + prefix
	target := b.base.JoinPath("/domain/register/", url.PathEscape(prefix))
	if authKey != "" {
		target = target.JoinPath(url.PathEscape(authKey))
	}
	var answer struct {
		api.TLSBundle
		api.DomainOrdered
	}
	// Not the target's path: an error must not show the key.
	if _, err := b.doAs(ctx, opDomain, http.MethodPost, path, target, req, &answer); err != nil {
		return nil, err
	}
	if answer.ID != "" {
		err := b.poll(ctx, opDomain, "/domain/register/"+url.PathEscape(answer.ID), b.cfg.Now().Add(domainPatience), &answer.TLSBundle)
		if errors.Is(err, ErrRemoteTimeout) {
			err = &OpError{Op: opDomain, Err: ErrCertificatePending}
		}
		if err != nil {
			return nil, err
		}
	}
	return &answer.TLSBundle, nil
}

// domainPatience is how long a CA may take while somebody waits.
const domainPatience = 15 * time.Minute

// ErrCertificatePending: the certificate authority has not answered yet. The broker
// goes on asking, and keeps the name.
var ErrCertificatePending = errors.New("the certificate authority has not answered yet; the broker goes on asking, and the name is kept")
