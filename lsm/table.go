package lsm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/google/uuid"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/manifest"
)

// tombstoneField is the column that follows a table's own in streams that delete.
var tombstoneField = arrow.Field{Name: TombstoneColumn, Type: arrow.FixedWidthTypes.Boolean, Nullable: true}

// TableDef defines a table.
type TableDef struct {
	// Name is the table's name.
	Name TableName
	// Schema has the table's columns. Columns of the key must not be nullable.
	Schema *arrow.Schema
	// Key names the columns of the primary key in order. Without it the key is the one that the fields' metadata
	// declares, see PrimaryKey; a table that has none only appends.
	Key []string
	// SQL is the CREATE TABLE statement that makes the same table in DuckDB.
	SQL string
	// Comments are all comments on the table and its columns; nil leaves those that the fields' metadata has.
	Comments *Comments
	// Durability is what an ack of the table's streams means; empty is Options.Durability of whoever has it open.
	Durability Durability
	// IndexMode says whether batches wait for the indexes of the memtable; empty is Sync.
	IndexMode IndexMode
	// Shards is how many shards the rows are spread over by the hash of the key's first column, each with a writer of its
	// own; 0 stands for 1, and a table without a key has no more.
	Shards int
	// Indexes are those that the table is made with, beside that of its key.
	Indexes []IndexDef
	// Maintain names the indexes that memtables keep while they are written: of the others, scans look at the rows of
	// memtables one by one. Nil is all of them. Names of indexes that are still to be made may be among them.
	Maintain []string
}

// Table is one table. It is safe for concurrent use.
type Table struct {
	db    *DB
	entry tableEntry
	name  TableName
	root  string // the dataset's folder below the data folder
	// shards and compactor are what writes the table's files. stop ends their goroutines, done waits for them.
	shards    []*shard
	compactor *compactor
	stop      context.Context
	cancel    context.CancelFunc
	done      sync.WaitGroup

	// set is what readers see, nil when the table is closed. It is replaced under db.moment, and under swap, which keeps
	// those who replace parts of it from losing each other's, and comes before db.moment. It is loaded under db.moment, too,
	// where a reference is taken; without, only what no other can have replaced may be used, see layers.go.
	set  atomic.Pointer[layerSet]
	swap sync.Mutex

	// basing is held by who puts another version of the base in the place of the one that readers have. It comes before
	// shard.manMu and swap, and files are read under it. stuck says why the newest version cannot be taken up, nil when it can.
	basing gate
	stuck  atomic.Pointer[stuck]
	// divided says that what came in the place of the base's content has rows in front of it, nil when it has none (divided.go).
	// accepted is the version up to which that was never so.
	divided  atomic.Pointer[divided]
	accepted atomic.Uint64
	// looked is when a store of objects was asked for a newer version, in nanoseconds.
	looked atomic.Int64
	// missed is what another program changed in the columns while nobody had the table open, until Open has taken it up.
	missed *columnChange
	// synced has the files of other programs that are durable.
	synced manifest.Synced

	// adopting guards pending, a stage that the log has committed and some manifest does not name yet, and is held until
	// readers have it: it comes before shard.manMu and swap. staged is the LSN of its commit, 0 when there is none: the
	// log is needed from there on.
	adopting sync.Mutex
	pending  *adoption
	staged   atomic.Uint64

	// schemas are all schemas that the table ever had, the current one last. The list is replaced under DB.moment.
	schemas atomic.Pointer[[]*tableSchema]
	// comments are replaced under DB.moment; nil is none.
	comments atomic.Pointer[comments]
	// indexes are replaced under DB.moment. lastIndex is the highest id that one ever had, guarded by DB.ddl.
	indexes   atomic.Pointer[[]indexEntry]
	lastIndex uint64
	// covering has the ids of the indexes that are being brought up to the base's rows.
	covering sync.Map

	// turn is held by a Rewrite from its first to its last step, and by DROP. It comes before every other lock.
	turn gate
	// writes is held for reading by each Put until its record has an LSN, and for writing by what must not
	// interleave with them: Insert's check and write, Modify, and DROP. It comes next.
	writes  gate
	dropped bool // guarded by writes
	// untaken says why another writer's shard could not be taken over: then the table is only read. It is set by Open.
	untaken error
	last    atomic.Uint64 // the highest LSN of the table's records

	// merged is closed and replaced when there may be fewer generations; stallMu guards it and has no lock below it.
	stallMu sync.Mutex
	merged  chan struct{}

	// collecting is held by the one who collects; it has room for one.
	collecting chan struct{}
	// place is held while a few files below root are removed. left is set once the folder is no longer the table's: what
	// then lies there belongs to a table that took its place.
	place sync.Mutex
	left  bool
	// held are the versions of the base that somebody reads, guarded by heldMu. Both locks have none below them.
	heldMu sync.Mutex
	held   []*base
	// outlived is set when the table was dropped and its folder goes with the last of them.
	outlived atomic.Bool
	// building are the versions that commits under way beside the compactor stand on, and writing the files that they
	// write, by their names below root. Both are guarded by heldMu.
	building []uint64
	writing  map[string]bool

	// past is what is known of versions by their numbers, guarded by pastMu, below which there is no other lock.
	pastMu sync.Mutex
	past   map[uint64]VersionInfo

	// leftovers are folders and files that could not be removed when they became useless, guarded by leftMu, below
	// which there is no other lock.
	leftMu    sync.Mutex
	leftovers []string
}

