package flight

import (
	"context"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
)

// endlessCount is a query that computes for hours.
const endlessCount = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE hash(a.range + b.range) = 1"

// poll asks once.
func (h *harness) poll(d *flight.FlightDescriptor) (*flight.PollInfo, error) {
	return h.client.sql.Client.PollFlightInfo(context.Background(), d)
}

// pollToEnd asks until the statement is over.
func (h *harness) pollToEnd(d *flight.FlightDescriptor) *flight.FlightInfo {
	h.t.Helper()
	progress := 0.0
	for {
		info, err := h.poll(d)
		require.NoError(h.t, err)
		require.GreaterOrEqual(h.t, info.GetProgress(), progress)
		require.True(h.t, info.GetExpirationTime().AsTime().After(time.Now()))
		progress = info.GetProgress()
		if d = info.GetFlightDescriptor(); d == nil {
			require.Equal(h.t, 1.0, progress)
			return info.GetInfo()
		}
	}
}

func statementQuery(t testing.TB, sql string) *flight.FlightDescriptor {
	t.Helper()
	return command(t, &pb.CommandStatementQuery{Query: sql})
}

func TestAPolledStatementRunsOnceInTheBackground(t *testing.T) {
	h := serve(t)
	h.execute("CREATE TABLE n (id BIGINT PRIMARY KEY)")
	rows, _ := h.read(h.pollToEnd(statementQuery(t, "INSERT INTO n SELECT range FROM range(10)")))
	require.Equal(t, `{"Count":10}`, rows)
	info := h.pollToEnd(statementQuery(t, "SELECT max(id) AS s FROM n"))
	h.execute("DELETE FROM n")
	for range 2 { // the result is there, whatever happens to the table
		rows, _ = h.read(info)
		require.Equal(t, `{"s":9}`, rows)
	}
	p, err := h.client.sql.Prepare(context.Background(), "SELECT 7 AS seven")
	require.NoError(t, err)
	rows, _ = h.read(h.pollToEnd(command(t, &pb.CommandPreparedStatementQuery{PreparedStatementHandle: p.Handle()})))
	require.Equal(t, `{"seven":7}`, rows)
	info = h.pollToEnd(command(t, &pb.CommandGetCatalogs{}))
	rows, _ = h.read(info)
	require.Equal(t, `{"catalog_name":"flightd"}`, rows)
	_, err = h.poll(statementQuery(t, "SELEC 1"))
	requireCode(t, err, codes.InvalidArgument)
	_, err = h.poll(command(t, &pb.TicketStatementQuery{StatementHandle: []byte("job x")}))
	requireCode(t, err, codes.NotFound)
	_, err = h.poll(command(t, &pb.TicketStatementQuery{StatementHandle: []byte("x")}))
	requireCode(t, err, codes.InvalidArgument)
}

func TestAStatementInTheBackgroundEnds(t *testing.T) {
	h := serve(t)
	f := func(code codes.Code, end func(*flight.PollInfo)) {
		t.Helper()
		info, err := h.poll(statementQuery(t, endlessCount))
		require.NoError(t, err)
		require.NotNil(t, info.GetFlightDescriptor())
		require.Zero(t, info.GetProgress())
		again, err := h.poll(info.GetFlightDescriptor())
		require.NoError(t, err)
		require.Equal(t, info.GetFlightDescriptor().GetCmd(), again.GetFlightDescriptor().GetCmd())
		end(info)
		_, err = h.poll(info.GetFlightDescriptor())
		requireCode(t, err, code)
		h.server.tasks.Wait() // it does not go on unseen
	}
	f(codes.NotFound, func(info *flight.PollInfo) {
		_, err := h.client.sql.CancelFlightInfo(context.Background(), &flight.CancelFlightInfoRequest{Info: info.GetInfo()})
		require.NoError(t, err)
	})
	f(codes.NotFound, func(*flight.PollInfo) { h.server.sweep(time.Now().Add(jobTime + time.Second)) })
	f(codes.NotFound, func(*flight.PollInfo) {
		_, err := h.client.sql.CloseSession(context.Background(), &flight.CloseSessionRequest{})
		require.NoError(t, err)
	})
	f(codes.Unavailable, func(*flight.PollInfo) {
		over, cancel := context.WithCancel(context.Background())
		cancel()
		require.ErrorIs(t, h.server.Shutdown(over), context.Canceled)
	})
}
