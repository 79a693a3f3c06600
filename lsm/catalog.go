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
	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/object"
)

// catalogFile is where the checkpoint of the catalog lies, below the data folder.
const catalogFile = systemFolder + "/catalog.json"

// tableEntry is one table as the catalog stores it.
type tableEntry struct {
	// Schema and Name are the table's name.
	Schema string `json:"schema"`
	Name   string `json:"name"`
	// Folder is where the table lies below the data folder. It is left out where the name says it, in a local folder.
	Folder string `json:"folder,omitempty"`
	// Incarnation tells a table from an earlier one of the same name; it rises with every CREATE TABLE and is in
	// every log record, so that replay cannot bring back rows of a table that was dropped.
	Incarnation uint64 `json:"incarnation"`
	// Shard is the identity of the table's first shard.
	Shard uuid.UUID `json:"shard"`
	// SQL is the CREATE TABLE statement in DuckDB's own words; it owns defaults and constraints. A table that another
	// program made has none before its first ALTER TABLE.
	SQL string `json:"sql"`
	// SQLColumns are the names that columns have in SQL, by their field ids, when another program changed the columns since: then it is
	// the statement of another table, of which only what it says of these columns counts. It is nil when SQL is the table's own.
	SQLColumns map[int32]string `json:"sql_columns,omitempty"`
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
	// Accepted is the newest version of the dataset that was taken up when no rows were unmerged, as far as another program replaced
	// the content up to it.
	Accepted uint64 `json:"accepted,omitempty"`
	// Discarded is the LSN up to which rows of the table that the base did not have were dropped by Discard: what the log and
	// the shards' manifests have of it does not count.
	Discarded LSN `json:"discarded,omitempty"`
	// Taken are shards of other writers whose rows are the table's, or are about to be.
	Taken []takenShard `json:"taken,omitempty"`
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
	// Was has, by the field id of a column that was widened, the id that the narrower one had.
	Was map[int32]int32 `json:"was,omitempty"`
	// Base is the version of the dataset whose columns another program had changed, and which the schema took up.
	Base uint64 `json:"base,omitempty"`
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
	// Staged are tables that stages make, where those have their folders from the beginning: an Open that finds them in a
	// checkpoint removes the folders.
	Staged []tableEntry `json:"staged,omitempty"`
	// Used are the folders that a table's name gave and that a table had, where no folder is used twice.
	Used []string `json:"used,omitempty"`
	// Claim is the process that wrote the checkpoint, where several could; Entry is the position in the stream of the
	// catalog up to which the checkpoint has everything.
	Claim *catalogClaim `json:"claim,omitempty"`
	Entry uint64        `json:"entry,omitempty"`
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
	Take    *ddlTake    `json:"take,omitempty"`
	Accept  *ddlAccept  `json:"accept,omitempty"`
	// Discard is the incarnation of a table whose rows before the record are dropped, but for those that the base has.
	Discard uint64 `json:"discard,omitempty"`
}

// record returns the log record.
func (d *ddl) record() (*wal.Record, error) {
	body, err := json.Marshal(d)
	return &wal.Record{Kind: wal.DDL, Body: [][]byte{body}}, err
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
		if gone && (d.Create == nil || d.Create.folder() != t.folder()) { // else its folder is the new table's
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
		if d.Take != nil && c.Tables[i].Incarnation == d.Take.Incarnation {
			d.Take.apply(&c.Tables[i])
		}
		if d.Accept != nil && c.Tables[i].Incarnation == d.Accept.Incarnation {
			c.Tables[i].Accepted = max(c.Tables[i].Accepted, d.Accept.Version)
		}
		if c.Tables[i].Incarnation == d.Discard {
			c.Tables[i].Discarded = lsn
		}
	}
	if d.Create != nil {
		// It was made after the folder of its predecessor had been removed: what lies there now is its own.
		c.Dropped = slices.DeleteFunc(c.Dropped, func(t tableEntry) bool { return t.folder() == d.Create.folder() })
		c.Staged = slices.DeleteFunc(c.Staged, func(t tableEntry) bool { return t.Incarnation == d.Create.Incarnation })
		c.Tables = append(c.Tables, *d.Create)
		c.LastIncarnation = max(c.LastIncarnation, d.Create.Incarnation)
		c.use(d.Create)
	}
}

// use notes that a table has the folder that its name gives, where none is used twice.
func (c *catalog) use(e *tableEntry) {
	folder := e.name().folder()
	if c.Claim != nil && e.folder() == folder && !slices.Contains(c.Used, folder) {
		c.Used = append(c.Used, folder)
	}
}

// abandon makes tables that stages were making ones that were dropped: all of them, or the one with an incarnation.
func (c *catalog) abandon(incarnation uint64) {
	c.Staged = slices.DeleteFunc(c.Staged, func(t tableEntry) bool {
		gone := incarnation == 0 || t.Incarnation == incarnation
		if gone {
			c.Dropped = append(c.Dropped, t)
		}
		return gone
	})
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

// folder returns the folder of the table below the data folder.
func (e *tableEntry) folder() string {
	if e.Folder != "" {
		return e.Folder
	}
	return e.name().folder()
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

// encode returns the bytes of a checkpoint.
func (c *catalog) encode() ([]byte, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode catalog: %w", err)
	}
	b, err := json.Marshal(checkpoint{Catalog: text, CRC32C: crc32.Checksum(text, castagnoli)})
	if err != nil {
		return nil, fmt.Errorf("encode catalog: %w", err)
	}
	return b, nil
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
