package manifest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/lance"
)

// build is one attempt to put a change on top of one version.
type build struct {
	*commit
	base *Version
	m    *lancepb.Manifest

	appended []*lancepb.DataFragment
	updated  []*lancepb.DataFragment
	removed  []uint64
	deleted  uint64

	indexes    []*lancepb.IndexMetadata
	newIndexes []*lancepb.IndexMetadata
	oldIndexes []*lancepb.IndexMetadata
}

// version works out the bytes of the version that follows base. It writes deletion files, nothing else.
func (b *build) version(ctx context.Context) ([]byte, error) {
	if err := checkWritable(b.base.name, b.base.raw); err != nil {
		return nil, err
	}
	b.m = proto.CloneOf(b.base.raw)
	b.m.Version = b.base.Number + 1
	b.m.Timestamp = timestamppb.Now()
	b.m.WriterVersion = &lancepb.WriterVersion{Library: library, Version: formatVersion}
	b.m.Tag, b.m.TransactionFile, b.m.TransactionSectionDeprecated = "", "", nil
	if b.change.Schema != nil {
		b.m.Fields, b.m.SchemaMetadata = schemaProto(b.change.Schema)
	}
	if err := b.fragments(ctx); err != nil {
		return nil, err
	}
	if err := b.listIndexes(); err != nil {
		return nil, err
	}
	if err := b.memWALEntry(); err != nil {
		return nil, err
	}
	setFlags(b.m)
	return encodeVersion(b.m, &lancepb.IndexSection{Indices: b.indexes}, b.transaction())
}

// fragments lists the fragments of the new version: the old ones with their deletions, then the appended ones.
func (b *build) fragments(ctx context.Context) error {
	b.m.Fragments = nil
	if err := errors.Join(b.checkRowIDs(), b.checkRewrite()); err != nil {
		return err
	}
	if !b.change.Overwrite {
		old := b.change.rewrites()
		for i := range b.base.Fragments {
			f := &b.base.Fragments[i]
			if old[f.ID] {
				continue
			}
			p, err := b.afterDelete(ctx, f)
			if err != nil {
				return err
			}
			if p != nil {
				b.m.Fragments = append(b.m.Fragments, p)
			}
		}
		if err := b.addFiles(); err != nil {
			return err
		}
	}
	next, err := b.base.nextFragmentID()
	if err != nil {
		return err
	}
	ids := b.newRowIDs()
	for i := range b.change.Append {
		p, err := b.change.Append[i].newProto()
		if err != nil {
			return err
		}
		if err := b.checkFiles(p); err != nil {
			return err
		}
		p.Id = next
		next++
		ids.give(p)
		if rows := b.change.AppendDeleted[i]; rows != nil {
			f := &Fragment{ID: p.Id, Rows: int64(p.GetPhysicalRows()), raw: p}
			d, err := b.writeDeletion(ctx, f, rows)
			if err != nil {
				return err
			}
			p = f.withDeletion(d)
		}
		b.appended = append(b.appended, p)
	}
	b.m.Fragments = append(b.m.Fragments, b.appended...)
	if next > 0 {
		last := uint32(next - 1)
		b.m.MaxFragmentId = &last
	}
	return nil
}

// checkRewrite holds that the groups of a rewrite have fragments of the base, and that no row is lost or doubled.
func (b *build) checkRewrite() error {
	first := 0
	for _, g := range b.change.Rewrite {
		rows := int64(0)
		for _, id := range g.Old {
			f, ok := b.base.Fragment(id)
			if !ok {
				return fmt.Errorf("%w: fragment %d is not there to be written anew", ErrConflict, id)
			}
			rows += f.Rows
			if f.Deletion != nil {
				rows -= f.Deletion.Rows
			}
		}
		for _, f := range b.change.Append[first : first+g.New] {
			rows -= f.Rows
		}
		if rows != 0 {
			return fmt.Errorf("fragments %v have %d rows more than those that are to take their place", g.Old, rows)
		}
		first += g.New
	}
	return nil
}

// rewriteGroups returns the groups of a rewrite as a transaction has them.
func (b *build) rewriteGroups() []*lancepb.RewriteGroup {
	var list []*lancepb.RewriteGroup
	first := 0
	for _, g := range b.change.Rewrite {
		p := &lancepb.RewriteGroup{NewFragments: b.appended[first : first+g.New]}
		for _, id := range g.Old {
			f, _ := b.base.Fragment(id) // checkRewrite found it
			p.OldFragments = append(p.OldFragments, f.raw)
		}
		list = append(list, p)
		first += g.New
	}
	return list
}

