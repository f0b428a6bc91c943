package conformance

import (
	"bytes"
	"crypto/ecdh"
	"crypto/mlkem"
	"math/big"
	"strings"

	"softhem/api"
	"softhem/hem"
)

func exchangeChecks() []check {
	const spec = "api.md#post-apicryptoecdh"
	const kem = "api.md#post-apicryptopqcmlkemencaps-and-apicryptopqcmlkemdecaps"
	var all []check
	for _, t := range []api.KeyType{api.SECP256R1, api.SECP384R1, api.SECP521R1, api.Curve25519} {
		all = append(all, check{"ecdh-" + strings.ToLower(string(t)), string(t) + " agrees with the standard library, raw and hashed", spec,
			func(s *step) { s.agree(t) }})
	}
	for _, t := range []api.KeyType{api.SECP256K1, api.Curve448} {
		size := familyOf(t).seed
		all = append(all, check{"ecdh-" + strings.ToLower(string(t)), string(t) + " agrees from both ends (the module against itself)", spec, func(s *step) {
			a, b := s.create(t, "a"), s.create(t, "b")
			one := s.object(s.want(s.use("ecdh", a, claims{"ext_kid": b}), 200), "ecdh:b64").bytes("ecdh")
			two := s.object(s.want(s.use("ecdh", b, claims{"pubkey": s.getKey(a).str("pubkey")}), 200), "ecdh:b64").bytes("ecdh")
			s.quirk(size > 32 && len(one) == 32, "a raw secret of more than 32 bytes is cut to 32")
			if !bytes.Equal(one, two) || len(one) != size {
				s.failf("the two ends have secrets of %d and %d bytes that are not the same, or not %d", len(one), len(two), size)
			}
		}})
	}
	all = append(all,
		check{"ecdh-refused", "No peer is 400; another curve, a point of low order, a signing key 406", spec, func(s *step) {
			kid := s.create(api.Curve25519, "x")
			p256 := s.create(api.SECP256R1, "p")
			only := s.createWith(claims{"label": "sign", "type": api.SECP256R1, "mode": api.ModeExDSA})
			s.want(s.use("ecdh", kid, claims{}), 400)
			s.want(s.use("ecdh", kid, claims{"ext_kid": p256, "alg": "MD5"}), 400)
			s.refused406(s.use("ecdh", kid, claims{"ext_kid": p256}))
			s.refused406(s.use("ecdh", kid, claims{"ext_kid": noKID}))
			s.refused406(s.use("ecdh", kid, claims{"pubkey": b64(make([]byte, 32))}))
			s.refused406(s.use("ecdh", kid, claims{"pubkey": b64(random(31))}))
			s.refused406(s.use("ecdh", only, claims{"ext_kid": p256}))
			_, raw := s.localECDH(api.Curve25519)
			s.want(s.use("ecdh", kid, claims{"ext_kid": kid, "pubkey": b64(raw)}), 200) // itself, and before pubkey
		}},
		check{"derive-symmetric", "Derived keys are HKDF of the secret, where the standard library can tell", "api.md#post-apikeymgmtderive", func(s *step) {
			kid, key := s.derived(api.AES256)
			s.modes(kid, key, "AES256", claims{})
		}},
		check{"derive-pairs", "Derived X25519 and P-256 keys have the public keys of the standard library", "divergences.md#keys", (*step).derivePairs},
		check{"derive-refused", "A secret that is too short is 406, a post-quantum type and no peer 400", "api.md#post-apikeymgmtderive", func(s *step) {
			kid := s.create(api.Curve25519, "short")
			derive := func(fields claims, want int) {
				s.want(s.post("/api/keymgmt/derive", fields.with("kid", kid, "label", "x"), s.as(api.ScopeKeyDerive)), want)
			}
			derive(claims{"type": api.SHA2x384, "ext_kid": kid}, 406)
			derive(claims{"type": api.SECP384R1, "ext_kid": kid}, 406)
			derive(claims{"type": api.Ed448, "ext_kid": kid}, 406)
			derive(claims{"type": api.MLKEM768, "ext_kid": kid}, 400)
			derive(claims{"type": api.AES128}, 400)
			derive(claims{"type": api.AES128, "ext_kid": noKID}, 406)
		}},
		check{"mlkem768", "ML-KEM-768 agrees with the standard library", kem, func(s *step) {
			kid := s.create(api.MLKEM768, "kem")
			key, err := mlkem.NewEncapsulationKey768(s.getKey(kid).bytes("pubkey"))
			s.must(err, "pubkey")
			ss, ct := key.Encapsulate()
			s.decapsulates(kid, api.MLKEM768, ct, ss)
			s.ownKEM(kid, api.MLKEM768, 1088)
		}},
		check{"mlkem1024", "ML-KEM-1024 agrees with the standard library", kem, func(s *step) {
			kid := s.create(api.MLKEM1024, "kem")
			key, err := mlkem.NewEncapsulationKey1024(s.getKey(kid).bytes("pubkey"))
			s.must(err, "pubkey")
			ss, ct := key.Encapsulate()
			s.decapsulates(kid, api.MLKEM1024, ct, ss)
			s.ownKEM(kid, api.MLKEM1024, 1568)
		}},
		check{"mlkem512", "ML-KEM-512 agrees with itself (the module against itself)", kem, func(s *step) {
			s.ownKEM(s.create(api.MLKEM512, "kem"), api.MLKEM512, 768)
		}},
		check{"mlkem-imported", "Encapsulation for an imported key is opened by the standard library", "divergences.md#cryptography", func(s *step) {
			local, err := mlkem.GenerateKey768()
			s.must(err, "a key")
			a := s.post("/api/keymgmt/import", claims{"label": "here", "type": api.MLKEM768, "pubkey": b64(local.EncapsulationKey().Bytes())}, s.as(api.ScopeKeyImport))
			kid := s.object(s.want(a, 200), kidForm).str("kid")
			out := s.object(s.want(s.use("pqc/mlkem/encaps", kid, claims{}), 200), encapsForm)
			ss, err := local.Decapsulate(out.bytes("ct"))
			if err != nil || !bytes.Equal(ss, out.bytes("ss")) {
				s.failf("the standard library has another secret")
			}
			s.refused406(s.use("pqc/mlkem/decaps", kid, claims{"ct": out.str("ct")}))
		}},
		check{"mldsa-imported", "A signature is verified by the imported public half (the module against itself)", "divergences.md#cryptography", func(s *step) {
			kid := s.create(api.MLDSA44, "signer")
			pub := s.getKey(kid).str("pubkey")
			msg := b64(random(32))
			sig := s.object(s.want(s.use("pqc/mldsa/sign", kid, claims{"msg": msg}), 200), "alg:str sign:b64=2420").str("sign")
			s.empty(s.deleteKey(kid), 200)
			a := s.post("/api/keymgmt/import", claims{"label": "half", "type": api.MLDSA44, "pubkey": pub}, s.as(api.ScopeKeyImport))
			half := s.object(s.want(a, 200), kidForm).str("kid")
			a = s.use("pqc/mldsa/verify", half, claims{"msg": msg, "sign": sig})
			s.quirk(a.status == 406 || a.status == 795, "mldsa/verify refuses imported keys")
			s.empty(a, 200)
		}})
	return all
}

