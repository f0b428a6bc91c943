package hem_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
)

func kids(t testing.TB, c *hem.Client) []hem.KID {
	t.Helper()
	var all []hem.KID
	for k, err := range c.AllKeys(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, k.KID)
	}
	return all
}

func TestListSearchUpdateDelete(t *testing.T) {
	c := hemtest.New(t, nil).Client()
	ctx := t.Context()
	before := kids(t, c) // the module has keys of its own
	var made []hem.KID
	for i := range 40 {
		kid, err := c.CreateKey(ctx, hem.KeySpec{
			Label: fmt.Sprintf("key %d", i), Type: api.AES128, Descr: fmt.Appendf(nil, "app:%d:%d", i%2, i),
		})
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, kid)
	}
	if got := kids(t, c); !slices.Equal(got, slices.Concat(before, made)) {
		t.Errorf("listed are %v, not %v and %v", got, before, made)
	}
	for _, tc := range []struct{ offset, count, want int }{{0, 0, 15}, {0, 4, 4}, {0, 100, 15}, {len(before) + 38, 15, 2}, {1000, 0, 0}} {
		p, err := c.ListKeys(ctx, tc.offset, tc.count)
		if err != nil || len(p.Keys) != tc.want || p.Total != len(before)+40 || p.Offset != tc.offset || p.Last() != (tc.want < 4) {
			t.Errorf("%+v: %+v, %v", tc, p, err)
		}
	}

	find := func(s hem.KeySearch) (labels []string) {
		t.Helper()
		for k, err := range c.AllMatches(ctx, s) {
			if err != nil {
				t.Fatal(err)
			}
			labels = append(labels, k.Label)
		}
		return labels
	}
	var even []string
	for i := 0; i < 40; i += 2 {
		even = append(even, fmt.Sprintf("key %d", i))
	}
	for _, tc := range []struct {
		search hem.KeySearch
		want   []string
	}{
		{hem.KeySearch{Descr: []byte("app:0:"), Start: true}, even},
		{hem.KeySearch{Descr: []byte("app:0:"), Start: true, Offset: 17}, even[17:]},
		{hem.KeySearch{Descr: []byte("app:0:"), Start: true, Offset: 100}, nil},
		{hem.KeySearch{Descr: []byte("pp:0"), Limit: 1}, even}, // a limit is for pages
		{hem.KeySearch{Descr: []byte(":27"), End: true}, []string{"key 27"}},
		{hem.KeySearch{Descr: []byte("app:1:27"), Start: true, End: true}, []string{"key 27"}},
		{hem.KeySearch{Descr: []byte("pp:1:27"), Start: true, End: true}, nil},
		{hem.KeySearch{Descr: []byte("APP")}, nil},
	} {
		if diff := cmp.Diff(tc.want, find(tc.search)); diff != "" {
			t.Errorf("%+v: %s", tc.search, diff)
		}
	}
	p, err := c.SearchKeys(ctx, hem.KeySearch{Descr: []byte("app:"), Offset: 3, Limit: 2})
	if err != nil || len(p.Keys) != 2 || p.Total != 40 || p.Keys[0].KID != made[3] || p.Keys[0].Created.IsZero() || time.Since(p.Keys[0].Created) > time.Hour {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err = c.SearchKeysOpen(ctx, hem.KeySearch{Descr: []byte("app:1:"), Start: true}); err != nil || p.Total != 20 {
		t.Errorf("without a token: %+v, %v", p, err)
	}

	old, err := c.GetKey(ctx, made[5])
	if err != nil || string(old.Descr) != "app:1:5" {
		t.Fatal(old, err)
	}
	if err := c.UpdateKey(ctx, made[5], "renamed", []byte("other")); err != nil {
		t.Fatal(err)
	}
	key, err := c.GetKey(ctx, made[5])
	if err != nil || string(key.Descr) != "other" || !key.Updated.After(old.Updated) {
		t.Errorf("updated to %+v, %v", key, err)
	}
	if got := find(hem.KeySearch{Descr: []byte("other")}); !slices.Equal(got, []string{"renamed"}) {
		t.Error(got)
	}
	if err := c.UpdateKey(ctx, made[5], "renamed", nil); err != nil {
		t.Fatal(err)
	}
	if key, err = c.GetKey(ctx, made[5]); err != nil || key.Descr != nil {
		t.Errorf("its description is still %q (%v)", key.Descr, err)
	}

	if err := c.DeleteKey(ctx, made[5]); err != nil {
		t.Fatal(err)
	}
	if got := kids(t, c); slices.Contains(got, made[5]) || len(got) != len(before)+39 {
		t.Errorf("%v of %v after a deletion", len(got), len(before)+40)
	}
	for name, err := range map[string]error{
		"get": second(c.GetKey(ctx, made[5])), "update": c.UpdateKey(ctx, made[5], "x", nil), "delete": c.DeleteKey(ctx, made[5]),
		"use": second(c.Wrap(ctx, made[5], random(16), &hem.WrapOptions{Alg: api.AES128})),
	} {
		if !errors.Is(err, api.ErrNotAcceptable) {
			t.Errorf("%s a deleted key: %v", name, err)
		}
	}
}

