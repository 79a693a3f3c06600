package lsm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/google/uuid"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/memindex"
)

// IndexKind is how an index finds rows.
type IndexKind string

// BTreeIndex has the values of one column in order, for points and ranges.
const BTreeIndex IndexKind = "BTREE"

// The kinds of indexes that other programs make, and scans use.
const (
	// BitmapIndex has for each value which rows have it.
	BitmapIndex IndexKind = "BITMAP"
	// LabelListIndex has for each item of a column's lists in which rows it is.
	LabelListIndex IndexKind = "LABEL_LIST"
)

// IndexDef defines an index. One over the column that is the key gives a name to the index that the key has anyway.
type IndexDef struct {
	// Name is the index's name, whatever its case; each of a table has one of its own.
	Name string
	// Kind is how it finds rows.
	Kind IndexKind
	// Columns are the indexed columns; a BTREE has one.
	Columns []string
	// Options are for kinds that have any.
	Options map[string]string
}

// CreateIndexOptions say what CreateIndex does beside its work.
type CreateIndexOptions struct {
	// IfNotExists makes it no error that the table has an index of the name.
	IfNotExists bool
	// Replace puts the index in the place of one of the same name.
	Replace bool
	// Progress, which may be nil, is called from time to time with the rows that are in the index and those that will
	// be. It must not block.
	Progress func(done, total int64)
}

// indexEntry is an index as the catalog stores it. It does not change.
type indexEntry struct {
	// ID tells an index from an earlier one of the same name and table. It rises with every CREATE INDEX on the table.
	ID      uint64            `json:"id"`
	Name    string            `json:"name"`
	Kind    IndexKind         `json:"kind"`
	Fields  []int32           `json:"fields"` // by field id, so that a column may be renamed
	Options map[string]string `json:"options,omitempty"`
	// Replaced are the fields of indexes over other columns whose place and name it took, and Segments the segments over the same column
	// of one with other options: a base that still has them is rid of these.
	Replaced [][]int32   `json:"replaced,omitempty"`
	Segments []uuid.UUID `json:"segments,omitempty"`
}

// replaces reports whether a segment is of an index whose place this one took.
func (x *indexEntry) replaces(seg *manifest.Index) bool {
	if !strings.EqualFold(x.Name, seg.Name) {
		return false
	}
	return slices.Contains(x.Segments, seg.UUID) || slices.ContainsFunc(x.Replaced, func(old []int32) bool { return slices.Equal(old, seg.Fields) })
}

// ddlIndex is the part of a DDL record that makes or drops an index of a table, or both at once.
type ddlIndex struct {
	// Incarnation names the table.
	Incarnation uint64      `json:"incarnation"`
	Create      *indexEntry `json:"create,omitempty"`
	// Drop is the id of the index that goes, 0 for none.
	Drop uint64 `json:"drop,omitempty"`
}

// apply changes a catalog entry.
func (d *ddlIndex) apply(e *tableEntry) {
	e.Indexes = d.after(e.Indexes)
	if d.Create != nil {
		e.LastIndex = max(e.LastIndex, d.Create.ID)
	}
}

// after returns a list of indexes as it is after the change.
func (d *ddlIndex) after(list []indexEntry) []indexEntry {
	list = slices.DeleteFunc(slices.Clone(list), func(x indexEntry) bool { return x.ID == d.Drop })
	if d.Create != nil {
		list = append(list, *d.Create)
	}
	return list
}

// indexesWith returns the indexes that remain when a table has no other columns than those with some field ids: an
// index goes with its column.
func indexesWith(list []indexEntry, fields []int32) []indexEntry {
	return slices.DeleteFunc(slices.Clone(list), func(x indexEntry) bool {
		return slices.ContainsFunc(x.Fields, func(id int32) bool { return !slices.Contains(fields, id) })
	})
}

