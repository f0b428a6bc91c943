package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"

	"softhem/internal/store"
)

// A model is what a store must behave like.
type model struct {
	records map[record]string
	tail    *store.LogTail
}

type record struct {
	kind store.Kind
	id   string
}

func (m model) clone() model { return model{maps.Clone(m.records), m.tail} }

// stateMachine runs random transactions on the store and on a model, and
// compares them after each.
func stateMachine(t *testing.T, s store.Store) {
	ctx, round := t.Context(), 0
	ids := rapid.SampledFrom([]string{"", "a", "b", "\x00", "a\x00", "\xff"})
	rapid.Check(t, func(t *rapid.T) {
		// The store is the same in every round, so each has its own kinds.
		round++
		kinds := rapid.SampledFrom([]store.Kind{store.Kind(fmt.Sprint(round)), store.Kind(fmt.Sprint(round, "'"))})
		m := model{records: map[record]string{}}
		if tail, err := s.LogTail(ctx); err == nil {
			m.tail = &tail
		} else if !errors.Is(err, store.ErrNotFound) {
			t.Fatal(err)
		}
		draw := func() record { return record{kinds.Draw(t, "kind"), ids.Draw(t, "id")} }

		t.Repeat(map[string]func(*rapid.T){
			"update": func(t *rapid.T) {
				next := m.clone()
				fails := rapid.Bool().Draw(t, "fails")
				err := s.Update(ctx, func(tx store.Tx) error {
					if err := steps(ctx, t, tx, &next, draw, 0); err != nil {
						return err
					}
					if fails {
						return errTest
					}
					return nil
				})
				if fails != (err != nil) || err != nil && err != errTest {
					t.Fatalf("Update: %v", err)
				}
				if !fails {
					m = next
				}
			},
			"": func(t *rapid.T) {
				if err := s.View(ctx, func(r store.Reader) error {
					for _, k := range []store.Kind{store.Kind(fmt.Sprint(round)), store.Kind(fmt.Sprint(round, "'"))} {
						for _, id := range []string{"", "a", "b", "\x00", "a\x00", "\xff"} {
							compare(ctx, t, r, m, record{k, id})
						}
					}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				tail, err := s.LogTail(ctx)
				switch {
				case m.tail == nil:
					if !errors.Is(err, store.ErrNotFound) {
						t.Fatalf("tail %v, %v; want none", tail, err)
					}
				case err != nil || tail.File != m.tail.File || tail.Offset != m.tail.Offset || !bytes.Equal(tail.Lines, m.tail.Lines):
					t.Fatalf("tail %v, %v; want %v", tail, err, *m.tail)
				}
			},
		})
	})
}

// steps does random work in a transaction, and on the model.
func steps(ctx context.Context, t *rapid.T, tx store.Tx, m *model, draw func() record, depth int) error {
	for range rapid.IntRange(0, 5).Draw(t, "steps") {
		switch rapid.SampledFrom([]string{"put", "put", "delete", "get", "tail", "attempt"}).Draw(t, "step") {
		case "put":
			r, value := draw(), rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "value")
			if rapid.IntRange(0, 9).Draw(t, "long") == 0 {
				value = bytes.Repeat(append(value, 'x'), 600) // beyond one page
			}
			if err := tx.Put(ctx, r.kind, r.id, value); err != nil {
				return err
			}
			m.records[r] = string(value)
		case "delete":
			r := draw()
			_, has := m.records[r]
			if err := tx.Delete(ctx, r.kind, r.id); has != (err == nil) || err != nil && !errors.Is(err, store.ErrNotFound) {
				t.Fatalf("deleting %q, there %t: %v", r, has, err)
			}
			delete(m.records, r)
		case "get":
			compare(ctx, t, tx, *m, draw())
		case "tail":
			tail := store.LogTail{
				File:   rapid.String().Draw(t, "file"),
				Offset: rapid.Int64Min(0).Draw(t, "offset"),
				Lines:  rapid.SliceOf(rapid.Byte()).Draw(t, "lines"),
			}
			if err := tx.SetLogTail(ctx, tail); err != nil {
				return err
			}
			m.tail = &tail
		case "attempt":
			if depth == 3 {
				continue
			}
			next, fails := m.clone(), rapid.Bool().Draw(t, "attempt fails")
			err := tx.Attempt(ctx, func() error {
				if err := steps(ctx, t, tx, &next, draw, depth+1); err != nil {
					return err
				}
				if fails {
					return errTest
				}
				return nil
			})
			if fails != (err != nil) || err != nil && err != errTest {
				t.Fatalf("Attempt: %v", err)
			}
			if !fails {
				*m = next
			}
		}
	}
	return nil
}

func compare(ctx context.Context, t *rapid.T, r store.Reader, m model, of record) {
	want, has := m.records[of]
	got, err := r.Get(ctx, of.kind, of.id)
	if has && (err != nil || string(got) != want) || !has && !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("%q is %q, %v; want %q, there %t", of, got, err, want, has)
	}
}
