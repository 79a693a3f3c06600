package lsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/manifest"
)

// Another program may declare a key on a table that has none, or another than it has, by the metadata of the dataset's fields.
// With nothing in front of the base the table has that key from then on, if no two rows share one: the schema that follows is a
// new beginning (ddlAlter.Anew), with empty memtables. Rows in front of the base were written under the key before, so they divide
// the table (divided.go) until OPTIMIZE merges them, by that key, or Discard drops them. A version that declares no key leaves
// the table's. ALTER TABLE … ADD PRIMARY KEY is the same, with a commit of our own that declares the key.

// declaredKey returns the field ids of the key that a dataset's schema declares, in order.
func declaredKey(s *lance.Schema) []int32 {
	fields := keyFields(s)
	ids := make([]int32, len(fields))
	for i, f := range fields {
		ids[i] = f.ID
	}
	return ids
}

// rekeyed reports whether a version declares another key than the table has.
func (t *Table) rekeyed(v *manifest.Version) bool {
	ids, now := declaredKey(v.Schema), t.now()
	return len(ids) > 0 && (now.codec == nil || !slices.Equal(ids, now.keyIDs()))
}

// rekeyedBy returns the division of a table by another key that a version declares, for a reason.
func (t *Table) rekeyedBy(v *manifest.Version, reason string) *divided {
	var names []string
	for _, id := range declaredKey(v.Schema) {
		names = append(names, fieldByID(v.Schema, id).Name)
	}
	was := "none"
	if now := t.now(); now.codec != nil {
		was = "(" + strings.Join(now.codec.names, ", ") + ")"
	}
	return &divided{table: t.name, version: v.Number, operation: "Key",
		key: fmt.Sprintf("%s declares the primary key (%s), the table has %s: %s", t.root, strings.Join(names, ", "), was, reason)}
}

// rekeyedUnder is rekeyedBy for rows that are not merged.
func (t *Table) rekeyedUnder(v *manifest.Version) *divided {
	return t.rekeyedBy(v, fmt.Sprintf("rows were not merged yet; %s merges them as they were written and then takes the key up, and %s", optimizeHint(t.name), discardHint(t.name)))
}

// keyFault says that rows or columns cannot have a key.
type keyFault struct{ text string }

// Error implements error.
func (e *keyFault) Error() string { return e.text }

