package lsm

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/lance"
)

// tableSchema is one schema of a table. It does not change; ALTER TABLE makes the next one.
//
// Rows are never rewritten by it: batches, generations and fragments keep the columns that they were written with,
// and readers match these by field id with the columns of the schema under which they read. A column that was dropped
// is skipped, one that was renamed has the same id, and one that was widened also counts under the ids that it had
// (widen.go). A column that is younger than the rows has in them the one value
// that it was added with, its fill.
//
// INVARIANT: the schema under which a layer is read is never older than one with which any of its rows was written,
// because a snapshot takes schema and layers at one moment, and a new schema is published before any row has it.
type tableSchema struct {
	// id is the schema's number in log records, from 1.
	id uint32
	// arrow has the columns as clients see them, lance the same with Lance's field ids.
	arrow *arrow.Schema
	lance *lance.Schema
	codec *keyCodec // nil without a key
	// files is the version of the table's files, which says whether structs may be null.
	files lance.Version
	// fill has, by field id, one value for rows that are older than the column; without one they have null.
	fill map[int32]arrow.Array
	// was has, by the field id of a column that was widened, the id of the narrower column whose place it took.
	was map[int32]int32
	// lastField is the highest field id that the table ever gave.
	lastField int32
	// base is schemaEntry.Base.
	base uint64
	// sql is the CREATE TABLE statement that makes the same table in DuckDB, if sqlColumns is nil, see tableEntry. Only the current
	// schema has them.
	sql        string
	sqlColumns map[int32]string
	// strict is the id of the last schema that refused nulls which the one before allowed, or had another key, as far as this
	// process knows: rows that were checked under an older one, and wait in a stage, cannot come in.
	strict uint32
	// anew is set when no row has one of the schemas before, as ddlAlter.Anew says.
	anew bool
	// required are the columns that may not have nulls.
	required []int
	// shape is the schema of batches that was last found to have just these columns, types and order, and nothing nested:
	// the batches of a stream share one.
	shape atomic.Pointer[arrow.Schema]
	// projected is what project returned last.
	projected atomic.Pointer[schemaProjection]
}

// takes reports whether a batch is known to have the columns of the schema as they are, without tombstones. Then its
// record can be kept as it is.
func (s *tableSchema) takes(rec arrow.RecordBatch) bool { return rec.Schema() == s.shape.Load() }

// full reports whether no column of a batch that the schema takes has nulls where it may not.
func (s *tableSchema) full(rec arrow.RecordBatch) bool {
	for _, c := range s.required {
		if rec.Column(c).NullN() > 0 {
			return false
		}
	}
	return true
}

// noteShape remembers the schema of a batch that checkShape passed, if it is one for takes.
func (s *tableSchema) noteShape(rec arrow.RecordBatch) {
	if int(rec.NumCols()) != s.arrow.NumFields() {
		return
	}
	for i, f := range s.arrow.Fields() {
		if !arrow.TypeEqual(rec.Schema().Field(i).Type, f.Type) || nestedType(f.Type) {
			return
		}
	}
	s.shape.Store(rec.Schema())
}

// newTableSchema returns a schema of a catalog entry. key names the columns of the key as this schema has them.
func newTableSchema(e *schemaEntry, key []string) (*tableSchema, error) {
	s, err := unmarshalSchema(e.Arrow)
	if err != nil {
		return nil, err
	}
	ls, err := lance.SchemaFromArrow(s, 0)
	if err != nil {
		return nil, err
	}
	if e.Fields != nil {
		if err := ls.Renumber(e.Fields); err != nil {
			return nil, err
		}
	}
	out := &tableSchema{id: e.ID, arrow: ls.Arrow(), lance: ls, lastField: max(e.LastField, ls.LastID()), base: e.Base}
	if out.codec, err = newKeyCodec(s, key); err != nil {
		return nil, err
	}
	for i, f := range out.arrow.Fields() {
		if !f.Nullable {
			out.required = append(out.required, i)
		}
	}
	out.was = e.Was
	out.fill, err = unmarshalFill(e.Fill)
	return out, err
}

