package query

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lsm"
)

// TestStatementsTimeOut runs statements that would take for ever under a limit.
func TestStatementsTimeOut(t *testing.T) {
	db, err := lsm.Open(t.Context(), lsm.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	open := func(limit time.Duration) alterHarness {
		e, err := Open(t.Context(), Options{DB: db, Timeout: limit})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, e.Close()) })
		return alterHarness{t, e}
	}
	free, h := open(0), open(2*time.Second)
	e := h.e
	free.update("CREATE TABLE t (id BIGINT PRIMARY KEY)")
	free.update("INSERT INTO t SELECT i FROM range(1000) r(i)")
	const endless = "SELECT sum(a.id + b.id + c.id + d.id)::BIGINT AS id FROM t a, t b, t c, t d WHERE hash(a.id, b.id, c.id, d.id) <> 1"
	_, err = tryRows(e, endless, nil)
	require.ErrorContains(t, err, "--query-timeout")
	require.Equal(t, DeadlineExceeded, codeOf(t, err))
	for _, sql := range []string{"INSERT INTO t " + endless, "CREATE TABLE u AS " + endless, "DELETE FROM t WHERE id = (" + endless + ")"} {
		h.fails(DeadlineExceeded, "2s", sql)
	}
	// A client that reads too slowly: nothing is taken until the time is over.
	st, err := e.Prepare(t.Context(), e.NewSession(), "SELECT a.id, b.id FROM t a, t b, t c")
	require.NoError(t, err)
	res, err := st.Query(t.Context(), nil)
	if err == nil { // else the machine is so busy that the time was over before
		<-res.ctx.Done()
		for err == nil {
			rec, next := res.Next(t.Context())
			if err = next; err == nil {
				rec.Release()
			}
		}
		require.NoError(t, res.Close())
	}
	require.Equal(t, DeadlineExceeded, codeOf(t, err))
	require.Equal(t, []string{"1000"}, free.rows("SELECT count(*) FROM t"))
	require.Zero(t, e.Running())
}
