package conformance

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strings"

	"softhem/api"
)

const (
	pageForm = "offset:int deleted:int total:int listed:int list:list"
	infoForm = "kid:hex=32 created:int type:str label:str descr?:b64 updated:int _addr?:int _len?:int"
	keyForm  = "type:str pubkey?:b64 der?:b64 updated:int descr?:b64"
	kidForm  = "kid:hex=32"
)

// A family is what a type of key can do.
type family struct {
	public int    // bytes on the wire; 0: none
	traits string // before the name in a list, with every mode
	modes  bool
	seed   int // bytes of the key; what derive compares the secret with
}

func familyOf(t api.KeyType) family {
	switch t {
	case api.SECP256R1, api.SECP256K1:
		return family{33, "ATT,PKEY,ECDH,ExDSA,", true, 32}
	case api.SECP384R1:
		return family{49, "ATT,PKEY,ECDH,ExDSA,", true, 48}
	case api.SECP521R1:
		return family{67, "ATT,PKEY,ECDH,ExDSA,", true, 66}
	case api.Curve25519:
		return family{32, "ATT,PKEY,ECDH,", false, 32}
	case api.Curve448:
		return family{56, "ATT,PKEY,ECDH,", false, 56}
	case api.Ed25519:
		return family{32, "ATT,PKEY,ExDSA,", false, 32}
	case api.Ed448:
		return family{57, "ATT,PKEY,ExDSA,", false, 57}
	case api.MLKEM512:
		return family{800, "ATT,PKEY,PQC,", false, 0}
	case api.MLKEM768:
		return family{1184, "ATT,PKEY,PQC,", false, 0}
	case api.MLKEM1024:
		return family{1568, "ATT,PKEY,PQC,", false, 0}
	case api.MLDSA44:
		return family{1312, "ATT,PKEY,PQC,", false, 0}
	case api.MLDSA65:
		return family{1952, "ATT,PKEY,PQC,", false, 0}
	case api.MLDSA87:
		return family{2592, "ATT,PKEY,PQC,", false, 0}
	case api.AES128:
		return family{0, "ATT,", false, 16}
	case api.AES192:
		return family{0, "ATT,", false, 24}
	case api.SHA2x384, api.SHA3x384:
		return family{0, "ATT,", false, 48}
	case api.SHA2x512, api.SHA3x512:
		return family{0, "ATT,", false, 64}
	}
	return family{0, "ATT,", false, 32}
}

// create makes a key, with all modes where there are modes.
func (s *step) create(t api.KeyType, label string) string {
	return s.createWith(claims{"label": label, "type": t, "mode": mode(t)})
}

func mode(t api.KeyType) any {
	if familyOf(t).modes {
		return api.ModeBoth
	}
	return string(t) // SDKs send the type's name there
}

func (s *step) createWith(fields claims) string {
	return s.object(s.want(s.post("/api/keymgmt/create", fields, s.as(api.ScopeKeyGen)), 200), kidForm).str("kid")
}

// getKey reads a key.
func (s *step) getKey(kid string) object {
	return s.object(s.want(s.get("/api/keymgmt/get/"+kid, s.as(api.ScopeKeyGet)), 200), keyForm)
}

func (s *step) deleteKey(kid string) *answer {
	return s.do(request{method: "DELETE", path: "/api/keymgmt/delete/" + kid, token: s.as(api.ScopeKeyDelete)})
}

// keysOf reads the whole list, and looks at its form.
func (s *step) keysOf() map[string]object {
	all := make(map[string]object)
	for offset := int64(0); ; {
		page := s.object(s.want(s.get(fmt.Sprintf("/api/keymgmt/list/%d", offset), s.as(api.ScopeKeyList)), 200), pageForm)
		list := page.objects("list")
		if page.int("offset") != offset || page.int("listed") != int64(len(list)) || len(list) > api.MaxPageKeys {
			s.failf("offset or listed does not fit the page, or it has more than %d keys", api.MaxPageKeys)
		}
		for _, k := range list {
			if why := k.fits(infoForm, s.softhem); why != "" {
				s.failf("in the list: %s", why)
			}
			all[k.str("kid")] = k
		}
		if offset += int64(len(list)); offset >= page.int("total") {
			return all
		}
		if len(list) == 0 {
			s.failf("an empty page, and %d keys of %d were listed", offset, page.int("total"))
		}
	}
}

