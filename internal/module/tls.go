package module

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"

	"softhem/api"
	"softhem/internal/audit"
	"softhem/internal/certs"
	"softhem/internal/keyring"
	"softhem/internal/records"
	"softhem/internal/store"
	"softhem/internal/suite"
)

// TLSPair is the pair the HTTPS listener shows; *certs.Manager is the one
// there is.
type TLSPair interface {
	// Request is a certificate request, PEM, for the key with this scalar; nil
	// is the module's own TLS key.
	Request(hostname string, scalar []byte) (string, error)
	// Serial is the 16-byte serial number of the certificate in use.
	Serial() []byte
	// Install replaces the pair, see certs.Manager.Install.
	Install(scalar []byte, chain [][]byte, now int64, commit func(save func(context.Context, store.Tx) error) error) error
	// Check opens again what is kept of the pair.
	Check(context.Context) error
	// Installed is the pair in use, if it was installed.
	Installed() (certs.Installed, bool)
}

// tlsBundle is api.TLSBundle as it arrives.
type tlsBundle struct {
	Crt string `json:"crt"`
	Emp string `json:"emp"`
	Key string `json:"key"`
}

// bundle is a tlsBundle decoded.
type bundle struct {
	chain [][]byte // DER, leaf first
	point []byte   // of emp
	key   *sealedScalar
}

// A sealedScalar is a P-256 scalar on its way to the module:
//
//	b64(IV, 16 bytes) "." b64(AES-256-CBC(SHA-256(x of ECDH), scalar))
//
// where the plaintext is the scalar as 64 hex digits in lower case without
// padding (113 characters in all), or its 32 bytes padded by PKCS #7 (89).
type sealedScalar struct{ iv, sealed []byte }

const (
	scalarHexBytes    = 2 * suite.P256ScalarSize
	scalarPaddedBytes = suite.P256ScalarSize + 16
	pointBytes        = 65
	maxChain          = 8 // certificates
)

// tlsBundle reads a bundle; nil if none was given, or f has an error.
func (f *fields) tlsBundle(g given[tlsBundle]) *bundle {
	var text tlsBundle
	if put(f, "tls", g, &text); !g.here || f.err != nil {
		return nil
	}
	b := &bundle{}
	if text.Crt == "" {
		f.bad("tls lacks crt")
		return nil
	}
	if b.chain = f.chain("crt", text.Crt); f.err != nil {
		return nil
	}
	if (text.Emp == "") != (text.Key == "") {
		f.bad("emp and key of tls go together")
	}
	if text.Emp == "" || f.err != nil {
		return b
	}
	b.point = f.bytes("emp", text.Emp, pointBytes, pointBytes)
	iv, sealed, found := strings.Cut(text.Key, ".")
	if !found {
		f.bad("key is not IV and ciphertext with a dot between them")
		return nil
	}
	b.key = &sealedScalar{iv: f.bytes("key's IV", iv, api.CipherIVBytes, api.CipherIVBytes), sealed: f.bytes("key", sealed, 1, maxBody)}
	if n := len(b.key.sealed); n != scalarHexBytes && n != scalarPaddedBytes {
		f.bad("key has neither of the two lengths it can have")
	}
	return b
}

// chain reads certificates in DER, one after the other.
func (f *fields) chain(name, text string) [][]byte {
	der := f.bytes(name, text, 1, maxBody)
	if f.err != nil {
		return nil
	}
	all, err := x509.ParseCertificates(der)
	if err != nil || len(all) == 0 || len(all) > maxChain {
		f.bad("%s is not one to %d certificates in DER", name, maxChain)
		return nil
	}
	chain := make([][]byte, len(all))
	for i, c := range all {
		chain[i] = c.Raw
	}
	return chain
}

// errBadTLSKey says nothing of why: the ciphertext has no tag, and who sends
// one must not learn how its plaintext looks.
var errBadTLSKey = api.ErrNotAcceptable.Because("the key of tls does not open")

// scalar opens the key of a bundle with the attestation key.
func (b *bundle) scalar(attest *suite.P256Key) ([]byte, error) {
	secret, err := attest.Shared(b.point)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	key := suite.SHA256(secret)
	defer clear(key[:])
	scalar := make([]byte, suite.P256ScalarSize)
	if len(b.key.sealed) == scalarPaddedBytes {
		alg, _ := suite.CipherAlgOf("AES256-CBC")
		plain, err := alg.Decrypt(key[:], b.key.sealed, b.key.iv, nil, nil)
		if err != nil || copy(scalar, plain) != len(plain) {
			return nil, suite.ErrMismatch
		}
		clear(plain)
	} else {
		digits, err := suite.OpenCBCUnpadded(key[:], b.key.iv, b.key.sealed)
		if err != nil {
			return nil, err
		}
		defer clear(digits)
		if _, err := hex.Decode(scalar, digits); err != nil {
			clear(scalar)
			return nil, suite.ErrMismatch
		}
	}
	if _, err := suite.NewP256Key(scalar); err != nil {
		return nil, err
	}
	return scalar, nil
}

