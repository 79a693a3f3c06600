package lsm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

// index makes, drops or optimizes an index.
func (x *interplay) index() {
	list := x.table().Indexes()
	name := fmt.Sprintf("i%d", x.r.IntN(4))
	n := TableName{Name: "t"}
	switch {
	case len(list) > 0 && x.r.IntN(4) == 0:
		x.note("drop index %s", list[0].Name)
		x.ok(x.s.db.DropIndex(x.ctx, n, list[0].Name))
	case len(list) > 0 && x.r.IntN(4) == 0:
		x.note("optimize index %s", list[0].Name)
		x.ok(x.table().OptimizeIndex(x.ctx, list[0].Name))
		x.stale = false
	case x.r.IntN(6) == 0:
		x.note("give up index %s", name)
		ctx, cancel := context.WithTimeout(x.ctx, time.Duration(x.r.IntN(5))*time.Millisecond)
		defer cancel()
		err := x.s.db.CreateIndex(ctx, n, x.someIndex(name), CreateIndexOptions{IfNotExists: true})
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			x.ok(err)
		}
	default:
		d := x.someIndex(name)
		x.note("create index %s on %s", name, d.Columns[0])
		x.ok(x.s.db.CreateIndex(x.ctx, n, d, CreateIndexOptions{Replace: true}))
		x.stale = false
	}
}

// someIndex defines an index over some column.
func (x *interplay) someIndex(name string) IndexDef {
	return IndexDef{Name: name, Kind: BTreeIndex, Columns: []string{x.m.columns[x.r.IntN(len(x.m.columns))].name}}
}

// coverAll brings all rows into all indexes, which must say so.
func (x *interplay) coverAll() {
	for _, info := range x.table().Indexes() {
		x.ok(x.table().OptimizeIndex(x.ctx, info.Name))
	}
	for _, info := range x.table().Indexes() {
		require.Zero(x.t, info.Uncovered, "%+v\n%s", info, x.story())
		require.EqualValues(x.t, len(x.m.rows), info.Covered, x.story())
	}
}

// someValues returns a set of values of a column of the model, and which texts are in it.
func (x *interplay) someValues(v *View, column int, lines []string) (*KeySet, func(text string) bool) {
	c := x.m.columns[column]
	at := columnIndex(v.Schema(), c.name)
	set := v.NewColumnSet(at)
	some := func() string {
		if len(lines) > 0 && x.r.IntN(3) > 0 {
			if text := wordOf(lines[x.r.IntN(len(lines))], column+1); text != "null" {
				return text
			}
		}
		for {
			if text := x.m.value(x.r, c.typ); text != "null" {
				return text
			}
		}
	}
	one := func(text string) arrow.Array {
		b := array.NewBuilder(memory.DefaultAllocator, v.Schema().Field(at).Type)
		defer b.Release()
		x.ok(b.AppendValueFromString(text))
		return b.NewArray()
	}
	if x.r.IntN(2) == 0 {
		points := map[string]bool{}
		for range 1 + x.r.IntN(4) {
			text := some()
			points[text] = true
			x.ok(set.Add([]arrow.Array{one(text)}))
		}
		return set, func(text string) bool { return points[text] }
	}
	from, to, open := some(), some(), x.r.IntN(4)
	var low, high KeyBound
	if open != 0 {
		low = KeyBound{Value: one(from), Exclusive: x.r.IntN(2) == 0}
	}
	if open != 1 {
		high = KeyBound{Value: one(to), Exclusive: x.r.IntN(2) == 0}
	}
	x.ok(set.AddRange(nil, low, high))
	return set, func(text string) bool {
		if text == "null" {
			return false
		}
		below, above := compareTexts(c.typ, text, from), compareTexts(c.typ, text, to)
		return (low.Value == nil || below > 0 || below == 0 && !low.Exclusive) && (high.Value == nil || above < 0 || above == 0 && !high.Exclusive)
	}
}

// wordOf returns a field of a line.
func wordOf(line string, at int) string { return strings.Fields(line)[at] }

// compareTexts orders two values of a type.
func compareTexts(typ, a, b string) int {
	if typ == "utf8" {
		return strings.Compare(a, b)
	}
	x, _ := strconv.ParseInt(a, 10, 64)
	y, _ := strconv.ParseInt(b, 10, 64)
	return cmp.Compare(x, y)
}
