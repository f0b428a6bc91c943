package audit

import (
	"context"
	"testing"

	"softhem/internal/store"
	"softhem/internal/store/sqlitestore"
)

// openStore opens the store at path, or in memory for "".
func openStore(t testing.TB, path string) store.Store {
	t.Helper()
	s, err := sqlitestore.Open(context.Background(), sqlitestore.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
