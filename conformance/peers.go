package conformance

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/hex"
	"hash"

	"softhem/api"
	"softhem/hem"
)

// The peers of the module: keys of the standard library on this side.

// curveOf is a curve that package ecdh has; nil for others.
func curveOf(t api.KeyType) ecdh.Curve {
	switch t {
	case api.SECP256R1:
		return ecdh.P256()
	case api.SECP384R1:
		return ecdh.P384()
	case api.SECP521R1:
		return ecdh.P521()
	case api.Curve25519:
		return ecdh.X25519()
	}
	return nil
}

func ellipticOf(t api.KeyType) elliptic.Curve {
	switch t {
	case api.SECP256R1:
		return elliptic.P256()
	case api.SECP384R1:
		return elliptic.P384()
	}
	return elliptic.P521()
}

// localECDH makes a key here and its public half for the module.
func (s *step) localECDH(t api.KeyType) (*ecdh.PrivateKey, []byte) {
	key, err := curveOf(t).GenerateKey(rand.Reader)
	s.must(err, "a key")
	_, raw, err := hem.RawPublic(key.PublicKey())
	s.must(err, "a key")
	return key, raw
}

// moduleSecret is ECDH of a key here with one of the module's.
func (s *step) localSecret(key *ecdh.PrivateKey, t api.KeyType, modulePublic []byte) []byte {
	pub, err := hem.ParsePublic(t, modulePublic)
	s.must(err, "the module's public key")
	var point *ecdh.PublicKey
	switch p := pub.(type) {
	case *ecdsa.PublicKey:
		point, err = p.ECDH()
	case *ecdh.PublicKey:
		point = p
	}
	s.must(err, "the module's public key")
	secret, err := key.ECDH(point)
	s.must(err, "the module's public key")
	return secret
}

// hashOf is the hash that a type of HMAC key is named by.
func hashOf(t api.KeyType) func() hash.Hash {
	switch t {
	case api.SHA2x256:
		return sha256.New
	case api.SHA2x384:
		return sha512.New384
	case api.SHA2x512:
		return sha512.New
	case api.SHA3x256:
		return func() hash.Hash { return sha3.New256() }
	case api.SHA3x384:
		return func() hash.Hash { return sha3.New384() }
	}
	return func() hash.Hash { return sha3.New512() }
}

func hashTypes() []api.KeyType {
	return []api.KeyType{api.SHA2x256, api.SHA2x384, api.SHA2x512, api.SHA3x256, api.SHA3x384, api.SHA3x512}
}

// expand is HKDF-SHA256 without a salt.
func (s *step) expand(secret []byte, info string, n int) []byte {
	okm, err := hkdf.Key(sha256.New, secret, nil, info, n)
	s.must(err, "HKDF")
	return okm
}

// derived has the module derive a key with a peer on this side, and returns its
// kid and the bytes it must have.
func (s *step) derived(t api.KeyType) (kid string, key []byte) {
	base := s.create(api.SECP521R1, "base") // its secret is long enough for all
	local, raw := s.localECDH(api.SECP521R1)
	secret := s.localSecret(local, api.SECP521R1, s.getKey(base).bytes("pubkey"))
	a := s.post("/api/keymgmt/derive", claims{"kid": base, "label": "derived", "type": t, "pubkey": api.EncodeBase64(raw)}, s.as(api.ScopeKeyDerive))
	kid = s.object(s.want(a, 200), kidForm).str("kid")
	return kid, s.expand(secret, "encedo-"+string(t), familyOf(t).seed)
}

// onP256 tells whether a compressed point is one.
func onP256(raw []byte) bool {
	_, err := hem.ParsePublic(api.SECP256R1, raw)
	return err == nil
}

// importKeys brings in public keys of all types that the standard library can make.
func (s *step) importKeys() {
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	s.must(err, "a key")
	kem768, err := mlkem.GenerateKey768()
	s.must(err, "a key")
	kem1024, err := mlkem.GenerateKey1024()
	s.must(err, "a key")
	raws := map[api.KeyType][]byte{api.Ed25519: ed, api.MLKEM768: kem768.EncapsulationKey().Bytes(), api.MLKEM1024: kem1024.EncapsulationKey().Bytes()}
	for _, t := range []api.KeyType{api.SECP256R1, api.SECP384R1, api.SECP521R1, api.Curve25519} {
		_, raws[t] = s.localECDH(t)
	}
	for t, raw := range raws {
		fields := claims{"label": "imported", "type": t, "pubkey": api.EncodeBase64(raw), "mode": mode(t)}
		kid := s.object(s.want(s.post("/api/keymgmt/import", fields, s.as(api.ScopeKeyImport)), 200), kidForm).str("kid")
		if sum := sha1.Sum(raw); hex.EncodeToString(sum[:16]) != kid {
			s.failf("the kid of an imported %s is not the beginning of SHA-1", t)
		}
		k := s.getKey(kid)
		if k.str("type") != string(t) || string(k.bytes("pubkey")) != string(raw) {
			s.failf("an imported %s is read as another key", t)
		}
		want := familyOf(t).traits[len("ATT,PKEY,"):] + string(t)
		if got := s.keysOf()[kid].str("type"); got != want {
			s.failf("an imported %s is listed as %s, want %s", t, got, want)
		}
		s.want(s.post("/api/keymgmt/import", fields, s.as(api.ScopeKeyImport)), 406)
		s.empty(s.deleteKey(kid), 200)
	}
}
