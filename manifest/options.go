package manifest

import "sync"

// Options tune how versions are found, and how a shard is made. The zero value is the default.
type Options struct {
	// ScanBatch is the number of versions asked for in parallel when looking for the newest; default 2. More helps
	// in a bucket with many writers, and costs that many requests each time.
	ScanBatch int
	// Warn is told what went wrong without harm, such as a hint that could not be written; default silence.
	Warn func(msg string, err error)
	// Synced, which may be nil, is kept by the caller over the commits to one table.
	Synced *Synced
	// Bucket is the bucket of a table's rows that a shard has which ClaimShard makes, nil when it is the only shard.
	Bucket *int
	// Epoch is what ClaimShard raises the epoch of a shard to; 0 is the next one. Who has been given epochs of which no two
	// processes have the same claims with those: then a shard that has the epoch is the caller's already.
	Epoch uint64
}

// defaultScanBatch suits a chain that has mostly not grown since the hint: one request for the next version, and
// one spare to notice a rival in the same round trip.
const defaultScanBatch = 2

// maxScanBatch bounds the goroutines of one step.
const maxScanBatch = 64

func (o Options) scanBatch() int {
	if o.ScanBatch <= 0 {
		return defaultScanBatch
	}
	return min(o.ScanBatch, maxScanBatch)
}

func (o Options) warn(msg string, err error) {
	if o.Warn != nil {
		o.Warn(msg, err)
	}
}

// Synced remembers the files of a table that are known to be durable, so that commits on top of other programs' versions
// sync only what came since. The zero value knows none. It is safe for concurrent use.
type Synced struct {
	mu    sync.Mutex
	names map[string]bool
}

// missing returns the names that are not known to be durable.
func (s *Synced) missing(names []string) []string {
	if s == nil {
		return names
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, name := range names {
		if !s.names[name] {
			out = append(out, name)
		}
	}
	return out
}

// set notes that the files of a version are durable, and forgets all others.
func (s *Synced) set(names []string) {
	if s == nil {
		return
	}
	known := make(map[string]bool, len(names))
	for _, name := range names {
		known[name] = true
	}
	s.mu.Lock()
	s.names = known
	s.mu.Unlock()
}
