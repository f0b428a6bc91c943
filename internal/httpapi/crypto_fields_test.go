package httpapi_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"softhem/api"
)

// A sample is a right request to an endpoint of one key, with every field the
// endpoint knows.
type sample struct {
	path, scope, kid string
	f                func() fields // anew each time, for what can be done only once
}

func samples(k *keeper) (all []sample) {
	kids := make(map[api.KeyType]string)
	for _, c := range []struct {
		operation string
		keys      api.KeyType
	}{
		{"hmac/hash with a peer", "CURVE25519"}, {"hmac/verify with a peer", "SECP256R1"}, {"sign Ed25519ctx", "ED25519"},
		{"verify Ed448ph", "ED448"}, {"encrypt with a peer AES256-GCM", "CURVE448"}, {"decrypt with a peer AES128-GCM", "SECP256K1"},
		{"decrypt AES256-CBC", "AES256"}, {"wrap with a peer AES192", "SECP384R1"}, {"unwrap with a peer AES256", "SECP521R1"},
		{"ecdh", "CURVE25519"}, {"encaps", "MLKEM512"}, {"decaps", "MLKEM512"}, {"mldsa/sign", "MLDSA44"}, {"mldsa/verify", "MLDSA44"},
		{"derive", "SECP384R1"},
	} {
		if kids[c.keys] == "" {
			kids[c.keys] = k.create(c.keys)
		}
		ops := operations()
		o, kid := ops[slices.IndexFunc(ops, func(o operation) bool { return o.name == c.operation })], kids[c.keys]
		s := sample{"/api/crypto/" + o.path, o.scope(kid), kid, func() fields {
			return o.body(k, rowOf(c.keys), kid).but(fields{"kid": kid})
		}}
		if o.path == derive {
			s.path = derive
		} else {
			f := s.f()
			if f["alg"] == "AES256-CBC" {
				delete(f, "tag") // means nothing, so it is not looked at
			}
			s.f = func() fields { return maps.Clone(f) }
		}
		all = append(all, s)
	}
	return all
}

