package flight

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql/schema_ref"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// execute runs an update.
func (h *harness) execute(sql string) int64 {
	h.t.Helper()
	n, err := h.client.sql.ExecuteUpdate(context.Background(), sql)
	require.NoError(h.t, err)
	return n
}

// read returns the rows of a flight, in Arrow's notation, and how many messages they came in. The stream's schema
// must be the one that was announced.
func (h *harness) read(info *flight.FlightInfo) (rows string, messages int) {
	h.t.Helper()
	announced, err := flight.DeserializeSchema(info.GetSchema(), memory.DefaultAllocator)
	require.NoError(h.t, err)
	require.Len(h.t, info.GetEndpoint(), 1)
	r, err := h.client.sql.DoGet(context.Background(), info.GetEndpoint()[0].GetTicket())
	require.NoError(h.t, err)
	defer r.Release()
	require.True(h.t, announced.Equal(r.Schema()), "%v\n%v", announced, r.Schema())
	var out strings.Builder
	for r.Next() {
		messages++
		require.NoError(h.t, array.RecordToJSON(r.RecordBatch(), &out))
	}
	require.NoError(h.t, r.Err())
	return strings.TrimSpace(out.String()), messages
}

// ask runs a query.
func (h *harness) ask(sql string) string {
	h.t.Helper()
	info, err := h.client.sql.Execute(context.Background(), sql)
	require.NoError(h.t, err)
	rows, _ := h.read(info)
	return rows
}

func TestStatements(t *testing.T) {
	h := serve(t)
	require.EqualValues(t, 0, h.execute("CREATE TABLE docs (id BIGINT PRIMARY KEY, body VARCHAR)"))
	require.EqualValues(t, 2, h.execute("INSERT INTO docs VALUES (1, 'one'), (2, NULL)"))
	require.Equal(t, "{\"body\":\"one\",\"id\":1}\n{\"body\":null,\"id\":2}", h.ask("SELECT * FROM docs ORDER BY id"))
	require.Empty(t, h.ask("SELECT * FROM docs WHERE id > 100"))

	schema, err := h.client.sql.GetExecuteSchema(context.Background(), "SELECT body, id FROM docs")
	require.NoError(t, err)
	got, err := flight.DeserializeSchema(schema.GetSchema(), memory.DefaultAllocator)
	require.NoError(t, err)
	require.Equal(t, []string{"body", "id"}, []string{got.Field(0).Name, got.Field(1).Name})

	// Rows that were streamed are seen by the statement after their ack.
	table := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "body", Type: arrow.BinaryTypes.String, Nullable: true}}, nil)
	_, err = h.rawPut(dataOf(t, pathTo("docs"), table, recordOf(t, table, `[{"id":2,"body":"two"},{"id":3,"body":"three"}]`))...)
	require.NoError(t, err)
	require.Equal(t, `{"body":"two","id":2}`, h.ask("SELECT * FROM docs WHERE id = 2"))
}

func TestAnUpdateThatIsReadRunsOnce(t *testing.T) {
	h := serve(t)
	ctx := context.Background()
	h.execute("CREATE TABLE log (line VARCHAR)")
	info, err := h.client.sql.Execute(ctx, "INSERT INTO log VALUES ('a'), ('b')")
	require.NoError(t, err)
	for range 3 {
		rows, _ := h.read(info)
		require.Equal(t, `{"Count":2}`, rows)
	}
	require.Equal(t, `{"n":2}`, h.ask("SELECT count(*) AS n FROM log"))

	// A forged ticket does not make reading write.
	ticket, err := packTicket(queryTicket{schema: "main", sql: "INSERT INTO log VALUES ('c')"})
	require.NoError(t, err)
	_, err = h.client.sql.DoGet(ctx, &flight.Ticket{Ticket: ticket})
	requireCode(t, err, codes.InvalidArgument, "never changes")
	require.Equal(t, `{"n":2}`, h.ask("SELECT count(*) AS n FROM log"))
}

