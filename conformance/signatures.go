package conformance

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"strings"

	"softhem/api"
	"softhem/hem"
)

// ecdsaDigest is what an ECDSA alg hashes to.
func ecdsaDigest(alg string, msg []byte) []byte {
	switch alg {
	case api.SHA256WithECDSA:
		d := sha256.Sum256(msg)
		return d[:]
	case api.SHA384WithECDSA:
		d := sha512.Sum384(msg)
		return d[:]
	}
	d := sha512.Sum512(msg)
	return d[:]
}

func ecdsaAlgs() []string {
	return []string{api.SHA256WithECDSA, api.SHA384WithECDSA, api.SHA512WithECDSA}
}

func signChecks() []check {
	const spec = "api.md#post-apicryptoexdsasign-and-apicryptoexdsaverify"
	const pqc = "api.md#post-apicryptopqcmldsasign-and-apicryptopqcmldsaverify"
	var all []check
	for _, t := range []api.KeyType{api.SECP256R1, api.SECP384R1, api.SECP521R1} {
		all = append(all, check{"sign-" + strings.ToLower(string(t)), string(t) + " signs for the standard library, and verifies what it signs", spec,
			func(s *step) { s.ecdsa(t) }})
	}
	for _, alg := range []string{api.AlgEd25519, api.AlgEd25519ph, api.AlgEd25519ctx} {
		all = append(all, check{"sign-" + strings.ToLower(alg), alg + " signs for the standard library, and verifies what it signs", spec,
			func(s *step) { s.eddsa(alg) }})
	}
	all = append(all,
		check{"sign-secp256k1", "SECP256K1 signs and verifies (the module against itself)", spec, func(s *step) {
			kid := s.create(api.SECP256K1, "k1")
			for _, alg := range ecdsaAlgs() {
				s.ownSignature("exdsa", kid, claims{"alg": alg}, "sign:b64")
			}
		}},
		check{"sign-ed448", "Ed448 and Ed448ph sign and verify (the module against itself)", spec, func(s *step) {
			kid := s.create(api.Ed448, "448")
			for _, alg := range []string{api.AlgEd448, api.AlgEd448ph} {
				s.ownSignature("exdsa", kid, claims{"alg": alg}, "sign:b64=114")
				s.ownSignature("exdsa", kid, claims{"alg": alg, "ctx": b64([]byte("conform"))}, "sign:b64=114")
			}
		}},
		check{"sign-limits", "Messages, contexts and signatures have limits, and alg has to fit", spec, func(s *step) {
			ed, p256 := s.create(api.Ed25519, "ed"), s.create(api.SECP256R1, "p256")
			only := s.createWith(claims{"label": "ecdh", "type": api.SECP256R1, "mode": api.ModeECDH})
			msg := b64([]byte("m"))
			for _, wrong := range []claims{
				{"msg": ""}, {"msg": b64(random(2049))}, {"alg": nil}, {"alg": "RSA"}, {"alg": api.AlgEd25519ctx}, {"alg": api.AlgEd25519ctx, "ctx": ""},
				{"alg": api.AlgEd25519ctx, "ctx": b64(random(256))},
			} {
				fields := claims{"msg": msg, "alg": api.AlgEd25519}
				for k, v := range wrong {
					fields = fields.with(k, v)
				}
				if a := s.use("exdsa/sign", ed, fields); a.status != 400 {
					s.failf("sign with %s: answered %d, want 400", names(wrong), a.status)
				}
			}
			s.want(s.use("exdsa/verify", ed, claims{"msg": msg, "alg": api.AlgEd25519, "sign": b64(random(149))}), 400)
			s.refused406(s.use("exdsa/sign", p256, claims{"msg": msg, "alg": api.AlgEd25519}))
			s.refused406(s.use("exdsa/sign", only, claims{"msg": msg, "alg": api.SHA256WithECDSA}))
		}})
	for _, t := range []api.KeyType{api.MLDSA44, api.MLDSA65, api.MLDSA87} {
		size := map[api.KeyType]string{api.MLDSA44: "2420", api.MLDSA65: "3309", api.MLDSA87: "4627"}[t]
		all = append(all, check{"sign-" + strings.ToLower(string(t)), string(t) + " signs and verifies (the module against itself)", pqc, func(s *step) {
			kid := s.create(t, "mldsa")
			for _, fields := range []claims{{}, {"ctx": b64([]byte("conform"))}} {
				if alg := s.ownSignature("pqc/mldsa", kid, fields, "alg:str sign:b64="+size).str("alg"); alg != string(t) {
					s.failf("alg is %q", alg)
				}
			}
			s.want(s.use("pqc/mldsa/sign", kid, claims{"msg": b64([]byte("m")), "ctx": b64(random(256))}), 400)
			s.want(s.use("pqc/mldsa/verify", kid, claims{"msg": b64([]byte("m")), "sign": b64(random(4628))}), 400)
		}})
	}
	return all
}

