package query

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	bind "github.com/duckdb/duckdb-go-bindings"
	"github.com/google/uuid"

	"github.com/flightd/flightd/lsm"
)

// The operators of predicates.
const (
	opAny     = iota // every row may fulfil it
	opAnd            // no args: every row
	opOr             // no args: no row
	opCompare        // a column with a value
)

// A predicate is a condition on the columns of one scan, as far as we read it: it is never narrower than the one that
// it was read from.
type predicate struct {
	op    int
	args  []predicate
	ref   filterRef // of a comparison
	cmp   string    // = < <= > >= prefix, or has: a list has the item
	value operand
	// nullIsAny says that a null as the value is not fulfilled by no row, but by any.
	nullIsAny bool
}

// An operand is the value of a comparison: a constant of the plan, or a parameter by its name.
type operand struct {
	constant  *planValue
	parameter string
}

// scan returns the scan that all columns of the predicate are of, nil when there is none or more than one.
func (p *predicate) scan() *scanFilters {
	if p.op == opCompare {
		return p.ref.scan
	}
	var out *scanFilters
	for i := range p.args {
		if p.args[i].op == opAny {
			continue
		}
		s := p.args[i].scan()
		if s == nil || out != nil && out != s {
			return nil
		}
		out = s
	}
	return out
}

// A scalar is a value in SQL's numbers: what DuckDB keeps of an integer, date, timestamp or decimal, a float, or its bytes.
type scalar struct {
	num  decimal128.Num
	real float64
	text string
}

// compare orders two scalars of one type.
func (s scalar) compare(o scalar) int {
	if c := s.num.Cmp(o.num); c != 0 {
		return c
	}
	if c := compareReal(s.real, o.real); c != 0 {
		return c
	}
	return strings.Compare(s.text, o.text)
}

// compareReal orders floats as SQL does: NaN is equal to itself and above all others.
func compareReal(a, b float64) int {
	switch {
	case math.IsNaN(a) && math.IsNaN(b):
		return 0
	case math.IsNaN(a):
		return 1
	case math.IsNaN(b):
		return -1
	}
	return cmp.Compare(a, b)
}

// A limit is an end of an interval.
type limit struct {
	value scalar
	set   bool // else the end is open
	open  bool // the value itself is outside
}

// An interval is the values between two limits.
type interval struct{ low, high limit }

// point reports whether there is exactly one value in it.
func (i interval) point() bool {
	return i.low.set && i.high.set && !i.low.open && !i.high.open && i.low.value.compare(i.high.value) == 0
}

// empty reports whether surely nothing is in it.
func (i interval) empty() bool {
	if !i.low.set || !i.high.set {
		return false
	}
	c := i.low.value.compare(i.high.value)
	return c > 0 || c == 0 && (i.low.open || i.high.open)
}

// and returns what is in both.
func (i interval) and(o interval) interval {
	if o.low.set {
		c := o.low.value.compare(i.low.value)
		if !i.low.set || c > 0 || c == 0 && o.low.open {
			i.low = o.low
		}
	}
	if o.high.set {
		c := o.high.value.compare(i.high.value)
		if !i.high.set || c < 0 || c == 0 && o.high.open {
			i.high = o.high
		}
	}
	return i
}

// A box has an interval for each column of a key.
type box []interval

// maxBoxes bounds the work on a condition: one that needs more is taken for a wider one.
const maxBoxes = 1 << 16

// A scanFilter is what a scan is asked for. Each of the two is nil when it asks for all rows.
type scanFilter struct {
	keys *keyFilter
	// where is on a column that has an index, which is called index.
	where *keyFilter
	index string
}

// A keyFilter is the keys that a scan is asked for, or the values of a column: those in any of the boxes.
type keyFilter struct {
	columns []keyColumn
	boxes   []box
}

// A keyColumn is a column of a table's key.
type keyColumn struct {
	place int // in the table's columns
	arrow arrow.DataType
	sql   sqlType
	// items says that the conditions are on the items of the column's lists, and arrow and sql are their types.
	items bool
}

// filterColumns returns the columns of the table's key, none if it has no key, or one of a type that SQL does not order
// as the storage does.
func (t tableInfo) filterColumns() []keyColumn {
	var out []keyColumn
	for _, name := range t.key {
		c, ok := t.filterColumn(name)
		if !ok {
			return nil
		}
		out = append(out, c)
	}
	return out
}

// filterColumn returns a column, if SQL orders its type as the storage does.
func (t tableInfo) filterColumn(name string) (c keyColumn, ok bool) {
	i := t.field(name)
	if i < 0 {
		return c, false
	}
	c, ok = filterField(t.arrow.Field(i))
	c.place = i
	return c, ok
}

// filterField is filterColumn for a field of whatever place.
func filterField(f arrow.Field) (keyColumn, bool) {
	st, err := sqlTypeOf(f)
	return keyColumn{arrow: f.Type, sql: st}, err == nil && !st.isOpaque() && hintable(f.Type)
}

