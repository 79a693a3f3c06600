package lsm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// index makes, drops or optimizes an index. Whether one is there depends on whether one that was given up came to be.
func (x *metaRun) index() {
	name, def, soon := fmt.Sprintf("i%d", x.r.IntN(4)), x.someIndex(), time.Duration(x.r.IntN(5))*time.Millisecond
	def.Name = name
	switch x.r.IntN(8) {
	case 0:
		x.note("  drop %s", name)
		if err := x.s.db.DropIndex(x.ctx, x.name(), name); !errors.Is(err, ErrIndexNotFound) {
			x.ok(err)
		}
	case 1:
		x.note("  optimize %s", name)
		if err := x.table().OptimizeIndex(x.ctx, name, nil); !errors.Is(err, ErrIndexNotFound) {
			x.ok(err)
		}
	case 2:
		x.note("  give up %s", indexText(def))
		ctx, cancel := context.WithTimeout(x.ctx, soon)
		defer cancel()
		if err := x.s.db.CreateIndex(ctx, x.name(), def, CreateIndexOptions{IfNotExists: true}); !errors.Is(err, context.DeadlineExceeded) {
			x.ok(err)
		}
	default:
		x.note("  create %s", indexText(def))
		x.ok(x.s.db.CreateIndex(x.ctx, x.name(), def, CreateIndexOptions{Replace: true}))
	}
}

// someIndex defines an index over some column.
func (x *metaRun) someIndex() IndexDef {
	c := x.m.columns[x.r.IntN(len(x.m.columns))]
	if c.isVector() {
		return x.someVectorIndex(c.name)
	}
	return IndexDef{Kind: BTreeIndex, Columns: []string{c.name}}
}

// indexText is a definition in words.
func indexText(d IndexDef) string {
	return fmt.Sprintf("%s: %s on %s %v", d.Name, d.Kind, d.Columns[0], d.Options)
}

// coverAll brings all rows into all indexes of the catalog, which must say so. An index whose DROP a crash cut off, or whose
// making, may have segments in the base that look like another program's.
func (x *metaRun) coverAll() {
	ours := func() []IndexInfo {
		return slices.DeleteFunc(x.table().Indexes(), func(info IndexInfo) bool { return info.Foreign })
	}
	for _, info := range ours() {
		x.ok(x.table().OptimizeIndex(x.ctx, info.Name, nil))
	}
	for _, info := range ours() {
		if info.Vectors != nil && info.Vectors.Partitions == 0 {
			x.want(info.Covered == 0, "an index without a model has %+v", info)
			continue // there are too few vectors yet
		}
		x.want(info.Uncovered == 0 && info.Covered == int64(len(x.m.rows)), "of %d rows the index has %+v", len(x.m.rows), info)
	}
}

// someValues returns a set of values of a column of the model, and which texts are in it.
func (x *metaRun) someValues(v *View, column int, lines []string) (*KeySet, func(text string) bool) {
	c := x.m.columns[column]
	at := columnIndex(v.Schema(), c.name)
	set := v.NewColumnSet(at)
	some := func() string {
		if len(lines) > 0 && x.r.IntN(3) > 0 {
			if text := wordOf(lines[x.r.IntN(len(lines))], len(x.m.keys)+column); text != "null" {
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
