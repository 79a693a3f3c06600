package query

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/flightd/flightd/lsm"
)

// A store is what a query needs of the storage engine. lsmStore is the one that ships; tests of the bridge feed
// batches from memory instead, to control where morsels end and which of their rows live.
type store interface {
	// refresh takes up what other programs committed to the tables.
	refresh(ctx context.Context) error
	catalogVersion() uint64
	tables() []tableInfo
	unserved(schema, name string) error
	// stats is the state of the engine in numbers.
	stats() lsm.Stats
	views() []viewInfo
	createView(ctx context.Context, v viewInfo, replace bool) error
	dropView(ctx context.Context, schema, name string) error
	// comment comments on a table or view, or on a column of it if column is not empty; a nil text takes the comment away.
	comment(ctx context.Context, of tableRef, column string, text *string) error
	snapshot(ctx context.Context) (snapshot, error)
	// histories are the versions of all tables, and past opens one.
	histories(ctx context.Context) ([]tableHistory, error)
	past(ctx context.Context, of tableInfo, as lsm.AsOf) (openedPast, error)
	create(ctx context.Context, t tableInfo) error
	drop(ctx context.Context, schema, name string) error
	// alter gives the table, as it was when t was read, other columns: next has their types and the DDL.
	alter(ctx context.Context, t tableInfo, columns []alteredColumn, next tableInfo) error
	insert(ctx context.Context, schema, name string, rec arrow.RecordBatch) (int64, error)
	optimize(ctx context.Context, schema, name string) error
	// declareKey gives a table without a primary key one of some columns.
	declareKey(ctx context.Context, of tableRef, key []string) error
	// discard drops the rows of a table that another program put something else below, and returns their number, -1 when it is not known.
	discard(ctx context.Context, schema, name string) (int64, error)
	// tag gives a version of a table a name, with 0 the one that has everything, and returns its number; untag takes the name away.
	tag(ctx context.Context, schema, name, tag string, version uint64) (uint64, error)
	untag(ctx context.Context, schema, name, tag string) (uint64, error)
	// createIndex, dropIndex and optimizeIndex are for indexes of a table. progress hears how many of how many rows are in.
	createIndex(ctx context.Context, of tableRef, d lsm.IndexDef, o lsm.CreateIndexOptions) error
	dropIndex(ctx context.Context, of tableRef, index string) error
	optimizeIndex(ctx context.Context, of tableRef, index string, retrain bool, progress func(done, total int64)) error
	// vacuum removes what a table keeps no longer.
	vacuum(ctx context.Context, schema, name string) (freed, error)
	// modify calls fn while nobody else changes the rows that it may change, and applies what fn wrote if it returns nil.
	// With rewrite, which is for tables without a key, rows have addresses and the writer removes by them; fn may then
	// be called again.
	modify(ctx context.Context, t tableInfo, rewrite bool, fn func(ctx context.Context, snap snapshot, w writer) error) error
	// stageTable makes a table with the rows that fill puts, at one moment. With replace it takes the place of one
	// that is there.
	stageTable(ctx context.Context, t tableInfo, replace bool, fill func(put func(arrow.RecordBatch) error) error) error
}

// A snapshot is all tables at one moment.
type snapshot interface {
	catalogVersion() uint64
	table(schema, name string) (tableSource, error)
	// keep lets go of all tables but these.
	keep(tables []tableInfo)
	release()
}

// lsmStore reads and writes the engine.
type lsmStore struct{ db *lsm.DB }

func (s lsmStore) refresh(ctx context.Context) error { return s.db.Refresh(ctx) }

func (s lsmStore) catalogVersion() uint64 { return s.db.CatalogVersion() }

func (s lsmStore) tables() []tableInfo {
	var out []tableInfo
	for _, t := range s.db.Tables() {
		d, version := t.Definition()
		if d.Name.Schema == "" {
			d.Name.Schema = lsm.MainSchema
		}
		comments := t.Comments()
		if d.SQL == "" { // another program made the table, or changed its columns
			d.SQL = tableSQL(d.Name.Schema, d.Name.Name, d.Schema, d.Key, defaultsBefore(t))
		}
		out = append(out, tableInfo{
			comments: &comments,
			schema:   d.Name.Schema, name: d.Name.Name,
			arrow: d.Schema, key: d.Key, sql: d.SQL, tableOptions: optionsOf(d), indexes: d.Indexes, foreign: t.ForeignIndexes(), incarnation: t.Incarnation(), version: version,
		})
	}
	return out
}

func (s lsmStore) stats() lsm.Stats { return s.db.Stats() }

func (s lsmStore) views() []viewInfo {
	var out []viewInfo
	for _, v := range s.db.Views() {
		out = append(out, viewInfo{schema: lsm.MainSchema, name: v.Name.Name, sql: v.SQL, comments: v.Comments})
	}
	return out
}

func (s lsmStore) createView(ctx context.Context, v viewInfo, replace bool) error {
	return s.db.CreateView(ctx, lsm.ViewDef{Name: lsm.TableName{Schema: v.schema, Name: v.name}, SQL: v.sql}, replace)
}