// ownSignature has the module sign and verify, and wants it to notice changes.
func (s *step) ownSignature(endpoint, kid string, fields claims, form string) object {
	msg := random(64)
	out := s.object(s.want(s.use(endpoint+"/sign", kid, fields.with("msg", b64(msg))), 200), form)
	sig := out.bytes("sign")
	if len(sig) == 0 {
		s.failf("the signature is empty")
	}
	s.empty(s.use(endpoint+"/verify", kid, fields.with("msg", b64(msg), "sign", b64(sig))), 200)
	for _, wrong := range []claims{{"msg": b64(flipped(msg)), "sign": b64(sig)}, {"msg": b64(msg), "sign": b64(flipped(sig))},
		{"msg": b64(msg), "sign": b64(sig), "ctx": b64([]byte("another"))}} {
		if wrong["ctx"] != nil && strings.Contains(names(fields), "ECDSA") {
			continue // which has no context
		}
		f := fields
		for k, v := range wrong {
			f = f.with(k, v)
		}
		a := s.use(endpoint+"/verify", kid, f)
		s.quirk(a.status == 795, "what mldsa/verify does not confirm has the status 795")
		s.refused406(a)
	}
	return out
}

func (s *step) ecdsa(t api.KeyType) {
	kid := s.create(t, "ecdsa")
	pub, err := hem.ParsePublic(t, s.getKey(kid).bytes("pubkey"))
	s.must(err, "pubkey")
	point, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		s.failf("pubkey is no point")
	}
	local, err := ecdsa.GenerateKey(ellipticOf(t), rand.Reader)
	s.must(err, "a key")
	_, raw, err := hem.RawPublic(&local.PublicKey)
	s.must(err, "a key")
	a := s.post("/api/keymgmt/import", claims{"label": "here", "type": t, "pubkey": b64(raw), "mode": api.ModeExDSA}, s.as(api.ScopeKeyImport))
	imported := s.object(s.want(a, 200), kidForm).str("kid")
	msg := random(77)
	for _, alg := range ecdsaAlgs() {
		sig := s.object(s.want(s.use("exdsa/sign", kid, claims{"msg": b64(msg), "alg": alg}), 200), "sign:b64").bytes("sign")
		if !ecdsa.VerifyASN1(point, ecdsaDigest(alg, msg), sig) {
			s.failf("%s: the standard library does not take the signature", alg)
		}
		mine, err := ecdsa.SignASN1(rand.Reader, local, ecdsaDigest(alg, msg))
		s.must(err, "a signature")
		s.empty(s.use("exdsa/verify", imported, claims{"msg": b64(msg), "alg": alg, "sign": b64(mine)}), 200)
		s.refused406(s.use("exdsa/verify", imported, claims{"msg": b64(flipped(msg)), "alg": alg, "sign": b64(mine)}))
		s.refused406(s.use("exdsa/verify", imported, claims{"msg": b64(msg), "alg": alg, "sign": b64(flipped(mine))}))
		s.refused406(s.use("exdsa/verify", kid, claims{"msg": b64(msg), "alg": alg, "sign": b64(mine)}))
		s.refused406(s.use("exdsa/sign", imported, claims{"msg": b64(msg), "alg": alg}))
	}
}

func (s *step) eddsa(alg string) {
	kid := s.create(api.Ed25519, "eddsa")
	pub := ed25519.PublicKey(s.getKey(kid).bytes("pubkey"))
	localPub, local, err := ed25519.GenerateKey(rand.Reader)
	s.must(err, "a key")
	a := s.post("/api/keymgmt/import", claims{"label": "here", "type": api.Ed25519, "pubkey": b64(localPub)}, s.as(api.ScopeKeyImport))
	imported := s.object(s.want(a, 200), kidForm).str("kid")
	msg := random(77)
	signed, fields, opts := msg, claims{"alg": alg, "msg": b64(msg)}, &ed25519.Options{}
	if alg != api.AlgEd25519 {
		opts.Context = "conform"
		fields["ctx"] = b64([]byte(opts.Context))
	}
	if alg == api.AlgEd25519ph {
		d := sha512.Sum512(msg)
		signed, opts.Hash = d[:], crypto.SHA512
	}
	sig := s.object(s.want(s.use("exdsa/sign", kid, fields), 200), "sign:b64=64").bytes("sign")
	if ed25519.VerifyWithOptions(pub, signed, sig, opts) != nil {
		s.failf("the standard library does not take the signature")
	}
	mine, err := local.Sign(nil, signed, opts)
	s.must(err, "a signature")
	s.empty(s.use("exdsa/verify", imported, fields.with("sign", b64(mine))), 200)
	s.refused406(s.use("exdsa/verify", imported, fields.with("sign", b64(flipped(mine)))))
	s.refused406(s.use("exdsa/verify", imported, fields.with("sign", b64(mine), "msg", b64(flipped(msg)))))
	s.refused406(s.use("exdsa/sign", imported, fields))
	if alg != api.AlgEd25519 {
		s.refused406(s.use("exdsa/verify", imported, fields.with("sign", b64(mine), "ctx", b64([]byte("another")))))
	}
}