// addFiles gives fragments their further files.
func (b *build) addFiles() error {
	found := 0
	for i, old := range b.m.Fragments {
		files, ok := b.change.AddFiles[old.GetId()]
		if !ok {
			continue
		}
		found++
		add, err := (&Fragment{Files: files, Rows: int64(old.GetPhysicalRows())}).newProto()
		if err != nil {
			return err
		}
		if err := b.checkFiles(add); err != nil {
			return err
		}
		p := proto.CloneOf(old)
		p.Files = append(p.Files, add.GetFiles()...)
		b.m.Fragments[i] = p
	}
	if found < len(b.change.AddFiles) {
		return fmt.Errorf("%w: files are added to fragments that are not there", ErrConflict)
	}
	return nil
}

// keepsFields reports whether the version still has all fields that an index is over.
func (b *build) keepsFields(x *lancepb.IndexMetadata) bool {
	for _, id := range x.GetFields() {
		if !slices.ContainsFunc(b.m.GetFields(), func(f *lancepb.Field) bool { return f.GetId() == id }) {
			return false
		}
	}
	return true
}

// checkFiles holds that appended files have the version that the manifest names for all files of the table, and no
// fields that the table does not have: readers would take the missing field for null without a word.
func (b *build) checkFiles(p *lancepb.DataFragment) error {
	for _, f := range p.GetFiles() {
		if got := fmt.Sprintf("%d.%d", f.GetFileMajorVersion(), f.GetFileMinorVersion()); got != b.base.Format {
			return fmt.Errorf("append file %q of version %s to a table of version %s: rewrite the table in version %s first", f.GetPath(), got, b.base.Format, got)
		}
		for _, id := range f.GetFields() {
			if !slices.ContainsFunc(b.m.GetFields(), func(field *lancepb.Field) bool { return field.GetId() == id }) {
				return fmt.Errorf("append file %q with field %d, which the table does not have", f.GetPath(), id)
			}
		}
	}
	return nil
}

// afterDelete returns f as it is in the new version, nil when no row of it is left.
func (b *build) afterDelete(ctx context.Context, f *Fragment) (*lancepb.DataFragment, error) {
	add := b.change.Delete[f.ID]
	if add == nil || add.IsEmpty() {
		return f.raw, nil
	}
	if last := int64(add.Maximum()); last >= f.Rows {
		return nil, fmt.Errorf("delete row %d of fragment %d, which has %d rows", last, f.ID, f.Rows)
	}
	all, err := b.base.Deletions(ctx, b.st, b.root, f)
	if err != nil {
		return nil, err
	}
	before := uint64(0)
	if all != nil {
		before = all.GetCardinality()
		all.Or(add)
	} else {
		all = add
	}
	after := all.GetCardinality()
	b.deleted += after - before
	switch {
	case after == before:
		return f.raw, nil
	case after == uint64(f.Rows):
		b.removed = append(b.removed, f.ID)
		return nil, nil
	}
	d, err := b.writeDeletion(ctx, f, all)
	if err != nil {
		return nil, err
	}
	p := f.withDeletion(d)
	b.updated = append(b.updated, p)
	return p, nil
}

// listIndexes carries the old segments forward and adds the new ones.
func (b *build) listIndexes() error {
	drop := make(map[uuid.UUID]bool, len(b.change.RemoveIndexes))
	for _, id := range b.change.RemoveIndexes {
		drop[id] = true
	}
	for _, p := range b.base.indexes {
		id, _ := uuid.FromBytes(p.GetUuid().GetUuid())
		switch {
		case p.GetName() == memWALIndex || b.change.Overwrite:
		case b.change.Schema != nil && !b.keepsFields(p):
		case drop[id]:
			delete(drop, id)
			b.oldIndexes = append(b.oldIndexes, p)
		default:
			b.indexes = append(b.indexes, p)
		}
	}
	for id := range drop {
		return fmt.Errorf("%w: index segment %s is not there to remove", ErrConflict, id)
	}
	if b.change.Indexes == nil {
		return nil
	}
	ids := make([]uint64, len(b.appended))
	for i, p := range b.appended {
		ids[i] = p.GetId()
	}
	added, err := b.change.Indexes(b.base, ids)
	if err != nil {
		return err
	}
	for i := range added {
		p, err := added[i].newProto()
		if err != nil {
			return err
		}
		b.newIndexes = append(b.newIndexes, p)
		for _, f := range added[i].Files {
			b.wrote(path.Join(added[i].Dir(), f.Path))
		}
	}
	b.indexes = append(b.indexes, b.newIndexes...)
	return nil
}

