package module

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/records"
	"softhem/internal/store"
	"softhem/internal/suite"
)

// genuine is the module's attestation token at a time, in Unix seconds:
//
//	b64(SKI, 20 bytes) "." b64(time, decimal) "." b64(signature) "." b64(certificate, DER)
//
// where the signature is ECDSA P-256 with SHA-256, DER, over the first two
// segments and their dot, and the certificate is that of the attestation key,
// signed by itself or by who provisioned the module. In software this proves that a
// module is still the one it was, and no more.
func (id *identity) genuine(now int64) string {
	signed := api.EncodeBase64(id.attest.KeyID()) + "." + api.EncodeBase64(strconv.AppendInt(nil, now, 10))
	return signed + "." + api.EncodeBase64(id.attest.Sign([]byte(signed))) + "." + api.EncodeBase64(id.cert)
}

// made tells whether a token, which is read into f, was made with this identity,
// whenever that was and whichever certificate it carries.
func (id *identity) made(f *fields, token string) bool {
	parts := strings.Split(token, ".")
	if len(parts) < 3 || len(parts) > 4 {
		f.bad("genuine is no attestation token")
		return false
	}
	var raw [4][]byte
	for i, part := range parts {
		raw[i] = f.bytes("genuine", part, 1, maxBody)
	}
	return suite.Equal(raw[0], id.attest.KeyID()) && suite.VerifyP256(id.attest.Point(), []byte(parts[0]+"."+parts[1]), raw[2])
}

func (id *identity) seState() int {
	if id.chain != nil {
		return api.SEProvisioned
	}
	return api.SEUnprovisioned
}

// kindProvisioning is what the attestation key was given, one record.
const kindProvisioning store.Kind = "provisioning"

type provisioningRecord struct {
	Chain [][]byte `json:"chain"` // DER, leaf first
}

// provisioned is the identity with what its attestation key was given.
func (id *identity) provisioned(chain [][]byte) *identity {
	with := *id
	with.cert, with.chain = chain[0], chain
	return &with
}

// loadProvisioning completes an identity that was read.
func (m *Module) loadProvisioning(ctx context.Context, id *identity) (*identity, error) {
	var rec provisioningRecord
	err := m.cfg.Store.View(ctx, func(r store.Reader) (err error) {
		rec, err = records.Load[provisioningRecord](ctx, r, m.cfg.Sealer, kindProvisioning, idOnly)
		return err
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return id, nil
	case err != nil:
		return nil, fmt.Errorf("the certificate of the attestation key: %w", err)
	case len(rec.Chain) == 0:
		return nil, errors.New("the certificate of the attestation key is missing in its record")
	}
	return id.provisioned(rec.Chain), nil
}

// Attestation is a new token, with the certificate that the attestation key was
// given or, before that, a request for one and the key itself.
func (m *Module) Attestation(p *Pass) (api.Attestation, error) {
	p.must(OpAttestation)
	id := p.state.identity
	a := api.Attestation{Genuine: id.genuine(p.now)}
	if id.chain != nil {
		a.Crt = api.EncodeBase64(slices.Concat(id.chain...))
		return a, nil
	}
	der, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{Subject: id.subject()}, id.attest.Signer())
	if err != nil {
		return api.Attestation{}, err
	}
	a.CSR = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	a.Key = api.EncodeBase64(id.attest.Point())
	return a, nil
}

// subject is what certificates of the attestation key are for.
func (id *identity) subject() pkix.Name { return attestationSubject(id.devID) }

func attestationSubject(devID string) pkix.Name {
	return pkix.Name{CommonName: "SoftHEM attestation " + devID}
}

// maxAttestationCert is how long the leaf may be, in bytes: it goes into every
// token, and those into requests of limited length.
const maxAttestationCert = 2048

// Provision gives the attestation key its certificate, once, on a fresh module. Who
// signed it, and what it says, is for those to judge who are shown it.
func (m *Module) Provision(ctx context.Context, p *Pass, req api.Provisioning) error {
	p.must(OpProvision)
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.state.Load()
	switch {
	case m.wiped.Load():
		return api.ErrConflict.Because("the module is being wiped")
	case now.config.Inited: // meanwhile
		return api.ErrForbidden.Because("only a fresh module takes this")
	case now.fls() != 0:
		return api.ErrConflict.Becausef("fail state %02x", now.fls())
	}
	f := &fields{}
	ours := now.identity.made(f, req.Genuine)
	chain := f.chain("crt", req.Crt)
	if f.err == nil && len(chain[0]) > maxAttestationCert {
		f.bad("the certificate of crt has more than %d bytes", maxAttestationCert)
	}
	if f.err != nil {
		return f.err
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return err
	}
	key, isKey := leaf.PublicKey.(interface{ Bytes() ([]byte, error) })
	var point []byte
	if isKey {
		point, _ = key.Bytes() // no point is no key of ours
	}
	why := ""
	switch {
	case now.identity.chain != nil:
		why = "the module was provisioned before"
	case !ours:
		why = "genuine is of another module"
	case !suite.Equal(point, now.identity.attest.Point()):
		why = "the certificate is for another key"
	}
	if why != "" {
		return m.notDone(ctx, p, audit.ConfigUpdated, why, nil)
	}
	err = m.commit(ctx, func(ctx context.Context, tx store.Tx) ([]audit.Record, error) {
		return []audit.Record{{Type: audit.ConfigUpdated, Who: p.who()}},
			records.Save(ctx, tx, m.cfg.Sealer, kindProvisioning, idOnly, provisioningRecord{chain})
	})
	if err != nil {
		return m.notUpdated(ctx, p, err)
	}
	m.replace(func(st *state) { st.identity = st.identity.provisioned(chain) })
	return nil
}
