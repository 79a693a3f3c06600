package query

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/flightd/flightd/lsm"
)

// FROM t AT (VERSION => 3) reads an older version of a table. DuckDB's parser takes the clause, and its binder refuses it
// for everything that we can show it; so it never gets there. A text with such clauses is written anew each time that it is
// prepared or run, with a scan of that version in the place of the table's name:
//
//	FROM docs d AT (VERSION => 3)   FROM (SELECT "id", "body" FROM flightd_scan(1099511627777)) AS d
//
// The version has the number of a scan as tables of the catalog have, above theirs (pastBase), for as long as a statement
// reads it. All that finds columns, types and conditions of tables finds those of the version by this number.

// pastBase is below the numbers of the scans of older versions, and above those of tables.
const pastBase = 1 << 40

// A travel is a table in the text that is read as one of its versions has it.
type travel struct {
	table tableRef
	// from and to are the places of the reference's first token and of the one behind its last; at is that of AT.
	from, at, to int
	// alias is what the text calls the table, with a list of columns if it has one, as SQL.
	alias string
	// unit is VERSION, TIMESTAMP or TAG, value the place of what follows the arrow.
	unit  string
	value int
}

// travels reports whether token i begins an AT clause. AT TIME ZONE has no parenthesis, and no function's argument an arrow behind
// such a name.
func (p *parsed) travelsAt(i int) bool {
	return p.word(i) == "AT" && p.word(i+1) == "(" && i+4 < len(p.tokens) && p.tokens[i+2].ident() && p.word(i+3) == "=" && p.word(i+4) == ">" && i > 0
}

// isTravelling reports whether the text reads older versions.
func (p *parsed) isTravelling() bool {
	for i := range p.tokens {
		if p.travelsAt(i) {
			return true
		}
	}
	return false
}