func (s lsmStore) dropView(ctx context.Context, schema, name string) error {
	return s.db.DropView(ctx, lsm.TableName{Schema: schema, Name: name})
}

func (s lsmStore) comment(ctx context.Context, of tableRef, column string, text *string) error {
	return s.db.Comment(ctx, lsm.TableName{Schema: of.schema, Name: of.name}, column, text)
}

func (s lsmStore) snapshot(ctx context.Context) (snapshot, error) {
	sn, err := s.db.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return lsmSnapshot{sn}, nil
}

func (s lsmStore) create(ctx context.Context, t tableInfo) error {
	return s.db.CreateTable(ctx, t.definition())
}

func (s lsmStore) drop(ctx context.Context, schema, name string) error {
	return s.db.DropTable(ctx, lsm.TableName{Schema: schema, Name: name})
}

func (s lsmStore) insert(ctx context.Context, schema, name string, rec arrow.RecordBatch) (int64, error) {
	t, err := s.db.Table(lsm.TableName{Schema: schema, Name: name})
	if err != nil {
		return 0, err
	}
	return t.Insert(ctx, rec)
}

func (s lsmStore) optimize(ctx context.Context, schema, name string) error {
	return s.db.Optimize(ctx, lsm.TableName{Schema: schema, Name: name})
}

func (s lsmStore) declareKey(ctx context.Context, of tableRef, key []string) error {
	return s.db.DeclareKey(ctx, of.lsm(), key)
}

func (s lsmStore) discard(ctx context.Context, schema, name string) (int64, error) {
	return s.db.Discard(ctx, lsm.TableName{Schema: schema, Name: name})
}

func (s lsmStore) tag(ctx context.Context, schema, name, tag string, version uint64) (uint64, error) {
	t, err := s.db.Table(lsm.TableName{Schema: schema, Name: name})
	if err != nil {
		return 0, err
	}
	return t.Tag(ctx, tag, version)
}

func (s lsmStore) untag(ctx context.Context, schema, name, tag string) (uint64, error) {
	t, err := s.db.Table(lsm.TableName{Schema: schema, Name: name})
	if err != nil {
		return 0, err
	}
	return t.Untag(ctx, tag)
}

func (s lsmStore) createIndex(ctx context.Context, of tableRef, d lsm.IndexDef, o lsm.CreateIndexOptions) error {
	return s.db.CreateIndex(ctx, of.lsm(), d, o)
}

func (s lsmStore) dropIndex(ctx context.Context, of tableRef, index string) error {
	return s.db.DropIndex(ctx, of.lsm(), index)
}

func (s lsmStore) optimizeIndex(ctx context.Context, of tableRef, index string, retrain bool, progress func(done, total int64)) error {
	t, err := s.db.Table(of.lsm())
	if err != nil {
		return err
	}
	if retrain {
		return t.RetrainIndex(ctx, index, progress)
	}
	return t.OptimizeIndex(ctx, index, progress)
}

func (s lsmStore) vacuum(ctx context.Context, schema, name string) (freed, error) {
	c, err := s.db.Vacuum(ctx, lsm.TableName{Schema: schema, Name: name})
	return freed{c.Versions, c.Files, c.Bytes}, err
}

func (s lsmStore) modify(ctx context.Context, of tableInfo, rewrite bool, fn func(context.Context, snapshot, writer) error) error {
	t, err := s.db.Table(lsm.TableName{Schema: of.schema, Name: of.name})
	if err != nil {
		return err
	}
	inner := fn
	fn = func(ctx context.Context, snap snapshot, w writer) error {
		// Nobody alters the table as long as this runs; what came before, the statement has not seen.
		if t.Incarnation() != of.incarnation || t.SchemaID() != of.version {
			return errTableChanged
		}
		return inner(ctx, snap, w)
	}
	if rewrite {
		return t.Rewrite(ctx, func(ctx context.Context, snap *lsm.Snapshot, rw *lsm.Rewrite) error {
			return fn(ctx, lsmSnapshot{snap}, lsmRewriter{rw})
		})
	}
	return t.Modify(ctx, func(ctx context.Context, snap *lsm.Snapshot, stage *lsm.Stage) error {
		return fn(ctx, lsmSnapshot{snap}, lsmWriter{stage, snap})
	})
}

func (s lsmStore) stageTable(ctx context.Context, t tableInfo, replace bool, fill func(func(arrow.RecordBatch) error) error) error {
	stage, err := s.db.StageTable(ctx, t.definition(), replace)
	if err != nil {
		return err
	}
	defer stage.Abort()
	if err := fill(func(rec arrow.RecordBatch) error { return stage.Put(ctx, lsm.Batch{Record: rec}) }); err != nil {
		return err
	}
	_, err = stage.Commit(ctx)
	return err
}

// lsmWriter writes into a stage.
type lsmWriter struct {
	stage *lsm.Stage
	snap  *lsm.Snapshot
}

func (w lsmWriter) insert(ctx context.Context, rec arrow.RecordBatch) error {
	return w.stage.Insert(ctx, w.snap, rec)
}

func (w lsmWriter) upsert(ctx context.Context, rec arrow.RecordBatch) error {
	return w.stage.Insert(ctx, nil, rec)
}

