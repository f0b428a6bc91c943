package httpapi_test

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"strings"
	"testing"

	"softhem/api"
	"softhem/hemtest"
)

// How each type is listed and got, what its public key looks like, and that the
// kid of a pair is made of it.
func TestEveryTypeAsItIsShown(t *testing.T) {
	k, far := newKeeper(t, nil), newKeeper(t, &hemtest.Options{Seed: "far"})
	publicBytes := map[api.KeyType]int{
		"SECP256R1": 33, "SECP384R1": 49, "SECP521R1": 67, "SECP256K1": 33, "CURVE25519": 32, "CURVE448": 56, "ED25519": 32, "ED448": 57,
		"MLKEM512": 800, "MLKEM768": 1184, "MLKEM1024": 1568, "MLDSA44": 1312, "MLDSA65": 1952, "MLDSA87": 2592,
	}
	listed := func(kid string) api.KeyInfo {
		t.Helper()
		for offset := int64(0); ; offset += 15 {
			page := k.page("/" + decimal(offset))
			for _, info := range page.List {
				if info.KID == kid {
					return info
				}
			}
			if offset >= page.Total {
				t.Fatalf("%s is not listed", kid)
			}
		}
	}
	for _, r := range keyRows {
		use := ""
		switch {
		case r.ecdh && r.algs != nil:
			use = "ECDH,ExDSA,"
		case r.ecdh:
			use = "ECDH,"
		case r.algs != nil:
			use = "ExDSA,"
		case r.kem || r.mldsa:
			use = "PQC,"
		}
		kid := k.create(r.keys)
		key, info := k.key(kid), listed(kid)
		if !r.pair() {
			if want := "ATT," + string(r.keys); info.Type != want || key.Type != want || key.PubKey != "" {
				t.Errorf("%s lists as %q and is got as %+v", r.keys, info.Type, key)
			}
			continue
		}
		public := k.public(kid)
		if want := "ATT,PKEY," + use + string(r.keys); info.Type != want || key.Type != string(r.keys) || len(public) != publicBytes[r.keys] {
			t.Errorf("%s lists as %q, want %q, and is got as %+v", r.keys, info.Type, want, key)
		}
		theirs := far.public(far.create(r.keys))
		imported := k.imports(r.keys, theirs)
		if got, want := listed(imported).Type, use+string(r.keys); got != want {
			t.Errorf("imported, %s lists as %q, want %q", r.keys, got, want)
		}
		if !bytes.Equal(k.public(imported), theirs) || k.key(imported).Type != string(r.keys) {
			t.Errorf("imported, %s is got as %+v", r.keys, k.key(imported))
		}
		for kid, public := range map[string][]byte{kid: public, imported: theirs} {
			if sum := sha1.Sum(public); kid != hex.EncodeToString(sum[:16]) {
				t.Errorf("%s: kid %s is not made of the public key", r.keys, kid)
			}
		}
	}
}

