package hem

import (
	"context"
	"sync"
)

// flights lets callers who want the same thing at the same time share one
// attempt. The attempt belongs to all of them: it has no deadline of its own,
// goes on when the caller who began it leaves, and is cancelled when the last
// one has left.
type flights[V any] struct {
	mu      sync.Mutex
	running map[string]*flight[V]
}

type flight[V any] struct {
	done    chan struct{} // closed when value and err are final
	value   V
	err     error
	waiting int // callers still there; guarded by flights.mu
	cancel  context.CancelFunc
}

func (g *flights[V]) do(ctx context.Context, key string, work func(context.Context) (V, error)) (V, error) {
	g.mu.Lock()
	f := g.running[key]
	if f == nil {
		shared, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f = &flight[V]{done: make(chan struct{}), cancel: cancel}
		if g.running == nil {
			g.running = make(map[string]*flight[V])
		}
		g.running[key] = f
		go func() {
			defer cancel()
			f.value, f.err = work(shared)
			g.mu.Lock()
			g.retire(key, f)
			g.mu.Unlock()
			close(f.done)
		}()
	}
	f.waiting++
	g.mu.Unlock()

	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		g.mu.Lock()
		defer g.mu.Unlock()
		if f.waiting--; f.waiting == 0 {
			g.retire(key, f) // nobody may join what is being cancelled
			f.cancel()
		}
		var none V
		return none, ctx.Err()
	}
}

// retire makes the next caller begin anew. g.mu is held.
func (g *flights[V]) retire(key string, f *flight[V]) {
	if g.running[key] == f {
		delete(g.running, key)
	}
}
