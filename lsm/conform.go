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

// Conformer turns the batches of one stream into batches of one table: columns are matched by name without case,
// a column that is missing becomes null, widths of integers and floats and flavours of strings and binaries are
// cast when no value changes by it. It is for one goroutine.
type Conformer struct {
	table string
	want  *arrow.Schema // the table's columns, then `_tombstone` when the stream has it
	from  []int         // for each wanted column the stream's column, -1 when it is missing
	same  bool
}

// Conform checks whether batches of a stream can become batches of the table; a *ColumnError says why not.
func (t *Table) Conform(stream *arrow.Schema) (*Conformer, error) {
	c := &Conformer{table: t.name.String(), same: true}
	byName := make(map[string]int, stream.NumFields())
	for i, f := range stream.Fields() {
		low := strings.ToLower(f.Name)
		if _, ok := byName[low]; ok {
			return nil, &ColumnError{Table: c.table, Column: f.Name, Hint: "the stream has it twice; send it once"}
		}
		byName[low] = i
	}
	now := t.now()
	fields := now.arrow.Fields()
	if _, ok := byName[TombstoneColumn]; ok {
		if now.codec == nil {
			return nil, &ColumnError{Table: c.table, Column: TombstoneColumn, Hint: noKeyHint(t.name)}
		}
		fields = append(fields[:len(fields):len(fields)], tombstoneField)
	}
	for i, f := range fields {
		j, ok := byName[strings.ToLower(f.Name)]
		if !ok {
			if !f.Nullable {
				return nil, &ColumnError{Table: c.table, Column: f.Name, Want: f.Type.String(), Hint: "the stream lacks it and it may not be null; send it"}
			}
			j, c.same = -1, false
		} else if err := c.checkType(f, stream.Field(j).Type); err != nil {
			return nil, err
		}
		c.from = append(c.from, j)
		c.same = c.same && i == j && arrow.TypeEqual(f.Type, stream.Field(j).Type)
		delete(byName, strings.ToLower(f.Name))
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
			cols[i] = nullArray(want.Type, int(rec.NumRows()), memory.DefaultAllocator)
			continue
		}
		col, err := castColumn(rec.Column(j), want.Type)
		if err != nil {
			return nil, &ColumnError{Table: c.table, Column: want.Name, Came: rec.Column(j).DataType().String(), Want: want.Type.String(), Hint: err.Error()}
		}
		cols[i] = col
	}
	return array.NewRecordBatch(c.want, cols, rec.NumRows()), nil
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

// nullArray returns n nulls, and of a struct n structs of nulls, because structs are not null.
func nullArray(t arrow.DataType, n int, mem memory.Allocator) arrow.Array {
	if s, ok := t.(*arrow.StructType); ok {
		children := make([]arrow.ArrayData, s.NumFields())
		for i, f := range s.Fields() {
			child := nullArray(f.Type, n, mem)
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
	case *arrow.ListType, *arrow.LargeListType:
		return sameLayout(x[0].Type, y[0].Type)
	case *arrow.StructType:
		return slices.EqualFunc(x, y, func(x, y arrow.Field) bool { return x.Name == y.Name && sameLayout(x.Type, y.Type) })
	}
	return arrow.TypeEqual(a, b)
}
