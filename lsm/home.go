package lsm

import (
	"context"
	"time"

	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/manifest"
)

// home is all that a DB in a local folder and one in a store of objects do differently: how the data are kept to one
// process, how the checkpoints of the catalog and the log are stored, and where the folders of tables are. Everything else
// is the same code. The methods are called by Open and Close, and while DB.ddl is held, but for position, released, owned
// and fence, which anybody may call.
type home interface {
	// claim makes this process the only one that writes, and returns the last checkpoint of the catalog.
	claim(ctx context.Context) (*catalog, error)
	// store writes a checkpoint of the catalog.
	store(ctx context.Context, c *catalog) error
	// replayDDL calls fn with the records of the log that the checkpoint may lack, those of DDL among them.
	replayDDL(ctx context.Context, c *catalog, fn func(*wal.Record) error) error
	// replay calls fn with all records, once the shards of all tables are claimed, and returns the last LSN of the log.
	replay(ctx context.Context, fn func(*wal.Record) error) (LSN, error)
	// openLog opens the log behind what replay has read.
	openLog(after LSN) (wal.Log, error)
	// claimShard makes this process the writer of a shard, or returns the manifest of one of which it is.
	claimShard(ctx context.Context, s *shard) (*manifest.Shard, error)
	// leave lets go of the shards of a table that is no more. REQUIRES: nothing is logged for them any more.
	leave(t *Table)
	// named gives the entry of a new table its folder.
	named(c *catalog, e *tableEntry) error
	// readsByName reports whether a file that was removed is gone for whoever has it open, too.
	readsByName() bool
	// stage returns the folder of a table that a stage makes, and unborn removes it when the stage is given up. REQUIRES: db.ddl is held.
	stage(ctx context.Context, e *tableEntry) (root string, err error)
	unborn(t *Table)
	// position returns what the next version of a shard's manifest says in Entry when everything up to an LSN is in
	// generations, 0 where there are no entries. released tells that the version is stored.
	position(s *shard, lsn LSN) (uint64, error)
	released(man *manifest.Shard)
	// trimmed notes in the catalog up to which LSN the log is not needed any more, and reports whether that is news.
	trimmed(c *catalog, upTo LSN) (bool, error)
	// owned returns ErrFenced when another process has taken the data over. What was in the store before it was called, and
	// nobody needed then, nobody needs.
	owned(ctx context.Context) error
	// fence is told of errors that say so, and returns what they mean for the DB: it writes no more.
	fence(err error) error
	// grace is how old things must be that a process may count on which was overtaken and does not know it, before they are
	// removed; 0 where nobody can be overtaken.
	grace() time.Duration
	// oneSchema reports whether records that are logged together must have one schema.
	oneSchema() bool
	// oneShard reports whether they must be of one shard, or of the catalog.
	oneShard() bool
	// close gives the data free.
	close() error
}