// firstTLS is the update of a fresh module: anybody may give it a TLS pair, as
// anybody may personalise it. m.mu is held.
func (m *Module) firstTLS(ctx context.Context, p *Pass, req ConfigUpdate) error {
	if fls := m.state.Load().fls(); fls != 0 {
		return api.ErrConflict.Becausef("fail state %02x", fls)
	}
	if !req.TLS.here {
		return api.ErrNotAcceptable.Because("a fresh module takes tls, and nothing else")
	}
	f := &fields{}
	b := f.tlsBundle(req.TLS)
	if f.err != nil {
		return f.err
	}
	var scalar []byte
	if b.key != nil {
		var err error
		if scalar, err = b.scalar(m.state.Load().identity.attest); err != nil {
			return m.notDone(ctx, p, audit.ConfigUpdated, errBadTLSKey.Reason, nil)
		}
	}
	err := m.cfg.TLS.Install(scalar, b.chain, p.now, func(save func(context.Context, store.Tx) error) error {
		return m.commit(ctx, func(ctx context.Context, tx store.Tx) ([]audit.Record, error) {
			return []audit.Record{{Type: audit.ConfigUpdated, Who: p.who()}}, save(ctx, tx)
		})
	})
	if err != nil {
		return m.notUpdated(ctx, p, err)
	}
	return nil
}

// newCertificate installs the certificate that came with a check-in, if it is
// for the module's TLS key; else the error is certs.ErrRefused, and recorded.
func (m *Module) newCertificate(ctx context.Context, p *Pass, text string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := &fields{}
	chain := f.chain("newcrt", text)
	err := f.err
	if err == nil {
		err = m.cfg.TLS.Install(nil, chain, p.now, func(save func(context.Context, store.Tx) error) error {
			return m.commitCertificate(ctx, p, save)
		})
	} else {
		err = fmt.Errorf("%w: %w", certs.ErrRefused, err)
	}
	if err == nil {
		return nil
	}
	m.log.WarnContext(ctx, "a check-in brought a certificate that was not installed", "cause", err)
	if recorded := m.append(ctx, audit.Record{Type: audit.TLSError, Result: audit.Failed}); recorded != nil {
		return recorded
	}
	return err
}

// commitCertificate keeps a pair, and on a personalised module the time of the
// change. m.mu is held.
func (m *Module) commitCertificate(ctx context.Context, p *Pass, save func(context.Context, store.Tx) error) error {
	next := m.state.Load().config
	next.Uts = max(p.now, next.Uts+1)
	err := m.commit(ctx, func(ctx context.Context, tx store.Tx) ([]audit.Record, error) {
		if err := save(ctx, tx); err != nil {
			return nil, err
		}
		if next.Inited {
			if err := records.Save(ctx, tx, m.cfg.Sealer, kindConfig, idOnly, next); err != nil {
				return nil, err
			}
		}
		return []audit.Record{{Type: audit.ConfigUpdated}}, nil
	})
	if err == nil && next.Inited {
		m.replace(func(st *state) { st.config.Uts = next.Uts })
	}
	return err
}

// What an installed TLS pair is called among the keys.
const (
	labelPrivate     = "TLS PrivateKey"
	labelCertificate = "TLS Certificate"

	genericDER api.KeyType = "GENERIC_DER"
)

// tlsKeys are the two keys that an installed TLS pair counts as, and the
// certificate of the second; nil when none was installed. They are not in the
// key repository: the pair is replaced as a whole, and nothing else is done with
// it.
//
// The kid of the private key is made of its SubjectPublicKeyInfo, and so is not
// that of the same public key imported; the certificate's is that of its DER.
func (m *Module) tlsKeys(st *state) ([]keyring.Info, []byte) {
	pair, ok := m.cfg.TLS.Installed()
	if !ok {
		return nil, nil
	}
	descr := []byte("DNS:" + st.config.Hostname)
	descr = descr[:min(len(descr), api.MaxDescrBytes)]
	return []keyring.Info{{
		KID: keyring.KIDOf(pair.KeyInfo), Traits: api.KeyTraits{Made: true, Private: true, Type: genericDER},
		Created: pair.Since, Updated: pair.Since, Label: labelPrivate, Descr: descr, Public: pair.Point,
	}, {
		KID: keyring.KIDOf(pair.Certificate), Traits: api.KeyTraits{Cert: true, Type: genericDER},
		Created: pair.Since, Updated: pair.Since, Label: labelCertificate, Descr: descr,
	}}, pair.Certificate
}

// tlsKey is what is public of one of them.
func (m *Module) tlsKey(st *state, kid store.KID) (answer api.Key, ok bool) {
	keys, certificate := m.tlsKeys(st)
	for _, k := range keys {
		if k.KID != kid {
			continue
		}
		answer = api.Key{Type: string(genericDER), Updated: k.Updated, Descr: api.EncodeBase64(m.cfg.Quirks.keyDescr(k.Descr))}
		if k.Traits.Cert {
			answer.Type, answer.DER = k.Traits.String(), api.EncodeBase64(certificate)
		} else {
			answer.PubKey = api.EncodeBase64(k.Public)
		}
		return answer, true
	}
	return api.Key{}, false
}

// errTLSKey is why they are not changed as keys are.
const errTLSKey = "the TLS pair is replaced by the configuration, and not changed as a key"

// withTLSKeys is a page of a list that begins with the keys in first, followed
// by those that read pages through.
func withTLSKeys(first []keyring.Info, offset, limit int64, read func(offset, limit int64) (keyring.Page, error)) (keyring.Page, error) {
	n := int64(len(first))
	if offset >= n {
		page, err := read(offset-n, limit)
		page.Total += n
		return page, err
	}
	mine := first[offset:min(n, offset+limit)]
	rest := limit - int64(len(mine))
	page, err := read(0, max(rest, 1)) // one at least, for the total
	if err != nil {
		return page, err
	}
	page.Keys = append(append([]keyring.Info(nil), mine...), page.Keys[:min(int64(len(page.Keys)), rest)]...)
	page.Total += n
	return page, nil
}
