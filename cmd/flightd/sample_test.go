package main

import (
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/require"
)

func TestSampleRepeatsUnderNewKeys(t *testing.T) {
	s, err := newSample()
	require.NoError(t, err)
	defer s.release()

	first := s.batch(0, 100, 0)
	defer first.Release()
	again := s.batch(s.rows(), 100, 1_000_000)
	defer again.Release()
	require.True(t, array.Equal(first.Column(1), again.Column(1)))
	require.Equal(t, int64(1), first.Column(0).(*array.Int64).Value(0))
	require.Equal(t, 1_000_000+s.rows()+1, again.Column(0).(*array.Int64).Value(0))

	last := s.batch(s.rows()-30, 100, 0)
	defer last.Release()
	require.Equal(t, int64(30), last.NumRows(), "a batch ends where the sample ends")
}

func TestSampleCompareFindsAnyDifference(t *testing.T) {
	s, err := newSample()
	require.NoError(t, err)
	defer s.release()

	got := s.batch(500, 200, 7)
	defer got.Release()
	require.NoError(t, s.compare(got, 500, 7))
	require.Error(t, s.compare(got, 501, 7))
	require.Error(t, s.compare(got, 500, 8))

	shifted := s.batch(500, 200, 7)
	defer shifted.Release()
	other := s.batch(700, 200, 7)
	defer other.Release()
	for i := range int(got.NumCols()) {
		columns := append([]arrow.Array{}, shifted.Columns()...)
		columns[i] = other.Column(i)
		wrong := array.NewRecordBatch(s.schema(), columns, 200)
		require.ErrorContains(t, s.compare(wrong, 500, 7), "differ", s.schema().Field(i).Name)
		wrong.Release()
	}
}

func TestSampleChangesUpsertAndDelete(t *testing.T) {
	s, err := newSample()
	require.NoError(t, err)
	defer s.release()
	batches := s.changes()
	require.Len(t, batches, 2)
	require.Equal(t, "corrected", batches[0].Column(5).ValueStr(0))
	for i, deletes := range []bool{false, true} {
		b := batches[i]
		require.Equal(t, "_tombstone", b.ColumnName(6))
		require.Equal(t, deletes, b.Column(6).(*array.Boolean).Value(0))
		require.Zero(t, b.Column(0).NullN(), "a key is never null")
		b.Release()
	}
}

func TestThousandsAndSecondsReadWell(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		require.Equal(t, want, thousands(n))
	}
	require.Equal(t, "1.5 ms", seconds(1_500_000))
	require.Equal(t, "2.5 s", seconds(2_500_000_000))
}
