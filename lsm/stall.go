package lsm

import (
	"sync/atomic"
	"time"
)

// StallCause is what a writer has to wait for.
type StallCause string

const (
	// StallMemory is: the memory for memtables is spent, and a flush has to give some back.
	StallMemory StallCause = "memory"
	// StallGenerations is: too many generations lie in front of a base, and have to be merged first.
	StallGenerations StallCause = "generations"
	// StallDisk is: the disk is nearly full, and what can be merged and collected is.
	StallDisk StallCause = "disk"
)

// StallStats tells how writers waited for one cause.
type StallStats struct {
	Cause StallCause
	// Waiting writers wait now. Count is how often one had to since Open, and Waited for how long, together; waits that
	// are not over do not count there.
	Waiting, Count int64
	Waited         time.Duration
}

// stalls count the waits of writers. The zero value is ready to use.
type stalls struct {
	memory, generations, disk stallCounter
}

// stallCounter counts the waits for one cause.
type stallCounter struct {
	count, waiting, nanos atomic.Int64
}

// begin notes that a writer waits, until end is called.
func (c *stallCounter) begin() (end func()) {
	c.count.Add(1)
	c.waiting.Add(1)
	start := time.Now()
	return func() {
		c.waiting.Add(-1)
		c.nanos.Add(int64(time.Since(start)))
	}
}

// stats returns the counts under the name of their cause.
func (c *stallCounter) stats(cause StallCause) StallStats {
	return StallStats{Cause: cause, Waiting: c.waiting.Load(), Count: c.count.Load(), Waited: time.Duration(c.nanos.Load())}
}

// stats returns the counts of all causes.
func (s *stalls) stats() []StallStats {
	return []StallStats{s.memory.stats(StallMemory), s.generations.stats(StallGenerations), s.disk.stats(StallDisk)}
}