// What create, import and derive have in common.
func TestFieldsOfNewKeys(t *testing.T) {
	k := newKeeper(t, nil)
	source := k.create("SECP521R1")
	ways := map[string]func(fields) answer{
		"create": func(f fields) answer { return k.post("/api/keymgmt/create", api.ScopeKeyGen, f) },
		"import": func(f fields) answer {
			return k.post("/api/keymgmt/import", api.ScopeKeyImport, fields{"pubkey": freshPublic(t, "SECP256R1")}.but(f))
		},
		"derive": func(f fields) answer {
			return k.post(derive, api.ScopeKeyDerive, fields{"kid": source, "pubkey": freshPublic(t, "SECP521R1")}.but(f))
		},
	}
	good := fields{"label": "a key", "type": "SECP256R1"}
	for name, do := range ways {
		for _, c := range []struct {
			what string
			f    fields
			want int
		}{
			{"as it should be", fields{}, 200},
			{"unknown fields", fields{"colour": "blue", "Label": 7, "kids": []int{1}}, 200},
			{"nulls", fields{"mode": nil, "descr": nil}, 200},
			{"a label of 1", fields{"label": "!"}, 200},
			{"a label of 32", fields{"label": " ~" + strings.Repeat("x", 30)}, 200},
			{"a label of 33", fields{"label": strings.Repeat("x", 33)}, 400},
			{"an empty label", fields{"label": ""}, 400},
			{"a null label", fields{"label": nil}, 400},
			{"a label that is a number", fields{"label": 1}, 400},
			{"a tab in the label", fields{"label": "a\tb"}, 400},
			{"DEL in the label", fields{"label": "a\x7f"}, 400},
			{"NUL in the label", fields{"label": "a\x00"}, 400},
			{"a label beyond ASCII", fields{"label": "clé"}, 400},
			{"a descr of 64", fields{"descr": make([]byte, 64)}, 200},
			{"a descr of 65", fields{"descr": make([]byte, 65)}, 400},
			{"an empty descr", fields{"descr": ""}, 200},
			{"a descr in URL-safe base64", fields{"descr": "_-_-"}, 200},
			{"a descr without padding", fields{"descr": "AA"}, 200},
			{"a descr with a line break", fields{"descr": "AAAA\nAAAA"}, 400},
			{"a descr that is no base64", fields{"descr": "A"}, 400},
			{"a descr that is a list", fields{"descr": []int{1}}, 400},
			{"a descr of pairings", fields{"descr": []byte("EXTAID")}, 406},
			{"a longer descr of pairings", fields{"descr": []byte("EXTAID\x00 and so on")}, 406},
			{"a descr nearly of pairings", fields{"descr": []byte("EXTAI")}, 200},
			{"pairings in lower case", fields{"descr": []byte("extaid")}, 200},
			{"pairings within", fields{"descr": []byte(" EXTAID")}, 200},
			{"mode ECDH", fields{"mode": "ECDH"}, 200},
			{"mode ExDSA", fields{"mode": "ExDSA"}, 200},
			{"both modes", fields{"mode": "ECDH,ExDSA"}, 200},
			{"the modes in another order", fields{"mode": "ExDSA,ECDH"}, 400},
			{"a mode in another case", fields{"mode": "ecdh"}, 400},
			{"another mode", fields{"mode": "SECP256R1"}, 400},
			{"a mode that is true", fields{"mode": true}, 400},
			{"no type", fields{"type": nil}, 400},
			{"a type that is a number", fields{"type": 256}, 400},
		} {
			k.want(name+": "+c.what, do(good.but(c.f)), c.want)
		}
		unknown := 400
		if name == "import" {
			unknown = 406
		}
		for _, keys := range []string{"SECP256R2", "secp256r1", "AES", "RSA2048", "SECP256R1 ", "ATT,SECP256R1"} {
			k.want(name+": type "+keys, do(good.but(fields{"type": keys})), unknown)
		}
	}
	// Elsewhere any mode is taken: clients send the type there.
	for _, r := range keyRows[4:] {
		k.want("mode of "+string(r.keys), ways["create"](good.but(fields{"type": r.keys, "mode": r.keys})), 200)
	}
}

func TestImport(t *testing.T) {
	k := newKeeper(t, nil)
	imports := func(f fields) answer {
		return k.post("/api/keymgmt/import", api.ScopeKeyImport, fields{"label": "imported"}.but(f))
	}
	for _, r := range keyRows {
		if !r.pair() {
			k.want("import "+string(r.keys), imports(fields{"type": r.keys, "pubkey": make([]byte, 32)}), 406)
			continue
		}
		public := freshPublic(t, r.keys)
		for what, wrong := range map[string][]byte{
			"cut": public[:len(public)-1], "longer": append(bytes.Clone(public), 0), "of a byte": {4},
		} {
			k.want(string(r.keys)+" "+what, imports(fields{"type": r.keys, "pubkey": wrong}), 406)
		}
		k.want(string(r.keys), imports(fields{"type": r.keys, "pubkey": public}), 200)
		k.want(string(r.keys)+" again", imports(fields{"type": r.keys, "pubkey": public, "label": "other"}), 406)
		k.want(string(r.keys)+", own", imports(fields{"type": r.keys, "pubkey": k.public(k.create(r.keys))}), 406)
		k.want(string(r.keys)+" without pubkey", imports(fields{"type": r.keys}), 400)
		k.want(string(r.keys)+" with an empty one", imports(fields{"type": r.keys, "pubkey": ""}), 400)
		k.want(string(r.keys)+" in no base64", imports(fields{"type": r.keys, "pubkey": "*"}), 400)
	}
	// Of the right length, and no point: x = 5 is on none of the NIST curves'
	// complements, so both signs are tried with an x that has no y.
	noPoint := func(size int, head byte, last byte) []byte {
		p := make([]byte, size)
		p[0], p[size-1] = head, last
		return p
	}
	for keys, size := range map[api.KeyType]int{"SECP256R1": 33, "SECP384R1": 49, "SECP521R1": 67, "SECP256K1": 33} {
		refused := 0
		for x := byte(1); x < 40; x++ {
			if imports(fields{"type": keys, "pubkey": noPoint(size, 2, x)}).status == 406 {
				refused++
			}
		}
		if refused < 8 || refused > 31 { // half of all x have no y
			t.Errorf("%s: of 39 values of x %d are refused", keys, refused)
		}
		for _, head := range []byte{0, 1, 4, 5} {
			k.want("another head", imports(fields{"type": keys, "pubkey": noPoint(size, head, 1)}), 406)
		}
		over := bytes.Repeat([]byte{0xff}, size) // x beyond the field
		over[0] = 2
		k.want("x too large", imports(fields{"type": keys, "pubkey": over}), 406)
	}
	k.want("ED25519, y beyond the curve", imports(fields{"type": "ED25519", "pubkey": append([]byte{2}, make([]byte, 31)...)}), 406)
	k.want("MLKEM768, coefficients beyond q", imports(fields{"type": "MLKEM768", "pubkey": bytes.Repeat([]byte{0xff}, 1184)}), 406)
	k.want("a symmetric key", imports(fields{"type": "AES256", "pubkey": make([]byte, 32)}), 406)
}