// seize keeps everybody else from changing the table, statements that run on it included, until the caller unlocks it:
// that is for DROP and for what changes the schema.
func (t *Table) seize(ctx context.Context) (unlock func(), err error) {
	if err := t.turn.lock(ctx); err != nil {
		return nil, fmt.Errorf("table %q: wait for a statement: %w", t.name, err)
	}
	if err := t.writes.lock(ctx); err != nil {
		t.turn.unlock()
		return nil, fmt.Errorf("table %q: wait for other writers: %w", t.name, err)
	}
	return func() {
		t.writes.unlock()
		t.turn.unlock()
	}, nil
}

// Batch is one batch to write.
type Batch struct {
	// Record has the table's columns in order, then optionally the boolean `_tombstone`. Put retains what it
	// keeps; the caller releases its own reference.
	Record arrow.RecordBatch
	// Meta and Body are the Arrow IPC message that Record came in, header and buffers, if its schema was the
	// table's: then they are logged as they are, and Record's arrays must lie in Body, outside the Go heap. When
	// Meta is nil, Put encodes Record and copies it out of the Go heap.
	Meta, Body []byte
	// Keep are columns of the table whose values in Record are only for keys that are not stored: rows that are there
	// keep theirs. Meta must be nil when there are any. A list that is empty and not nil says that the batch has all columns
	// now: in those that the table gets before the batch's stage is committed, rows keep their values.
	Keep []int
	// Durable makes the batch durable before it is visible in a buffered table, too.
	Durable bool
}

// newTable returns the table of a catalog entry, which has no layers yet and does not run.
func newTable(db *DB, e tableEntry) (*Table, error) {
	if len(e.Schemas) == 0 {
		return nil, fmt.Errorf("table %q: the catalog has no schema of it", e.name())
	}
	schemas, err := newTableSchemas(&e)
	if err != nil {
		return nil, fmt.Errorf("table %q: %w", e.name(), err)
	}
	t := &Table{db: db, entry: e, name: e.name(), root: e.folder(), collecting: make(chan struct{}, 1), merged: make(chan struct{}), writing: make(map[string]bool)}
	t.stop, t.cancel = context.WithCancel(context.Background())
	t.shards, t.compactor = newShards(db, t, max(e.Shards, 1)), newCompactor(db, t)
	t.schemas.Store(&schemas)
	t.comments.Store(e.Comments)
	t.indexes.Store(&e.Indexes)
	t.lastIndex = e.LastIndex
	return t, nil
}

// now returns the current schema. What works with several of its parts keeps it, as the next call may return another.
func (t *Table) now() *tableSchema {
	list := *t.schemas.Load()
	return list[len(list)-1]
}

// schemaWithID returns the schema with an id, nil when the table never had it.
func (t *Table) schemaWithID(id uint32) *tableSchema {
	for _, s := range *t.schemas.Load() {
		if s.id == id {
			return s
		}
	}
	return nil
}

