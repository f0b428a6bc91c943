package httpapi_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"softhem/api"
	"softhem/hemtest"
)

// described makes a key for each descr and returns their kids.
func (k *keeper) described(descrs ...string) (kids []string) {
	k.t.Helper()
	for _, d := range descrs {
		kids = append(kids, k.kid(k.post("/api/keymgmt/create", api.ScopeKeyGen, fields{"label": "x", "type": "AES128", "descr": []byte(d)})))
	}
	return kids
}

// search looks without a token if scope is empty.
func (k *keeper) search(scope string, f fields) answer {
	k.t.Helper()
	r := request{method: "POST", path: "/api/keymgmt/search", body: f.json(k.t)}
	if scope != "" {
		r.token = k.as(api.RoleUser, scope)
	}
	return k.do(r)
}

func kidsOf(list api.KeyList) (kids []string) {
	for _, info := range list.List {
		kids = append(kids, info.KID)
	}
	return kids
}

func TestSearchAnchors(t *testing.T) {
	k := newKeeper(t, nil)
	descrs := []string{"abcdefgh", "", "xabcdefgh", "abcdefghx", "abc", "\x00abc\xff", "hgfedcba", "abcabc", strings.Repeat("a", 64), "ABCDEFGH", "^YWJj$"}
	kids := k.described(descrs...)
	for _, needle := range []string{"abc", "abcdefgh", "a", "gh", "x", "\xff", "\x00", "abcdefghx", "nothing like it", strings.Repeat("a", 64), strings.Repeat("a", 63), "^YWJj$"} {
		for form, matches := range map[string]func(d, n string) bool{
			"^b": strings.HasPrefix, "b$": strings.HasSuffix, "^b$": func(d, n string) bool { return d == n }, "b": strings.Contains,
		} {
			var want []string
			for i, d := range descrs {
				if d != "" && matches(d, needle) {
					want = append(want, kids[i])
				}
			}
			list := k.list(k.search(api.ScopeKeySearch, fields{"descr": strings.Replace(form, "b", api.EncodeBase64([]byte(needle)), 1)}))
			if got := kidsOf(list); !slices.Equal(got, want) || list.Total != int64(len(want)) || list.Offset != 0 {
				t.Errorf("%s with %q: %+v, want %v", form, needle, list, want)
			}
		}
	}
}

func TestSearchFields(t *testing.T) {
	k := newKeeper(t, nil)
	k.described(slices.Repeat([]string{"twenty of a kind"}, 20)...)
	needle := "^" + api.EncodeBase64([]byte("twenty"))
	for _, c := range []struct {
		what           string
		f              fields
		offset, listed int
	}{
		{"all", fields{}, 0, 15},
		{"nulls", fields{"offset": nil, "limit": nil}, 0, 15},
		{"more than a page", fields{"limit": 1000}, 0, 15},
		{"a limit", fields{"limit": 7}, 0, 7},
		{"the end", fields{"offset": 15}, 15, 5},
		{"beyond", fields{"offset": 20}, 20, 0},
		{"far beyond", fields{"offset": int64(1) << 62, "limit": int64(1) << 62}, 1 << 62, 0},
		{"unknown fields", fields{"count": 3, "Limit": 4}, 0, 15},
	} {
		list := k.list(k.search(api.ScopeKeySearch, fields{"descr": needle}.but(c.f)))
		if list.Total != 20 || list.Offset != int64(c.offset) || list.Listed != c.listed {
			t.Errorf("%s: %d from %d of %d", c.what, list.Listed, list.Offset, list.Total)
		}
	}
	for _, c := range []struct {
		what string
		f    fields
		want int
	}{
		{"64 bytes", fields{"descr": make([]byte, 64)}, 200},
		{"65 bytes", fields{"descr": make([]byte, 65)}, 406},
		{"65 bytes, anchored", fields{"descr": "^" + api.EncodeBase64(make([]byte, 65)) + "$"}, 406},
		{"no descr", fields{}, 400},
		{"a null", fields{"descr": nil}, 400},
		{"nothing", fields{"descr": ""}, 400},
		{"nothing, anchored", fields{"descr": "^$"}, 400},
		{"no base64", fields{"descr": "twenty!"}, 400},
		{"an anchor within", fields{"descr": "AA^AA"}, 400},
		{"two anchors on one side", fields{"descr": "^^AAAA"}, 400},
		{"a line break", fields{"descr": "AAAA\n"}, 400},
		{"a number", fields{"descr": 5}, 400},
		{"URL-safe, unpadded", fields{"descr": "_-8"}, 200},
		{"an offset in words", fields{"descr": needle, "offset": "1"}, 400},
		{"a negative offset", fields{"descr": needle, "offset": -1}, 400},
		{"a negative limit", fields{"descr": needle, "limit": -1}, 400},
		{"an offset and a half", fields{"descr": needle, "offset": 1.5}, 400},
		{"a huge offset", fields{"descr": needle, "offset": 1e30}, 400},
	} {
		k.want(c.what, k.search(api.ScopeKeySearch, c.f), c.want)
	}
	for _, scope := range []string{api.ScopeKeySearch, api.ScopeKeyList, api.ScopeExtPair, api.ScopeKeyList + ":more"} {
		k.want(scope, k.search(scope, fields{"descr": needle}), 200)
	}
	for _, scope := range []string{api.ScopeKeyGet, api.ScopeKeyGen, api.ScopeSystemConfig, "keymgmt:lis", "keymgmt:use:" + strings.Repeat("0", 32)} {
		k.want(scope, k.search(scope, fields{"descr": needle}), 403)
	}
}

