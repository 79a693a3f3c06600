package manifest

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/object"
)

// transaction returns what the commit of v changed: from the manifest, else from the file that the manifest names.
// A commit that does not say has an empty transaction, which commutes with nothing.
func (v *Version) transaction(ctx context.Context, st object.Store, root string) (*lancepb.Transaction, error) {
	if v.tx != nil {
		return v.tx, nil
	}
	var tx lancepb.Transaction
	file := v.raw.GetTransactionFile()
	if file == "" || !fs.ValidPath(file) {
		return &tx, nil
	}
	name := path.Join(root, "_transactions", file)
	b, err := st.Get(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read the transaction of version %d: %w", v.Number, err)
	}
	if err := proto.Unmarshal(b, &tx); err != nil {
		return nil, corrupt(name, 0, "transaction: %w", err)
	}
	return &tx, nil
}

// commutes returns nil when c means the same whether it is applied before or after tx, else a reason that wraps
// ErrConflict. It errs on the side of a conflict: then the caller works c out again, which is always right.
func (c *Change) commutes(tx *lancepb.Transaction) error {
	if c.Overwrite {
		return fmt.Errorf("%w: an overwrite stands on exactly the version it read", ErrConflict)
	}
	if c.Schema != nil {
		return fmt.Errorf("%w: a change of the schema stands on exactly the version it read", ErrConflict)
	}
	switch op := tx.GetOperation().(type) {
	case *lancepb.Transaction_Append:
		if len(c.Compacted) > 0 {
			return fmt.Errorf("%w: it appended rows that generations may replace", ErrConflict)
		}
		return nil
	case *lancepb.Transaction_ReserveFragments, *lancepb.Transaction_UpdateConfig:
		return nil
	case *lancepb.Transaction_Delete:
		return c.commutesWithChanges(op.Delete.GetDeletedFragmentIds(), op.Delete.GetUpdatedFragments())
	case *lancepb.Transaction_Update:
		if len(c.Compacted) > 0 {
			return fmt.Errorf("%w: it replaced rows that generations may replace", ErrConflict)
		}
		if (c.Indexes != nil || len(c.RemoveIndexes) > 0) && len(op.Update.GetFieldsModified()) > 0 {
			return fmt.Errorf("%w: it replaced columns that indexes may be over", ErrConflict)
		}
		return c.commutesWithChanges(op.Update.GetRemovedFragmentIds(), op.Update.GetUpdatedFragments())
	case *lancepb.Transaction_CreateIndex:
		return c.commutesWithIndexes(op.CreateIndex)
	case *lancepb.Transaction_UpdateMemWalState:
		return c.commutesWithCompaction(op.UpdateMemWalState.GetCompactedSstables())
	default:
		return fmt.Errorf("%w: it replaced rows, or did something unknown", ErrConflict)
	}
}

// commutesWithChanges looks for fragments that c deletes rows of, or writes anew, and that somebody else removed or changed.
func (c *Change) commutesWithChanges(removed []uint64, updated []*lancepb.DataFragment) error {
	touched, old := slices.Clone(removed), c.rewrites()
	for _, f := range updated {
		touched = append(touched, f.GetId())
	}
	for _, id := range touched {
		if _, both := c.Delete[id]; both || old[id] {
			return fmt.Errorf("%w: it changed rows of fragment %d, too", ErrConflict, id)
		}
	}
	return nil
}

func (c *Change) commutesWithIndexes(op *lancepb.CreateIndexOperation) error {
	if c.Indexes == nil && len(c.RemoveIndexes)+len(c.Rewrite) == 0 {
		return nil
	}
	for _, x := range append(op.GetNewIndices(), op.GetRemovedIndices()...) {
		if x.GetName() != memWALIndex {
			return fmt.Errorf("%w: it changed index %q", ErrConflict, x.GetName())
		}
	}
	return nil
}

func (c *Change) commutesWithCompaction(list []*lancepb.CompactedSsTable) error {
	for _, g := range list {
		id, err := uuid.FromBytes(g.GetShardId().GetUuid())
		if err != nil {
			return fmt.Errorf("%w: it compacted a shard without an id", ErrConflict)
		}
		if _, both := c.Compacted[id]; both {
			return fmt.Errorf("%w: it compacted shard %s, too", ErrConflict, id)
		}
	}
	return nil
}
