package httpapi_test

import (
	"encoding/hex"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/suite"
)

// The whole of what the 23 key types may do, as parts 3 and 4 of the protocol
// have it, written down a second time: nothing here is taken from the table of
// internal/suite, which is what these tests are about.
type keyRow struct {
	keys  api.KeyType
	kin   api.KeyType // another curve or parameter set of its family with other lengths, if it has one
	ecdh  bool
	algs  []string // of exdsa
	mac   bool
	aes   int // bits
	kem   bool
	mldsa bool
}

var (
	ecdsaAlgs   = []string{"SHA256WithECDSA", "SHA384WithECDSA", "SHA512WithECDSA"}
	ed25519Algs = []string{"Ed25519", "Ed25519ph", "Ed25519ctx"}
	ed448Algs   = []string{"Ed448", "Ed448ph"}
)

var keyRows = []keyRow{
	{keys: "SECP256R1", kin: "SECP384R1", ecdh: true, algs: ecdsaAlgs},
	{keys: "SECP384R1", kin: "SECP521R1", ecdh: true, algs: ecdsaAlgs},
	{keys: "SECP521R1", kin: "SECP256R1", ecdh: true, algs: ecdsaAlgs},
	{keys: "SECP256K1", kin: "SECP384R1", ecdh: true, algs: ecdsaAlgs},
	{keys: "CURVE25519", kin: "CURVE448", ecdh: true},
	{keys: "CURVE448", kin: "CURVE25519", ecdh: true},
	{keys: "ED25519", kin: "ED448", algs: ed25519Algs},
	{keys: "ED448", kin: "ED25519", algs: ed448Algs},
	{keys: "SHA2-256", mac: true},
	{keys: "SHA2-384", mac: true},
	{keys: "SHA2-512", mac: true},
	{keys: "SHA3-256", mac: true},
	{keys: "SHA3-384", mac: true},
	{keys: "SHA3-512", mac: true},
	{keys: "AES128", aes: 128},
	{keys: "AES192", aes: 192},
	{keys: "AES256", aes: 256},
	{keys: "MLKEM512", kin: "MLKEM768", kem: true},
	{keys: "MLKEM768", kin: "MLKEM1024", kem: true},
	{keys: "MLKEM1024", kin: "MLKEM512", kem: true},
	{keys: "MLDSA44", kin: "MLDSA65", mldsa: true},
	{keys: "MLDSA65", kin: "MLDSA87", mldsa: true},
	{keys: "MLDSA87", kin: "MLDSA44", mldsa: true},
}

func rowOf(keys api.KeyType) keyRow {
	return keyRows[slices.IndexFunc(keyRows, func(r keyRow) bool { return r.keys == keys })]
}

func (r keyRow) pair() bool { return !r.mac && r.aes == 0 }

// An operation is one thing that can be asked of a key.
type operation struct {
	name, path string // path is empty for get
	own        func(keyRow) bool
	public     func(keyRow) bool // an imported public key is enough; nil: never
	bound      bool              // the request holds what the right key made: a signature, MAC or ciphertext
	peer       bool
	// body is a well-formed request for the key of that row which k has, all
	// but the kid.
	body func(k *keeper, r keyRow, kid string) fields
}

const derive = "/api/keymgmt/derive"

func (o operation) scope(kid string) string {
	switch o.path {
	case "":
		return api.ScopeKeyGet
	case derive:
		return api.ScopeKeyDerive
	}
	return api.ScopeKeyUse(kid)
}

var matrixMsg = []byte("thirty-two bytes to do things to")

