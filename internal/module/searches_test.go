package module

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Searches without a token take turns, and rest in between; those with one do
// not wait for that.
func TestStrangersSearchOneByOneAndRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, begin := newSearches(), time.Now()
		for range 5 {
			go func() {
				leave, err := s.enter(t.Context(), true)
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Second) // the search
				leave()
			}()
		}
		time.Sleep(500 * time.Millisecond)
		leave, err := s.enter(t.Context(), false) // beside the stranger's
		if err != nil || time.Since(begin) != 500*time.Millisecond {
			t.Errorf("a search with a token waited %v for those without: %v", time.Since(begin)-500*time.Millisecond, err)
		}
		leave()
		leave, err = s.enter(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		leave()
		if took := time.Since(begin); took < 5*time.Second || took > 25*time.Second+time.Second {
			t.Errorf("the sixth search without a token came after %v", took)
		}
		synctest.Wait()
	})
}

// A caller who hangs up leaves the line, and takes no place with it.
func TestASearchThatIsGivenUpLeavesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSearches()
		var leaves []func()
		for range searchesAtOnce {
			leave, err := s.enter(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			leaves = append(leaves, leave)
		}
		for _, open := range []bool{true, false} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := s.enter(ctx, open); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("open %v: %v", open, err)
			}
			cancel()
		}
		for _, leave := range leaves {
			leave()
		}
		begin := time.Now()
		for _, open := range []bool{true, false} {
			leave, err := s.enter(t.Context(), open)
			if err != nil || time.Since(begin) > 0 {
				t.Errorf("open %v: waited %v, %v", open, time.Since(begin), err)
			}
			leave()
		}
	})
}
