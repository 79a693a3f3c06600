package flight

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/lsm"
)

// The modes of ADBC.
var (
	modeCreate       = flightsql.TableDefinitionOptions{IfNotExist: flightsql.TableDefinitionOptionsTableNotExistOptionCreate, IfExists: flightsql.TableDefinitionOptionsTableExistsOptionFail}
	modeAppend       = flightsql.TableDefinitionOptions{IfNotExist: flightsql.TableDefinitionOptionsTableNotExistOptionFail, IfExists: flightsql.TableDefinitionOptionsTableExistsOptionAppend}
	modeReplace      = flightsql.TableDefinitionOptions{IfNotExist: flightsql.TableDefinitionOptionsTableNotExistOptionCreate, IfExists: flightsql.TableDefinitionOptionsTableExistsOptionReplace}
	modeCreateAppend = flightsql.TableDefinitionOptions{IfNotExist: flightsql.TableDefinitionOptionsTableNotExistOptionCreate, IfExists: flightsql.TableDefinitionOptionsTableExistsOptionAppend}
)

// ingest runs a CommandStatementIngest into a table.
func (h *harness) ingest(table string, mode *flightsql.TableDefinitionOptions, schema *arrow.Schema, records ...arrow.RecordBatch) (int64, error) {
	h.t.Helper()
	return h.ingestAs(context.Background(), &flightsql.ExecuteIngestOpts{Table: table, TableDefinitionOptions: mode}, schema, records...)
}

// ingestAs runs a CommandStatementIngest. Without records it sends one that has no rows, because arrow-go's client
// sends nothing otherwise, not even what it wants.
func (h *harness) ingestAs(ctx context.Context, o *flightsql.ExecuteIngestOpts, schema *arrow.Schema, records ...arrow.RecordBatch) (int64, error) {
	h.t.Helper()
	if len(records) == 0 {
		records = []arrow.RecordBatch{recordOf(h.t, schema, "[]")}
	}
	reader, err := array.NewRecordReader(schema, records)
	require.NoError(h.t, err)
	defer reader.Release()
	return h.client.sql.ExecuteIngest(ctx, reader, o)
}

// texts returns the rows of a query as text.
func (h *harness) texts(sql string) []string {
	h.t.Helper()
	var rows []string
	require.NoError(h.t, h.client.Query(context.Background(), sql, func(record arrow.RecordBatch) error {
		for row := range int(record.NumRows()) {
			var values []string
			for _, column := range record.Columns() {
				values = append(values, column.ValueStr(row))
			}
			rows = append(rows, strings.Join(values, "|"))
		}
		return nil
	}))
	return rows
}

func TestModesOfBulkIngestion(t *testing.T) {
	h := serve(t)
	schema := eventSchema(true)
	first, second := events(t, true, 0, 10, "first"), events(t, true, 5, 10, "second")
	_, err := h.ingest("t", &modeAppend, schema, first)
	requireCode(t, err, codes.NotFound, `"t"`)

	n, err := h.ingest("t", &modeCreate, schema, first)
	require.NoError(t, err)
	require.EqualValues(t, 10, n)
	_, err = h.ingest("T", &modeCreate, schema, second)
	requireCode(t, err, codes.AlreadyExists, "append")
	require.Equal(t, []string{"10|first"}, h.texts("SELECT count(*), min(tag) FROM t"))

	n, err = h.ingest("t", &modeAppend, schema, second)
	require.NoError(t, err)
	require.EqualValues(t, 10, n, "rows of the stream, also those that took the place of others")
	require.Equal(t, []string{"5|first", "10|second"}, h.texts("SELECT count(*), tag FROM t GROUP BY tag ORDER BY tag"))

	other := arrow.NewSchema([]arrow.Field{{Name: "x", Type: arrow.PrimitiveTypes.Float64, Nullable: true}}, nil)
	n, err = h.ingest("t", &modeReplace, other, recordOf(t, other, `[{"x":0.5}]`), recordOf(t, other, `[{"x":null}]`))
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	require.ElementsMatch(t, []string{"0.5", "(null)"}, h.texts("SELECT * FROM t"))

	for range 2 {
		_, err = h.ingest("u", &modeCreateAppend, other, recordOf(t, other, `[{"x":1}]`))
		require.NoError(t, err)
	}
	require.Equal(t, []string{"1", "1"}, h.texts("SELECT * FROM u"))

	require.NoError(t, h.stop(context.Background()))
	h.start()
	require.ElementsMatch(t, []string{"0.5", "(null)"}, h.texts("SELECT * FROM t"))
	require.Equal(t, []string{"1", "1"}, h.texts("SELECT * FROM u"))
	require.Equal(t, []string{"x"}, h.texts("SELECT column_name FROM information_schema.columns WHERE table_name = 't'"))
}