// search looks for a description.
func (s *step) search(descr string, token *string) object {
	return s.object(s.want(s.post("/api/keymgmt/search", claims{"descr": descr}, token), 200), pageForm)
}

func keysGroup() group {
	g := group{name: "keys", title: "the life of keys: 23 types, lists, searches, limits", phase: personal,
		after: func(s *step) {
			for kid := range s.keysOf() {
				s.deleteKey(kid)
			}
		}}
	for _, t := range api.KeyTypes() {
		g.checks = append(g.checks, check{
			"life-" + strings.ToLower(string(t)), string(t) + ": created, listed, read, changed, deleted", "api.md#keys",
			func(s *step) { s.life(t) },
		})
	}
	g.checks = append(g.checks, keyChecks()...)
	return g
}

// life follows a key of a type from its making to its end.
func (s *step) life(t api.KeyType) {
	f := familyOf(t)
	descr := api.EncodeBase64([]byte("conform " + string(t)))
	before := s.object(s.want(s.get("/api/keymgmt/list", s.as(api.ScopeKeyList)), 200), pageForm)
	kid := s.createWith(claims{"label": "life", "type": t, "mode": mode(t), "descr": descr})
	k := s.getKey(kid)
	name := string(t)
	if f.public == 0 {
		name = "ATT," + name
	}
	if k.str("type") != name || len(k.bytes("pubkey")) != f.public || k.has("der") {
		s.failf("get says %s with a public key of %d bytes, want %s and %d", k.str("type"), len(k.bytes("pubkey")), name, f.public)
	}
	if f.public > 0 && s.softhem {
		if sum := sha1.Sum(k.bytes("pubkey")); hex.EncodeToString(sum[:16]) != kid {
			s.failf("the kid is not the beginning of SHA-1 of the public key")
		}
	}
	listed, ok := s.keysOf()[kid]
	if !ok {
		s.failf("the key is in no list")
	}
	if want := f.traits + string(t); listed.str("type") != want || listed.str("label") != "life" || listed.str("descr") != descr {
		s.failf("the list says %s, label %q; want %s", listed.str("type"), listed.str("label"), want)
	}
	update := claims{"kid": strings.ToUpper(kid), "label": "changed"}
	s.empty(s.post("/api/keymgmt/update", update, s.as(api.ScopeKeyUpdate)), 200)
	changed := s.keysOf()[kid]
	if changed.str("label") != "changed" || changed.has("descr") || changed.int("updated") <= listed.int("updated") || changed.int("created") != listed.int("created") {
		s.failf("an update has to change the label, clear a descr that is absent, and move updated alone")
	}
	s.empty(s.deleteKey(kid), 200)
	s.want(s.deleteKey(kid), 406)
	s.want(s.get("/api/keymgmt/get/"+kid, s.as(api.ScopeKeyGet)), 406)
	after := s.object(s.want(s.get("/api/keymgmt/list", s.as(api.ScopeKeyList)), 200), pageForm)
	if after.int("total") != before.int("total") || after.int("deleted") != before.int("deleted")+1 {
		s.failf("total and deleted do not count the key that went")
	}
}

