package httpapi_test

import (
	"path/filepath"
	"strings"
	"testing"

	"softhem/api"
	"softhem/hemtest"
)

// The key management endpoints, each with a right request and what opens it.
func managing(k *keeper) []struct {
	method, path, body string
	scopes             []string
} {
	kid, source := k.create("AES256"), k.create("CURVE25519")
	json := func(f fields) string { return f.json(k.t) }
	return []struct {
		method, path, body string
		scopes             []string
	}{
		{"GET", "/api/keymgmt/list", "", []string{"keymgmt:list"}},
		{"GET", "/api/keymgmt/list/0", "", []string{"keymgmt:list"}},
		{"GET", "/api/keymgmt/list/0/1", "", []string{"keymgmt:list"}},
		{"POST", "/api/keymgmt/search", json(fields{"descr": "QUJD"}), []string{"keymgmt:search", "keymgmt:list", "auth:ext:pair"}},
		{"GET", "/api/keymgmt/get/" + kid, "", []string{"keymgmt:get", "keymgmt:gen", "keymgmt:use:" + kid}},
		{"POST", "/api/keymgmt/create", json(fields{"label": "x", "type": "AES128"}), []string{"keymgmt:gen"}},
		{"POST", "/api/keymgmt/update", json(fields{"kid": kid, "label": "x"}), []string{"keymgmt:upd"}},
		// 406 is what comes when all that comes before it is right.
		{"POST", "/api/keymgmt/import", json(fields{"label": "x", "type": "AES128", "pubkey": "QUJD"}), []string{"keymgmt:imp"}},
		{"POST", "/api/keymgmt/derive", json(fields{"label": "x", "type": "SHA2-512", "kid": source, "ext_kid": source}), []string{"keymgmt:derive", "keymgmt:gen"}},
		{"DELETE", "/api/keymgmt/delete/" + strings.Repeat("0", 32), "", []string{"keymgmt:del"}},
	}
}

// Who may manage keys, how, and when.
func TestDoorOfKeyManagement(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	k := newKeeper(t, &hemtest.Options{DataDir: dir})
	fresh := newKeeper(t, &hemtest.Options{Fresh: true, Seed: "fresh"})
	scopes := append(api.Scopes(), "", "keymgmt", "keymgmt:", "keymgmt:use:", "keymgmt:use:"+strings.Repeat("0", 32), "storage:disk0:rw")
	all := managing(k)
	for _, c := range all {
		send := func(k *keeper, token *string) answer {
			return k.do(request{method: c.method, path: c.path, body: c.body, token: token})
		}
		right := 200
		if strings.Contains(c.path, "/import") || strings.Contains(c.path, "/derive") || strings.Contains(c.path, "/delete") {
			right = 406
		}
		for _, scope := range append(scopes, c.scopes...) {
			want := 403
			for _, opens := range c.scopes {
				if strings.HasPrefix(scope, opens) {
					want = right
				}
			}
			k.want(c.path+" with "+scope, send(k, k.as(api.RoleUser, scope)), want)
			k.want(c.path+" with "+scope+", role M", send(k, k.as(api.RoleMaster, scope)), 403)
		}
		token := k.as(api.RoleUser, c.scopes[0])
		plain, empty := *k, ""
		plain.peer = k.peer.plain()
		k.want(c.path+" over plain HTTP", send(&plain, token), 418)
		k.want(c.path+" over plain HTTP without a token", send(&plain, nil), 418)
		k.want(c.path+" over plain HTTP with a bad token", send(&plain, &empty), 401)
		k.want(c.path+" without a token", send(k, nil), 401)
		k.want(c.path+" with a bad token", send(k, &empty), 401)
		k.want(c.path+" on a fresh module", send(fresh, nil), 409)
	}
	// A fail state comes before the token that is missing, and after TLS.
	victim := k.create("AES256")
	v := openVault(t, dir)
	row := v.row(victim)
	row.Sealed[50] ^= 0x80
	v.replace([]string{victim}, row)
	k.want("the damaged key", k.use("cipher/wrap", victim, fields{"msg": matrixMsg}), 409)
	for _, c := range all {
		plain, empty := *k, ""
		plain.peer = k.peer.plain()
		send := func(k *keeper, token *string) answer {
			return k.do(request{method: c.method, path: c.path, body: c.body, token: token})
		}
		for _, scope := range c.scopes {
			k.want(c.path+" in a fail state", send(k, k.as(api.RoleUser, scope)), 409)
		}
		k.want(c.path+" in a fail state without a token", send(k, nil), 409)
		k.want(c.path+" in a fail state, role M", send(k, k.as(api.RoleMaster, "keymgmt:list")), 409)
		k.want(c.path+" in a fail state with a bad token", send(k, &empty), 401)
		k.want(c.path+" in a fail state over plain HTTP", send(&plain, nil), 418)
	}
}