func operations() (all []operation) {
	isECDH := func(r keyRow) bool { return r.ecdh }
	isKEM := func(r keyRow) bool { return r.kem }
	isMLDSA := func(r keyRow) bool { return r.mldsa }
	isMAC := func(r keyRow) bool { return r.mac }
	// made is what the other half of a bound operation gives, or a stand-in for
	// keys that cannot do it.
	made := func(fits bool, size int, produce func() []byte) []byte {
		if !fits {
			return make([]byte, size)
		}
		return produce()
	}
	withPeer := func(k *keeper, r keyRow, f fields) fields {
		keys := r.keys
		if !r.ecdh {
			keys = api.Curve25519
		}
		return f.but(fields{"pubkey": freshPublic(k.t, keys)})
	}
	all = append(all,
		operation{name: "get", own: func(keyRow) bool { return true }, public: keyRow.pair, body: func(*keeper, keyRow, string) fields { return fields{} }},
		operation{name: "hmac/hash", path: "hmac/hash", own: isMAC, body: func(*keeper, keyRow, string) fields { return fields{"msg": matrixMsg} }},
		operation{name: "hmac/verify", path: "hmac/verify", own: isMAC, bound: true, body: func(k *keeper, r keyRow, kid string) fields {
			f := fields{"msg": matrixMsg}
			return f.but(fields{"mac": made(r.mac, 32, func() []byte { return k.must(k.use("hmac/hash", kid, f), "mac") })})
		}},
		operation{name: "hmac/hash with a peer", path: "hmac/hash", own: isECDH, peer: true, body: func(k *keeper, r keyRow, kid string) fields {
			return withPeer(k, r, fields{"msg": matrixMsg, "alg": "SHA3-384"})
		}},
		operation{name: "hmac/verify with a peer", path: "hmac/verify", own: isECDH, peer: true, bound: true, body: func(k *keeper, r keyRow, kid string) fields {
			f := withPeer(k, r, fields{"msg": matrixMsg, "alg": "SHA2-512"})
			return f.but(fields{"mac": made(r.ecdh, 64, func() []byte { return k.must(k.use("hmac/hash", kid, f), "mac") })})
		}},
	)
	for _, alg := range slices.Concat(ecdsaAlgs, ed25519Algs, ed448Algs) {
		signs := func(r keyRow) bool { return slices.Contains(r.algs, alg) }
		f := fields{"msg": matrixMsg, "alg": alg, "ctx": []byte("ctx")}
		all = append(all,
			operation{name: "sign " + alg, path: "exdsa/sign", own: signs, body: func(*keeper, keyRow, string) fields { return f }},
			operation{name: "verify " + alg, path: "exdsa/verify", own: signs, public: signs, bound: true, body: func(k *keeper, r keyRow, kid string) fields {
				return f.but(fields{"sign": made(signs(r), 64, func() []byte { return k.must(k.use("exdsa/sign", kid, f), "sign") })})
			}},
		)
	}
	decrypting := func(k *keeper, fits bool, kid string, f fields) fields {
		sealed := fields{"msg": make([]byte, 48), "iv": make([]byte, 16), "tag": make([]byte, 16)}
		if fits {
			a := k.use("cipher/encrypt", kid, f)
			sealed["msg"] = k.must(a, "ciphertext")
			for _, part := range []string{"iv", "tag"} {
				if strings.Contains(string(a.body), `"`+part+`"`) {
					sealed[part] = k.must(a, part)
				}
			}
		}
		return f.but(sealed)
	}
	for _, c := range []struct {
		alg  string
		bits int
	}{{"AES128", 128}, {"AES192", 192}, {"AES256", 256}} {
		fits := func(r keyRow) bool { return r.aes >= c.bits }
		for _, mode := range []string{"ECB", "CBC", "GCM"} {
			f := fields{"msg": matrixMsg, "alg": c.alg + "-" + mode, "aad": []byte("aad")}
			all = append(all,
				operation{name: "encrypt " + f["alg"].(string), path: "cipher/encrypt", own: fits, body: func(*keeper, keyRow, string) fields { return f }},
				operation{name: "decrypt " + f["alg"].(string), path: "cipher/decrypt", own: fits, bound: true, body: func(k *keeper, r keyRow, kid string) fields {
					return decrypting(k, fits(r), kid, f)
				}},
				operation{name: "encrypt with a peer " + f["alg"].(string), path: "cipher/encrypt", own: isECDH, peer: true, body: func(k *keeper, r keyRow, kid string) fields {
					return withPeer(k, r, f.but(fields{"ctx": []byte("ctx")}))
				}},
				operation{name: "decrypt with a peer " + f["alg"].(string), path: "cipher/decrypt", own: isECDH, peer: true, bound: true, body: func(k *keeper, r keyRow, kid string) fields {
					return decrypting(k, r.ecdh, kid, withPeer(k, r, f))
				}},
			)
		}
		f := fields{"msg": matrixMsg, "alg": c.alg, "iv": []byte("12345678")}
		unwrapping := func(k *keeper, fits bool, kid string, f fields) fields {
			return f.but(fields{"msg": made(fits, 40, func() []byte { return k.must(k.use("cipher/wrap", kid, f), "wrapped") })})
		}
		all = append(all,
			operation{name: "wrap " + c.alg, path: "cipher/wrap", own: fits, body: func(*keeper, keyRow, string) fields { return f }},
			operation{name: "unwrap " + c.alg, path: "cipher/unwrap", own: fits, bound: true, body: func(k *keeper, r keyRow, kid string) fields {
				return unwrapping(k, fits(r), kid, f)
			}},
			operation{name: "wrap with a peer " + c.alg, path: "cipher/wrap", own: isECDH, peer: true, body: func(k *keeper, r keyRow, kid string) fields {
				return withPeer(k, r, f)
			}},
			operation{name: "unwrap with a peer " + c.alg, path: "cipher/unwrap", own: isECDH, peer: true, bound: true, body: func(k *keeper, r keyRow, kid string) fields {
				return unwrapping(k, r.ecdh, kid, withPeer(k, r, f))
			}},
		)
	}
	return append(all,
		operation{name: "ecdh", path: "ecdh", own: isECDH, peer: true, body: func(k *keeper, r keyRow, kid string) fields { return withPeer(k, r, fields{}) }},
		operation{name: "derive", path: derive, own: isECDH, peer: true, body: func(k *keeper, r keyRow, kid string) fields {
			return withPeer(k, r, fields{"label": "derived", "type": "AES128"})
		}},
		operation{name: "encaps", path: "pqc/mlkem/encaps", own: isKEM, public: isKEM, body: func(*keeper, keyRow, string) fields { return fields{} }},
		operation{name: "decaps", path: "pqc/mlkem/decaps", own: isKEM, bound: true, body: func(k *keeper, r keyRow, kid string) fields {
			return fields{"ct": made(r.kem, 768, func() []byte { return k.must(k.use("pqc/mlkem/encaps", kid, fields{}), "ct") })}
		}},
		operation{name: "mldsa/sign", path: "pqc/mldsa/sign", own: isMLDSA, body: func(*keeper, keyRow, string) fields {
			return fields{"msg": matrixMsg, "ctx": []byte("ctx")}
		}},
		operation{name: "mldsa/verify", path: "pqc/mldsa/verify", own: isMLDSA, public: isMLDSA, bound: true, body: func(k *keeper, r keyRow, kid string) fields {
			f := fields{"msg": matrixMsg, "ctx": []byte("ctx")}
			return f.but(fields{"sign": made(r.mldsa, 2420, func() []byte { return k.must(k.use("pqc/mldsa/sign", kid, f), "sign") })})
		}},
	)
}