// What holds for every endpoint of one key: how JSON, the kid and binary fields
// are read, and what comes first.
func TestRequestsAsTheyAreRead(t *testing.T) {
	k := newKeeper(t, nil)
	spellings := 0
	for _, s := range samples(k) {
		t.Run(s.path, func(t *testing.T) {
			k := k.with(t)
			raw := func(what, body string, want int) { t.Helper(); k.want(what, k.raw(s.path, s.scope, body), want) }
			try := func(what string, change fields, want int) {
				t.Helper()
				raw(what, s.f().but(change).json(t), want)
			}
			raw("as it should be", s.f().json(t), 200)
			good := s.f().json(t)
			for what, body := range map[string]string{
				"nothing": "", "half": good[:len(good)-1], "more": good + "{}", "an array": "[" + good + "]", "a string": `"x"`, "null": "null",
				"a name twice": `{"kid":"` + s.kid + `",` + good[1:], "no UTF-8": good[:len(good)-1] + ",\"x\":\"\xff\"}", "true": "true",
				"a comment": "/**/" + good, "NUL": good + "\x00", "empty": "{}",
			} {
				raw(what, body, 400)
			}
			try("unknown fields", fields{"x": []any{1, nil, fields{"y": 1e9}}, "KID": "x", "Msg": 1, "": 0}, 200)
			raw("white space", " \r\n\t"+s.f().json(t)+"\n", 200)
			try("kid in capitals", fields{"kid": strings.ToUpper(s.kid)}, 200)
			for _, kid := range []any{nil, "", s.kid[1:], s.kid + "0", "g" + s.kid[1:], s.kid[:31] + " ", 5, true, []any{s.kid}, fields{"kid": s.kid}} {
				try(fmt.Sprintf("kid %v", kid), fields{"kid": kid}, 400)
			}
			for name, value := range s.f() {
				for _, wrong := range []any{1, 1.5, true, []any{}, []any{"x"}, fields{}} {
					try(fmt.Sprintf("%s %v", name, wrong), fields{name: wrong}, 400)
				}
				b, binary := value.([]byte)
				if !binary {
					continue
				}
				text := api.EncodeBase64(b)
				urlSafe := strings.NewReplacer("+", "-", "/", "_").Replace(text)
				if urlSafe != text {
					spellings++
				}
				if s.path != derive { // else its own peer, once more
					try(name+", URL-safe", fields{name: urlSafe}, 200)
					try(name+", URL-safe, unpadded", fields{name: strings.TrimRight(urlSafe, "=")}, 200)
					try(name+", unpadded", fields{name: strings.TrimRight(text, "=")}, 200)
				}
				for what, wrong := range map[string]string{
					"line break": text[:4] + "\n" + text[4:], "CR LF": text + "\r\n", "space": " " + text, "one = too many": text + "=",
					"===": strings.TrimRight(text, "=") + "===", "one digit": "A", "star": "*" + text[1:], "= within": "=" + text,
				} {
					try(name+", "+what, fields{name: wrong}, 400)
				}
			}
			// Absent, null and empty are one.
			for name := range s.f() {
				absent := s.f()
				delete(absent, name)
				want := k.raw(s.path, s.scope, absent.json(t)).status
				if want != 200 && want != 400 && want != 406 {
					t.Errorf("without %s: %d", name, want)
				}
				if s.path == derive && want == 200 {
					continue // with the peer of another sample
				}
				try(name+" null", fields{name: nil}, want)
				try(name+" empty", fields{name: ""}, want)
			}
			// First the JSON and kid, then the scope, then the other fields, then
			// the operation.
			other := api.ScopeKeyUse(strings.Repeat("0", 32))
			if s.path == derive {
				other = api.ScopeKeyList
			}
			first := 400
			if s.path == derive { // whose scope names no kid
				first = 403
			}
			k.want("no JSON, wrong scope", k.raw(s.path, other, "{"), first)
			k.want("no kid, wrong scope", k.raw(s.path, other, "{}"), first)
			k.want("bad fields, wrong scope", k.raw(s.path, other, fields{"kid": s.kid, "msg": "*", "label": ""}.json(t)), 403)
			k.want("unknown kid, wrong scope", k.raw(s.path, other, s.f().but(fields{"kid": strings.Repeat("1", 32)}).json(t)), 403)
			// The body's own limit.
			pad := func(n int) string {
				body := s.f().json(t)
				return body + strings.Repeat(" ", n-len(body))
			}
			raw("7300 bytes", pad(7300), 200)
			raw("7301 bytes", pad(7301), 413)
			k.want("no length", k.do(request{method: "POST", path: s.path, body: "{}", chunked: true, token: k.as(api.RoleUser, s.scope)}), 411)
		})
	}
	if spellings < 5 {
		t.Errorf("%d values looked different in the URL-safe alphabet", spellings)
	}
}

