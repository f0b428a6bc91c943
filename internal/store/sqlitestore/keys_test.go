package sqlitestore

import (
	"bytes"
	"fmt"
	"testing"

	"softhem/internal/store"
)

// testKey is key n of a test; its sealed part and its kid tell n.
func testKey(n int) store.Key {
	k := store.Key{
		Type: "ATT,PKEY,ExDSA,ED25519", Created: 1_700_000_000 + int64(n), Updated: 1_700_000_000 + int64(n),
		Label: fmt.Sprint("key ", n), Descr: fmt.Appendf(nil, "descr of key %d", n), Public: bytes.Repeat([]byte{byte(n)}, 32),
		Sealed: sealedPart(fmt.Sprintf("<mark %06d>", n)),
	}
	copy(k.KID[:], fmt.Sprintf("%016d", n))
	return k
}

// sealedPart is a mark over and over, so that any rest of it is found.
func sealedPart(mark string) []byte {
	return bytes.Repeat([]byte(mark), store.SealedKeyBytes/len(mark)+1)[:store.SealedKeyBytes]
}

func TestKeySmoke(t *testing.T) {
	for _, path := range []string{"", newPath(t)} {
		s, ctx := open(t, path), t.Context()
		if err := s.Update(ctx, func(tx store.Tx) error {
			for n := range 300 {
				if err := tx.InsertKey(ctx, testKey(n)); err != nil {
					return err
				}
			}
			if err := tx.DeleteKey(ctx, testKey(7).KID); err != nil {
				return err
			}
			return tx.UpdateKey(ctx, testKey(9))
		}); err != nil {
			t.Fatal(err)
		}
		if err := s.View(ctx, func(r store.Reader) error {
			page, err := r.ListKeys(ctx, 250, 15)
			if err != nil || page.Total != 299 || len(page.Keys) != 15 || page.Keys[0].Label != "key 251" {
				t.Errorf("%+v, %v", page, err)
			}
			page, err = r.SearchKeys(ctx, store.Needle{Bytes: []byte("y 29")}, 1, 15)
			if err != nil || page.Total != 11 || len(page.Keys) != 10 || page.Keys[0].Label != "key 290" {
				t.Errorf("%+v, %v", page, err)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := s.Scrub(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