func TestUpdateAndDelete(t *testing.T) {
	k := newKeeper(t, nil)
	kid := k.create("AES128")
	update := func(f fields) answer {
		return k.post("/api/keymgmt/update", api.ScopeKeyUpdate, fields{"kid": kid, "label": "renamed"}.but(f))
	}
	one := func() api.KeyInfo { return k.page("").List[0] }
	for _, c := range []struct {
		what string
		f    fields
		want int
	}{
		{"no label", fields{"label": nil}, 400},
		{"an empty label", fields{"label": ""}, 400},
		{"a label of 33", fields{"label": strings.Repeat("x", 33)}, 400},
		{"a descr of 65", fields{"descr": make([]byte, 65)}, 400},
		{"a descr that is no base64", fields{"descr": "?"}, 400},
		{"no kid", fields{"kid": nil}, 400},
		{"a short kid", fields{"kid": kid[1:]}, 400},
		{"a kid with a space", fields{"kid": " " + kid[1:]}, 400},
		{"an unknown kid", fields{"kid": strings.Repeat("0", 32)}, 406},
		{"a descr of pairings", fields{"descr": []byte("EXTAID ")}, 406},
	} {
		before := one()
		k.want(c.what, update(c.f), c.want)
		if after := one(); after != before {
			t.Errorf("%s: changed %+v to %+v", c.what, before, after)
		}
	}
	for _, c := range []struct {
		f            fields
		label, descr string
	}{
		{fields{"descr": []byte("described")}, "renamed", api.EncodeBase64([]byte("described"))},
		{fields{}, "renamed", ""}, // an absent descr clears it
		{fields{"label": "again", "descr": make([]byte, 64)}, "again", api.EncodeBase64(make([]byte, 64))},
		{fields{"kid": strings.ToUpper(kid), "descr": nil}, "renamed", ""},
		{fields{"descr": ""}, "renamed", ""},
	} {
		before := one()
		a := update(c.f)
		k.want("update", a, 200)
		if len(a.body) != 0 {
			t.Errorf("update answers %q", a.body)
		}
		want := before
		want.Label, want.Descr = c.label, c.descr
		after := one()
		if want.Updated = after.Updated; after != want || after.Updated <= before.Updated {
			t.Errorf("%+v became %+v", before, after)
		}
		if key := k.key(kid); key.Descr != c.descr || key.Updated != after.Updated {
			t.Errorf("listed as %+v, got as %+v", after, key)
		}
	}
	for _, bad := range []string{"0", kid[:31], kid + "0", "g" + kid[1:], "%20" + kid[1:]} {
		k.want("delete "+bad, k.delete(bad), 400)
	}
	k.want("delete an unknown key", k.delete(strings.Repeat("0", 32)), 406)
	k.want("delete", k.delete(strings.ToUpper(kid)), 200)
	k.want("delete again", k.delete(kid), 406)
	k.want("update what was deleted", update(fields{}), 406)
	if page := k.page(""); page.Total != 0 || page.Deleted != 1 || len(page.List) != 0 {
		t.Errorf("list after the only key was deleted: %+v", page)
	}
}

// The number of keys is bounded, however they come.
func TestFullRepository(t *testing.T) {
	k := newKeeper(t, &hemtest.Options{MaxKeys: 3})
	source := k.create("CURVE25519")
	kid := k.create("AES256")
	k.create("SHA2-256")
	ways := map[string]func() answer{
		"create": func() answer {
			return k.post("/api/keymgmt/create", api.ScopeKeyGen, fields{"label": "x", "type": "AES256"})
		},
		"import": func() answer {
			return k.post("/api/keymgmt/import", api.ScopeKeyImport, fields{"label": "x", "type": "ED25519", "pubkey": freshPublic(t, "ED25519")})
		},
		"derive": func() answer {
			return k.post(derive, api.ScopeKeyDerive, fields{"kid": source, "label": "x", "type": "ED25519", "pubkey": freshPublic(t, "CURVE25519")})
		},
	}
	for name, do := range ways {
		k.want(name+" in a full repository", do(), 406)
		k.want("delete", k.delete(kid), 200)
		kid = k.kid(do())
	}
	if page := k.page(""); page.Total != 3 {
		t.Errorf("%d keys, want 3", page.Total)
	}
}
