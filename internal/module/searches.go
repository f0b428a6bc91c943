package module

import (
	"context"
	"time"
)

// searches bounds what searches for keys may take. One with many hits goes
// through every descr there is, and all reading of the store shares few
// connections: searches must leave some of them to the keys in use. Who waits
// here holds nothing but a request, and a caller who hangs up waits no longer.
type searches struct {
	all  chan struct{} // a place each
	open chan struct{} // the one place of those without a token
}

const (
	searchesAtOnce = 2
	// openRest is how long the place of those without a token stays empty after
	// a search, as a multiple of what that took: strangers, all together, get a
	// fifth of one processor.
	openRest = 4
)

func newSearches() searches {
	return searches{make(chan struct{}, searchesAtOnce), make(chan struct{}, 1)}
}

// enter waits for a place, or until ctx ends. leave has to be called when the
// search is over.
func (s *searches) enter(ctx context.Context, open bool) (leave func(), err error) {
	if open {
		select {
		case s.open <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	select {
	case s.all <- struct{}{}:
	case <-ctx.Done():
		if open {
			<-s.open
		}
		return nil, ctx.Err()
	}
	start := time.Now()
	return func() {
		<-s.all
		if open {
			time.AfterFunc(openRest*time.Since(start), func() { <-s.open })
		}
	}, nil
}