// ask sends a request for an operation with a token of one's choice.
func (k *keeper) ask(o operation, kid string, token *string, f fields) answer {
	k.t.Helper()
	switch o.path {
	case "":
		return k.do(request{method: "GET", path: "/api/keymgmt/get/" + kid, token: token})
	case derive:
		return k.do(request{method: "POST", path: derive, token: token, body: f.but(fields{"kid": kid}).json(k.t)})
	}
	return k.do(request{method: "POST", path: "/api/crypto/" + o.path, token: token, body: f.but(fields{"kid": kid}).json(k.t)})
}

// Every key type, every operation, every way to ask for it: the exact status.
func TestEveryOperationOnEveryType(t *testing.T) {
	k, far := newKeeper(t, nil), newKeeper(t, &hemtest.Options{Seed: "far"})
	dir := filepath.Join(t.TempDir(), "data")
	failed := newKeeper(t, &hemtest.Options{DataDir: dir})
	own, imported, remote, broken := map[api.KeyType]string{}, map[api.KeyType]string{}, map[api.KeyType]string{}, map[api.KeyType]string{}
	for _, r := range keyRows {
		own[r.keys], remote[r.keys], broken[r.keys] = k.create(r.keys), far.create(r.keys), failed.create(r.keys)
		failed.as(api.RoleUser, api.ScopeKeyUse(broken[r.keys])) // in a fail state nobody logs in
		if r.pair() {
			imported[r.keys] = k.imports(r.keys, far.public(remote[r.keys]))
		}
	}
	failed.as(api.RoleUser, api.ScopeKeyGet)
	failed.as(api.RoleUser, api.ScopeKeyDerive)
	victim := failed.create("AES256")
	v := openVault(t, dir)
	row := v.row(victim)
	row.Sealed[100] ^= 1
	v.replace([]string{victim}, row)
	failed.want("an operation with a damaged key", failed.use("cipher/wrap", victim, fields{"msg": matrixMsg}), 409)
	if fls := failed.fls(); fls != 8 {
		t.Fatalf("fail state %02x, want 08", fls)
	}

	missing := hex.EncodeToString(suite.Random(16))
	empty := ""
	var asked atomic.Int64
	t.Run("types", func(t *testing.T) {
		for i, r := range keyRows {
			t.Run(string(r.keys), func(t *testing.T) {
				t.Parallel()
				k, far, failed := k.with(t), far.with(t), failed.with(t)
				token := func(o operation, kid string) *string { return k.as(api.RoleUser, o.scope(kid)) }
				for _, o := range operations() {
					kid, f := own[r.keys], o.body(k, r, own[r.keys])
					want := func(condition string, a answer, status int) {
						t.Helper()
						asked.Add(1)
						k.want(o.name+", "+condition, a, status)
					}
					or406 := func(good bool) int {
						if good {
							return 200
						}
						return 406
					}
					want("right key", k.ask(o, kid, token(o, kid), f), or406(o.own(r)))
					if o.own(r) {
						for step := range keyRows {
							if other := keyRows[(i+step)%len(keyRows)]; !o.own(other) {
								kid := own[other.keys]
								want("a key of type "+string(other.keys), k.ask(o, kid, token(o, kid), f), 406)
								break
							}
						}
					}
					if o.own(r) && r.kin != "" {
						kid := own[r.kin]
						want("key of another curve", k.ask(o, kid, token(o, kid), f), or406(o.own(rowOf(r.kin)) && !o.bound && !o.peer))
					}
					if o.peer && r.ecdh {
						want("peer of another curve", k.ask(o, kid, token(o, kid), f.but(fields{"pubkey": far.public(remote[r.kin])})), 406)
						for _, other := range keyRows {
							if other.keys != r.keys {
								want("stored peer of type "+string(other.keys), k.ask(o, kid, token(o, kid), f.but(fields{"ext_kid": own[other.keys]})), 406)
							}
						}
						want("missing peer", k.ask(o, kid, token(o, kid), f.but(fields{"ext_kid": missing})), 406)
						if !o.bound {
							want("imported peer", k.ask(o, kid, token(o, kid), f.but(fields{"ext_kid": imported[r.keys]})), 200)
							want("itself as the peer", k.ask(o, kid, token(o, kid), f.but(fields{"ext_kid": kid})), 200)
						}
					}
					if r.pair() {
						kid, f := imported[r.keys], o.body(far, r, remote[r.keys])
						want("imported public key", k.ask(o, kid, token(o, kid), f), or406(o.public != nil && o.public(r)))
					}
					want("missing kid", k.ask(o, missing, token(o, missing), f), 406)
					want("no kid", k.ask(o, missing[1:], token(o, missing), f), 400)
					another := own[keyRows[(i+1)%len(keyRows)].keys]
					want("scope of another key", k.ask(o, kid, k.as(api.RoleUser, api.ScopeKeyUse(another)), f), 403)
					want("scope of another operation", k.ask(o, kid, k.as(api.RoleUser, api.ScopeKeyUpdate), f), 403)
					want("role M", k.ask(o, kid, k.as(api.RoleMaster, o.scope(kid)), f), 403)
					plain := *k
					plain.peer = k.peer.plain()
					want("plain HTTP", plain.ask(o, kid, token(o, kid), f), 418)
					want("no token", k.ask(o, kid, nil, f), 401)
					want("an empty token", k.ask(o, kid, &empty, f), 401)
					want("fail state", failed.ask(o, broken[r.keys], failed.as(api.RoleUser, o.scope(broken[r.keys])), f), 409)
				}
			})
		}
	})
	if len(keyRows) != 23 || asked.Load() < 23*10*int64(len(operations())) {
		t.Errorf("%d requests for %d types and %d operations", asked.Load(), len(keyRows), len(operations()))
	}
	t.Logf("%d requests: %d types, %d operations", asked.Load(), len(keyRows), len(operations()))
}

