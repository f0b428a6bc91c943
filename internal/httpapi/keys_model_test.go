package httpapi_test

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"softhem/api"
)

// A modelled key is what a list has to say of a key, and how it could come a
// second time.
type modelled struct {
	api.KeyInfo
	origin string // of imported and derived keys, which there can be one of
}

// A keyModel is a key repository in a few lines: keys in order of creation.
type keyModel struct {
	keys    []modelled
	deleted int64
	seen    map[string]bool // every kid there ever was
}

func (m *keyModel) find(kid string) *modelled {
	for i := range m.keys {
		if m.keys[i].KID == kid {
			return &m.keys[i]
		}
	}
	return nil
}

func (m *keyModel) has(origin string) bool {
	return slices.ContainsFunc(m.keys, func(k modelled) bool { return k.origin == origin })
}

func (m *keyModel) page(keep func(descr string) bool, offset, limit int64) api.KeyList {
	list := api.KeyList{Offset: offset, Deleted: m.deleted, List: []api.KeyInfo{}}
	for _, k := range m.keys {
		descr, err := api.DecodeBase64(k.Descr)
		if err != nil {
			panic(err)
		}
		if !keep(string(descr)) {
			continue
		}
		if list.Total >= offset && int64(len(list.List)) < limit {
			list.List = append(list.List, k.KeyInfo)
		}
		list.Total++
	}
	list.Listed = len(list.List)
	return list
}

