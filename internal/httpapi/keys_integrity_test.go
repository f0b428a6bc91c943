package httpapi_test

import (
	"bytes"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"softhem/api"
	"softhem/hemtest"
	"softhem/internal/audit"
	"softhem/internal/store"
)

// integrityErrors are the kids that the log of the latest boot of a folder calls
// damaged.
func integrityErrors(t *testing.T, dir, eidSign string) (kids []string) {
	t.Helper()
	key, err := api.DecodeBase64(eidSign)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "audit", "????????"))
	if err != nil || len(files) == 0 {
		t.Fatalf("log files %v: %v", files, err)
	}
	raw, err := os.ReadFile(slices.Max(files))
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range audit.Entries(bytes.NewReader(raw), key) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == audit.KeyIntegrityError {
			if e.Result != audit.Error || e.Who != "" {
				t.Errorf("a damaged key is recorded as %+v", e.Record)
			}
			kids = append(kids, hex.EncodeToString(e.Arg))
		}
	}
	return kids
}

// damages are changes of rows, each by one bit or by an exchange. They get the
// rows of a symmetric key and of a pair, and say which is damaged by them.
func damages() map[string]func(aes, pair *store.Key) (damaged []*store.Key) {
	flip := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 1
		return b
	}
	return map[string]func(aes, pair *store.Key) []*store.Key{
		"first byte of sealed": func(a, _ *store.Key) []*store.Key { a.Sealed = flip(a.Sealed, 0); return []*store.Key{a} },
		"nonce of sealed":      func(a, _ *store.Key) []*store.Key { a.Sealed = flip(a.Sealed, 10); return []*store.Key{a} },
		"material in sealed":   func(_, p *store.Key) []*store.Key { p.Sealed = flip(p.Sealed, 40); return []*store.Key{p} },
		"padding in sealed":    func(a, _ *store.Key) []*store.Key { a.Sealed = flip(a.Sealed, 100); return []*store.Key{a} },
		"tag of sealed":        func(_, p *store.Key) []*store.Key { p.Sealed = flip(p.Sealed, 127); return []*store.Key{p} },
		"label":                func(a, _ *store.Key) []*store.Key { a.Label = string(flip([]byte(a.Label), 0)); return []*store.Key{a} },
		"descr":                func(_, p *store.Key) []*store.Key { p.Descr = flip(p.Descr, 2); return []*store.Key{p} },
		"no descr":             func(_, p *store.Key) []*store.Key { p.Descr = nil; return []*store.Key{p} },
		"public key":           func(_, p *store.Key) []*store.Key { p.Public = flip(p.Public, 31); return []*store.Key{p} },
		"type":                 func(a, _ *store.Key) []*store.Key { a.Type = "ATT,AES128"; return []*store.Key{a} },
		"traits":               func(_, p *store.Key) []*store.Key { p.Type = "ATT,PKEY,ECDH,ExDSA,ED25519"; return []*store.Key{p} },
		"created":              func(a, _ *store.Key) []*store.Key { a.Created ^= 1 << 20; return []*store.Key{a} },
		"updated":              func(_, p *store.Key) []*store.Key { p.Updated ^= 1; return []*store.Key{p} },
		"fingerprint":          func(a, _ *store.Key) []*store.Key { a.Fingerprint = flip(a.Fingerprint, 0); return []*store.Key{a} },
		"no fingerprint":       func(a, _ *store.Key) []*store.Key { a.Fingerprint = nil; return []*store.Key{a} },
		"sealed parts swapped": func(a, p *store.Key) []*store.Key {
			a.Sealed, p.Sealed = p.Sealed, a.Sealed
			return []*store.Key{a, p}
		},
	}
}

// damageable makes a symmetric key and a pair, and tells what they answer.
func (k *keeper) damageable() (aes, pair string, uses map[string]func() answer) {
	k.t.Helper()
	create := func(keys string) string {
		return k.kid(k.post("/api/keymgmt/create", api.ScopeKeyGen, fields{"label": "label", "type": keys, "descr": []byte("descr of it")}))
	}
	aes, pair = create("AES256"), create("ED25519")
	return aes, pair, map[string]func() answer{
		aes: func() answer {
			return k.use("cipher/encrypt", aes, fields{"msg": matrixMsg, "alg": "AES256-ECB"})
		},
		pair: func() answer { return k.use("exdsa/sign", pair, fields{"msg": matrixMsg, "alg": "Ed25519"}) },
	}
}