func TestBadStatementsHaveCodes(t *testing.T) {
	h := serve(t)
	ctx := context.Background()
	h.execute("CREATE TABLE docs (id BIGINT PRIMARY KEY)")
	f := func(sql string, code codes.Code, parts ...string) {
		t.Helper()
		_, err := h.client.sql.Execute(ctx, sql)
		requireCode(t, err, code, parts...)
		_, err = h.client.sql.Prepare(ctx, sql)
		requireCode(t, err, code, parts...)
	}
	f("SELEC 1", codes.InvalidArgument)
	f("SELECT nosuch FROM docs", codes.InvalidArgument, "nosuch")
	f("SELECT * FROM nosuch", codes.NotFound, "nosuch")
	f("", codes.InvalidArgument)
	_, err := h.client.sql.ExecuteUpdate(ctx, "SELECT 1")
	requireCode(t, err, codes.InvalidArgument, "query")
	_, err = h.client.sql.ExecuteUpdate(ctx, "CREATE TABLE docs (id BIGINT)")
	requireCode(t, err, codes.AlreadyExists, "docs")
	h.execute("INSERT INTO docs VALUES (1)")
	_, err = h.client.sql.ExecuteUpdate(ctx, "INSERT INTO docs VALUES (1)")
	requireCode(t, err, codes.AlreadyExists, "1")
}

func TestThePartitionOfAPreparedQueryOutlivesIt(t *testing.T) {
	h := serve(t)
	ctx := context.Background()
	h.execute("CREATE TABLE log (line VARCHAR)")
	h.execute("INSERT INTO log VALUES ('a')")
	prepared, err := h.client.sql.Prepare(ctx, "SELECT line FROM log")
	require.NoError(t, err)
	info, err := prepared.Execute(ctx)
	require.NoError(t, err)
	rows, _ := h.read(info)
	require.Equal(t, `{"line":"a"}`, rows)
	require.NoError(t, prepared.Close(ctx))
	rows, _ = h.read(info)
	require.Equal(t, `{"line":"a"}`, rows)

	// A forged ticket does not make reading write.
	change, err := h.client.sql.Prepare(ctx, "INSERT INTO log VALUES ('b')")
	require.NoError(t, err)
	ticket, err := packTicket(queryTicket{schema: "main", sql: "SELECT 1", prepared: string(change.Handle())})
	require.NoError(t, err)
	_, err = h.client.sql.DoGet(ctx, &flight.Ticket{Ticket: ticket})
	requireCode(t, err, codes.InvalidArgument, "never changes")
	require.Equal(t, `{"n":1}`, h.ask("SELECT count(*) AS n FROM log"))
}

func TestAPivotHasTheColumnsThatItsRowsTell(t *testing.T) {
	h := serve(t)
	ctx := context.Background()
	h.execute("CREATE TABLE sales (city VARCHAR, year INTEGER)")
	h.execute("INSERT INTO sales VALUES ('Rome', 2024), ('Rome', 2025), ('Oslo', 2025)")
	const pivot = "PIVOT sales ON year USING count(*) ORDER BY city"
	want := "{\"2024\":0,\"2025\":1,\"city\":\"Oslo\"}\n{\"2024\":1,\"2025\":1,\"city\":\"Rome\"}"
	info, err := h.client.sql.Execute(ctx, pivot)
	require.NoError(t, err)
	rows, _ := h.read(info)
	require.Equal(t, want, rows)
	prepared, err := h.client.sql.Prepare(ctx, pivot)
	require.NoError(t, err)
	info, err = prepared.Execute(ctx)
	require.NoError(t, err)
	rows, _ = h.read(info)
	require.Equal(t, want, rows)
	require.NoError(t, prepared.Close(ctx))
}

// row returns a record of one column.
func row(t *testing.T, typ arrow.DataType, json string) arrow.RecordBatch {
	return recordOf(t, arrow.NewSchema([]arrow.Field{{Name: "p", Type: typ, Nullable: true}}, nil), json)
}