// newTableSchemas returns all schemas of a catalog entry, the current one last.
func newTableSchemas(e *tableEntry) ([]*tableSchema, error) {
	files, err := e.files()
	if err != nil {
		return nil, err
	}
	out := make([]*tableSchema, len(e.Schemas))
	var ids []int32 // of the key
	for i := len(e.Schemas) - 1; i >= 0; i-- {
		key := e.Key
		if i < len(e.Schemas)-1 {
			// The key is the same in all of them, but its columns may have had other names.
			names, err := e.Schemas[i].columnNames(ids)
			if err != nil {
				return nil, err
			}
			key = names
		}
		s, err := newTableSchema(&e.Schemas[i], key)
		if err != nil {
			return nil, fmt.Errorf("schema %d: %w", e.Schemas[i].ID, err)
		}
		if s.files = files; i == len(e.Schemas)-1 {
			s.sql, s.sqlColumns = e.SQL, e.SQLColumns
		}
		out[i] = s
		if ids == nil && s.codec != nil {
			ids = s.keyIDs()
		}
	}
	return out, nil
}

// columnsOfSQL returns sqlColumns for a schema with some field ids that follows by another program's doing.
func (s *tableSchema) columnsOfSQL(ids []int32) map[int32]string {
	if s.sql == "" {
		return nil
	}
	names := make(map[int32]string, len(s.lance.Fields))
	for _, f := range s.lance.Fields {
		name := f.Name
		if s.sqlColumns != nil {
			name = s.sqlColumns[f.ID]
		}
		if name != "" && slices.Contains(ids, f.ID) {
			names[f.ID] = name
		}
	}
	return names
}

// ownSQL returns the CREATE TABLE statement of the table as it is, empty when there is none.
func (s *tableSchema) ownSQL() string {
	if s.sqlColumns != nil {
		return ""
	}
	return s.sql
}

// nullStructs reports whether a struct can be null, which it cannot in files of Lance 2.0.
func (s *tableSchema) nullStructs() bool { return s.files > lance.Version20 }

// columnNames returns the names of the columns with some ids.
func (e *schemaEntry) columnNames(ids []int32) ([]string, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	s, err := newTableSchema(e, nil)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(ids))
	for i, id := range ids {
		c := s.column(id)
		if c < 0 {
			return nil, fmt.Errorf("schema %d has no column with field id %d, which is part of the key", e.ID, id)
		}
		names[i] = s.lance.Fields[c].Name
	}
	return names, nil
}

// keyIDs returns the field ids of the key's columns, in the order of the key.
func (s *tableSchema) keyIDs() []int32 {
	ids := make([]int32, len(s.codec.cols))
	for i, c := range s.codec.cols {
		ids[i] = s.lance.Fields[c].ID
	}
	return ids
}

// column returns the column with a field id, -1 without one.
func (s *tableSchema) column(id int32) int {
	return slices.IndexFunc(s.lance.Fields, func(f lance.Field) bool { return f.ID == id })
}

// tombstoneID returns the field id of `_tombstone` in generations: one that no column has. The next column that is
// added gets a higher one.
func (s *tableSchema) tombstoneID() int32 { return s.lastField + 1 }

// withTombstones returns the schema of the log records of batches, with `_tombstone` when they have it.
func (s *tableSchema) withTombstones(tombstones bool) *arrow.Schema {
	if !tombstones {
		return s.arrow
	}
	return arrow.NewSchema(append(slices.Clone(s.arrow.Fields()), tombstoneField), nil)
}

// names reports whether a batch has the names of the schema's columns, then optionally the tombstones. That has to
// have its name: a batch that was made before the table's last column was dropped has one column more, too, which must
// not be taken for what deletes rows.
func (s *tableSchema) names(rec arrow.RecordBatch) bool {
	fields := rec.Schema().Fields()
	n := s.arrow.NumFields()
	if len(fields) != n && len(fields) != n+1 {
		return false
	}
	for i, f := range s.arrow.Fields() {
		if fields[i].Name != f.Name && !strings.EqualFold(fields[i].Name, f.Name) {
			return false
		}
	}
	return len(fields) == n || strings.EqualFold(fields[n].Name, TombstoneColumn)
}