// fieldIDs returns the ids of the schema's columns.
func (s *tableSchema) fieldIDs() []int32 {
	ids := make([]int32, len(s.lance.Fields))
	for i, f := range s.lance.Fields {
		ids[i] = f.ID
	}
	return ids
}

// indexList returns the table's indexes as of now.
func (t *Table) indexList() []indexEntry { return *t.indexes.Load() }

// index returns the index with a name, whatever its case.
func (t *Table) index(name string) (indexEntry, bool) {
	list := t.indexList()
	i := slices.IndexFunc(list, func(x indexEntry) bool { return strings.EqualFold(x.Name, name) })
	if i < 0 {
		return indexEntry{}, false
	}
	return list[i], true
}

// showIndexes lets readers and the writers of memtables have a list of indexes. REQUIRES: db.ddl is held.
func (t *Table) showIndexes(list []indexEntry) {
	t.db.moment.Lock()
	t.indexes.Store(&list)
	t.db.version.Add(1)
	t.db.moment.Unlock()
}

// maintains reports whether memtables keep an index while they are written.
func (e *tableEntry) maintains(index string) bool {
	return e.Maintain == nil || slices.ContainsFunc(e.Maintain, func(name string) bool { return strings.EqualFold(name, index) })
}

// newIndexEntry checks the definition of an index and returns it as the catalog stores it.
func newIndexEntry(d IndexDef, now *tableSchema, id uint64) (*indexEntry, error) {
	if d.Name == "" || strings.ContainsAny(d.Name, "\x00/\\") || strings.HasPrefix(d.Name, "__") {
		return nil, fmt.Errorf("%w name for an index: %q; it must not be empty, begin with __ or have slashes", ErrInvalid, d.Name)
	}
	if d.Kind != BTreeIndex && !d.Kind.isVector() {
		return nil, fmt.Errorf("index %q: %w kind %q; there is %s, %s and %s", d.Name, ErrInvalid, d.Kind, BTreeIndex, IVFPQIndex, IVFFlatIndex)
	}
	if len(d.Columns) != 1 {
		return nil, fmt.Errorf("index %q: %w: a %s is over one column, not %d; make one for each", d.Name, ErrInvalid, d.Kind, len(d.Columns))
	}
	c := columnIndex(now.arrow, d.Columns[0])
	if c < 0 {
		return nil, fmt.Errorf("index %q: %w: the table has no column %q", d.Name, ErrInvalid, d.Columns[0])
	}
	x := &indexEntry{ID: id, Name: d.Name, Kind: d.Kind, Fields: []int32{now.lance.Fields[c].ID}}
	f := now.arrow.Field(c)
	if d.Kind.isVector() {
		if _, err := newVectorOptions(d.Kind, d.Options, f); err != nil {
			return nil, fmt.Errorf("index %q: %w", d.Name, err)
		}
		x.Options = maps.Clone(d.Options)
		return x, nil
	}
	for _, o := range slices.Sorted(maps.Keys(d.Options)) {
		return nil, fmt.Errorf("index %q: %w: a %s has no option %q", d.Name, ErrInvalid, d.Kind, o)
	}
	if newColumnCodec(f, c) == nil {
		return nil, fmt.Errorf("index %q: %w: column %q has type %s, which has no order%s", d.Name, ErrInvalid, f.Name, f.Type, vectorHint(f.Type))
	}
	return x, nil
}

// vectorHint says by what vectors are indexed.
func vectorHint(t arrow.DataType) string {
	if _, ok := memindex.VectorType(t); ok {
		return fmt.Sprintf("; vectors are indexed USING %s or %s", IVFPQIndex, IVFFlatIndex)
	}
	return ""
}

