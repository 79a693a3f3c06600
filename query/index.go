package query

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/flightd/flightd/lsm"
)

// An indexing is a statement about indexes. DuckDB does not see them: the grammar is ours, and that of its lance extension
// with names of tables in place of paths.
//
//	CREATE [OR REPLACE] INDEX [IF NOT EXISTS] name ON table (column) [USING kind] [WITH (...)]
//	CREATE [OR REPLACE] INDEX [IF NOT EXISTS] name ON table USING kind (column) [WITH (...)]
//	DROP INDEX [IF EXISTS] name [ON table]
//	ALTER INDEX [IF EXISTS] name [ON table] OPTIMIZE [WITH (...)]
//	SHOW INDEXES ON|FROM table
type indexing struct {
	name string
	// nameAt is the place of the name, tableAt that of the table's; it is 0 when the statement names none.
	nameAt, tableAt int
	table           tableRef
	lenient         bool // IF [NOT] EXISTS
	replace         bool
	kind            lsm.IndexKind
	columns         []string
	with            map[string]string // options of the kind
	retrain         bool
}

// indexing reads a statement about indexes; classify has seen that it is one.
func (p *parsed) indexing() (x indexing, err error) {
	switch p.kind {
	case kindCreateIndex:
		return p.indexCreation()
	case kindShowIndexes:
		err = p.indexTable(&x, 2, "ON", "FROM")
		if err == nil {
			_, i, _ := p.tableName(x.tableAt)
			err = p.end(i)
		}
		return x, err
	}
	i := 2
	if p.word(i) == "IF" && p.word(i+1) == "EXISTS" {
		i, x.lenient = i+2, true
	}
	if i, err = p.indexName(&x, i); err != nil {
		return x, err
	}
	if p.word(i) == "ON" {
		if err = p.indexTable(&x, i, "ON"); err != nil {
			return x, err
		}
		_, i, _ = p.tableName(x.tableAt)
	}
	if p.kind == kindDropIndex {
		if p.word(i) == "RESTRICT" || p.word(i) == "CASCADE" { // nothing depends on an index
			i++
		}
		return x, p.end(i)
	}
	return x, p.indexOptimizing(&x, i)
}

// indexName reads the name of an index at i and returns the place behind it.
func (p *parsed) indexName(x *indexing, i int) (int, error) {
	if i >= len(p.tokens) || !p.tokens[i].ident() || p.tokens[i].name == "" || p.tokens[i].is("ON") {
		return i, p.syntaxError(i, "the name of an index is expected")
	}
	x.name, x.nameAt = p.tokens[i].name, i
	if p.word(i+1) == "." {
		return i, p.syntaxError(i, "an index is named without schema, and its table behind ON: syntax error")
	}
	return i + 1, nil
}

// indexTable reads one of some words at i and the name of a table behind it.
func (p *parsed) indexTable(x *indexing, i int, words ...string) (err error) {
	if !slices.Contains(words, p.word(i)) {
		return p.syntaxError(i, strings.Join(words, " or ")+" and the name of a table are expected")
	}
	x.tableAt = i + 1
	if i+1 < len(p.tokens) && p.tokens[i+1].kind == literal {
		return p.syntaxError(i+1, "the name of a table is expected, not a path: syntax error")
	}
	if x.table, _, err = p.tableName(i + 1); err != nil {
		return err
	}
	if p.kind == kindShowIndexes {
		return nil
	}
	return x.table.writable()
}

// indexCreation reads CREATE INDEX.
func (p *parsed) indexCreation() (x indexing, err error) {
	i := 1
	if x.replace = p.word(i) == "OR"; x.replace {
		i = 3
	}
	if p.word(i) == "UNIQUE" {
		return x, &Error{Code: Unimplemented, Position: p.tokens[i].start + 1,
			Message: "CREATE UNIQUE INDEX is not implemented: an index does not keep rows from coming, and streams would not hold it; make the column the PRIMARY KEY"}
	}
	i++
	if p.word(i) == "IF" && p.word(i+1) == "NOT" && p.word(i+2) == "EXISTS" {
		i, x.lenient = i+3, true
	}
	if i, err = p.indexName(&x, i); err != nil {
		return x, err
	}
	if err = p.indexTable(&x, i, "ON"); err != nil {
		return x, err
	}
	_, i, _ = p.tableName(x.tableAt)
	using := -1
	if p.word(i) == "USING" {
		using, i = i+1, i+2
	}
	if i, err = p.indexColumns(&x, i); err != nil {
		return x, err
	}
	if p.word(i) == "USING" {
		if using >= 0 {
			return x, p.syntaxError(i, "USING is there twice: syntax error")
		}
		using, i = i+1, i+2
	}
	if x.kind, err = p.indexKind(using); err != nil {
		return x, err
	}
	if p.word(i) == "WITH" && p.word(i+1) == "(" {
		if i, err = p.indexOptions(&x, i+1); err != nil {
			return x, err
		}
	}
	if x.replace && x.lenient {
		return x, p.syntaxError(x.nameAt, "an index is replaced, or left as it is IF NOT EXISTS, not both: syntax error")
	}
	return x, p.end(i)
}