// The limits of each field, and what its contents may be.
func TestFieldsOfOperations(t *testing.T) {
	k := newKeeper(t, nil)
	kids := make(map[api.KeyType]string)
	for _, r := range keyRows {
		kids[r.keys] = k.create(r.keys)
	}
	zeros := func(n int) []byte { return make([]byte, n) }
	peer := fields{"ext_kid": kids["CURVE25519"]}
	lowOrder := zeros(32)
	lowOrder[0] = 1
	uncompressed := append([]byte{4}, zeros(64)...)
	for _, c := range []struct {
		op, what string
		keys     api.KeyType
		f        fields
		want     int
	}{
		{"hmac/hash", "no msg", "SHA2-256", fields{}, 400},
		{"hmac/hash", "an empty msg", "SHA2-256", fields{"msg": zeros(0)}, 400},
		{"hmac/hash", "1", "SHA2-256", fields{"msg": zeros(1)}, 200},
		{"hmac/hash", "2048", "SHA3-512", fields{"msg": zeros(2048)}, 200},
		{"hmac/hash", "2049", "SHA3-512", fields{"msg": zeros(2049)}, 400},
		{"hmac/hash", "alg is ignored", "SHA2-256", fields{"msg": zeros(1), "alg": "MD5"}, 200},
		{"hmac/hash", "a peer for an HMAC key", "SHA2-256", peer.but(fields{"msg": zeros(1), "alg": "SHA2-256"}), 406},
		{"hmac/hash", "a peer and no alg", "CURVE25519", peer.but(fields{"msg": zeros(1)}), 406},
		{"hmac/hash", "a peer and an unknown alg", "CURVE25519", peer.but(fields{"msg": zeros(1), "alg": "MD5"}), 400},
		{"hmac/hash", "a peer and an alg in small letters", "CURVE25519", peer.but(fields{"msg": zeros(1), "alg": "sha2-256"}), 400},
		{"hmac/verify", "no mac", "SHA2-256", fields{"msg": zeros(1)}, 400},
		{"hmac/verify", "a mac of 1", "SHA2-256", fields{"msg": zeros(1), "mac": zeros(1)}, 406},
		{"hmac/verify", "a mac of 64", "SHA2-256", fields{"msg": zeros(1), "mac": zeros(64)}, 406},
		{"hmac/verify", "a mac of 65", "SHA2-256", fields{"msg": zeros(1), "mac": zeros(65)}, 400},
		{"hmac/verify", "2049", "SHA2-256", fields{"msg": zeros(2049), "mac": zeros(32)}, 400},

		{"exdsa/sign", "no alg", "ED25519", fields{"msg": zeros(1)}, 400},
		{"exdsa/sign", "an unknown alg", "ED25519", fields{"msg": zeros(1), "alg": "ed25519"}, 400},
		{"exdsa/sign", "another unknown alg", "SECP256R1", fields{"msg": zeros(1), "alg": "SHA1WithECDSA"}, 400},
		{"exdsa/sign", "an empty msg", "ED25519", fields{"msg": "", "alg": "Ed25519"}, 400},
		{"exdsa/sign", "2048", "ED25519", fields{"msg": zeros(2048), "alg": "Ed25519"}, 200},
		{"exdsa/sign", "2049", "ED25519", fields{"msg": zeros(2049), "alg": "Ed25519"}, 400},
		{"exdsa/sign", "2048, ECDSA", "SECP521R1", fields{"msg": zeros(2048), "alg": "SHA512WithECDSA"}, 200},
		{"exdsa/sign", "Ed25519ctx without ctx", "ED25519", fields{"msg": zeros(1), "alg": "Ed25519ctx"}, 400},
		{"exdsa/sign", "Ed25519ctx with an empty ctx", "ED25519", fields{"msg": zeros(1), "alg": "Ed25519ctx", "ctx": ""}, 400},
		{"exdsa/sign", "ctx of 255", "ED25519", fields{"msg": zeros(1), "alg": "Ed25519ctx", "ctx": zeros(255)}, 200},
		{"exdsa/sign", "ctx of 256", "ED25519", fields{"msg": zeros(1), "alg": "Ed25519ctx", "ctx": zeros(256)}, 400},
		{"exdsa/sign", "Ed448, ctx of 255", "ED448", fields{"msg": zeros(1), "alg": "Ed448", "ctx": zeros(255)}, 200},
		{"exdsa/sign", "Ed448ph, ctx of 256", "ED448", fields{"msg": zeros(1), "alg": "Ed448ph", "ctx": zeros(256)}, 400},
		{"exdsa/verify", "no sign", "ED25519", fields{"msg": zeros(1), "alg": "Ed25519"}, 400},
		{"exdsa/verify", "a sign of 1", "ED25519", fields{"msg": zeros(1), "alg": "Ed25519", "sign": zeros(1)}, 406},
		{"exdsa/verify", "a sign of 148", "SECP521R1", fields{"msg": zeros(1), "alg": "SHA256WithECDSA", "sign": zeros(148)}, 406},
		{"exdsa/verify", "a sign of 149", "SECP521R1", fields{"msg": zeros(1), "alg": "SHA256WithECDSA", "sign": zeros(149)}, 400},

		{"cipher/encrypt", "no alg", "AES256", fields{"msg": zeros(16)}, 400},
		{"cipher/encrypt", "an unknown alg", "AES256", fields{"msg": zeros(16), "alg": "AES256-CTR"}, 400},
		{"cipher/encrypt", "an alg without a mode", "AES256", fields{"msg": zeros(16), "alg": "AES256"}, 400},
		{"cipher/encrypt", "ECB of 15", "AES256", fields{"msg": zeros(15), "alg": "AES256-ECB"}, 400},
		{"cipher/encrypt", "ECB of 16", "AES256", fields{"msg": zeros(16), "alg": "AES256-ECB"}, 200},
		{"cipher/encrypt", "ECB of 2048", "AES256", fields{"msg": zeros(2048), "alg": "AES256-ECB"}, 200},
		{"cipher/encrypt", "ECB of 2064", "AES256", fields{"msg": zeros(2064), "alg": "AES256-ECB"}, 400},
		{"cipher/encrypt", "CBC of nothing", "AES256", fields{"msg": "", "alg": "AES256-CBC"}, 400},
		{"cipher/encrypt", "CBC of 2048", "AES256", fields{"msg": zeros(2048), "alg": "AES256-CBC"}, 200},
		{"cipher/encrypt", "GCM of 2049", "AES256", fields{"msg": zeros(2049), "alg": "AES256-GCM"}, 400},
		{"cipher/encrypt", "aad of 1024", "AES256", fields{"msg": zeros(1), "alg": "AES256-GCM", "aad": zeros(1024)}, 200},
		{"cipher/encrypt", "aad of 1025", "AES256", fields{"msg": zeros(1), "alg": "AES256-GCM", "aad": zeros(1025)}, 400},
		{"cipher/encrypt", "ctx of 64", "CURVE25519", peer.but(fields{"msg": zeros(1), "alg": "AES256-GCM", "ctx": zeros(64)}), 200},
		{"cipher/encrypt", "ctx of 65", "CURVE25519", peer.but(fields{"msg": zeros(1), "alg": "AES256-GCM", "ctx": zeros(65)}), 400},
		{"cipher/encrypt", "a peer for an AES key", "AES256", peer.but(fields{"msg": zeros(1), "alg": "AES256-GCM"}), 406},
		{"cipher/encrypt", "a longer alg than the key", "AES128", fields{"msg": zeros(16), "alg": "AES192-ECB"}, 406},
		{"cipher/encrypt", "a shorter alg than the key", "AES256", fields{"msg": zeros(16), "alg": "AES128-ECB"}, 200},
		{"cipher/decrypt", "ECB of 17", "AES256", fields{"msg": zeros(17), "alg": "AES256-ECB"}, 400},
		{"cipher/decrypt", "ECB without iv", "AES256", fields{"msg": zeros(16), "alg": "AES256-ECB"}, 200},
		{"cipher/decrypt", "CBC without iv", "AES256", fields{"msg": zeros(16), "alg": "AES256-CBC"}, 400},
		{"cipher/decrypt", "an iv of 15", "AES256", fields{"msg": zeros(16), "alg": "AES256-CBC", "iv": zeros(15)}, 400},
		{"cipher/decrypt", "an iv of 17", "AES256", fields{"msg": zeros(16), "alg": "AES256-CBC", "iv": zeros(17)}, 400},
		{"cipher/decrypt", "CBC of 17", "AES256", fields{"msg": zeros(17), "alg": "AES256-CBC", "iv": zeros(16)}, 406},
		{"cipher/decrypt", "GCM, an iv of 12", "AES256", fields{"msg": zeros(16), "alg": "AES256-GCM", "iv": zeros(12), "tag": zeros(16)}, 400},
		{"cipher/decrypt", "GCM without tag", "AES256", fields{"msg": zeros(16), "alg": "AES256-GCM", "iv": zeros(16)}, 400},
		{"cipher/decrypt", "a tag of 15", "AES256", fields{"msg": zeros(16), "alg": "AES256-GCM", "iv": zeros(16), "tag": zeros(15)}, 400},
		{"cipher/decrypt", "a tag of 17", "AES256", fields{"msg": zeros(16), "alg": "AES256-GCM", "iv": zeros(16), "tag": zeros(17)}, 400},
		{"cipher/decrypt", "2064", "AES256", fields{"msg": zeros(2064), "alg": "AES256-GCM", "iv": zeros(16), "tag": zeros(16)}, 406},
		{"cipher/decrypt", "2065", "AES256", fields{"msg": zeros(2065), "alg": "AES256-GCM", "iv": zeros(16), "tag": zeros(16)}, 400},

		{"cipher/wrap", "8", "AES256", fields{"msg": zeros(8)}, 406},
		{"cipher/wrap", "15", "AES256", fields{"msg": zeros(15)}, 406},
		{"cipher/wrap", "16", "AES256", fields{"msg": zeros(16)}, 200},
		{"cipher/wrap", "17", "AES256", fields{"msg": zeros(17)}, 406},
		{"cipher/wrap", "2048", "AES256", fields{"msg": zeros(2048)}, 200},
		{"cipher/wrap", "2049", "AES256", fields{"msg": zeros(2049)}, 400},
		{"cipher/wrap", "2056", "AES256", fields{"msg": zeros(2056)}, 400},
		{"cipher/wrap", "nothing", "AES256", fields{}, 400},
		{"cipher/wrap", "an iv of 7", "AES256", fields{"msg": zeros(16), "iv": zeros(7)}, 400},
		{"cipher/wrap", "an iv of 9", "AES256", fields{"msg": zeros(16), "iv": zeros(9)}, 400},
		{"cipher/wrap", "an unknown alg", "AES256", fields{"msg": zeros(16), "alg": "AES512"}, 400},
		{"cipher/wrap", "a cipher's alg", "AES256", fields{"msg": zeros(16), "alg": "AES256-GCM"}, 400},
		{"cipher/wrap", "AES256 is the default", "AES192", fields{"msg": zeros(16)}, 406},
		{"cipher/wrap", "ctx of 65", "CURVE25519", peer.but(fields{"msg": zeros(16), "ctx": zeros(65)}), 400},
		{"cipher/unwrap", "23", "AES256", fields{"msg": zeros(23)}, 400},
		{"cipher/unwrap", "16", "AES256", fields{"msg": zeros(16)}, 406},
		{"cipher/unwrap", "24", "AES256", fields{"msg": zeros(24)}, 406},
		{"cipher/unwrap", "2056", "AES256", fields{"msg": zeros(2056)}, 406},
		{"cipher/unwrap", "2064", "AES256", fields{"msg": zeros(2064)}, 400},
		{"cipher/unwrap", "nothing", "AES256", fields{"msg": ""}, 400},

		{"ecdh", "no peer", "CURVE25519", fields{}, 400},
		{"ecdh", "a malformed ext_kid", "CURVE25519", fields{"ext_kid": "x"}, 400},
		{"ecdh", "an unknown alg", "CURVE25519", peer.but(fields{"alg": "SHA2-224"}), 400},
		{"ecdh", "a cut pubkey", "CURVE25519", fields{"pubkey": zeros(31)}, 406},
		{"ecdh", "a point of low order", "CURVE25519", fields{"pubkey": lowOrder}, 406},
		{"ecdh", "zero", "CURVE448", fields{"pubkey": zeros(56)}, 406},
		{"ecdh", "an uncompressed point", "SECP256R1", fields{"pubkey": uncompressed}, 406},
		{"ecdh", "no point", "SECP256R1", fields{"pubkey": append([]byte{2}, bytes.Repeat([]byte{0xff}, 32)...)}, 406},
		{"ecdh", "the point at infinity", "SECP256R1", fields{"pubkey": zeros(1)}, 406},

		{"pqc/mlkem/decaps", "no ct", "MLKEM512", fields{}, 400},
		{"pqc/mlkem/decaps", "a ct of 767", "MLKEM512", fields{"ct": zeros(767)}, 406},
		{"pqc/mlkem/decaps", "a ct of 768", "MLKEM512", fields{"ct": zeros(768)}, 200}, // FIPS 203: implicit rejection
		{"pqc/mlkem/decaps", "a ct of 1568", "MLKEM1024", fields{"ct": zeros(1568)}, 200},
		{"pqc/mlkem/decaps", "a ct of 5000", "MLKEM1024", fields{"ct": zeros(5000)}, 406},
		{"pqc/mldsa/sign", "2048", "MLDSA87", fields{"msg": zeros(2048)}, 200},
		{"pqc/mldsa/sign", "2049", "MLDSA87", fields{"msg": zeros(2049)}, 400},
		{"pqc/mldsa/sign", "nothing", "MLDSA87", fields{}, 400},
		{"pqc/mldsa/sign", "ctx of 255", "MLDSA65", fields{"msg": zeros(1), "ctx": zeros(255)}, 200},
		{"pqc/mldsa/sign", "ctx of 256", "MLDSA65", fields{"msg": zeros(1), "ctx": zeros(256)}, 400},
		{"pqc/mldsa/verify", "no sign", "MLDSA44", fields{"msg": zeros(1)}, 400},
		{"pqc/mldsa/verify", "a sign of 4627", "MLDSA44", fields{"msg": zeros(1), "sign": zeros(4627)}, 406},
		{"pqc/mldsa/verify", "a sign of 4628", "MLDSA44", fields{"msg": zeros(1), "sign": zeros(4628)}, 400},
	} {
		k.want(c.op+" with "+string(c.keys)+": "+c.what, k.use(c.op, kids[c.keys], c.f), c.want)
	}

	// The longest that is answered is taken back.
	most := zeros(2048)
	for _, alg := range []string{"AES256-ECB", "AES256-CBC", "AES256-GCM"} {
		a := k.use("cipher/encrypt", kids["AES256"], fields{"msg": most, "alg": alg})
		f := fields{"msg": k.must(a, "ciphertext"), "alg": alg}
		for name, has := range map[string]bool{"iv": alg != "AES256-ECB", "tag": alg == "AES256-GCM"} {
			if has != bytes.Contains(a.body, []byte(`"`+name+`"`)) {
				t.Errorf("%s answers %s", alg, a.body)
			} else if has {
				f[name] = k.must(a, name)
			}
		}
		if plain := k.must(k.use("cipher/decrypt", kids["AES256"], f), "plaintext"); !bytes.Equal(plain, most) {
			t.Errorf("%s: 2048 bytes came back as %d", alg, len(plain))
		}
	}
	wrapped := k.must(k.use("cipher/wrap", kids["AES256"], fields{"msg": most}), "wrapped")
	if plain := k.must(k.use("cipher/unwrap", kids["AES256"], fields{"msg": wrapped}), "unwrapped"); len(wrapped) != 2056 || !bytes.Equal(plain, most) {
		t.Errorf("2048 bytes wrap to %d and come back as %d", len(wrapped), len(plain))
	}
	// 790 bytes are what an ML-DSA-87 signature leaves room for.
	f := fields{"msg": zeros(790)}
	f["sign"] = k.must(k.use("pqc/mldsa/sign", kids["MLDSA87"], f), "sign")
	k.want("verify 790 bytes by MLDSA87", k.use("pqc/mldsa/verify", kids["MLDSA87"], f), 200)
	f["msg"] = zeros(2048)
	k.want("verify 2048 bytes by MLDSA87", k.use("pqc/mldsa/verify", kids["MLDSA87"], f), 413)

	// ext_kid wins over pubkey; and a ctx that means nothing changes nothing.
	x := kids["CURVE25519"]
	both := k.must(k.use("ecdh", x, peer.but(fields{"pubkey": freshPublic(t, "CURVE25519")})), "ecdh")
	if want := k.must(k.use("ecdh", x, peer), "ecdh"); !bytes.Equal(both, want) {
		t.Error("pubkey wins over ext_kid")
	}
	sign := func(f fields) []byte { return k.must(k.use("exdsa/sign", kids["ED25519"], f), "sign") }
	plain := fields{"msg": most, "alg": "Ed25519"}
	if !bytes.Equal(sign(plain), sign(plain.but(fields{"ctx": zeros(9)}))) {
		t.Error("Ed25519 does not ignore ctx")
	}
	ecdsa := fields{"msg": most, "alg": "SHA256WithECDSA", "ctx": zeros(9)}
	ecdsa["sign"] = k.must(k.use("exdsa/sign", kids["SECP256R1"], ecdsa), "sign")
	k.want("ECDSA ignores ctx", k.use("exdsa/verify", kids["SECP256R1"], ecdsa.but(fields{"ctx": nil})), 200)
	for _, alg := range []string{"Ed25519ph", "Ed25519ctx"} {
		f := fields{"msg": most, "alg": alg, "ctx": zeros(9)}
		f["sign"] = sign(f)
		k.want(alg, k.use("exdsa/verify", kids["ED25519"], f), 200)
		k.want(alg+" with another ctx", k.use("exdsa/verify", kids["ED25519"], f.but(fields{"ctx": zeros(8)})), 406)
	}
}
