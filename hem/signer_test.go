package hem_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/cryptosigner"
	"golang.org/x/crypto/ssh"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
)

func signer(t testing.TB, c *hem.Client, typ api.KeyType) *hem.Signer {
	t.Helper()
	s, err := c.Signer(t.Context(), create(t, c, typ))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSigner(t *testing.T) {
	c := hemtest.New(t, nil).Client()
	msg := []byte("message")
	sign := func(alg, ctx string) crypto.SignerOpts { return &hem.SignOptions{Alg: alg, Context: []byte(ctx)} }
	for _, tc := range []struct {
		typ  api.KeyType
		alg  string // what signs; empty when it is refused
		ctx  string
		opts []crypto.SignerOpts
	}{
		{api.SECP256R1, api.SHA256WithECDSA, "", []crypto.SignerOpts{crypto.SHA256, sign(api.SHA256WithECDSA, "")}},
		{api.SECP384R1, api.SHA384WithECDSA, "", []crypto.SignerOpts{crypto.SHA384, sign(api.SHA384WithECDSA, "")}},
		{api.SECP521R1, api.SHA512WithECDSA, "", []crypto.SignerOpts{crypto.SHA512, sign(api.SHA512WithECDSA, "")}},
		{api.SECP256K1, api.SHA256WithECDSA, "", []crypto.SignerOpts{crypto.SHA256}},
		{api.SECP521R1, api.SHA256WithECDSA, "", []crypto.SignerOpts{crypto.SHA256}},
		{api.SECP256R1, "", "", []crypto.SignerOpts{nil, crypto.Hash(0), crypto.SHA1, crypto.SHA3_256, sign("", ""), sign(api.AlgEd25519, ""), &ed25519.Options{Hash: crypto.SHA512}}},
		{api.Ed25519, api.AlgEd25519, "", []crypto.SignerOpts{nil, crypto.Hash(0), &ed25519.Options{}, sign(api.AlgEd25519, "")}},
		{api.Ed25519, api.AlgEd25519ph, "", []crypto.SignerOpts{crypto.SHA512, &ed25519.Options{Hash: crypto.SHA512}}},
		{api.Ed25519, api.AlgEd25519ph, "ctx", []crypto.SignerOpts{&ed25519.Options{Hash: crypto.SHA512, Context: "ctx"}, sign(api.AlgEd25519ph, "ctx")}},
		{api.Ed25519, api.AlgEd25519ctx, "ctx", []crypto.SignerOpts{&ed25519.Options{Context: "ctx"}, sign(api.AlgEd25519ctx, "ctx")}},
		{api.Ed25519, "", "", []crypto.SignerOpts{crypto.SHA256, sign("", ""), sign(api.AlgEd448, ""), sign(api.AlgEd25519ctx, ""), &ed25519.Options{Context: strings.Repeat("x", 256)}}},
		{api.Ed448, api.AlgEd448, "", []crypto.SignerOpts{nil, crypto.Hash(0), sign(api.AlgEd448, "")}},
		{api.Ed448, api.AlgEd448ph, "ctx", []crypto.SignerOpts{sign(api.AlgEd448ph, "ctx")}},
		{api.Ed448, "", "", []crypto.SignerOpts{crypto.SHA512, &ed25519.Options{}}},
	} {
		s := signer(t, c, tc.typ)
		raw := public(t, c, s.KID())
		if s.Type() != tc.typ {
			t.Errorf("%s is %s", tc.typ, s.Type())
		}
		if typ, got, err := hem.RawPublic(s.Public()); typ != tc.typ || !bytes.Equal(got, raw) || err != nil {
			t.Errorf("%s: its public key is %v (%v)", tc.typ, s.Public(), err)
		}
		for _, opts := range tc.opts {
			sig, err := s.SignMessage(nil, msg, opts)
			if tc.alg == "" {
				if !errors.Is(err, hem.ErrArgument) {
					t.Errorf("%s with %v: %v", tc.typ, opts, err)
				}
				if _, err := s.Sign(nil, msg, opts); !errors.Is(err, hem.ErrArgument) {
					t.Errorf("Sign by %s with %v: %v", tc.typ, opts, err)
				}
				continue
			}
			if err != nil || !verifies(t, tc.typ, raw, msg, sig, tc.alg, []byte(tc.ctx)) {
				t.Errorf("%s with %v: %x, %v", tc.typ, opts, sig, err)
			}
			// Sign signs what is no digest, and refuses what is one.
			switch sig, err := s.Sign(nil, msg, opts); tc.alg {
			case api.AlgEd25519, api.AlgEd25519ctx, api.AlgEd448:
				if err != nil || !verifies(t, tc.typ, raw, msg, sig, tc.alg, []byte(tc.ctx)) {
					t.Errorf("Sign by %s with %v: %x, %v", tc.typ, opts, sig, err)
				}
			default:
				if !errors.Is(err, hem.ErrDigest) || sig != nil {
					t.Errorf("Sign by %s with %v: %x, %v", tc.typ, opts, sig, err)
				}
			}
		}
	}

	s := signer(t, c, api.MLDSA65)
	for _, opts := range []crypto.SignerOpts{nil, crypto.Hash(0), sign("", "ctx")} {
		var sigctx []byte
		if o, ok := opts.(*hem.SignOptions); ok {
			sigctx = o.Context
		}
		for name, sign := range map[string]func(io.Reader, []byte, crypto.SignerOpts) ([]byte, error){"Sign": s.Sign, "SignMessage": s.SignMessage} {
			sig, err := sign(nil, msg, opts)
			if err == nil {
				err = c.VerifyMLDSA(t.Context(), s.KID(), msg, sig, sigctx)
			}
			if err != nil {
				t.Errorf("%s of ML-DSA with %v: %v", name, opts, err)
			}
		}
	}
	if _, err := s.SignMessage(nil, msg, crypto.SHA512); !errors.Is(err, hem.ErrArgument) {
		t.Errorf("HashML-DSA: %v", err)
	}
	if _, err := s.SignMessage(nil, make([]byte, 2049), nil); !errors.Is(err, hem.ErrArgument) {
		t.Errorf("a long message: %v", err)
	}

	for _, typ := range []api.KeyType{api.Curve25519, api.Curve448, api.AES256, api.SHA2x256, api.MLKEM768} {
		if s, err := c.Signer(t.Context(), create(t, c, typ)); !errors.Is(err, hem.ErrKeyType) {
			t.Errorf("a signer of a key of type %s: %v, %v", typ, s, err)
		}
	}
	if s, err := c.Signer(t.Context(), hem.KID{1}); !errors.Is(err, api.ErrNotAcceptable) {
		t.Errorf("a signer of no key: %v, %v", s, err)
	}
	// The Signer's context is that of its calls.
	ctx, cancel := context.WithCancel(t.Context())
	s, err := c.Signer(ctx, s.KID())
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := s.SignMessage(nil, msg, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
}

func TestSignOptionsHash(t *testing.T) {
	for alg, want := range map[string]crypto.Hash{
		api.SHA256WithECDSA: crypto.SHA256, api.SHA384WithECDSA: crypto.SHA384, api.SHA512WithECDSA: crypto.SHA512,
		api.AlgEd25519ph: crypto.SHA512, api.AlgEd25519: 0, api.AlgEd448ph: 0, "": 0,
	} {
		if got := (&hem.SignOptions{Alg: alg}).HashFunc(); got != want {
			t.Errorf("%q: %v", alg, got)
		}
	}
}

// selfSigned is a CA certificate by a key in the module.
func selfSigned(t testing.TB, s crypto.Signer, names ...string) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a key in a module"}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, s.Public(), s)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

var x509Types = []api.KeyType{api.Ed25519, api.SECP256R1, api.SECP384R1, api.SECP521R1}

// Requests, certificates and revocation lists are signed by the standard library with
// keys in the module, and verified by it.
func TestX509(t *testing.T) {
	c := hemtest.New(t, nil).Client()
	for _, typ := range x509Types {
		t.Run(string(typ), func(t *testing.T) {
			s := signer(t, c, typ)
			der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
				Subject: pkix.Name{CommonName: "hem.test"}, DNSNames: []string{"hem.test"},
			}, s)
			if err != nil {
				t.Fatal(err)
			}
			csr, err := x509.ParseCertificateRequest(der)
			if err != nil {
				t.Fatal(err)
			}
			if err := csr.CheckSignature(); err != nil {
				t.Error(err)
			}

			ca := selfSigned(t, s)
			if err := ca.CheckSignatureFrom(ca); err != nil {
				t.Error(err)
			}
			leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: ca.NotBefore, NotAfter: ca.NotAfter}
			if der, err = x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), s); err != nil {
				t.Fatal(err)
			}
			if leaf, err = x509.ParseCertificate(der); err != nil {
				t.Fatal(err)
			}
			pool := x509.NewCertPool()
			pool.AddCert(ca)
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
				t.Error(err)
			}

			if der, err = x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
				Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
			}, ca, s); err != nil {
				t.Fatal(err)
			}
			crl, err := x509.ParseRevocationList(der)
			if err != nil {
				t.Fatal(err)
			}
			if err := crl.CheckSignatureFrom(ca); err != nil {
				t.Error(err)
			}

			// What is to be signed is one message to the module, and limited like one.
			long := &x509.Certificate{SerialNumber: big.NewInt(3), NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
				ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, 2000)}}}
			if _, err = x509.CreateCertificate(rand.Reader, long, ca, leafKey.Public(), s); !errors.Is(err, hem.ErrArgument) {
				t.Errorf("a long certificate: %v", err)
			}
		})
	}
	// What package x509 does not know.
	for _, typ := range []api.KeyType{api.SECP256K1, api.Ed448, api.MLDSA65} {
		if _, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, signer(t, c, typ)); err == nil {
			t.Errorf("a request was made for %s", typ)
		}
	}
}