const encapsForm = "alg:str ss:b64=32 ct:b64"

// agree does ECDH between the module and a key here.
func (s *step) agree(t api.KeyType) {
	kid := s.create(t, "ecdh")
	local, raw := s.localECDH(t)
	want := s.localSecret(local, t, s.getKey(kid).bytes("pubkey"))
	for _, alg := range hashTypes() {
		h := hashOf(alg)()
		h.Write(want)
		got := s.object(s.want(s.use("ecdh", kid, claims{"pubkey": b64(raw), "alg": alg}), 200), "ecdh:b64").bytes("ecdh")
		if !bytes.Equal(got, h.Sum(nil)) {
			s.failf("hashed with %s, the secret is another", alg)
		}
	}
	got := s.object(s.want(s.use("ecdh", kid, claims{"pubkey": b64(raw)}), 200), "ecdh:b64").bytes("ecdh")
	s.quirk(len(want) > 32 && bytes.Equal(got, want[:32]), "a raw secret of more than 32 bytes is cut to 32")
	if !bytes.Equal(got, want) {
		s.failf("the secret is another than the standard library's")
	}
}

func (s *step) decapsulates(kid string, t api.KeyType, ct, ss []byte) {
	out := s.object(s.want(s.use("pqc/mlkem/decaps", kid, claims{"ct": b64(ct)}), 200), "alg:str ss:b64=32")
	if !bytes.Equal(out.bytes("ss"), ss) {
		s.failf("the module has another secret")
	}
	s.quirk(strings.HasPrefix(out.str("alg"), "keymgmt:use:"), "alg of decaps is the scope of the token")
	if out.str("alg") != string(t) {
		s.failf("alg is %q", out.str("alg"))
	}
}

