package httpapi_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/audit"
)

// recorded is what lastBoot says of keys: type, result, who and kid of each record.
func (k *keeper) recorded() (lines []string) {
	k.t.Helper()
	for _, e := range k.lastBoot() {
		if e.Type == audit.FailedScopeCheck || e.Type >= audit.KeyGeneration && e.Type != audit.DeviceInited {
			lines = append(lines, line(e.Type, e.Result, e.Who, hex.EncodeToString(e.Arg)))
		}
	}
	return lines
}

// lastBoot reboots the module and returns the log of the boot that ended. The
// whole file has to verify.
func (k *keeper) lastBoot() (all []audit.Entry) {
	k.t.Helper()
	k.reboot()
	token := k.as(api.RoleUser, api.ScopeLoggerGet)
	var list api.LogList
	if err := json.Unmarshal(k.do(request{method: "GET", path: "/api/logger/list", token: token}).body, &list); err != nil || len(list.ID) < 2 {
		k.t.Fatalf("logs %v, %v", list.ID, err)
	}
	file := k.do(request{method: "GET", path: "/api/logger/" + list.ID[len(list.ID)-2], token: token})
	verifyLog(k.t, k.peer, token, file.body)
	var key api.LoggerKey
	if err := json.Unmarshal(k.do(request{method: "GET", path: "/api/logger/key", token: token}).body, &key); err != nil {
		k.t.Fatal(err)
	}
	eidSign, err := api.DecodeBase64(key.Key)
	if err != nil {
		k.t.Fatal(err)
	}
	for e, err := range audit.Entries(bytes.NewReader(file.body), eidSign) {
		if err != nil {
			k.t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func line(what audit.Type, result audit.Result, who, kid string) string {
	return strings.TrimSpace(fmt.Sprintf("%v %v %s %s", what, result, who, kid))
}

// same compares what was recorded with what should have been.
func (k *keeper) compareLog(want []string) {
	k.t.Helper()
	got := k.recorded()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			k.t.Fatalf("record %d, %q, and %d more are missing", i, want[i], len(want)-i-1)
		case i >= len(want):
			k.t.Fatalf("%d records too many, the first is %q", len(got)-i, got[i])
		case got[i] != want[i]:
			k.t.Fatalf("record %d is %q, want %q, after %q", i, got[i], want[i], got[max(0, i-3):i])
		}
	}
}

// Every change of a key leaves its record, done or not, and nothing else does.
func TestRecordsOfKeyManagement(t *testing.T) {
	for _, compact := range []bool{false, true} {
		k := newKeeper(t, &hemtest.Options{AuditCompact: compact, MaxKeys: 7})
		var want []string
		expect := func(what audit.Type, result audit.Result, kid string) {
			want = append(want, line(what, result, "U", kid))
		}
		used := func(kid string) {
			if !compact {
				expect(audit.KeyUsagePKey, audit.OK, kid)
			}
		}
		unknown := strings.Repeat("0", 32)

		source := k.create("CURVE25519")
		expect(audit.KeyGeneration, audit.OK, source)
		aes := k.create("AES256")
		expect(audit.KeyGeneration, audit.OK, aes)
		create := func(f fields) answer {
			return k.post("/api/keymgmt/create", api.ScopeKeyGen, fields{"label": "x", "type": "AES128"}.but(f))
		}
		k.want("create with a bad label", create(fields{"label": ""}), 400)
		k.want("create as a pairing", create(fields{"descr": []byte("EXTAID")}), 406)
		expect(audit.KeyGeneration, audit.Failed, "")

		public := freshPublic(t, "CURVE25519")
		imports := func(f fields) answer {
			return k.post("/api/keymgmt/import", api.ScopeKeyImport, fields{"label": "x", "type": "CURVE25519", "pubkey": public}.but(f))
		}
		imported := k.kid(imports(fields{}))
		expect(audit.KeyImport, audit.OK, imported)
		k.want("import again", imports(fields{}), 406)
		expect(audit.KeyImport, audit.Failed, imported)
		k.want("import of no point", imports(fields{"type": "SECP256R1"}), 406)
		expect(audit.KeyImport, audit.Failed, "")
		k.want("import of an unknown type", imports(fields{"type": "RSA"}), 406)
		expect(audit.KeyImport, audit.Failed, "")
		k.want("import without a key", imports(fields{"pubkey": nil}), 400)

		derives := func(f fields) answer {
			return k.post(derive, api.ScopeKeyDerive, fields{"kid": source, "label": "x", "type": "ED25519", "ext_kid": imported}.but(f))
		}
		derived := k.kid(derives(fields{}))
		expect(audit.KeyDerive, audit.OK, derived)
		used(source)
		k.want("derive again", derives(fields{}), 406)
		expect(audit.KeyDerive, audit.Failed, source)
		used(source)
		k.want("derive more than the secret has", derives(fields{"type": "SHA2-512"}), 406)
		expect(audit.KeyDerive, audit.Failed, source)
		used(source)
		k.want("derive from an unknown key", derives(fields{"kid": unknown}), 406)
		expect(audit.KeyDerive, audit.Failed, unknown)
		k.want("derive with an unknown peer", derives(fields{"ext_kid": unknown}), 406)
		expect(audit.KeyDerive, audit.Failed, source)
		k.want("derive from a public key", derives(fields{"kid": imported}), 406)
		expect(audit.KeyDerive, audit.Failed, imported)
		k.want("derive from an AES key", derives(fields{"kid": aes}), 406)
		expect(audit.KeyDerive, audit.Failed, aes)
		k.want("derive with a peer of another type", derives(fields{"ext_kid": aes}), 406)
		expect(audit.KeyDerive, audit.Failed, source)
		k.want("derive a pairing", derives(fields{"type": "AES128", "descr": []byte("EXTAID")}), 406)
		expect(audit.KeyDerive, audit.Failed, source)
		used(source)
		k.want("derive what cannot be", derives(fields{"type": "MLKEM512"}), 400)

		update := func(f fields) answer {
			return k.post("/api/keymgmt/update", api.ScopeKeyUpdate, fields{"kid": aes, "label": "y"}.but(f))
		}
		k.want("update", update(fields{}), 200)
		expect(audit.KeyAttributesChanged, audit.OK, aes)
		k.want("update without a label", update(fields{"label": nil}), 400)
		k.want("update an unknown key", update(fields{"kid": unknown}), 406)
		expect(audit.KeyAttributesChanged, audit.Failed, unknown)
		k.want("update to a pairing", update(fields{"descr": []byte("EXTAID")}), 406)
		expect(audit.KeyAttributesChanged, audit.Failed, aes)

		// Looking leaves no record.
		k.page("")
		k.key(aes)
		k.search(api.ScopeKeySearch, fields{"descr": "AAAA"})
		k.want("get an unknown key", k.do(request{method: "GET", path: "/api/keymgmt/get/" + unknown, token: k.as(api.RoleUser, api.ScopeKeyGet)}), 406)

		for range 3 {
			expect(audit.KeyGeneration, audit.OK, k.create("AES128"))
		}
		k.want("create in a full repository", create(fields{}), 406)
		expect(audit.KeyGeneration, audit.Failed, "")

		k.want("delete", k.delete(aes), 200)
		expect(audit.KeyDelete, audit.OK, aes)
		k.want("delete again", k.delete(aes), 406)
		expect(audit.KeyDelete, audit.Failed, aes)
		k.want("delete nothing", k.delete("x"), 400)
		k.compareLog(want)
	}
}

// Every 403 of keys is recorded with who asked.
func TestRecordsOfRefusedScopes(t *testing.T) {
	k := newKeeper(t, nil)
	kid := k.create("AES256")
	want := []string{line(audit.KeyGeneration, audit.OK, "U", kid)}
	send := func(who api.Role, method, path, scope string, f fields) {
		t.Helper()
		a := k.do(request{method: method, path: path, body: f.json(t), token: k.as(who, scope)})
		k.want(path, a, 403)
		want = append(want, line(audit.FailedScopeCheck, audit.Failed, string(who), ""))
	}
	for _, c := range managing(k) {
		send(api.RoleUser, c.method, c.path, api.ScopeSystemConfig, fields{})
		send(api.RoleMaster, c.method, c.path, c.scopes[0], fields{})
	}
	want = slices.Insert(want, 1, k.recordsOfTwoKeys()...)
	for _, o := range operations() {
		if o.path == "" || o.path == derive {
			continue
		}
		send(api.RoleUser, "POST", "/api/crypto/"+o.path, api.ScopeKeyUse(strings.Repeat("0", 32)), fields{"kid": kid})
		send(api.RoleMaster, "POST", "/api/crypto/"+o.path, api.ScopeKeyUse(kid), fields{"kid": kid})
	}
	k.compareLog(want)
}

// recordsOfTwoKeys are those of the keys that managing made last.
func (k *keeper) recordsOfTwoKeys() []string {
	list := k.page("").List
	list = list[len(list)-2:]
	return []string{line(audit.KeyGeneration, audit.OK, "U", list[0].KID), line(audit.KeyGeneration, audit.OK, "U", list[1].KID)}
}

// Every operation with a key leaves one record, and a second exactly when the
// private part of a pair was used, unless records are compact.
func TestRecordsOfOperations(t *testing.T) {
	types := map[string]audit.Type{
		"hmac/hash": audit.CryptoHMACHash, "hmac/verify": audit.CryptoHMACVerify, "exdsa/sign": audit.CryptoEXDSASign,
		"exdsa/verify": audit.CryptoEXDSAVerify, "cipher/encrypt": audit.CryptoEncrypt, "cipher/decrypt": audit.CryptoDecrypt,
		"cipher/wrap": audit.CryptoWrap, "cipher/unwrap": audit.CryptoUnwrap, "ecdh": audit.CryptoECDH,
		"pqc/mlkem/encaps": audit.CryptoPQCMLKEMEncaps, "pqc/mlkem/decaps": audit.CryptoPQCMLKEMDecaps,
		"pqc/mldsa/sign": audit.CryptoPQCMLDSASign, "pqc/mldsa/verify": audit.CryptoPQCMLDSAVerify,
	}
	private := func(o operation) bool { // an operation that uses the private part of a pair
		return o.peer || o.path == "exdsa/sign" || o.path == "pqc/mlkem/decaps" || o.path == "pqc/mldsa/sign"
	}
	for _, compact := range []bool{false, true} {
		t.Run(fmt.Sprintf("compact %v", compact), func(t *testing.T) {
			k := newKeeper(t, &hemtest.Options{AuditCompact: compact})
			var want []string
			kids := make(map[api.KeyType]string)
			for _, r := range keyRows {
				kids[r.keys] = k.create(r.keys)
				want = append(want, line(audit.KeyGeneration, audit.OK, "U", kids[r.keys]))
			}
			public := k.imports("SECP256R1", freshPublic(t, "SECP256R1"))
			want = append(want, line(audit.KeyImport, audit.OK, "U", public))
			do := func(what string, path, kid string, f fields, result audit.Result, pkey bool) {
				t.Helper()
				status := map[audit.Result]int{audit.OK: 200, audit.Failed: 406}[result]
				k.want(path+": "+what, k.use(path, kid, f), status)
				want = append(want, line(types[path], result, "U", kid))
				if pkey && !compact {
					want = append(want, line(audit.KeyUsagePKey, audit.OK, "U", kid))
				}
			}
			for _, o := range operations() {
				if o.path == "" || o.path == derive {
					continue
				}
				for _, r := range keyRows {
					if !o.own(r) {
						continue
					}
					kid := kids[r.keys]
					f := o.body(k, r, kid)
					if o.bound { // which made what it undoes
						other := map[string]string{"hmac/verify": "hmac/hash", "exdsa/verify": "exdsa/sign", "cipher/decrypt": "cipher/encrypt",
							"cipher/unwrap": "cipher/wrap", "pqc/mlkem/decaps": "pqc/mlkem/encaps", "pqc/mldsa/verify": "pqc/mldsa/sign"}[o.path]
						want = append(want, line(types[other], audit.OK, "U", kid))
						if private(operation{path: other, peer: o.peer}) && !compact {
							want = append(want, line(audit.KeyUsagePKey, audit.OK, "U", kid))
						}
					}
					do("right", o.path, kid, f, audit.OK, private(o))
					missing := strings.Repeat("0", 32)
					do("unknown kid", o.path, missing, f, audit.Failed, false)
					if !o.own(rowOf("AES128")) {
						do("wrong type", o.path, kids["AES128"], f, audit.Failed, false)
					}
					if o.peer {
						do("unknown peer", o.path, kid, f.but(fields{"ext_kid": missing}), audit.Failed, false)
						do("peer of another curve", o.path, kid, f.but(fields{"ext_kid": kids[r.kin]}), audit.Failed, false)
						do("peer of another type", o.path, kid, f.but(fields{"ext_kid": kids["AES128"]}), audit.Failed, false)
						do("no point", o.path, kid, f.but(fields{"pubkey": []byte{9}}), audit.Failed, false)
						do("public key", o.path, public, f, audit.Failed, false)
					}
					for _, name := range []string{"mac", "sign"} {
						if value, ok := f[name].([]byte); ok && o.bound {
							wrong := bytes.Clone(value)
							wrong[len(wrong)-1] ^= 1
							do("wrong "+name, o.path, kid, f.but(fields{name: wrong}), audit.Failed, private(o))
						}
					}
					if o.path == "cipher/unwrap" {
						do("not wrapped", o.path, kid, f.but(fields{"msg": make([]byte, 24)}), audit.Failed, private(o))
					}
					if o.path == "pqc/mlkem/decaps" {
						do("ct of another length", o.path, kid, f.but(fields{"ct": []byte{1}}), audit.Failed, false)
					}
					// What is malformed is no operation yet.
					k.want("malformed", k.use(o.path, kid, fields{"msg": "*", "ct": "*", "ext_kid": "*"}), map[bool]int{true: 400, false: 200}[o.path != "pqc/mlkem/encaps"])
					if o.path == "pqc/mlkem/encaps" {
						want = append(want, line(audit.CryptoPQCMLKEMEncaps, audit.OK, "U", kid))
					}
				}
			}
			x := kids["CURVE25519"]
			// A point of low order is only known for one when the key was used.
			do("low order", "ecdh", x, fields{"pubkey": make([]byte, 32)}, audit.Failed, true)
			do("no alg", "hmac/hash", x, fields{"msg": matrixMsg, "ext_kid": x}, audit.Failed, false)
			k.compareLog(want)
			if len(want) < 1000 {
				t.Errorf("%d records", len(want))
			}
		})
	}
}
