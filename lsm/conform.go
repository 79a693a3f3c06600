package lsm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/lance"
)

// Missing says what becomes of columns that a stream lacks.
type Missing uint8

const (
	// MissingNull gives them their default, else null.
	MissingNull Missing = iota
	// MissingKeep leaves the values that rows have; in rows that are new it is MissingNull.
	MissingKeep
	// MissingError refuses the stream.
	MissingError
)

// ConformOptions say how a stream becomes batches of a table. The zero value is a stream that is plain.
type ConformOptions struct {
	Missing Missing
	// Defaults are, by the name of a column in lower case, functions that return values for n rows that lack it. A
	// column that is not among them has no default.
	Defaults map[string]func(ctx context.Context, n int) (arrow.Array, error)
}

// Conformer turns the batches of one stream into batches of one table: columns are matched by name without case,
// a column that is missing becomes what the options say, widths of integers and floats and flavours of strings and
// binaries are cast when no value changes by it. It is for one goroutine.
type Conformer struct {
	table   string
	schema  *tableSchema
	options ConformOptions
	want    *arrow.Schema // the table's columns, then `_tombstone` when the stream has it
	from    []int         // for each wanted column the stream's column, -1 when it is missing
	keep    []int         // columns in which rows that are there keep their values
	same    bool
}

// Conform checks whether batches of a stream can become batches of the table; a *ColumnError says why not.
func (t *Table) Conform(stream *arrow.Schema, o ConformOptions) (*Conformer, error) {
	now := t.now()
	c := &Conformer{table: t.name.String(), schema: now, options: o, same: true}
	byName := make(map[string]int, stream.NumFields())
	for i, f := range stream.Fields() {
		low := strings.ToLower(f.Name)
		if _, ok := byName[low]; ok {
			return nil, &ColumnError{Table: c.table, Column: f.Name, Hint: "the stream has it twice; send it once"}
		}
		byName[low] = i
	}
	if o.Missing == MissingKeep && now.codec == nil {
		return nil, &NoKeyError{Table: t.name}
	} else if o.Missing == MissingKeep {
		c.keep = []int{}
	}
	fields := now.arrow.Fields()
	if _, ok := byName[TombstoneColumn]; ok {
		if now.codec == nil {
			return nil, &ColumnError{Table: c.table, Column: TombstoneColumn, Hint: noKeyHint(t.name)}
		}
		fields = append(fields[:len(fields):len(fields)], tombstoneField)
	}
	var lacking []string
	for i, f := range fields {
		j, ok := byName[strings.ToLower(f.Name)]
		if !ok {
			lacking = append(lacking, f.Name)
			if err := c.lacks(i, f, now.lance.Fields[i].Key > 0); err != nil {
				return nil, err
			}
			j, c.same = -1, false
		} else if err := c.checkType(f, stream.Field(j).Type); err != nil {
			return nil, err
		}
		c.from = append(c.from, j)
		c.same = c.same && i == j && arrow.TypeEqual(f.Type, stream.Field(j).Type)
		delete(byName, strings.ToLower(f.Name))
	}
	if len(lacking) > 0 && o.Missing == MissingError {
		return nil, &ColumnError{Table: c.table, Column: strings.Join(lacking, ", "), Hint: "the stream lacks it, and says that this is an error; send it"}
	}
	for _, f := range stream.Fields() {
		if _, ok := byName[strings.ToLower(f.Name)]; ok {
			return nil, &ColumnError{Table: c.table, Column: f.Name, Came: f.Type.String(),
				Hint: fmt.Sprintf("the table has no such column; it has %s", columnList(now.arrow))}
		}
	}
	c.want = arrow.NewSchema(fields, nil)
	return c, nil
}

// lacks notes that the stream lacks a column, or returns why it may not.
func (c *Conformer) lacks(i int, f arrow.Field, key bool) error {
	_, ok := c.options.Defaults[strings.ToLower(f.Name)]
	keep := c.options.Missing == MissingKeep && !key
	if keep {
		c.keep = append(c.keep, i)
	}
	if !f.Nullable && !ok && !keep && c.options.Missing != MissingError {
		return &ColumnError{Table: c.table, Column: f.Name, Want: f.Type.String(), Hint: "the stream lacks it and it may not be null; send it"}
	}
	return nil
}

// Unknown returns the columns of a stream that the table does not have.
func (t *Table) Unknown(stream *arrow.Schema) []arrow.Field {
	now := t.now()
	var out []arrow.Field
	for _, f := range stream.Fields() {
		if !strings.EqualFold(f.Name, TombstoneColumn) && columnIndex(now.arrow, f.Name) < 0 {
			out = append(out, f)
		}
	}
	return out
}

// noKeyHint is the message for what needs a key on a table without one.
func noKeyHint(n TableName) string {
	return fmt.Sprintf("table %q has no primary key; declare one with PRIMARY KEY or the Arrow field metadata %s", n, lance.MetaKey)
}

// columnList names the columns of a schema.
func columnList(s *arrow.Schema) string {
	var names []string
	for _, f := range s.Fields() {
		names = append(names, f.Name)
	}
	return strings.Join(names, ", ")
}

