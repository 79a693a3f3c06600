package lsm

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// A folder DATA/NAME.lance of which neither the catalog nor the log knows is another program's: every table of ours is in
// the log before its folder is there, and is forgotten after that is gone. Open makes a table of such a folder when it
// holds a dataset that can be served. A DDL record brings it into the catalog, and from then on it is a table like others.
// Nothing here removes anything of a folder but the shards that it has just put there.

// UnservedError is returned for a table of which there is a folder that cannot be served.
type UnservedError struct {
	// Table is the name that the table would have.
	Table TableName
	// Folder is its dataset.
	Folder string
	// Err says what is wrong with it.
	Err error

	root string // Folder as the store has it
	// incarnation is that of a table of the catalog, 0 for a dataset that never was one.
	incarnation uint64
}

// Error implements error.
func (e *UnservedError) Error() string {
	return fmt.Sprintf("table %q: the dataset %s cannot be served: %v", e.Table, e.Folder, e.Err)
}

// Unwrap returns the cause, and that there is no such table: one can be made when the folder is gone.
func (e *UnservedError) Unwrap() []error { return []error{ErrTableNotFound, e.Err} }

// ReadOnlyError is returned by what would write to a table that can only be read because of what another program did.
type ReadOnlyError struct {
	// Table is the table's name.
	Table TableName
	// Err says why.
	Err error
}

// Error implements error.
func (e *ReadOnlyError) Error() string {
	return fmt.Sprintf("table %q can only be read: %v", e.Table, e.Err)
}

// Unwrap returns the cause.
func (e *ReadOnlyError) Unwrap() error { return e.Err }

