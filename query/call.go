package query

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// CALL flightd_…('table', …) does to a table what SQL has no statement for. flightd_flush is OPTIMIZE and returns nothing; the
// others return one row that says what was done.

// callSchemas are the rows that calls return.
var callSchemas = map[string]*arrow.Schema{
	"flightd_discard": arrow.NewSchema([]arrow.Field{
		{Name: "table_schema", Type: arrow.BinaryTypes.String},
		{Name: "table_name", Type: arrow.BinaryTypes.String},
		{Name: "dropped_rows", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
	}, nil),
	"flightd_tag":   tagSchema,
	"flightd_untag": tagSchema,
}

var tagSchema = arrow.NewSchema([]arrow.Field{
	{Name: "table_schema", Type: arrow.BinaryTypes.String},
	{Name: "table_name", Type: arrow.BinaryTypes.String},
	{Name: "tag", Type: arrow.BinaryTypes.String},
	{Name: "version", Type: arrow.PrimitiveTypes.Int64},
}, nil)

// callNames says what there is to call.
const callNames = "CALL knows flightd_flush('table'), flightd_discard('table'), flightd_tag('table', 'tag' [, version]) and flightd_untag('table', 'tag')"

// A calling is a CALL of one of our functions but flightd_flush.
type calling struct {
	name    string
	table   tableRef
	tag     string
	version uint64 // of a tag, 0 for one of everything that there is
}

// calling reads CALL name('table', …).
func (p *parsed) calling() (c calling, err error) {
	c.name = strings.ToLower(p.wordName(1))
	args, err := p.callArguments()
	if err != nil {
		return c, err
	}
	want := map[string][]int{"flightd_discard": {1}, "flightd_tag": {2, 3}, "flightd_untag": {2}}[c.name]
	if !slices.Contains(want, len(args)) {
		return c, p.syntaxError(2, callNames+";")
	}
	if c.table, err = nameInString(p.tokens[args[0]].text); err != nil || len(args) == 1 {
		return c, err
	}
	text := p.tokens[args[1]].text
	if !strings.HasPrefix(text, "'") {
		return c, p.syntaxError(args[1], "the name of a tag is a string,")
	}
	c.tag = strings.ReplaceAll(text[1:len(text)-1], "''", "'")
	if len(args) > 2 {
		if c.version, err = strconv.ParseUint(p.tokens[args[2]].text, 10, 63); err != nil || c.version == 0 {
			return c, p.syntaxError(args[2], "a version is a whole number from 1,")
		}
	}
	return c, nil
}

// callArguments returns the places of the literals between the parentheses, which have commas between them.
func (p *parsed) callArguments() (args []int, err error) {
	for i := 3; i < len(p.tokens); i += 2 {
		if p.tokens[i].kind != literal || i+1 == len(p.tokens) {
			return nil, p.syntaxError(i, callNames+";")
		}
		args = append(args, i)
		if p.tokens[i+1].is(")") {
			return args, p.end(i + 2)
		}
		if !p.tokens[i+1].is(",") {
			break
		}
	}
	return nil, p.syntaxError(2, callNames+";")
}

// call runs a CALL.
func (st *Statement) call(ctx context.Context, out *returning) (n int64, err error) {
	c, err := st.parsed.calling()
	if err == nil {
		err = st.e.notView(c.table)
	}
	if err != nil {
		return 0, err
	}
	version := uint64(0)
	switch c.name {
	case "flightd_discard":
		n, err = st.e.store.discard(ctx, c.table.schema, c.table.name)
	case "flightd_tag":
		version, err = st.e.store.tag(ctx, c.table.schema, c.table.name, c.tag, c.version)
	case "flightd_untag":
		version, err = st.e.store.untag(ctx, c.table.schema, c.table.name, c.tag)
	}
	if err != nil {
		return 0, err
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, callSchemas[c.name])
	defer b.Release()
	b.Field(0).(*array.StringBuilder).Append(c.table.schema)
	b.Field(1).(*array.StringBuilder).Append(c.table.name)
	switch {
	case c.name != "flightd_discard":
		b.Field(2).(*array.StringBuilder).Append(c.tag)
		b.Field(3).(*array.Int64Builder).Append(int64(version))
	case n < 0:
		b.Field(2).AppendNull()
	default:
		b.Field(2).(*array.Int64Builder).Append(n)
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	return max(n, 0), out.put(rec)
}
