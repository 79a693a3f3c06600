package lsm

import (
	"context"
	"log/slog"

	"github.com/apache/arrow-go/v18/arrow"
)

// LSN is a position in the log.
type LSN uint64

// Options configures a DB.
type Options struct {
	Dir    string
	Memory int64
	Temp   string
	Logger *slog.Logger
}

// DB is the engine.
type DB struct{}

// TableDef defines a table.
type TableDef struct {
	Name   TableName
	Schema *arrow.Schema
	Key    []string
	SQL    string
}

// Table is one table.
type Table struct{}

// Batch is what Put takes.
type Batch struct {
	Record arrow.RecordBatch
	Meta   []byte
	Body   []byte
}

// Conformer casts a stream.
type Conformer struct{}

// Snapshot is one moment.
type Snapshot struct{}

// View is a table in a snapshot.
type View struct{}

// ScanOptions of a scan.
type ScanOptions struct{ Columns []int }

// Scan hands out morsels.
type Scan struct{}

// Morsel is a piece of a scan.
type Morsel struct {
	Record arrow.RecordBatch
	Live   []uint32
}

// Metrics are counters.
type Metrics struct{}

func (m Metrics) String() string { return "" }

func Open(ctx context.Context, o Options) (*DB, error)            { return nil, nil }
func (db *DB) Close() error                                       { return nil }
func (db *DB) CreateTable(ctx context.Context, d TableDef) error  { return nil }
func (db *DB) DropTable(ctx context.Context, n TableName) error   { return nil }
func (db *DB) Table(n TableName) (*Table, error)                  { return nil, nil }
func (db *DB) Tables() []*Table                                   { return nil }
func (db *DB) CatalogVersion() uint64                             { return 0 }
func (db *DB) Wait(ctx context.Context, lsn LSN) error            { return nil }
func (db *DB) Visible() LSN                                       { return 0 }
func (db *DB) Watch() <-chan struct{}                             { return nil }
func (db *DB) Err() error                                         { return nil }
func (db *DB) Optimize(ctx context.Context, n TableName) error    { return nil }
func (db *DB) Snapshot(ctx context.Context) (*Snapshot, error)    { return nil, nil }
func (db *DB) Metrics() Metrics                                   { return Metrics{} }
func (t *Table) Name() TableName                                  { return TableName{} }
func (t *Table) Schema() *arrow.Schema                            { return nil }
func (t *Table) Key() []string                                    { return nil }
func (t *Table) SQL() string                                      { return "" }
func (t *Table) Incarnation() uint64                              { return 0 }
func (t *Table) Conform(stream *arrow.Schema) (*Conformer, error) { return nil, nil }
func (c *Conformer) Identity() bool                               { return false }
func (c *Conformer) Apply(ctx context.Context, rec arrow.RecordBatch) (arrow.RecordBatch, error) {
	return nil, nil
}
func (t *Table) Put(ctx context.Context, b Batch) (LSN, error)                    { return 0, nil }
func (t *Table) Insert(ctx context.Context, rec arrow.RecordBatch) (int64, error) { return 0, nil }
func (s *Snapshot) Release()                                                      {}
func (s *Snapshot) Table(n TableName) (*View, error)                              { return nil, nil }
func (v *View) Schema() *arrow.Schema                                             { return nil }
func (v *View) Rows() int64                                                       { return 0 }
func (v *View) Scan(ctx context.Context, o ScanOptions) (*Scan, error)            { return nil, nil }
func (sc *Scan) Next(ctx context.Context) (*Morsel, error)                        { return nil, nil }
func (sc *Scan) Close()                                                           {}
func (m *Morsel) Release()                                                        {}