// connected is a connection within this machine. Its ends close with the test, and give
// up after a while.
func connected(t *testing.T) (a, b net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if a, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	for _, end := range []net.Conn{a, b} {
		t.Cleanup(func() { end.Close() })
		if err := end.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	return a, b
}

// handshake connects two ends over TLS and has one say a word.
func handshake(t *testing.T, client, server *tls.Config) error {
	t.Helper()
	a, b := connected(t)
	served := make(chan error, 1)
	go func() {
		conn := tls.Server(b, server)
		err := conn.Handshake()
		if err == nil {
			_, err = io.WriteString(conn, "hello")
		}
		conn.Close()
		served <- err
	}()
	conn := tls.Client(a, client)
	_, err := io.ReadFull(conn, make([]byte, 5))
	conn.Close()
	return errors.Join(err, <-served)
}

// Keys in the module are the keys of a TLS server and of its client.
func TestTLS(t *testing.T) {
	c := hemtest.New(t, nil).Client()
	for _, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
		for _, typ := range x509Types {
			t.Run(tls.VersionName(version)+" "+string(typ), func(t *testing.T) {
				ofServer, ofClient := signer(t, c, typ), signer(t, c, typ)
				serverCert, clientCert := selfSigned(t, ofServer, "hem.test"), selfSigned(t, ofClient)
				server, client := tlsConfigs(version, ofServer, serverCert, ofClient, clientCert)
				if err := handshake(t, client, server); err != nil {
					t.Error(err)
				}
			})
		}
	}
	// In TLS 1.2 a client signs the whole handshake and not its hash. Certificates are
	// most of it, and soon too long for one message. TLS 1.3 does not mind.
	for _, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
		ofServer, ofClient := signer(t, c, api.SECP256R1), signer(t, c, api.SECP256R1)
		serverCert, clientCert := selfSigned(t, ofServer, "hem.test"), selfSigned(t, ofClient)
		server, client := tlsConfigs(version, ofServer, serverCert, ofClient, clientCert)
		chain := &server.Certificates[0].Certificate
		for range 5 {
			*chain = append(*chain, serverCert.Raw)
		}
		err := handshake(t, client, server)
		if version == tls.VersionTLS12 && !errors.Is(err, hem.ErrArgument) || version == tls.VersionTLS13 && err != nil {
			t.Errorf("a long chain over %s: %v", tls.VersionName(version), err)
		}
	}
}

