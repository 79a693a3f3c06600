package testdata

import (
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/require"
)

func TestReadingsAreDenselyKeyed(t *testing.T) {
	batches, err := Readings()
	require.NoError(t, err)
	next := int64(1)
	for _, b := range batches {
		require.Equal(t, []string{"id", "station", "taken", "celsius", "humidity", "note"}, columnNames(b.Schema().Fields()))
		for _, id := range b.Column(0).(*array.Int64).Int64Values() {
			require.Equal(t, next, id)
			next++
		}
		b.Release()
	}
	require.Equal(t, int64(38_401), next)
	require.Less(t, len(readings), 1<<20, "the sample is part of the binary")
}

func columnNames(fields []arrow.Field) []string {
	var names []string
	for _, f := range fields {
		names = append(names, f.Name)
	}
	return names
}