// memWALEntry carries the state of the write path forward. A foreign overwrite may have dropped it; the next merge
// brings it back.
func (b *build) memWALEntry() error {
	if b.base.memWAL == nil && len(b.change.Compacted) == 0 {
		return nil
	}
	if len(b.change.Compacted) == 0 && len(b.oldIndexes) == 0 {
		at := slices.IndexFunc(b.base.indexes, func(p *lancepb.IndexMetadata) bool { return p.GetName() == memWALIndex })
		if at >= 0 {
			p, err := coversNothing(b.base.indexes[at])
			if err != nil {
				return err
			}
			b.indexes = append(b.indexes, p)
			return nil
		}
	}
	d := newMemWAL(max(b.change.Shards, 1), b.change.ShardedBy)
	if b.base.memWAL != nil {
		d = proto.CloneOf(b.base.memWAL)
	}
	compacted := maps.Clone(b.base.Compacted)
	if compacted == nil {
		compacted = make(map[uuid.UUID]uint64)
	}
	for shard, generation := range b.change.Compacted {
		if generation <= compacted[shard] {
			return fmt.Errorf("%w: generation %d of shard %s is in the table already", ErrConflict, generation, shard)
		}
		compacted[shard] = generation
	}
	d.CompactedSstables = compactedProto(compacted)
	// What an index caught up with is a claim about segments; it falls with any of them.
	d.IndexCatchup = slices.DeleteFunc(d.GetIndexCatchup(), func(c *lancepb.IndexCatchupProgress) bool {
		return slices.ContainsFunc(b.oldIndexes, func(x *lancepb.IndexMetadata) bool { return x.GetName() == c.GetIndexName() })
	})
	p, err := memWALProto(d, b.m.GetVersion())
	if err != nil {
		return err
	}
	b.indexes = append(b.indexes, p)
	return nil
}

// transaction describes the change to rivals in Lance's terms. A change that does several things is an update, the
// one operation that may; a rival judges all others by their kind alone.
func (b *build) transaction() *lancepb.Transaction {
	c := &b.change
	tx := &lancepb.Transaction{ReadVersion: b.base.Number, Uuid: b.txID, TransactionProperties: c.Properties}
	adds, deletes := len(b.appended) > 0, len(c.Delete) > 0
	switch {
	case c.Overwrite:
		tx.Operation = &lancepb.Transaction_Overwrite{Overwrite: &lancepb.OverwriteOperation{
			Fragments: b.unnumbered(), Schema: b.m.GetFields(), SchemaMetadata: b.m.GetSchemaMetadata(),
		}}
	case len(c.Rewrite) > 0:
		tx.Operation = &lancepb.Transaction_Rewrite{Rewrite: &lancepb.RewriteOperation{Groups: b.rewriteGroups()}}
	case c.Schema != nil && b.addsFields():
		tx.Operation = &lancepb.Transaction_Merge{Merge: &lancepb.MergeOperation{
			Fragments: b.m.GetFragments(), Schema: b.m.GetFields(), SchemaMetadata: b.m.GetSchemaMetadata(),
		}}
	case c.Schema != nil:
		tx.Operation = &lancepb.Transaction_Project{Project: &lancepb.ProjectOperation{Schema: b.m.GetFields()}}
	case len(c.Compacted) > 0 && !adds && !deletes:
		tx.Operation = &lancepb.Transaction_UpdateMemWalState{UpdateMemWalState: &lancepb.UpdateMemWalStateOperation{
			CompactedSstables: compactedProto(c.Compacted),
		}}
	case len(c.Compacted) > 0 || adds && deletes:
		tx.Operation = &lancepb.Transaction_Update{Update: &lancepb.UpdateOperation{
			RemovedFragmentIds: b.removed, UpdatedFragments: b.updated, NewFragments: b.unnumbered(),
			CompactedSstables: compactedProto(c.Compacted),
		}}
	case adds:
		tx.Operation = &lancepb.Transaction_Append{Append: &lancepb.AppendOperation{Fragments: b.unnumbered()}}
	case deletes:
		tx.Operation = &lancepb.Transaction_Delete{Delete: &lancepb.DeleteOperation{
			UpdatedFragments: b.updated, DeletedFragmentIds: b.removed, Predicate: fmt.Sprintf("%d rows by address", b.deleted),
		}}
	default:
		tx.Operation = &lancepb.Transaction_CreateIndex{CreateIndex: &lancepb.CreateIndexOperation{
			NewIndices: b.newIndexes, RemovedIndices: b.oldIndexes,
		}}
	}
	return tx
}

// addsFields reports whether the version has fields that its base does not.
func (b *build) addsFields() bool {
	return slices.ContainsFunc(b.m.GetFields(), func(f *lancepb.Field) bool {
		return !slices.ContainsFunc(b.base.raw.GetFields(), func(old *lancepb.Field) bool { return old.GetId() == f.GetId() })
	})
}

// unnumbered returns the appended fragments as a transaction has them: without ids, for a rebase gives others.
func (b *build) unnumbered() []*lancepb.DataFragment {
	list := make([]*lancepb.DataFragment, len(b.appended))
	for i, p := range b.appended {
		list[i] = proto.CloneOf(p)
		list[i].Id = 0
	}
	return list
}

// schemaProto returns the schema as a manifest has it.
func schemaProto(s *lance.Schema) ([]*lancepb.Field, map[string][]byte) {
	var meta map[string][]byte
	if len(s.Metadata) > 0 {
		meta = make(map[string][]byte, len(s.Metadata))
		for k, v := range s.Metadata {
			meta[k] = []byte(v)
		}
	}
	return s.Proto(), meta
}
