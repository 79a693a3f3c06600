package manifest

import (
	"errors"
	"fmt"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/uuid"

	"github.com/flightd/flightd/lance"
)

// Change is what one commit does to a table. All of it happens or nothing.
type Change struct {
	// Append adds fragments at the end of the table. Their files lie in the table's folder data, complete and closed.
	// Commit gives the ids.
	Append []Fragment
	// AppendDeleted are rows of Append that are deleted from the start, by place in Append.
	AppendDeleted map[int]*roaring.Bitmap
	// Delete marks rows as deleted, by fragment, as offsets in it. Rows that were deleted before may be among them.
	Delete map[uint64]*roaring.Bitmap
	// Indexes adds index segments. It is called with the version that the commit stands on and the ids that the
	// appended fragments get, for each attempt anew, because a rival may have taken ids; what it names must be
	// written and closed when it returns.
	Indexes func(base *Version, appended []uint64) ([]Index, error)
	// RemoveIndexes drops index segments. Their files stay for readers of older versions.
	RemoveIndexes []uuid.UUID
	// Compacted records, by shard, the last generation that this commit brings into the table.
	Compacted map[uuid.UUID]uint64
	// Shards and ShardedBy are as in CreateOptions, for a version whose predecessor has lost what it said of shards: a
	// program may have overwritten the table.
	Shards    int
	ShardedBy int32
	// Overwrite replaces all fragments and user indexes by those of the change. What is known of compacted
	// generations stays, since these must not be merged twice.
	Overwrite bool
	// Schema is the schema from now on. Without Overwrite the rows stay: columns keep their field ids, those that are no
	// longer in it are dropped, and in new ones rows are null but for what AddFiles brings. Such a change does nothing
	// else, and stands on exactly the version that it read.
	Schema *lance.Schema
	// AddFiles adds files with values of new columns to fragments, by id. They are as those of Append.
	AddFiles map[uint64][]DataFile
	// Rewrite puts fragments of Append in the place of others that have the same live rows, as compaction does. All of
	// Append belongs to its groups, one after the other. Such a change does nothing else to rows; it may add and remove
	// index segments. Entries of old segments that lead to the old fragments count no longer.
	Rewrite []RewriteGroup
	// Properties are written to the transaction for people and programs that look into the history.
	Properties map[string]string
}

// RewriteGroup is some fragments and what takes their place.
type RewriteGroup struct {
	// Old are the ids of the fragments that go, New is how many of Append come for them, none when no row of them lives.
	Old []uint64
	New int
}

// rewrites returns the fragments that a rewrite replaces.
func (c *Change) rewrites() map[uint64]bool {
	old := make(map[uint64]bool)
	for _, g := range c.Rewrite {
		for _, id := range g.Old {
			old[id] = true
		}
	}
	return old
}

// validateRewrite refuses rewrites that are more than that.
func (c *Change) validateRewrite() error {
	if len(c.Rewrite) == 0 {
		return nil
	}
	if len(c.Delete)+len(c.Compacted)+len(c.AppendDeleted) > 0 || c.Overwrite || c.Schema != nil {
		return errors.New("a rewrite of fragments cannot change rows or the schema, too")
	}
	old, fresh := 0, 0
	for _, g := range c.Rewrite {
		if len(g.Old) == 0 || g.New < 0 {
			return errors.New("a group of a rewrite replaces nothing")
		}
		old += len(g.Old)
		fresh += g.New
	}
	if len(c.rewrites()) != old {
		return errors.New("a rewrite replaces a fragment twice")
	}
	if fresh != len(c.Append) {
		return fmt.Errorf("the groups of a rewrite have %d new fragments, the change %d", fresh, len(c.Append))
	}
	return nil
}

// validate refuses changes that no version could take.
func (c *Change) validate() error {
	alters := c.Schema != nil && !c.Overwrite
	if alters && (len(c.Append)+len(c.Delete)+len(c.RemoveIndexes)+len(c.Compacted) > 0 || c.Indexes != nil) {
		return errors.New("a change of the schema cannot change rows or indexes, too")
	}
	if len(c.AddFiles) > 0 && !alters {
		return errors.New("files are only added to fragments when the schema gets columns")
	}
	if err := c.validateRewrite(); err != nil {
		return err
	}
	for i, rows := range c.AppendDeleted {
		if i < 0 || i >= len(c.Append) || rows.IsEmpty() || int64(rows.Maximum()) >= c.Append[i].Rows {
			return fmt.Errorf("rows deleted from appended fragment %d are not in it", i)
		}
		if int64(rows.GetCardinality()) == c.Append[i].Rows {
			return fmt.Errorf("all rows of appended fragment %d are deleted; leave it out", i)
		}
	}
	if c.Overwrite && len(c.Delete)+len(c.RemoveIndexes) > 0 {
		return errors.New("an overwrite removes everything and cannot name rows or indexes to delete")
	}
	if !c.Overwrite && !alters && len(c.Append)+len(c.Delete)+len(c.RemoveIndexes)+len(c.Compacted)+len(c.Rewrite) == 0 && c.Indexes == nil {
		return errors.New("the change is empty")
	}
	return nil
}
