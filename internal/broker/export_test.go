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

// OrderForTest is where at the CA the certificate of a name was ordered, as it is
// kept; empty if it was not.
func OrderForTest(ctx context.Context, t testing.TB, db *brokerdb.DB, prefix string) string {
	t.Helper()
	i, err := load[issue](ctx, db, kindIssue, prefix)
	if err != nil || i == nil {
		t.Fatalf("the issue for %s: %v", prefix, err)
	}
	return i.Order
}

// IssueForTest is the id that who asked for the certificate of a name was given.
func IssueForTest(ctx context.Context, t testing.TB, db *brokerdb.DB, prefix string) string {
	t.Helper()
	i, err := load[issue](ctx, db, kindIssue, prefix)
	if err != nil || i == nil {
		t.Fatalf("the issue for %s: %v", prefix, err)
	}
	return i.ID
}

// SerialIDForTest is a serial number as it is looked for.
func SerialIDForTest(number []byte) string { return serialID(number) }
