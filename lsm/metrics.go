package lsm

import (
	"fmt"
	"sync/atomic"
)

// counters are what the engine counts while it runs.
type counters struct {
	batches, rows, bytes              atomic.Int64
	flushes, flushErrors, compactions atomic.Int64
	flushed                           atomic.Int64 // bytes

	compactJobs, compactRead, compactWritten atomic.Int64

	collectedVersions, collectedFiles, collectedBytes atomic.Int64
}

// Metrics is the engine's state in numbers, as of one call of DB.Metrics.
type Metrics struct {
	// Tables is the number of tables.
	Tables int64
	// Batches, Rows and Bytes were accepted since Open.
	Batches, Rows, Bytes int64
	// MemtableBytes is held by memtables, their indexes included, out of MemoryLimit.
	MemtableBytes, MemoryLimit int64
	// Stalls is how often a writer has had to wait for memory.
	Stalls int64
	// FrozenMemtables wait for their flush.
	FrozenMemtables int64
	// Generations lie in front of the base tables.
	Generations int64
	// IdempotencyKeys are remembered.
	IdempotencyKeys int64
	// Flushes, FlushErrors and Compactions happened since Open.
	Flushes, FlushErrors, Compactions int64
	// FlushedBytes were written as generations since Open. CompactionJobs, merges among them, read and wrote about
	// CompactionRead and CompactionWritten bytes.
	FlushedBytes, CompactionJobs, CompactionRead, CompactionWritten int64
	// CollectedVersions of tables, CollectedFiles and CollectedBytes were removed since Open because nothing needed them.
	CollectedVersions, CollectedFiles, CollectedBytes int64
	// DiskFree is the room on the disk of the data folder in bytes; DiskRefused writes found too little since Open, and
	// DiskReserved tells that the reserve for merges and deletes is there.
	DiskFree, DiskRefused int64
	DiskReserved          bool
	// Visible, Durable and Appended are positions in the log.
	Visible, Durable, Appended LSN
}

// Metrics returns the engine's state in numbers.
func (db *DB) Metrics() Metrics {
	c := &db.counters
	m := Metrics{Batches: c.batches.Load(), Rows: c.rows.Load(), Bytes: c.bytes.Load(), MemoryLimit: db.opt.Memory,
		IdempotencyKeys: db.ledger.count(), Flushes: c.flushes.Load(), FlushErrors: c.flushErrors.Load(), Compactions: c.compactions.Load(),
		FlushedBytes: c.flushed.Load(), CompactionJobs: c.compactJobs.Load(), CompactionRead: c.compactRead.Load(), CompactionWritten: c.compactWritten.Load(),
		CollectedVersions: c.collectedVersions.Load(), CollectedFiles: c.collectedFiles.Load(), CollectedBytes: c.collectedBytes.Load(),
		Visible: db.marks.visible(), Durable: db.log.DurableLSN(), Appended: db.log.AppendedLSN()}
	m.MemtableBytes, m.Stalls = db.budget.state()
	m.DiskFree, m.DiskRefused, m.DiskReserved = db.space.state()
	db.moment.Lock()
	defer db.moment.Unlock()
	for _, t := range db.tables {
		m.Tables++
		if set := t.set.Load(); set != nil {
			for _, c := range set.chains {
				m.FrozenMemtables += int64(len(c.frozen()))
				m.Generations += int64(len(c.generations()))
			}
		}
	}
	return m
}

// WriteAmplification is how many bytes were written, as generations and by compaction, for each that was written as a
// generation; 1 before anything is compacted.
func (m *Metrics) WriteAmplification() float64 {
	if m.FlushedBytes == 0 {
		return 1
	}
	return float64(m.FlushedBytes+m.CompactionWritten) / float64(m.FlushedBytes)
}

// String returns the metrics as lines for people.
func (m Metrics) String() string {
	return fmt.Sprintf("tables %d\naccepted: %d batches, %d rows, %d bytes\nmemory: %d of %d bytes, %d stalls\n"+
		"memtables frozen: %d, generations: %d\nidempotency keys: %d\nflushes: %d (%d failed), compactions: %d\n"+
		"compaction: %d jobs, %d bytes read, %d written, write amplification %.2f\n"+
		"collected: %d versions, %d files, %d bytes\ndisk: %d bytes free, reserve %t, %d writes refused\nlog: visible %s, durable %s, appended %s\n",
		m.Tables, m.Batches, m.Rows, m.Bytes, m.MemtableBytes, m.MemoryLimit, m.Stalls,
		m.FrozenMemtables, m.Generations, m.IdempotencyKeys, m.Flushes, m.FlushErrors, m.Compactions,
		m.CompactionJobs, m.CompactionRead, m.CompactionWritten, m.WriteAmplification(), m.CollectedVersions, m.CollectedFiles, m.CollectedBytes,
		m.DiskFree, m.DiskReserved, m.DiskRefused, m.Visible, m.Durable, m.Appended)
}

// HeldUpByReaders reports whether a writer waits for memory of which old snapshots hold a good part: memtables that
// are flushed already, and stay for them alone. Releasing the oldest snapshots lets the writer go on.
func (db *DB) HeldUpByReaders() bool { return db.budget.heldUp() }