// newIndexEntries is newIndexEntry for the indexes that a table is made with.
func newIndexEntries(list []IndexDef, s *tableSchema) ([]indexEntry, error) {
	var out []indexEntry
	for i, d := range list {
		x, err := newIndexEntry(d, s, uint64(i+1))
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out, func(o indexEntry) bool { return strings.EqualFold(o.Name, x.Name) }) {
			return nil, fmt.Errorf("index %q: %w", x.Name, ErrIndexExists)
		}
		out = append(out, *x)
	}
	return out, nil
}

// definition returns an index as its table defines it now.
func (x *indexEntry) definition(now *tableSchema) IndexDef {
	d := IndexDef{Name: x.Name, Kind: x.Kind, Options: maps.Clone(x.Options)}
	for _, id := range x.Fields {
		if c := now.column(id); c >= 0 {
			d.Columns = append(d.Columns, now.lance.Fields[c].Name)
		}
	}
	return d
}

// definitions returns all indexes as the table defines them now, nil when it has none.
func (t *Table) definitions(now *tableSchema) []IndexDef {
	var out []IndexDef
	for _, x := range t.indexList() {
		out = append(out, x.definition(now))
	}
	return out
}

// CreateIndex makes an index of a table. Scans use it for rows that are written from now on at once, and for those that
// are there as they come into it, which is all of them when CreateIndex returns: reads and writes go on meanwhile. When
// it fails, because ctx ended for instance, there is no such index. An index of the same name over the same column that
// another program made becomes the table's.
func (db *DB) CreateIndex(ctx context.Context, n TableName, d IndexDef, o CreateIndexOptions) error {
	t, x, old, err := db.defineIndex(ctx, n, d, o)
	if err != nil || x == nil {
		return err
	}
	if old != nil {
		err = t.compactor.order(ctx, func(ctx context.Context) error { return t.compactor.dropColumns(ctx, old.Name) })
	}
	if err == nil {
		err = t.cover(ctx, *x, false, o.Progress)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("create index %q on table %q: %w", d.Name, n, err), db.undoIndex(ctx, t, x))
	}
	return nil
}

// defineIndex brings a new index into the catalog, and returns it with the one whose place it takes. It returns nil for
// one that is there and may be.
func (db *DB) defineIndex(ctx context.Context, n TableName, d IndexDef, o CreateIndexOptions) (t *Table, x, old *indexEntry, err error) {
	defer db.poke() // the trimmer passes over DDL that it meets
	t, unlock, err := db.seizeForDDL(ctx, n)
	if err != nil {
		return nil, nil, nil, err
	}
	defer unlock()
	was, exists := t.index(d.Name)
	switch {
	case exists && o.IfNotExists && !o.Replace:
		return t, nil, nil, nil
	case exists && !o.Replace:
		return nil, nil, nil, fmt.Errorf("create index on table %q: index %q: %w", n, d.Name, ErrIndexExists)
	}
	if err := t.refuseWrite(); err != nil {
		return nil, nil, nil, err
	}
	if err := t.refuseIndexes(); err != nil {
		return nil, nil, nil, fmt.Errorf("create index %q on table %q: %w", d.Name, n, err)
	}
	if x, err = newIndexEntry(d, t.now(), t.lastIndex+1); err != nil {
		return nil, nil, nil, fmt.Errorf("create index on table %q: %w", n, err)
	}
	foreign, err := t.foreignIndex(x, exists)
	if err != nil && !o.Replace {
		return nil, nil, nil, fmt.Errorf("create index on table %q: index %q: %w", n, d.Name, err)
	}
	if o.Replace {
		if x.Replaced, err = t.fieldsNamed(x, was); err != nil {
			return nil, nil, nil, fmt.Errorf("create index on table %q: index %q: %w", n, d.Name, err)
		}
	}
	change := ddlIndex{Incarnation: t.entry.Incarnation, Create: x, Drop: was.ID}
	if err := db.logDDL(ctx, ddl{Index: &change}); err != nil {
		return nil, nil, nil, fmt.Errorf("create index %q on table %q: %w", d.Name, n, err)
	}
	t.lastIndex = x.ID
	t.showIndexes(change.after(t.indexList()))
	if exists || foreign {
		old = &was
		old.Name = d.Name
	}
	return t, x, old, nil
}