func TestBulkIngestionOfNoRowsMakesTheTable(t *testing.T) {
	h := serve(t)
	n, err := h.ingest("t", &modeCreate, eventSchema(true))
	require.NoError(t, err)
	require.Zero(t, n)
	require.Empty(t, h.texts("SELECT id, tag FROM t"))
	n, err = h.ingest("t", &modeAppend, eventSchema(true), events(t, true, 0, 0, "x"))
	require.NoError(t, err)
	require.Zero(t, n)
}

func TestANewTableHasTheSchemasKey(t *testing.T) {
	h := serve(t)
	key := arrow.MetadataFrom(map[string]string{"lance-schema:unenforced-primary-key": "true", "ARROW:FLIGHT:SQL:TABLE_NAME": "elsewhere", "unit": "m"})
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "a", Type: arrow.BinaryTypes.String, Nullable: true, Metadata: key},
		{Name: "v", Type: &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}, Nullable: true},
		{Name: "b", Type: arrow.PrimitiveTypes.Int32, Nullable: true, Metadata: key},
		{Name: "w", Type: arrow.BinaryTypes.StringView, Nullable: true},
		{Name: "_Tombstone", Type: arrow.FixedWidthTypes.Boolean, Nullable: true},
	}, nil)
	n, err := h.ingest("t", &modeCreate, schema, recordOf(t, schema, `[
		{"a":"k","b":1,"v":"one","w":"a text that is longer than a view"}, {"a":"k","b":2,"v":"two"}, {"a":"k","b":1,"v":"three"},
		{"a":"k","b":2,"_Tombstone":true}]`))
	require.NoError(t, err)
	require.EqualValues(t, 4, n)
	require.Equal(t, []string{"k|three|1|(null)"}, h.texts("SELECT * FROM t"))
	table, err := h.db.Table(lsm.TableName{Name: "t"})
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, table.Key())
	require.Equal(t, `CREATE TABLE "main"."t"("a" VARCHAR, "v" VARCHAR, "b" INTEGER, "w" VARCHAR, PRIMARY KEY("a", "b"));`, table.SQL())
	require.Equal(t, arrow.BinaryTypes.String, table.Schema().Field(1).Type)
	unit, _ := table.Schema().Field(0).Metadata.GetValue("unit")
	require.Equal(t, "m", unit)
	require.Negative(t, table.Schema().Field(0).Metadata.FindKey("ARROW:FLIGHT:SQL:TABLE_NAME"))

	place := func(n string) arrow.Metadata {
		return arrow.MetadataFrom(map[string]string{"lance-schema:unenforced-primary-key:position": n})
	}
	placed := arrow.NewSchema([]arrow.Field{
		{Name: "a", Type: arrow.PrimitiveTypes.Int64, Metadata: place("2")}, {Name: "b", Type: arrow.PrimitiveTypes.Int64, Metadata: place("1")}}, nil)
	_, err = h.ingest("placed", &modeCreate, placed, recordOf(t, placed, `[{"a":1,"b":2},{"a":1,"b":2}]`))
	require.NoError(t, err)
	table, err = h.db.Table(lsm.TableName{Name: "placed"})
	require.NoError(t, err)
	require.Equal(t, []string{"b", "a"}, table.Key())
	require.Equal(t, []string{"1|2"}, h.texts("SELECT * FROM placed"))
}

// markType is an extension type over strings.
type markType struct{ arrow.ExtensionBase }

func (*markType) ArrayType() reflect.Type { return reflect.TypeFor[markArray]() }
func (*markType) ExtensionName() string   { return "test.mark" }
func (*markType) Serialize() string       { return "" }
func (*markType) ExtensionEquals(other arrow.ExtensionType) bool {
	return other.ExtensionName() == "test.mark"
}
func (*markType) Deserialize(arrow.DataType, string) (arrow.ExtensionType, error) {
	return newMarkType(), nil
}

