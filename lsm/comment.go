package lsm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
)

// CommentKey is where the metadata of a field has the column's comment when the table came with it, as pandas and
// Iceberg write it. What COMMENT ON says goes before it.
const CommentKey = "comment"

// Comments are what a table or a view, and its columns, say of themselves.
type Comments struct {
	// Self is the comment on the whole, nil without one.
	Self *string
	// Columns has the comments on columns by name.
	Columns map[string]string
}

// comments are those of one table or view as the catalog stores them. They do not change: with makes others.
type comments struct {
	Self *string `json:"self,omitempty"`
	// Columns are by field id, so that a column keeps its comment when it is renamed; those of a view, which has no ids,
	// are by name. null is a comment that was taken away, whatever the field's metadata has.
	Columns map[string]*string `json:"columns,omitempty"`
}

// with returns the comments after a change. column is a key of Columns, or empty for the comment on the whole.
func (c *comments) with(column string, text *string) *comments {
	next := &comments{}
	if c != nil {
		next.Self, next.Columns = c.Self, maps.Clone(c.Columns)
	}
	if column == "" {
		next.Self = text
		return next
	}
	if next.Columns == nil {
		next.Columns = make(map[string]*string)
	}
	next.Columns[column] = text
	return next
}

// ddlComment is the part of a DDL record that comments on a table, a view or one of its columns.
type ddlComment struct {
	// Incarnation names a table, View a view. One of them is there.
	Incarnation uint64     `json:"incarnation,omitempty"`
	View        *viewEntry `json:"view,omitempty"`
	// Column is a key of comments.Columns, empty for the whole.
	Column string `json:"column,omitempty"`
	// Text is nil where the comment goes away.
	Text *string `json:"text"`
}

// applyComment adds the effect of a DDL record about a comment.
func (c *catalog) applyComment(d ddlComment) {
	for i := range c.Tables {
		if t := &c.Tables[i]; t.Incarnation == d.Incarnation {
			t.Comments = t.Comments.with(d.Column, d.Text)
		}
	}
	for i := range c.Views {
		if v := &c.Views[i]; d.View != nil && v.name().fold() == d.View.name().fold() {
			v.Comments = v.Comments.with(d.Column, d.Text)
		}
	}
}

// fieldKey returns the key of a column's comment.
func fieldKey(s *tableSchema, column int) string {
	return strconv.Itoa(int(s.lance.Fields[column].ID))
}

// Comments returns what the table and its columns say of themselves.
func (t *Table) Comments() Comments {
	now, stored := t.now(), t.comments.Load()
	if stored == nil {
		stored = &comments{}
	}
	out := Comments{Self: stored.Self, Columns: make(map[string]string)}
	for i, f := range now.arrow.Fields() {
		var text *string
		ok := false
		for id := range now.lives(i) {
			if text, ok = stored.Columns[strconv.Itoa(int(id))]; ok {
				break
			}
		}
		switch came, has := f.Metadata.GetValue(CommentKey); {
		case text != nil:
			out.Columns[f.Name] = *text
		case !ok && has:
			out.Columns[f.Name] = came
		}
	}
	return out
}

// newComments returns the comments of a new table as the catalog stores them; nil leaves those that the fields have.
func newComments(schema *arrow.Schema, id func(column int) int32, c *Comments) *comments {
	if c == nil {
		return nil
	}
	out := &comments{Self: c.Self, Columns: make(map[string]*string)}
	for i, f := range schema.Fields() {
		key := strconv.Itoa(int(id(i)))
		if text, ok := c.Columns[f.Name]; ok {
			out.Columns[key] = &text
		} else if f.Metadata.FindKey(CommentKey) >= 0 {
			out.Columns[key] = nil
		}
	}
	return out
}

// comments returns what a view and its columns say of themselves.
func (v *viewEntry) comments() Comments {
	out := Comments{Columns: make(map[string]string)}
	if v.Comments == nil {
		return out
	}
	out.Self = v.Comments.Self
	for name, text := range v.Comments.Columns {
		if text != nil {
			out.Columns[name] = *text
		}
	}
	return out
}

// Comment comments on a table or view, or with a column's name on that column; without a text it takes the comment
// away. It is durable and visible when Comment returns. The columns of views are not known here: the caller gives the name
// as the view has it.
func (db *DB) Comment(ctx context.Context, n TableName, column string, text *string) error {
	if text != nil {
		own := *text // the caller may go on to change his
		text = &own
	}
	defer db.poke()
	if err := db.lockDDL(); err != nil {
		return err
	}
	defer db.ddl.Unlock()
	t, err := db.Table(n)
	if errors.Is(err, ErrTableNotFound) && db.hasView(n) {
		view := &viewEntry{Schema: MainSchema, Name: n.Name}
		if err := db.logDDL(ctx, ddl{Comment: &ddlComment{View: view, Column: column, Text: text}}); err != nil {
			return fmt.Errorf("comment on view %q: %w", n, err)
		}
		db.showViews()
		return nil
	}
	if err != nil {
		return err
	}
	d := ddlComment{Incarnation: t.entry.Incarnation, Text: text}
	if column != "" {
		now := t.now()
		i := columnIndex(now.arrow, column)
		if i < 0 {
			return fmt.Errorf("comment on table %q: %w: it has no column %q", n, ErrInvalid, column)
		}
		d.Column = fieldKey(now, i)
	}
	if err := db.logDDL(ctx, ddl{Comment: &d}); err != nil {
		return fmt.Errorf("comment on table %q: %w", n, err)
	}
	db.moment.Lock()
	t.comments.Store(t.comments.Load().with(d.Column, text))
	db.version.Add(1)
	db.moment.Unlock()
	return nil
}
