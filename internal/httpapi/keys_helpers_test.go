package httpapi_test

import (
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/keyring"
	"softhem/internal/seal"
	"softhem/internal/store"
	"softhem/internal/store/sqlitestore"
	"softhem/internal/suite"
)

// A keeper is a peer that manages and uses keys: it has a token for whatever
// scope it needs, and keeps it.
type keeper struct {
	*peer
	tokens *tokens
}

type tokens struct {
	mu   sync.Mutex
	held map[string]*string // by role and scope
}

func newKeeper(t *testing.T, opts *hemtest.Options) *keeper {
	t.Helper()
	return keeperOf(t, hemtest.New(t, opts))
}

func keeperOf(t *testing.T, m *hemtest.Module) *keeper {
	t.Helper()
	return &keeper{newPeer(t, m), &tokens{held: make(map[string]*string)}}
}

// with is the same keeper for a subtest.
func (k *keeper) with(t *testing.T) *keeper {
	p := *k.peer
	p.t = t
	return &keeper{&p, k.tokens}
}

// as is a token of a role for a scope.
func (k *keeper) as(role api.Role, scope string) *string {
	k.t.Helper()
	k.tokens.mu.Lock()
	defer k.tokens.mu.Unlock()
	name := string(role) + " " + scope
	if k.tokens.held[name] == nil {
		k.tokens.held[name] = k.token(role, scope)
	}
	return k.tokens.held[name]
}

// reboot ends all tokens.
func (k *keeper) reboot() {
	k.t.Helper()
	k.expect("GET", "/api/system/reboot", k.as(api.RoleUser, api.ScopeSystemConfig), 200)
	k.tokens.mu.Lock()
	defer k.tokens.mu.Unlock()
	clear(k.tokens.held)
}

// fields are those of a request's JSON; []byte becomes base64.
type fields map[string]any

// but is fields with some of them changed.
func (f fields) but(changes fields) fields {
	changed := maps.Clone(f)
	maps.Copy(changed, changes)
	return changed
}