// A row that was changed is never used: the operation is refused, the log names
// the key, and the module fails until the row is as it was.
func TestDamagedKeysAreNotUsed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	k, log := newSwept(t, dir)
	config, v := k.config(), openVault(t, dir)
	for name, damage := range damages() {
		t.Run(name, func(t *testing.T) {
			k := k.with(t)
			aes, pair, uses := k.damageable()
			other := k.create("SHA2-256")
			right := make(map[string]answer)
			for kid, use := range uses {
				right[kid] = use()
				k.want("an operation", right[kid], 200)
				k.want("a change, so that the key is read again", k.post("/api/keymgmt/update", api.ScopeKeyUpdate,
					fields{"kid": kid, "label": "label", "descr": []byte("descr of it")}), 200)
			}
			goodAES, goodPair := v.row(aes), v.row(pair)
			badAES, badPair := goodAES, goodPair
			damaged := hex.EncodeToString(damage(&badAES, &badPair)[0].KID[:])
			// In a fail state nobody logs in.
			k.as(api.RoleUser, api.ScopeKeyList)
			k.as(api.RoleUser, api.ScopeSystemConfig)
			k.as(api.RoleUser, api.ScopeKeyUse(other))
			v.replace([]string{aes, pair}, badAES, badPair)

			k.want("use of the damaged key", uses[damaged](), 409)
			if fls := k.fls(); fls != 8 {
				t.Errorf("fail state %02x after it, want 08", fls)
			}
			k.want("use of another key", k.use("hmac/hash", other, fields{"msg": matrixMsg}), 409)
			k.want("list", k.do(request{method: "GET", path: "/api/keymgmt/list", token: k.as(api.RoleUser, api.ScopeKeyList)}), 409)
			k.want("a login", k.do(request{method: "GET", path: "/api/auth/token"}), 409)
			if got := integrityErrors(t, dir, config.EIDSign); !slices.Equal(got, []string{damaged}) {
				t.Errorf("the log says %v are damaged, want %s", got, damaged)
			}

			v.replace([]string{aes, pair}, goodAES, goodPair)
			log.reboot(k)
			for kid, use := range uses {
				if a := use(); a.status != 200 || !bytes.Equal(a.body, right[kid].body) {
					t.Errorf("when the row is what it was: %d %s, want %s", a.status, a.body, right[kid].body)
				}
			}
			if fls := k.fls(); fls != 0 {
				t.Errorf("fail state %02x, want 0", fls)
			}
		})
	}
}

// Nobody asks for a damaged key, and still it is found after a start: all of
// them are, and no other.
func TestDamagedKeysAreFound(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	opts := &hemtest.Options{DataDir: dir}
	k := newKeeper(t, opts)
	config := k.config()
	var damaged []string
	rows := make(map[string][2]store.Key)
	v := openVault(t, dir)
	for name, damage := range damages() {
		aes, pair, _ := k.damageable()
		bad := [2]store.Key{v.row(aes), v.row(pair)}
		rows[name] = bad
		for _, row := range damage(&bad[0], &bad[1]) {
			damaged = append(damaged, hex.EncodeToString(row.KID[:]))
		}
		rows[name] = bad
	}
	slices.Sort(damaged)
	k.module.Close()
	for _, bad := range rows {
		v.replace([]string{hex.EncodeToString(bad[0].KID[:]), hex.EncodeToString(bad[1].KID[:])}, bad[0], bad[1])
	}
	k = newKeeper(t, opts)
	var got []string
	for deadline := time.Now().Add(10 * time.Second); len(got) < len(damaged) && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
		got = integrityErrors(t, dir, config.EIDSign)
	}
	slices.Sort(got)
	if !slices.Equal(got, damaged) {
		t.Errorf("the sweep says %v are damaged, want %v", got, damaged)
	}
	if fls := k.fls(); fls != 8 {
		t.Errorf("fail state %02x after the sweep, want 08", fls)
	}
	// The latch comes back with every boot, as long as the damage is there.
	k.module.Close()
	k = newKeeper(t, opts)
	for deadline := time.Now().Add(10 * time.Second); k.fls() == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if fls := k.fls(); fls != 8 {
		t.Errorf("fail state %02x after the next boot, want 08", fls)
	}
}

