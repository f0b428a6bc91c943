package hem

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"softhem/api"
)

// GenuineLife is how long after its time an attestation token is taken, and how far
// ahead of the local clock its time may be.
const GenuineLife = 300 * time.Second

// ErrNotGenuine: an attestation token is not one, or its signature does not hold.
var ErrNotGenuine = errors.New("the attestation token does not verify")

// A Genuine is an attestation token that verifies. It shows that a module which
// holds the attestation key made it at At. For a module in software this tells that it
// is still the one whose SKI was noted before; not that it is hardware, or
// undamaged, or who runs it. Whoever sees a token can show it again until it is too
// old.
type Genuine struct {
	// SKI names the attestation key: SHA-1 of its uncompressed point, 20 bytes.
	// It is what to pin; a configuration has it as genuine_id, in base64.
	SKI []byte
	At  time.Time
	// Key is the attestation key, on P-256.
	Key *ecdsa.PublicKey
	// Certificate is that of the attestation key, which came with the token: made
	// by the module itself, or given to it ([Client.Provision]). Who signed it
	// was not looked at.
	Certificate *x509.Certificate
}

// VerifyGenuine checks the form and the signature of an attestation token: four
// segments of base64 joined by dots, SKI, decimal Unix time, DER signature (ECDSA
// P-256 with SHA-256 over the first two and their dot), DER certificate. The error
// is ErrNotGenuine, whatever is wrong. For whose it is compare SKI, and for how
// old it is see [Genuine.Fresh].
func VerifyGenuine(token string) (*Genuine, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 4 {
		return nil, ErrNotGenuine
	}
	var raw [4][]byte
	for i, part := range parts {
		var err error
		if raw[i], err = api.DecodeBase64(part); err != nil {
			return nil, ErrNotGenuine
		}
	}
	seconds, err := strconv.ParseInt(string(raw[1]), 10, 64)
	if err != nil {
		return nil, ErrNotGenuine
	}
	cert, err := x509.ParseCertificate(raw[3])
	if err != nil {
		return nil, ErrNotGenuine
	}
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, ErrNotGenuine
	}
	point, err := key.Bytes()
	if err != nil {
		return nil, ErrNotGenuine
	}
	ski, digest := sha1.Sum(point), sha256.Sum256([]byte(parts[0]+"."+parts[1]))
	if !bytes.Equal(ski[:], raw[0]) || !ecdsa.VerifyASN1(key, digest[:], raw[2]) {
		return nil, ErrNotGenuine
	}
	return &Genuine{SKI: raw[0], At: time.Unix(seconds, 0), Key: key, Certificate: cert}, nil
}

// Fresh tells whether a token is to be taken at a time.
func (g *Genuine) Fresh(now time.Time) bool {
	// In seconds: the difference of two times ends at 292 years.
	age := now.Unix() - g.At.Unix()
	const life = int64(GenuineLife / time.Second)
	return -life <= age && age <= life
}

const (
	pathAttestation  = "/api/system/config/attestation"
	pathProvisioning = "/api/system/config/provisioning"
)

// Attestation reads a new attestation token and the certificate of the attestation
// key, or the request for one: GET /api/system/config/attestation, any token, for which it
// takes one for system:config; none on a fresh module. See [VerifyGenuine].
//
// Errors: those of [Client.Login]; 404 on an EPA, 409 in a fail state.
func (c *Client) Attestation(ctx context.Context) (*api.Attestation, error) {
	r := call{op: "read the attestation", method: http.MethodGet, path: pathAttestation, freshOpen: true}
	var a api.Attestation
	resp, err := c.authorised(ctx, r, api.ScopeSystemConfig)
	if err := c.read(resp, err, c.base, r, &a); err != nil {
		return nil, err
	}
	return &a, nil
}

// Provision gives a fresh module, once, a certificate for its attestation key: POST
// /api/system/config/provisioning. It needs no token. genuine is a token of this module, chain
// DER certificates, leaf first, of at most 7 kB with the token and in base64.
//
// Errors: 400, 403 when the module is personalised, 404 on an EPA, 406 when
// it has such a certificate or this is for another key, 409 in a fail state.
func (c *Client) Provision(ctx context.Context, genuine string, chain [][]byte) error {
	r, err := postCall("provision the module", pathProvisioning, api.Provisioning{
		Genuine: genuine, Crt: api.EncodeBase64(bytes.Join(chain, nil)),
	})
	if err != nil {
		return err
	}
	resp, err := c.send(ctx, r, "")
	return c.read(resp, err, c.base, r, nil)
}