// Sequences of creating, importing, deriving, changing, deleting, listing and
// searching agree with the model, whatever their order.
func TestRepositoryAgreesWithAModel(t *testing.T) {
	k := newKeeper(t, nil)
	source := k.create("CURVE25519")
	m := &keyModel{seen: make(map[string]bool)}
	m.keys = append(m.keys, modelled{KeyInfo: k.page("").List[0]})
	publics := make(map[string][]byte)
	for i := range 3 {
		publics[fmt.Sprint(i)] = freshPublic(t, "CURVE25519")
	}
	everything := func() (all api.KeyList) {
		all = k.page("")
		for int64(len(all.List)) < all.Total {
			all.List = append(all.List, k.page("/"+decimal(int64(len(all.List)))).List...)
		}
		all.Listed = len(all.List)
		return all
	}
	labels := rapid.StringMatching(`[ -~]{1,32}`)
	bits := rapid.SampledFrom([]string{"a", "b", "ab", "aba", "\x00", "\xff", "abcdefgh"})
	descrs := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(bits, 0, 4).Draw(t, "descr"), "")
	})
	peers := rapid.SampledFrom(slices.Sorted(maps.Keys(publics)))
	statuses := make(map[string]int)

	rapid.Check(t, func(t *rapid.T) {
		for _, key := range slices.Clone(m.keys[1:]) { // a repository to start with
			k.want("delete", k.delete(key.KID), 200)
			m.deleted++
		}
		m.keys = m.keys[:1]
		check := func(what string, a answer, want int) bool {
			t.Helper()
			statuses[fmt.Sprint(what, " ", want)]++
			if a.status != want {
				t.Fatalf("%s: %d (%s), want %d", what, a.status, a.header.Get(api.HeaderError), want)
			}
			return want == 200
		}
		// added takes a key into the model that has just come to the end.
		added := func(a answer, typ, label, descr, origin string) string {
			t.Helper()
			kid, all := k.kid(a), everything()
			last := all.List[len(all.List)-1]
			now := time.Now().Unix()
			if last.KID != kid || last.Type != typ || last.Label != label || last.Descr != api.EncodeBase64([]byte(descr)) ||
				last.Updated != last.Created || last.Created < now-60 || last.Created > now {
				t.Fatalf("added as %+v, want kid %s, type %s, label %q, descr %q", last, kid, typ, label, descr)
			}
			if m.seen[kid] && origin == "" {
				t.Fatalf("kid %s came a second time", kid)
			}
			m.seen[kid] = true
			m.keys = append(m.keys, modelled{last, origin})
			return kid
		}
		anyKID := func() string {
			kids := []string{strings.Repeat("0", 32)}
			for _, key := range m.keys[1:] {
				kids = append(kids, key.KID)
			}
			return rapid.SampledFrom(kids).Draw(t, "kid")
		}
		t.Repeat(map[string]func(*rapid.T){
			"create": func(t *rapid.T) {
				keys := rapid.SampledFrom([]string{"AES128", "SHA3-512", "SECP256R1", "ED25519"}).Draw(t, "type")
				label, descr := labels.Draw(t, "label"), descrs.Draw(t, "descr")
				a := k.post("/api/keymgmt/create", api.ScopeKeyGen, fields{"label": label, "type": keys, "descr": []byte(descr)})
				listed := map[string]string{"SECP256R1": "ATT,PKEY,ECDH,SECP256R1", "ED25519": "ATT,PKEY,ExDSA,ED25519"}[keys]
				if listed == "" {
					listed = "ATT," + keys
				}
				check("create", a, 200)
				added(a, listed, label, descr, "")
			},
			"import": func(t *rapid.T) {
				label, descr, peer := labels.Draw(t, "label"), descrs.Draw(t, "descr"), peers.Draw(t, "public")
				a := k.post("/api/keymgmt/import", api.ScopeKeyImport, fields{"label": label, "type": "CURVE25519", "descr": []byte(descr), "pubkey": publics[peer]})
				if check("import", a, map[bool]int{true: 406, false: 200}[m.has(peer)]) {
					kid, sum := added(a, "ECDH,CURVE25519", label, descr, peer), sha1.Sum(publics[peer])
					if kid != hex.EncodeToString(sum[:16]) {
						t.Fatalf("an imported key has kid %s", kid)
					}
				}
			},
			"derive": func(t *rapid.T) {
				label, descr, peer := labels.Draw(t, "label"), descrs.Draw(t, "descr"), peers.Draw(t, "peer")
				keys := rapid.SampledFrom([]string{"AES256", "SHA2-256", "ED25519"}).Draw(t, "type")
				a := k.post(derive, api.ScopeKeyDerive, fields{"kid": source, "label": label, "type": keys, "descr": []byte(descr), "pubkey": publics[peer]})
				if origin := peer + " " + keys; check("derive", a, map[bool]int{true: 406, false: 200}[m.has(origin)]) {
					listed := "ATT," + keys
					if keys == "ED25519" {
						listed = "ATT,PKEY,ExDSA,ED25519"
					}
					added(a, listed, label, descr, origin)
				}
			},
			"update": func(t *rapid.T) {
				kid, label, descr := anyKID(), labels.Draw(t, "label"), descrs.Draw(t, "descr")
				a := k.post("/api/keymgmt/update", api.ScopeKeyUpdate, fields{"kid": kid, "label": label, "descr": []byte(descr)})
				key := m.find(kid)
				if check("update", a, map[bool]int{true: 406, false: 200}[key == nil]) {
					before := key.Updated
					key.Label, key.Descr, key.Updated = label, api.EncodeBase64([]byte(descr)), k.key(kid).Updated
					if key.Updated <= before {
						t.Fatalf("updated %d became %d", before, key.Updated)
					}
				}
			},
			"delete": func(t *rapid.T) {
				kid := anyKID()
				if check("delete", k.delete(kid), map[bool]int{true: 406, false: 200}[m.find(kid) == nil]) {
					m.keys = slices.DeleteFunc(m.keys, func(key modelled) bool { return key.KID == kid })
					m.deleted++
				}
			},
			"get": func(t *rapid.T) {
				kid := anyKID()
				key := m.find(kid)
				a := k.do(request{method: "GET", path: "/api/keymgmt/get/" + kid, token: k.as(api.RoleUser, api.ScopeKeyGet)})
				if check("get", a, map[bool]int{true: 406, false: 200}[key == nil]) {
					if got := k.key(kid); got.Descr != key.Descr || got.Updated != key.Updated || !strings.HasSuffix(key.Type, got.Type) {
						t.Fatalf("got %+v, want %+v", got, key)
					}
				}
			},
			"list": func(t *rapid.T) {
				offset, count := rapid.Int64Range(0, 20).Draw(t, "offset"), rapid.Int64Range(1, 20).Draw(t, "count")
				got := k.page(fmt.Sprintf("/%d/%d", offset, count))
				want := m.page(func(string) bool { return true }, offset, min(count, 15))
				if !sameList(got, want) {
					t.Fatalf("list is\n%+v, want\n%+v", got, want)
				}
			},
			"search": func(t *rapid.T) {
				needle := rapid.Custom(func(t *rapid.T) string { return strings.Join(rapid.SliceOfN(bits, 1, 2).Draw(t, "needle"), "") }).Draw(t, "needle")
				start, end := rapid.Bool().Draw(t, "^"), rapid.Bool().Draw(t, "$")
				offset, limit := rapid.Int64Range(0, 6).Draw(t, "offset"), rapid.Int64Range(1, 20).Draw(t, "limit")
				text := api.EncodeBase64([]byte(needle))
				keep := func(d string) bool { return strings.Contains(d, needle) }
				switch {
				case start && end:
					text, keep = "^"+text+"$", func(d string) bool { return d == needle }
				case start:
					text, keep = "^"+text, func(d string) bool { return strings.HasPrefix(d, needle) }
				case end:
					text, keep = text+"$", func(d string) bool { return strings.HasSuffix(d, needle) }
				}
				got := k.list(k.search(api.ScopeKeySearch, fields{"descr": text, "offset": offset, "limit": limit}))
				if want := m.page(keep, offset, min(limit, 15)); !sameList(got, want) {
					t.Fatalf("search for %s is\n%+v, want\n%+v", text, got, want)
				}
			},
			"": func(t *rapid.T) {
				want := m.page(func(string) bool { return true }, 0, 1<<30)
				if got := everything(); !sameList(got, want) {
					t.Fatalf("the keys are\n%+v, want\n%+v", got, want)
				}
			},
		})
	})
	for _, outcome := range []string{"create 200", "import 200", "import 406", "derive 200", "derive 406", "update 200", "update 406", "delete 200", "delete 406", "get 200", "get 406"} {
		if statuses[outcome] == 0 {
			t.Errorf("it never came to %s: %v", outcome, statuses)
		}
	}
}