// A key does what its mode says, and as a peer serves whatever its mode.
func TestModes(t *testing.T) {
	k, far := newKeeper(t, nil), newKeeper(t, &hemtest.Options{Seed: "far"})
	msg := fields{"msg": matrixMsg, "alg": "SHA384WithECDSA"}
	for _, r := range keyRows[:4] {
		for _, c := range []struct {
			mode        any
			ecdh, exdsa bool
			listed      string
		}{
			{nil, true, false, "ECDH,"}, {"ECDH", true, false, "ECDH,"}, {"ExDSA", false, true, "ExDSA,"}, {"ECDH,ExDSA", true, true, "ECDH,ExDSA,"},
		} {
			status := map[bool]int{true: 200, false: 406}
			produce := func(op, scope string, more fields) string {
				return k.kid(k.post("/api/keymgmt/"+op, scope, more.but(fields{"label": "mode", "type": r.keys, "mode": c.mode})))
			}
			kid := produce("create", api.ScopeKeyGen, fields{})
			k.want("ecdh", k.use("ecdh", kid, fields{"pubkey": freshPublic(t, r.keys)}), status[c.ecdh])
			k.want("sign", k.use("exdsa/sign", kid, msg), status[c.exdsa])
			remote := far.create(r.keys)
			sig := far.must(far.use("exdsa/sign", remote, msg), "sign")
			public := produce("import", api.ScopeKeyImport, fields{"pubkey": far.public(remote)})
			k.want("verify", k.use("exdsa/verify", public, msg.but(fields{"sign": sig})), status[c.exdsa])
			user := k.create(r.keys)
			k.want("as a peer", k.use("ecdh", user, fields{"ext_kid": kid}), 200)
			k.want("imported, as a peer", k.use("ecdh", user, fields{"ext_kid": public}), 200)
			derived := produce("derive", api.ScopeKeyDerive, fields{"kid": user, "ext_kid": kid})
			k.want("derived, sign", k.use("exdsa/sign", derived, msg), status[c.exdsa])
			page := k.page("/0/15")
			if page.Total > 15 {
				page = k.page("/" + decimal(page.Total-15))
			}
			for _, info := range page.List {
				want := ""
				switch info.KID {
				case kid, derived:
					want = "ATT,PKEY," + c.listed + string(r.keys)
				case public:
					want = c.listed + string(r.keys)
				default:
					continue
				}
				if info.Type != want {
					t.Errorf("%s with mode %v lists as %s, want %s", r.keys, c.mode, info.Type, want)
				}
			}
		}
	}
}