func newMarkType() *markType {
	return &markType{arrow.ExtensionBase{Storage: arrow.BinaryTypes.String}}
}

// markArray is an array of markType.
type markArray struct{ array.ExtensionArrayBase }

func TestExtensionTypesBecomePlainColumns(t *testing.T) {
	h := serve(t)
	registered := arrow.NewSchema([]arrow.Field{{Name: "s", Type: newMarkType(), Nullable: true}}, nil)
	unknown := arrow.NewSchema([]arrow.Field{{Name: "s", Type: arrow.BinaryTypes.String, Nullable: true,
		Metadata: arrow.MetadataFrom(map[string]string{"ARROW:extension:name": "test.mark", "ARROW:extension:metadata": ""})}}, nil)
	plain := recordOf(t, unknown, `[{"s":"x"},{"s":null}]`)
	column := array.NewExtensionArrayWithStorage(newMarkType(), plain.Column(0))
	defer column.Release()
	marked := array.NewRecordBatch(registered, []arrow.Array{column}, 2)
	defer marked.Release()

	_, err := h.ingest("unknown", &modeCreate, unknown, plain)
	require.NoError(t, err)
	require.NoError(t, arrow.RegisterExtensionType(newMarkType()))
	defer func() { require.NoError(t, arrow.UnregisterExtensionType("test.mark")) }()
	_, err = h.ingest("known", &modeCreate, registered, marked)
	require.NoError(t, err)
	require.NoError(t, h.stop(context.Background()))
	h.start()
	for _, name := range []string{"unknown", "known"} {
		_, err = h.ingest(name, &modeAppend, registered, marked)
		require.NoError(t, err)
		require.Equal(t, []string{"4|2"}, h.texts("SELECT count(*), count(s) FROM "+name+" WHERE s = 'x' OR s IS NULL"))
	}
}