// Without a token, only the beginning of a descr may be asked for, with enough
// of it; anything else is a missing token, whatever is wrong with it besides.
func TestOpenSearch(t *testing.T) {
	open, closed := newKeeper(t, nil), newKeeper(t, &hemtest.Options{NoKeySearch: true})
	kids := map[*keeper][]string{}
	for _, k := range []*keeper{open, closed} {
		kids[k] = k.described("abcdef", "abcdefg")
	}
	six, five := api.EncodeBase64([]byte("abcdef")), api.EncodeBase64([]byte("abcde"))
	for _, c := range []struct {
		what  string
		descr any
		want  int
	}{
		{"six bytes", "^" + six, 200},
		{"six bytes and both anchors", "^" + six + "$", 200},
		{"64 bytes", "^" + api.EncodeBase64(bytes.Repeat([]byte("a"), 64)), 200},
		{"65 bytes", "^" + api.EncodeBase64(make([]byte, 65)), 406},
		{"five bytes", "^" + five, 401},
		{"five bytes and both anchors", "^" + five + "$", 401},
		{"six bytes, not anchored", six, 401},
		{"six bytes at the end", six + "$", 401},
		{"65 bytes, not anchored", api.EncodeBase64(make([]byte, 65)), 401},
		{"no base64", "^abcdef!", 401},
		{"nothing", "", 401},
		{"a null", nil, 401},
		{"a number", 123456, 401},
	} {
		open.want(c.what, open.search("", fields{"descr": c.descr}), c.want)
		closed.want(c.what+", closed", closed.search("", fields{"descr": c.descr}), 401)
	}
	for _, body := range []string{"", "{", "[]", "null", `{"descr":1}`} {
		for _, k := range []*keeper{open, closed} {
			k.want("without a token: "+body, k.do(request{method: "POST", path: "/api/keymgmt/search", body: body}), 401)
			k.want("with one: "+body, k.raw("/api/keymgmt/search", api.ScopeKeySearch, body), 400)
		}
	}
	list := open.list(open.search("", fields{"descr": "^" + six}))
	if !slices.Equal(kidsOf(list), kids[open]) || list.Total != 2 {
		t.Errorf("an open search finds %+v, want %v", list, kids[open])
	}
	list = closed.list(closed.search(api.ScopeKeySearch, fields{"descr": five}))
	if !slices.Equal(kidsOf(list), kids[closed]) {
		t.Errorf("with a token it finds %+v, want %v", list, kids[closed])
	}
	// A token that is there is judged, also where none is needed.
	open.want("a token of another scope", open.search(api.ScopeKeyGen, fields{"descr": "^" + six}), 403)
	open.want("role M", open.do(request{method: "POST", path: "/api/keymgmt/search", body: fields{"descr": "^" + six}.json(t),
		token: open.as(api.RoleMaster, api.ScopeKeySearch)}), 403)
}

func TestListPaths(t *testing.T) {
	k := newKeeper(t, nil)
	kids := k.described(slices.Repeat([]string{""}, 17)...)
	for path, want := range map[string][2]int{ // offset, listed
		"": {0, 15}, "/0": {0, 15}, "/0/15": {0, 15}, "/0/16": {0, 15}, "/0/999999": {0, 15}, "/3/4": {3, 4}, "/15": {15, 2}, "/16/9": {16, 1},
		"/17": {17, 0}, "/17/1": {17, 0}, "/000/007": {0, 7}, "/999999999999999999/999999999999999999": {999999999999999999, 0},
	} {
		list := k.page(path)
		from := min(want[0], 17)
		if list.Offset != int64(want[0]) || list.Total != 17 || list.Deleted != 0 || !slices.Equal(kidsOf(list), append([]string(nil), kids[from:from+want[1]]...)) {
			t.Errorf("list%s: %+v, want %v", path, list, want)
		}
	}
	for path, want := range map[string]int{
		"/x": 406, "/0/x": 406, "/-1": 406, "/+1": 406, "/1.0": 406, "/1e1": 406, "/0x1": 406, "/0/-1": 406, "/%20": 406, "/0/%00": 406, "/٣": 406,
		"/" + strings.Repeat("9", 40): 406, "/": 404, "//": 404, "/0/": 404, "//0": 404, "/0/1/2": 404,
	} {
		k.want("list"+path, k.do(request{method: "GET", path: "/api/keymgmt/list" + path, token: k.as(api.RoleUser, api.ScopeKeyList)}), want)
	}
	for _, kid := range []string{"x", kids[0][1:], kids[0] + "0", strings.Repeat("g", 32), "%00"} {
		k.want("get "+kid, k.do(request{method: "GET", path: "/api/keymgmt/get/" + kid, token: k.as(api.RoleUser, api.ScopeKeyGet)}), 400)
	}
	k.want("get in capitals", k.do(request{method: "GET", path: "/api/keymgmt/get/" + strings.ToUpper(kids[0]), token: k.as(api.RoleUser, api.ScopeKeyGet)}), 200)
	for _, scope := range []string{api.ScopeKeyGet, api.ScopeKeyGen, api.ScopeKeyUse(kids[0])} {
		k.want("get with "+scope, k.do(request{method: "GET", path: "/api/keymgmt/get/" + kids[0], token: k.as(api.RoleUser, scope)}), 200)
	}
	for _, scope := range []string{api.ScopeKeyUse(kids[1]), api.ScopeKeyUse(kids[0]) + "0", "keymgmt:use:", "keymgmt:ge", api.ScopeKeyList} {
		k.want("get with "+scope, k.do(request{method: "GET", path: "/api/keymgmt/get/" + kids[0], token: k.as(api.RoleUser, scope)}), 403)
	}
}
