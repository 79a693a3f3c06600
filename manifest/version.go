package manifest

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/google/uuid"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/object"
)

// Version is one version of a table. It is immutable and safe for concurrent use.
type Version struct {
	// Number counts versions from 1.
	Number uint64
	// Schema is the schema of the table.
	Schema *lance.Schema
	// Format is the version of the table's data files, "2.0" for what we write.
	Format string
	// Fragments hold the rows, in the order of a scan.
	Fragments []Fragment
	// Indexes are the index segments, without the system index of the write path.
	Indexes []Index
	// Compacted is, by shard, the last generation that is in the table itself.
	Compacted map[uuid.UUID]uint64

	name    string
	raw     *lancepb.Manifest
	indexes []*lancepb.IndexMetadata
	tx      *lancepb.Transaction
	memWAL  *lancepb.MemWalIndexDetails
	// synced is true when every file of the version is known to be durable.
	synced bool
	// ours is true for a version that flightd wrote itself.
	ours bool
}

// Latest loads the newest version of the table at root, or returns an error that is object.ErrNotExist.
func Latest(ctx context.Context, st object.Store, root string, o Options) (*Version, error) {
	for {
		n, err := tableChain(st, root, o).newest(ctx)
		if err != nil {
			return nil, fmt.Errorf("open table %s: %w", root, err)
		}
		if n == 0 {
			return nil, fmt.Errorf("open table %s: it has no versions: %w", root, object.ErrNotExist)
		}
		v, err := Load(ctx, st, root, n)
		// A version that vanishes was superseded and cleaned up since, or the table was dropped: look again.
		if !errors.Is(err, object.ErrNotExist) {
			return v, err
		}
	}
}

// Current reports whether the version with a number, which was the newest, still is, as far as two looks can tell: the
// next one is not there, and it is itself. Otherwise Latest tells; whoever removes old versions leaves the newest.
func Current(ctx context.Context, st object.Store, root string, number uint64) (bool, error) {
	c := tableChain(st, root, Options{})
	next, err := c.exists(ctx, number+1)
	if err != nil || next {
		return false, err
	}
	return c.exists(ctx, number)
}

// Load loads one version of the table at root.
func Load(ctx context.Context, st object.Store, root string, number uint64) (*Version, error) {
	name := tableChain(st, root, Options{}).path(number)
	b, err := st.Get(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("load version %d of table %s: %w", number, root, err)
	}
	v, err := decodeVersion(name, b)
	if err != nil {
		return nil, fmt.Errorf("load version %d of table %s: %w", number, root, err)
	}
	if v.Number != number {
		return nil, corrupt(name, 0, "the manifest says that it is version %d", v.Number)
	}
	return v, nil
}

// decodeVersion parses and checks the bytes of one version.
func decodeVersion(name string, b []byte) (*Version, error) {
	m, ours, err := decodeFrame(name, b)
	if err != nil {
		return nil, err
	}
	if err := checkReadable(name, m); err != nil {
		return nil, err
	}
	v := &Version{Number: m.GetVersion(), Format: m.GetDataFormat().GetVersion(), name: name, raw: m}
	v.synced, v.ours = ours, ours
	if v.Schema, err = lance.SchemaFromProto(m.GetFields(), m.GetSchemaMetadata()); err != nil {
		if errors.Is(err, lance.ErrUnsupported) {
			return nil, fmt.Errorf("%s: schema: %w", name, err)
		}
		return nil, corrupt(name, 0, "schema: %w", err)
	}
	if err := v.addFragments(); err != nil {
		return nil, err
	}
	var section lancepb.IndexSection
	if m.IndexSection != nil {
		if _, err := decodeSection(name, b, m.GetIndexSection(), &section); err != nil {
			return nil, err
		}
	}
	if err := v.addIndexes(section.GetIndices()); err != nil {
		return nil, err
	}
	if m.TransactionSection != nil {
		v.tx = new(lancepb.Transaction)
		if _, err := decodeSection(name, b, m.GetTransactionSection(), v.tx); err != nil {
			return nil, err
		}
	}
	if !ours && m.GetWriterVersion().GetLibrary() == library && !copied(m, v.tx) {
		return nil, corrupt(name, 0, "a version written by flightd begins with %q", headMagic)
	}
	return v, nil
}

func (v *Version) addFragments() error {
	seen := make(map[uint64]bool, len(v.raw.GetFragments()))
	for _, p := range v.raw.GetFragments() {
		f, err := fragmentFromProto(p)
		if err != nil {
			return corrupt(v.name, 0, "%w", err)
		}
		if seen[f.ID] {
			return corrupt(v.name, 0, "fragment %d is listed twice", f.ID)
		}
		seen[f.ID] = true
		v.Fragments = append(v.Fragments, f)
	}
	return nil
}

func (v *Version) addIndexes(list []*lancepb.IndexMetadata) error {
	v.indexes = list
	for _, p := range list {
		if p.GetName() == memWALIndex {
			d, compacted, err := memWALFromProto(p)
			if err != nil {
				return corrupt(v.name, 0, "%w", err)
			}
			v.memWAL, v.Compacted = d, compacted
			continue
		}
		x, err := indexFromProto(p)
		if err != nil {
			return corrupt(v.name, 0, "%w", err)
		}
		v.Indexes = append(v.Indexes, x)
	}
	return nil
}

// Fragment returns the fragment with the given id.
func (v *Version) Fragment(id uint64) (*Fragment, bool) {
	for i := range v.Fragments {
		if v.Fragments[i].ID == id {
			return &v.Fragments[i], true
		}
	}
	return nil, false
}

// Rows counts the rows that are not deleted.
func (v *Version) Rows() int64 {
	var n int64
	for _, f := range v.Fragments {
		n += f.Rows
		if f.Deletion != nil {
			n -= f.Deletion.Rows
		}
	}
	return n
}

// NextFieldID returns an id that no field of the table has or had, as far as the manifest and the files in it tell.
func (v *Version) NextFieldID() int32 {
	next := v.raw.GetMaxAllocatedFieldId() + 1
	if v.raw.MaxAllocatedFieldId == nil {
		next = 0
	}
	for _, f := range v.raw.GetFields() {
		next = max(next, f.GetId()+1)
	}
	for _, f := range v.Fragments {
		for _, file := range f.Files {
			for _, id := range file.Fields {
				next = max(next, id+1)
			}
		}
	}
	return next
}

// nextFragmentID returns the first id that no fragment has or had.
func (v *Version) nextFragmentID() (uint64, error) {
	var next uint64
	if v.raw.MaxFragmentId != nil {
		next = uint64(v.raw.GetMaxFragmentId()) + 1
	}
	for _, f := range v.Fragments {
		next = max(next, f.ID+1)
	}
	if next > math.MaxUint32 {
		return 0, errors.New("the table has used up all fragment ids; copy it to a new table")
	}
	return next, nil
}
