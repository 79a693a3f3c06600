package lsm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sync/atomic"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/btree"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/lsm/keyfilter"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// keyIndexFolder is the BTREE over the key, inside a generation's folder, and keyFilterFile the filter of its keys.
const (
	keyIndexFolder = "_pk_index"
	keyFilterFile  = "key_filter.bin"
)

// generation is a flushed memtable: a Lance dataset of one fragment whose rows have the memtable's row numbers.
type generation struct {
	number uint64
	dir    string // below the data folder
	frag   *fragment
	bytes  int64        // about what it takes on disk
	keys   *btree.Index // nil without a key
	bounds *keyRun      // the least and the greatest key, nil when there is none
	// filter says of most other keys that they are not in the generation; nil without a key, and in generations of before
	// there were filters.
	filter *keyfilter.Filter
	// columns are the indexes over other columns, vectors those over vectors.
	columns []*columnSegment
	vectors []*vectorSegment
	refs    atomic.Int64
	// remove is set when the generation is in the base: its folder goes with the last reference.
	remove atomic.Pointer[func(dir string)]
}

// generationSchema returns the schema of a table's generations: rows that are tombstones have nulls in all columns
// but the key's, so these must be nullable, and `_tombstone` follows. A table without a key has neither.
func generationSchema(now *tableSchema) *lance.Schema {
	if now.codec == nil {
		return now.lance
	}
	s := &lance.Schema{Fields: slices.Clone(now.lance.Fields), Metadata: now.lance.Metadata}
	for i, f := range s.Fields {
		if f.Key == 0 {
			s.Fields[i] = f.WithNulls()
		}
	}
	s.Fields = append(s.Fields, lance.Field{ID: now.tombstoneID(), Name: TombstoneColumn, Type: arrow.FixedWidthTypes.Boolean})
	return s
}

// writeGeneration writes a memtable as a dataset in a fresh folder below the shard's; its number is given by who
// publishes it. Sorted has the memtable's keys. A failed attempt leaves a folder that the next Open removes, as no manifest
// names it.
func writeGeneration(ctx context.Context, st object.Store, sh *shard, m *memtable, sorted *sortedRows, number uint64) (manifest.Generation, error) {
	var random [4]byte
	_, _ = rand.Read(random[:]) // it never fails
	g := manifest.Generation{Path: fmt.Sprintf("%x_gen_%d", random, number), Rows: m.rows.Load().rowCount(), Bytes: m.bytes.Load()}
	dir := path.Join(sh.dir(), g.Path)
	now := sh.table.now()
	schema := generationSchema(now)
	version := sh.table.fileVersion()
	frag, err := writeMemtable(ctx, st, dir, schema, now, m.rows.Load(), version)
	if err != nil {
		return g, err
	}
	o := manifest.CreateOptions{Append: []manifest.Fragment{frag}, Version: version}
	if m.codec != nil {
		if err := writeKeys(ctx, st, dir, sorted); err != nil {
			return g, err
		}
		if dead := m.rows.Load().deadBitmap(); dead != nil {
			o.AppendDeleted = map[int]*roaring.Bitmap{0: dead}
		}
	}
	if o.Indexes, err = writeColumns(ctx, st, dir, sh.table, now, m); err != nil {
		return g, err
	}
	vectors, err := writeVectors(ctx, st, dir, sh.table, now, m)
	if err != nil {
		return g, err
	}
	o.Indexes = append(o.Indexes, vectors...)
	if _, err := manifest.Create(ctx, st, dir, schema, o); err != nil {
		return g, err
	}
	return g, nil
}

// writeMemtable writes the batches as one data file.
func writeMemtable(ctx context.Context, st object.Store, dir string, schema *lance.Schema, now *tableSchema, rows *memRows, version lance.Version) (manifest.Fragment, error) {
	name, err := newFileName()
	if err != nil {
		return manifest.Fragment{}, err
	}
	w, err := lance.Create(ctx, st, path.Join(dir, "data", name), schema, lance.WriterOptions{Version: version})
	if err != nil {
		return manifest.Fragment{}, err
	}
	as := schema.Arrow()
	for _, b := range rows.batches {
		if err := writeBatch(ctx, w, as, b, now); err != nil {
			w.Abort()
			return manifest.Fragment{}, err
		}
	}
	info, err := w.Finish(ctx)
	if err != nil {
		return manifest.Fragment{}, err
	}
	return writtenFragment(name, info, schema), nil
}

// writeBatch writes one batch under the current schema, with its tombstones when the table has a key.
func writeBatch(ctx context.Context, w *lance.Writer, s *arrow.Schema, b memBatch, now *tableSchema) error {
	if now.codec == nil && b.schema == now {
		return w.Write(ctx, b.rec)
	}
	var cols []arrow.Array
	defer func() {
		for _, c := range cols {
			c.Release()
		}
	}()
	for i := range now.lance.Fields {
		col, err := now.pick(b.schema, b.rec, i)
		if err != nil {
			return err
		}
		cols = append(cols, relabel(col, s.Field(i).Type))
		col.Release()
	}
	if now.codec != nil {
		cols = append(cols, b.tombstones())
	}
	rec := array.NewRecordBatch(s, cols, b.rec.NumRows())
	defer rec.Release()
	return w.Write(ctx, rec)
}

// tombstones returns which rows are tombstones, also when none is. The caller releases it.
func (b *memBatch) tombstones() arrow.Array {
	if b.tombs != nil {
		b.tombs.Retain()
		return b.tombs
	}
	n := int(b.rec.NumRows())
	bits := memory.NewBufferBytes(make([]byte, (n+7)/8))
	defer bits.Release()
	return array.NewBoolean(n, bits, nil, 0)
}