// indexColumns reads (column) at i and returns the place behind it.
func (p *parsed) indexColumns(x *indexing, i int) (int, error) {
	if p.word(i) != "(" {
		return i, p.syntaxError(i, "the column in parentheses is expected")
	}
	end := p.closing(i)
	if end >= len(p.tokens) {
		return end, p.syntaxError(end, "syntax error")
	}
	for _, s := range p.split(span{i + 1, end}) {
		switch {
		case s.empty():
			return i, p.syntaxError(s.from, "the name of a column is expected")
		case !p.tokens[s.from].ident() || s.to > s.from+1 && !slices.Contains([]string{"ASC", "DESC", "NULLS"}, p.word(s.from+1)):
			return i, p.unimplementedAt(s.from, "an index on an expression, or a field within a column,")
		case s.to > s.from+1:
			return i, p.syntaxError(s.from+1, "an index has no direction, it serves both: syntax error")
		}
		x.columns = append(x.columns, p.tokens[s.from].name)
	}
	if len(x.columns) > 1 {
		return i, p.unimplementedAt(i+1, "an index on several columns (Lance's have one; make one for each)")
	}
	if len(x.columns) == 0 {
		return i, p.syntaxError(end, "the name of a column is expected")
	}
	return end + 1, nil
}

// laterIndexes are kinds that will be there one day, with what they are for.
var laterIndexes = map[string]string{"INVERTED": "words of texts"}

// indexKind reads the kind of an index at i; below 0 it is the usual one.
func (p *parsed) indexKind(i int) (lsm.IndexKind, error) {
	if i < 0 {
		return lsm.BTreeIndex, nil
	}
	if i >= len(p.tokens) || !p.tokens[i].ident() {
		return "", p.syntaxError(i, "the kind of the index is expected, such as BTREE,")
	}
	kind := strings.ReplaceAll(strings.ToUpper(p.tokens[i].name), "-", "_")
	switch k := lsm.IndexKind(kind); k {
	case lsm.BTreeIndex, lsm.IVFPQIndex, lsm.IVFFlatIndex:
		return k, nil
	}
	const others = "BTREE is, for points and ranges of any column that sorts, and IVF_PQ and IVF_FLAT are, for vectors"
	message := fmt.Sprintf("indexes of kind %s are not implemented; %s", kind, others)
	if of, ok := laterIndexes[kind]; ok {
		message = fmt.Sprintf("indexes of kind %s, on %s, are not implemented yet: queries compare every row; %s", kind, of, others)
	}
	return "", &Error{Code: Unimplemented, Message: message, Position: p.tokens[i].start + 1}
}

// indexOptions reads the options of CREATE INDEX at i, where their parenthesis is.
func (p *parsed) indexOptions(x *indexing, i int) (next int, err error) {
	list, next, err := p.options(i, "index")
	if err != nil {
		return next, err
	}
	own := lsm.VectorIndexOptions(x.kind)
	for _, o := range list {
		switch {
		case o.name == "replace":
			replace, err := p.flag(o)
			if err != nil {
				return next, err
			}
			x.replace = x.replace || replace
		case slices.Contains(own, o.name): // its value is looked at where the column is known
			if x.with == nil {
				x.with = make(map[string]string)
			}
			x.with[o.name] = o.value
		default:
			return next, p.noOption(o, string(x.kind)+" index", append(slices.Clone(own), "replace"))
		}
	}
	return next, nil
}

