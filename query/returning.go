package query

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/flightd/flightd/internal/offheap"
)

// A returningClause is what follows RETURNING in a statement that changes rows.
type returningClause struct {
	table tableRef
	name  string // under which the list knows the table
	list  span
}

// returning is the clause of the statement, with an empty list when there is none.
func (p *parsed) returning() returningClause {
	switch p.kind {
	case kindInsert:
		c, _ := p.insertion() // parse has seen that it can be read
		return returningClause{c.table, c.table.name, c.returning}
	case kindUpdate, kindDelete:
		c, _ := p.changing()
		return returningClause{c.table, c.name, c.returning}
	case kindMerge:
		c, _ := p.merging()
		return returningClause{c.table, c.name, c.returning}
	}
	return returningClause{}
}

// Returns says whether the statement changes something and returns rows about it: Run runs it, and so does Update, which
// drops the rows.
func (st *Statement) Returns() bool {
	return st.parsed.kind == kindVacuum || st.parsed.kind == kindCall || !st.parsed.returning().list.empty()
}

// returning collects what a statement returns. Its list is computed for each batch of rows that the statement changes,
// by a query over them: the list sees one row at a time, as subqueries, aggregates, windows and parameters do not stand
// in it.
type returning struct {
	st    *Statement
	table tableInfo
	sql   string
	plan  string        // see run
	types *arrow.Schema // nil before they are known
	out   *spool
}

// newReturning returns a collector, nil when the statement returns nothing.
func (st *Statement) newReturning(l *lease) (*returning, error) {
	if st.parsed.kind == kindVacuum || st.parsed.kind == kindCall {
		return &returning{st: st, types: st.dataset, out: &spool{limit: st.e.opts.Memory}}, nil
	}
	c := st.parsed.returning()
	if c.list.empty() {
		return nil, nil
	}
	t, err := l.target(c.table)
	if err != nil {
		return nil, err
	}
	r := &returning{st: st, table: t}
	columns := make([]string, t.arrow.NumFields())
	for i, f := range t.arrow.Fields() {
		columns[i] = quoteIdent(f.Name)
	}
	list := st.parsed.text(c.list)
	if st.parsed.kind == kindMerge {
		if t.field(actionColumn) >= 0 {
			return nil, errorf(Unimplemented, "MERGE ... RETURNING is not implemented for tables with a column %s", actionColumn)
		}
		columns = append(columns, actionColumn)
		list = st.parsed.withoutAction(c.list)
	}
	r.sql = fmt.Sprintf("SELECT %s FROM (SELECT %s FROM %s(%d)) AS %s", list, strings.Join(columns, ", "), scanFunction, ownRows, quoteIdent(c.name))
	if r.plan, err = st.returningPlan(l); err != nil {
		return nil, err
	}
	r.out, err = st.e.newSpool()
	return r, err
}

// returningPlan is a query whose result has the types of the list.
func (st *Statement) returningPlan(l *lease) (string, error) {
	c := st.parsed.returning()
	t, err := l.target(c.table)
	if err != nil {
		return "", err
	}
	if st.parsed.kind == kindMerge {
		return "SELECT " + st.parsed.withoutAction(c.list) + " FROM (SELECT *, '' AS " + actionColumn + " FROM " + t.qualified() + ") AS " + quoteIdent(c.name), nil
	}
	return "SELECT " + st.parsed.text(c.list) + " FROM " + t.as(c.name), nil
}

// mark returns a point to which reset goes back.
func (r *returning) mark() int {
	if r == nil {
		return 0
	}
	return len(r.out.parts)
}

// reset forgets what was added since a mark.
func (r *returning) reset(mark int) {
	if r != nil {
		r.out.cut(mark)
	}
}

// add computes the list for rows of the table.
func (r *returning) add(ctx context.Context, rows arrow.RecordBatch, actions []mergeAction) error {
	if r == nil || rows == nil {
		return nil
	}
	if actions != nil {
		rows = withActions(rows, actions)
		defer rows.Release()
	}
	own, err := outsideHeap(rows)
	if err != nil {
		return err
	}
	defer own.Release()
	return r.st.e.eachBatch(ctx, r.sql, run{own: own, plan: r.plan, wire: true}, func(rec arrow.RecordBatch) error {
		return r.put(rec)
	})
}

// put keeps a batch of the result, under the names that were announced: DuckDB calls a computed column otherwise here.
func (r *returning) put(rec arrow.RecordBatch) error {
	if r.types == nil {
		r.types = rec.Schema()
		if announced := r.st.DatasetSchema(); announced != nil && sameTypes(announced, r.types) {
			r.types = announced
		}
	}
	if !sameTypes(r.types, rec.Schema()) {
		return errTableChanged
	}
	named := array.NewRecordBatch(r.types, rec.Columns(), rec.NumRows())
	defer named.Release()
	return r.out.add(named)
}

// sameTypes reports whether two schemas have the same types.
func sameTypes(a, b *arrow.Schema) bool {
	return slices.EqualFunc(a.Fields(), b.Fields(), func(a, b arrow.Field) bool { return arrow.TypeEqual(a.Type, b.Type) })
}

// finish returns what was collected.
func (r *returning) finish(ctx context.Context, changed int64) (*Rows, error) {
	if r.types == nil { // no row came to tell
		r.types = r.st.DatasetSchema()
	}
	if r.types == nil { // nor could the parameters' types
		fields := slices.Clone(r.table.arrow.Fields())
		if r.st.parsed.kind == kindMerge {
			fields = append(fields, actionField)
		}
		b := array.NewRecordBuilder(offheap.Default, arrow.NewSchema(fields, nil))
		defer b.Release()
		none := b.NewRecordBatch()
		defer none.Release()
		tokens, err := lex(r.sql)
		if err != nil {
			return nil, err
		}
		q := &Statement{e: r.st.e, parsed: &parsed{sql: r.sql, tokens: tokens, kind: kindSelect}}
		res, err := q.start(ctx, run{own: none, plan: r.plan, wire: true})
		if err != nil {
			return nil, err
		}
		r.types = res.Schema()
		if err := res.Close(); err != nil {
			return nil, err
		}
	}
	return &Rows{schema: r.types, count: changed, spool: r.out}, nil
}

// outsideHeap copies a batch to where C may keep pointers into it.
func outsideHeap(rec arrow.RecordBatch) (arrow.RecordBatch, error) {
	columns := make([]arrow.Array, 0, rec.NumCols())
	defer func() {
		for _, c := range columns {
			c.Release()
		}
	}()
	for _, c := range rec.Columns() {
		moved, err := array.Concatenate([]arrow.Array{c}, offheap.Default)
		if err != nil {
			return nil, err
		}
		columns = append(columns, moved)
	}
	return array.NewRecordBatch(rec.Schema(), columns, rec.NumRows()), nil
}

// Run runs a statement that changes rows and returns them, as Update does, and returns the rows. Its caller closes them.
func (st *Statement) Run(ctx context.Context, params arrow.RecordBatch) (*Rows, error) {
	if !st.Returns() {
		return nil, errorf(InvalidArgument, "the statement does not return the rows that it changes")
	}
	var rows *Rows
	_, err := st.again(func() (n int64, err error) {
		n, rows, err = st.updateOnce(ctx, params)
		return n, err
	})
	return rows, err
}
