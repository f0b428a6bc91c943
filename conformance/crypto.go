package conformance

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"fmt"
	"strings"

	"softhem/api"
)

func cryptoGroup() group {
	g := group{name: "crypto", title: "cryptography, against the standard library where it can", phase: personal,
		after: func(s *step) {
			for kid := range s.keysOf() {
				s.deleteKey(kid)
			}
		}}
	for _, t := range hashTypes() {
		g.checks = append(g.checks, check{"hmac-" + strings.ToLower(string(t)), "HMAC with " + string(t) + " is that of the standard library",
			"api.md#post-apicryptohmachash-and-apicryptohmacverify", func(s *step) { s.hmacStored(t) }})
	}
	g.checks = append(g.checks, check{"hmac-peer", "HMAC with a peer has the raw ECDH secret for its key",
		"api.md#post-apicryptohmachash-and-apicryptohmacverify", (*step).hmacPeer})
	g.checks = append(g.checks, signChecks()...)
	for _, t := range []api.KeyType{api.AES128, api.AES192, api.AES256} {
		g.checks = append(g.checks, check{"cipher-" + strings.ToLower(string(t)), string(t) + " in ECB, CBC and GCM is that of the standard library",
			"api.md#post-apicryptocipherencrypt-and-apicryptocipherdecrypt", func(s *step) { s.ciphers(t) }})
	}
	g.checks = append(g.checks, cipherChecks()...)
	g.checks = append(g.checks, exchangeChecks()...)
	return g
}

// use posts to a crypto endpoint with the key's own scope.
func (s *step) use(path, kid string, fields claims) *answer {
	return s.post("/api/crypto/"+path, fields.with("kid", kid), s.as(api.ScopeKeyUse(kid)))
}

func b64(b []byte) string { return api.EncodeBase64(b) }

// refused406 wants the one refusal of cryptography.
func (s *step) refused406(a *answer) {
	s.empty(a, 406)
	if s.softhem && a.header.Get(api.HeaderError) != "refused" {
		s.failAt(a, "a 406 of cryptography says more than refused")
	}
}

// flipped is b with its last bit changed.
func flipped(b []byte) []byte {
	c := bytes.Clone(b)
	c[len(c)-1] ^= 1
	return c
}

func (s *step) hmacStored(t api.KeyType) {
	kid, key := s.derived(t)
	msg := random(100)
	h := hmac.New(hashOf(t), key)
	h.Write(msg)
	want := h.Sum(nil)
	got := s.object(s.want(s.use("hmac/hash", kid, claims{"msg": b64(msg)}), 200), "mac:b64").bytes("mac")
	if !bytes.Equal(got, want) {
		s.failf("the MAC is another than that of the standard library")
	}
	s.empty(s.use("hmac/verify", kid, claims{"msg": b64(msg), "mac": b64(want)}), 200)
	s.refused406(s.use("hmac/verify", kid, claims{"msg": b64(msg), "mac": b64(flipped(want))}))
	s.refused406(s.use("hmac/verify", kid, claims{"msg": b64(msg), "mac": b64(want[:len(want)-1])}))
	s.refused406(s.use("hmac/verify", kid, claims{"msg": b64(flipped(msg)), "mac": b64(want)}))
	s.want(s.use("hmac/verify", kid, claims{"msg": b64(msg), "mac": b64(random(65))}), 400)
}

func (s *step) hmacPeer() {
	kid := s.create(api.Curve25519, "peer")
	local, raw := s.localECDH(api.Curve25519)
	secret := s.localSecret(local, api.Curve25519, s.getKey(kid).bytes("pubkey"))
	msg := random(64)
	for _, t := range hashTypes() {
		h := hmac.New(hashOf(t), secret)
		h.Write(msg)
		want := h.Sum(nil)
		fields := claims{"msg": b64(msg), "alg": t, "pubkey": b64(raw)}
		if got := s.object(s.want(s.use("hmac/hash", kid, fields), 200), "mac:b64").bytes("mac"); !bytes.Equal(got, want) {
			s.failf("the MAC under %s is another than that of the standard library", t)
		}
		s.empty(s.use("hmac/verify", kid, fields.with("mac", b64(want))), 200)
		s.refused406(s.use("hmac/verify", kid, fields.with("mac", b64(flipped(want)))))
	}
	s.refused406(s.use("hmac/hash", kid, claims{"msg": b64(msg), "pubkey": b64(raw)})) // no alg
	s.want(s.use("hmac/hash", kid, claims{"msg": b64(msg), "pubkey": b64(raw), "alg": "MD5"}), 400)
}