func TestCommandsOfBulkIngestionThatAreRefused(t *testing.T) {
	h := serve(t)
	h.createTable("events", true)
	other := "other"
	keyless := arrow.NewSchema([]arrow.Field{{Name: "x", Type: arrow.PrimitiveTypes.Int64}, {Name: "_tombstone", Type: arrow.FixedWidthTypes.Boolean}}, nil)
	reserved := arrow.NewSchema([]arrow.Field{{Name: "_score", Type: arrow.PrimitiveTypes.Int64}}, nil)
	twice := arrow.NewSchema([]arrow.Field{{Name: "x", Type: arrow.PrimitiveTypes.Int64}, {Name: "X", Type: arrow.PrimitiveTypes.Int64}}, nil)
	nameless := arrow.NewSchema([]arrow.Field{{Name: "", Type: arrow.PrimitiveTypes.Int64}}, nil)
	broken := arrow.NewSchema([]arrow.Field{{Name: "a\x00b", Type: arrow.PrimitiveTypes.Int64}}, nil)
	none := arrow.NewSchema(nil, nil)
	for _, c := range []struct {
		name    string
		options *flightsql.ExecuteIngestOpts
		schema  *arrow.Schema
		code    codes.Code
		parts   []string
	}{
		{"no mode", &flightsql.ExecuteIngestOpts{TableDefinitionOptions: &flightsql.TableDefinitionOptions{}}, nil, codes.InvalidArgument, []string{"table definition options"}},
		{"temporary", &flightsql.ExecuteIngestOpts{Temporary: true}, nil, codes.Unimplemented, []string{"temporary"}},
		{"catalog", &flightsql.ExecuteIngestOpts{Catalog: &other}, nil, codes.NotFound, []string{`catalog "other"`}},
		{"schema", &flightsql.ExecuteIngestOpts{Schema: &other}, nil, codes.NotFound, []string{`schema "other"`}},
		{"transaction", &flightsql.ExecuteIngestOpts{TransactionId: []byte("t")}, nil, codes.Unimplemented, []string{"transactions"}},
		{"option", &flightsql.ExecuteIngestOpts{Options: map[string]string{"colour": "red"}}, nil, codes.InvalidArgument, []string{`"colour"`}},
		{"resume", &flightsql.ExecuteIngestOpts{Options: map[string]string{"idempotency-key": "k", "resume": "true"}}, nil, codes.InvalidArgument, []string{"resume"}},
		{"tombstones without a key", &flightsql.ExecuteIngestOpts{}, keyless, codes.InvalidArgument, []string{"no primary key", "lance-schema:unenforced-primary-key"}},
		{"reserved column", &flightsql.ExecuteIngestOpts{}, reserved, codes.InvalidArgument, []string{`"_score"`}},
		{"column twice", &flightsql.ExecuteIngestOpts{}, twice, codes.InvalidArgument, []string{"name X already exists"}},
		{"column without a name", &flightsql.ExecuteIngestOpts{}, nameless, codes.InvalidArgument, []string{"column 1 of 1 has no name"}},
		{"column that SQL cannot name", &flightsql.ExecuteIngestOpts{}, broken, codes.InvalidArgument, nil},
		{"no columns", &flightsql.ExecuteIngestOpts{}, none, codes.InvalidArgument, []string{"at least one column"}},
		{"long name", &flightsql.ExecuteIngestOpts{Table: strings.Repeat("x", 81)}, nil, codes.InvalidArgument, []string{"80"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := c.options
			if o.Table == "" {
				o.Table = "new"
			}
			if o.TableDefinitionOptions == nil {
				o.TableDefinitionOptions = &modeCreate
			}
			schema := c.schema
			if schema == nil {
				schema = eventSchema(true)
			}
			_, err := h.ingestAs(context.Background(), o, schema)
			requireCode(t, err, c.code, c.parts...)
		})
	}
	require.Len(t, h.db.Tables(), 1)
	catalog, schema := "Flightd", "MAIN"
	ctx := metadata.AppendToOutgoingContext(context.Background(), "x-flightd-durability", "durable")
	o := flightsql.ExecuteIngestOpts{Table: "events", Catalog: &catalog, Schema: &schema, TransactionId: []byte{}, TableDefinitionOptions: &modeAppend}
	_, err := h.ingestAs(ctx, &o, eventSchema(true), events(t, true, 0, 3, "x"))
	require.NoError(t, err)
	ctx = metadata.AppendToOutgoingContext(ctx, "x-flightd-durability", "buffered")
	_, err = h.ingestAs(ctx, &o, eventSchema(true), events(t, true, 0, 3, "x"))
	requireCode(t, err, codes.InvalidArgument, "twice")
	ctx = metadata.AppendToOutgoingContext(context.Background(), "x-flightd-durability", "buffered")
	_, err = h.ingestAs(ctx, &o, eventSchema(true), events(t, true, 0, 3, "x"))
	requireCode(t, err, codes.InvalidArgument, "durable in every table")
}

// bulkTo describes a CommandStatementIngest.
func bulkTo(t testing.TB, table string, mode *flightsql.TableDefinitionOptions) *flight.FlightDescriptor {
	b, err := packCommand(&pb.CommandStatementIngest{Table: table, TableDefinitionOptions: mode})
	require.NoError(t, err)
	return &flight.FlightDescriptor{Type: flight.DescriptorCMD, Cmd: b}
}

func TestAFailedBulkIngestionLeavesNothing(t *testing.T) {
	before := offheap.Default.InUse()
	h := serve(t)
	h.createTable("events", true)
	large := strings.Repeat("x", 100<<10) // the stage spills several times
	for _, c := range []struct {
		table string
		mode  *flightsql.TableDefinitionOptions
	}{{"events", &modeAppend}, {"events", &modeReplace}, {"new", &modeCreate}} {
		var records []arrow.RecordBatch
		for i := range int64(10) {
			records = append(records, events(t, true, 100*i, 100, large))
		}
		messages := dataOf(t, bulkTo(t, c.table, c.mode), eventSchema(true), records...)
		messages[10].DataBody = messages[10].DataBody[:8]
		stream, err := h.client.sql.Client.DoPut(context.Background())
		require.NoError(t, err)
		for _, m := range messages {
			if stream.Send(m) != nil {
				break
			}
		}
		_, err = stream.Recv()
		requireCode(t, err, codes.InvalidArgument, "batch 10", "nothing of the stream was stored")
	}
	require.Empty(t, h.ids("events"))
	require.Len(t, h.db.Tables(), 1)
	require.NoError(t, h.stop(context.Background()))
	require.Equal(t, before, offheap.Default.InUse())
	require.Less(t, folderBytes(t, filepath.Join(h.dir, "events.lance")), int64(1<<20), "spilled rows were left behind")
	require.NoDirExists(t, filepath.Join(h.dir, "new.lance"))
}