// takeUpKey gives the table the key that a version declares, and its columns: the dataset had the columns was. It returns why
// that cannot be, which is no error. REQUIRES: as of applyColumns.
func (t *Table) takeUpKey(ctx context.Context, v *manifest.Version, was *lance.Schema) (*divided, error) {
	if err := t.db.Wait(ctx, LSN(t.last.Load())); err != nil {
		return nil, err
	}
	done, err := t.compacted(ctx, v)
	if err != nil {
		return nil, err
	}
	if t.unmergedRows(done) {
		return t.rekeyedUnder(v), nil
	}
	c, err := t.changeAnew(v, was)
	if err == nil {
		err = t.refuseTwins(ctx, v, c.next)
	}
	var fault *keyFault
	if errors.As(err, &fault) {
		return t.rekeyedBy(v, fault.text), nil
	}
	if err == nil {
		err = t.applyColumns(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	t.divided.Store(nil)
	t.accept(v.Number)
	t.db.logger.Info("a table has another key", "table", t.name.String(), "version", v.Number, "key", strings.Join(t.Key(), ", "))
	return nil, nil
}

// takeUpBaseKey is takeUpKey for the version that readers have, when the table is served.
func (t *Table) takeUpBaseKey(ctx context.Context) error {
	release, err := t.seize(ctx)
	if err != nil {
		return err
	}
	defer release()
	return t.holdStill(ctx, func(v *manifest.Version) error {
		if !t.rekeyed(v) {
			return nil
		}
		d, err := t.takeUpKey(ctx, v, v.Schema)
		if err == nil && d != nil {
			t.divided.Store(d)
			err = &ReadOnlyError{Table: t.name, Err: d}
		}
		return err
	})
}

// recallKey is takeUpKey for a table that was opened just now, in front of whose base there is nothing.
func (t *Table) recallKey(ctx context.Context, v *manifest.Version) error {
	if !t.rekeyed(v) {
		return nil
	}
	d, err := t.takeUpKey(ctx, v, v.Schema)
	if foreignFault(err) {
		t.noteStuck(err)
		return nil
	}
	if err == nil && d != nil {
		t.divided.Store(d)
		t.warn("the table is not written", d)
	}
	return err
}

// changeAnew returns what makes the table one of a version's columns and key, with nothing in front of it. Where that declares no
// key it is the table's, if its columns are there. Columns that ALTER TABLE added and the dataset does not have yet stay, unless the
// other program's are in their way.
func (t *Table) changeAnew(v *manifest.Version, was *lance.Schema) (*columnChange, error) {
	m := &schemaMerge{now: t.now(), was: was, is: v.Schema}
	if m.run() != nil {
		m.fields, m.ids = v.Schema.Arrow().Fields(), v.Schema.FieldIDs()
		for i := range v.Schema.Fields {
			if err := m.check(&v.Schema.Fields[i]); err != nil {
				return nil, t.alien(v, err.Error())
			}
		}
	}
	key, err := m.keyAnew()
	if err != nil {
		return nil, err
	}
	if len(key) == 0 && len(t.shards) > 1 {
		return nil, t.alien(v, fmt.Sprintf("has no primary key, by which the rows of the table's %d shards are spread", len(t.shards)))
	}
	s, key, err := keyedSchema(TableDef{Schema: unkeyed(m.fields), Key: key})
	if err != nil {
		return nil, t.alien(v, err.Error())
	}
	record, next, err := m.record(t, s, key)
	if err != nil {
		return nil, t.alien(v, err.Error())
	}
	record.Anew, next.anew, next.strict = true, true, next.id
	record.Schema.Base, next.base = v.Number, v.Number
	return &columnChange{v, record, next}, nil
}

// unkeyed returns a schema of columns without what their metadata says of a key.
func unkeyed(fields []arrow.Field) *arrow.Schema {
	out := slices.Clone(fields)
	for i, f := range out {
		out[i].Metadata = unkeyedMetadata(f.Metadata)
	}
	return arrow.NewSchema(out, nil)
}

// unkeyedMetadata is unkeyed for the metadata of one column.
func unkeyedMetadata(md arrow.Metadata) arrow.Metadata {
	m := md.ToMap()
	delete(m, lance.MetaKey)
	delete(m, lance.MetaKeyPosition)
	return arrow.MetadataFrom(m)
}

// keyAnew returns the names of the columns of the key that the other program's version declares, or else of the table's.
func (m *schemaMerge) keyAnew() ([]string, error) {
	ids := declaredKey(m.is)
	declared := len(ids) > 0
	if !declared && m.now.codec != nil {
		ids = m.now.keyIDs()
	}
	var names []string
	for _, id := range ids {
		f, at, name := fieldByID(m.is, id), 0, ""
		for _, mine := range m.fields { // at is its place among ids with nested ones
			if m.ids[at] == id {
				name = mine.Name
			}
			at += idsOf(mine.Type)
		}
		switch {
		case f != nil && !f.Nullable && name != "":
			names = append(names, name)
		case !declared:
			return nil, nil
		case name == "":
			return nil, &keyFault{fmt.Sprintf("ALTER TABLE has dropped column %q", f.Name)}
		default:
			return nil, &keyFault{fmt.Sprintf("column %q may be null; declare it not null with Lance", f.Name)}
		}
	}
	return names, nil
}

// underOf returns the table's columns as a version is to have them: while another key waits to be taken up, what the version declares
// stays.
func (s *tableSchema) underOf(v *manifest.Version) *lance.Schema {
	out := &lance.Schema{Fields: slices.Clone(s.lance.StoredAs(v.Schema).Fields), Metadata: v.Schema.Metadata}
	ids := declaredKey(v.Schema)
	if len(ids) == 0 || s.codec != nil && slices.Equal(ids, s.keyIDs()) {
		return out
	}
	for i := range out.Fields {
		f := &out.Fields[i]
		f.Key, f.Metadata = 0, unkeyedMetadata(f.Metadata)
		if theirs := fieldByID(v.Schema, f.ID); theirs != nil && theirs.Key > 0 {
			f.Key, f.Metadata, f.Nullable = theirs.Key, theirs.Metadata, theirs.Nullable
		}
	}
	return out
}

// refuseNullKeys returns why what is in front of the base cannot be merged into a version that declares another key: a row there has
// a null in it.
func (t *Table) refuseNullKeys(ctx context.Context) error {
	snap, err := t.db.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer snap.Release()
	view, err := snap.Table(t.name)
	if err != nil {
		return err
	}
	version := view.set.base.version
	var columns []int
	for _, id := range declaredKey(version.Schema) {
		if c := view.schema.column(id); c >= 0 && t.rekeyed(version) && view.schema.arrow.Field(c).Nullable {
			columns = append(columns, c)
		}
	}
	if len(columns) == 0 {
		return nil
	}
	if err = view.refuseNulls(ctx, columns, ""); errors.Is(err, ErrNotNull) {
		err = &ReadOnlyError{Table: t.name, Err: t.rekeyedBy(version, fmt.Sprintf("%v; %s", err, discardHint(t.name)))}
	}
	return err
}

// refuseTwins returns a *keyFault when two rows of a version have one key of a schema, or one has none.
func (t *Table) refuseTwins(ctx context.Context, v *manifest.Version, s *tableSchema) error {
	if s.codec == nil {
		return nil
	}
	b, err := openBase(ctx, t.db.st, t, v, s, nil)
	if err != nil {
		return err
	}
	defer b.unref()
	return b.refuseTwins(ctx, s.codec, t.db.opt)
}

// refuseTwins is Table.refuseTwins for a version that is open, under a schema with the codec's columns.
func (b *base) refuseTwins(ctx context.Context, codec *keyCodec, o Options) error {
	sorter := newColumnSorter(codec, o.Temp, o.sortBytes)
	defer sorter.close()
	for _, f := range b.frags {
		if err := sorter.add(ctx, f, b.schema, nil, func(row uint32) uint64 { return f.id<<32 | uint64(row) }, nil); err != nil {
			return err
		}
	}
	sources := sorter.sources(ctx)
	defer closeSources(sources)
	var before heldKey
	return mergeKeys(sources, func(src *keySource, from, to int) error {
		for i := from; i < to; i++ {
			if i < src.nulls {
				return &keyFault{fmt.Sprintf("a row has a null in (%s)", strings.Join(codec.names, ", "))}
			}
			if before.is(src.keys, i) {
				return &keyFault{fmt.Sprintf("two rows have the key %s = %s; delete one of them", strings.Join(codec.names, ", "), src.keys.run(codec, i).describe(0))}
			}
			before.keep(src.keys, i)
		}
		return ctx.Err()
	})
}

// heldKey is one key, kept while others come.
type heldKey struct {
	known bool
	n     int64
	wide  []byte
}

// is reports whether the i-th key of a column is the one that is kept.
func (e *heldKey) is(k keyColumn, i int) bool {
	if k.wide != nil {
		return e.known && bytes.Equal(e.wide, k.wide(i))
	}
	return e.known && e.n == k.ints[i]
}

// keep keeps the i-th key of a column.
func (e *heldKey) keep(k keyColumn, i int) {
	e.known = true
	if k.wide != nil {
		e.wide = append(e.wide[:0], k.wide(i)...)
		return
	}
	e.n = k.ints[i]
}

// run returns the i-th key alone.
func (k keyColumn) run(codec *keyCodec, i int) *keyRun {
	if k.wide != nil {
		return newKeyRun(codec, nil, [][]byte{k.wide(i)})
	}
	return newKeyRun(codec, []int64{k.ints[i]}, nil)
}

// DeclareKey gives a table that has none a primary key of some columns, which from then on are not null. Everything is brought
// into the base before, where no two rows may share a key, and one commit tells other programs. Who writes the table waits.
func (db *DB) DeclareKey(ctx context.Context, n TableName, key []string) error {
	defer db.poke()
	t, unlock, err := db.seizeForDDL(ctx, n)
	if err != nil {
		return err
	}
	defer unlock()
	if err := t.refuseWrite(); err != nil {
		return err
	}
	if now := t.now(); now.codec != nil {
		return fmt.Errorf("table %q: %w: it is (%s)", n, ErrKeyColumn, strings.Join(now.codec.names, ", "))
	}
	err = manifest.ErrConflict
	for try := 0; try < maxMergeTries && errors.Is(err, manifest.ErrConflict); try++ {
		if err = t.optimize(ctx); err == nil {
			err = t.compactor.order(ctx, func(ctx context.Context) error { return t.compactor.commitKey(ctx, key) })
		}
	}
	var fault *keyFault
	if errors.As(err, &fault) {
		err = fmt.Errorf("%w: %w", ErrNotUnique, err)
	}
	if err != nil {
		return fmt.Errorf("declare the primary key of table %q: %w", n, err)
	}
	return nil
}

// commitKey declares a key in the base and gives it to the table. REQUIRES: it is called by the compactor, nobody writes the table,
// all is merged, and db.ddl is held.
func (c *compactor) commitKey(ctx context.Context, key []string) error {
	t := c.table
	if _, err := c.align(ctx); err != nil {
		return err
	}
	if err := t.basing.lock(ctx); err != nil {
		return err
	}
	defer t.basing.unlock()
	b, err := t.holdBase()
	if err != nil {
		return err
	}
	defer b.unref()
	now := t.now()
	if t.unmergedRows(nil) || !now.sameColumns(b.version) {
		return manifest.ErrConflict
	}
	s, key, err := keyedSchema(TableDef{Schema: now.arrow, Key: key})
	if err != nil {
		return err
	}
	codec, err := newKeyCodec(s, key)
	if err != nil {
		return err
	}
	if err := b.refuseTwins(ctx, codec, c.db.opt); err != nil {
		return err
	}
	declared, err := lance.SchemaFromArrow(s, 0)
	if err == nil {
		err = declared.Renumber(now.lance.FieldIDs())
	}
	if err != nil {
		return err
	}
	declared = declared.StoredAs(b.version.Schema)
	declared.Metadata = b.version.Schema.Metadata
	v, err := manifest.Commit(ctx, c.db.st, t.root, b.version, manifest.Change{Schema: declared}, t.manifestOptions())
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // the version stands
	change, err := t.changeAnew(v, b.version.Schema)
	if err == nil {
		err = t.applyColumns(ctx, change)
	}
	return err
}
