package hem_test

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"log"

	"softhem/api"
	"softhem/hem"
)

// A key is made in the module, signs there, and its signature is verified by the module
// and without it.
func ExampleClient_Sign() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()

	kid, err := client.CreateKey(ctx, hem.KeySpec{Label: "release signing", Type: api.Ed25519})
	if err != nil {
		log.Fatal(err)
	}
	msg := []byte("softhem-1.0.tar.gz is the release")
	sig, err := client.Sign(ctx, kid, msg, api.AlgEd25519, nil)
	if err != nil {
		log.Fatal(err)
	}

	// Who has access to the module can ask it.
	err = client.Verify(ctx, kid, msg, sig, api.AlgEd25519, nil)
	fmt.Println("verified:", err == nil)
	err = client.Verify(ctx, kid, []byte("something else"), sig, api.AlgEd25519, nil)
	fmt.Println("refused:", errors.Is(err, hem.ErrVerification))

	// Everyone else takes the public key.
	key, err := client.GetKey(ctx, kid)
	if err != nil {
		log.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("by the standard library:", ed25519.Verify(public.(ed25519.PublicKey), msg, sig))
	// Output:
	// verified: true
	// refused: true
	// by the standard library: true
}

// A certificate request for a key that never leaves the module.
func ExampleClient_Signer() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()

	kid, err := client.CreateKey(ctx, hem.KeySpec{Label: "www.example.com", Type: api.SECP256R1, Mode: api.ModeExDSA})
	if err != nil {
		log.Fatal(err)
	}
	signer, err := client.Signer(ctx, kid)
	if err != nil {
		log.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "www.example.com"},
		DNSNames: []string{"www.example.com"},
	}, signer)
	if err != nil {
		log.Fatal(err)
	}

	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(request.Subject, request.SignatureAlgorithm, request.CheckSignature())
	// Output: CN=www.example.com ECDSA-SHA256 <nil>
}

// A JSON Web Token, signed with ES256: the module makes DER, JOSE wants r ‖ s.
func ExampleECDSAToRaw() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()

	kid, err := client.CreateKey(ctx, hem.KeySpec{Label: "tokens", Type: api.SECP256R1, Mode: api.ModeExDSA})
	if err != nil {
		log.Fatal(err)
	}
	signer, err := client.Signer(ctx, kid)
	if err != nil {
		log.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString
	input := text([]byte(`{"alg":"ES256"}`)) + "." + text([]byte(`{"sub":"ada"}`))
	der, err := signer.SignMessage(nil, []byte(input), crypto.SHA256)
	if err != nil {
		log.Fatal(err)
	}
	raw, err := hem.ECDSAToRaw(signer.Type(), der)
	if err != nil {
		log.Fatal(err)
	}
	token := input + "." + text(raw)
	fmt.Println(len(token), "characters:", input)

	digest := sha256.Sum256([]byte(input))
	fmt.Println(ecdsa.VerifyASN1(signer.Public().(*ecdsa.PublicKey), digest[:], der))
	// Output:
	// 126 characters: eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhZGEifQ
	// true
}

// Small secrets, sealed by a key that nobody has.
func ExampleClient_AEAD() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()

	kid, err := client.CreateKey(ctx, hem.KeySpec{Label: "database passwords", Type: api.AES256})
	if err != nil {
		log.Fatal(err)
	}
	aead, err := client.AEAD(kid, hem.AES256GCM)
	if err != nil {
		log.Fatal(err)
	}
	sealed, err := aead.Seal(ctx, []byte("hunter2"), []byte("db.example.com"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(sealed), "bytes")

	opened, err := aead.Open(ctx, sealed, []byte("db.example.com"))
	fmt.Println(string(opened), err)
	_, err = aead.Open(ctx, sealed, []byte("other.example.com"))
	fmt.Println(errors.Is(err, api.ErrNotAcceptable))
	// Output:
	// 39 bytes
	// hunter2 <nil>
	// true
}

// Encrypt is what an AEAD is made of: data, IV and tag apart, and modes for formats that
// dictate them.
func ExampleClient_Encrypt() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()

	kid, err := client.CreateKey(ctx, hem.KeySpec{Label: "legacy format", Type: api.AES256})
	if err != nil {
		log.Fatal(err)
	}
	ct, err := client.Encrypt(ctx, kid, hem.AES256CBC, []byte("not a whole block"), nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(ct.Data), len(ct.IV), len(ct.Tag))
	plaintext, err := client.Decrypt(ctx, kid, hem.AES256CBC, ct, nil)
	fmt.Println(string(plaintext), err)
	// Output:
	// 32 16 0
	// not a whole block <nil>
}