// folderBytes returns the bytes of the files below a folder.
func folderBytes(t testing.TB, folder string) (total int64) {
	require.NoError(t, filepath.Walk(folder, func(_ string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			total += info.Size()
		}
		return err
	}))
	return total
}

func TestABulkIngestionWhoseClientVanishesLeavesNothing(t *testing.T) {
	h := serve(t)
	h.createTable("events", true)
	ctx, vanish := context.WithCancel(context.Background())
	stream, err := h.client.sql.Client.DoPut(ctx)
	require.NoError(t, err)
	for _, m := range dataOf(t, bulkTo(t, "events", &modeAppend), eventSchema(true), events(t, true, 0, 100, "x"), events(t, true, 100, 100, "x")) {
		require.NoError(t, stream.Send(m))
	}
	vanish()
	_, err = stream.Recv()
	require.Error(t, err)
	h.server.tasks.Wait()
	require.Empty(t, h.ids("events"))
}

func TestShutdownFailsAnOpenBulkIngestion(t *testing.T) {
	h := serve(t)
	h.createTable("events", true)
	stream, err := h.client.sql.Client.DoPut(context.Background())
	require.NoError(t, err)
	for _, m := range dataOf(t, bulkTo(t, "events", &modeAppend), eventSchema(true), events(t, true, 0, 100, "x")) {
		require.NoError(t, stream.Send(m))
	}
	// The call has begun when its goroutine runs; before, a server that drains refuses it just the same.
	over, cancel := context.WithCancel(context.Background())
	cancel()
	shut := make(chan error, 1)
	go func() { shut <- h.server.Shutdown(over) }()
	_, err = stream.Recv()
	requireCode(t, err, codes.Unavailable)
	<-shut
	require.Empty(t, h.ids("events"))
}

func TestTwoBulkIngestionsThatMakeOneTable(t *testing.T) {
	h := serve(t)
	open := func(mode *flightsql.TableDefinitionOptions, tag string) pb.FlightService_DoPutClient {
		stream, err := h.client.sql.Client.DoPut(context.Background())
		require.NoError(t, err)
		for _, m := range dataOf(t, bulkTo(t, "t", mode), eventSchema(false), events(t, false, 0, 10, tag)) {
			require.NoError(t, stream.Send(m))
		}
		return stream
	}
	const streams = 4
	var all []pb.FlightService_DoPutClient
	for i := range streams {
		all = append(all, open(&modeCreateAppend, fmt.Sprint(i)))
	}
	for _, stream := range all {
		require.NoError(t, stream.CloseSend())
	}
	stored := 0
	for _, stream := range all {
		_, err := stream.Recv()
		if err == nil {
			stored++
			continue
		}
		requireCode(t, err, codes.Aborted, "again")
	}
	require.GreaterOrEqual(t, stored, 1)
	require.Equal(t, []string{fmt.Sprintf("%d|%d", 10*stored, stored)}, h.texts("SELECT count(*), count(DISTINCT tag) FROM t"))
}

func TestReadersSeeABulkIngestionWholeOrNotAtAll(t *testing.T) {
	h := serve(t)
	h.createTable("events", true)
	done := make(chan error, 1)
	go func() {
		var err error
		for i := range int64(20) {
			mode := &modeAppend
			if i%4 == 3 {
				mode = &modeReplace
			}
			_, failed := h.ingest("events", mode, eventSchema(true), events(t, true, 0, 500, fmt.Sprint(i)), events(t, true, 500, 500, fmt.Sprint(i)))
			err = errors.Join(err, failed)
		}
		done <- err
	}()
	for running := true; running; {
		select {
		case err := <-done:
			require.NoError(t, err)
			running = false
		default:
		}
		rows := h.texts("SELECT count(*), count(DISTINCT tag) FROM events")
		require.Contains(t, []string{"0|0", "1000|1"}, rows[0])
	}
	require.Equal(t, []string{"1000|19"}, h.texts("SELECT count(*), max(tag::INT) FROM events"))
}
