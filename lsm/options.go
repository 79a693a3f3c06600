package lsm

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/flightd/flightd/object"
)

// Defaults of Options.
const (
	defaultMemory        = 1 << 30
	minMemory            = 64 << 20
	defaultMemtableBytes = 64 << 20
	defaultSegmentBytes  = 64 << 20
	defaultStageBytes    = 32 << 20
	defaultRetain        = 24 * time.Hour
	defaultCompaction    = 128 << 20
	defaultScanBatch     = 2
	maxScanBatch         = 64
)

// Options configures a DB. The zero value of each field but Dir is its default.
type Options struct {
	// Dir is the data folder; it is made when it is absent. With Store it is only what messages call the store.
	Dir string
	// Store has the data instead of a folder, for stores that several processes can reach, a bucket for example: see package
	// comment. It must not be the folder of a DB without.
	Store object.Store
	// Takeover takes the data in Store over from a process that lives, which then can write no more. Without it Open waits for
	// a sign of life, and returns ErrInUse when there is one.
	Takeover bool
	// Memory is what memtables, their indexes included, may take together, in bytes. Writers wait when it is
	// spent. Default 1 GiB, at least 64 MiB.
	Memory int64
	// MemtableBytes is the size at which a memtable is frozen and flushed. Default 64 MiB, at most a quarter of
	// Memory, so that one can be written while others are flushed.
	MemtableBytes int64
	// Durability is that of tables which have none of their own. Default Durable.
	Durability Durability
	// LogInterval is how long buffered batches may stay unsynced. Default 100 ms.
	LogInterval time.Duration
	// SegmentBytes is the size of a log segment. Default 64 MiB, or a 64th of the disk if that is less.
	SegmentBytes int64
	// StageBytes is what a stage holds in memory before it spills. Default 32 MiB.
	StageBytes int64
	// Retain is how long superseded versions of a table stay after the version that followed them, and how long files
	// stay that no version ever named. Tags, branches and snapshots keep theirs longer. Default 24 h; less than zero
	// keeps nothing.
	Retain time.Duration
	// CompactionRate bounds what compaction reads and writes together in a second, in bytes, while nobody waits for it: it
	// is lifted for OPTIMIZE and when generations pile up. Default 128 MiB; less than zero is no bound.
	CompactionRate int64
	// ManifestScanBatch is how many versions are asked for in parallel when the newest one of a table or shard is looked for,
	// from the hint forward. More finds the end of a chain that has grown in fewer round trips, and costs that many requests
	// each time. Default 2, at most 64.
	ManifestScanBatch int
	// IdempotencyWindow is how long an idempotency key is remembered after its last news. Default 7 days.
	IdempotencyWindow time.Duration
	// IdempotencyKeys is how many are remembered at most, and no more than fit into a quarter of a log segment: each takes
	// 56 bytes and its text there, because every segment begins with all of them. The oldest go first. Default 100,000.
	IdempotencyKeys int
	// Temp is a local folder for scratch files; what is in it is removed at Open. Default Dir/_flightd/tmp, or with Store a
	// folder of its own among the system's temporary files, which goes with Close.
	Temp string
	// Logger receives what an operator should know. Default: nothing is logged.
	Logger *slog.Logger
	// Events are called at the engine's turning points.
	Events Events

	// wrap, which may be nil, returns what takes the place of the store: tests inject faults. Nobody may exchange the
	// store of a DB that is open, as its goroutines use it.
	wrap func(object.Store) object.Store
	// sortBytes bounds what the rows of an index that is being built take in memory; default defaultSortBytes.
	sortBytes int64
	// eagerOrder has the keys of memtables put in order for every range of them, whatever that costs.
	eagerOrder bool
	// lease is how long the process may show no sign of life before another may take the data in Store over; default
	// defaultLease.
	lease time.Duration
	// manual leaves out compaction in the background: tests order each of its jobs.
	manual bool
}

