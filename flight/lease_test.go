package flight

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// inParts makes endpoints of 1,000 rows.
func inParts(o *Options) { o.PartitionRows = 1000 }

// partIDs reads one endpoint over a connection of its own.
func (h *harness) partIDs(e *flight.FlightEndpoint) (ids []int64, err error) {
	c, err := Dial(h.addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r, err := c.sql.DoGet(context.Background(), e.GetTicket())
	if err != nil {
		return nil, err
	}
	defer r.Release()
	for r.Next() {
		ids = append(ids, r.RecordBatch().Column(0).(*array.Int64).Int64Values()...)
	}
	return ids, r.Err()
}

// allIDs reads all endpoints at once.
func (h *harness) allIDs(info *flight.FlightInfo) map[int64]int {
	h.t.Helper()
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		got = map[int64]int{}
	)
	for _, e := range info.GetEndpoint() {
		wg.Go(func() {
			ids, err := h.partIDs(e)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				h.t.Error(err)
			}
			for _, id := range ids {
				got[id]++
			}
		})
	}
	wg.Wait()
	return got
}

func TestALargeScanHasSeveralEndpointsOfOneSnapshot(t *testing.T) {
	h := serve(t, inParts)
	ctx := context.Background()
	h.execute("CREATE TABLE n (id BIGINT PRIMARY KEY, tag VARCHAR)")
	h.execute("INSERT INTO n SELECT range, 'x' FROM range(3000)")
	h.execute("OPTIMIZE n")
	for i := range 7 { // batches of a memtable
		h.execute(fmt.Sprintf("INSERT INTO n SELECT range, 'y' FROM range(%d, %d)", 3000+100*i, 3100+100*i))
	}
	p, err := h.client.sql.Prepare(ctx, "SELECT id FROM n WHERE id >= 10")
	require.NoError(t, err)
	defer p.Close(ctx)
	prepared, err := p.Execute(ctx)
	require.NoError(t, err)
	direct, err := h.client.sql.Execute(ctx, "SELECT id FROM n WHERE id >= 10")
	require.NoError(t, err)
	h.execute("INSERT INTO n VALUES (100000, 'too late')")
	h.execute("DELETE FROM n WHERE id < 2000")
	h.execute("OPTIMIZE n")
	for _, info := range []*flight.FlightInfo{prepared, direct, direct} {
		require.Len(t, info.GetEndpoint(), 3)
		got := h.allIDs(info)
		require.Len(t, got, 3690)
		for id, times := range got {
			require.True(t, times == 1 && id >= 10 && id < 3700, "id %d came %d times", id, times)
		}
	}
	for _, sql := range []string{"SELECT id FROM n ORDER BY id", "SELECT tag FROM n WHERE id = 2500", "SELECT tag FROM n WHERE id IN (2500, 2501)"} {
		info, err := h.client.sql.Execute(ctx, sql)
		require.NoError(t, err)
		require.Len(t, info.GetEndpoint(), 1, sql)
		require.Nil(t, info.GetEndpoint()[0].GetExpirationTime())
	}
}

