package query

import (
	"slices"
	"strings"
)

// A span is tokens of a statement, from the first up to the second place.
type span struct{ from, to int }

// empty says whether there are none.
func (s span) empty() bool { return s.from >= s.to }

// text returns the SQL of tokens. Parameters without a number get the one of their place in the statement, so that
// the pieces of it may change places.
func (p *parsed) text(s span) string {
	if s.empty() {
		return ""
	}
	var b strings.Builder
	at := p.tokens[s.from].start
	for i, name := range parameterNames(p.tokens[:s.to]) {
		if i >= s.from {
			b.WriteString(p.sql[at:p.tokens[i].start] + "$" + name)
			at = p.tokens[i].end
		}
	}
	b.WriteString(p.sql[at:p.tokens[s.to-1].end])
	return b.String()
}

// with returns the clause of a WITH in front of the statement's verb.
func (p *parsed) with() string { return p.text(span{0, p.verb}) + " " }

// all returns all tokens.
func (p *parsed) all() span { return span{0, len(p.tokens)} }

// top returns the first place from i on at which one of the words stands outside of parentheses. FROM does not count
// in IS [NOT] DISTINCT FROM, ON only as ON CONFLICT.
func (p *parsed) top(i int, words ...string) int {
	for ; i < len(p.tokens); i++ {
		t := p.tokens[i]
		if t.depth != 0 || t.kind != word || !slices.Contains(words, t.text) {
			continue
		}
		if t.text == "FROM" && p.word(i-1) == "DISTINCT" && (p.word(i-2) == "IS" || p.word(i-2) == "NOT") {
			continue
		}
		if t.text == "ON" && !(p.word(i+1) == "CONFLICT" && slices.Contains([]string{"DO", "(", "WHERE"}, p.word(i+2))) {
			continue
		}
		return i
	}
	return i
}

// split cuts a span at its commas outside of the parentheses that begin in it.
func (p *parsed) split(s span) []span {
	if s.empty() {
		return nil
	}
	depth := p.tokens[s.from].depth
	var out []span
	from := s.from
	for i := s.from; i < s.to; i++ {
		if p.tokens[i].is(",") && p.tokens[i].depth == depth {
			out = append(out, span{from, i})
			from = i + 1
		}
	}
	return append(out, span{from, s.to})
}

// alias reads [[AS] name] at i and returns the name, "" without one, and the place behind it.
func (p *parsed) alias(i int, next ...string) (string, int) {
	if p.word(i) == "AS" && i+1 < len(p.tokens) {
		return p.tokens[i+1].name, i + 2
	}
	if i < len(p.tokens) && p.tokens[i].ident() && !(p.tokens[i].kind == word && slices.Contains(next, p.tokens[i].text)) {
		return p.tokens[i].name, i + 1
	}
	return "", i
}

// A changing is an UPDATE or DELETE, cut at its own keywords.
type changing struct {
	table  tableRef
	target span   // the table's name and alias
	name   string // under which the clauses know the table
	set    span   // of UPDATE: what follows SET
	others span   // what follows FROM or USING
	where  span   // what follows WHERE

	returning span
}

// changing reads UPDATE name [[AS] alias] SET ... [FROM ...] [WHERE ...] and DELETE FROM name [[AS] alias] [USING ...]
// [WHERE ...].
func (p *parsed) changing() (c changing, err error) {
	i, more := p.verb+1, "FROM"
	if p.kind == kindDelete {
		if p.word(i) != "FROM" {
			return c, p.syntaxError(i, "syntax error")
		}
		i, more = i+1, "USING"
	}
	c.target.from = i
	if c.table, i, err = p.tableName(i); err != nil {
		return c, err
	}
	c.name, i = p.alias(i, "SET", "USING", "WHERE", "RETURNING")
	if c.name == "" {
		c.name = c.table.name
	}
	c.target.to = i
	if p.kind == kindUpdate {
		if p.word(i) != "SET" {
			return c, p.syntaxError(i, "syntax error")
		}
		end := p.top(i, "FROM", "WHERE", "RETURNING")
		c.set, i = span{i + 1, end}, end
	}
	if p.word(i) == more {
		end := p.top(i+1, "WHERE", "RETURNING")
		c.others, i = span{i + 1, end}, end
	}
	if p.word(i) == "WHERE" {
		end := p.top(i, "RETURNING")
		c.where, i = span{i + 1, end}, end
	}
	c.returning, err = p.returningList(i)
	return c, err
}

// returningList reads [RETURNING list] at i, which is the end of a statement.
func (p *parsed) returningList(i int) (span, error) {
	if p.word(i) != "RETURNING" {
		return span{}, p.end(i)
	}
	list := span{i + 1, len(p.tokens)}
	if list.empty() {
		return list, p.syntaxError(i+1, "syntax error")
	}
	return list, nil
}

// An assignment is column = value.
type assignment struct {
	column string
	value  span
}

