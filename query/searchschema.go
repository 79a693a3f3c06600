package query

import (
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	bind "github.com/duckdb/duckdb-go-bindings"
)

// openSchema returns the natural schema of a search that has parameters, nil if it is not sure. DuckDB binds a table function with the values of
// its arguments, and so knows no columns before there are some; JDBC takes a statement without columns for an update. What a search
// returns does not depend on what it looks for: the statement is bound with nulls in place of its parameters. That columns do not depend on the
// type of a parameter either shows when its null has one.
func (st *Statement) openSchema(l *lease, conn bind.Connection, c *view, ps bind.PreparedStatement) *arrow.Schema {
	if st.parsed.kind != kindSelect || !st.parsed.searches(l.query.views) {
		return nil
	}
	done := c.in.bridge.describe(connectionID(conn))
	defer done()
	bound := func(name, instead string) *arrow.Schema {
		other, free, err := c.in.prepareOne(conn, st.parsed.withEach(func(n string) string {
			if n == name {
				return instead
			}
			return "NULL"
		}))
		if err != nil {
			return nil // running it says what is wrong, if anything is
		}
		defer free()
		s, err := preparedSchema(conn, other)
		if err != nil {
			return nil
		}
		return s
	}
	natural := bound("", "")
	for i := range int(bind.NParams(ps)) {
		if natural == nil {
			return nil
		}
		var typed *arrow.Schema
		for _, t := range []string{"VARCHAR", "BIGINT", "FLOAT[]"} {
			if typed = bound(bind.ParameterName(ps, bind.IdxT(i+1)), "CAST(NULL AS "+t+")"); typed != nil {
				break
			}
		}
		if typed == nil || !typed.Equal(natural) {
			return nil
		}
	}
	return natural
}

// withEach returns the text with another one in place of each parameter, which is told its name.
func (p *parsed) withEach(instead func(name string) string) string {
	var b strings.Builder
	at := 0
	for i, name := range parameterNames(p.tokens) {
		t := p.tokens[i]
		b.WriteString(p.sql[at:t.start] + instead(name))
		at = t.end
	}
	return b.String() + p.sql[at:]
}

// describe says that searches of a connection are only described: what they look for may be NULL, which stands for what is not known yet. done
// ends that.
func (b *bridge) describe(conn uint64) (done func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.described[conn] = true
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.described, conn)
	}
}

// describes reports whether searches of a connection are only described.
func (b *bridge) describes(conn uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.described[conn]
}
