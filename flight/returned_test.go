package flight

import (
	"context"
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestReturningRunsOnce asks for the flight of statements with RETURNING, and reads their tickets more than once.
func TestReturningRunsOnce(t *testing.T) {
	h := serve(t)
	ctx := context.Background()
	h.execute("CREATE TABLE r (id BIGINT PRIMARY KEY, n BIGINT)")
	info, err := h.client.sql.Execute(ctx, "INSERT INTO r VALUES (1, 10), (2, 20) RETURNING id, n + 1 AS more")
	require.NoError(t, err)
	require.NotNil(t, info.GetEndpoint()[0].GetExpirationTime())
	for range 2 {
		rows, _ := h.read(info)
		require.Equal(t, "{\"id\":1,\"more\":11}\n{\"id\":2,\"more\":21}", rows)
	}
	require.Equal(t, `{"n":"30"}`, h.ask("SELECT sum(n)::VARCHAR AS n FROM r"))
	require.Equal(t, `{"id":1,"n":11}`, h.ask("UPDATE r SET n = n + 1 WHERE id = 1 RETURNING *"))
	require.EqualValues(t, 1, h.execute("UPDATE r SET n = n + 1 WHERE id = 1 RETURNING *"), "an update by DoPut has a count")
	require.Equal(t, `{"n":12}`, h.ask("DELETE FROM r WHERE id = 1 RETURNING n"))
	require.Empty(t, h.ask("DELETE FROM r WHERE id = 1 RETURNING n"))

	schema, err := h.client.sql.GetExecuteSchema(ctx, "DELETE FROM r RETURNING id AS gone")
	require.NoError(t, err)
	described, err := flight.DeserializeSchema(schema.GetSchema(), memory.DefaultAllocator)
	require.NoError(t, err)
	require.Equal(t, "gone", described.Field(0).Name)
	require.Equal(t, `{"c":1}`, h.ask("SELECT count(*) AS c FROM r"), "asking for the schema runs nothing")

	p, err := h.client.sql.Prepare(ctx, "UPDATE r SET n = n + 1 WHERE id = ? RETURNING id, n")
	require.NoError(t, err)
	require.Equal(t, "id", p.DatasetSchema().Field(0).Name)
	p.SetParameters(row(t, arrow.PrimitiveTypes.Int64, `[{"p":2},{"p":7},{"p":2}]`))
	info, err = p.Execute(ctx)
	require.NoError(t, err)
	for range 2 {
		rows, _ := h.read(info)
		require.Equal(t, "{\"id\":2,\"n\":21}\n{\"id\":2,\"n\":22}", rows)
	}
	n, err := p.ExecuteUpdate(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	require.NoError(t, p.Close(ctx))

	open, err := h.client.sql.Prepare(ctx, "INSERT INTO r SELECT ?, 5 WHERE ? IS NULL RETURNING *")
	require.NoError(t, err)
	open.SetParameters(row(t, arrow.PrimitiveTypes.Int64, `[{"p":5}]`))
	_, err = open.Execute(ctx)
	requireCode(t, err, codes.InvalidArgument, "2 parameters")
	require.NoError(t, open.Close(ctx))
	_, err = h.client.sql.Prepare(ctx, "DELETE FROM r RETURNING ? AS echo")
	requireCode(t, err, codes.InvalidArgument, "parameter")
}

// TestReturnedRowsAreBounded has more statements return rows than wait: those that were read go first.
func TestReturnedRowsAreBounded(t *testing.T) {
	h := serve(t)
	ctx := context.Background()
	h.execute("CREATE TABLE r (id BIGINT PRIMARY KEY)")
	first, err := h.client.sql.Execute(ctx, "INSERT INTO r VALUES (-1) RETURNING id")
	require.NoError(t, err)
	second, err := h.client.sql.Execute(ctx, "INSERT INTO r VALUES (-2) RETURNING id")
	require.NoError(t, err)
	h.read(second)
	h.server.returned.max = 3
	for i := range 2 {
		_, err := h.client.sql.Execute(ctx, fmt.Sprintf("INSERT INTO r VALUES (%d) RETURNING id", i))
		require.NoError(t, err)
	}
	require.Len(t, h.server.returned.byHandle, 3)
	rows, _ := h.read(first)
	require.Equal(t, `{"id":-1}`, rows)
	r, err := h.client.sql.DoGet(ctx, second.GetEndpoint()[0].GetTicket())
	if err == nil {
		r.Next()
		err = r.Err()
		r.Release()
	}
	require.Equal(t, codes.NotFound, status.Code(err), "%v", err)
}