// assignments reads what follows SET: column = value, (column, ...) = (value, ...), ...
func (p *parsed) assignments(set span) ([]assignment, error) {
	var out []assignment
	for _, s := range p.split(set) {
		if s.empty() {
			return nil, p.syntaxError(s.from, "syntax error")
		}
		if !p.tokens[s.from].is("(") {
			if !p.tokens[s.from].ident() || p.word(s.from+1) != "=" {
				return nil, p.syntaxError(s.from+1, "syntax error")
			}
			out = append(out, assignment{p.tokens[s.from].name, span{s.from + 2, s.to}})
			continue
		}
		end := p.closing(s.from)
		columns := p.split(span{s.from + 1, end})
		if p.word(end+1) != "=" || p.word(end+2) != "(" || p.closing(end+2) != s.to-1 {
			return nil, p.unimplementedAt(s.from, "SET (column, ...) = something else than a list in parentheses")
		}
		values := p.split(span{end + 3, s.to - 1})
		if len(values) != len(columns) || slices.Contains(selectWords, p.word(end+3)) {
			return nil, p.unimplementedAt(s.from, "SET (column, ...) = (SELECT ...)")
		}
		for i, c := range columns {
			if c.to != c.from+1 || !p.tokens[c.from].ident() || values[i].empty() {
				return nil, p.syntaxError(s.from, "syntax error")
			}
			out = append(out, assignment{p.tokens[c.from].name, values[i]})
		}
	}
	return out, nil
}

// unimplementedAt is unimplemented about a place.
func (p *parsed) unimplementedAt(i int, what string) error {
	if i >= len(p.tokens) {
		return p.syntaxError(i, "syntax error")
	}
	return &Error{Code: Unimplemented, Message: what + " is not implemented yet", Position: p.tokens[i].start + 1}
}

// An insertion is an INSERT, cut at its own keywords.
type insertion struct {
	table   tableRef
	name    string   // under which ON CONFLICT knows the table
	or      string   // REPLACE or IGNORE
	columns []string // those that are listed
	byName  bool
	source  span
	values  bool // the source is VALUES that need no table
	none    bool // DEFAULT VALUES

	conflict bool
	update   bool // DO UPDATE
	set      span
	where    span

	returning span
}

// insertion reads INSERT [OR REPLACE | OR IGNORE] INTO name [AS alias] [(columns)] [BY NAME | BY POSITION] source
// [ON CONFLICT ...] [RETURNING list].
func (p *parsed) insertion() (c insertion, err error) {
	i := p.verb + 1
	if p.word(i) == "OR" {
		c.or, i = p.word(i+1), i+2
		if c.or != "REPLACE" && c.or != "IGNORE" {
			return c, p.syntaxError(i-1, "syntax error")
		}
	}
	if p.word(i) != "INTO" {
		return c, p.syntaxError(i, "syntax error")
	}
	if c.table, i, err = p.tableName(i + 1); err != nil {
		return c, err
	}
	if c.name = c.table.name; p.word(i) == "AS" {
		c.name, i = p.alias(i)
	}
	if p.word(i) == "(" && !slices.Contains(selectWords, p.word(i+1)) {
		end := p.closing(i)
		for _, s := range p.split(span{i + 1, end}) {
			if s.to != s.from+1 || !p.tokens[s.from].ident() {
				return c, p.syntaxError(s.from, "syntax error")
			}
			c.columns = append(c.columns, p.tokens[s.from].name)
		}
		i = end + 1
	}
	if p.word(i) == "BY" {
		c.byName, i = p.word(i+1) == "NAME", i+2
	}
	end := p.top(i, "ON", "RETURNING")
	c.source = span{i, end}
	c.none = p.word(i) == "DEFAULT"
	c.values = c.none || p.word(i) == "VALUES" && p.verb == 0 && !p.queries(c.source)
	if c.source.empty() {
		return c, p.syntaxError(i, "syntax error")
	}
	return c, p.conflict(&c, end)
}

// queries says whether there is a query in the span: words that begin one, or read from a table.
func (p *parsed) queries(s span) bool {
	for _, t := range p.tokens[s.from:s.to] {
		if t.kind == word && slices.Contains([]string{"SELECT", "FROM", "WITH", "TABLE", "PIVOT", "UNPIVOT", "SUMMARIZE", "DESCRIBE", "SHOW"}, t.text) {
			return true
		}
	}
	return false
}

// conflict reads ON CONFLICT [(columns)] DO NOTHING | DO UPDATE SET ... [WHERE ...].
func (p *parsed) conflict(c *insertion, i int) error {
	c.conflict = c.or != ""
	if p.word(i) == "ON" {
		if c.conflict {
			return p.syntaxError(i, "syntax error")
		}
		c.conflict, i = true, i+2
		if p.word(i) == "(" {
			end := p.closing(i)
			i = end + 1 // DuckDB has seen that these columns are the key
		}
		switch {
		case p.word(i) == "WHERE":
			return p.unimplementedAt(i, "ON CONFLICT (...) WHERE")
		case p.word(i) != "DO":
			return p.syntaxError(i, "syntax error")
		case p.word(i+1) == "NOTHING":
			i += 2
		case p.word(i+1) == "UPDATE" && p.word(i+2) == "SET":
			c.update = true
			end := p.top(i, "WHERE", "RETURNING")
			c.set, i = span{i + 3, end}, end
			if p.word(i) == "WHERE" {
				end = p.top(i, "RETURNING")
				c.where, i = span{i + 1, end}, end
			}
		default:
			return p.syntaxError(i+1, "syntax error")
		}
	}
	var err error
	c.returning, err = p.returningList(i)
	return err
}
