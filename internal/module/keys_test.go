package module

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"softhem/api"
	"softhem/internal/keyring"
	"softhem/internal/store"
	"softhem/internal/suite"
)

// enter is a pass for an operation on keys, over TLS.
func enter(t *testing.T, m *Module, op Op, token string) *Pass {
	t.Helper()
	p, err := m.Enter(t.Context(), op, Caller{Addr: netip.MustParseAddr("127.0.0.1"), TLS: true, Bearer: token, HasBearer: token != ""})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// plant stores a key with a descr that no request may give it.
func plant(t *testing.T, m *Module, descr string) (kid store.KID) {
	t.Helper()
	a, _ := suite.AlgorithmOf(api.AES128)
	row, err := m.keys.Prepare(keyring.NewKey{Algorithm: a, Material: a.NewMaterial(), Label: "planted", Descr: []byte(descr)}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.cfg.Store.Update(t.Context(), func(tx store.Tx) error { return m.keys.Insert(t.Context(), tx, row) }); err != nil {
		t.Fatal(err)
	}
	return row.KID
}

// The descr of a pairing is neither given nor taken by an update; its label
// may change.
func TestPairingsKeepTheirDescr(t *testing.T) {
	m := open(t, nil)
	token := personalise(t, m, api.ScopeKeyUpdate)
	const pairing = "EXTAID of an authenticator"
	paired, plain := plant(t, m, pairing), plant(t, m, "of a key")
	for _, c := range []struct {
		what  string
		kid   store.KID
		descr string
		want  error
	}{
		{"the label of a pairing", paired, pairing, nil},
		{"the descr of a pairing", paired, "EXTAID of another", api.ErrNotAcceptable},
		{"the descr of a pairing, cleared", paired, "", api.ErrNotAcceptable},
		{"the descr of a pairing, made another's", paired, "of a key", api.ErrNotAcceptable},
		{"the descr of a key, made a pairing's", plain, pairing, api.ErrNotAcceptable},
		{"the descr of a key", plain, "", nil},
	} {
		err := m.KeyUpdate(t.Context(), enter(t, m, OpKeyUpdate, token), api.KeyUpdate{
			KID: hex.EncodeToString(c.kid[:]), Label: "new", Descr: api.EncodeBase64([]byte(c.descr)),
		})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
	info, err := m.keys.Info(t.Context(), paired)
	if err != nil || string(info.Descr) != pairing || info.Label != "new" {
		t.Errorf("the pairing is %+v, %v", info, err)
	}
}

// An operation with a key is admitted for the key of its token and no other,
// also when it skips the step.
func TestNoKeyWithoutAdmission(t *testing.T) {
	m := open(t, nil)
	kid, other := plant(t, m, ""), plant(t, m, "")
	token := personalise(t, m, api.ScopeKeyUse(hex.EncodeToString(kid[:])))
	p := enter(t, m, OpEncrypt, token)
	if _, err := m.Admit(t.Context(), p, hex.EncodeToString(other[:])); !errors.Is(err, api.ErrForbidden) {
		t.Errorf("admission to another key: %v", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a key was used without admission")
			}
		}()
		m.use(t.Context(), p, other, 0, func(*use, *keyring.Key) error {
			t.Error("the key was handed out")
			return nil
		})
	}()
	if got, err := m.Admit(t.Context(), p, hex.EncodeToString(kid[:])); err != nil || got != kid {
		t.Errorf("admission to the token's key: %x, %v", got, err)
	}
}

// A sweep that runs is ended by a reboot and by the end of the module, and the
// damage it would have found is found by the next.
func TestSweepsEnd(t *testing.T) {
	m := open(t, nil)
	token := personalise(t, m, api.ScopeSystemConfig)
	a, _ := suite.AlgorithmOf(api.AES128)
	var last store.Key
	if err := m.cfg.Store.Update(t.Context(), func(tx store.Tx) error {
		for n := range 3000 { // many batches of a sweep, which rests between them
			row, err := m.keys.Prepare(keyring.NewKey{Algorithm: a, Material: a.NewMaterial(), Label: fmt.Sprint(n)}, 1)
			if err != nil {
				return err
			}
			if err := m.keys.Insert(t.Context(), tx, row); err != nil {
				return err
			}
			last = row
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := m.cfg.Store.Update(t.Context(), func(tx store.Tx) error {
		last.Sealed[9] ^= 1
		return tx.UpdateKey(t.Context(), last)
	}); err != nil {
		t.Fatal(err)
	}
	running := func() chan struct{} {
		m.sweep.mu.Lock()
		defer m.sweep.mu.Unlock()
		return m.sweep.done
	}
	for range 3 {
		before := running()
		if err := m.Reboot(t.Context(), enter(t, m, OpReboot, token)); err != nil {
			t.Fatal(err)
		}
		select {
		case <-before:
		default:
			t.Error("a sweep outlived its boot")
		}
		p := &Pass{state: m.state.Load(), now: m.clock.peek(true)}
		var err error
		if token, err = p.state.boot.IssueToken(m.tokenClaims(p, api.RoleUser, api.ScopeSystemConfig, p.now+3600, ""), p.state); err != nil {
			t.Fatal(err)
		}
	}
	<-running() // of the last boot: it is left to end by itself
	if fls := m.FailState(); fls != flsDataIntegrity {
		t.Errorf("fail state %02x, want 08", fls)
	}
	if err := m.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