// ciphers holds every mode of a key against crypto/aes.
func (s *step) ciphers(t api.KeyType) {
	kid, key := s.derived(t)
	s.modes(kid, key, string(t), claims{})
}

// modes encrypts there and decrypts here, and the other way round.
func (s *step) modes(kid string, key []byte, name string, more claims) {
	block, err := aes.NewCipher(key)
	s.must(err, "AES")
	msg := random(48)
	enc := func(alg string, fields claims, form string) object {
		for k, v := range more {
			fields[k] = v
		}
		return s.object(s.want(s.use("cipher/encrypt", kid, fields.with("alg", name+"-"+alg)), 200), form)
	}
	dec := func(alg string, fields claims, want []byte) {
		for k, v := range more {
			fields[k] = v
		}
		got := s.object(s.want(s.use("cipher/decrypt", kid, fields.with("alg", name+"-"+alg)), 200), "plaintext:b64").bytes("plaintext")
		if !bytes.Equal(got, want) {
			s.failf("%s: what was encrypted here comes back as something else", alg)
		}
	}
	// ECB
	ecb := make([]byte, len(msg))
	for i := 0; i < len(msg); i += aes.BlockSize {
		block.Encrypt(ecb[i:], msg[i:])
	}
	if out := enc("ECB", claims{"msg": b64(msg)}, "ciphertext:b64"); !bytes.Equal(out.bytes("ciphertext"), ecb) {
		s.failf("ECB: the ciphertext is another than that of the standard library")
	}
	dec("ECB", claims{"msg": b64(ecb)}, msg)
	// CBC, padded by PKCS #7
	padded := append(bytes.Clone(msg[:45]), 3, 3, 3)
	out := enc("CBC", claims{"msg": b64(msg[:45])}, "ciphertext:b64 iv:b64=16")
	cbc := make([]byte, len(padded))
	cipher.NewCBCEncrypter(block, out.bytes("iv")).CryptBlocks(cbc, padded)
	if !bytes.Equal(out.bytes("ciphertext"), cbc) {
		s.failf("CBC: the ciphertext is another than that of the standard library")
	}
	iv := random(16)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(cbc, padded)
	dec("CBC", claims{"msg": b64(cbc), "iv": b64(iv)}, msg[:45])
	// GCM, IV of 16 bytes
	gcm, err := cipher.NewGCMWithNonceSize(block, 16)
	s.must(err, "GCM")
	aad := random(16)
	out = enc("GCM", claims{"msg": b64(msg), "aad": b64(aad)}, "ciphertext:b64 iv:b64=16 tag:b64=16")
	plain, err := gcm.Open(nil, out.bytes("iv"), append(out.bytes("ciphertext"), out.bytes("tag")...), aad)
	if err != nil || !bytes.Equal(plain, msg) {
		s.failf("GCM: the standard library does not open what the module sealed")
	}
	again := enc("GCM", claims{"msg": b64(msg), "aad": b64(aad)}, "ciphertext:b64 iv:b64=16 tag:b64=16")
	if again.str("iv") == out.str("iv") {
		s.failf("GCM: two encryptions have one IV")
	}
	sealed := gcm.Seal(nil, iv, msg, aad)
	ct, tag := sealed[:len(msg)], sealed[len(msg):]
	dec("GCM", claims{"msg": b64(ct), "iv": b64(iv), "tag": b64(tag), "aad": b64(aad)}, msg)
	for _, wrong := range []claims{{"msg": b64(flipped(ct))}, {"tag": b64(flipped(tag))}, {"iv": b64(flipped(iv))}, {"aad": b64(flipped(aad))}, {"aad": nil}} {
		fields := claims{"msg": b64(ct), "iv": b64(iv), "tag": b64(tag), "aad": b64(aad), "alg": name + "-GCM"}
		for k, v := range more {
			fields[k] = v
		}
		for k, v := range wrong {
			fields = fields.with(k, v)
		}
		s.refused406(s.use("cipher/decrypt", kid, fields))
	}
}