func TestTicketsOfALeaseExpireUnlessRenewed(t *testing.T) {
	h := serve(t, inParts)
	ctx := context.Background()
	h.execute("CREATE TABLE n (id BIGINT PRIMARY KEY)")
	h.execute("INSERT INTO n SELECT range FROM range(3000)")
	ask := func() *flight.FlightInfo {
		info, err := h.client.sql.Execute(ctx, "SELECT id FROM n")
		require.NoError(t, err)
		return info
	}
	info, kept := ask(), ask()
	expires := kept.GetEndpoint()[0].GetExpirationTime().AsTime()
	require.WithinDuration(t, time.Now().Add(leaseTime), expires, time.Minute)
	lease, err := ticketOf(kept.GetEndpoint()[0].GetTicket().GetTicket())
	require.NoError(t, err)
	l, err := h.server.leases.find(lease.lease)
	require.NoError(t, err)
	h.server.leases.renew(l, time.Now().Add(leaseTime))
	renewed, err := h.client.sql.RenewFlightEndpoint(ctx, &flight.RenewFlightEndpointRequest{Endpoint: info.GetEndpoint()[1]})
	require.NoError(t, err)
	require.Equal(t, info.GetEndpoint()[1].GetTicket().GetTicket(), renewed.GetTicket().GetTicket())
	require.False(t, renewed.GetExpirationTime().AsTime().Before(info.GetEndpoint()[1].GetExpirationTime().AsTime()))

	h.server.sweep(time.Now().Add(leaseTime + time.Second))
	_, err = h.partIDs(info.GetEndpoint()[0])
	requireCode(t, err, codes.NotFound, "expired", "run the query again")
	_, err = h.client.sql.RenewFlightEndpoint(ctx, &flight.RenewFlightEndpointRequest{Endpoint: info.GetEndpoint()[1]})
	requireCode(t, err, codes.NotFound)
	require.Len(t, h.allIDs(kept), 3000)

	_, err = h.client.sql.CancelFlightInfo(ctx, &flight.CancelFlightInfoRequest{Info: kept})
	require.NoError(t, err)
	_, err = h.partIDs(kept.GetEndpoint()[0])
	requireCode(t, err, codes.NotFound)

	plain, err := h.client.sql.Execute(ctx, "SELECT 1")
	require.NoError(t, err)
	renewed, err = h.client.sql.RenewFlightEndpoint(ctx, &flight.RenewFlightEndpointRequest{Endpoint: plain.GetEndpoint()[0]})
	require.NoError(t, err)
	require.Nil(t, renewed.GetExpirationTime())
}

func TestAListingKeepsNoSnapshots(t *testing.T) {
	h := serve(t, inParts)
	ctx := context.Background()
	h.execute("CREATE TABLE n (id BIGINT PRIMARY KEY)")
	h.execute("INSERT INTO n SELECT range FROM range(3000)")
	flights, err := h.client.sql.Client.ListFlights(ctx, &flight.Criteria{})
	require.NoError(t, err)
	listed, err := flights.Recv()
	require.NoError(t, err)
	require.Len(t, listed.GetEndpoint(), 1)
	require.Empty(t, h.server.leases.byID)
	info, err := h.client.sql.Client.GetFlightInfo(ctx, listed.GetFlightDescriptor())
	require.NoError(t, err)
	require.Len(t, info.GetEndpoint(), 3)
	require.Equal(t, info.GetSchema(), listed.GetSchema())
	require.Len(t, h.allIDs(listed), 3000)
	require.Len(t, h.allIDs(info), 3000)
}

func TestTheLeaseThatIsMissedLeastGoesFirst(t *testing.T) {
	h := serve(t, inParts)
	h.execute("CREATE TABLE n (id BIGINT PRIMARY KEY)")
	h.execute("INSERT INTO n SELECT range FROM range(2000)")
	var infos []*flight.FlightInfo
	for range 3 {
		info, err := h.client.sql.Execute(context.Background(), "SELECT id FROM n")
		require.NoError(t, err)
		infos = append(infos, info)
	}
	require.Len(t, h.allIDs(infos[1]), 2000) // read to the end
	for _, next := range []int{1, 0, 2} {
		require.True(t, h.server.leases.dropOne())
		_, err := h.partIDs(infos[next].GetEndpoint()[0])
		requireCode(t, err, codes.NotFound)
	}
	require.False(t, h.server.leases.dropOne())
}

// stall begins to read an endless result and takes nothing of it, until the server waits.
func (h *harness) stall() (*flight.FlightInfo, pb.FlightService_DoGetClient) {
	h.t.Helper()
	info, err := h.client.sql.Execute(context.Background(), "SELECT a.range + b.range AS x FROM range(1000000000) a, range(1000000) b")
	require.NoError(h.t, err)
	stream, err := h.client.sql.Client.DoGet(context.Background(), info.GetEndpoint()[0].GetTicket())
	require.NoError(h.t, err)
	blocked := func() int64 {
		h.server.running.mu.Lock()
		defer h.server.running.mu.Unlock()
		for _, readers := range h.server.running.byTicket {
			for read := range readers {
				return read.blocked.Load()
			}
		}
		return 0
	}
	last := int64(0)
	require.Eventually(h.t, func() bool {
		now := blocked()
		same := now != 0 && now == last
		last = now
		return same
	}, patience, 100*time.Millisecond)
	return info, stream
}

