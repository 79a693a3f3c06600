package lsm

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// modelKind says what the rows of a model's table are known by.
type modelKind string

// The kinds of tables: without a key, with keys that are numbers, texts, and both in two columns.
const (
	keyless modelKind = "none"
	intKey  modelKind = "int64"
	textKey modelKind = "utf8"
	pairKey modelKind = "pair"
)

var modelKinds = []modelKind{intKey, keyless, pairKey, textKey}

// modelColumn is a column of a tableModel.
type modelColumn struct {
	id   int
	name string
	typ  string
	fill string // the value of rows that are older, "null" without one
}

// vectorColumn is the type of columns of vectors, which have no order and are searched.
const vectorColumn = "fsl(8,float)"

// isVector reports whether the column has vectors.
func (c modelColumn) isVector() bool { return c.typ == vectorColumn }

// tableModel is a table as a list of columns, behind those that rows are known by, and a map of rows, which hold the
// values of the columns that were there when they were written. Whatever the kind, a key is a number here.
type tableModel struct {
	kind    modelKind
	keys    []string // the names of the columns that rows are known by
	columns []modelColumn
	rows    map[int64]map[int]string
	next    int
}

// newTableModel returns a table without rows, whose columns get numbers from next on.
func newTableModel(kind modelKind, next int) *tableModel {
	m := &tableModel{kind: kind, keys: []string{"key"}, rows: map[int64]map[int]string{}, next: next + 3,
		columns: []modelColumn{{next, "a", "int64", "null"}, {next + 1, "b", "utf8", "null"}, {next + 2, "v", vectorColumn, "null"}}}
	if kind == pairKey {
		m.keys = append(m.keys, "key2")
	}
	return m
}

func (m *tableModel) keyed() bool { return m.kind != keyless }

// keySchema returns the columns that rows are known by, as rows.Schema reads them.
func (m *tableModel) keySchema(mark string) string {
	switch m.kind {
	case textKey:
		return m.keys[0] + " utf8" + mark
	case pairKey:
		return m.keys[0] + " int64" + mark + ", " + m.keys[1] + " utf8" + mark
	}
	return m.keys[0] + " int64" + mark
}

// schema is that of the table when it is new.
func (m *tableModel) schema() string {
	if m.keyed() {
		return m.keySchema(" key") + ", a int64, b utf8, v " + vectorColumn
	}
	return m.keySchema("") + ", a int64, b utf8, v " + vectorColumn
}

// pairs is how many keys of pairKey have the same first column.
const pairs = 6

// keyText returns a key as rows.Format writes it.
func (m *tableModel) keyText(k int64) string {
	switch m.kind {
	case textKey:
		return fmt.Sprintf("k%d", k)
	case pairKey:
		return fmt.Sprintf("%d p%d", k/pairs, k%pairs)
	}
	return fmt.Sprint(k)
}

// keyArrays returns a key as the values of its columns.
func (m *tableModel) keyArrays(k int64) []arrow.Array {
	switch m.kind {
	case textKey:
		return []arrow.Array{textArray(m.keyText(k))}
	case pairKey:
		return []arrow.Array{intArray(k / pairs), textArray(fmt.Sprintf("p%d", k%pairs))}
	}
	return []arrow.Array{intArray(k)}
}

func intArray(v int64) arrow.Array {
	b := array.NewInt64Builder(memory.DefaultAllocator)
	defer b.Release()
	b.Append(v)
	return b.NewArray()
}

func textArray(v string) arrow.Array {
	b := array.NewStringBuilder(memory.DefaultAllocator)
	defer b.Release()
	b.Append(v)
	return b.NewArray()
}

// lines returns the rows as scanRows does.
func (m *tableModel) lines() []string {
	var out []string
	for key, row := range m.rows {
		words := []string{m.keyText(key)}
		for _, c := range m.columns {
			v, ok := row[c.id]
			if !ok {
				v = c.fill
			}
			words = append(words, v)
		}
		out = append(out, strings.Join(words, " "))
	}
	slices.Sort(out)
	return out
}

// clone returns a copy that changes by itself.
func (m *tableModel) clone() *tableModel {
	c := *m
	c.keys, c.columns, c.rows = slices.Clone(m.keys), slices.Clone(m.columns), make(map[int64]map[int]string, len(m.rows))
	for k, row := range m.rows {
		c.rows[k] = maps.Clone(row)
	}
	return &c
}

// value returns a random value of a type.
func (m *tableModel) value(r *rand.Rand, typ string) string {
	switch {
	case r.IntN(6) == 0:
		return "null"
	case typ == "utf8":
		return fmt.Sprintf("s%d", r.IntN(1000))
	case typ == vectorColumn:
		return vectorText(someVector(r))
	}
	return fmt.Sprint(r.IntN(1000))
}

// row makes values for all columns, or for those in only if that is not nil. It returns the row as the model keeps it
// and as text.
func (m *tableModel) row(r *rand.Rand, key int64, only map[int]bool) (row map[int]string, text string) {
	row = map[int]string{}
	words := []string{m.keyText(key)}
	for _, c := range m.columns {
		if only == nil || only[c.id] {
			row[c.id] = m.value(r, c.typ)
			words = append(words, row[c.id])
		}
	}
	return row, strings.Join(words, " ")
}

// update is a partial upsert of a row whose sender knew some columns.
func (m *tableModel) update(key int64, row map[int]string, known []modelColumn) {
	old, there := m.rows[key]
	next := map[int]string{}
	for _, c := range m.columns {
		v, came := row[c.id]
		had, stored := old[c.id]
		switch {
		case came:
			next[c.id] = v
		case there && stored:
			next[c.id] = had
		case !there && slices.ContainsFunc(known, func(k modelColumn) bool { return k.id == c.id }):
			next[c.id] = "null"
		default:
			next[c.id] = c.fill
		}
	}
	m.rows[key] = next
}

// alter picks a change of the columns, applies it and returns it as a line of the scenario command.
func (m *tableModel) alter(r *rand.Rand) string {
	switch k := r.IntN(4); {
	case k == 0 && len(m.columns) > 1:
		i := r.IntN(len(m.columns))
		line := "drop " + m.columns[i].name
		m.columns = slices.Delete(slices.Clone(m.columns), i, i+1)
		return line
	case k == 1 && len(m.columns) > 0:
		i := r.IntN(len(m.columns))
		name := m.newName("r")
		line := "rename " + m.columns[i].name + " " + name
		m.columns = slices.Clone(m.columns)
		m.columns[i].name = name
		return line
	case k == 2:
		i := r.IntN(len(m.keys))
		name := m.newName("k")
		line := "rename " + m.keys[i] + " " + name
		m.keys = slices.Clone(m.keys)
		m.keys[i] = name
		return line
	}
	id := m.next
	c := modelColumn{id: id, name: m.newName("c"), typ: []string{"int64", "utf8", "float", vectorColumn}[r.IntN(4)], fill: "null"}
	line := fmt.Sprintf("add %s %s", c.name, c.typ)
	if c.fill = m.value(r, c.typ); c.fill != "null" {
		line += " = " + c.fill
	}
	m.columns = append(slices.Clone(m.columns), c)
	return line
}

func (m *tableModel) newName(prefix string) string {
	m.next++
	return fmt.Sprintf("%s%d", prefix, m.next-1)
}