// A sweepLog is the operator's log of a module, in which the sweeps are seen.
type sweepLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func newSwept(t *testing.T, dir string) (*keeper, *sweepLog) {
	t.Helper()
	log := new(sweepLog)
	return newKeeper(t, &hemtest.Options{DataDir: dir, Logger: slog.New(slog.NewTextHandler(log, nil))}), log
}

func (l *sweepLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *sweepLog) sweeps() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.text.Bytes(), []byte("all stored keys were checked"))
}

// reboot returns when the sweep after it is over, so that what is damaged then
// is not found by it.
func (l *sweepLog) reboot(k *keeper) {
	k.t.Helper()
	before := l.sweeps()
	k.reboot()
	for deadline := time.Now().Add(10 * time.Second); l.sweeps() == before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			k.t.Fatal("no sweep followed a reboot")
		}
	}
}

// config is the module's configuration.
func (k *keeper) config() api.Config {
	k.t.Helper()
	config, err := k.module.Client().Config(k.t.Context())
	if err != nil {
		k.t.Fatal(err)
	}
	return *config
}

// Whatever reads a row checks it.
func TestEveryReaderFindsDamage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	k, log := newSwept(t, dir)
	config, v := k.config(), openVault(t, dir)
	for name, read := range map[string]func(k *keeper, kid string) answer{
		"get": func(k *keeper, kid string) answer {
			return k.do(request{method: "GET", path: "/api/keymgmt/get/" + kid, token: k.as(api.RoleUser, api.ScopeKeyGet)})
		},
		"list": func(k *keeper, _ string) answer {
			return k.do(request{method: "GET", path: "/api/keymgmt/list/0/2", token: k.as(api.RoleUser, api.ScopeKeyList)})
		},
		"search": func(k *keeper, _ string) answer {
			return k.search(api.ScopeKeySearch, fields{"descr": []byte("of it")})
		},
		"open search": func(k *keeper, _ string) answer {
			return k.search("", fields{"descr": "^" + api.EncodeBase64([]byte("descr of"))})
		},
		"update": func(k *keeper, kid string) answer {
			return k.post("/api/keymgmt/update", api.ScopeKeyUpdate, fields{"kid": kid, "label": "new"})
		},
		"derive": func(k *keeper, kid string) answer {
			return k.post(derive, api.ScopeKeyDerive, fields{"kid": kid, "label": "new", "type": "AES128", "ext_kid": kid})
		},
		"verify": func(k *keeper, kid string) answer {
			return k.use("exdsa/verify", kid, fields{"msg": matrixMsg, "alg": "SHA256WithECDSA", "sign": make([]byte, 70)})
		},
		"ecdh": func(k *keeper, kid string) answer {
			return k.use("ecdh", kid, fields{"pubkey": freshPublic(k.t, "SECP256R1")})
		},
		"as a peer": func(k *keeper, kid string) answer {
			return k.use("ecdh", k.create("SECP256R1"), fields{"ext_kid": kid})
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := k.with(t)
			kid := k.kid(k.post("/api/keymgmt/create", api.ScopeKeyGen,
				fields{"label": "x", "type": "SECP256R1", "mode": api.ModeBoth, "descr": []byte("descr of it")}))
			k.as(api.RoleUser, api.ScopeSystemConfig) // in a fail state nobody logs in
			good := v.row(kid)
			bad := good
			bad.Sealed = bytes.Clone(good.Sealed)
			bad.Sealed[64] ^= 4
			v.replace([]string{kid}, bad)
			k.want(name, read(k, kid), 409)
			if fls := k.fls(); fls != 8 {
				t.Errorf("fail state %02x, want 08", fls)
			}
			if got := integrityErrors(t, dir, config.EIDSign); !slices.Equal(got, []string{kid}) {
				t.Errorf("the log says %v are damaged, want %s", got, kid)
			}
			v.replace([]string{kid}, good)
			log.reboot(k)
			k.want("delete", k.delete(kid), 200)
		})
	}
}