// ended waits until no query runs.
func (h *harness) ended() {
	h.t.Helper()
	h.endedBy(func() {})
}

// endedBy does something until no query runs: a reader that is blocked takes a little more while what lies between it and
// its client has room, and is not blocked then.
func (h *harness) endedBy(do func()) {
	h.t.Helper()
	require.Eventually(h.t, func() bool {
		do()
		h.server.running.mu.Lock()
		defer h.server.running.mu.Unlock()
		return len(h.server.running.byTicket) == 0
	}, patience, patience/1000)
}

// drain reads a stream to its error.
func drain(stream pb.FlightService_DoGetClient) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
}

func TestAReaderThatTakesNothingIsCutOff(t *testing.T) {
	h := serve(t)
	_, stream := h.stall()
	h.server.running.cutStalled(time.Now(), time.Hour)
	h.server.running.cutLongest(time.Now())
	h.endedBy(func() { h.server.sweep(time.Now().Add(6 * time.Minute)) })
	requireCode(t, drain(stream), codes.Aborted, "took nothing")

	_, stream = h.stall()
	h.endedBy(func() { h.server.running.cutLongest(time.Now().Add(time.Minute)) })
	requireCode(t, drain(stream), codes.ResourceExhausted, "writers")
}

func TestAQueryIsCancelledWhileItsClientReadsNothing(t *testing.T) {
	h := serve(t)
	info, stream := h.stall()
	_, err := h.client.sql.CancelFlightInfo(context.Background(), &flight.CancelFlightInfoRequest{Info: info})
	require.NoError(t, err)
	h.ended()
	requireCode(t, drain(stream), codes.Canceled, "CancelFlightInfo")
}

func TestATokenIsASession(t *testing.T) {
	h := serve(t)
	held := func() int {
		h.server.prepared.mu.Lock()
		defer h.server.prepared.mu.Unlock()
		return len(h.server.prepared.byHandle)
	}
	with := func(token string) context.Context {
		return metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+token)
	}
	other, err := Dial(h.addr)
	require.NoError(t, err)
	for _, token := range []string{"red", "blue"} {
		_, err = other.sql.Prepare(with(token), "SELECT 1")
		require.NoError(t, err)
	}
	_, err = other.sql.Prepare(context.Background(), "SELECT 1")
	require.NoError(t, err)
	require.Equal(t, 3, held())
	require.NoError(t, other.Close())
	require.Eventually(t, func() bool { return held() == 2 }, patience, patience/1000, "the connection's own statement goes with it")
	_, err = h.client.sql.CloseSession(with("red"), &flight.CloseSessionRequest{})
	require.NoError(t, err)
	require.Equal(t, 1, held(), "any connection may close the token's session")

	_, err = h.client.sql.Prepare(context.Background(), "SELECT 1")
	require.NoError(t, err)
	h.server.sweep(time.Now().Add(29 * time.Minute))
	require.Equal(t, 2, held())
	h.server.sweep(time.Now().Add(31 * time.Minute))
	require.Zero(t, held(), "both were idle")
	require.Empty(t, h.server.sessions.byToken)
}

func TestASessionThatIsUsedIsNotIdle(t *testing.T) {
	h := serve(t)
	_, err := h.client.sql.Prepare(context.Background(), "SELECT 1")
	require.NoError(t, err)
	_, stream := h.stall()
	h.server.prepared.mu.Lock()
	before := len(h.server.prepared.byHandle)
	h.server.prepared.mu.Unlock()
	for _, s := range h.server.sessions.idle(time.Now().Add(time.Hour), time.Minute) {
		h.server.endSession(s)
	}
	h.server.prepared.mu.Lock()
	require.Len(t, h.server.prepared.byHandle, before)
	h.server.prepared.mu.Unlock()
	h.endedBy(func() { h.server.running.cutLongest(time.Now().Add(time.Minute)) })
	require.Error(t, drain(stream))
}

var _ grpc.ServerStream = watchedStream{}
