package lsm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/google/uuid"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/object"
)

// catalogFile is where the checkpoint of the catalog lies, below the data folder.
const catalogFile = systemFolder + "/catalog.json"

// tableEntry is one table as the catalog stores it.
type tableEntry struct {
	// Schema and Name are the table's name.
	Schema string `json:"schema"`
	Name   string `json:"name"`
	// Incarnation tells a table from an earlier one of the same name; it rises with every CREATE TABLE and is in
	// every log record, so that replay cannot bring back rows of a table that was dropped.
	Incarnation uint64 `json:"incarnation"`
	// Shard is the identity of the table's first shard.
	Shard uuid.UUID `json:"shard"`
	// SQL is the CREATE TABLE statement in DuckDB's own words; it owns defaults and constraints. A table that another
	// program made has none before its first ALTER TABLE.
	SQL string `json:"sql"`
	// Key names the columns of the primary key in order.
	Key []string `json:"key,omitempty"`
	// Durability is what WITH said, if it did.
	Durability Durability `json:"durability,omitempty"`
	// IndexMode is what WITH said, if it did.
	IndexMode IndexMode `json:"index_mode,omitempty"`
	// Shards is the number of shards, 0 for one. Shard is the identity of the first; those of the others follow from it.
	Shards int `json:"shards,omitempty"`
	// Files is the version of the dataset's files as its manifest has it; empty is 2.0. It does not change.
	Files string `json:"files,omitempty"`
	// Schemas are the Arrow schemas that records in the log may have, by schema id.
	Schemas []schemaEntry `json:"schemas"`
	// Comments are what COMMENT ON said of the table and its columns.
	Comments *comments `json:"comments,omitempty"`
	// Indexes are those that CREATE INDEX made, LastIndex the highest id that one ever had.
	Indexes   []indexEntry `json:"indexes,omitempty"`
	LastIndex uint64       `json:"last_index,omitempty"`
	// Maintain names the indexes that memtables keep while they are written; nil is all of them.
	Maintain []string `json:"maintain,omitzero"`
}

// schemaEntry is one Arrow schema of a table.
type schemaEntry struct {
	ID uint32 `json:"id"`
	// Arrow is the schema as an Arrow IPC stream without batches.
	Arrow []byte `json:"arrow"`
	// Fields are the Lance field ids, those of nested fields behind their parent's; without them they count from 0.
	Fields []int32 `json:"fields,omitempty"`
	// LastField is the highest field id that the table ever gave, if the schema's own do not tell.
	LastField int32 `json:"last_field,omitempty"`
	// Fill is an Arrow IPC stream of one row: for columns, named by their field id, the value of rows that are older.
	Fill []byte `json:"fill,omitempty"`
}

// catalog is the set of tables as of an LSN: a checkpoint file plus the DDL records of the log behind it.
type catalog struct {
	// LSN is that of the last DDL record whose effect is in.
	LSN LSN `json:"lsn"`
	// Trimmed is the LSN up to which the log may be gone. A log that lacks more has lost its head.
	Trimmed LSN `json:"trimmed"`
	// LastIncarnation is the highest incarnation ever given.
	LastIncarnation uint64 `json:"last_incarnation"`
	// Tables are in the order of their incarnations.
	Tables []tableEntry `json:"tables"`
	// Dropped are tables whose folders may still be there: their removal is finished at the next Open.
	Dropped []tableEntry `json:"dropped,omitempty"`
	// Views are in the order in which they were made: one may read those before it.
	Views []viewEntry `json:"views,omitempty"`
}

// ddl is the body of a DDL record, as JSON. With both of the first fields the new table takes the place of the old.
type ddl struct {
	Create *tableEntry `json:"create,omitempty"`
	Drop   uint64      `json:"drop,omitempty"`
	// Forget is the incarnation of a table that leaves the catalog and keeps its folder.
	Forget  uint64      `json:"forget,omitempty"`
	Alter   *ddlAlter   `json:"alter,omitempty"`
	View    *viewEntry  `json:"view,omitempty"`
	Comment *ddlComment `json:"comment,omitempty"`
	Index   *ddlIndex   `json:"index,omitempty"`
}