// takeIn makes tables of the datasets that other programs left in the data folder. What cannot be served is logged, and
// refused when somebody asks for it. REQUIRES: the log is open, and nobody else runs.
func (db *DB) takeIn(ctx context.Context) error {
	list, err := db.st.List(ctx, ".")
	if err != nil {
		return fmt.Errorf("look for datasets: %w", err)
	}
	known := make(map[string]bool)
	for i := range db.cat.Tables {
		known[db.cat.Tables[i].name().folder()] = true
	}
	for _, x := range list {
		if !x.Dir || !strings.HasSuffix(x.Name, folderSuffix) || known[x.Name] {
			continue
		}
		name, err := tableOf(x.Name)
		if err == nil {
			err = db.refuseTaken(name, false)
		}
		var t *Table
		if err == nil {
			t, err = db.newForeign(ctx, name)
		}
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			db.refuse(name, x.Name, 0, err)
			continue
		}
		if err := db.serveForeign(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// refuse remembers that a folder is not served.
func (db *DB) refuse(n TableName, root string, incarnation uint64, err error) {
	u := &UnservedError{Table: n, Folder: filepath.Join(db.opt.Dir, root), Err: err, root: root, incarnation: incarnation}
	db.logger.Warn("a dataset is not served", "table", n.String(), "folder", u.Folder, "error", err)
	db.moment.Lock()
	defer db.moment.Unlock()
	if db.tables[n.fold()] == nil {
		db.unserved[n.fold()] = u
	}
}

// foreignFault reports whether a table cannot be opened because of what another program committed to its dataset, or because
// files of it are damaged or missing, and no other table is to suffer for it.
func foreignFault(err error) bool {
	var unsupported *manifest.UnsupportedError
	var alien *alienError
	var corrupt *object.CorruptError
	if errors.As(err, &corrupt) || errors.Is(err, object.ErrNotExist) {
		return true
	}
	return errors.As(err, &unsupported) || errors.As(err, &alien) || errors.Is(err, lance.ErrUnsupported)
}

// setAside keeps a table of the catalog unserved until the next Open. The log keeps its rows, from the first one on that no
// file has: that is known when the log was replayed.
func (db *DB) setAside(t *Table, first LSN, err error) {
	db.aside[t.entry.Incarnation] = first
	db.refuse(t.name, t.root, t.entry.Incarnation, err)
}

// dropAside is DropTable for a table that was set aside: whatever is wrong with its files, they go, and with them its rows
// in the log.
func (db *DB) dropAside(ctx context.Context, u *UnservedError) error {
	if err := db.lockDDL(); err != nil {
		return err
	}
	defer db.ddl.Unlock()
	if err := db.logDDL(ctx, ddl{Drop: u.incarnation}); err != nil {
		return fmt.Errorf("drop table %q: %w", u.Table, err)
	}
	db.moment.Lock()
	delete(db.aside, u.incarnation)
	delete(db.unserved, u.Table.fold())
	db.version.Add(1)
	db.moment.Unlock()
	return db.removeDropped(context.WithoutCancel(ctx))
}

// catchUp takes up what another program changed in the columns of a table while nobody had it open. REQUIRES: the log is open,
// and nobody else runs.
func (db *DB) catchUp(ctx context.Context, t *Table) error {
	if t.missed == nil {
		return nil
	}
	change := t.missed
	t.missed = nil
	err := t.applyColumns(ctx, change)
	if !foreignFault(err) {
		return err
	}
	first, _ := t.unflushed()
	db.forget(t)
	t.close()
	db.setAside(t, first, err)
	return nil
}

// newForeign returns the table of a dataset that another program made, after it has looked at all that serving it takes.
// It changes nothing.
func (db *DB) newForeign(ctx context.Context, n TableName) (*Table, error) {
	root := n.folder()
	v, err := manifest.Latest(ctx, db.st, root, manifest.Options{ScanBatch: db.opt.ManifestScanBatch})
	if errors.Is(err, object.ErrNotExist) {
		return nil, errors.New("it has no versions, so it is no Lance dataset; remove the folder or copy the dataset again")
	}
	if err != nil {
		return nil, err
	}
	e, err := newForeignEntry(n, v, db.cat.LastIncarnation+1)
	if err != nil {
		return nil, err
	}
	t, err := newTable(db, e)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(t.checkSchema(v), db.refuseDropping(ctx, t)); err != nil {
		return nil, err
	}
	b, err := openBase(ctx, db.st, t, v, t.now(), nil)
	if err != nil {
		return nil, err
	}
	b.unref()
	return t, nil
}

// serveForeign brings a table into the catalog and opens it. When that fails the catalog forgets it; the folder stays.
func (db *DB) serveForeign(ctx context.Context, t *Table) error {
	if err := db.logDDL(ctx, ddl{Create: &t.entry}); err != nil {
		return fmt.Errorf("serve the dataset %s: %w", t.root, err)
	}
	if err := db.openTable(ctx, t); err != nil {
		if undo := db.logDDL(ctx, ddl{Forget: t.entry.Incarnation}); undo != nil {
			return fmt.Errorf("serve the dataset %s: %w", t.root, errors.Join(err, undo))
		}
		db.home.leave(t)
		for _, s := range t.shards { // the next Open would take them for another's
			t.discard(context.WithoutCancel(ctx), s.dir())
		}
		db.refuse(t.name, t.root, 0, err)
		return nil
	}
	t.start()
	if err := db.takeOver(ctx, t); err != nil {
		return err
	}
	db.logger.Info("a dataset of another program is served from now on", "table", t.name.String(), "folder", filepath.Join(db.opt.Dir, t.root),
		"version", t.set.Load().base.version.Number, "key", strings.Join(t.Key(), ", "))
	if err := t.refuseWrite(); err != nil {
		db.logger.Warn("the table is not written", "table", t.name.String(), "error", err)
	}
	return nil
}

// newForeignEntry returns what the catalog stores of a table that has the columns of a dataset, with their field ids. Its
// key is the one that the fields' metadata declares. It has no CREATE TABLE: the columns are all that is known.
func newForeignEntry(n TableName, v *manifest.Version, incarnation uint64) (tableEntry, error) {
	e, err := foreignSchema(v)
	if err != nil {
		return tableEntry{}, err
	}
	shard, err := uuid.NewRandom()
	if err != nil {
		return tableEntry{}, fmt.Errorf("make shard id: %w", err)
	}
	return tableEntry{Schema: MainSchema, Name: n.Name, Incarnation: incarnation, Shard: shard, Key: e.key, Files: v.Format, Accepted: v.Number,
		Schemas: []schemaEntry{e.schemaEntry}}, nil
}

// foreignSchema returns the columns of a version, whoever made it, if flightd can have them.
func foreignSchema(v *manifest.Version) (e versionSchema, err error) {
	files, err := lance.ParseVersion(v.Format)
	if err == nil {
		err = v.Schema.Check(files)
	}
	if err != nil {
		return e, err
	}
	for _, f := range v.Schema.Fields {
		switch {
		case f.Key > 0 && f.Nullable:
			return e, fmt.Errorf("column %q is part of the primary key and may be null; declare it not null with Lance", f.Name)
		case !utf8.ValidString(f.Name) || strings.ContainsRune(f.Name, 0):
			return e, fmt.Errorf("column name %q is not UTF-8 text; rename it with Lance", f.Name)
		}
	}
	schema, key, err := keyedSchema(TableDef{Schema: v.Schema.Arrow()})
	if err != nil {
		return e, err
	}
	e.key = key
	e.ID, e.Fields, e.LastField, e.Base = 1, v.Schema.FieldIDs(), v.NextFieldID()-1, v.Number
	e.Arrow, err = marshalSchema(schema)
	return e, err
}

// refuseWrite returns why the table can only be read, nil when it can be written.
func (t *Table) refuseWrite() error {
	if t.untaken != nil {
		return &ReadOnlyError{Table: t.name, Err: t.untaken}
	}
	if s := t.stuck.Load(); s != nil {
		return &ReadOnlyError{Table: t.name, Err: s.err}
	}
	if d := t.divided.Load(); d != nil {
		return &ReadOnlyError{Table: t.name, Err: d}
	}
	set := t.set.Load()
	if set == nil || set.base.readOnly == nil { // without layers it is closed, or a stage makes it
		return nil
	}
	return &ReadOnlyError{Table: t.name, Err: set.base.readOnly}
}

// readOnly returns why nothing can be written on top of a version.
func readOnly(v *manifest.Version) error {
	if err := v.Writable(); err != nil {
		return err
	}
	if err := v.Schema.Writable(); err != nil {
		return fmt.Errorf("%w; copy the table with CREATE TABLE … AS", err)
	}
	return nil
}

// refuseFolder returns an error when there is a folder where the files of a new table are to be. REQUIRES: db.ddl is held,
// and no table has the name.
func (db *DB) refuseFolder(ctx context.Context, n TableName, root string) error {
	if slices.ContainsFunc(db.cat.Dropped, func(e tableEntry) bool { return e.folder() == root }) {
		return nil // it is about to go
	}
	db.moment.Lock()
	u := db.unserved[n.fold()]
	db.moment.Unlock()
	if u != nil {
		if _, err := db.st.Stat(ctx, u.root); err == nil {
			return u
		}
	}
	_, err := db.st.Stat(ctx, root)
	switch {
	case errors.Is(err, object.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return &UnservedError{Table: n, Folder: filepath.Join(db.opt.Dir, root), root: root,
		Err: errors.New("the catalog does not know it; restart flightd to serve it, move it away or choose another name")}
}

// tableOf returns the name of the table whose folder has a name, and an error when no table's has.
func tableOf(folder string) (TableName, error) {
	text := strings.TrimSuffix(folder, folderSuffix)
	n := TableName{Name: text}
	var b []byte
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			if c, err := hex.DecodeString(text[i+1 : i+3]); err == nil {
				b = append(b, c...)
				i += 2
				continue
			}
		}
		b = append(b, text[i])
	}
	n.Name = string(b)
	if err := n.validate(); err != nil {
		return TableName{Name: text}, err
	}
	if want := n.folder(); want != folder {
		return n, fmt.Errorf("the folder of a table %q has to be named %q; rename it", n, want)
	}
	return n, nil
}
