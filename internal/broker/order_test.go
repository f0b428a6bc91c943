package broker_test

import (
	"testing"
	"time"

	"softhem/api"
	"softhem/hem"
	"softhem/hemtest"
	"softhem/internal/broker"
)

// TestThreat_T101: of the modules at one broker, an order to wipe reaches the one
// whose instance id the operator holds, and no other: not one that checks in
// first, or again and again, nor one that is fresh.
func TestThreat_T101_AnOrderReachesOneModule(t *testing.T) {
	ctx := t.Context()
	s := startBroker(t, "")
	lost, other := s.module(hemtest.Options{}), s.module(hemtest.Options{Seed: "other"})
	fresh := s.module(hemtest.Options{Seed: "fresh", Fresh: true})
	checkIn := func(m *hemtest.Module, want string) {
		t.Helper()
		if r, err := stranger(t, m).CheckIn(ctx, s.url); err != nil || r.Status != want {
			t.Errorf("check-in: %+v, %v, want %s", r, err, want)
		}
	}
	kid, err := other.Client().CreateKey(ctx, hem.KeySpec{Type: api.Ed25519, Label: "stays"})
	if err != nil {
		t.Fatal(err)
	}
	conf, err := lost.Client().Config(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := broker.Order(s.db, "wipe", conf.InstanceID); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		checkIn(other, "OK")
		checkIn(fresh, "OK")
	}
	checkIn(lost, "W")
	for range 3 {
		checkIn(other, "OK")
		checkIn(fresh, "OK")
	}
	eventually := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("never: " + what)
			}
		}
	}
	anybody, err := hem.New(hem.Config{URL: lost.HTTPURL})
	if err != nil {
		t.Fatal(err)
	}
	defer anybody.Close()
	eventually("the lost module is a fresh one", func() bool {
		st, err := anybody.Status(ctx)
		return err == nil && st.Inited != nil && !*st.Inited
	})
	// What has taken its place has another instance id, so the order, which is
	// still kept, is over.
	if r, err := anybody.CheckIn(ctx, s.url); err != nil || r.Status != "OK" {
		t.Errorf("the fresh module in its place: %+v, %v", r, err)
	}
	if _, err := other.Client().Sign(ctx, kid, []byte("m"), "Ed25519", nil); err != nil {
		t.Errorf("the other module: %v", err)
	}
	if st, err := stranger(t, other).Status(ctx); err != nil || st.Inited != nil || st.FLSState != 0 {
		t.Errorf("the other module: %+v, %v", st, err)
	}
}