// indexOptimizing reads OPTIMIZE [WITH (mode = ...)] at i. Of the modes that the lance extension has, two end where ours does: with all
// rows in the index. The third trains an index over vectors anew.
func (p *parsed) indexOptimizing(x *indexing, i int) error {
	if p.word(i) != "OPTIMIZE" {
		return p.syntaxError(i, "OPTIMIZE is expected, which is all that ALTER INDEX does")
	}
	i++
	if p.word(i) != "WITH" || p.word(i+1) != "(" {
		return p.end(i)
	}
	list, next, err := p.options(i+1, "index")
	if err != nil {
		return err
	}
	for _, o := range list {
		if o.name != "mode" {
			return p.noOption(o, "ALTER INDEX", []string{"mode"})
		}
		mode, err := p.choice(o, "merge", "append", "retrain")
		if err != nil {
			return err
		}
		x.retrain = mode == "retrain"
	}
	return p.end(next)
}

// indexQuery returns the query that a SHOW INDEXES is, whose first columns are those of the lance extension.
func (l *lease) indexQuery(p *parsed) (*parsed, error) {
	x, err := p.indexing()
	if err != nil {
		return nil, err
	}
	if _, ok := l.shadow.tables[fold(x.table.schema, x.table.name)]; !ok {
		return nil, l.noTable(x.table)
	}
	return parse(fmt.Sprintf("SELECT index_name, index_type, array_to_string(columns, ',') AS fields, rows_indexed, rows_unindexed, segments, bytes, memory_bytes, maintained, metric_type, num_partitions "+
		"FROM %s.indexes WHERE lower(table_schema) = lower(%s) AND lower(table_name) = lower(%s) ORDER BY index_name",
		SystemSchema, quoteString(x.table.schema), quoteString(x.table.name)))
}

// changeIndex runs a statement that changes indexes.
func (st *Statement) changeIndex(ctx context.Context, l *lease) error {
	x, err := st.parsed.indexing()
	if err != nil {
		return err
	}
	if st.parsed.kind == kindCreateIndex {
		t, err := l.target(x.table)
		if err != nil {
			return err
		}
		i := t.field(x.columns[0])
		if i < 0 {
			return errorf(InvalidArgument, "Binder Error: Table %q does not have a column with name %q", t.name, x.columns[0])
		}
		return st.e.store.createIndex(ctx, tableRef{t.schema, t.name}, lsm.IndexDef{Name: x.name, Kind: x.kind, Columns: []string{t.arrow.Field(i).Name}, Options: x.with},
			lsm.CreateIndexOptions{IfNotExists: x.lenient, Replace: x.replace, Progress: progressOf(ctx).built})
	}
	of, err := st.e.indexTable(l, st.parsed, x)
	if err == nil {
		if st.parsed.kind == kindDropIndex {
			err = st.e.store.dropIndex(ctx, of, x.name)
		} else {
			err = st.e.store.optimizeIndex(ctx, of, x.name, x.retrain, progressOf(ctx).built)
		}
	}
	if e, ok := engineError(err).(*Error); ok && e.Code == NotFound && x.lenient {
		return nil
	}
	return err
}

// indexTable returns the table whose index a statement names; one that names no table means the only one that has an
// index of the name.
func (e *Engine) indexTable(l *lease, p *parsed, x indexing) (tableRef, error) {
	if x.tableAt > 0 {
		t, err := l.target(x.table)
		return tableRef{t.schema, t.name}, err
	}
	var found []tableRef
	for _, t := range e.store.stats().Tables {
		for _, i := range t.Indexes {
			if strings.EqualFold(i.Name, x.name) {
				found = append(found, tableRef{schemaOf(t.Definition.Name), t.Definition.Name.Name})
			}
		}
	}
	switch len(found) {
	case 0:
		return tableRef{}, &Error{Code: NotFound, Position: p.tokens[x.nameAt].start + 1, Message: fmt.Sprintf("index %q does not exist; SHOW INDEXES ON table lists those of a table", x.name)}
	case 1:
		return found[0], nil
	}
	var tables []string
	for _, f := range found {
		tables = append(tables, f.name)
	}
	return tableRef{}, &Error{Code: InvalidArgument, Position: p.tokens[x.nameAt].start + 1,
		Message: fmt.Sprintf("index %q is there on tables %s; say on which: %s ON table", x.name, listed(tables), p.sql[:p.tokens[x.nameAt].end])}
}
