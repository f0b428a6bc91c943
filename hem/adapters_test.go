package hem

import (
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"testing"

	"softhem/api"
)

// What a module says of a key is checked before it becomes a Go value, and what it makes with the
// key before it is handed on.
func TestAdaptersCheckTheModule(t *testing.T) {
	f := startFake(t)
	c := newClient(t, Config{URL: f.url, Key: testKey(t)})
	ctx := t.Context()
	var body string
	tell := func(typ api.KeyType, public []byte) {
		f.serve("GET /api/keymgmt/get/"+textA, useA, says(`{"type":"`+string(typ)+`","pubkey":"`+api.EncodeBase64(public)+`"}`), &body)
	}
	adapt := map[string]func() error{
		"signer":       func() error { _, err := c.Signer(ctx, kidA); return err },
		"ECDH key":     func() error { _, err := c.ECDHKey(ctx, kidA); return err },
		"decapsulator": func() error { _, err := c.Decapsulator(ctx, kidA); return err },
	}
	for name, types := range map[string][]api.KeyType{
		"signer":       {api.SECP256R1, api.SECP256K1, api.Ed25519, api.Ed448, api.MLDSA87},
		"ECDH key":     {api.Curve25519, api.SECP384R1},
		"decapsulator": {api.MLKEM768, api.MLKEM1024},
	} {
		for _, typ := range types {
			for _, public := range [][]byte{nil, bytesN(publicSize(typ) - 1), bytesN(publicSize(typ) + 1)} {
				tell(typ, public)
				if err := adapt[name](); !errors.Is(err, ErrProtocol) {
					t.Errorf("a %s of type %s with %d bytes: %v", name, typ, len(public), err)
				}
			}
		}
	}

	other, err := ecdh.P384().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	typ, raw, err := RawPublic(other.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	tell(typ, raw)
	k, err := c.ECDHKey(ctx, kidA)
	if err != nil {
		t.Fatal(err)
	}
	// Firmware 1.2.2 gives 32 bytes of a longer secret.
	for size, right := range map[int]bool{32: false, 47: false, 48: true, 49: false} {
		f.serve("POST /api/crypto/ecdh", useA, says(`{"ecdh":"`+b64n(size)+`"}`), &body)
		if secret, err := k.ECDH(other.PublicKey()); (err == nil) != right || !right && (!errors.Is(err, ErrProtocol) || secret != nil) {
			t.Errorf("a secret of %d bytes: %x, %v", size, secret, err)
		}
	}

	a, err := c.AEAD(kidA, AES128GCM)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{2, 4} {
		f.serve("POST /api/crypto/cipher/encrypt", useA,
			says(`{"ciphertext":"`+b64n(size)+`","iv":"`+b64n(16)+`","tag":"`+b64n(16)+`"}`), &body)
		if sealed, err := a.Seal(ctx, bytesN(3), nil); !errors.Is(err, ErrProtocol) || sealed != nil {
			t.Errorf("3 bytes are sealed as %x, %v", sealed, err)
		}
	}
}