// writeKeys writes the newest row of each key, sorted by key, as a BTREE, and a filter of the keys.
func writeKeys(ctx context.Context, st object.Store, dir string, sorted *sortedRows) error {
	// The commit of the generation, which has files below the same folder, makes the filter's name durable.
	if err := sorted.run.filter().Write(ctx, st, path.Join(dir, keyFilterFile)); err != nil {
		return err
	}
	w, err := btree.Create(ctx, st, path.Join(dir, keyIndexFolder), sorted.run.codec.typ, btree.WriterOptions{})
	if err != nil {
		return err
	}
	ids := make([]uint64, len(sorted.rows))
	for i, r := range sorted.rows {
		ids[i] = uint64(r)
	}
	values := sorted.run.array()
	defer values.Release()
	if err := w.Add(ctx, values, ids); err != nil {
		w.Abort()
		return err
	}
	_, err = w.Finish(ctx)
	return err
}

// openGeneration opens what writeGeneration wrote.
func openGeneration(ctx context.Context, st object.Store, sh *shard, m manifest.Generation) (*generation, error) {
	t, dir := sh.table, path.Join(sh.dir(), m.Path)
	v, err := manifest.Latest(ctx, st, dir, t.manifestOptions())
	if err != nil {
		return nil, fmt.Errorf("open generation %d: %w", m.Number, err)
	}
	if len(v.Fragments) != 1 {
		return nil, fmt.Errorf("open generation %d: %s has %d fragments, want 1", m.Number, dir, len(v.Fragments))
	}
	g := &generation{number: m.Number, dir: dir, bytes: m.Bytes}
	g.refs.Store(1)
	if g.frag, err = openFragment(ctx, st, dir, v, &v.Fragments[0], t.now()); err != nil {
		return nil, fmt.Errorf("open generation %d: %w", m.Number, err)
	}
	if t.now().codec != nil {
		if err := g.openKeys(ctx, st, dir, t.now().codec); err != nil {
			g.unref()
			return nil, fmt.Errorf("open generation %d: %w", m.Number, err)
		}
	}
	g.columns = openColumns(ctx, st, dir, v, t.now(), t.warn)
	list := openVectors(ctx, st, dir, v, t.now(), t)
	g.vectors = list.kept
	closeVectors(list.found) // nobody puts such an index into a generation
	return g, nil
}

// openKeys opens the key index and the filter, and hides the tombstones.
func (g *generation) openKeys(ctx context.Context, st object.Store, dir string, codec *keyCodec) error {
	var err error
	if g.filter, err = openKeyFilter(ctx, st, dir); err != nil {
		return err
	}
	if g.keys, err = btree.Open(ctx, st, path.Join(dir, keyIndexFolder), btree.Options{}); err != nil {
		return err
	}
	g.bounds = keyBounds(codec, g.keys)
	tombs, err := readTombstones(ctx, g.frag)
	if err != nil {
		return err
	}
	if g.frag.hidden == nil {
		g.frag.hidden = tombs
	} else {
		g.frag.hidden.Or(tombs)
	}
	g.frag.count()
	return nil
}

// readTombstones returns the rows of a generation that are tombstones.
func readTombstones(ctx context.Context, f *fragment) (*roaring.Bitmap, error) {
	reader := f.files[0] // the one that flightd wrote
	column := slices.IndexFunc(reader.Schema().Fields, func(x lance.Field) bool { return x.Name == TombstoneColumn })
	if column < 0 {
		return nil, &object.CorruptError{Name: "generation", Err: fmt.Errorf("there is no column %s", TombstoneColumn)}
	}
	out := roaring.New()
	first := uint32(0)
	sc := reader.Scan([]int{column}, 0, f.rows, morselRows)
	defer sc.Close()
	for {
		rec, err := sc.Next(ctx)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		tombs, ok := rec.Column(0).(*array.Boolean)
		for i := 0; ok && i < tombs.Len(); i++ {
			if tombs.IsValid(i) && tombs.Value(i) {
				out.Add(first + uint32(i))
			}
		}
		first += uint32(rec.NumRows())
		rec.Release()
	}
}

// resolve implements layer.
func (g *generation) resolve(ctx context.Context, run *keyRun, mark func(fragment uint64, row uint32)) error {
	return g.lookup(ctx, run, 0, func(_ int, fragment uint64, row uint32) { mark(fragment, row) })
}

// lookup implements layer.
func (g *generation) lookup(ctx context.Context, run *keyRun, _ LSN, fn func(key int, fragment uint64, row uint32)) error {
	if part, first := g.dense(run); part != nil {
		keys := part.array()
		defer keys.Release()
		return g.keys.Lookup(ctx, keys, func(key int, id uint64) error {
			fn(first+key, 0, uint32(id))
			return nil
		})
	}
	return g.possible(run, func(part *keyRun, places []int) error {
		keys := part.array()
		defer keys.Release()
		return g.keys.Lookup(ctx, keys, func(key int, id uint64) error {
			fn(places[key], 0, uint32(id))
			return nil
		})
	})
}

func (g *generation) retain() { g.refs.Add(1) }

func (g *generation) unref() {
	if g.refs.Add(-1) > 0 {
		return
	}
	g.frag.unref()
	closeColumns(g.columns)
	closeVectors(g.vectors)
	if g.keys != nil {
		_ = g.keys.Close() // open for reading only
	}
	if g.filter != nil {
		_ = g.filter.Close() // open for reading only
	}
	if remove := g.remove.Load(); remove != nil {
		(*remove)(g.dir)
	}
}

// removeLater makes the last unref call remove with the generation's folder.
func (g *generation) removeLater(remove func(dir string)) { g.remove.Store(&remove) }