func (f fields) json(t testing.TB) string {
	t.Helper()
	raw, err := json.Marshal(map[string]any(f))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// post sends a request as the user with a token of that scope.
func (k *keeper) post(path, scope string, f fields) answer {
	k.t.Helper()
	return k.raw(path, scope, f.json(k.t))
}

func (k *keeper) raw(path, scope, body string) answer {
	k.t.Helper()
	return k.do(request{method: "POST", path: path, body: body, token: k.as(api.RoleUser, scope)})
}

// use does an operation of /api/crypto with a key.
func (k *keeper) use(op, kid string, f fields) answer {
	k.t.Helper()
	return k.post("/api/crypto/"+op, api.ScopeKeyUse(kid), f.but(fields{"kid": kid}))
}

// must is the decoded field of an answer that has to be a 200.
func (k *keeper) must(a answer, field string) []byte {
	k.t.Helper()
	if a.status != http.StatusOK {
		k.t.Fatalf("%d (%s), want 200 with %s", a.status, a.header.Get(api.HeaderError), field)
	}
	var all map[string]any
	if err := json.Unmarshal(a.body, &all); err != nil {
		k.t.Fatalf("%v: %s", err, a.body)
	}
	text, ok := all[field].(string)
	if !ok {
		k.t.Fatalf("the answer has no %s: %s", field, a.body)
	}
	b, err := api.DecodeBase64(text)
	if err != nil {
		k.t.Fatal(err)
	}
	return b
}

// want checks the status of an answer.
func (k *keeper) want(what string, a answer, status int) {
	k.t.Helper()
	if a.status != status {
		k.t.Errorf("%s: %d (%s), want %d", what, a.status, a.header.Get(api.HeaderError), status)
	}
}

// kid is the kid of an answer that has to be a 200.
func (k *keeper) kid(a answer) string {
	k.t.Helper()
	var created api.KeyCreated
	if a.status != http.StatusOK {
		k.t.Fatalf("%d (%s), want 200 with a kid", a.status, a.header.Get(api.HeaderError))
	}
	if err := json.Unmarshal(a.body, &created); err != nil || len(created.KID) != 32 || created.KID != strings.ToLower(created.KID) {
		k.t.Fatalf("%v: no kid: %s", err, a.body)
	}
	return created.KID
}

// create makes a key that may do whatever its type can.
func (k *keeper) create(t api.KeyType) string {
	k.t.Helper()
	return k.kid(k.post("/api/keymgmt/create", api.ScopeKeyGen, fields{"label": "made", "type": t, "mode": api.ModeBoth}))
}

// imports stores a public key.
func (k *keeper) imports(t api.KeyType, public []byte) string {
	k.t.Helper()
	return k.kid(k.post("/api/keymgmt/import", api.ScopeKeyImport,
		fields{"label": "imported", "type": t, "pubkey": public, "mode": api.ModeBoth}))
}

func (k *keeper) delete(kid string) answer {
	k.t.Helper()
	return k.do(request{method: "DELETE", path: "/api/keymgmt/delete/" + kid, token: k.as(api.RoleUser, api.ScopeKeyDelete)})
}

// key is what get tells of a key.
func (k *keeper) key(kid string) api.Key {
	k.t.Helper()
	a := k.do(request{method: "GET", path: "/api/keymgmt/get/" + kid, token: k.as(api.RoleUser, api.ScopeKeyGet)})
	var key api.Key
	if a.status != http.StatusOK {
		k.t.Fatalf("get %s: %d", kid, a.status)
	}
	if err := json.Unmarshal(a.body, &key); err != nil {
		k.t.Fatal(err)
	}
	return key
}

func (k *keeper) public(kid string) []byte {
	k.t.Helper()
	b, err := api.DecodeBase64(k.key(kid).PubKey)
	if err != nil || len(b) == 0 {
		k.t.Fatalf("%s has no public key: %v", kid, err)
	}
	return b
}

// page is a list from an offset.
func (k *keeper) page(path string) api.KeyList {
	k.t.Helper()
	a := k.do(request{method: "GET", path: "/api/keymgmt/list" + path, token: k.as(api.RoleUser, api.ScopeKeyList)})
	return k.list(a)
}

func (k *keeper) list(a answer) api.KeyList {
	k.t.Helper()
	var list api.KeyList
	if a.status != http.StatusOK {
		k.t.Fatalf("no list: %d (%s)", a.status, a.header.Get(api.HeaderError))
	}
	if err := json.Unmarshal(a.body, &list); err != nil {
		k.t.Fatal(err)
	}
	if list.List == nil || list.Listed != len(list.List) {
		k.t.Fatalf("a list that contradicts itself: %s", a.body)
	}
	return list
}

// fls is the module's fail state.
func (k *keeper) fls() int {
	k.t.Helper()
	var s api.Status
	k.get("/api/system/status", &s)
	return s.FLSState
}

// freshPublic is a public key nobody has seen.
func freshPublic(t testing.TB, keys api.KeyType) []byte {
	t.Helper()
	a, ok := suite.AlgorithmOf(keys)
	if !ok {
		t.Fatalf("no type %s", keys)
	}
	k, err := a.Open(a.NewMaterial())
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}

// A vault is the key table of a data folder, past the module: for keys whose
// material a test has to know, and for damage.
type vault struct {
	t     *testing.T
	store *sqlitestore.Store
	ring  *keyring.Ring
}

// openVault opens the table, which a module may be using at the same time.
func openVault(t *testing.T, dir string) *vault {
	t.Helper()
	root, err := seal.LoadRoot(seal.RootSource{File: filepath.Join(dir, "root.key")})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Wipe()
	sealer, err := seal.Open(dir, root)
	if err != nil {
		t.Fatal(err)
	}
	db, err := sqlitestore.Open(t.Context(), sqlitestore.Config{Path: filepath.Join(dir, "hem.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return &vault{t, db, keyring.New(keyring.Config{Store: db, Sealer: sealer})}
}

// plant puts a key with known material into the table and returns its kid.
func (v *vault) plant(keys api.KeyType, material []byte) string {
	v.t.Helper()
	a, ok := suite.AlgorithmOf(keys)
	if !ok {
		v.t.Fatalf("no type %s", keys)
	}
	row, err := v.ring.Prepare(keyring.NewKey{Algorithm: a, Material: material, Mode: api.ModeBoth, Label: "planted"}, 1)
	if err != nil {
		v.t.Fatal(err)
	}
	if err := v.store.Update(v.t.Context(), func(tx store.Tx) error { return v.ring.Insert(v.t.Context(), tx, row) }); err != nil {
		v.t.Fatal(err)
	}
	return hex.EncodeToString(row.KID[:])
}

func mustKID(t testing.TB, text string) store.KID {
	t.Helper()
	kid, ok := keyring.ParseKID(text)
	if !ok {
		t.Fatalf("%q is no kid", text)
	}
	return kid
}

// row is a key as it stands in the table.
func (v *vault) row(kid string) (row store.Key) {
	v.t.Helper()
	err := v.store.View(v.t.Context(), func(r store.Reader) (err error) {
		row, err = r.GetKey(v.t.Context(), mustKID(v.t, kid))
		return err
	})
	if err != nil {
		v.t.Fatal(err)
	}
	return row
}

// replace puts other rows in the place of some, whatever they hold.
func (v *vault) replace(kids []string, rows ...store.Key) {
	v.t.Helper()
	ctx := v.t.Context()
	err := v.store.Update(ctx, func(tx store.Tx) error {
		for _, kid := range kids {
			if err := tx.DeleteKey(ctx, mustKID(v.t, kid)); err != nil {
				return err
			}
		}
		for _, row := range rows {
			if err := tx.InsertKey(ctx, row); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		v.t.Fatal(err)
	}
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
