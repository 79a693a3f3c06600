package flight

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"

	"github.com/flightd/flightd/lsm"
)

// The choices of CommandStatementIngest. ADBC's modes are pairs of them: create is (create, fail), append (fail,
// append), replace (create, replace) and create_append (create, append).
const (
	ifMissingUnset  = pb.CommandStatementIngest_TableDefinitionOptions_TABLE_NOT_EXIST_OPTION_UNSPECIFIED
	ifMissingCreate = pb.CommandStatementIngest_TableDefinitionOptions_TABLE_NOT_EXIST_OPTION_CREATE
	ifExistsUnset   = pb.CommandStatementIngest_TableDefinitionOptions_TABLE_EXISTS_OPTION_UNSPECIFIED
	ifExistsFail    = pb.CommandStatementIngest_TableDefinitionOptions_TABLE_EXISTS_OPTION_FAIL
	ifExistsReplace = pb.CommandStatementIngest_TableDefinitionOptions_TABLE_EXISTS_OPTION_REPLACE
)

// bulk is one CommandStatementIngest: a stream of rows that takes effect as a whole, with its table if that is new,
// or not at all.
type bulk struct {
	s        *service
	name     lsm.TableName
	create   bool // a table that does not exist
	ifExists pb.CommandStatementIngest_TableDefinitionOptions_TableExistsOption
	options  ingestOptions
}

// newBulk checks what a command asks for.
func (s *service) newBulk(ctx context.Context, c *pb.CommandStatementIngest) (*bulk, error) {
	missing, exists := c.GetTableDefinitionOptions().GetIfNotExist(), c.GetTableDefinitionOptions().GetIfExists()
	schema := c.GetSchema()
	if schema == "" {
		schema = sessionOf(ctx).currentSchema()
	}
	switch {
	case missing == ifMissingUnset || exists == ifExistsUnset:
		return nil, invalid("the ingest does not say what to do when the table exists, and when it does not; set both of its table definition options")
	case c.GetTable() == "":
		return nil, invalid("the ingest names no table")
	case c.GetTemporary():
		return nil, unimplemented("a temporary table would go with its session, and here every table stays until it is dropped; " +
			"ingest into a plain table and drop it")
	case c.GetCatalog() != "" && !strings.EqualFold(c.GetCatalog(), catalogName):
		return nil, notFound("catalog %q does not exist; %q is the only one", c.GetCatalog(), catalogName)
	case !s.hasSchema(schema):
		return nil, notFound("schema %q does not exist", schema)
	}
	if err := noTransaction(c.GetTransactionId()); err != nil {
		return nil, err
	}
	o, err := readOptions(ctx, c.GetOptions())
	if err != nil {
		return nil, err
	}
	if o.resume {
		return nil, invalid("an ingest by CommandStatementIngest takes effect as a whole, so there is nothing to resume; leave the option out and send all of it again")
	}
	if o.durability == lsm.Buffered {
		return nil, invalid("option durability = \"buffered\": an ingest by CommandStatementIngest takes effect as a whole and is durable in every table; leave the option out")
	}
	return &bulk{s: s, name: lsm.TableName{Schema: schema, Name: c.GetTable()}, create: missing == ifMissingCreate, ifExists: exists, options: o}, nil
}

// putBulk runs a CommandStatementIngest.
func (s *service) putBulk(stream pb.FlightService_DoPutServer, first *message, command *pb.CommandStatementIngest) error {
	b, err := s.newBulk(stream.Context(), command)
	if err != nil {
		return err
	}
	w := &whole{s: s, name: b.name, options: b.options, stage: b.stage, late: b.late}
	result, err := w.run(stream, first)
	if err != nil {
		return err
	}
	return putResult(stream, &pb.DoPutUpdateResult{RecordCount: result.Rows})
}

// late returns the error for a table that somebody else made meanwhile. An ingest that would take such a table, too,
// can be sent again.
func (b *bulk) late(err error) error {
	if errors.Is(err, lsm.ErrTableExists) && b.ifExists != ifExistsFail {
		return aborted("%v; nothing of the stream was stored, send it again", err)
	}
	return err
}

// stage begins a stage of the table that the rows go to, which may be a new one.
func (b *bulk) stage(ctx context.Context, schema *arrow.Schema) (*lsm.Stage, error) {
	table, err := b.s.db.Table(b.name)
	exists := err == nil
	var unserved *lsm.UnservedError
	switch {
	case errors.As(err, &unserved) && !b.create:
		return nil, unserved
	case err != nil && !errors.Is(err, lsm.ErrTableNotFound):
		return nil, err
	case !exists && !b.create:
		return nil, notFound("table %q does not exist; create it first, or ingest in a mode that does", b.name)
	case exists && b.ifExists == ifExistsFail:
		return nil, fmt.Errorf("table %q: %w; ingest in the mode append, create_append or replace, or drop it first", b.name, lsm.ErrTableExists)
	case exists && b.ifExists != ifExistsReplace:
		return table.Stage(), nil
	}
	columns := tableColumns(schema)
	key, err := lsm.PrimaryKey(columns)
	if err != nil {
		return nil, fmt.Errorf("table %q: %w", b.name, err)
	}
	text, err := b.s.query.TableSQL(ctx, b.name, columns, key)
	if err != nil {
		return nil, err
	}
	return b.s.db.StageTable(ctx, lsm.TableDef{Name: b.name, Schema: columns, Key: key, SQL: text}, exists)
}

// foreignMetadata begins the names of metadata that a new table does not take over: what Flight SQL said about the
// table that the rows were read from.
const foreignMetadata = "ARROW:FLIGHT:SQL:"

// tableColumns returns the columns of a table for the rows of a stream. Tombstones are not stored.
func tableColumns(stream *arrow.Schema) *arrow.Schema {
	var fields []arrow.Field
	for _, field := range stream.Fields() {
		if strings.EqualFold(field.Name, lsm.TombstoneColumn) {
			continue
		}
		metadata := field.Metadata.ToMap()
		maps.DeleteFunc(metadata, func(name, _ string) bool { return strings.HasPrefix(name, foreignMetadata) })
		field.Metadata = arrow.MetadataFrom(metadata)
		fields = append(fields, field)
	}
	return arrow.NewSchema(fields, nil)
}
