package query

import (
	"errors"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"
)

func TestProgressFollowsTheScans(t *testing.T) {
	s := &memStore{block: make(chan struct{})}
	numbersTable(t, s, "n", 100_000, 10_000)
	e := newTestEngine(t, s)
	p := &Progress{}
	st, err := e.Prepare(t.Context(), nil, "SELECT id FROM n ORDER BY hash(id)")
	require.NoError(t, err)
	require.Zero(t, p.Fraction())
	collected := make(chan *Rows, 1)
	failed := make(chan error, 1)
	go func() {
		rows, err := st.Collect(WithProgress(t.Context(), p), nil)
		collected <- rows
		failed <- err
	}()
	last := 0.0
	for range 5 {
		s.block <- struct{}{}
		now := p.Fraction()
		require.GreaterOrEqual(t, now, last)
		last = now
	}
	close(s.block)
	rows := <-collected
	require.NoError(t, <-failed)
	require.InDelta(t, 0.99, p.Fraction(), 0.001, "the caller alone knows that it is over")
	for range 2 { // as often as one likes
		n := int64(0)
		require.NoError(t, rows.Read(func(rec arrow.RecordBatch) error {
			n += rec.NumRows()
			return nil
		}))
		require.EqualValues(t, 100_000, n)
	}
	rows.Close()
	require.Error(t, rows.Read(nil))
}

func TestCollectOfAQueryThatFails(t *testing.T) {
	s := &memStore{failNext: errors.New("broken disk")}
	numbersTable(t, s, "n", 1000, 100)
	e := newTestEngine(t, s)
	st, err := e.Prepare(t.Context(), nil, "SELECT id FROM n")
	require.NoError(t, err)
	_, err = st.Collect(t.Context(), nil)
	require.ErrorContains(t, err, "broken disk")
}