// indexColumn returns what the conditions that an index serves are on.
func (t tableInfo) indexColumn(x lsm.IndexDef) (c keyColumn, ok bool) {
	if len(x.Columns) != 1 {
		return c, false
	}
	switch x.Kind {
	case lsm.BTreeIndex, lsm.BitmapIndex:
		return t.filterColumn(x.Columns[0])
	case lsm.LabelListIndex:
		i := t.field(x.Columns[0])
		if i < 0 {
			return c, false
		}
		list, isList := t.arrow.Field(i).Type.(arrow.ListLikeType)
		if !isList {
			return c, false
		}
		c, ok = filterField(list.ElemField())
		c.place, c.items = i, true
		return c, ok
	}
	return c, false
}

// asked returns what a scan of the table is asked for by a condition, nil when that is all rows.
func (t tableInfo) asked(p predicate, params map[string]paramValue) *scanFilter {
	var f scanFilter
	if key := t.filterColumns(); len(key) > 0 {
		if list, any := p.boxes(key, params); !any {
			f.keys = &keyFilter{columns: key, boxes: list}
		}
	}
	for _, x := range slices.Concat(t.indexes, t.foreign) {
		c, ok := t.indexColumn(x)
		if !ok {
			continue
		}
		column := []keyColumn{c}
		if list, any := p.boxes(column, params); !any && (f.where == nil || narrower(list, f.where.boxes)) {
			f.where, f.index = &keyFilter{columns: column, boxes: list}, x.Name
		}
	}
	if f.keys == nil && f.where == nil {
		return nil
	}
	return &f
}

// narrower guesses whether the values of one column in some boxes are fewer rows than those of another in others: a few
// points are better than a range, and that is better with two ends than with one.
func narrower(a, b []box) bool {
	breadth := func(list []box) (open, ranges, points int) {
		for _, x := range list {
			switch i := x[0]; {
			case i.point():
				points++
			case i.low.set && i.high.set:
				ranges++
			default:
				open++
			}
		}
		return open, ranges, points
	}
	ao, ar, ap := breadth(a)
	bo, br, bp := breadth(b)
	return slices.Compare([]int{ao, ar, ap}, []int{bo, br, bp}) < 0
}

// hintable reports whether a column's values and SQL's have the same order, and can be translated.
func hintable(dt arrow.DataType) bool {
	switch dt.ID() {
	case arrow.BOOL, arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64, arrow.UINT8, arrow.UINT16, arrow.UINT32, arrow.UINT64,
		arrow.DATE32, arrow.DATE64, arrow.TIMESTAMP, arrow.DECIMAL128, arrow.FLOAT32, arrow.FLOAT64,
		arrow.STRING, arrow.LARGE_STRING, arrow.BINARY, arrow.LARGE_BINARY, arrow.FIXED_SIZE_BINARY:
		return true
	}
	return false
}

// A paramValue is what a parameter is bound to.
type paramValue struct {
	column arrow.Array
	row    int
}

// boxes returns the keys that may fulfil the predicate, as the sum of boxes; any says that all may.
func (p *predicate) boxes(key []keyColumn, params map[string]paramValue) (list []box, any bool) {
	switch p.op {
	case opCompare:
		return p.compareBoxes(key, params)
	case opAnd:
		any = true
		for i := range p.args {
			more, all := p.args[i].boxes(key, params)
			switch {
			case all:
			case any:
				list, any = more, false
			case key[0].items: // a list can have several items, so the rows are not those of what is in both
				if len(more) < len(list) {
					list = more
				}
			default:
				list = andBoxes(list, more)
			}
		}
		return list, any
	case opOr:
		for i := range p.args {
			more, all := p.args[i].boxes(key, params)
			if list = append(list, more...); all || len(list) > maxBoxes {
				return nil, true
			}
		}
		return list, false
	}
	return nil, true
}

// andBoxes returns what is in both sums, or in the smaller one if that would be too many.
func andBoxes(a, b []box) []box {
	if len(a)*len(b) > maxBoxes {
		if len(a) < len(b) {
			return a
		}
		return b
	}
	out := []box{}
	for _, x := range a {
	next:
		for _, y := range b {
			both := make(box, len(x))
			for i := range x {
				if both[i] = x[i].and(y[i]); both[i].empty() {
					continue next
				}
			}
			out = append(out, both)
		}
	}
	return out
}

// compareBoxes is boxes of a comparison.
func (p *predicate) compareBoxes(key []keyColumn, params map[string]paramValue) (list []box, any bool) {
	at := slices.IndexFunc(key, func(k keyColumn) bool { return k.place == p.ref.column && k.items == (p.cmp == "has") })
	if at < 0 {
		return nil, true
	}
	v, null, ok := p.value.scalar(key[at].sql, params)
	if null && !p.nullIsAny && ok {
		return []box{}, false
	}
	if null || !ok {
		return nil, true
	}
	b := make(box, len(key))
	switch p.cmp {
	case "=", "has":
		b[at] = interval{low: limit{value: v, set: true}, high: limit{value: v, set: true}}
	case "<", "<=":
		b[at].high = limit{value: v, set: true, open: p.cmp == "<"}
	case ">", ">=":
		b[at].low = limit{value: v, set: true, open: p.cmp == ">"}
	case "prefix":
		b[at].low = limit{value: v, set: true}
		if after, ok := afterText(v.text); ok {
			b[at].high = limit{value: scalar{text: after}, set: true, open: true}
		}
	}
	return []box{b}, false
}

