package hem

import (
	"context"
	"net/http"
	"net/url"

	"softhem/api"
)

const opDomain = "register a name"

// RegisterDomain has a broker give a module the name <prefix>.<domain of the
// broker> and a certificate for it. req.Genuine and req.CSR are those of
// [Client.UpdateConfig] with GenCSR; the answer is for its TLS field. authKey is
// what the broker's operator gave out to register new names with, or empty.
// Later certificates come by [Client.CheckIn] with the same broker.
//
// Without req.CSR the broker makes the key, and whoever runs it could keep it.
//
// Errors: 400 for a prefix that is no host name label; 401 for a token or key
// that is not taken; 404 when the broker gives no names; 409 when the name is
// another module's.
func (b *Broker) RegisterDomain(ctx context.Context, prefix, authKey string, req api.DomainRegister) (*api.TLSBundle, error) {
	if prefix == "" || req.Genuine == "" {
		return nil, badArgument(opDomain, "a prefix and the module's attestation token are needed")
	}
	path := "/domain/register/" + prefix
	target := b.base.JoinPath("/domain/register/", url.PathEscape(prefix))
	if authKey != "" {
		target = target.JoinPath(url.PathEscape(authKey))
	}
	var bundle api.TLSBundle
	// Not the target's path: an error must not show the key.
	if _, err := b.doAs(ctx, opDomain, http.MethodPost, path, target, req, &bundle); err != nil {
		return nil, err
	}
	return &bundle, nil
}