func TestPreparedStatements(t *testing.T) {
	h := serve(t)
	ctx := context.Background()
	h.execute("CREATE TABLE docs (id BIGINT PRIMARY KEY, body VARCHAR)")
	insert, err := h.client.sql.Prepare(ctx, "INSERT INTO docs VALUES (?, 'x')")
	require.NoError(t, err)
	require.Equal(t, 1, insert.ParameterSchema().NumFields())
	insert.SetParameters(row(t, arrow.PrimitiveTypes.Int64, `[{"p":1},{"p":2},{"p":3}]`))
	n, err := insert.ExecuteUpdate(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 3, n)
	require.NoError(t, insert.Close(ctx))

	query, err := h.client.sql.Prepare(ctx, "SELECT id, body FROM docs WHERE id = ?")
	require.NoError(t, err)
	require.Equal(t, arrow.PrimitiveTypes.Int64, query.ParameterSchema().Field(0).Type)
	require.Equal(t, []string{"id", "body"}, []string{query.DatasetSchema().Field(0).Name, query.DatasetSchema().Field(1).Name})
	for _, c := range []struct{ params, want string }{
		{`[{"p":2}]`, `{"body":"x","id":2}`},
		{`[{"p":7}]`, ``},
		{`[{"p":null}]`, ``},
		{`[{"p":3},{"p":1}]`, "{\"body\":\"x\",\"id\":3}\n{\"body\":\"x\",\"id\":1}"},
	} {
		query.SetParameters(row(t, arrow.PrimitiveTypes.Int64, c.params))
		info, err := query.Execute(ctx)
		require.NoError(t, err)
		rows, _ := h.read(info)
		require.Equal(t, c.want, rows)
	}
	require.NoError(t, query.Close(ctx))
	_, err = h.client.sql.Client.GetSchema(ctx, command(t, &pb.CommandPreparedStatementQuery{PreparedStatementHandle: query.Handle()}))
	requireCode(t, err, codes.NotFound, "prepared statement")
	require.Empty(t, h.server.prepared.byHandle)

	open, err := h.client.sql.Prepare(ctx, "SELECT ? AS v")
	require.NoError(t, err)
	open.SetParameters(row(t, arrow.BinaryTypes.String, `[{"p":"word"}]`))
	info, err := open.Execute(ctx)
	require.NoError(t, err)
	rows, _ := h.read(info)
	require.Equal(t, `{"v":"word"}`, rows)
	require.NoError(t, open.Close(ctx))
}

// numbers returns a reader of batches of one column.
func numbers(t testing.TB, batches ...[]int64) array.RecordReader {
	schema := arrow.NewSchema([]arrow.Field{{Name: "p", Type: arrow.PrimitiveTypes.Int64, Nullable: true}}, nil)
	var records []arrow.RecordBatch
	for _, values := range batches {
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		b.Field(0).(*array.Int64Builder).AppendValues(values, nil)
		records = append(records, b.NewRecordBatch())
		b.Release()
	}
	reader, err := array.NewRecordReader(schema, records)
	require.NoError(t, err)
	t.Cleanup(reader.Release)
	return reader
}

func TestAllParametersOfAnUpdateAreOne(t *testing.T) {
	h := serve(t, func(o *Options) { o.MaxMessageBytes = 64 << 10 })
	ctx := context.Background()
	h.execute("CREATE TABLE docs (id BIGINT PRIMARY KEY)")
	insert, err := h.client.sql.Prepare(ctx, "INSERT INTO docs VALUES (?)")
	require.NoError(t, err)
	insert.SetRecordReader(numbers(t, []int64{1, 2}, nil, []int64{3}, []int64{4, 5, 6}))
	n, err := insert.ExecuteUpdate(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 6, n)
	require.Equal(t, sequence(1, 6), h.ids("docs"))
	for _, again := range [][]int64{{10, 3}, {7, 11}} { // a key of the table, a key of another batch
		insert.SetRecordReader(numbers(t, []int64{7, 8}, []int64{9}, again))
		_, err = insert.ExecuteUpdate(ctx)
		requireCode(t, err, codes.AlreadyExists)
	}
	require.Equal(t, sequence(1, 6), h.ids("docs"), "nothing of a failed update stays")
	large := make([]int64, 4<<10)
	insert.SetRecordReader(numbers(t, large, large, large, large, large, large, large, large, large))
	_, err = insert.ExecuteUpdate(ctx)
	requireCode(t, err, codes.ResourceExhausted, "adbc_ingest")
	require.NoError(t, insert.Close(ctx))

	query, err := h.client.sql.Prepare(ctx, "SELECT id FROM docs WHERE id = ?")
	require.NoError(t, err)
	query.SetRecordReader(numbers(t, []int64{1, 9}, []int64{4}))
	info, err := query.Execute(ctx)
	require.NoError(t, err)
	rows, _ := h.read(info)
	require.Equal(t, "{\"id\":1}\n{\"id\":4}", rows)
	require.NoError(t, query.Close(ctx))
}

