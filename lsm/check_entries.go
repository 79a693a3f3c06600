package lsm

import (
	"context"
	"fmt"
	"path"

	"github.com/google/uuid"

	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/manifest"
)

// entries verifies the log in a store of objects: every entry that a replay would read, the catalog's stream first, whose
// DDL it applies to the catalog, and then those of the tables that there are. How far it goes is no fault: what is not
// needed any more has gone. It returns an LSN that nothing can be above.
func (c *checker) entries(ctx context.Context, cat *catalog) LSN {
	c.stream(ctx, cat, &wal.Stream{ID: uuid.Nil, Dir: catalogLog, After: cat.Entry})
	for i := range cat.Tables {
		e := &cat.Tables[i]
		dir := path.Join(e.folder(), "_mem_wal", e.Shard.String())
		man, err := manifest.LoadShard(ctx, c.st, dir, manifest.Options{})
		if err != nil {
			continue // table reports it, unless a CREATE TABLE was cut off
		}
		if cat.Claim != nil && man.Epoch > cat.Claim.Epoch {
			c.fault(path.Join(dir, "manifest"), fmt.Errorf("its epoch is %d, and the newest that claimed the catalog is %d", man.Epoch, cat.Claim.Epoch))
		}
		c.stream(ctx, cat, &wal.Stream{ID: e.Shard, Dir: path.Join(dir, "wal"), After: man.Entry})
	}
	return ^LSN(0)
}

// stream verifies the entries of one stream.
func (c *checker) stream(ctx context.Context, cat *catalog, s *wal.Stream) {
	err := s.Find(ctx, c.st)
	if err == nil {
		err = wal.ReplayStreams(ctx, c.st, []*wal.Stream{s}, batchPrefix, func(r *wal.Record) error {
			c.sum.LogRecords++
			c.sum.LogRows += int64(r.Rows)
			if err := c.record(cat, r); err != nil {
				c.fault(s.Dir, fmt.Errorf("record %s: %w", r.LSN, err))
			}
			return nil
		})
	}
	if err != nil {
		c.fault(s.Dir, err)
	}
}
