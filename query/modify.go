package query

import (
	"context"
	"io"
	"iter"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// A writer takes the rows of one change of a table. They take effect together, or not at all. Batches are the
// caller's to release.
type writer interface {
	// insert puts rows whose keys are new.
	insert(ctx context.Context, rec arrow.RecordBatch) error
	// upsert puts rows whose keys are there or not, but come once.
	upsert(ctx context.Context, rec arrow.RecordBatch) error
	// replace puts rows whose keys are there.
	replace(ctx context.Context, rec arrow.RecordBatch) error
	// remove deletes the rows that have these keys or, in a table without a key, these addresses.
	remove(ctx context.Context, ident arrow.RecordBatch) error
	// move deletes the rows with the old keys and then inserts rows.
	move(ctx context.Context, old []arrow.RecordBatch, rows iter.Seq2[arrow.RecordBatch, error]) error
}

// A change is what a statement does to a table: the query that finds its rows, and what becomes of them.
type change struct {
	table tableInfo
	sql   string
	plan  string // see run
	// schema has the query's columns in the types of the table: the table's own if rows is true, then ident ones that
	// tell stored rows, and last, if there are actions, the number of the row's and what it says if it is an error.
	schema  *arrow.Schema
	rows    bool
	ident   int
	actions []mergeAction
	// moves says that rows may get the keys of others, so that all must be known before the first is written.
	moves bool
	put   func(ctx context.Context, w writer, b changed) error
}

// rewrites says whether rows are told by their address.
func (c *change) rewrites() bool { return c.ident > 0 && len(c.table.key) == 0 }

// A changed batch is what a change's query gave, taken apart. Rows or ident may be nil.
type changed struct {
	rows, ident arrow.RecordBatch
	actions     []mergeAction // of the rows of a MERGE
}

// release lets it go.
func (b changed) release() {
	for _, rec := range []arrow.RecordBatch{b.rows, b.ident} {
		if rec != nil {
			rec.Release()
		}
	}
}

// split takes a batch of the query apart.
func (c *change) split(rec arrow.RecordBatch) (b changed, err error) {
	if c.actions != nil {
		if b.actions, err = c.mergedActions(rec); err != nil {
			return b, err
		}
	}
	at := 0
	if c.rows {
		at = c.table.arrow.NumFields()
		b.rows = columnsOf(rec, 0, at)
	}
	if c.ident > 0 {
		b.ident = columnsOf(rec, at, at+c.ident)
	}
	return b, nil
}

// columnsOf returns some columns of a batch.
func columnsOf(rec arrow.RecordBatch, from, to int) arrow.RecordBatch {
	return array.NewRecordBatch(arrow.NewSchema(rec.Schema().Fields()[from:to], nil), rec.Columns()[from:to], rec.NumRows())
}

// change makes the query of the statement.
func (st *Statement) change(l *lease) (*change, error) {
	switch st.parsed.kind {
	case kindUpdate:
		return st.parsed.updateChange(l)
	case kindDelete:
		return st.parsed.deleteChange(l)
	case kindMerge:
		return st.parsed.mergeChange(l)
	}
	return st.parsed.insertChange(l)
}

// changeRows runs an INSERT with a query, an UPDATE or a DELETE, and gives the rows that it returns to out, which may
// be nil. All rows of parameters of an INSERT apply together; of the others each sees what those before it did.
func (st *Statement) changeRows(ctx context.Context, l *lease, params arrow.RecordBatch, out *returning) (int64, error) {
	c, err := st.change(l)
	if err != nil {
		return 0, err
	}
	if params == nil || params.NumCols() == 0 {
		return st.apply(ctx, c, run{}, out)
	}
	rows := int(params.NumRows())
	r := run{params: params, names: st.names()}
	if st.parsed.kind == kindInsert && !st.parsed.hasConflict() {
		r.rows = rows
		return st.apply(ctx, c, r, out)
	}
	var total int64
	for r.row = range rows {
		n, err := st.apply(ctx, c, r, out)
		if err != nil {
			return total, inRow(err, r.row, rows)
		}
		total += n
	}
	return total, nil
}

// names returns the parameters' names in the order in which their values come.
func (st *Statement) names() []string {
	var out []string
	for _, f := range st.ParameterSchema().Fields() {
		out = append(out, f.Name)
	}
	return out
}

// apply runs the change while nobody else changes the same rows. It returns the number of rows.
func (st *Statement) apply(ctx context.Context, c *change, r run, out *returning) (n int64, err error) {
	before := out.mark()
	err = st.e.store.modify(ctx, c.table, c.rewrites(), func(ctx context.Context, snap snapshot, w writer) error {
		n = 0 // it may be called again
		out.reset(before)
		r.snap = snap
		if c.moves {
			n, err = st.move(ctx, c, r, w, out)
			return err
		}
		for i := range max(r.rows, 1) {
			one := r
			one.row += i
			err := st.each(ctx, c, one, out, func(rows int64, b changed) error {
				n += rows
				return c.put(ctx, w, b)
			})
			if err != nil {
				return inRow(engineError(err), i, max(r.rows, 1))
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// move is apply for changes of keys. The new rows wait until all are known: the new key of one may be the old key of a
// later one.
func (st *Statement) move(ctx context.Context, c *change, r run, w writer, out *returning) (n int64, err error) {
	var old []arrow.RecordBatch
	defer func() { releaseAll(old) }()
	rows, err := st.e.newSpool()
	if err != nil {
		return 0, err
	}
	defer rows.close()
	var bytes int64
	err = st.each(ctx, c, r, out, func(count int64, b changed) error {
		n += count
		gone, come, err := b.moves()
		if err != nil {
			return err
		}
		defer come.Release()
		old = append(old, gone)
		if bytes += batchSize(gone); bytes > st.e.opts.Memory {
			return errorf(ResourceExhausted, "the keys that the statement changes take more than %d bytes; change fewer at a time", st.e.opts.Memory)
		}
		return rows.add(come)
	})
	if err != nil || n == 0 {
		return n, err
	}
	return n, w.move(ctx, old, rows.all)
}

// moves returns the keys that go, and the rows that come. The caller releases both.
func (b changed) moves() (gone, come arrow.RecordBatch, err error) {
	if b.actions == nil {
		b.ident.Retain()
		b.rows.Retain()
		return b.ident, b.rows, nil
	}
	if gone, err = chosen(b.ident, b.actions, mergeDelete, mergeUpdate); err != nil {
		return nil, nil, err
	}
	if come, err = chosen(b.rows, b.actions, mergeInsert, mergeUpdate); err != nil {
		gone.Release()
	}
	return gone, come, err
}

// each runs the change's query on the snapshot and calls fn with its rows, in the types of the table, and their number.
func (st *Statement) each(ctx context.Context, c *change, r run, out *returning, fn func(rows int64, b changed) error) error {
	r.plan = c.plan
	return st.e.eachBatch(ctx, c.sql, r, func(rec arrow.RecordBatch) error {
		typed, err := joinRows([]arrow.RecordBatch{rec}, c.schema)
		if err != nil {
			return err
		}
		defer typed.Release()
		b, err := c.split(typed)
		if err != nil {
			return err
		}
		defer b.release()
		if err := out.add(ctx, b.rows, b.actions); err != nil {
			return err
		}
		return fn(typed.NumRows(), b)
	})
}

// eachBatch runs a query of ours and calls fn with each batch of its result.
func (e *Engine) eachBatch(ctx context.Context, sql string, r run, fn func(arrow.RecordBatch) error) error {
	tokens, err := lex(sql)
	if err != nil {
		return err
	}
	q := &Statement{e: e, parsed: &parsed{sql: sql, tokens: tokens, kind: kindSelect}}
	res, err := q.start(ctx, r)
	if err != nil {
		return err
	}
	defer res.Close()
	return res.each(ctx, fn)
}

// each calls fn with each batch that is left.
func (r *Result) each(ctx context.Context, fn func(arrow.RecordBatch) error) error {
	for {
		rec, err := r.Next(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		err = fn(rec)
		rec.Release()
		if err != nil {
			return err
		}
	}
}
