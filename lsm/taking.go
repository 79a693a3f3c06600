package lsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/google/uuid"

	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// metaFieldID is the metadata by which a column of another writer's log entries tells its field id.
const metaFieldID = "lance:field_id"

// taking is the reading of another writer's shard, which is claimed, into a stage.
type taking struct {
	t     *Table
	st    object.Store
	dir   string
	man   *manifest.Shard
	stage *Stage
	now   *tableSchema

	generations, entries int
}

// read puts all rows that are not in the base into the stage, the oldest first.
func (k *taking) read(ctx context.Context) error {
	stream := &wal.Stream{ID: k.man.ID, Dir: path.Join(k.dir, entriesFolder), Epoch: k.man.Epoch, After: k.man.ReplayAfter}
	if err := stream.Fence(ctx, k.st); err != nil {
		return err
	}
	newest, err := manifest.LoadShard(ctx, k.st, k.dir, k.t.manifestOptions())
	if err != nil {
		return err
	}
	if newest.Epoch != k.man.Epoch {
		return fmt.Errorf("its epoch is %d, ours was %d: %w", newest.Epoch, k.man.Epoch, manifest.ErrFenced)
	}
	merged, err := k.t.lastMerged(ctx, k.t.set.Load().base.version, []uuid.UUID{k.man.ID})
	if err != nil {
		return err
	}
	for _, g := range unmerged(k.man.Generations, merged[0]) {
		if err := k.generation(ctx, g); err != nil {
			return fmt.Errorf("generation %d in %s: %w", g.Number, path.Join(k.dir, g.Path), err)
		}
		k.generations++
	}
	for p := k.man.ReplayAfter + 1; p < stream.Sentinel(); p++ {
		if err := k.entry(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// generation puts the rows of a generation.
func (k *taking) generation(ctx context.Context, g manifest.Generation) error {
	dir := path.Join(k.dir, g.Path)
	v, err := manifest.Latest(ctx, k.st, dir, k.t.manifestOptions())
	if err != nil {
		return err
	}
	deletes := false
	for _, f := range v.Schema.Fields {
		if f.Name == TombstoneColumn {
			deletes = true
		} else if _, err := k.column(f.Name, f.ID); err != nil {
			return err
		}
	}
	rows := int64(0)
	for i := range v.Fragments {
		rows += v.Fragments[i].Rows
		if err := k.fragment(ctx, dir, v, &v.Fragments[i], deletes); err != nil {
			return err
		}
	}
	if g.Rows > 0 && rows != g.Rows {
		return &object.CorruptError{Name: dir, Err: fmt.Errorf("it has %d rows, the shard's manifest says %d", rows, g.Rows)}
	}
	return nil
}

// fragment puts the rows of one fragment that are not deleted.
func (k *taking) fragment(ctx context.Context, dir string, v *manifest.Version, m *manifest.Fragment, deletes bool) error {
	f, err := openFragment(ctx, k.st, dir, v, m, k.now)
	if err != nil {
		return err
	}
	defer f.unref()
	tombs := roaring.New()
	if deletes {
		if tombs, err = readTombstones(ctx, f); err != nil {
			return err
		}
	}
	sc := f.scan(k.now, k.now.all(), 0, f.rows, morselRows)
	defer sc.Close()
	for first := uint32(0); ; {
		rec, err := sc.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		n := uint32(rec.NumRows())
		rec = relabelRecord(rec, k.now.arrow)
		var rows []int32
		var dead []bool
		for i := range n {
			if !f.hides(first + i) {
				rows = append(rows, int32(i))
				dead = append(dead, tombs.Contains(first+i))
			}
		}
		err = k.put(ctx, rec, rows, dead)
		rec.Release()
		if err != nil {
			return err
		}
		first += n
	}
}

// put puts some rows of a batch under the table's schema; dead tells which of them are tombstones.
func (k *taking) put(ctx context.Context, rec arrow.RecordBatch, rows []int32, dead []bool) error {
	if len(rows) == 0 {
		return nil
	}
	cols := make([]arrow.Array, 0, rec.NumCols()+1)
	defer func() {
		for _, c := range cols {
			c.Release()
		}
	}()
	for _, c := range rec.Columns() {
		taken, err := takeRows(c, rows)
		if err != nil {
			return err
		}
		cols = append(cols, taken)
	}
	schema := k.now.arrow
	if slices.Contains(dead, true) {
		schema = k.now.withTombstones(true)
		b := array.NewBooleanBuilder(memory.DefaultAllocator)
		defer b.Release()
		b.AppendValues(dead, nil)
		cols = append(cols, b.NewArray())
	}
	out := array.NewRecordBatch(schema, cols, int64(len(rows)))
	defer out.Release()
	return k.stage.Put(ctx, Batch{Record: out})
}

// entry puts the rows of a log entry, unless a generation has them.
func (k *taking) entry(ctx context.Context, position uint64) error {
	name := path.Join(k.dir, entriesFolder, wal.EntryName(position))
	e, err := wal.ReadLanceEntry(ctx, k.st, name, position)
	if errors.Is(err, object.ErrNotExist) {
		return &object.CorruptError{Name: name, Err: fmt.Errorf("the entry is missing, and later ones are there: %w", err)}
	}
	if err != nil {
		return err
	}
	defer e.Release()
	switch {
	case e.Epoch > k.man.Epoch:
		return fmt.Errorf("entry %s has epoch %d, ours is %d: %w", name, e.Epoch, k.man.Epoch, manifest.ErrFenced)
	case e.Sentinel || e.Generation > 0 && e.Generation < k.man.CurrentGeneration:
		return nil
	}
	k.entries++
	c, columns, err := k.conform(e.Schema)
	if err != nil {
		return fmt.Errorf("entry %s: %w", name, err)
	}
	for _, rec := range e.Batches {
		if err := k.batch(ctx, c, columns, rec); err != nil {
			return fmt.Errorf("entry %s: %w", name, err)
		}
	}
	return nil
}

// column returns the table's column with a field id, -1 when the table has dropped it.
func (k *taking) column(name string, id int32) (int, error) {
	c := k.now.column(id)
	if c < 0 && id > k.now.lastField {
		return 0, fmt.Errorf("it has a column %q (field %d), which the table never had", name, id)
	}
	return c, nil
}

// conform returns what makes batches of a stream batches of the table, and the columns of the stream that it wants: those
// that the table still has. Columns are matched by field id, or by name when the stream does not tell it.
func (k *taking) conform(s *arrow.Schema) (c *Conformer, columns []int, err error) {
	s = StorageSchema(s)
	var fields []arrow.Field
	for i, f := range s.Fields() {
		if text, ok := f.Metadata.GetValue(metaFieldID); ok && f.Name != TombstoneColumn {
			id, err := strconv.ParseInt(text, 10, 32)
			if err != nil {
				return nil, nil, fmt.Errorf("column %q: %s: %w", f.Name, metaFieldID, err)
			}
			at, err := k.column(f.Name, int32(id))
			if err != nil {
				return nil, nil, err
			}
			if at < 0 {
				continue
			}
			f.Name = k.now.lance.Fields[at].Name
		}
		if f.Name == TombstoneColumn && k.now.codec == nil {
			continue // see batch
		}
		fields, columns = append(fields, f), append(columns, i)
	}
	o := ConformOptions{Defaults: make(map[string]func(context.Context, int) (arrow.Array, error))}
	for i, f := range k.now.lance.Fields {
		if k.now.fill[f.ID] != nil {
			o.Defaults[strings.ToLower(f.Name)] = func(_ context.Context, n int) (arrow.Array, error) { return k.now.missing(i, n, true) }
		}
	}
	c, err = k.t.Conform(arrow.NewSchema(fields, nil), o)
	return c, columns, err
}

// batch puts a batch of a log entry, cut into pieces that a stage can hold.
func (k *taking) batch(ctx context.Context, c *Conformer, columns []int, rec arrow.RecordBatch) error {
	if err := k.refuseDeletes(rec); err != nil {
		return err
	}
	cols, fields := make([]arrow.Array, len(columns)), make([]arrow.Field, len(columns))
	for i, at := range columns {
		cols[i] = rec.Column(at)
		if x, ok := cols[i].(array.ExtensionArray); ok {
			cols[i] = x.Storage()
		}
		fields[i] = arrow.Field{Name: rec.ColumnName(at), Type: cols[i].DataType(), Nullable: true}
	}
	plain := array.NewRecordBatch(arrow.NewSchema(fields, nil), cols, rec.NumRows())
	defer plain.Release()
	out, err := c.Apply(ctx, plain)
	if err != nil {
		return err
	}
	defer out.Release()
	for first := int64(0); first < out.NumRows(); first += morselRows {
		piece := out.NewSlice(first, min(first+morselRows, out.NumRows()))
		err := k.stage.Put(ctx, Batch{Record: piece})
		piece.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// refuseDeletes returns an error for tombstones in a table without a key.
func (k *taking) refuseDeletes(rec arrow.RecordBatch) error {
	if k.now.codec != nil {
		return nil
	}
	for _, i := range rec.Schema().FieldIndices(TombstoneColumn) {
		if dead, ok := rec.Column(i).(*array.Boolean); !ok || slices.Contains(boolValues(dead), true) {
			return &NoKeyError{Table: k.t.name}
		}
	}
	return nil
}

// boolValues returns flags as a slice, null as false.
func boolValues(flags *array.Boolean) []bool {
	out := make([]bool, flags.Len())
	for i := range out {
		out[i] = flags.IsValid(i) && flags.Value(i)
	}
	return out
}