// What the module refuses arrives as what the documentation of each call says.
func TestRefusalsByTheModule(t *testing.T) {
	m := hemtest.New(t, &hemtest.Options{MaxKeys: 4})
	c, ctx := m.Client(), t.Context()
	spec := hem.KeySpec{Label: "l", Type: api.AES128}
	kid := create(t, c, api.Ed25519)
	curve := create(t, c, api.SECP256R1)
	pub := public(t, c, kid)

	for name, err := range map[string]error{
		"an unknown type": second(c.CreateKey(ctx, hem.KeySpec{Label: "l", Type: "DES"})),
		"an unknown mode": second(c.CreateKey(ctx, hem.KeySpec{Label: "l", Type: api.SECP256R1, Mode: "sign"})),
		"an unknown alg":  second(c.Sign(ctx, kid, []byte("msg"), "RSA", nil)),
		"a symmetric one": second(c.ImportKey(ctx, spec, random(16))),
	} {
		want := api.ErrBadRequest
		if name == "a symmetric one" {
			want = api.ErrNotAcceptable
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	pairing := hem.KeySpec{Label: "l", Type: api.AES128, Descr: []byte(api.PairingPrefix + "x")}
	for name, err := range map[string]error{
		"a pairing":             second(c.CreateKey(ctx, pairing)),
		"an update to one":      c.UpdateKey(ctx, kid, "l", pairing.Descr),
		"a duplicate":           second(c.ImportKey(ctx, hem.KeySpec{Label: "l", Type: api.Ed25519}, pub)),
		"no point":              second(c.ImportKey(ctx, hem.KeySpec{Label: "l", Type: api.SECP256R1}, bytes.Repeat([]byte{0xff}, 33))),
		"another curve":         second(c.ECDH(ctx, curve, hem.PeerKey(kid), "")),
		"no such peer":          second(c.ECDH(ctx, curve, hem.PeerKey(hem.KID{9}), "")),
		"another alg":           second(c.Sign(ctx, kid, []byte("msg"), api.SHA256WithECDSA, nil)),
		"a mode without ExDSA":  second(c.Sign(ctx, mustCreate(t, c, hem.KeySpec{Label: "l", Type: api.SECP256R1}), []byte("msg"), api.SHA256WithECDSA, nil)),
		"an unknown key to use": second(c.HMAC(ctx, hem.KID{9}, []byte("msg"), nil)),
	} {
		if !errors.Is(err, api.ErrNotAcceptable) || errors.Is(err, hem.ErrVerification) {
			t.Errorf("%s: %v", name, err)
		}
	}
	create(t, c, api.AES128)
	if _, err := c.CreateKey(ctx, spec); !errors.Is(err, api.ErrNotAcceptable) {
		t.Errorf("a full module: %v", err)
	}
	if err := c.Verify(ctx, hem.KID{9}, []byte("msg"), random(64), api.AlgEd25519, nil); !errors.Is(err, hem.ErrVerification) {
		t.Errorf("verified by no key: %v", err)
	}

	// The administrator has nothing to do with keys.
	admin := m.ClientOf(api.RoleMaster)
	for name, err := range map[string]error{
		"list": second(admin.ListKeys(ctx, 0, 0)), "search": second(admin.SearchKeys(ctx, hem.KeySearch{Descr: []byte("x")})),
		"get": second(admin.GetKey(ctx, kid)), "create": second(admin.CreateKey(ctx, spec)), "delete": admin.DeleteKey(ctx, kid),
		"sign":   second(admin.Sign(ctx, kid, []byte("msg"), api.AlgEd25519, nil)),
		"verify": admin.Verify(ctx, kid, []byte("msg"), random(64), api.AlgEd25519, nil),
	} {
		if !errors.Is(err, api.ErrForbidden) {
			t.Errorf("%s by the administrator: %v", name, err)
		}
	}
	// A token for one key is none for another, nor for making one.
	token, err := c.Login(ctx, api.ScopeKeyUse(kid.String()))
	if err != nil {
		t.Fatal(err)
	}
	narrow, err := hem.New(hem.Config{URL: m.URL, CACert: m.CACert, Token: token.Bearer})
	if err != nil {
		t.Fatal(err)
	}
	defer narrow.Close()
	if _, err := narrow.Sign(ctx, kid, []byte("msg"), api.AlgEd25519, nil); err != nil {
		t.Error(err)
	}
	if key, err := narrow.GetKey(ctx, kid); err != nil || !bytes.Equal(key.Public, pub) {
		t.Error(key, err)
	}
	for name, err := range map[string]error{
		"another key": second(narrow.ECDH(ctx, curve, hem.PeerKey(curve), "")), "create": second(narrow.CreateKey(ctx, spec)),
		"get another": second(narrow.GetKey(ctx, curve)), "list": second(narrow.ListKeys(ctx, 0, 0)),
	} {
		if !errors.Is(err, api.ErrForbidden) {
			t.Errorf("%s with a token for one key: %v", name, err)
		}
	}
	// Keys are used over TLS only; a login from this machine may come without.
	plain, err := hem.New(hem.Config{URL: m.HTTPURL, Token: token.Bearer})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if _, err := plain.Sign(ctx, kid, []byte("msg"), api.AlgEd25519, nil); !errors.Is(err, api.ErrTLSRequired) {
		t.Errorf("over plain HTTP: %v", err)
	}
}

func mustCreate(t *testing.T, c *hem.Client, spec hem.KeySpec) hem.KID {
	t.Helper()
	kid, err := c.CreateKey(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return kid
}

// All keys that stay are listed once, in order, while others are deleted and made.
func TestAllKeysWhileKeysAreDeleted(t *testing.T) {
	c := hemtest.New(t, nil).Client()
	ctx := t.Context()
	var stay, leave []hem.KID
	for i := range 300 {
		kid := mustCreate(t, c, hem.KeySpec{Label: "k", Type: api.AES128, Descr: []byte("some key")})
		if i%3 == 0 {
			stay = append(stay, kid)
		} else {
			leave = append(leave, kid)
		}
	}
	change := func() { // one goes, one comes
		if err := c.DeleteKey(ctx, leave[0]); err != nil {
			t.Error(err)
		}
		leave = leave[1:]
		if _, err := c.CreateKey(ctx, hem.KeySpec{Label: "new", Type: api.AES128}); err != nil {
			t.Error(err)
		}
	}
	check := func(name string, list iter.Seq2[hem.KeyInfo, error], meanwhile func()) {
		var got []hem.KID
		seen := map[hem.KID]bool{}
		for k, err := range list {
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if seen[k.KID] {
				t.Errorf("%s: %v came twice", name, k.KID)
			}
			if seen[k.KID] = true; slices.Contains(stay, k.KID) {
				got = append(got, k.KID)
			}
			meanwhile()
		}
		if !slices.Equal(got, stay) {
			t.Errorf("%s: %d keys of %d came, or in another order", name, len(got), len(stay))
		}
	}
	search := hem.KeySearch{Descr: []byte("some"), Start: true}
	// In between, those from the beginning of the list: all that is left moves.
	n := 0
	every := func(keys int) func() {
		return func() {
			if n++; n%keys == 0 {
				change()
			}
		}
	}
	check("list", c.AllKeys(ctx), every(7))
	check("search", c.AllMatches(ctx, search), every(5))
	// At the same time.
	var wg sync.WaitGroup
	var done atomic.Bool
	wg.Go(func() {
		defer done.Store(true)
		for len(leave) > 0 {
			change()
		}
	})
	defer wg.Wait()
	for first := true; first || !done.Load(); first = false {
		check("list at the same time", c.AllKeys(ctx), func() {})
		check("search at the same time", c.AllMatches(ctx, search), func() {})
	}
}

// One client, many goroutines, several keys: each gets its own result, and every key
// costs one login.
func TestConcurrentUse(t *testing.T) {
	m := hemtest.New(t, nil)
	c, ctx := m.Client(), t.Context()
	type keyPair struct {
		kid hem.KID
		raw []byte
	}
	var pairs []keyPair
	for range 4 {
		kid := create(t, c, api.Ed25519)
		pairs = append(pairs, keyPair{kid, public(t, c, kid)})
	}
	aead, err := c.AEAD(create(t, c, api.AES256), hem.AES256GCM)
	if err != nil {
		t.Fatal(err)
	}
	dec := decapsulator(t, c, api.MLKEM768)
	var wg sync.WaitGroup
	for n := range 16 {
		wg.Go(func() {
			for i := range 20 {
				k := pairs[(n+i)%len(pairs)]
				msg := fmt.Appendf(nil, "%d of %d", i, n)
				sig, err := c.Sign(ctx, k.kid, msg, api.AlgEd25519, nil)
				if err != nil || !verifies(t, api.Ed25519, k.raw, msg, sig, api.AlgEd25519, nil) {
					t.Errorf("sign: %x, %v", sig, err)
				}
				sealed, err := aead.Seal(ctx, msg, k.raw)
				if err != nil {
					t.Error(err)
				} else if got, err := aead.Open(ctx, sealed, k.raw); err != nil || !bytes.Equal(got, msg) {
					t.Errorf("open: %q, %v", got, err)
				}
				shared, ciphertext := dec.Encapsulator().Encapsulate()
				if got, err := dec.Decapsulate(ciphertext); err != nil || !bytes.Equal(got, shared) {
					t.Errorf("decapsulate: %x, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}

// A long run outlives a reboot of the module: the calls that it cuts off log in again.
func TestKeysOutliveAReboot(t *testing.T) {
	c := hemtest.New(t, nil).Client()
	ctx := t.Context()
	s := signer(t, c, api.Ed25519)
	if err := c.Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	ready, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		sig, err := s.SignMessage(nil, []byte("msg"), nil)
		if err == nil && len(sig) == 64 {
			break
		}
		if ready.Err() != nil || !strings.Contains(fmt.Sprint(err), "HTTP") && !errors.As(err, new(*hem.UnreachableError)) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