// afterText returns the least bytes above all that begin with a text, if there are any.
func afterText(t string) (string, bool) {
	for i := len(t) - 1; i >= 0; i-- {
		if t[i] != 0xFF {
			return t[:i] + string([]byte{t[i] + 1}), true
		}
	}
	return "", false
}

// scalar returns the operand's value for a comparison with a column of the type. ok is false if it is of another, with
// which DuckDB may compare in a third.
func (o operand) scalar(t sqlType, params map[string]paramValue) (s scalar, null, ok bool) {
	if o.constant != nil {
		if o.constant.IsNull {
			return s, true, true
		}
		s, ok = o.constant.scalar(t)
		return s, false, ok
	}
	p, known := params[o.parameter]
	if !known {
		return s, false, false
	}
	if p.column.IsNull(p.row) {
		return s, true, true
	}
	s, ok = paramScalar(p, t)
	return s, false, ok
}

// paramScalar reads a parameter as the value that params.go binds for it.
func paramScalar(p paramValue, t sqlType) (s scalar, ok bool) {
	dt := p.column.DataType()
	own, err := sqlTypeOf(arrow.Field{Type: dt})
	if err != nil {
		return s, false
	}
	if t.id == bind.TypeUUID {
		return uuidParam(p)
	}
	// Integers of different widths are compared as numbers, decimals of one scale as well.
	same := own.String() == t.String() || integer(own) && integer(t) ||
		dt.ID() == arrow.DECIMAL128 && own.id == t.id && own.scale == t.scale
	if !same {
		return s, false
	}
	switch a := p.column.(type) {
	case *array.Boolean:
		return boolScalar(a.Value(p.row)), true
	case *array.String:
		return scalar{text: a.Value(p.row)}, true
	case *array.LargeString:
		return scalar{text: a.Value(p.row)}, true
	case *array.Binary:
		return scalar{text: string(a.Value(p.row))}, true
	case *array.LargeBinary:
		return scalar{text: string(a.Value(p.row))}, true
	case *array.FixedSizeBinary:
		return scalar{text: string(a.Value(p.row))}, true
	case *array.Decimal128:
		return scalar{num: a.Value(p.row)}, true
	case *array.Float32:
		return scalar{real: float64(a.Value(p.row))}, true
	case *array.Float64:
		return scalar{real: a.Value(p.row)}, true
	case *array.Uint64:
		return scalar{num: decimal128.FromU64(a.Value(p.row))}, true
	case *array.Date32:
		return scalar{num: decimal128.FromI64(int64(a.Value(p.row)))}, true
	case *array.Timestamp:
		n, ok := int64(a.Value(p.row)), true
		if timestampFactor(dt) > 1 {
			n, ok = toMicros(n, dt.(*arrow.TimestampType).Unit)
		}
		return scalar{num: decimal128.FromI64(n)}, ok
	}
	n, ok := integerAt(p.column, p.row)
	return scalar{num: decimal128.FromI64(n)}, ok
}

// uuidParam reads a UUID that is bound as a text of the usual form.
func uuidParam(p paramValue) (s scalar, ok bool) {
	a, ok := p.column.(*array.String)
	if !ok || len(a.Value(p.row)) != 36 {
		return s, false
	}
	id, err := uuid.Parse(a.Value(p.row))
	return scalar{text: string(id[:])}, err == nil
}

// integerAt returns a value of a column of integers of up to 64 bits with a sign.
func integerAt(column arrow.Array, row int) (int64, bool) {
	switch a := column.(type) {
	case *array.Int8:
		return int64(a.Value(row)), true
	case *array.Int16:
		return int64(a.Value(row)), true
	case *array.Int32:
		return int64(a.Value(row)), true
	case *array.Int64:
		return a.Value(row), true
	case *array.Uint8:
		return int64(a.Value(row)), true
	case *array.Uint16:
		return int64(a.Value(row)), true
	case *array.Uint32:
		return int64(a.Value(row)), true
	}
	return 0, false
}

// integer reports whether the type is one of the integers.
func integer(t sqlType) bool {
	return strings.HasSuffix(t.String(), "INT") || strings.HasSuffix(t.String(), "INTEGER")
}

// timestampFactor is how many of SQL's units are one of the column's: instants are microseconds in SQL.
func timestampFactor(dt arrow.DataType) int64 {
	t, ok := dt.(*arrow.TimestampType)
	if !ok || t.TimeZone == "" {
		return 1
	}
	switch t.Unit {
	case arrow.Second:
		return 1_000_000
	case arrow.Millisecond:
		return 1000
	}
	return 1
}
