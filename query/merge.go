package query

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// A mergeWriter writes the query of a MERGE: a branch for each of the three sets of rows that its clauses are about, so
// that names mean in each clause what they mean there. Each branch has the rows as they will be, what tells the stored
// ones, the number of the clause and, where clauses are errors, their message.
//
//	WITH flightd_source AS MATERIALIZED (SELECT * FROM source)
//	SELECT DISTINCT ON (key) ... FROM (SELECT CASE ... AS flightd_action, ... FROM source JOIN t ON c) WHERE flightd_action > 0
//	UNION ALL ... FROM source ANTI JOIN t ON c
//	UNION ALL ... FROM t ANTI JOIN source ON c
type mergeWriter struct {
	p        *parsed
	m        merging
	t        tableInfo
	defaults []string
	sets     []map[int]string // what each clause gives to columns, by place
	ident    []arrow.Field
	errors   bool // a clause is one
	moves    bool
}

// A mergeAction is a clause as its rows know it, by its number.
type mergeAction struct {
	kind mergeKind
	when string
}

// mergeChange makes the change of a MERGE.
func (p *parsed) mergeChange(l *lease) (*change, error) {
	m, err := p.merging()
	if err != nil {
		return nil, err
	}
	t, err := l.target(m.table)
	if err != nil {
		return nil, err
	}
	w := &mergeWriter{p: p, m: m, t: t}
	if w.defaults, err = l.shadow.in.defaults(t); err != nil {
		return nil, err
	}
	if err := w.assign(l); err != nil {
		return nil, err
	}
	c := &change{table: t, rows: true, actions: []mergeAction{{}}}
	for _, x := range m.clauses {
		c.actions = append(c.actions, mergeAction{x.kind, x.when})
	}
	_, w.ident = t.identity("")
	c.ident = len(w.ident)
	fields := slices.Concat(t.arrow.Fields(), w.ident, []arrow.Field{{Name: "flightd_action", Type: arrow.PrimitiveTypes.Int32}})
	if w.errors {
		fields = append(fields, arrow.Field{Name: "flightd_message", Type: arrow.BinaryTypes.String, Nullable: true})
	}
	c.schema = arrow.NewSchema(nullable(fields), nil)
	c.moves = w.moves && len(t.key) > 0
	c.put = c.putMerged
	return c, c.write(l, p.text(m.target), m.name, w.text)
}

// nullable lets all columns be null: rows that are only deleted have no values.
func nullable(fields []arrow.Field) []arrow.Field {
	out := slices.Clone(fields)
	for i := range out {
		out[i].Nullable = true
	}
	return out
}

// assign works out what each clause gives to which columns.
func (w *mergeWriter) assign(l *lease) (err error) {
	var deletes, inserts bool
	w.sets = make([]map[int]string, len(w.m.clauses))
	for i, c := range w.m.clauses {
		switch c.kind {
		case mergeUpdate:
			if c.set.empty() {
				w.sets[i], err = w.fromSource(l, c)
			} else {
				w.sets[i], err = w.p.setValues(l, w.t, c.set)
			}
			for place := range w.sets[i] {
				w.moves = w.moves || w.t.isKey(w.t.arrow.Field(place).Name)
			}
		case mergeInsert:
			inserts = true
			w.sets[i], err = w.inserted(l, c)
		case mergeDelete:
			deletes = true
		case mergeError:
			w.errors = true
		}
		if err != nil {
			return err
		}
	}
	// A row may be inserted under the key of one that is deleted, once that is known.
	w.moves = w.moves || deletes && inserts
	return nil
}