func cipherChecks() []check {
	const spec = "api.md#post-apicryptocipherencrypt-and-apicryptocipherdecrypt"
	const wrapSpec = "api.md#post-apicryptocipherwrap-and-apicryptocipherunwrap"
	return []check{
		{"cipher-peer", "Encryption with a peer uses HKDF of the secret, and ctx counts", spec, func(s *step) {
			kid := s.create(api.SECP384R1, "peer")
			local, raw := s.localECDH(api.SECP384R1)
			secret := s.localSecret(local, api.SECP384R1, s.getKey(kid).bytes("pubkey"))
			for _, ctx := range []string{"", "conform"} {
				more := claims{"pubkey": b64(raw)}
				if ctx != "" {
					more["ctx"] = b64([]byte(ctx))
				}
				okm := s.expand(secret, "encedo-aes"+ctx, 32)
				s.modes(kid, okm, "AES256", more)
				s.modes(kid, okm[:16], "AES128", more)
			}
		}},
		{"cipher-longer", "A longer key is used by its first bytes, a shorter one is 406", spec, func(s *step) {
			kid, key := s.derived(api.AES256)
			s.modes(kid, key[:16], "AES128", claims{})
			short, _ := s.derived(api.AES128)
			s.refused406(s.use("cipher/encrypt", short, claims{"msg": b64(random(16)), "alg": "AES256-GCM"}))
		}},
		{"cipher-limits", "Messages, IVs and tags have limits: 400 beyond them", spec, func(s *step) {
			kid := s.create(api.AES256, "limits")
			for _, wrong := range []claims{
				{"msg": ""}, {"msg": nil}, {"msg": b64(random(2049))}, {"msg": "no base64!"}, {"alg": nil}, {"alg": "AES256-CTR"},
				{"msg": b64(random(15)), "alg": "AES256-ECB"}, {"aad": b64(random(1025))},
			} {
				fields := claims{"msg": b64(random(16)), "alg": "AES256-GCM"}
				for k, v := range wrong {
					fields = fields.with(k, v)
				}
				if a := s.use("cipher/encrypt", kid, fields); a.status != 400 {
					s.failf("encrypt with %s: answered %d, want 400", names(wrong), a.status)
				}
			}
			for _, wrong := range []claims{
				{"iv": nil}, {"iv": b64(random(12))}, {"tag": nil}, {"tag": b64(random(15))}, {"msg": b64(random(2065))}, {"alg": "AES256-CBC", "iv": b64(random(15))},
			} {
				fields := claims{"msg": b64(random(16)), "alg": "AES256-GCM", "iv": b64(random(16)), "tag": b64(random(16))}
				for k, v := range wrong {
					fields = fields.with(k, v)
				}
				if a := s.use("cipher/decrypt", kid, fields); a.status != 400 {
					s.failf("decrypt with %s: answered %d, want 400", names(wrong), a.status)
				}
			}
			s.want(s.use("cipher/encrypt", kid, claims{"msg": b64(random(2048)), "alg": "AES256-GCM"}), 200)
		}},
		{"wrap", "Key wrap and unwrap fit each other (the module against itself), and notice changes", wrapSpec, func(s *step) {
			kid := s.create(api.AES256, "kek")
			msg := random(40)
			for _, alg := range []any{nil, "AES128", "AES192", "AES256"} {
				for _, iv := range []any{nil, b64(random(8))} {
					fields := claims{"alg": alg, "iv": iv}
					wrapped := s.object(s.want(s.use("cipher/wrap", kid, fields.with("msg", b64(msg))), 200), "wrapped:b64=48").bytes("wrapped")
					got := s.object(s.want(s.use("cipher/unwrap", kid, fields.with("msg", b64(wrapped))), 200), "unwrapped:b64").bytes("unwrapped")
					if !bytes.Equal(got, msg) {
						s.failf("what was wrapped is unwrapped as something else")
					}
					s.refused406(s.use("cipher/unwrap", kid, fields.with("msg", b64(flipped(wrapped)))))
					s.refused406(s.use("cipher/unwrap", kid, fields.with("msg", b64(wrapped), "iv", b64(random(8)))))
				}
			}
			plain := s.object(s.want(s.use("cipher/wrap", kid, claims{"msg": b64(msg)}), 200), "wrapped:b64=48").str("wrapped")
			if with := s.object(s.want(s.use("cipher/wrap", kid, claims{"msg": b64(msg), "alg": "AES256"}), 200), "wrapped:b64=48").str("wrapped"); with != plain {
				s.failf("without alg it is not AES256")
			}
			s.refused406(s.use("cipher/wrap", kid, claims{"msg": b64(random(8))}))
			s.refused406(s.use("cipher/wrap", kid, claims{"msg": b64(random(20))}))
			s.want(s.use("cipher/unwrap", kid, claims{"msg": b64(random(25))}), 400)
			s.want(s.use("cipher/wrap", kid, claims{"msg": b64(msg), "iv": b64(random(7))}), 400)
		}},
		{"wrap-peer", "Key wrap with a peer is the same from both ends (the module against itself)", wrapSpec, func(s *step) {
			a, b := s.create(api.Curve25519, "a"), s.create(api.Curve25519, "b")
			msg := random(32)
			fields := claims{"ctx": b64([]byte("conform"))}
			wrapped := s.object(s.want(s.use("cipher/wrap", a, fields.with("msg", b64(msg), "ext_kid", b)), 200), "wrapped:b64=40").str("wrapped")
			got := s.object(s.want(s.use("cipher/unwrap", b, fields.with("msg", wrapped, "pubkey", s.getKey(a).str("pubkey"))), 200), "unwrapped:b64")
			if got.str("unwrapped") != b64(msg) {
				s.failf("the other end unwraps something else")
			}
			s.refused406(s.use("cipher/unwrap", b, claims{"msg": wrapped, "pubkey": s.getKey(a).str("pubkey")})) // without ctx
		}},
		{"unfit", "A key of another type, and one that is not there, are the same 406", "api.md#cryptography", func(s *step) {
			aesKey, ed := s.create(api.AES128, "aes"), s.create(api.Ed25519, "ed")
			first := s.use("exdsa/sign", noKID, claims{"msg": "AAAA", "alg": api.AlgEd25519})
			s.refused406(first)
			for _, a := range []*answer{
				s.use("exdsa/sign", aesKey, claims{"msg": "AAAA", "alg": api.AlgEd25519}), s.use("exdsa/sign", ed, claims{"msg": "AAAA", "alg": api.SHA256WithECDSA}),
				s.use("cipher/encrypt", ed, claims{"msg": "AAAA", "alg": "AES128-GCM"}), s.use("hmac/hash", aesKey, claims{"msg": "AAAA"}),
				s.use("pqc/mlkem/encaps", aesKey, claims{}), s.use("pqc/mldsa/sign", ed, claims{"msg": "AAAA"}),
				s.use("ecdh", ed, claims{"ext_kid": ed}),
			} {
				s.alike(first, a)
			}
		}},
	}
}

// names lists what a set of fields changes.
func names(c claims) string {
	var all []string
	for k, v := range c {
		text := fmt.Sprint(v)
		if len(text) > 20 {
			text = text[:20] + "…"
		}
		all = append(all, k+"="+text)
	}
	return strings.Join(all, ", ")
}
