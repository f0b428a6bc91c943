package broker

import (
	"context"
	"maps"
	"slices"
	"testing"

	"softhem/internal/broker/brokerdb"
)

// CAForTest is the CA with its key, as it is kept.
func CAForTest(ctx context.Context, t testing.TB, db *brokerdb.DB) caRecord {
	t.Helper()
	rec, err := load[caRecord](ctx, db, kindCA, idCA)
	if err != nil || rec == nil {
		t.Fatalf("the CA: %v", err)
	}
	return *rec
}

// SubscribersForTest is how many pairings the broker knows.
func (b *Broker) SubscribersForTest() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subscribers)
}

// PatternsForTest are the routes.
func PatternsForTest() []string { return slices.Collect(maps.Keys(routes())) }