func (w lsmWriter) replace(ctx context.Context, rec arrow.RecordBatch) error {
	return w.stage.Put(ctx, lsm.Batch{Record: rec})
}

func (w lsmWriter) remove(ctx context.Context, keys arrow.RecordBatch) error {
	return w.stage.Delete(ctx, keys)
}

func (w lsmWriter) move(ctx context.Context, old []arrow.RecordBatch, rows iter.Seq2[arrow.RecordBatch, error]) error {
	return w.stage.Move(ctx, w.snap, old, rows)
}

// lsmRewriter writes into a rewrite. Its tables have no keys, so that a new row is a new row.
type lsmRewriter struct{ rw *lsm.Rewrite }

func (w lsmRewriter) insert(ctx context.Context, rec arrow.RecordBatch) error {
	return w.rw.Put(ctx, rec)
}

func (w lsmRewriter) upsert(ctx context.Context, rec arrow.RecordBatch) error {
	return w.rw.Put(ctx, rec)
}

func (w lsmRewriter) replace(context.Context, arrow.RecordBatch) error {
	return errors.New("rows without a key cannot be replaced by it")
}

func (w lsmRewriter) remove(_ context.Context, ident arrow.RecordBatch) error {
	addresses, ok := ident.Column(0).(*array.Uint64)
	if !ok {
		return fmt.Errorf("addresses of rows are %s", ident.Column(0).DataType())
	}
	w.rw.Delete(addresses.Uint64Values())
	return nil
}

func (w lsmRewriter) move(ctx context.Context, old []arrow.RecordBatch, rows iter.Seq2[arrow.RecordBatch, error]) error {
	for _, ident := range old {
		if err := w.remove(ctx, ident); err != nil {
			return err
		}
	}
	for rec, err := range rows {
		if err != nil {
			return err
		}
		if err := w.insert(ctx, rec); err != nil {
			return err
		}
	}
	return nil
}

// lsmSnapshot is a snapshot of the engine.
type lsmSnapshot struct{ s *lsm.Snapshot }

func (s lsmSnapshot) table(schema, name string) (tableSource, error) {
	v, err := s.s.Table(lsm.TableName{Schema: schema, Name: name})
	if err != nil {
		return nil, err
	}
	return lsmSource{v: v}, nil
}

func (s lsmSnapshot) catalogVersion() uint64 { return s.s.CatalogVersion() }

func (s lsmSnapshot) keep(tables []tableInfo) {
	names := make([]lsm.TableName, len(tables))
	for i, t := range tables {
		names[i] = lsm.TableName{Schema: t.schema, Name: t.name}
	}
	s.s.Keep(names...)
}

func (s lsmSnapshot) release() { s.s.Release() }

// lsmSource is a table of a snapshot.
type lsmSource struct {
	v           *lsm.View
	part, parts int // parts of 0 for all of it
	// keys are what all parts are asked for, whatever a scan says: another set would make other parts.
	keys *scanFilter
}

func (s lsmSource) rows() int64 { return s.v.Rows() / int64(max(s.parts, 1)) }

func (s lsmSource) piece(part, parts int, keys *scanFilter) tableSource {
	return lsmSource{s.v, part, parts, keys}
}

func (s lsmSource) scan(ctx context.Context, columns []int, keys *scanFilter) (morselReader, error) {
	return s.open(ctx, columns, keys)
}

func (s lsmSource) reads(ctx context.Context, keys *scanFilter) (rows int64, err error) {
	m, err := s.open(ctx, []int{}, keys)
	if err != nil {
		return 0, err
	}
	defer m.sc.Close()
	for _, l := range m.sc.Plan().Layers {
		rows += l.Rows
	}
	return rows, nil
}

// open begins a scan.
func (s lsmSource) open(ctx context.Context, columns []int, keys *scanFilter) (lsmMorsels, error) {
	if columns == nil {
		columns = []int{} // count only; nil could be read as all columns
	}
	if s.parts > 0 {
		keys = s.keys
	}
	o := lsm.ScanOptions{Columns: columns, Part: s.part, Parts: s.parts}
	var err error
	if keys != nil {
		if o.Keys, err = keys.keys.keySet(s.v.NewKeySet()); err != nil {
			return lsmMorsels{}, err
		}
		if keys.where != nil {
			set := s.v.NewColumnSet
			if keys.where.columns[0].items {
				set = s.v.NewItemSet
			}
			if o.Where, err = keys.where.keySet(set(keys.where.columns[0].place)); err != nil {
				return lsmMorsels{}, err
			}
		}
	}
	sc, err := s.v.Scan(ctx, o)
	return lsmMorsels{sc}, err
}

// lsmMorsels is a running scan.
type lsmMorsels struct{ sc *lsm.Scan }

func (m lsmMorsels) next(ctx context.Context) (morsel, error) {
	next, err := m.sc.Next(ctx)
	if err != nil {
		return morsel{}, err
	}
	return morsel{record: next.Record, live: next.Live, release: next.Release}, nil
}

func (m lsmMorsels) close() { m.sc.Close() }