// ownKEM encapsulates and decapsulates in the module.
func (s *step) ownKEM(kid string, t api.KeyType, size int) {
	out := s.object(s.want(s.use("pqc/mlkem/encaps", kid, claims{}), 200), encapsForm)
	if out.str("alg") != string(t) || len(out.bytes("ct")) != size {
		s.failf("alg is %q, and the ciphertext has %d bytes, want %d", out.str("alg"), len(out.bytes("ct")), size)
	}
	s.decapsulates(kid, t, out.bytes("ct"), out.bytes("ss"))
	other := s.object(s.want(s.use("pqc/mlkem/decaps", kid, claims{"ct": b64(flipped(out.bytes("ct")))}), 200), "alg:str ss:b64=32")
	if other.str("ss") == out.str("ss") {
		s.failf("a ciphertext that was changed gives the same secret")
	}
	s.refused406(s.use("pqc/mlkem/decaps", kid, claims{"ct": b64(out.bytes("ct")[1:])}))
}

// derivePairs derives key pairs and computes their public halves here.
func (s *step) derivePairs() {
	derive := func(t api.KeyType) (raw, secret []byte) {
		base := s.create(api.SECP521R1, "base")
		local, pub := s.localECDH(api.SECP521R1)
		secret = s.localSecret(local, api.SECP521R1, s.getKey(base).bytes("pubkey"))
		a := s.post("/api/keymgmt/derive", claims{"kid": base, "label": "pair", "type": t, "pubkey": b64(pub)}, s.as(api.ScopeKeyGen))
		return s.getKey(s.object(s.want(a, 200), kidForm).str("kid")).bytes("pubkey"), secret
	}
	raw, secret := derive(api.Curve25519)
	key, err := ecdh.X25519().NewPrivateKey(s.expand(secret, "encedo-CURVE25519", 32))
	s.must(err, "a key")
	if !bytes.Equal(raw, key.PublicKey().Bytes()) {
		s.failf("the derived CURVE25519 key is another")
	}
	raw, secret = derive(api.SECP256R1)
	okm := new(big.Int).SetBytes(s.expand(secret, "encedo-SECP256R1", 32+16))
	less := new(big.Int).Sub(ellipticOf(api.SECP256R1).Params().N, big.NewInt(1))
	d := okm.Mod(okm, less)
	d.Add(d, big.NewInt(1))
	p256, err := ecdh.P256().NewPrivateKey(d.FillBytes(make([]byte, 32)))
	s.must(err, "a key")
	if _, want, err := hem.RawPublic(p256.PublicKey()); err != nil || !bytes.Equal(raw, want) {
		s.failf("the derived SECP256R1 key is another")
	}
}