// A secret shared with someone who has no module.
func ExampleClient_ECDH() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()

	peer, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	kid, err := client.CreateKey(ctx, hem.KeySpec{Label: "exchange", Type: api.Curve25519})
	if err != nil {
		log.Fatal(err)
	}
	ours, err := client.ECDH(ctx, kid, hem.PeerPublic(peer.PublicKey().Bytes()), "")
	if err != nil {
		log.Fatal(err)
	}

	key, err := client.GetKey(ctx, kid)
	if err != nil {
		log.Fatal(err)
	}
	public, err := ecdh.X25519().NewPublicKey(key.Public)
	if err != nil {
		log.Fatal(err)
	}
	theirs, err := peer.ECDH(public)
	fmt.Println(string(ours) == string(theirs), err)
	// Output: true <nil>
}

// A post-quantum secret: the sender needs the public key and no module.
func ExampleClient_Decapsulator() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()

	kid, err := client.CreateKey(ctx, hem.KeySpec{Label: "inbox", Type: api.MLKEM768})
	if err != nil {
		log.Fatal(err)
	}
	decapsulator, err := client.Decapsulator(ctx, kid)
	if err != nil {
		log.Fatal(err)
	}
	shared, ciphertext := decapsulator.Encapsulator().Encapsulate()

	same, err := decapsulator.Decapsulate(ciphertext)
	fmt.Println(len(ciphertext), len(same), string(same) == string(shared), err)
	// Output: 1088 32 true <nil>
}

// All keys of an application that marks its own by how their descriptions begin.
func ExampleClient_AllMatches() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()

	for _, name := range []string{"eu", "us"} {
		_, err := client.CreateKey(ctx, hem.KeySpec{Label: "region " + name, Type: api.Ed25519, Descr: []byte("app:region:" + name)})
		if err != nil {
			log.Fatal(err)
		}
	}
	for key, err := range client.AllMatches(ctx, hem.KeySearch{Descr: []byte("app:region:"), Start: true}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s, %s\n", key.Label, key.Traits, key.Descr)
	}
	// Output:
	// region eu: ATT,PKEY,ExDSA,ED25519, app:region:eu
	// region us: ATT,PKEY,ExDSA,ED25519, app:region:us
}

// Every key of the module, those that it has for itself too.
func ExampleClient_AllKeys() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()

	for _, typ := range api.KeyTypes() {
		if _, err := client.CreateKey(ctx, hem.KeySpec{Label: "one of each", Type: typ}); err != nil {
			log.Fatal(err)
		}
	}
	made, private := 0, 0
	for key, err := range client.AllKeys(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		if key.Label != "one of each" {
			continue
		}
		made++
		if key.Traits.Private {
			private++
		}
	}
	fmt.Println(made, "keys,", private, "of them with a public half")
	// Output: 23 keys, 14 of them with a public half
}

// The public key of RFC 8410, section 10.1, as a PEM file has it.
func ExampleMarshalSPKI() {
	raw, err := api.DecodeBase64("Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE")
	if err != nil {
		log.Fatal(err)
	}
	der, err := hem.MarshalSPKI(api.Ed25519, raw)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	// Output:
	// -----BEGIN PUBLIC KEY-----
	// MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
	// -----END PUBLIC KEY-----
}

// The public key of RFC 8037, appendix A.2.
func ExampleMarshalJWK() {
	raw, err := api.DecodeBase64("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	if err != nil {
		log.Fatal(err)
	}
	jwk, err := hem.MarshalJWK(api.Ed25519, raw, "")
	fmt.Println(string(jwk), err)
	// Output: {"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"} <nil>
}

// The same key in authorized_keys.
func ExampleMarshalOpenSSH() {
	raw, err := api.DecodeBase64("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	if err != nil {
		log.Fatal(err)
	}
	line, err := hem.MarshalOpenSSH(api.Ed25519, raw, "ada@example.com")
	fmt.Println(line, err)
	// Output: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea ada@example.com <nil>
}
