package query

import (
	"slices"
	"strings"
)

// A merging is a MERGE INTO, cut at its own keywords.
type merging struct {
	table     tableRef
	target    span   // the table's name and alias
	name      string // under which the clauses know the table
	source    span
	alias     string // of the source, "" when it is a join
	on        span   // from ON or USING on
	clauses   []mergeClause
	returning span
}

// A mergeMatch says which rows a clause is about.
type mergeMatch uint8

const (
	matched            mergeMatch = iota // rows of the source with their rows of the table
	notMatched                           // rows of the source without one
	notMatchedBySource                   // rows of the table without one
)

// A mergeKind says what becomes of a row.
type mergeKind uint8

const (
	mergeNothing mergeKind = iota
	mergeInsert
	mergeUpdate
	mergeDelete
	mergeError
)

// mergeNames are what RETURNING calls them.
var mergeNames = [...]string{mergeInsert: "INSERT", mergeUpdate: "UPDATE", mergeDelete: "DELETE"}

// A mergeClause is WHEN ... THEN ....
type mergeClause struct {
	match mergeMatch
	when  string // as it is written, for messages
	and   span   // the condition
	kind  mergeKind

	set     span   // of UPDATE SET; empty when the source has the values
	columns []span // of INSERT (columns)
	values  []span // of INSERT VALUES
	none    bool   // INSERT DEFAULT VALUES
	byName  bool   // the source's columns are told by name
	message span   // of ERROR
}

// merging reads MERGE INTO name [[AS] alias] USING source ON condition | USING (columns) WHEN ... [RETURNING list].
func (p *parsed) merging() (m merging, err error) {
	i := p.verb + 1
	if p.word(i) != "INTO" {
		return m, p.syntaxError(i, "syntax error")
	}
	m.target.from = i + 1
	if m.table, i, err = p.tableName(i + 1); err != nil {
		return m, err
	}
	if m.name, i = p.alias(i, "USING"); m.name == "" {
		m.name = m.table.name
	}
	m.target.to = i
	if p.word(i) != "USING" {
		return m, p.syntaxError(i, "syntax error")
	}
	when := p.outsideCase(i+1, "WHEN", "RETURNING")
	on := -1 // a join in the source has its own before
	for j := p.outsideCase(i+1, "ON", "USING"); j < when; j = p.outsideCase(j+1, "ON", "USING") {
		on = j
	}
	if on < 0 || p.word(when) != "WHEN" {
		return m, p.syntaxError(max(on, when), "syntax error")
	}
	m.source, m.on = span{i + 1, on}, span{on, when}
	if m.source.empty() {
		return m, p.syntaxError(on, "syntax error")
	}
	m.alias = p.sourceAlias(m.source)
	for i = when; p.word(i) == "WHEN"; {
		end := p.outsideCase(i+1, "WHEN", "RETURNING")
		c, err := p.mergeClause(span{i, end})
		if err != nil {
			return m, err
		}
		m.clauses = append(m.clauses, c)
		i = end
	}
	m.returning, err = p.returningList(i)
	return m, err
}

// outsideCase returns the first place from i on at which one of the words stands outside of parentheses and of CASE.
func (p *parsed) outsideCase(i int, words ...string) int {
	cases := 0
	for ; i < len(p.tokens); i++ {
		t := p.tokens[i]
		if t.depth != 0 || t.kind != word {
			continue
		}
		switch {
		case cases == 0 && slices.Contains(words, t.text):
			return i
		case t.text == "CASE":
			cases++
		case t.text == "END" && cases > 0:
			cases--
		}
	}
	return i
}

// sourceAlias returns the name under which clauses know the columns of a source, "" for a join.
func (p *parsed) sourceAlias(s span) string {
	if j := p.outsideCase(s.from, "JOIN"); j < s.to || len(p.split(s)) > 1 {
		return ""
	}
	last := s.to - 1
	if p.tokens[last].is(")") { // alias (columns), function (...) or a query alone
		for last = s.from; last < s.to && (!p.tokens[last].is("(") || p.closing(last) != s.to-1); last++ {
		}
		last--
	}
	if last < s.from {
		return "unnamed_subquery"
	}
	return p.tokens[last].name
}

// mergeClause reads WHEN [NOT] MATCHED [BY SOURCE | BY TARGET] [AND condition] THEN action.
func (p *parsed) mergeClause(s span) (c mergeClause, err error) {
	i := s.from + 1
	if p.word(i) == "NOT" {
		c.match, i = notMatched, i+1
	}
	if p.word(i) != "MATCHED" {
		return c, p.syntaxError(i, "syntax error")
	}
	if i++; p.word(i) == "BY" {
		if p.word(i+1) == "SOURCE" {
			c.match = notMatchedBySource
		}
		i += 2
	}
	c.when = strings.ToUpper(p.text(span{s.from, i}))
	then := p.outsideCase(i, "THEN")
	if then >= s.to {
		return c, p.syntaxError(s.to, "syntax error")
	}
	if p.word(i) == "AND" {
		c.and = span{i + 1, then}
	}
	return c, p.mergeAction(&c, span{then + 1, s.to})
}

// mergeAction reads what follows THEN. DuckDB has seen, or will see, that it is none of another statement's.
func (p *parsed) mergeAction(c *mergeClause, s span) error {
	if s.empty() {
		return p.syntaxError(s.from, "syntax error")
	}
	rest := span{s.from + 1, s.to}
	switch p.word(s.from) {
	case "DO":
		c.kind = mergeNothing
	case "DELETE":
		c.kind = mergeDelete
	case "ERROR":
		c.kind, c.message = mergeError, rest
	case "UPDATE":
		c.kind = mergeUpdate
		c.byName = p.word(rest.from) == "BY" && p.word(rest.from+1) == "NAME"
		if p.word(rest.from) == "SET" && p.word(rest.from+1) != "*" {
			c.set = span{rest.from + 1, rest.to}
		}
	case "INSERT":
		return p.mergeInserts(c, rest)
	default:
		return p.syntaxError(s.from, "syntax error")
	}
	return nil
}

// mergeInserts reads what follows INSERT: [BY NAME | BY POSITION] [*], [(columns)] VALUES (values), or DEFAULT VALUES.
func (p *parsed) mergeInserts(c *mergeClause, s span) error {
	c.kind = mergeInsert
	i := s.from
	if p.word(i) == "BY" {
		c.byName, i = p.word(i+1) == "NAME", i+2
	}
	if i < s.to && p.tokens[i].is("(") {
		end := p.closing(i)
		c.columns = p.split(span{i + 1, end})
		i = end + 1
	}
	switch {
	case i < s.to && p.word(i) == "DEFAULT":
		c.none = true
	case i < s.to && p.word(i) == "VALUES" && i+1 < s.to && p.tokens[i+1].is("("):
		c.values = p.split(span{i + 2, p.closing(i + 1)})
		if c.columns != nil && len(c.columns) != len(c.values) {
			return p.syntaxError(i, "there are not as many values as columns")
		}
	case c.columns != nil:
		return p.syntaxError(i, "syntax error")
	}
	for _, list := range [][]span{c.columns, c.values} {
		if slices.ContainsFunc(list, span.empty) {
			return p.syntaxError(i, "syntax error")
		}
	}
	return nil
}
