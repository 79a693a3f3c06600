package ivf

import (
	"container/list"
	"sync"
)

// cache keeps the partitions that were probed last. Reading one from a mapped file costs little, but decoding it from another
// version, or reading it from a store that cannot map, does not.
type cache struct {
	limit int64

	mu sync.Mutex
	// The fields below are guarded by mu.
	held  map[int]*list.Element
	order list.List // of *cached, the last used in front
	bytes int64
}

type cached struct {
	number int
	p      *partition
}

// get returns a partition for the caller to release, nil if it is not here.
func (c *cache) get(number int) *partition {
	if c.limit < 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.held[number]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	p := e.Value.(*cached).p
	p.retain()
	return p
}

// put keeps a partition, if there is room, and returns the one to use, for the caller to release: that of another search
// which was quicker, or p.
func (c *cache) put(number int, p *partition) *partition {
	if p.bytes() > c.limit {
		return p
	}
	if other := c.get(number); other != nil {
		p.release()
		return other
	}
	p.retain()
	c.mu.Lock()
	var old []*partition
	if c.held == nil {
		c.held = map[int]*list.Element{}
	}
	if e := c.held[number]; e != nil {
		old = append(old, c.removeLocked(e))
	}
	c.held[number] = c.order.PushFront(&cached{number, p})
	c.bytes += p.bytes()
	for c.bytes > c.limit {
		old = append(old, c.removeLocked(c.order.Back()))
	}
	c.mu.Unlock()
	for _, p := range old {
		p.release()
	}
	return p
}

func (c *cache) removeLocked(e *list.Element) *partition {
	held := c.order.Remove(e).(*cached)
	delete(c.held, held.number)
	c.bytes -= held.p.bytes()
	return held.p
}

// clear forgets all partitions.
func (c *cache) clear() {
	c.mu.Lock()
	var old []*partition
	for c.order.Len() > 0 {
		old = append(old, c.removeLocked(c.order.Back()))
	}
	c.mu.Unlock()
	for _, p := range old {
		p.release()
	}
}
