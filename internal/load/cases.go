package load

import (
	"bytes"
	"context"
	"encoding/json"

	"softhem/api"
	"softhem/hem"
)

// A Case is an operation with a key whose rate is measured.
type Case struct {
	Name string // as it is called on the command line and in tables
	Type api.KeyType
	Mode string
	Path string

	alg  string
	size int // of the message in bytes
}

const (
	hashPath    = "/api/crypto/hmac/hash"
	signPath    = "/api/crypto/exdsa/sign"
	encryptPath = "/api/crypto/cipher/encrypt"
	decapsPath  = "/api/crypto/pqc/mlkem/decaps"
	mldsaPath   = "/api/crypto/pqc/mldsa/sign"

	messageSize = 32
)

// Cases are the operations whose rate the project states.
func Cases() []Case {
	return []Case{
		{Name: "ed25519-sign", Type: api.Ed25519, Path: signPath, alg: api.AlgEd25519, size: messageSize},
		{Name: "p256-sign", Type: api.SECP256R1, Mode: api.ModeExDSA, Path: signPath, alg: api.SHA256WithECDSA, size: messageSize},
		{Name: "hmac-sha256", Type: api.SHA2x256, Path: hashPath, size: messageSize},
		{Name: "aes256-gcm-1k", Type: api.AES256, Path: encryptPath, alg: hem.AES256GCM, size: 1024},
		{Name: "mlkem768-decaps", Type: api.MLKEM768, Path: decapsPath},
		{Name: "mldsa65-sign", Type: api.MLDSA65, Path: mldsaPath, size: messageSize},
	}
}

// Body is the request's JSON for a key, whose ciphertext is ct where the case
// decapsulates.
func (c Case) Body(kid string, ct []byte) []byte {
	msg := api.EncodeBase64(bytes.Repeat([]byte{'m'}, c.size))
	var v any
	switch c.Path {
	case signPath, mldsaPath:
		v = api.SignRequest{KID: kid, Msg: msg, Alg: c.alg}
	case hashPath:
		v = api.HMACRequest{KID: kid, Msg: msg}
	case encryptPath:
		v = api.CipherRequest{KID: kid, Msg: msg, Alg: c.alg}
	case decapsPath:
		v = api.DecapsRequest{KID: kid, CT: api.EncodeBase64(ct)}
	}
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // structs of strings
	}
	return body
}

// Prepare makes a key of that descr in the module, and the request that uses
// it.
func (c Case) Prepare(ctx context.Context, t Target, m *hem.Client, descr []byte) (request []byte, kid hem.KID, err error) {
	if kid, err = m.CreateKey(ctx, hem.KeySpec{Label: "bench " + c.Name, Type: c.Type, Mode: c.Mode, Descr: descr}); err != nil {
		return nil, kid, err
	}
	var ct []byte
	if c.Path == decapsPath {
		_, sent, err := m.Encapsulate(ctx, kid)
		if err != nil {
			return nil, kid, err
		}
		ct = sent
	}
	token, err := m.Login(ctx, api.ScopeKeyUse(kid.String()))
	if err != nil {
		return nil, kid, err
	}
	return t.Request("POST", c.Path, string(token.Bearer), c.Body(kid.String(), ct)), kid, nil
}
