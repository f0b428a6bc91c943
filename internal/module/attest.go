package module

import (
	"strconv"

	"softhem/api"
)

// genuine is the module's attestation token at a time, in Unix seconds:
//
//	b64(SKI, 20 bytes) "." b64(time, decimal) "." b64(signature) "." b64(certificate, DER)
//
// where the signature is ECDSA P-256 with SHA-256, DER, over the first two
// segments and their dot, and the certificate is that of the attestation key,
// signed by itself. In software this proves that a module is still the one it
// was, and no more.
func (id *identity) genuine(now int64) string {
	signed := api.EncodeBase64(id.attest.KeyID()) + "." + api.EncodeBase64(strconv.AppendInt(nil, now, 10))
	return signed + "." + api.EncodeBase64(id.attest.Sign([]byte(signed))) + "." + api.EncodeBase64(id.cert)
}