// apply adds the effect of a DDL record.
func (c *catalog) apply(lsn LSN, d ddl) {
	c.LSN = lsn
	if d.View != nil {
		c.applyView(*d.View)
	}
	if d.Comment != nil {
		c.applyComment(*d.Comment)
	}
	c.Tables = slices.DeleteFunc(c.Tables, func(t tableEntry) bool {
		gone := t.Incarnation == d.Drop
		if gone && d.Create == nil { // else its folder is the new table's
			c.Dropped = append(c.Dropped, t)
		}
		return gone
	})
	c.Tables = slices.DeleteFunc(c.Tables, func(t tableEntry) bool { return t.Incarnation == d.Forget })
	for i := range c.Tables {
		if d.Alter != nil && c.Tables[i].Incarnation == d.Alter.Incarnation {
			d.Alter.apply(&c.Tables[i])
		}
		if d.Index != nil && c.Tables[i].Incarnation == d.Index.Incarnation {
			d.Index.apply(&c.Tables[i])
		}
	}
	if d.Create != nil {
		// It was made after the folder of its predecessor had been removed: what lies there now is its own.
		c.Dropped = slices.DeleteFunc(c.Dropped, func(t tableEntry) bool { return t.name().folder() == d.Create.name().folder() })
		c.Tables = append(c.Tables, *d.Create)
		c.LastIncarnation = max(c.LastIncarnation, d.Create.Incarnation)
	}
}

// name returns the entry's table name.
func (e *tableEntry) name() TableName { return TableName{Schema: e.Schema, Name: e.Name} }

// files returns the version of the dataset's files.
func (e *tableEntry) files() (lance.Version, error) {
	if e.Files == "" {
		return lance.Version20, nil
	}
	return lance.ParseVersion(e.Files)
}

// checkpoint is the catalog file: the catalog and the CRC32C of its JSON text as it stands in the file.
type checkpoint struct {
	Catalog json.RawMessage `json:"catalog"`
	CRC32C  uint32          `json:"crc32c"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// loadCatalog reads the checkpoint; a folder that never had one has no tables.
func loadCatalog(ctx context.Context, st object.Store) (*catalog, error) {
	b, err := st.Get(ctx, catalogFile)
	if errors.Is(err, object.ErrNotExist) {
		return &catalog{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read catalog: %w", err)
	}
	c, _, err := decodeCatalog(catalogFile, b)
	return c, err
}

// decodeCatalog reads the bytes of a checkpoint. It returns the text of the catalog, too.
func decodeCatalog(name string, b []byte) (*catalog, json.RawMessage, error) {
	var f checkpoint
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, nil, &object.CorruptError{Name: name, Err: err}
	}
	if sum := crc32.Checksum(f.Catalog, castagnoli); sum != f.CRC32C {
		return nil, nil, &object.CorruptError{Name: name, Err: fmt.Errorf("checksum is %08x, the file says %08x", sum, f.CRC32C)}
	}
	c := &catalog{}
	if err := json.Unmarshal(f.Catalog, c); err != nil {
		return nil, nil, &object.CorruptError{Name: name, Err: err}
	}
	return c, f.Catalog, nil
}

// CatalogText returns the catalog that a checkpoint holds, as JSON, for people to read. Its checksum is verified.
func CatalogText(ctx context.Context, st object.Store, name string) ([]byte, error) {
	b, err := st.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	_, text, err := decodeCatalog(name, b)
	return text, err
}

// store writes the checkpoint; the file is replaced as a whole.
func (c *catalog) store(ctx context.Context, st object.Store) error {
	text, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("write catalog: %w", err)
	}
	b, err := json.Marshal(checkpoint{Catalog: text, CRC32C: crc32.Checksum(text, castagnoli)})
	if err != nil {
		return fmt.Errorf("write catalog: %w", err)
	}
	if err := st.Put(ctx, catalogFile, b); err != nil {
		return fmt.Errorf("write catalog: %w", err)
	}
	return nil
}

// marshalSchema returns a schema as an IPC stream without batches.
func marshalSchema(s *arrow.Schema) ([]byte, error) {
	var b bytes.Buffer
	if err := ipc.NewWriter(&b, ipc.WithSchema(s)).Close(); err != nil {
		return nil, fmt.Errorf("write schema: %w", err)
	}
	return b.Bytes(), nil
}

// unmarshalSchema undoes marshalSchema.
func unmarshalSchema(b []byte) (*arrow.Schema, error) {
	r, err := ipc.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	defer r.Release()
	return StorageSchema(r.Schema()), nil
}