// newTableEntry checks a definition and returns it as the catalog stores it.
func newTableEntry(d TableDef, incarnation uint64) (tableEntry, error) {
	if err := d.Name.validate(); err != nil {
		return tableEntry{}, err
	}
	if err := d.Durability.validate(); err != nil {
		return tableEntry{}, fmt.Errorf("table %q: %w", d.Name, err)
	}
	if err := d.IndexMode.validate(); err != nil {
		return tableEntry{}, fmt.Errorf("table %q: %w", d.Name, err)
	}
	schema, key, err := keyedSchema(d)
	if err == nil {
		err = validateShards(d.Shards, key)
	}
	if err != nil {
		return tableEntry{}, fmt.Errorf("table %q: %w", d.Name, err)
	}
	ls, err := lance.SchemaFromArrow(schema, 0)
	if err == nil {
		err = ls.Check(ls.Needs())
	}
	if err != nil {
		return tableEntry{}, fmt.Errorf("table %q: %w: %w", d.Name, ErrInvalid, err)
	}
	text, err := marshalSchema(ls.Arrow())
	if err != nil {
		return tableEntry{}, err
	}
	shard, err := uuid.NewRandom()
	if err != nil {
		return tableEntry{}, fmt.Errorf("make shard id: %w", err)
	}
	said := newComments(schema, func(column int) int32 { return ls.Fields[column].ID }, d.Comments)
	e := tableEntry{Schema: MainSchema, Name: d.Name.Name, Incarnation: incarnation, Shard: shard, SQL: d.SQL, Key: key, Durability: d.Durability,
		IndexMode: d.IndexMode, Shards: d.Shards, Maintain: d.Maintain, Schemas: []schemaEntry{{ID: 1, Arrow: text}}, Comments: said, Files: ls.Needs().String()}
	now, err := newTableSchema(&e.Schemas[0], key)
	if err != nil {
		return tableEntry{}, fmt.Errorf("table %q: %w", d.Name, err)
	}
	if e.Indexes, err = newIndexEntries(d.Indexes, now); err != nil {
		return tableEntry{}, fmt.Errorf("table %q: %w", d.Name, err)
	}
	e.LastIndex = uint64(len(e.Indexes))
	return e, nil
}

// keyedSchema returns the schema of a definition with its key marked in both ways: by name and by field metadata.
func keyedSchema(d TableDef) (*arrow.Schema, []string, error) {
	if d.Schema == nil || d.Schema.NumFields() == 0 {
		return nil, nil, fmt.Errorf("%w: it has no columns", ErrInvalid)
	}
	fields := slices.Clone(d.Schema.Fields())
	key := slices.Clone(d.Key)
	if len(key) == 0 {
		var err error
		if key, err = PrimaryKey(d.Schema); err != nil {
			return nil, nil, err
		}
	}
	seen := make(map[string]string)
	for _, f := range fields {
		name := TableName{Name: f.Name}.fold()
		if f.Name == "" {
			return nil, nil, fmt.Errorf("%w: a column has no name", ErrInvalid)
		}
		switch twin, twice := seen[name]; {
		case twice && twin == f.Name:
			return nil, nil, fmt.Errorf("%w: column %q is there twice", ErrInvalid, f.Name)
		case twice:
			return nil, nil, fmt.Errorf("%w: columns %q and %q differ in case only, which SQL cannot tell apart; rename one", ErrInvalid, twin, f.Name)
		}
		seen[name] = f.Name
		if IsReserved(f.Name) {
			return nil, nil, fmt.Errorf("%w: %q is a reserved column name; choose another", ErrInvalid, f.Name)
		}
	}
	for _, name := range key {
		i := columnIndex(d.Schema, name)
		if i < 0 {
			return nil, nil, fmt.Errorf("%w: key column %q does not exist", ErrInvalid, name)
		}
		fields[i].Nullable = false
		m := fields[i].Metadata.ToMap()
		m[lance.MetaKey] = "true"
		fields[i].Metadata = arrow.MetadataFrom(m)
	}
	s := arrow.NewSchema(fields, nil)
	declared, err := PrimaryKey(s)
	if err != nil {
		return nil, nil, err
	}
	if !slices.Equal(declared, key) { // the metadata says another order: that of the columns, or an older one
		for place, name := range key {
			i := columnIndex(s, name)
			m := fields[i].Metadata.ToMap()
			m[lance.MetaKeyPosition] = strconv.Itoa(place + 1)
			fields[i].Metadata = arrow.MetadataFrom(m)
		}
		s = arrow.NewSchema(fields, nil)
	}
	_, err = newKeyCodec(s, key)
	return s, key, err
}