// differs says how a dataset's columns differ from those of the schema, "" when they do not.
func (s *tableSchema) differs(other *lance.Schema) string {
	for _, want := range s.lance.Fields {
		i := slices.IndexFunc(other.Fields, func(f lance.Field) bool { return f.ID == want.ID })
		if i < 0 || other.Fields[i].Name != want.Name || !sameLayout(other.Fields[i].Type, want.Type) {
			return fmt.Sprintf("no longer has column %q as %s (field %d)", want.Name, want.Type, want.ID)
		}
	}
	if len(other.Fields) != len(s.lance.Fields) {
		return fmt.Sprintf("has %d columns, the table has %d", len(other.Fields), len(s.lance.Fields))
	}
	return ""
}

// all returns the numbers of all columns.
func (s *tableSchema) all() []int {
	columns := make([]int, len(s.lance.Fields))
	for i := range columns {
		columns[i] = i
	}
	return columns
}

// missing returns n rows of a column that rows do not have: its fill when they are older than it, else null. They lie
// outside the Go heap, as all that queries see. The caller releases them.
func (s *tableSchema) missing(column, n int, older bool) (arrow.Array, error) {
	f := s.lance.Fields[column]
	one := s.fill[f.ID]
	if one == nil || !older {
		return s.nulls(f.Type, n, offheap.Default), nil
	}
	out, err := repeat(one, n)
	if err != nil {
		return nil, fmt.Errorf("column %q: %w", f.Name, err)
	}
	return out, nil
}

// pick returns a column of rows that were written with the schema from. The caller releases it.
func (s *tableSchema) pick(from *tableSchema, rec arrow.RecordBatch, column int) (arrow.Array, error) {
	at := column
	if from != s {
		at = -1
		for id := range s.lives(column) {
			if at = from.column(id); at >= 0 {
				break
			}
		}
	}
	if at < 0 {
		return s.missing(column, int(rec.NumRows()), true)
	}
	return s.widened(rec.Column(at), column)
}

// repeat returns n rows that are all the one of a column. The caller releases them.
func repeat(one arrow.Array, n int) (arrow.Array, error) {
	if n == 0 {
		return array.NewSlice(one, 0, 0), nil
	}
	out, err := array.Concatenate([]arrow.Array{one}, offheap.Default)
	for err == nil && out.Len() < n {
		rest := array.NewSlice(out, 0, int64(min(out.Len(), n-out.Len())))
		var twice arrow.Array
		twice, err = array.Concatenate([]arrow.Array{out, rest}, offheap.Default)
		rest.Release()
		out.Release()
		out = twice
	}
	if err != nil {
		return nil, fmt.Errorf("repeat a value %d times: %w", n, err)
	}
	return out, nil
}

// marshalFill returns values by field id as an IPC stream of one row whose columns are named by the ids.
func marshalFill(fill map[int32]arrow.Array) ([]byte, error) {
	if len(fill) == 0 {
		return nil, nil
	}
	var fields []arrow.Field
	var cols []arrow.Array
	for id, one := range fill {
		fields = append(fields, arrow.Field{Name: strconv.Itoa(int(id)), Type: one.DataType(), Nullable: true})
		cols = append(cols, one)
	}
	s := arrow.NewSchema(fields, nil)
	rec := array.NewRecordBatch(s, cols, 1)
	defer rec.Release()
	var b bytes.Buffer
	w := ipc.NewWriter(&b, ipc.WithSchema(s))
	if err := w.Write(rec); err != nil {
		return nil, fmt.Errorf("write values of added columns: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("write values of added columns: %w", err)
	}
	return b.Bytes(), nil
}

// unmarshalFill undoes marshalFill.
func unmarshalFill(b []byte) (map[int32]arrow.Array, error) {
	if len(b) == 0 {
		return nil, nil
	}
	r, err := ipc.NewReader(bytes.NewReader(b), ipc.WithAllocator(memory.DefaultAllocator))
	if err != nil {
		return nil, fmt.Errorf("read values of added columns: %w", err)
	}
	defer r.Release()
	if !r.Next() || r.RecordBatch().NumRows() != 1 {
		return nil, fmt.Errorf("read values of added columns: they are not one row: %w", r.Err())
	}
	out := make(map[int32]arrow.Array)
	for i, f := range r.Schema().Fields() {
		id, err := strconv.ParseInt(f.Name, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read values of added columns: %q is no field id", f.Name)
		}
		col := r.RecordBatch().Column(i)
		col.Retain()
		out[int32(id)] = col
	}
	return out, nil
}
