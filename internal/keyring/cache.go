package keyring

import (
	"container/list"
	"sync"

	"softhem/internal/store"
)

// A cache keeps opened keys, the least recently used going first. It is cut in
// shards, so that no two keys in use need wait for each other's lock, and it is
// this node's own: a cluster has to call forget on every node before a delete
// is answered.
type cache struct {
	shards [cacheShards]shard
}

const cacheShards = 16

type shard struct {
	mu    sync.Mutex
	keys  map[store.KID]*list.Element // of *Key
	order list.List                   // most recently used first
	bytes int                         // of all keys here
	limit int
	// forgot counts what was forgotten. A key read from the store before
	// that must not come in after it.
	forgot uint64
}

// A loading is a key on its way from the store.
type loading struct {
	shard  *shard
	forgot uint64
}

func newCache(limit int) *cache {
	c := new(cache)
	for i := range c.shards {
		c.shards[i].keys = make(map[store.KID]*list.Element)
		c.shards[i].limit = limit / cacheShards
	}
	return c
}

func (c *cache) shard(kid store.KID) *shard { return &c.shards[kid[0]%cacheShards] }

// get returns an open key or nil.
func (c *cache) get(kid store.KID) *Key {
	s := c.shard(kid)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.keys[kid]
	if e == nil {
		return nil
	}
	s.order.MoveToFront(e)
	return e.Value.(*Key)
}

// begin is called before a key is read from the store.
func (c *cache) begin(kid store.KID) loading {
	s := c.shard(kid)
	s.mu.Lock()
	defer s.mu.Unlock()
	return loading{s, s.forgot}
}

// put keeps a key, unless something was forgotten since begin.
func (c *cache) put(l loading, k *Key) {
	s := l.shard
	size := keyBytes(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forgot != l.forgot || s.keys[k.KID] != nil || size > s.limit {
		return
	}
	s.keys[k.KID] = s.order.PushFront(k)
	s.bytes += size
	for s.bytes > s.limit {
		s.remove(s.order.Back())
	}
}

func (c *cache) forget(kid store.KID) {
	s := c.shard(kid)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgot++
	if e := s.keys[kid]; e != nil {
		s.remove(e)
	}
}

func (c *cache) forgetAll() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.forgot++
		clear(s.keys)
		s.order.Init()
		s.bytes = 0
		s.mu.Unlock()
	}
}

// remove is called with the lock held.
func (s *shard) remove(e *list.Element) {
	k := s.order.Remove(e).(*Key)
	delete(s.keys, k.KID)
	s.bytes -= keyBytes(k)
}

// keyBytes is what a key costs in memory, roughly: itself, its public key and
// its place in map and list.
func keyBytes(k *Key) int {
	const place = 512
	return place + len(k.Info.Public) + len(k.Descr) + k.Key.MemoryBytes()
}