func TestParametersKeepTheirTypeWhenNull(t *testing.T) {
	h := serve(t)
	ctx := context.Background()
	open, err := h.client.sql.Prepare(ctx, "SELECT ? AS v")
	require.NoError(t, err)
	for _, c := range []struct {
		of         arrow.DataType
		rows, want string
	}{
		{arrow.PrimitiveTypes.Int64, `[{"p":null},{"p":7}]`, "{\"v\":null}\n{\"v\":7}"},
		{arrow.BinaryTypes.String, `[{"p":"a"},{"p":null},{"p":"b"}]`, "{\"v\":\"a\"}\n{\"v\":null}\n{\"v\":\"b\"}"},
		{arrow.FixedWidthTypes.Date32, `[{"p":null}]`, `{"v":null}`},
	} {
		open.SetParameters(row(t, c.of, c.rows))
		info, err := open.Execute(ctx)
		require.NoError(t, err)
		rows, _ := h.read(info)
		require.Equal(t, c.want, rows)
		schema, err := flight.DeserializeSchema(info.GetSchema(), memory.DefaultAllocator)
		require.NoError(t, err)
		require.Equal(t, c.of, schema.Field(0).Type)
	}
	require.NoError(t, open.Close(ctx))
}

// command returns the descriptor of a Flight SQL command.
func command(t testing.TB, c proto.Message) *flight.FlightDescriptor {
	b, err := packCommand(c)
	require.NoError(t, err)
	return &flight.FlightDescriptor{Type: flight.DescriptorCMD, Cmd: b}
}

func TestStatementsGoWithTheirConnection(t *testing.T) {
	h := serve(t)
	other, err := Dial(h.addr)
	require.NoError(t, err)
	_, err = other.sql.Prepare(context.Background(), "SELECT 1")
	require.NoError(t, err)
	mine, err := h.client.sql.Prepare(context.Background(), "SELECT 2 AS two")
	require.NoError(t, err)
	require.NoError(t, other.Close())
	held := func() int {
		h.server.prepared.mu.Lock()
		defer h.server.prepared.mu.Unlock()
		return len(h.server.prepared.byHandle)
	}
	require.Eventually(t, func() bool { return held() == 1 }, patience, patience/1000)
	info, err := mine.Execute(context.Background())
	require.NoError(t, err)
	rows, _ := h.read(info)
	require.Equal(t, `{"two":2}`, rows)
	_, err = h.client.sql.CloseSession(context.Background(), &flight.CloseSessionRequest{})
	require.NoError(t, err)
	require.Zero(t, held())
}

func TestLargeResultsComeInMessagesOfAFewMegabytes(t *testing.T) {
	h := serve(t)
	info, err := h.client.sql.Execute(context.Background(), "SELECT range AS i, repeat('x', 100) AS s FROM range(200000)")
	require.NoError(t, err)
	stream, err := h.client.sql.Client.DoGet(context.Background(), info.GetEndpoint()[0].GetTicket())
	require.NoError(t, err)
	messages := 0
	for {
		data, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.Less(t, len(data.GetDataBody()), 5<<19)
		messages++
	}
	require.Greater(t, messages, 8)
	require.Less(t, messages, 60)
}