// refuseIndexes returns why the table's base cannot have indexes of ours.
func (t *Table) refuseIndexes() error {
	b, err := t.holdBase()
	if err != nil {
		return err
	}
	defer b.unref()
	if b.version.StableRowIDs() != nil {
		return fmt.Errorf("%w: an index of a table with feature flag 1 (stable row ids) names rows by those, which flightd does not; make it with Lance, or copy the table with CREATE TABLE … AS", ErrUnsupported)
	}
	return nil
}

// lacksField tells whether one of some fields is no column of the table any more.
func (t *Table) lacksField(ids []int32) bool {
	fields := t.now().lance.Fields
	return slices.ContainsFunc(ids, func(id int32) bool {
		return !slices.ContainsFunc(fields, func(f lance.Field) bool { return f.ID == id })
	})
}

// undoIndex drops an index whose making failed.
func (db *DB) undoIndex(ctx context.Context, t *Table, x *indexEntry) error {
	ctx = context.WithoutCancel(ctx)
	_, _, err := db.forgetIndex(ctx, t.name, func(now *Table) (indexEntry, bool) {
		list := now.indexList()
		i := slices.IndexFunc(list, func(o indexEntry) bool { return o.ID == x.ID })
		if i < 0 || now != t {
			return indexEntry{}, false
		}
		return list[i], true
	})
	if err == nil {
		err = t.compactor.order(ctx, func(ctx context.Context) error { return t.compactor.dropColumns(ctx, x.Name) })
	}
	if errors.Is(err, ErrIndexNotFound) || errors.Is(err, ErrTableNotFound) || errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}

// DropIndex drops an index, also one that another program made. Scans under way may still use it.
func (db *DB) DropIndex(ctx context.Context, n TableName, index string) error {
	// What is in the base goes first, and what a merge adds meanwhile after the catalog has forgotten the index: a crash in
	// between leaves an index without rows, and not rows of an index that looks like another program's.
	if err := db.emptyIndex(ctx, n, index); err != nil {
		return fmt.Errorf("drop index %q of table %q: %w", index, n, err)
	}
	t, x, err := db.forgetIndex(ctx, n, func(t *Table) (indexEntry, bool) { return t.index(index) })
	if errors.Is(err, ErrIndexNotFound) && t != nil {
		x, err = t.foreignNamed(index)
	}
	if err == nil {
		err = t.compactor.order(ctx, func(ctx context.Context) error { return t.compactor.dropColumns(ctx, x.Name) })
	}
	if err != nil {
		return fmt.Errorf("drop index %q of table %q: %w", index, n, err)
	}
	return nil
}

// emptyIndex takes the segments of an index that the catalog has out of the base.
func (db *DB) emptyIndex(ctx context.Context, n TableName, index string) error {
	t, err := db.Table(n)
	if err != nil {
		return nil // who drops the index says so
	}
	x, ok := t.index(index)
	if !ok {
		return nil
	}
	return t.compactor.order(ctx, func(ctx context.Context) error { return t.compactor.dropColumns(ctx, x.Name) })
}

// foreignNamed returns the index of the base with a name that is not the key's.
func (t *Table) foreignNamed(name string) (indexEntry, error) {
	b, err := t.holdBase()
	if err != nil {
		return indexEntry{}, err
	}
	defer b.unref()
	for _, seg := range b.version.Indexes {
		if strings.EqualFold(seg.Name, name) && !b.schema.isKey(seg.Fields) {
			return indexEntry{Name: seg.Name}, nil
		}
	}
	return indexEntry{}, ErrIndexNotFound
}