func sameList(a, b api.KeyList) bool {
	return a.Offset == b.Offset && a.Deleted == b.Deleted && a.Total == b.Total && a.Listed == b.Listed && slices.Equal(a.List, b.List)
}

// No two keys are given one kid, and a key made is at once one that works.
func TestKIDsAreUnique(t *testing.T) {
	k := newKeeper(t, nil)
	gen, types := k.as(api.RoleUser, api.ScopeKeyGen), []string{"AES128", "SHA2-256", "ED25519", "CURVE25519", "SECP256R1"}
	var wg sync.WaitGroup
	var mu sync.Mutex
	kids, publics := make(map[string]int), make(map[string]int)
	const makers, each = 32, 40
	for n := range makers {
		wg.Go(func() {
			for range each {
				a := k.do(request{method: "POST", path: "/api/keymgmt/create", token: gen, body: fields{"label": "x", "type": types[n%len(types)]}.json(t)})
				if a.status != 200 {
					t.Errorf("create: %d", a.status)
					return
				}
				kid, _, _ := bytes.Cut(bytes.TrimPrefix(a.body, []byte(`{"kid":"`)), []byte(`"`))
				got := k.do(request{method: "GET", path: "/api/keymgmt/get/" + string(kid), token: gen})
				if got.status != 200 {
					t.Errorf("get of a key just made: %d", got.status)
				}
				_, public, _ := bytes.Cut(got.body, []byte(`"pubkey":"`))
				public, _, _ = bytes.Cut(public, []byte(`"`))
				mu.Lock()
				kids[string(kid)]++
				publics[string(public)]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	delete(publics, "") // of symmetric keys
	if len(kids) != makers*each {
		t.Errorf("%d kids for %d keys", len(kids), makers*each)
	}
	for public, n := range publics {
		if n != 1 {
			t.Errorf("%d keys have the public key %s", n, public)
		}
	}
	if page := k.page(""); page.Total != makers*each {
		t.Errorf("%d keys are listed, want %d", page.Total, makers*each)
	}
}