func TestRecordsAreCutToSize(t *testing.T) {
	schema := arrow.NewSchema([]arrow.Field{{Name: "s", Type: arrow.BinaryTypes.String}, {Name: "v", Type: arrow.FixedSizeListOf(4, arrow.PrimitiveTypes.Float64)}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for i := range 60_000 {
		b.Field(0).(*array.StringBuilder).Append(strings.Repeat("s", i%200))
		list := b.Field(1).(*array.FixedSizeListBuilder)
		list.Append(true)
		list.ValueBuilder().(*array.Float64Builder).AppendValues([]float64{1, 2, 3, 4}, nil)
	}
	record := b.NewRecordBatch()
	defer record.Release()
	want := int64(60_000*(32+4)) + 60_000*199/2
	require.InEpsilon(t, want, recordBytes(record), 0.01)
	half := record.NewSlice(30_000, 60_000)
	defer half.Release()
	require.InEpsilon(t, want/2, recordBytes(half), 0.01)
}

func TestARunningQueryCanBeCancelled(t *testing.T) {
	h := serve(t)
	const endless = "SELECT a.range + b.range AS x FROM range(1000000000) a, range(1000000) b"
	info, err := h.client.sql.Execute(context.Background(), endless)
	require.NoError(t, err)
	_, err = h.client.sql.CancelFlightInfo(context.Background(), &flight.CancelFlightInfoRequest{Info: info})
	requireCode(t, err, codes.NotFound)

	r, err := h.client.sql.DoGet(context.Background(), info.GetEndpoint()[0].GetTicket())
	require.NoError(t, err)
	defer r.Release()
	require.True(t, r.Next())
	result, err := h.client.sql.CancelFlightInfo(context.Background(), &flight.CancelFlightInfoRequest{Info: info})
	require.NoError(t, err)
	require.Equal(t, flight.CancelStatusCancelled, result.GetStatus())
	for r.Next() {
		continue
	}
	requireCode(t, r.Err(), codes.Canceled, "CancelFlightInfo")

	// A client that goes away cancels, too.
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := h.client.sql.Client.DoGet(ctx, info.GetEndpoint()[0].GetTicket())
	require.NoError(t, err)
	_, err = stream.Recv()
	require.NoError(t, err)
	cancel()
	require.Eventually(t, func() bool {
		h.server.running.mu.Lock()
		defer h.server.running.mu.Unlock()
		return len(h.server.running.byTicket) == 0
	}, patience, patience/1000)
}

func TestShutdownEndsARunningQuery(t *testing.T) {
	h := serve(t)
	info, err := h.client.sql.Execute(context.Background(), "SELECT a.range + b.range AS x FROM range(1000000000) a, range(1000000) b")
	require.NoError(t, err)
	r, err := h.client.sql.DoGet(context.Background(), info.GetEndpoint()[0].GetTicket())
	require.NoError(t, err)
	defer r.Release()
	require.True(t, r.Next())
	over, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, h.server.Shutdown(over), context.Canceled)
	for r.Next() {
		continue
	}
	requireCode(t, r.Err(), codes.Unavailable)
}

func TestTablesAreFlights(t *testing.T) {
	h := serve(t)
	ctx := context.Background()
	h.execute(`CREATE TABLE "Odd ""Name" (id BIGINT PRIMARY KEY)`)
	h.execute(`INSERT INTO "Odd ""Name" VALUES (7)`)
	flights, err := h.client.sql.Client.ListFlights(ctx, &flight.Criteria{})
	require.NoError(t, err)
	info, err := flights.Recv()
	require.NoError(t, err)
	require.Equal(t, []string{"main", `Odd "Name`}, info.GetFlightDescriptor().GetPath())
	_, err = flights.Recv()
	require.ErrorIs(t, err, io.EOF)
	rows, _ := h.read(info)
	require.Equal(t, `{"id":7}`, rows)
	info, err = h.client.sql.Client.GetFlightInfo(ctx, pathTo(`odd "name`))
	require.NoError(t, err)
	rows, _ = h.read(info)
	require.Equal(t, `{"id":7}`, rows)
	_, err = h.client.sql.Client.GetSchema(ctx, pathTo("nosuch"))
	requireCode(t, err, codes.NotFound, "nosuch")
}

func TestMetadata(t *testing.T) {
	h := serve(t)
	ctx := context.Background()
	h.execute("CREATE TABLE docs (a VARCHAR, id BIGINT, price DECIMAL(10,2), v FLOAT[3], PRIMARY KEY (id, a))")
	h.execute("CREATE TABLE plain (x DOUBLE)")
	c := h.client.sql
	f := func(info *flight.FlightInfo, err error, schema *arrow.Schema, want string) {
		t.Helper()
		require.NoError(t, err)
		announced, err := flight.DeserializeSchema(info.GetSchema(), memory.DefaultAllocator)
		require.NoError(t, err)
		require.True(t, schema.Equal(announced))
		rows, _ := h.read(info)
		require.Equal(t, want, rows)
	}
	info, err := c.GetCatalogs(ctx)
	f(info, err, schema_ref.Catalogs, `{"catalog_name":"flightd"}`)
	info, err = c.GetDBSchemas(ctx, &flightsql.GetDBSchemasOpts{})
	f(info, err, schema_ref.DBSchemas, `{"catalog_name":"flightd","db_schema_name":"flightd_catalog"}`+"\n"+`{"catalog_name":"flightd","db_schema_name":"main"}`)
	nothing, docs, doc := "nothing", "docs", "d%"
	info, err = c.GetDBSchemas(ctx, &flightsql.GetDBSchemasOpts{Catalog: &nothing})
	f(info, err, schema_ref.DBSchemas, "")
	stalls, system := "stalls", "flightd\\_catalog"
	info, err = c.GetTables(ctx, &flightsql.GetTablesOpts{DbSchemaFilterPattern: &system, TableNameFilterPattern: &stalls})
	f(info, err, schema_ref.Tables, `{"catalog_name":"flightd","db_schema_name":"flightd_catalog","table_name":"stalls","table_type":"SYSTEM TABLE"}`)
	info, err = c.GetTables(ctx, &flightsql.GetTablesOpts{TableTypes: []string{"TABLE", "VIEW"}})
	f(info, err, schema_ref.Tables, `{"catalog_name":"flightd","db_schema_name":"main","table_name":"docs","table_type":"TABLE"}`+"\n"+
		`{"catalog_name":"flightd","db_schema_name":"main","table_name":"plain","table_type":"TABLE"}`)
	info, err = c.GetTables(ctx, &flightsql.GetTablesOpts{TableNameFilterPattern: &doc, TableTypes: []string{"VIEW"}})
	f(info, err, schema_ref.Tables, "")
	info, err = c.GetTableTypes(ctx)
	f(info, err, schema_ref.TableTypes, `{"table_type":"SYSTEM TABLE"}`+"\n"+`{"table_type":"TABLE"}`+"\n"+`{"table_type":"VIEW"}`)
	h.execute("CREATE VIEW seen AS FROM docs")
	info, err = c.GetTables(ctx, &flightsql.GetTablesOpts{TableTypes: []string{"VIEW"}})
	f(info, err, schema_ref.Tables, `{"catalog_name":"flightd","db_schema_name":"main","table_name":"seen","table_type":"VIEW"}`)
	info, err = c.GetTables(ctx, &flightsql.GetTablesOpts{TableTypes: []string{"VIEW"}, IncludeSchema: true})
	require.NoError(t, err)
	r, err := h.client.sql.DoGet(ctx, info.GetEndpoint()[0].GetTicket())
	require.NoError(t, err)
	require.True(t, r.Next())
	columns, err := flight.DeserializeSchema(r.RecordBatch().Column(4).(*array.Binary).Value(0), memory.DefaultAllocator)
	require.NoError(t, err)
	require.Equal(t, "a", columns.Field(0).Name)
	r.Release()
	info, err = c.GetPrimaryKeys(ctx, flightsql.TableRef{Table: docs})
	f(info, err, schema_ref.PrimaryKeys,
		`{"catalog_name":"flightd","column_name":"id","db_schema_name":"main","key_name":"docs_pkey","key_sequence":1,"table_name":"docs"}`+"\n"+
			`{"catalog_name":"flightd","column_name":"a","db_schema_name":"main","key_name":"docs_pkey","key_sequence":2,"table_name":"docs"}`)
	info, err = c.GetExportedKeys(ctx, flightsql.TableRef{Table: docs})
	f(info, err, schema_ref.ExportedKeys, "")
	info, err = c.GetImportedKeys(ctx, flightsql.TableRef{Table: docs})
	f(info, err, schema_ref.ImportedKeys, "")
	info, err = c.GetCrossReference(ctx, flightsql.TableRef{Table: docs}, flightsql.TableRef{Table: docs})
	f(info, err, schema_ref.CrossReference, "")
	info, err = c.GetSqlInfo(ctx, []flightsql.SqlInfo{flightsql.SqlInfoFlightSqlServerName, flightsql.SqlInfoIdentifierQuoteChar})
	f(info, err, schema_ref.SqlInfo, `{"info_name":0,"value":[0,"flightd"]}`+"\n"+`{"info_name":504,"value":[0,"\""]}`)
}

func TestTableSchemasTellTheSQLTypes(t *testing.T) {
	h := serve(t)
	h.execute("CREATE TABLE docs (id BIGINT PRIMARY KEY, price DECIMAL(10,2), v FLOAT[3])")
	info, err := h.client.sql.GetTables(context.Background(), &flightsql.GetTablesOpts{IncludeSchema: true, TableTypes: []string{"TABLE"}})
	require.NoError(t, err)
	r, err := h.client.sql.DoGet(context.Background(), info.GetEndpoint()[0].GetTicket())
	require.NoError(t, err)
	defer r.Release()
	require.True(t, schema_ref.TablesWithIncludedSchema.Equal(r.Schema()))
	require.True(t, r.Next())
	schema, err := flight.DeserializeSchema(r.RecordBatch().Column(4).(*array.Binary).Value(0), memory.DefaultAllocator)
	require.NoError(t, err)
	var names []string
	for _, field := range schema.Fields() {
		name, _ := field.Metadata.GetValue(flightsql.TypeNameKey)
		names = append(names, name)
	}
	require.Equal(t, []string{"BIGINT", "DECIMAL", "FLOAT[3]"}, names)
	key, _ := schema.Field(0).Metadata.GetValue("lance-schema:unenforced-primary-key")
	require.Equal(t, "true", key)
	precision, _ := schema.Field(1).Metadata.GetValue(flightsql.PrecisionKey)
	require.Equal(t, "10", precision)
}

func TestSessionOptions(t *testing.T) {
	h := serve(t)
	ctx := context.Background()
	set := func(options map[string]any) map[string]*flight.SetSessionOptionsResultError {
		t.Helper()
		values, err := flight.NewSessionOptionValues(options)
		require.NoError(t, err)
		result, err := h.client.sql.SetSessionOptions(ctx, &flight.SetSessionOptionsRequest{SessionOptions: values})
		require.NoError(t, err)
		return result.GetErrors()
	}
	require.Empty(t, set(map[string]any{"catalog": "flightd", "schema": "main"}))
	refused := set(map[string]any{"catalog": "other", "schema": int64(1), "colour": "red"})
	require.Len(t, refused, 3)
	require.Equal(t, flight.SetSessionOptionsResultErrorInvalidName, refused["colour"].GetValue())
	require.Equal(t, flight.SetSessionOptionsResultErrorInvalidValue, refused["catalog"].GetValue())
	got, err := h.client.sql.GetSessionOptions(ctx, &flight.GetSessionOptionsRequest{})
	require.NoError(t, err)
	require.Equal(t, "main", got.GetSessionOptions()["schema"].GetStringValue())
	require.Equal(t, "flightd", got.GetSessionOptions()["catalog"].GetStringValue())
}