// fromSource gives columns those of the source, by name or by place.
func (w *mergeWriter) fromSource(l *lease, c mergeClause) (map[int]string, error) {
	if w.m.alias == "" {
		return nil, errorf(Unimplemented, "%s takes all columns of a source that is a join; write the columns, or give the join a name: USING (SELECT ... ) AS s", c.when)
	}
	names, err := l.shadow.in.columnNames(w.p.with() + "SELECT * FROM " + w.p.text(w.m.source))
	if err != nil {
		return nil, err
	}
	out := map[int]string{}
	for i, name := range names {
		place := i
		if c.byName {
			place = w.t.field(name)
		}
		if place < 0 || place >= w.t.arrow.NumFields() {
			return nil, errorf(InvalidArgument, "Binder Error: table %q has no column for column %q of the source", w.t.name, name)
		}
		if out[place], err = cast(quoteIdent(w.m.alias)+"."+quoteIdent(name), w.t.arrow.Field(place)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// inserted gives all columns a value: what the clause says, or their default.
func (w *mergeWriter) inserted(l *lease, c mergeClause) (out map[int]string, err error) {
	if c.values == nil && !c.none {
		if out, err = w.fromSource(l, c); err != nil {
			return nil, err
		}
	} else {
		out = map[int]string{}
	}
	for i, v := range c.values {
		place := i
		if c.columns != nil {
			place = w.t.field(w.p.wordName(c.columns[i].from))
		}
		if place < 0 || place >= w.t.arrow.NumFields() {
			return nil, errorf(InvalidArgument, "Binder Error: table %q has no column for value %d", w.t.name, i+1)
		}
		if out[place], err = w.p.assigned(v, w.t.arrow.Field(place), w.defaults[place]); err != nil {
			return nil, err
		}
	}
	for i, f := range w.t.arrow.Fields() {
		if _, ok := out[i]; ok {
			continue
		}
		if out[i], err = cast(w.defaults[i], f); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// text writes the query, given the table.
func (w *mergeWriter) text(target string) string {
	source, with := w.p.text(w.m.source), strings.TrimSpace(w.p.with())
	switch {
	case w.m.alias == "":
		source = "(" + source + ")"
	case strings.Contains(source, "("):
		// The branches must see the same rows, also of a source that is not the same each time.
		cte := "flightd_source AS MATERIALIZED (SELECT * FROM " + source + ")"
		if with == "" {
			with = "WITH " + cte
		} else {
			with += ", " + cte
		}
		source = "flightd_source AS " + quoteIdent(w.m.alias)
	}
	on := w.p.text(w.m.on)
	from := map[mergeMatch]string{
		matched:            source + " JOIN " + target + " " + on,
		notMatched:         source + " ANTI JOIN " + target + " " + on,
		notMatchedBySource: target + " ANTI JOIN " + source + " " + on,
	}
	var branches []string
	for _, match := range []mergeMatch{matched, notMatched, notMatchedBySource} {
		if slices.ContainsFunc(w.m.clauses, func(c mergeClause) bool { return c.match == match && c.kind != mergeNothing }) {
			branches = append(branches, w.branch(match, from[match]))
		}
	}
	if len(branches) == 0 { // all clauses are DO NOTHING
		branches = append(branches, w.branch(matched, from[matched]))
	}
	return with + " " + strings.Join(branches, " UNION ALL ")
}

// branch writes the query for one set of rows. A row of the table that several of the source match comes once.
func (w *mergeWriter) branch(match mergeMatch, from string) string {
	action := "CASE"
	for i, c := range w.m.clauses {
		if c.match != match {
			continue
		}
		when := "true"
		if !c.and.empty() {
			when = "(" + w.p.text(c.and) + ")"
		}
		number := i + 1
		if c.kind == mergeNothing {
			number = 0
		}
		action += fmt.Sprintf(" WHEN %s THEN %d", when, number)
	}
	if action += " ELSE 0 END"; action == "CASE ELSE 0 END" {
		action = "0"
	}
	inner := []string{action + " AS flightd_action"}
	var outer, ident []string
	for i, f := range w.t.arrow.Fields() {
		inner = append(inner, fmt.Sprintf("%s AS flightd_%d", w.value(match, i, f), i))
		outer = append(outer, fmt.Sprintf("flightd_%d AS %s", i, quoteIdent(f.Name)))
	}
	stored, _ := w.t.identity(quoteIdent(w.m.name))
	for i, expr := range stored {
		if match == notMatched {
			expr = null(w.ident[i])
		}
		inner = append(inner, fmt.Sprintf("%s AS flightd_key_%d", expr, i))
		ident = append(ident, fmt.Sprintf("flightd_key_%d", i))
	}
	outer = append(append(outer, ident...), "flightd_action")
	if w.errors {
		inner = append(inner, w.message(match)+" AS flightd_message")
		outer = append(outer, "flightd_message")
	}
	once := ""
	if match == matched {
		once = "DISTINCT ON (" + strings.Join(ident, ", ")
		for i, c := range w.m.clauses {
			if c.kind == mergeError && c.match == matched {
				once += fmt.Sprintf(", flightd_action = %d", i+1)
			}
		}
		once += ") "
	}
	return fmt.Sprintf("(SELECT %s%s FROM (SELECT %s FROM %s) WHERE flightd_action > 0)", once, strings.Join(outer, ", "), strings.Join(inner, ", "), from)
}

// null writes a NULL of a column's type.
func null(f arrow.Field) string {
	out, err := cast("NULL", f)
	if err != nil {
		return "NULL"
	}
	return out
}

// value writes a column of the rows of a branch: what the row's clause gives it, else what is stored.
func (w *mergeWriter) value(match mergeMatch, column int, f arrow.Field) string {
	stored := quoteIdent(w.m.name) + "." + quoteIdent(f.Name)
	keeps := !w.m.returning.empty() // rows that are deleted are returned as they were
	if match == notMatched {
		stored = null(f)
	}
	out := ""
	for i, c := range w.m.clauses {
		if c.match != match {
			continue
		}
		keeps = keeps || c.kind == mergeUpdate
		if v, ok := w.sets[i][column]; ok {
			out += fmt.Sprintf(" WHEN %d THEN %s", i+1, v)
		}
	}
	if !keeps {
		stored = null(f)
	}
	if out == "" {
		return stored
	}
	return "CASE flightd_action" + out + " ELSE " + stored + " END"
}

// message writes what the errors of a branch say.
func (w *mergeWriter) message(match mergeMatch) string {
	out := ""
	for i, c := range w.m.clauses {
		if c.match == match && c.kind == mergeError && !c.message.empty() {
			out += fmt.Sprintf(" WHEN %d THEN CAST((%s) AS VARCHAR)", i+1, w.p.text(c.message))
		}
	}
	if out == "" {
		return "NULL::VARCHAR"
	}
	return "CASE flightd_action" + out + " END"
}

// mergedActions returns the clause of each row of a batch, or the error that one of them is.
func (c *change) mergedActions(rec arrow.RecordBatch) ([]mergeAction, error) {
	at := c.table.arrow.NumFields() + c.ident
	numbers, ok := rec.Column(at).(*array.Int32)
	if !ok {
		return nil, fmt.Errorf("actions are %s", rec.Column(at).DataType())
	}
	out := make([]mergeAction, rec.NumRows())
	for i := range out {
		n := int(numbers.Value(i))
		if n <= 0 || n >= len(c.actions) {
			return nil, fmt.Errorf("there is no action %d", n)
		}
		if out[i] = c.actions[n]; out[i].kind == mergeError {
			text := "Constraint Error: Merge error condition " + out[i].when
			if m := rec.Column(at + 1); m.IsValid(i) {
				text += ": " + m.ValueStr(i)
			}
			return nil, errorf(InvalidArgument, "%s", text)
		}
	}
	return out, nil
}

// putMerged writes rows that know what becomes of them.
func (c *change) putMerged(ctx context.Context, w writer, b changed) error {
	gone, replaced, added := []mergeKind{mergeDelete}, []mergeKind{mergeUpdate}, []mergeKind{mergeInsert}
	if c.rewrites() { // rows without a key are replaced by taking them away
		gone, replaced, added = append(gone, mergeUpdate), nil, append(added, mergeUpdate)
	}
	for _, step := range []struct {
		rec   arrow.RecordBatch
		kinds []mergeKind
		do    func(context.Context, arrow.RecordBatch) error
	}{{b.ident, gone, w.remove}, {b.rows, replaced, w.replace}, {b.rows, added, w.insert}} {
		rec, err := chosen(step.rec, b.actions, step.kinds...)
		if err != nil {
			return err
		}
		if rec.NumRows() > 0 {
			err = step.do(ctx, rec)
		}
		rec.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// chosen returns the rows of a batch with an action of some kinds.
func chosen(rec arrow.RecordBatch, actions []mergeAction, kinds ...mergeKind) (arrow.RecordBatch, error) {
	var parts []arrow.RecordBatch
	defer func() { releaseAll(parts) }()
	for from := 0; from < len(actions); {
		want := slices.Contains(kinds, actions[from].kind)
		to := from + 1
		for to < len(actions) && slices.Contains(kinds, actions[to].kind) == want {
			to++
		}
		if want {
			parts = append(parts, rec.NewSlice(int64(from), int64(to)))
		}
		from = to
	}
	switch len(parts) {
	case 0:
		return rec.NewSlice(0, 0), nil
	case 1:
		parts[0].Retain()
		return parts[0], nil
	}
	return joinRows(parts, rec.Schema())
}

// actionColumn is what RETURNING knows as the action of a row. Its stars do not have it.
const actionColumn = "merge_action"

var actionField = arrow.Field{Name: actionColumn, Type: arrow.BinaryTypes.String}

// withActions adds the column to a batch.
func withActions(rec arrow.RecordBatch, actions []mergeAction) arrow.RecordBatch {
	b := array.NewStringBuilder(memory.DefaultAllocator)
	defer b.Release()
	for _, a := range actions {
		b.Append(mergeNames[a.kind])
	}
	names := b.NewArray()
	defer names.Release()
	return array.NewRecordBatch(arrow.NewSchema(append(rec.Schema().Fields(), actionField), nil), append(slices.Clone(rec.Columns()), names), rec.NumRows())
}

// withoutAction writes a list such that its stars leave the column out: * becomes * EXCLUDE (merge_action).
func (p *parsed) withoutAction(s span) string {
	var b strings.Builder
	at := p.tokens[s.from].start
	for i := s.from; i < s.to; i++ {
		if !p.tokens[i].is("*") || i > s.from && !slices.Contains([]string{",", "(", "."}, p.word(i-1)) {
			continue
		}
		b.WriteString(p.sql[at:p.tokens[i].end])
		at = p.tokens[i].end
		switch {
		case p.word(i+1) != "EXCLUDE" && p.word(i+1) != "EXCEPT":
			b.WriteString(" EXCLUDE (" + actionColumn + ")")
		case i+2 < s.to && p.tokens[i+2].is("("):
			b.WriteString(" EXCLUDE (" + actionColumn + ", ")
			at = p.tokens[i+2].end
		case i+2 < s.to:
			b.WriteString(" EXCLUDE (" + actionColumn + ", " + p.sql[p.tokens[i+2].start:p.tokens[i+2].end] + ")")
			at = p.tokens[i+2].end
		}
	}
	b.WriteString(p.sql[at:p.tokens[s.to-1].end])
	return b.String()
}
