// Package hem is a client for hardware encryption modules that speak the HEM REST API: a
// SoftHEM, or a device.
//
// A [Client] stands for one module and one persona, the local user or the administrator.
// It proves the passphrase to the module without ever sending it, asks for one bearer
// token per scope when a call needs it, keeps those tokens until shortly before they end,
// and logs in once more when the module has forgotten them:
//
//	c, err := hem.New(hem.Config{
//		URL:        "https://localhost:8443",
//		CACert:     pem,
//		Passphrase: func(context.Context, api.Role) ([]byte, error) { return ask() },
//	})
//	conf, err := c.Config(ctx)
//
// A Client may be used by any number of goroutines at once. Calls end with their context;
// the package sets no time limit of its own.
//
// # Keys
//
// Keys are made in the module, stay there, and are named by a [KID]:
//
//	kid, err := c.CreateKey(ctx, hem.KeySpec{Label: "releases", Type: api.Ed25519})
//	sig, err := c.Sign(ctx, kid, msg, api.AlgEd25519, nil)
//
// There are 23 types, [api.KeyTypes]. What they do:
//
//	SECP256R1, SECP384R1, SECP521R1, SECP256K1   Sign, Verify (FIPS 186-5); as CURVE25519, if their mode says so
//	ED25519, ED448                               Sign, Verify (RFC 8032)
//	CURVE25519, CURVE448                         ECDH (RFC 7748); with a Peer also HMAC, Encrypt, Wrap and DeriveKey
//	SHA2-256 to SHA3-512                         HMAC, VerifyHMAC (FIPS 198-1)
//	AES128, AES192, AES256                       Encrypt, Decrypt, Wrap, Unwrap (SP 800-38A and D, RFC 3394)
//	MLKEM512, MLKEM768, MLKEM1024                Encapsulate, Decapsulate (FIPS 203)
//	MLDSA44, MLDSA65, MLDSA87                    SignMLDSA, VerifyMLDSA (FIPS 204)
//
// A message has 1 to [api.MaxMessageBytes] bytes, 2048, and longer ones are
// [ErrArgument]: who has to sign more signs a digest as the message, if the other side
// knows that, and who has to encrypt more encrypts a data key.
//
// Every key has a scope of its own: its uses share one token, and one login. Management
// has a scope for each kind of call. Where several would do, a token that is at hand
// decides.
//
// Public keys cross the wire in a raw form, see [RawPublic]. [ParsePublic] makes keys of
// the standard library of them; [MarshalSPKI] writes what is in a PEM file and
// [ParseSPKI] reads it, [MarshalOpenSSH] writes a line of authorized_keys, and
// [MarshalJWK] a JSON Web Key.
//
// # Keys as Go values
//
// [Client.Signer], [Client.ECDHKey], [Client.Decapsulator] and [Client.AEAD] make values
// that stand where a private key is expected. The interfaces know no contexts: what is
// made with a context keeps it, and fails when it has ended. The private key's work is a
// call to the module each time, and can fail like one.
//
// A [Signer] is a [crypto.Signer], with one limit: a module hashes what it signs, and
// never signs a digest that someone made. So it is also a [crypto.MessageSigner], which
// is given the message, and its method Sign, which ECDSA calls with a digest, answers
// [ErrDigest]. What calls [crypto.SignMessage] works; what hashes by itself works with
// Ed25519 keys, whose message is never hashed beforehand. With Go 1.26, and ED25519,
// SECP256R1, SECP384R1 and SECP521R1 keys:
//
//   - [crypto/x509] signs certificates, requests and revocation lists, as long as what is
//     signed, which is all but the signature, has no more than 2048 bytes
//   - [crypto/tls] takes them for servers and clients, in TLS 1.3 and 1.2. But a client
//     in TLS 1.2 signs the whole handshake so far, which more than one or two
//     certificates make longer than 2048 bytes: have such clients use TLS 1.3
//   - golang.org/x/crypto/ssh hashes: NewSignerFromSigner is for Ed25519 keys. For the
//     others, an ssh.Signer that calls [Signer.SignMessage] and writes r and s as mpints
//     (RFC 5656, section 3.1.2) has some twenty lines
//   - go-jose hashes: its cryptosigner is for Ed25519 keys. For the others, a
//     jose.OpaqueSigner calls [Signer.SignMessage] and [ECDSAToRaw]; the latter has an
//     example without a library
//
// A Signer of a SECP256K1, ED448 or ML-DSA key signs as well, but the standard library
// has no use for it.
//
// An [ECDHKey] is a [crypto/ecdh.KeyExchanger], and a [Decapsulator] a
// [crypto.Decapsulator]: [crypto/hpke] decrypts with either, and with one of each as a
// hybrid. An [AEAD] is like a [crypto/cipher.AEAD] whose methods can fail.
//
// # Errors
//
// A refusal by the module is an [*OpError] that wraps an [*api.Error], so that
// errors.Is(err, api.ErrUnauthorized) holds for every 401. A module that cannot be
// reached, or whose certificate is not trusted, is an [*UnreachableError], which says
// what to do next. [ErrProtocol] marks answers that no module would give,
// [ErrOtherModule] a module other than the pinned one, [ErrArgument] a call that was
// never sent. [ErrVerification] means that a signature or MAC is not to be trusted,
// [ErrKeyType] that a key is of another type. No error text holds a passphrase, a key or
// a token.
//
// # Secrets
//
// Passphrases that [Config.Passphrase] returns, derived keys and shared secrets are
// overwritten after use. Go gives no more than that: the garbage collector and the
// standard library's own hash and key types keep copies that nobody can reach to clear.
// What an operation with a key returns, a secret of ECDH say, is its caller's to clear;
// the JSON that carried it is left to the collector.
package hem