func keyChecks() []check {
	create := func(s *step, fields claims, want int) *answer {
		return s.want(s.post("/api/keymgmt/create", fields, s.as(api.ScopeKeyGen)), want)
	}
	return []check{
		{"modes", "A curve's mode decides what the list says; absent means ECDH", "api.md#keys", func(s *step) {
			for m, want := range map[any]string{nil: "ATT,PKEY,ECDH,SECP256R1", api.ModeECDH: "ATT,PKEY,ECDH,SECP256R1",
				api.ModeExDSA: "ATT,PKEY,ExDSA,SECP256R1", api.ModeBoth: "ATT,PKEY,ECDH,ExDSA,SECP256R1"} {
				kid := s.createWith(claims{"label": "mode", "type": api.SECP256R1, "mode": m})
				if got := s.keysOf()[kid].str("type"); got != want {
					s.failf("mode %v is listed as %s, want %s", m, got, want)
				}
				s.deleteKey(kid)
			}
			create(s, claims{"label": "mode", "type": api.SECP256R1, "mode": "nonsense"}, 400)
			create(s, claims{"label": "mode", "type": api.SECP256R1, "mode": "ExDSA,ECDH"}, 400)
		}},
		{"limits", "Label and descr have limits: 400 beyond them", "api.md#keys", func(s *step) {
			for _, wrong := range []claims{
				{"label": nil}, {"label": ""}, {"label": strings.Repeat("x", 33)}, {"label": "tab\there"}, {"label": "grün"},
				{"type": nil}, {"type": "AES512"}, {"type": "aes256"}, {"descr": "no base64!"}, {"descr": api.EncodeBase64(make([]byte, 65))},
			} {
				fields := claims{"label": "limits", "type": api.AES128}
				for k, v := range wrong {
					fields[k] = v
				}
				if a := s.post("/api/keymgmt/create", fields, s.as(api.ScopeKeyGen)); a.status != 400 {
					s.failf("with %v: answered %d, want 400", wrong, a.status)
				}
			}
			kid := s.createWith(claims{"label": strings.Repeat("~", 32), "type": api.AES128, "descr": api.EncodeBase64(make([]byte, 64))})
			s.deleteKey(kid)
		}},
		{"pairing-mark", "A descr that begins with EXTAID is 406", "divergences.md#keys", func(s *step) {
			create(s, claims{"label": "x", "type": api.AES128, "descr": api.EncodeBase64([]byte("EXTAID and more"))}, 406)
		}},
		{"kid", "A kid that is none is 400, one that is unknown 406, upper case is taken", "api.md#keys", func(s *step) {
			s.want(s.get("/api/keymgmt/get/"+noKID, s.as(api.ScopeKeyGet)), 406)
			s.want(s.get("/api/keymgmt/get/"+noKID[1:], s.as(api.ScopeKeyGet)), 400)
			s.want(s.get("/api/keymgmt/get/"+strings.Repeat("g", 32), s.as(api.ScopeKeyGet)), 400)
			s.want(s.post("/api/keymgmt/update", claims{"kid": noKID, "label": "x"}, s.as(api.ScopeKeyUpdate)), 406)
			s.want(s.post("/api/keymgmt/update", claims{"kid": noKID}, s.as(api.ScopeKeyUpdate)), 400)
			kid := s.create(api.AES128, "case")
			s.want(s.get("/api/keymgmt/get/"+strings.ToUpper(kid), s.as(api.ScopeKeyGet)), 200)
			s.deleteKey(kid)
		}},
		{"get-descr", "Get shows the descr", "api.md#keys", func(s *step) {
			descr := api.EncodeBase64([]byte("shown"))
			kid := s.createWith(claims{"label": "descr", "type": api.AES128, "descr": descr})
			k := s.getKey(kid)
			s.deleteKey(kid)
			s.quirk(!k.has("descr"), "get leaves descr out")
			if k.str("descr") != descr {
				s.failf("descr is another")
			}
		}},
		{"pages", "A page has at most 15 keys, and what is no number is 406", "api.md#keys", func(s *step) {
			var kids []string
			for range 17 {
				kids = append(kids, s.create(api.AES128, "page"))
			}
			if all := s.keysOf(); len(all) < 17 {
				s.failf("%d keys are listed of 17", len(all))
			}
			page := func(path string, want int64) {
				p := s.object(s.want(s.get("/api/keymgmt/list"+path, s.as(api.ScopeKeyList)), 200), pageForm)
				if p.int("listed") != want {
					s.failf("list%s has %d keys, want %d", path, p.int("listed"), want)
				}
			}
			page("", 15)
			page("/0/100", 15)
			page("/1/3", 3)
			page("/999999", 0)
			for _, path := range []string{"/x", "/-1", "/0/x"} {
				s.want(s.get("/api/keymgmt/list"+path, s.as(api.ScopeKeyList)), 406)
			}
			for _, kid := range kids {
				s.deleteKey(kid)
			}
		}},
		{"search", "Searches compare bytes: begins, ends, holds, is; nothing found is 200", "api.md#keys", func(s *step) {
			descr := random(16) // nothing that is left over holds it
			kid := s.createWith(claims{"label": "search", "type": api.AES128, "descr": api.EncodeBase64(descr)})
			b := api.EncodeBase64
			for needle, want := range map[string]int64{
				"^" + b(descr[:7]): 1, b(descr[8:]) + "$": 1, b(descr[3:9]): 1, "^" + b(descr) + "$": 1,
				"^" + b(descr[1:]): 0, b(descr[:8]) + "$": 0, b(random(9)): 0, "^" + b(descr[:15]) + "$": 0,
			} {
				if got := s.search(needle, s.as(api.ScopeKeySearch)).int("total"); got != want {
					s.failf("%s finds %d, want %d", needle, got, want)
				}
			}
			for _, scope := range []string{api.ScopeKeyList, api.ScopeExtPair} {
				s.search("^"+b(descr[:7]), s.as(scope))
			}
			post := func(descr string) *answer {
				return s.post("/api/keymgmt/search", claims{"descr": descr}, s.as(api.ScopeKeySearch))
			}
			s.want(post("^"+b(make([]byte, 65))), 406)
			s.want(post("^no base64!"), 400)
			s.deleteKey(kid)
		}},
		{"search-open", "Without a token, six bytes from the start are found while the setting is on", "api.md#keys", func(s *step) {
			descr := random(11)
			kid := s.createWith(claims{"label": "search", "type": api.AES128, "descr": api.EncodeBase64(descr)})
			if s.search("^"+api.EncodeBase64(descr[:6]), nil).int("total") != 1 {
				s.failf("it is not found")
			}
			for _, needle := range []string{"^" + api.EncodeBase64(descr[:5]), api.EncodeBase64(descr), api.EncodeBase64(descr) + "$"} {
				s.want(s.post("/api/keymgmt/search", claims{"descr": needle}, nil), 401)
			}
			s.update(claims{"allow_keysearch": false})
			closed := s.post("/api/keymgmt/search", claims{"descr": "^" + api.EncodeBase64(descr)}, nil)
			s.update(claims{"allow_keysearch": true})
			s.want(closed, 401)
			s.deleteKey(kid)
		}},
		{"duplicate", "A public half next to its key is 406", "divergences.md#keys", func(s *step) {
			kid := s.create(api.Ed25519, "whole")
			pub := s.getKey(kid).str("pubkey")
			s.want(s.post("/api/keymgmt/import", claims{"label": "half", "type": api.Ed25519, "pubkey": pub}, s.as(api.ScopeKeyImport)), 406)
			s.deleteKey(kid)
		}},
		{"import", "Public keys of standard library curves are imported, once, and named by SHA-1", "api.md#keys", (*step).importKeys},
		{"import-refused", "What is no public key of its type is 406", "api.md#keys", func(s *step) {
			imp := func(t api.KeyType, raw []byte, want int) {
				s.want(s.post("/api/keymgmt/import", claims{"label": "x", "type": t, "pubkey": api.EncodeBase64(raw)}, s.as(api.ScopeKeyImport)), want)
			}
			for _, t := range api.KeyTypes() {
				switch n := familyOf(t).public; {
				case n == 0:
					imp(t, random(32), 406)
				default:
					imp(t, make([]byte, n-1), 406)
					imp(t, make([]byte, n+1), 406)
				}
			}
			imp(api.SECP256R1, append([]byte{5}, make([]byte, 32)...), 406)
			off := make([]byte, 33)
			off[0], off[32] = 2, 1 // x = 1 is on no point of P-256
			for x := byte(1); onP256(off); x++ {
				off[32] = x
			}
			imp(api.SECP256R1, off, 406)
			s.want(s.post("/api/keymgmt/import", claims{"label": "x", "type": api.Ed25519}, s.as(api.ScopeKeyImport)), 400)
		}},
	}
}
