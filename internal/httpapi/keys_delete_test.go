package httpapi_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"softhem/api"
	"softhem/hemtest"
)

// holding are the files of a folder that hold any sixteen bytes in a row of
// some sealed part, from its nonce on.
func holding(t *testing.T, dir string, sealed []byte) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		for at := 1; err == nil && at+16 <= len(sealed); at++ {
			if bytes.Contains(content, sealed[at:at+16]) {
				names = append(names, d.Name())
				break
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// A key is deleted while 64 clients use it. What is sent after the answer of
// the delete is refused, everywhere and from then on, and no file of the data
// folder holds what was sealed, neither as it was last nor as it was before.
func TestDeleteWhileUsed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	k := newKeeper(t, &hemtest.Options{DataDir: dir})
	v := openVault(t, dir)
	companion := k.create("SECP256R1")
	for _, c := range []struct {
		keys api.KeyType
		op   string
		f    fields
		peer bool // the deleted key is the peer of another
	}{
		{keys: "ED25519", op: "exdsa/sign", f: fields{"msg": matrixMsg, "alg": "Ed25519"}},
		{keys: "SHA2-256", op: "hmac/hash", f: fields{"msg": matrixMsg}},
		{keys: "AES256", op: "cipher/encrypt", f: fields{"msg": matrixMsg, "alg": "AES256-GCM"}},
		{keys: "MLKEM768", op: "pqc/mlkem/decaps", f: fields{"ct": make([]byte, 1088)}},
		{keys: "MLDSA44", op: "pqc/mldsa/sign", f: fields{"msg": matrixMsg}},
		{keys: "SECP256R1", op: "ecdh", f: fields{}, peer: true},
	} {
		t.Run(fmt.Sprintf("%s %s", c.keys, c.op), func(t *testing.T) {
			k := k.with(t)
			kid := k.create(c.keys)
			sealed := [][]byte{v.row(kid).Sealed}
			k.want("update", k.post("/api/keymgmt/update", api.ScopeKeyUpdate, fields{"kid": kid, "label": "renamed"}), 200)
			sealed = append(sealed, v.row(kid).Sealed)
			if found := holding(t, dir, sealed[1]); len(found) == 0 {
				t.Fatal("the search does not find what is there")
			}
			user, f := kid, c.f.but(fields{"kid": kid})
			if c.peer {
				user, f = companion, fields{"kid": companion, "ext_kid": kid}
			}
			token, body := k.as(api.RoleUser, api.ScopeKeyUse(user)), f.json(t)
			k.want("before", k.do(request{method: "POST", path: "/api/crypto/" + c.op, body: body, token: token}), 200)

			var deleted atomic.Bool
			var before, during, after atomic.Int64
			var clients, ready sync.WaitGroup
			ready.Add(64)
			for range 64 {
				clients.Go(func() {
					gone := false
					left := 5 // requests after the delete
					for n := 0; left > 0; n++ {
						late := deleted.Load()
						a := k.do(request{method: "POST", path: "/api/crypto/" + c.op, body: body, token: token})
						switch {
						case late && a.status != 406:
							t.Errorf("sent after the delete was answered: %d", a.status)
							fallthrough
						case late:
							after.Add(1)
							left--
						case a.status == 406:
							gone = true
							during.Add(1)
						case a.status == 200 && !gone:
							before.Add(1)
						case a.status == 200:
							t.Error("it worked again after it had been refused")
						default:
							t.Errorf("while it is being deleted: %d", a.status)
						}
						if n == 0 {
							ready.Done()
						}
					}
				})
			}
			ready.Wait()
			a := k.delete(kid)
			deleted.Store(true)
			for i, s := range sealed {
				if found := holding(t, dir, s); len(found) > 0 {
					t.Errorf("after the delete %s hold the sealed part %d", strings.Join(found, ", "), i)
				}
			}
			clients.Wait()
			k.want("delete", a, 200)
			if before.Load() < 64 || after.Load() != 64*5 {
				t.Errorf("%d operations before the delete, %d during, %d after", before.Load(), during.Load(), after.Load())
			}
			k.want("get", k.do(request{method: "GET", path: "/api/keymgmt/get/" + kid, token: k.as(api.RoleUser, api.ScopeKeyGet)}), 406)
			for i, s := range sealed {
				if found := holding(t, dir, s); len(found) > 0 {
					t.Errorf("later %s hold the sealed part %d", strings.Join(found, ", "), i)
				}
			}
		})
	}
}

// Many keys are deleted at the same time; each is gone from the files when its
// own delete is answered.
func TestDeletesAtTheSameTime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	k := newKeeper(t, &hemtest.Options{DataDir: dir})
	v := openVault(t, dir)
	sealed := make(map[string][]byte)
	for range 48 {
		kid := k.create("AES256")
		sealed[kid] = v.row(kid).Sealed
	}
	k.as(api.RoleUser, api.ScopeKeyDelete)
	var wg sync.WaitGroup
	for kid, s := range sealed {
		wg.Go(func() {
			k.want("delete", k.delete(kid), 200)
			if found := holding(t, dir, s); len(found) > 0 {
				t.Errorf("after the delete %s hold the sealed part", strings.Join(found, ", "))
			}
		})
	}
	wg.Wait()
	if page := k.page(""); page.Total != 0 || page.Deleted != 48 {
		t.Errorf("%d keys are left, %d deleted", page.Total, page.Deleted)
	}
	k.module.Close()
	for _, s := range sealed {
		if found := holding(t, dir, s); len(found) > 0 {
			t.Errorf("after the end %s hold a sealed part", strings.Join(found, ", "))
		}
	}
}