func tlsConfigs(version uint16, ofServer crypto.Signer, serverCert *x509.Certificate, ofClient crypto.Signer, clientCert *x509.Certificate) (server, client *tls.Config) {
	serverPool, clientPool := x509.NewCertPool(), x509.NewCertPool()
	serverPool.AddCert(serverCert)
	clientPool.AddCert(clientCert)
	return &tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{serverCert.Raw}, PrivateKey: ofServer}},
			ClientCAs:    clientPool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: version, MaxVersion: version,
		}, &tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{clientCert.Raw}, PrivateKey: ofClient}},
			RootCAs:      serverPool, ServerName: "hem.test", MinVersion: version, MaxVersion: version,
		}
}

// golang.org/x/crypto/ssh hashes before it signs: of ours, Ed25519 keys work with it.
// ECDSA keys need an ssh.Signer of their own, which is short.
func TestSSH(t *testing.T) {
	c := hemtest.New(t, nil).Client()
	ed, err := ssh.NewSignerFromSigner(signer(t, c, api.Ed25519))
	if err != nil {
		t.Fatal(err)
	}
	p256, err := ssh.NewSignerFromSigner(signer(t, c, api.SECP256R1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p256.Sign(rand.Reader, []byte("data")); !errors.Is(err, hem.ErrDigest) {
		t.Errorf("a pre-hashed signature: %v", err)
	}
	for _, login := range []ssh.Signer{ed, sshSigner{signer(t, c, api.SECP256R1)}, sshSigner{signer(t, c, api.SECP384R1)}, sshSigner{signer(t, c, api.SECP521R1)}} {
		for _, host := range []ssh.Signer{ed, sshSigner{signer(t, c, api.SECP256R1)}} {
			if err := sshLogin(t, login, host); err != nil {
				t.Errorf("%s at %s: %v", login.PublicKey().Type(), host.PublicKey().Type(), err)
			}
		}
	}
	cert := &ssh.Certificate{Key: p256.PublicKey(), CertType: ssh.UserCert, ValidBefore: ssh.CertTimeInfinity, ValidPrincipals: []string{"ada"}}
	if err := cert.SignCert(rand.Reader, ed); err != nil {
		t.Error(err)
	}
	checker := &ssh.CertChecker{IsUserAuthority: func(k ssh.PublicKey) bool { return bytes.Equal(k.Marshal(), ed.PublicKey().Marshal()) }}
	if err := checker.CheckCert("ada", cert); err != nil {
		t.Error(err)
	}
}

// sshSigner signs with an ECDSA key in a module (RFC 5656, section 3.1.2).
type sshSigner struct{ *hem.Signer }

func (s sshSigner) PublicKey() ssh.PublicKey {
	key, err := ssh.NewPublicKey(s.Public())
	if err != nil {
		panic(err) // not for other keys
	}
	return key
}

func (s sshSigner) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	hash := map[api.KeyType]crypto.Hash{api.SECP256R1: crypto.SHA256, api.SECP384R1: crypto.SHA384, api.SECP521R1: crypto.SHA512}[s.Type()]
	der, err := s.SignMessage(rand, data, hash)
	if err != nil {
		return nil, err
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		return nil, err
	}
	return &ssh.Signature{Format: s.PublicKey().Type(), Blob: ssh.Marshal(sig)}, nil
}

func sshLogin(t *testing.T, login, host ssh.Signer) error {
	t.Helper()
	a, b := connected(t)
	served := make(chan error, 1)
	go func() {
		config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if !bytes.Equal(key.Marshal(), login.PublicKey().Marshal()) {
				return nil, errors.New("another key")
			}
			return nil, nil
		}}
		config.AddHostKey(host)
		conn, _, _, err := ssh.NewServerConn(b, config)
		if err == nil {
			conn.Close()
		}
		served <- err
	}()
	conn, _, _, err := ssh.NewClientConn(a, "hem.test:22", &ssh.ClientConfig{
		User: "ada", Auth: []ssh.AuthMethod{ssh.PublicKeys(login)}, HostKeyCallback: ssh.FixedHostKey(host.PublicKey()),
	})
	if err == nil {
		conn.Close()
	}
	a.Close()
	return errors.Join(err, <-served)
}

