package lsm

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// ViewDef is a query that has a name. To the engine it is a text; it only keeps names of views and tables apart.
type ViewDef struct {
	// Name is the view's name.
	Name TableName
	// SQL is the CREATE VIEW statement that makes it in DuckDB.
	SQL string
	// Comments are what COMMENT ON said of it; CreateView takes none.
	Comments Comments
}

// viewEntry is a view as the catalog stores it. Without SQL it is, in a DDL record, one that is dropped.
type viewEntry struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
	SQL    string `json:"sql,omitempty"`
	// Comments are what COMMENT ON said of the view and its columns.
	Comments *comments `json:"comments,omitempty"`
}

// name returns the entry's name.
func (v viewEntry) name() TableName { return TableName{Schema: v.Schema, Name: v.Name} }

// applyView adds the effect of a DDL record about a view.
func (c *catalog) applyView(v viewEntry) {
	c.Views = slices.DeleteFunc(c.Views, func(old viewEntry) bool { return old.name().fold() == v.name().fold() })
	if v.SQL != "" {
		c.Views = append(c.Views, v)
	}
}

// Views returns all views, in the order in which they were made.
func (db *DB) Views() []ViewDef {
	if list := db.views.Load(); list != nil {
		return *list
	}
	return nil
}

// showViews lets readers have the catalog's views. REQUIRES: db.ddl is held, or nobody else runs.
func (db *DB) showViews() {
	list := make([]ViewDef, len(db.cat.Views))
	for i, v := range db.cat.Views {
		list[i] = ViewDef{Name: v.name(), SQL: v.SQL, Comments: v.comments()}
	}
	db.moment.Lock()
	db.views.Store(&list)
	db.version.Add(1)
	db.moment.Unlock()
}

// hasView reports whether there is a view of a name.
func (db *DB) hasView(n TableName) bool {
	return slices.ContainsFunc(db.Views(), func(v ViewDef) bool { return v.Name.fold() == n.fold() })
}

// CreateView makes a view. It is durable when CreateView returns. With replace it takes the place of a view of the same
// name; without, and for a table of that name, that is ErrTableExists.
func (db *DB) CreateView(ctx context.Context, d ViewDef, replace bool) error {
	if err := d.Name.validate(); err != nil {
		return err
	}
	if d.SQL == "" {
		return fmt.Errorf("view %q: %w: it has no query", d.Name, ErrInvalid)
	}
	defer db.poke()
	if err := db.lockDDL(); err != nil {
		return err
	}
	defer db.ddl.Unlock()
	if _, err := db.Table(d.Name); err == nil {
		return fmt.Errorf("view %q: %w: a table has the name", d.Name, ErrTableExists)
	} else if !errors.Is(err, ErrTableNotFound) {
		return err
	}
	if db.hasView(d.Name) && !replace {
		return fmt.Errorf("view %q: %w", d.Name, ErrTableExists)
	}
	return db.logView(ctx, viewEntry{Schema: MainSchema, Name: d.Name.Name, SQL: d.SQL})
}

// DropView removes a view. It is durable when DropView returns.
func (db *DB) DropView(ctx context.Context, n TableName) error {
	defer db.poke()
	if err := db.lockDDL(); err != nil {
		return err
	}
	defer db.ddl.Unlock()
	if !db.hasView(n) {
		return fmt.Errorf("%w: %q; SHOW TABLES lists views, too", ErrViewNotFound, n)
	}
	return db.logView(ctx, viewEntry{Schema: MainSchema, Name: n.Name})
}

// logView makes a change of the views durable and shows it. REQUIRES: db.ddl is held.
func (db *DB) logView(ctx context.Context, v viewEntry) error {
	if err := db.logDDL(ctx, ddl{View: &v}); err != nil {
		return fmt.Errorf("view %q: %w", v.name(), err)
	}
	db.showViews()
	return nil
}
