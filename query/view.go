package query

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/flightd/flightd/lsm"
)

// A viewInfo is a view that a client made.
type viewInfo struct {
	schema, name string
	sql          string // CREATE VIEW
	comments     lsm.Comments
}

// A lostView is a view that cannot be shown, because what it reads is not there any more.
type lostView struct {
	viewInfo
	err error // why
}

// qualified returns the view's name as SQL text.
func (v viewInfo) qualified() string { return quoteIdent(v.schema) + "." + quoteIdent(v.name) }

// hideViews takes the clients' views away, so that their names are free and tables can change below them.
func (c *catalog) hideViews(warn func(string, tableInfo, error)) {
	for _, v := range c.views {
		if err := c.in.exec("DROP VIEW IF EXISTS " + v.qualified()); err != nil {
			warn("forget", tableInfo{schema: v.schema, name: v.name}, err)
		}
	}
	c.in.bridge.setViews(nil)
	c.views, c.lost = nil, nil
}

// showViews makes the clients' views. One may read others, whatever their order; one that reads what is not there any
// more is missing until that comes back.
func (c *catalog) showViews(list []viewInfo, warn func(string, tableInfo, error)) {
	for progress := true; progress && len(list) > 0; {
		var left []viewInfo
		for _, v := range list {
			if err := c.in.exec(v.sql); err != nil {
				left = append(left, v)
				continue
			}
			c.views = append(c.views, v)
			c.in.bridge.setViews(c.views) // the next one may search by it
			if err := c.showViewComments(v); err != nil {
				warn("comment on", tableInfo{schema: v.schema, name: v.name}, err)
			}
		}
		progress = len(left) < len(list)
		list = left
	}
	for _, v := range list {
		err := c.in.exec(v.sql)
		warn("show", tableInfo{schema: v.schema, name: v.name}, err)
		c.lost = append(c.lost, lostView{v, err})
	}
}

// notView refuses what is for tables only, if a view has the name. The views are those of the store: DuckDB does not have
// the ones that read what is gone.
func (e *Engine) notView(ref tableRef) error {
	if e.isView(ref) {
		return errorf(InvalidArgument, "%q is a view, and this is for tables", ref.name)
	}
	return nil
}

// isView reports whether a view has the name.
func (e *Engine) isView(ref tableRef) bool {
	return slices.ContainsFunc(e.store.views(), func(v viewInfo) bool { return fold(v.schema, v.name) == fold(ref.schema, ref.name) })
}

// explain says of the error of a statement what DuckDB does not know.
func (l *lease) explain(err error) error {
	return explainUnserved(explainLost(engineError(err), l.shadow.lost), l.e.store)
}

// explainLost says of a view that is not there what it misses: DuckDB knows nothing of it.
func explainLost(err error, lost []lostView) error {
	e, ok := err.(*Error)
	if !ok || e.Code != NotFound {
		return err
	}
	i := slices.IndexFunc(lost, func(v lostView) bool {
		return strings.HasPrefix(strings.ToLower(e.Message), "catalog error: table with name "+strings.ToLower(v.name)+" does not exist!")
	})
	if i < 0 {
		return err
	}
	v := lost[i]
	// Each view is taken off the list, so that two that read each other do not go round.
	why := explainLost(unplaced(v.err), slices.Delete(slices.Clone(lost), i, i+1))
	return &Error{Code: NotFound, Position: e.Position, Message: fmt.Sprintf("view %q reads what is not there any more: %v", v.name, why)}
}

// A viewCreation is a CREATE VIEW, cut at its own keywords.
type viewCreation struct {
	view        tableRef
	replace     bool
	ifNotExists bool
	rest        span // from the name on: [(columns)] AS query
	query       span
}

// viewCreation reads CREATE [OR REPLACE] VIEW [IF NOT EXISTS] name [(columns)] AS query.
func (p *parsed) viewCreation() (c viewCreation, err error) {
	i := 2
	if c.replace = p.word(1) == "OR"; c.replace {
		i = 4
	}
	if p.word(i) == "IF" && p.word(i+1) == "NOT" && p.word(i+2) == "EXISTS" {
		i, c.ifNotExists = i+3, true
	}
	if c.view, i, err = p.tableName(i); err != nil {
		return c, err
	}
	if err := c.view.writable(); err != nil {
		return c, err
	}
	c.rest = span{i, len(p.tokens)}
	if i < len(p.tokens) && p.tokens[i].is("(") {
		i = p.closing(i) + 1
	}
	if p.word(i) != "AS" {
		return c, p.syntaxError(i, "syntax error")
	}
	c.query = span{i + 1, len(p.tokens)}
	if !slices.Contains(selectWords, p.word(i+1)) {
		return c, p.syntaxError(i+1, "a query is expected: syntax error")
	}
	for j, t := range p.tokens[c.query.from:] {
		switch {
		case t.ident() && slices.Contains(catalogNames, strings.ToLower(t.name)), t.is("DESCRIBE"), t.is("SHOW"):
			return c, p.unimplementedAt(c.query.from+j, "a view of the catalog")
		case t.kind == parameter:
			return c, p.syntaxError(c.query.from+j, "a view has no parameters: syntax error")
		}
	}
	return c, nil
}

// createView runs CREATE VIEW: the shadow tries it.
func (st *Statement) createView(ctx context.Context, l *lease) error {
	c, err := st.parsed.viewCreation()
	if err != nil {
		return err
	}
	v := viewInfo{schema: c.view.schema, name: c.view.name}
	v.sql = "CREATE VIEW " + v.qualified() + " " + st.parsed.text(c.rest)
	if err := st.e.try(l.shadow.in, strings.Replace(v.sql, "CREATE", "CREATE OR REPLACE", 1)); err != nil {
		return err
	}
	err = st.e.store.createView(ctx, v, c.replace)
	if e, ok := engineError(err).(*Error); ok && e.Code == AlreadyExists && c.ifNotExists {
		return nil
	}
	return err
}

// dropView runs DROP VIEW.
func (st *Statement) dropView(ctx context.Context, l *lease) error {
	ref, ifExists, err := st.parsed.dropTarget()
	if err != nil {
		return err
	}
	if t, ok := l.shadow.tables[fold(ref.schema, ref.name)]; ok {
		return errorf(InvalidArgument, "%q is a table, and this is for views; drop it with DROP TABLE", t.name)
	}
	err = st.e.store.dropView(ctx, ref.schema, ref.name)
	if e, ok := engineError(err).(*Error); ok && e.Code == NotFound && ifExists {
		return nil
	}
	return err
}