// go-jose has an adapter for a crypto.Signer, which hashes: of ours, Ed25519 keys work
// with it. ECDSA keys need a jose.OpaqueSigner of their own, which is short.
func TestJOSE(t *testing.T) {
	c := hemtest.New(t, nil).Client()
	payload := []byte(`{"sub":"ada"}`)
	check := func(key any, alg jose.SignatureAlgorithm, public crypto.PublicKey) error {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, nil)
		if err != nil {
			return err
		}
		jws, err := signer.Sign(payload)
		if err != nil {
			return err
		}
		compact, err := jws.CompactSerialize()
		if err != nil {
			return err
		}
		if jws, err = jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{alg}); err != nil {
			return err
		}
		got, err := jws.Verify(public)
		if err == nil && !bytes.Equal(got, payload) {
			err = errors.New("another payload")
		}
		return err
	}
	ed := signer(t, c, api.Ed25519)
	if err := check(cryptosigner.Opaque(ed), jose.EdDSA, ed.Public()); err != nil {
		t.Error(err)
	}
	p256 := signer(t, c, api.SECP256R1)
	if err := check(cryptosigner.Opaque(p256), jose.ES256, p256.Public()); !errors.Is(err, hem.ErrDigest) {
		t.Errorf("a pre-hashed signature: %v", err)
	}
	for typ, alg := range map[api.KeyType]jose.SignatureAlgorithm{api.SECP256R1: jose.ES256, api.SECP384R1: jose.ES384, api.SECP521R1: jose.ES512} {
		s := signer(t, c, typ)
		if err := check(joseSigner{s, alg}, alg, s.Public()); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
	}
}

// joseSigner signs with an ECDSA key in a module (RFC 7518, section 3.4).
type joseSigner struct {
	*hem.Signer
	alg jose.SignatureAlgorithm
}

func (s joseSigner) Public() *jose.JSONWebKey        { return &jose.JSONWebKey{Key: s.Signer.Public()} }
func (s joseSigner) Algs() []jose.SignatureAlgorithm { return []jose.SignatureAlgorithm{s.alg} }

func (s joseSigner) SignPayload(payload []byte, alg jose.SignatureAlgorithm) ([]byte, error) {
	hash := map[jose.SignatureAlgorithm]crypto.Hash{jose.ES256: crypto.SHA256, jose.ES384: crypto.SHA384, jose.ES512: crypto.SHA512}[alg]
	der, err := s.SignMessage(nil, payload, hash)
	if err != nil {
		return nil, err
	}
	return hem.ECDSAToRaw(s.Type(), der)
}