// travels reads the tables of the text that have an AT clause, in their order.
func (p *parsed) travels() (out []travel, err error) {
	for i := range p.tokens {
		if !p.travelsAt(i) {
			continue
		}
		t, err := p.travel(i)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// travel reads the table before the AT clause at a place, and the clause. An alias stands before the clause, as DuckDB has it.
func (p *parsed) travel(at int) (t travel, err error) {
	t = travel{at: at, to: p.closing(at+1) + 1, unit: strings.ToUpper(p.tokens[at+2].name), value: at + 5}
	if !slices.Contains([]string{"VERSION", "TIMESTAMP", "TAG"}, t.unit) {
		return t, p.syntaxError(at+2, "AT takes VERSION, TIMESTAMP or TAG")
	}
	if t.to > len(p.tokens) || t.value >= t.to-1 {
		return t, p.syntaxError(min(t.value, len(p.tokens)), "AT has no value")
	}
	i, list := at-1, ""
	if p.word(i) == ")" { // the columns of an alias
		for i--; i > 0 && !(p.tokens[i].is("(") && p.tokens[i].depth == p.tokens[at].depth); i-- {
		}
		list = p.sql[p.tokens[i].start:p.tokens[at-1].end]
		i--
	}
	end := i // of the name
	switch before := p.word(i - 1); {
	case i < 1 || !p.tokens[i].ident():
		return t, p.syntaxError(at, "AT follows the name of a table, or its alias")
	case before == "AS":
		end = i - 2
	case before != "." && p.tokens[i-1].ident() && !slices.Contains([]string{"FROM", "JOIN"}, before):
		end = i - 1
	}
	t.from = end
	for t.from > 1 && p.word(t.from-1) == "." && p.tokens[t.from-2].ident() {
		t.from -= 2
	}
	name, next, err := p.tableName(t.from)
	if err != nil {
		return t, err
	}
	if next != end+1 {
		return t, p.syntaxError(at, "AT follows the name of a table, or its alias")
	}
	t.table, t.alias = name, quoteIdent(name.name)
	if end < i {
		t.alias = p.sql[p.tokens[i].start:p.tokens[i].end]
	}
	t.alias += list
	return t, p.readable(t)
}

// readable refuses an AT clause where it is not a table to be read that stands before it.
func (p *parsed) readable(t travel) error {
	before := p.word(t.from - 1)
	switch {
	case !slices.Contains([]string{"FROM", "JOIN", ",", "(", "USING"}, before), before == "FROM" && p.word(t.from-2) == "DELETE":
		return &Error{Code: InvalidArgument, Position: p.tokens[t.at].start + 1, Message: "a version of a table is only read: AT stands behind a table in FROM or JOIN"}
	case p.kind == kindCreateView:
		return &Error{Code: Unimplemented, Position: p.tokens[t.at].start + 1,
			Message: "a view of an older version of a table is not implemented, as the version may be collected; say AT where the version is read, or copy it with CREATE TABLE … AS"}
	}
	for i := t.value; i < t.to-1; i++ {
		switch x := p.tokens[i]; {
		case x.kind == parameter:
			return &Error{Code: InvalidArgument, Position: x.start + 1, Message: "a version cannot be a parameter, as the columns of the statement depend on it; write it into the text"}
		case x.is("SELECT"), x.is("FROM"), x.is("TABLE"), x.is("VALUES"):
			return &Error{Code: InvalidArgument, Position: x.start + 1, Message: "AT takes an expression without subqueries"}
		}
	}
	return nil
}

// asOf works out which version a clause means.
func (p *parsed) asOf(in *instance, t travel) (as lsm.AsOf, err error) {
	text := p.sql[p.tokens[t.value].start:p.tokens[t.to-2].end]
	place := func(err error) error {
		if own, ok := engineError(err).(*Error); ok {
			return &Error{Code: own.Code, Message: fmt.Sprintf("AT (%s => %s): %s", t.unit, text, own.Message), Position: p.tokens[t.value].start + 1, Err: err}
		}
		return err
	}
	if t.unit == "TIMESTAMP" {
		micros, err := in.scalar("SELECT coalesce(epoch_us(CAST((" + text + ") AS TIMESTAMPTZ))::VARCHAR, '')")
		if err != nil {
			return as, place(err)
		}
		n, err := strconv.ParseInt(micros, 10, 64)
		if err != nil || n == 0 {
			return as, place(errorf(InvalidArgument, "a moment is expected, not NULL or infinity"))
		}
		return lsm.AsOf{Time: time.UnixMicro(n)}, nil
	}
	rows, err := in.strings("SELECT typeof(x), coalesce(x::VARCHAR, '') FROM (SELECT (" + text + ") AS x)")
	if err != nil {
		return as, place(err)
	}
	kind, value := rows[0][0], rows[0][1]
	if value == "" {
		return as, place(errorf(InvalidArgument, "a version or a tag is expected, not NULL"))
	}
	if kind == "VARCHAR" {
		return lsm.AsOf{Tag: value}, nil
	}
	if as.Version, err = strconv.ParseUint(value, 10, 64); err != nil || as.Version == 0 || t.unit == "TAG" {
		return as, place(errorf(InvalidArgument, "versions are whole numbers from 1, tags are texts"))
	}
	return as, nil
}

// pasts are the older versions that statements read. Its lock comes before bridge.mu.
type pasts struct {
	mu   sync.Mutex
	next int64
	// ids are the numbers that versions had, so that a text that comes again is the same text.
	ids  map[pastKey]int64
	open map[int64]*past
}

// maxPastIDs bounds the versions whose numbers are remembered when nobody reads them.
const maxPastIDs = 4096

// pastKey names a version for good.
type pastKey struct{ incarnation, version uint64 }

// A past is an older version that statements read.
type past struct {
	info   tableInfo
	source tableSource
	close  func()
	users  int
	// bridges know the scan's number.
	bridges map[*bridge]bool
}

// openedPast is a version that a store has opened, with what the catalogs know of a table.
type openedPast struct {
	info    tableInfo
	version uint64
	source  tableSource
	close   func()
}

// enter counts a user of a version, which the caller has opened and which is closed with its last user, or at once if it is
// open already.
func (e *Engine) enter(p openedPast, bridges ...*bridge) tableInfo {
	spare := func() {}
	defer func() { spare() }()
	e.pasts.mu.Lock()
	defer e.pasts.mu.Unlock()
	if e.pasts.ids == nil || len(e.pasts.ids) > maxPastIDs && len(e.pasts.open) == 0 {
		e.pasts.ids, e.pasts.open = map[pastKey]int64{}, map[int64]*past{}
	}
	key := pastKey{p.info.incarnation, p.version}
	id, ok := e.pasts.ids[key]
	if !ok {
		e.pasts.next++
		id = pastBase + e.pasts.next
		e.pasts.ids[key] = id
	}
	x := e.pasts.open[id]
	if x == nil {
		p.info.id, p.info.at = id, p.version
		x = &past{info: p.info, source: p.source, close: p.close, bridges: map[*bridge]bool{}}
		e.pasts.open[id] = x
	} else {
		spare = p.close
	}
	x.users++
	for _, b := range bridges {
		if !x.bridges[b] {
			x.bridges[b] = true
			b.setTable(id, x.info.arrow)
		}
	}
	return x.info
}

// leave undoes enter.
func (e *Engine) leave(id int64) {
	e.pasts.mu.Lock()
	x := e.pasts.open[id]
	x.users--
	last := x.users == 0
	if last {
		delete(e.pasts.open, id)
		for b := range x.bridges {
			b.setTable(id, nil)
		}
	}
	e.pasts.mu.Unlock()
	if last {
		x.close()
	}
}

// past returns a version that somebody reads.
func (e *Engine) past(id int64) (*past, bool) {
	if id < pastBase {
		return nil, false
	}
	e.pasts.mu.Lock()
	defer e.pasts.mu.Unlock()
	p, ok := e.pasts.open[id]
	return p, ok
}

// table returns the table, or the version of one, with the number of a scan.
func (l *lease) table(id int64) (tableInfo, bool) {
	if p, ok := l.e.past(id); ok {
		return p.info, true
	}
	t, ok := l.query.byID[id]
	return t, ok
}

// pasts returns the numbers of the scans of older versions in a text of ours.
func (p *parsed) pasts() (out []int64) {
	for i, t := range p.tokens {
		if t.kind != word || !strings.EqualFold(t.name, scanFunction) || i+2 >= len(p.tokens) || !p.tokens[i+1].is("(") {
			continue
		}
		if id, err := strconv.ParseInt(p.tokens[i+2].text, 10, 64); err == nil && id > pastBase {
			out = append(out, id)
		}
	}
	return out
}

// arrive returns the statement's text with its versions in the place of AT clauses, and keeps these open until leave is called.
// A text without clauses is returned as it is.
func (e *Engine) arrive(ctx context.Context, l *lease, p *parsed) (_ *parsed, leave func(), err error) {
	leave = func() {}
	if !p.isTravelling() {
		return p, leave, nil
	}
	list, err := p.travels()
	if err != nil {
		return nil, leave, err
	}
	var ids []int64
	leave = func() {
		for _, id := range ids {
			e.leave(id)
		}
	}
	defer func() {
		if err != nil {
			leave()
			leave = func() {}
		}
	}()
	var text strings.Builder
	behind := 0
	for _, t := range list {
		info, err := e.depart(ctx, l, p, t)
		if err != nil {
			return nil, leave, err
		}
		ids = append(ids, info.id)
		names := make([]string, info.arrow.NumFields())
		for i, f := range info.arrow.Fields() {
			names[i] = quoteIdent(f.Name)
		}
		text.WriteString(p.sql[behind:p.tokens[t.from].start])
		fmt.Fprintf(&text, "(SELECT %s FROM %s(%d)) AS %s", strings.Join(names, ", "), scanFunction, info.id, t.alias)
		behind = p.tokens[t.to-1].end
	}
	text.WriteString(p.sql[behind:])
	q := &parsed{sql: text.String()}
	if q.tokens, err = lex(q.sql); err == nil {
		err = q.classify()
	}
	if p.kind == kindSelect && err == nil { // it reads tables as well as the catalog, which may have been found out since
		q.kind = kindSelect
	}
	return q, leave, err
}

// depart opens the version of a table that a clause means.
func (e *Engine) depart(ctx context.Context, l *lease, p *parsed, t travel) (tableInfo, error) {
	now, ok := l.shadow.tables[fold(t.table.schema, t.table.name)]
	switch {
	case isSystem(t.table.schema):
		return tableInfo{}, errorf(InvalidArgument, "%s.%s has no versions: the tables of schema %s tell about the moment", SystemSchema, t.table.name, SystemSchema)
	case !ok:
		return tableInfo{}, unplacedAt(l.noTable(t.table), p.tokens[t.from].start)
	}
	as, err := p.asOf(l.shadow.in, t)
	if err != nil {
		return tableInfo{}, err
	}
	opened, err := e.store.past(ctx, now, as)
	if err != nil {
		return tableInfo{}, unplacedAt(engineError(err), p.tokens[t.at].start)
	}
	return e.enter(opened, l.query.in.bridge, l.shadow.in.bridge), nil
}

// unplacedAt gives an error a place in the text if it has none.
func unplacedAt(err error, at int) error {
	if e, ok := err.(*Error); ok && e.Position == 0 {
		return &Error{Code: e.Code, Message: e.Message, Position: at + 1, Err: e.Err}
	}
	return err
}

// arrived returns the statement as it runs now. A statement without AT clauses is that itself.
func (st *Statement) arrived(ctx context.Context, l *lease) (*Statement, func(), error) {
	p, leave, err := st.e.arrive(ctx, l, st.parsed)
	if err != nil || p == st.parsed {
		return st, leave, err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return &Statement{e: st.e, session: st.session, parsed: p, source: st.source, version: st.version, dataset: st.dataset, params: st.params}, leave, nil
}

// A tableHistory is a table with its versions and the names that some have.
type tableHistory struct {
	schema, name string
	versions     []lsm.VersionInfo
	refs         []lsm.Ref
}

// histories reads what there is of older versions of all tables.
func (s lsmStore) histories(ctx context.Context) (out []tableHistory, err error) {
	for _, t := range s.db.Tables() {
		h := tableHistory{schema: schemaOf(t.Name()), name: t.Name().Name}
		if h.versions, err = t.Versions(ctx); err == nil {
			h.refs, err = t.Refs(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("versions of table %q: %w", t.Name(), err)
		}
		out = append(out, h)
	}
	return out, nil
}

// versionRows are those of flightd_catalog.versions.
func (s *systemState) versionRows() (out [][]any) {
	for _, h := range s.history {
		for _, v := range h.versions {
			tags := []string{}
			for _, r := range h.refs {
				if !r.Branch && r.Version == v.Number {
					tags = append(tags, r.Name)
				}
			}
			row := []any{h.schema, h.name, int64(v.Number), v.Time, nil, nil, v.Rows, int64(v.Fragments), v.Bytes, v.Columns, tags}
			for i, text := range []string{v.Operation, v.Writer} {
				if text != "" {
					row[4+i] = text
				}
			}
			out = append(out, row)
		}
	}
	return out
}

// tagRows are those of flightd_catalog.tags.
func (s *systemState) tagRows() (out [][]any) {
	for _, h := range s.history {
		for _, r := range h.refs {
			kind := "tag"
			if r.Branch {
				kind = "branch"
			}
			out = append(out, []any{h.schema, h.name, r.Name, kind, number(int64(r.Version))})
		}
	}
	return out
}

// past opens a version of a table.
func (s lsmStore) past(ctx context.Context, of tableInfo, as lsm.AsOf) (openedPast, error) {
	t, err := s.db.Table(lsm.TableName{Schema: of.schema, Name: of.name})
	if err != nil {
		return openedPast{}, err
	}
	v, err := t.At(ctx, as)
	if err != nil {
		return openedPast{}, err
	}
	info := tableInfo{schema: of.schema, name: of.name, arrow: v.Schema(), key: v.Key(), foreign: v.BaseIndexes(), incarnation: t.Incarnation()}
	return openedPast{info: info, version: v.Version(), source: lsmSource{v: v}, close: v.Close}, nil
}
