package manifest

import (
	"context"
	"errors"
	"fmt"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/uuid"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/object"
)

// CreateOptions say what a new table has besides its schema.
type CreateOptions struct {
	// Options tune the chain of versions.
	Options
	// Shards is the number of shards in front of the table. With 0, which suits generations and tables without a key,
	// the table does not tell other programs of shards at all.
	Shards int
	// Version is that of the table's files.
	Version lance.Version
	// ShardedBy is the id of the field by whose hash rows are spread over several shards.
	ShardedBy int32
	// Append are the table's first fragments. A generation is a table that is created with all it ever has.
	Append []Fragment
	// AppendDeleted are rows of Append that are deleted from the start, by place in Append.
	AppendDeleted map[int]*roaring.Bitmap
	// Indexes are segments over Append, whose fragments are numbered from 0.
	Indexes []Index
}

// Create publishes version 1 of a table, or returns object.ErrExists when there is a table at root.
func Create(ctx context.Context, st object.Store, root string, s *lance.Schema, o CreateOptions) (*Version, error) {
	c := Change{Overwrite: true, Schema: s, Append: o.Append, AppendDeleted: o.AppendDeleted}
	if len(o.Indexes) > 0 {
		c.Indexes = func(*Version, []uint64) ([]Index, error) { return o.Indexes, nil }
	}
	base := &Version{
		name: root, Format: o.Version.String(), synced: true,
		raw: &lancepb.Manifest{DataFormat: &lancepb.DataFormat{FileFormat: "lance", Version: o.Version.String()}},
	}
	if o.Shards > 0 {
		base.memWAL = newMemWAL(o.Shards, o.ShardedBy)
	}
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("create table %s: %w", root, err)
	}
	k := newCommit(st, root, o.Options, c)
	v, err := k.attempt(ctx, base)
	if errors.Is(err, errTaken) {
		if mine, own, look := k.rebase(ctx, base); look == nil && mine {
			return own, nil // the answer was lost
		}
	}
	if err != nil {
		return nil, fmt.Errorf("create table %s: %w", root, err)
	}
	return v, nil
}

// newCommit prepares the attempts of one change.
func newCommit(st object.Store, root string, o Options, c Change) *commit {
	k := &commit{
		st: st, root: root, o: o, change: c, txID: uuid.NewString(),
		written: make(map[string]struct{}), deletions: make(map[uint64]writtenDeletion),
	}
	k.noteAppended()
	return k
}