// Events are functions called at the engine's turning points, each may be nil. They run on the engine's goroutines
// and must return soon.
type Events struct {
	// Flush is called after a memtable became a generation, or could not.
	Flush func(FlushEvent)
	// Optimize is called after the generations of a table became part of its base, or could not.
	Optimize func(OptimizeEvent)
	// Compact is called after fragments or index segments of a base were put together, or could not be.
	Compact func(CompactEvent)
	// Collect is called after files that nothing needs were removed from a table, or could not be.
	Collect func(CollectEvent)
	// Poison is called once when the log failed.
	Poison func(error)
}

// FlushEvent describes a flush.
type FlushEvent struct {
	Table      TableName
	Generation uint64
	Rows       int64
	Bytes      int64
	Duration   time.Duration
	Err        error
}

// OptimizeEvent describes a compaction into the base table.
type OptimizeEvent struct {
	Table       TableName
	Generations int
	Rows        int64
	Version     uint64
	Duration    time.Duration
	Err         error
}

// CompactEvent describes a job of compaction on a base.
type CompactEvent struct {
	Table TableName
	// Job is rewrite, of fragments, or segments, of an index.
	Job string
	// Fragments or Segments is how many became fewer.
	Fragments, Segments int
	// Rows is how many rows or entries were written; Read and Written are about the bytes.
	Rows, Read, Written int64
	Duration            time.Duration
	Err                 error
}

// validate fills in defaults and refuses what cannot work.
func (o *Options) validate() error {
	if o.Dir == "" && o.Store != nil {
		o.Dir = "the store"
	}
	if o.Dir == "" {
		return fmt.Errorf("%w options: Dir, the data folder, is empty", ErrInvalid)
	}
	if o.Memory == 0 {
		o.Memory = defaultMemory
	}
	if o.Memory < minMemory {
		return fmt.Errorf("%w options: Memory is %d bytes, at least %d are needed", ErrInvalid, o.Memory, minMemory)
	}
	if o.MemtableBytes == 0 {
		o.MemtableBytes = defaultMemtableBytes
	}
	o.MemtableBytes = min(o.MemtableBytes, o.Memory/4)
	if o.Durability == "" {
		o.Durability = Durable
	}
	if err := o.Durability.validate(); err != nil {
		return err
	}
	if o.LogInterval < 0 {
		return fmt.Errorf("%w options: LogInterval is %s, it cannot be below 0", ErrInvalid, o.LogInterval)
	}
	if o.StageBytes == 0 {
		o.StageBytes = defaultStageBytes
	}
	switch {
	case o.Retain == 0:
		o.Retain = defaultRetain
	case o.Retain < 0:
		o.Retain = 0
	}
	if o.CompactionRate == 0 {
		o.CompactionRate = defaultCompaction
	}
	if o.ManifestScanBatch == 0 {
		o.ManifestScanBatch = defaultScanBatch
	}
	if o.ManifestScanBatch < 1 || o.ManifestScanBatch > maxScanBatch {
		return fmt.Errorf("%w options: ManifestScanBatch is %d, it is 1 to %d", ErrInvalid, o.ManifestScanBatch, maxScanBatch)
	}
	if o.IdempotencyWindow == 0 {
		o.IdempotencyWindow = defaultIdempotencyWindow
	}
	if o.IdempotencyKeys == 0 {
		o.IdempotencyKeys = defaultIdempotencyKeys
	}
	if o.IdempotencyWindow < 0 || o.IdempotencyKeys < 0 {
		return fmt.Errorf("%w options: IdempotencyWindow is %s and IdempotencyKeys %d, neither can be below 0", ErrInvalid, o.IdempotencyWindow, o.IdempotencyKeys)
	}
	if o.lease == 0 {
		o.lease = defaultLease
	}
	if o.Temp == "" && o.Store == nil {
		o.Temp = filepath.Join(o.Dir, systemFolder, "tmp")
	}
	if o.sortBytes == 0 {
		o.sortBytes = defaultSortBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}