// checkType reports a column whose type cannot become the wanted one.
func (c *Conformer) checkType(want arrow.Field, came arrow.DataType) error {
	if sameLayout(came, want.Type) || castable(came, want.Type) {
		return nil
	}
	return &ColumnError{Table: c.table, Column: want.Name, Came: came.String(), Want: want.Type.String(),
		Hint: "cast it before sending"}
}

// Identity reports whether batches of the stream already are batches of the table, so that the bytes they came in
// can be logged as they are.
func (c *Conformer) Identity() bool { return c.same }

// Keep returns the columns of the table in which rows that are stored keep their values, as Batch.Keep wants them: with
// MissingKeep it is not nil.
func (c *Conformer) Keep() []int { return c.keep }

// Apply returns a batch of the stream as a batch of the table. The caller releases it. A value that a cast would
// change is a *ColumnError.
func (c *Conformer) Apply(ctx context.Context, rec arrow.RecordBatch) (arrow.RecordBatch, error) {
	cols := make([]arrow.Array, len(c.from))
	defer func() {
		for _, col := range cols {
			if col != nil {
				col.Release()
			}
		}
	}()
	for i, j := range c.from {
		want := c.want.Field(i)
		if j < 0 {
			var err error
			if cols[i], err = c.absent(ctx, want, int(rec.NumRows())); err != nil {
				return nil, err
			}
			continue
		}
		col, err := c.schema.cast(rec.Column(j), want.Type)
		if err != nil {
			return nil, &ColumnError{Table: c.table, Column: want.Name, Came: rec.Column(j).DataType().String(), Want: want.Type.String(), Hint: err.Error()}
		}
		cols[i] = col
	}
	return array.NewRecordBatch(c.want, cols, rec.NumRows()), nil
}

// absent returns the values of a column that the stream lacks.
func (c *Conformer) absent(ctx context.Context, f arrow.Field, n int) (arrow.Array, error) {
	value := c.options.Defaults[strings.ToLower(f.Name)]
	if value == nil {
		return c.schema.nulls(f.Type, n, memory.DefaultAllocator), nil
	}
	col, err := value(ctx, n)
	if err != nil {
		return nil, fmt.Errorf("table %q, column %q: its default: %w", c.table, f.Name, err)
	}
	return col, nil
}

// Constant returns a function for ConformOptions.Defaults whose rows are all the one of a column, which it takes over.
func Constant(one arrow.Array) func(ctx context.Context, n int) (arrow.Array, error) {
	return func(_ context.Context, n int) (arrow.Array, error) { return repeat(one, n) }
}

// relabel returns a column under a type of the same layout whose inner fields have other names.
func relabel(col arrow.Array, want arrow.DataType) arrow.Array {
	if arrow.TypeEqual(col.DataType(), want) {
		col.Retain()
		return col
	}
	d := relabelData(col.Data(), want)
	defer d.Release()
	return array.MakeFromData(d)
}

func relabelData(d arrow.ArrayData, want arrow.DataType) *array.Data {
	fields := nestedFields(want)
	children := make([]arrow.ArrayData, len(fields))
	for i, f := range fields {
		children[i] = relabelData(d.Children()[i], f.Type)
		defer children[i].Release()
	}
	return array.NewData(want, d.Len(), d.Buffers(), children, d.NullN(), d.Offset())
}

// nulls returns n nulls, and of a struct that cannot be null n structs of nulls.
func (s *tableSchema) nulls(t arrow.DataType, n int, mem memory.Allocator) arrow.Array {
	if st, ok := t.(*arrow.StructType); ok && !s.nullStructs() {
		children := make([]arrow.ArrayData, st.NumFields())
		for i, f := range st.Fields() {
			child := s.nulls(f.Type, n, mem)
			defer child.Release()
			children[i] = child.Data()
		}
		d := array.NewData(t, n, []*memory.Buffer{nil}, children, 0, 0)
		defer d.Release()
		return array.MakeFromData(d)
	}
	b := array.NewBuilder(mem, t)
	defer b.Release()
	b.AppendNulls(n)
	return b.NewArray()
}

// sameLayout reports whether two types have the same buffers with the same meaning: they are equal but for the
// nullability of inner fields and the names of the items of lists.
func sameLayout(a, b arrow.DataType) bool {
	if a.ID() != b.ID() {
		return false
	}
	x, y := nestedFields(a), nestedFields(b)
	if len(x) == 0 || len(x) != len(y) {
		return arrow.TypeEqual(a, b)
	}
	switch a := a.(type) {
	case *arrow.FixedSizeListType:
		return a.Len() == b.(*arrow.FixedSizeListType).Len() && sameLayout(x[0].Type, y[0].Type)
	case *arrow.ListType, *arrow.LargeListType, *arrow.MapType:
		return sameLayout(x[0].Type, y[0].Type)
	case *arrow.StructType:
		return slices.EqualFunc(x, y, func(x, y arrow.Field) bool { return x.Name == y.Name && sameLayout(x.Type, y.Type) })
	}
	return arrow.TypeEqual(a, b)
}
