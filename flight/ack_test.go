package flight

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lsm"
)

func TestAcksTellTheNewestVisibleBatch(t *testing.T) {
	a := newAcks(mark{})
	f := func(visible lsm.LSN, want int64, waiting bool) {
		t.Helper()
		m, more := a.advance(visible)
		require.Equal(t, want, m.Batches)
		require.Equal(t, waiting, more)
	}
	f(100, 0, false)
	for i := range int64(5) {
		a.add(mark{Batches: i + 1, Rows: 10 * (i + 1), Seq: lsm.LSN(101 + 2*i)})
	}
	require.Len(t, a.added, 1, "one signal for all")
	f(100, 0, true)
	f(104, 2, true)
	f(104, 2, true)
	f(103, 2, true)
	f(109, 5, false)
	require.EqualValues(t, 5, a.newest().Batches)
	a.add(mark{Batches: 6, Rows: 50, Seq: 109}) // an empty batch
	f(109, 6, false)
	require.Equal(t, `{"batches":6,"rows":50,"seq":109}`, string(a.newest().encode()))
	require.Equal(t, `{"batches":0,"rows":0,"seq":18446744073709551615}`, string(mark{Seq: 1<<64 - 1}.encode()))
}