// forgetIndex takes the index that pick chooses out of the catalog. It returns the table also when there is no such
// index.
func (db *DB) forgetIndex(ctx context.Context, n TableName, pick func(t *Table) (indexEntry, bool)) (*Table, indexEntry, error) {
	defer db.poke()
	t, unlock, err := db.seizeForDDL(ctx, n)
	if err != nil {
		return nil, indexEntry{}, err
	}
	defer unlock()
	x, ok := pick(t)
	if !ok {
		return t, x, ErrIndexNotFound
	}
	change := ddlIndex{Incarnation: t.entry.Incarnation, Drop: x.ID}
	if err := db.logDDL(ctx, ddl{Index: &change}); err != nil {
		return t, x, err
	}
	t.showIndexes(change.after(t.indexList()))
	return t, x, nil
}

// OptimizeIndex brings all rows of the table that the index does not have yet into it. One over vectors is trained anew when its rows lie
// much more unevenly than those that it was trained with. Progress is that of CreateIndexOptions.
func (t *Table) OptimizeIndex(ctx context.Context, index string, progress func(done, total int64)) error {
	return t.optimizeIndex(ctx, index, false, progress)
}

// RetrainIndex is OptimizeIndex, and trains an index over vectors anew in any case.
func (t *Table) RetrainIndex(ctx context.Context, index string, progress func(done, total int64)) error {
	return t.optimizeIndex(ctx, index, true, progress)
}

func (t *Table) optimizeIndex(ctx context.Context, index string, retrain bool, progress func(done, total int64)) error {
	if err := t.refuseWrite(); err != nil {
		return err
	}
	x, ok := t.index(index)
	if !ok {
		if x, ok = t.foreignVectors(index); !ok {
			return fmt.Errorf("optimize index %q of table %q: %w", index, t.name, ErrIndexNotFound)
		}
	}
	if err := t.cover(ctx, x, retrain, progress); err != nil {
		return fmt.Errorf("optimize index %q of table %q: %w", index, t.name, err)
	}
	return nil
}

// IndexInfo tells of an index.
type IndexInfo struct {
	IndexDef
	// Foreign is set for an index that another program made, which the catalog does not know: rows come into it only by
	// that program.
	Foreign bool
	// Segments are those of the base, Bytes what they and those of generations take on disk.
	Segments int
	Bytes    int64
	// Covered are the rows that scans find by it, Uncovered those that they look at one by one.
	Covered, Uncovered int64
	// Maintained is set when memtables keep it while they are written; MemoryBytes is what it takes there.
	Maintained  bool
	MemoryBytes int64
	// Vectors tells more of an index over vectors, nil for others.
	Vectors *VectorIndexInfo
}

// Indexes tells of all indexes of the table but that of its key, those of the catalog first.
func (t *Table) Indexes() []IndexInfo {
	set := t.holdSet()
	now := t.now()
	var out []IndexInfo
	for _, x := range t.indexList() {
		info := IndexInfo{IndexDef: x.definition(now), Maintained: t.entry.maintains(x.Name)}
		switch {
		case set == nil:
		case now.isKey(x.Fields):
			info.countKey(set)
		case x.Kind.isVector():
			info.countVectors(set, x)
		default:
			info.count(set, x.Fields[0])
		}
		out = append(out, info)
	}
	if set != nil {
		out = append(out, foreignIndexes(set.base, now, out)...)
		for _, x := range t.vectorEntries(set.base) {
			if x.ID == 0 && now.column(x.Fields[0]) >= 0 {
				info := IndexInfo{IndexDef: x.definition(now), Maintained: t.entry.maintains(x.Name), Foreign: true}
				info.countVectors(set, x)
				out = append(out, info)
			}
		}
		set.unref()
	}
	return out
}

