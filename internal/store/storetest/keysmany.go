package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"softhem/internal/store"
)

// However a store groups keys, none is missing from a list or search, or there
// twice, while there are more and more, and then fewer.
func keysGrow(t *testing.T, s store.Store) {
	ctx := t.Context()
	const keys = 600
	update(t, s, func(tx store.Tx) error {
		check := func(from, n int) {
			list, err := tx.ListKeys(ctx, int64(n-1), 10)
			found, err2 := tx.SearchKeys(ctx, store.Needle{Bytes: []byte("escr ")}, int64(n-1), 10)
			want := fmt.Sprint("key ", from+n-1)
			if got := labelsOf(list.Keys); err != nil || got != want || list.Total != int64(n) {
				t.Fatalf("the last of %d listed is %q of %d, %v; want %q", n, got, list.Total, err, want)
			}
			if got := labelsOf(found.Keys); err2 != nil || got != want || found.Total != int64(n) {
				t.Fatalf("the last of %d found is %q of %d, %v; want %q", n, got, found.Total, err2, want)
			}
		}
		for n := range keys {
			if err := tx.InsertKey(ctx, key(n)); err != nil {
				return err
			}
			check(0, n+1)
		}
		for n := range keys - 1 {
			if err := tx.DeleteKey(ctx, key(n).KID); err != nil {
				return err
			}
			check(n+1, keys-n-1)
		}
		return nil
	})
}

// No reader sees a key that is half done, or a list that does not add up.
func keysReadDuringWrites(t *testing.T, s store.Store) {
	ctx := t.Context()
	insertKeys(t, s, key(0))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				err := s.View(ctx, func(r store.Reader) error {
					list, err := r.ListKeys(ctx, 0, 1000)
					if err != nil {
						return err
					}
					found, err := r.SearchKeys(ctx, store.Needle{Bytes: []byte("escr")}, 0, 1000)
					if err != nil {
						return err
					}
					counts, err := r.CountKeys(ctx)
					if labelsOf(list.Keys) != labelsOf(found.Keys) || int64(len(list.Keys)) != list.Total || found.Total != list.Total || counts.Live != list.Total {
						t.Errorf("%d listed of %d, %d found of %d, %d counted", len(list.Keys), list.Total, len(found.Keys), found.Total, counts.Live)
					}
					for _, k := range list.Keys {
						if !bytes.Equal(k.Sealed, sealed(int(k.Created-1000))) {
							t.Errorf("%q has another's sealed part", k.Label)
						}
					}
					return err
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for n := range 150 {
		update(t, s, func(tx store.Tx) error {
			return errors.Join(tx.InsertKey(ctx, key(n+1)), func() error {
				if n%3 == 0 {
					return tx.DeleteKey(ctx, key(n).KID)
				}
				return nil
			}())
		})
		if n%20 == 0 {
			if err := s.Scrub(ctx); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	wg.Wait()
}