// PrimaryKey returns the columns that the metadata of a schema's fields declares to be the primary key, in order, as
// Lance has it: lance-schema:unenforced-primary-key = true, or lance-schema:unenforced-primary-key:position = 1, 2, ….
func PrimaryKey(schema *arrow.Schema) ([]string, error) {
	s, err := lance.SchemaFromArrow(schema, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	keys := keyFields(s)
	names := make([]string, len(keys))
	for i, f := range keys {
		names[i] = f.Name
	}
	return names, nil
}

// keyFields returns the fields that a schema declares to be the primary key, in order.
func keyFields(s *lance.Schema) []lance.Field {
	var keys []lance.Field
	for _, f := range s.Fields {
		if f.Key > 0 {
			keys = append(keys, f)
		}
	}
	slices.SortStableFunc(keys, func(a, b lance.Field) int { return cmp.Compare(a.Key, b.Key) })
	return keys
}

// Name returns the table's name.
func (t *Table) Name() TableName { return t.name }

// Schema returns the table's columns.
func (t *Table) Schema() *arrow.Schema { return t.now().arrow }

// Key returns the names of the primary key's columns in order, none for a table that only appends.
func (t *Table) Key() []string {
	if codec := t.now().codec; codec != nil {
		return codec.names
	}
	return nil
}

// SQL returns the CREATE TABLE statement that makes the same table in DuckDB.
func (t *Table) SQL() string { return t.now().ownSQL() }

// SQLBefore returns the CREATE TABLE statement that the table had before another program changed its columns, empty without one, and for
// columns of now the names that they have in it.
func (t *Table) SQLBefore() (sql string, names map[string]string) {
	now := t.now()
	if now.sqlColumns == nil {
		return "", nil
	}
	names = make(map[string]string)
	for _, f := range now.lance.Fields {
		if name, ok := now.sqlColumns[f.ID]; ok {
			names[f.Name] = name
		}
	}
	return now.sql, names
}

// Incarnation tells the table from others that had or will have its name.
func (t *Table) Incarnation() uint64 { return t.entry.Incarnation }

// Definition returns what makes the same table again, with the number of its schema, all as of one moment.
func (t *Table) Definition() (TableDef, uint32) {
	now := t.now()
	d := TableDef{Name: t.name, Schema: now.arrow, SQL: now.ownSQL(), Durability: t.entry.Durability, IndexMode: t.entry.IndexMode, Shards: t.entry.Shards,
		Indexes: t.definitions(now), Maintain: t.entry.Maintain}
	if now.codec != nil {
		d.Key = now.codec.names
	}
	return d, now.id
}

// SchemaID is the number of the table's schema; each ALTER TABLE makes the next one.
func (t *Table) SchemaID() uint32 { return t.now().id }

// Durability tells what an ack of the table's streams means.
func (t *Table) Durability() Durability { return cmp.Or(t.entry.Durability, t.db.opt.Durability) }

// IndexMode tells whether batches wait for the indexes of the memtable.
func (t *Table) IndexMode() IndexMode { return cmp.Or(t.entry.IndexMode, Sync) }

// Put logs a batch and returns its LSN; DB.Wait tells when it is visible, and durable unless it is buffered. Batches of one caller are
// applied in the order of its calls. Put waits while the memory for memtables is spent.
func (t *Table) Put(ctx context.Context, b Batch) (LSN, error) {
	if b.Record.NumRows() == 0 {
		return LSN(t.last.Load()), nil
	}
	return t.put(ctx, b)
}

// put logs a batch, and other records with it: these are durable before they count, and so is the batch.
func (t *Table) put(ctx context.Context, b Batch, with ...*wal.Record) (LSN, error) {
	if len(b.Keep) > 0 {
		return t.putKept(ctx, b, with...)
	}
	p, err := t.admit(ctx, b)
	if err != nil {
		return 0, err
	}
	p.buffered = len(with) == 0 && t.buffers(b)
	if err := t.writes.rlock(ctx); err != nil {
		p.drop(t)
		return 0, fmt.Errorf("table %q: wait for a statement: %w", t.name, err)
	}
	defer t.writes.runlock()
	return t.appendLocked(ctx, p, with...)
}

// appendLocked logs a batch, in one group with what comes with it. REQUIRES: t.writes is held. It consumes p.
func (t *Table) appendLocked(ctx context.Context, p *put, with ...*wal.Record) (LSN, error) {
	if err := t.takesLocked(p); err != nil {
		p.drop(t)
		return 0, err
	}
	rec := t.logRecord(p)
	lsn, err := t.db.log.Append(ctx, append([]*wal.Record{rec}, with...)...)
	if err != nil {
		p.drop(t)
		return 0, fmt.Errorf("table %q: log batch: %w", t.name, t.db.diskError(logError(err)))
	}
	t.noteLast(lsn)
	return lsn, nil
}

// takesLocked returns why a batch that was checked cannot be logged any more. REQUIRES: t.writes is held.
func (t *Table) takesLocked(p *put) error {
	if t.dropped {
		return fmt.Errorf("table %q: %w", t.name, ErrTableNotFound)
	}
	if p.schema != t.now() {
		return fmt.Errorf("table %q: %w", t.name, ErrTableChanged)
	}
	return nil
}

// logError adds to an error of the log what it means for the DB.
func logError(err error) error {
	switch {
	case errors.Is(err, wal.ErrClosed):
		return fmt.Errorf("%w: %w", ErrClosed, err)
	case errors.Is(err, ErrFenced):
		return err
	case errors.Is(err, wal.ErrFenced), errors.Is(err, manifest.ErrFenced):
		return fmt.Errorf("%w: %w", ErrFenced, err)
	case errors.Is(err, wal.ErrPoisoned):
		return fmt.Errorf("%w: %w", ErrPoisoned, err)
	}
	return err
}

// logRecord returns the log record of a put.
func (t *Table) logRecord(p *put) *wal.Record {
	putBatchPrefix(p.prefix[:], p.tombstones, len(p.meta))
	p.pieces = [3][]byte{p.prefix[:], p.meta, p.body}
	p.record = wal.Record{
		Kind: wal.Batch, Shard: t.entry.Shard, Incarnation: t.entry.Incarnation, Schema: p.schema.id, Rows: uint32(p.rec.NumRows()),
		Body: p.pieces[:], Buffered: p.buffered, Value: p,
	}
	return &p.record
}

// noteLast raises the highest LSN of the table's records.
func (t *Table) noteLast(lsn LSN) {
	for old := t.last.Load(); old < uint64(lsn) && !t.last.CompareAndSwap(old, uint64(lsn)); old = t.last.Load() {
	}
}

// Insert writes rows whose keys must not be stored yet, waits until they are durable and visible, and returns
// their number. A key that exists, or comes twice, is ErrKeyExists, and nothing is written.
func (t *Table) Insert(ctx context.Context, rec arrow.RecordBatch) (int64, error) {
	if rec.NumRows() == 0 {
		return 0, nil
	}
	p, err := t.admit(ctx, Batch{Record: rec})
	if err != nil {
		return 0, err
	}
	lsn, err := t.insert(ctx, p)
	if err != nil {
		return 0, err
	}
	return rec.NumRows(), t.db.Wait(ctx, lsn)
}

func (t *Table) insert(ctx context.Context, p *put) (LSN, error) {
	if err := t.writes.lock(ctx); err != nil {
		p.drop(t)
		return 0, fmt.Errorf("table %q: wait for other writers: %w", t.name, err)
	}
	defer t.writes.unlock()
	if p.schema.codec != nil && !t.dropped {
		if err := t.refuseExisting(ctx, p.schema.codec, p.rec); err != nil {
			p.drop(t)
			return 0, err
		}
	}
	return t.appendLocked(ctx, p)
}

// refuseExisting returns ErrKeyExists when a key of the batch is stored or comes twice. REQUIRES: t.writes is held
// for writing.
func (t *Table) refuseExisting(ctx context.Context, codec *keyCodec, rec arrow.RecordBatch) error {
	var ints []int64
	var wide [][]byte
	keys := codec.normalise(rec, nil)
	ints = slices.Clone(keys.ints)
	if keys.wide != nil {
		for i := range int(rec.NumRows()) {
			wide = append(wide, keys.wide(i))
		}
	}
	run := newKeyRun(codec, ints, wide)
	if run.Len() < int(rec.NumRows()) {
		return fmt.Errorf("%w: the statement has a key of table %q twice", ErrKeyExists, t.name)
	}
	if err := t.db.Wait(ctx, LSN(t.last.Load())); err != nil {
		return err
	}
	s, err := t.db.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer s.Release()
	v, err := s.Table(t.name)
	if err != nil {
		return err
	}
	stored, err := v.firstStored(ctx, run)
	if err != nil || stored == nil {
		return err
	}
	return fmt.Errorf("%w: table %q already has a row with key %s", ErrKeyExists, t.name, stored.describe(0))
}

// errNoSchema is for records of a schema that the catalog does not know; replay reports it as damage.
var errNoSchema = errors.New("the catalog has no such schema")

// copyOut returns a buffer outside the Go heap with the given bytes.
func copyOut(b []byte) *memory.Buffer {
	buf := memory.NewResizableBuffer(offheap.Default)
	buf.Resize(len(b))
	copy(buf.Bytes(), b)
	return buf
}