// ForeignIndexes returns the indexes of the base that another program made, which the catalog does not know.
func (t *Table) ForeignIndexes() []IndexDef {
	set := t.holdSet()
	if set == nil {
		return nil
	}
	defer set.unref()
	now := t.now()
	var known []IndexInfo
	for _, x := range t.indexList() {
		known = append(known, IndexInfo{IndexDef: x.definition(now)})
	}
	var out []IndexDef
	for _, x := range foreignIndexes(set.base, now, known) {
		out = append(out, x.IndexDef)
	}
	for _, x := range t.vectorEntries(set.base) {
		if x.ID == 0 && now.column(x.Fields[0]) >= 0 {
			out = append(out, x.definition(now))
		}
	}
	return out
}

// foreignIndexes tells of the indexes of a base that are not among those known. Those of columns that the table has no
// more are none, though a base may go on naming them.
func foreignIndexes(b *base, now *tableSchema, known []IndexInfo) []IndexInfo {
	var out []IndexInfo
	for _, seg := range b.columns {
		same := func(x IndexInfo) bool { return strings.EqualFold(x.Name, seg.meta.Name) }
		if now.column(seg.field()) < 0 || slices.ContainsFunc(known, same) || slices.ContainsFunc(out, same) {
			continue
		}
		x := indexEntry{Name: seg.meta.Name, Kind: seg.kind, Fields: seg.meta.Fields}
		info := IndexInfo{IndexDef: x.definition(now), Foreign: true}
		info.countSegments(b, b.segmentsOver(seg.field(), seg.kind == LabelListIndex))
		out = append(out, info)
	}
	return out
}

// count counts rows and bytes of the layers of a set.
func (x *IndexInfo) count(set *layerSet, field int32) {
	x.countBase(set.base, field)
	for _, c := range set.chains {
		for _, l := range c.layers {
			switch l := l.layer.(type) {
			case *generation:
				seg := l.columnOver(field)
				if x.rows(l.frag.live, seg != nil); seg != nil {
					x.Bytes += fileBytesOf(seg.meta)
				}
			case *memtable:
				c := l.columnOver(field)
				all := l.rows.Load()
				known := all.indexed().rowCount()
				x.rows(known, c != nil)
				if x.rows(all.rowCount()-known, false); c != nil {
					x.MemoryBytes += c.index.MemoryBytes()
				}
			}
		}
	}
}

// countKey is count for the index that the key has anyway.
func (x *IndexInfo) countKey(set *layerSet) {
	x.Maintained = true
	x.Segments = len(set.base.indexes)
	x.Covered = set.base.rows
	for _, seg := range set.base.indexes {
		x.Bytes += fileBytesOf(seg.meta)
	}
	for _, f := range set.base.uncovered {
		x.Covered -= f.live
		x.Uncovered += f.live
	}
	for _, c := range set.chains {
		for _, l := range c.layers {
			switch l := l.layer.(type) {
			case *generation:
				x.Covered += l.frag.live
			case *memtable:
				x.Covered += l.rows.Load().rowCount()
			}
		}
	}
}

// countBase is count for the base.
func (x *IndexInfo) countBase(b *base, field int32) { x.countSegments(b, b.columnsOver(field)) }

// countSegments is count for the rows of the base that some segments find.
func (x *IndexInfo) countSegments(b *base, list []*columnSegment) {
	found := roaring.New()
	for _, seg := range list {
		found.Or(seg.meta.Fragments)
		if strings.EqualFold(seg.meta.Name, x.Name) {
			x.Segments++
			x.Bytes += fileBytesOf(seg.meta)
		}
	}
	for _, f := range b.frags {
		x.rows(f.live, found.Contains(uint32(f.id)))
	}
}

// rows counts rows that the index finds, or does not.
func (x *IndexInfo) rows(n int64, covered bool) {
	if covered {
		x.Covered += n
	} else {
		x.Uncovered += n
	}
}

// fileBytesOf returns the size of a segment's files.
func fileBytesOf(x manifest.Index) int64 {
	n := int64(0)
	for _, f := range x.Files {
		n += f.Bytes
	}
	return n
}
