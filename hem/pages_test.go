package hem

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"softhem/api"
)

// A list that can change between any two pages.
type changingList struct {
	keys    []KID
	next    int // makes the next key
	deleted int
	pages   int
}

func (l *changingList) create() {
	l.next++
	l.keys = append(l.keys, KID{byte(l.next >> 16), byte(l.next >> 8), byte(l.next)})
}

func (l *changingList) delete(i int) {
	l.keys = slices.Delete(l.keys, i, i+1)
	l.deleted++
}

func (l *changingList) page(offset int) (*KeyPage, error) {
	l.pages++
	p := &KeyPage{Offset: offset, Total: len(l.keys), Deleted: l.deleted}
	for _, kid := range l.keys[min(offset, len(l.keys)):min(offset+api.MaxPageKeys, len(l.keys))] {
		p.Keys = append(p.Keys, KeyInfo{KID: kid})
	}
	return p, nil
}

// Every key that is there all the time comes once, in order, whatever is deleted and made
// meanwhile, and none comes twice.
func TestAllPagesWhileTheListChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &changingList{}
		for range rapid.IntRange(0, 100).Draw(t, "keys") {
			l.create()
		}
		there := slices.Clone(l.keys)
		changes := rapid.IntRange(0, 60).Draw(t, "changes")
		var got []KID
		for k, err := range allPages(opList, func(offset int) (*KeyPage, error) {
			for range rapid.IntRange(0, min(20, changes)).Draw(t, "now") {
				changes--
				if len(l.keys) > 0 && rapid.IntRange(0, 3).Draw(t, "what") > 0 {
					l.delete(rapid.IntRange(0, len(l.keys)-1).Draw(t, "which"))
				} else {
					l.create()
				}
			}
			return l.page(offset)
		}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, k.KID)
		}
		if !slices.IsSortedFunc(got, compareKIDs) {
			t.Fatalf("out of order: %v", got)
		}
		if len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Fatalf("a key came twice: %v", got)
		}
		for _, kid := range there {
			if slices.Contains(l.keys, kid) && !slices.Contains(got, kid) {
				t.Fatalf("%v was there all the time and did not come", kid)
			}
		}
	})
}

func compareKIDs(a, b KID) int { return slices.Compare(a[:], b[:]) }

// A list that keeps still is read with few requests more than it has pages.
func TestAllPagesAsksNoMoreThanNeeded(t *testing.T) {
	for keys, pages := range map[int]int{0: 1, 1: 1, 15: 1, 16: 2, 29: 2, 30: 3, 1401: 100} {
		l := &changingList{}
		for range keys {
			l.create()
		}
		n := 0
		for _, err := range allPages(opList, l.page) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != keys || l.pages != pages {
			t.Errorf("%d keys of %d with %d requests, not %d", n, keys, l.pages, pages)
		}
	}
}

func TestAllPagesStops(t *testing.T) {
	l := &changingList{}
	for range 40 {
		l.create()
	}
	for range allPages(opList, l.page) {
		break
	}
	if l.pages != 1 {
		t.Errorf("%d requests for one key", l.pages)
	}

	refused := errors.New("refused")
	for name, page := range map[string]func(int) (*KeyPage, error){
		"error": func(offset int) (*KeyPage, error) {
			if offset > 0 {
				return nil, refused
			}
			return l.page(offset)
		},
		"the same page for ever": func(int) (*KeyPage, error) {
			p, _ := l.page(0)
			p.Total = 1 << 20
			return p, nil
		},
		"empty pages for ever": func(offset int) (*KeyPage, error) {
			if offset > 0 {
				return &KeyPage{Offset: offset, Total: 1 << 20}, nil
			}
			return l.page(0)
		},
		"one key to a page, and another each time": func() func(int) (*KeyPage, error) {
			n := 0
			return func(int) (*KeyPage, error) {
				n++
				return &KeyPage{Total: 1 << 20, Keys: []KeyInfo{{KID: KID{byte(n >> 8), byte(n)}}}}, nil
			}
		}(),
	} {
		var last error
		var lastKey KeyInfo
		n := 0
		for k, err := range allPages(opList, page) {
			if last != nil {
				t.Errorf("%s: it goes on after %v", name, last)
			}
			lastKey, last = k, err
			n++
		}
		if !errors.Is(last, ErrProtocol) && !errors.Is(last, refused) || lastKey.KID != (KID{}) {
			t.Errorf("%s: after %d keys %v, %v", name, n, lastKey, last)
		}
	}
}
