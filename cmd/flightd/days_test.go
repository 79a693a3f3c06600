package main

import (
	"slices"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/require"
)

func sampleDays(t *testing.T) (*sample, *days) {
	s, err := newSample()
	require.NoError(t, err)
	t.Cleanup(s.release)
	return s, newDays(s)
}

// TestDaysAreTheHoursOfOneStation compares every curve with the readings that it is made of: the sample has 24
// stations, one after the other in each hour.
func TestDaysAreTheHoursOfOneStation(t *testing.T) {
	s, d := sampleDays(t)
	stations, celsius := s.all.Column(1).(*array.String), s.all.Column(3).(*array.Float64)
	const stationCount = 24
	last := int64(0)
	for _, one := range d.all {
		require.Greater(t, one.id, last, "ids ascend")
		last = one.id
		require.Len(t, one.celsius, dayHours)
		for hour, c := range one.celsius {
			row := int(one.id) - 1 + hour*stationCount
			if celsius.IsNull(row) || float32(celsius.Value(row)) != c || stations.Value(row) != one.station {
				t.Fatalf("hour %d of day %d is %v at %s; row %d is %v", hour, one.id, c, one.station, row, celsius.ValueStr(row))
			}
		}
	}
	missing := 0
	for row := range int(s.rows()) - (dayHours-1)*stationCount {
		for hour := range dayHours {
			if celsius.IsNull(row + hour*stationCount) {
				missing++
				break
			}
		}
	}
	require.Positive(t, missing)
	require.Len(t, d.all, int(s.rows())-(dayHours-1)*stationCount-missing, "only curves that lack an hour are left out")
	require.Greater(t, len(d.all), 4096+len(d.all)/24, "with fewer rows a search does without the index")
}

func TestNearestDaysAreThoseOfASort(t *testing.T) {
	_, d := sampleDays(t)
	to, ok := d.find("Zugspitze", time.Date(2026, 1, 26, 0, 0, 0, 0, time.UTC))
	require.True(t, ok)
	_, ok = d.find("Nowhere", time.Date(2026, 1, 26, 0, 0, 0, 0, time.UTC))
	require.False(t, ok)

	others := slices.DeleteFunc(slices.Clone(d.all), func(one day) bool { return one.station == to.station })
	slices.SortStableFunc(others, func(a, b day) int {
		if to.squared(a) < to.squared(b) {
			return -1
		}
		if to.squared(a) > to.squared(b) {
			return 1
		}
		return 0
	})
	var want []int64
	for i, one := range others[:20] {
		want = append(want, one.id)
		if i > 0 && i <= nearDays {
			require.Greater(t, to.squared(one)-to.squared(others[i-1]), 0.01, "the server's narrower numbers order them alike")
		}
	}
	require.Equal(t, want, d.nearest(to, 20))

	w := to.warmer(1_000_000, "Testfeld", 0.5)
	require.InDelta(t, dayHours*0.25, to.squared(w), 1e-4)
	require.Zero(t, to.squared(to), "the curve itself was not changed")
	d.all = append(d.all, w, w.warmer(1_000_001, "Testfeld", 0))
	require.Equal(t, []int64{1_000_000, 1_000_001, want[0]}, d.nearest(to, 3), "of equal ones the smaller id comes first")
}

func TestDaysBatchHasTheColumnsOfTheTable(t *testing.T) {
	_, d := sampleDays(t)
	b := daysBatch(d.all[:3])
	defer b.Release()
	require.Equal(t, int64(3), b.NumRows())
	curves := b.Column(3).(*array.FixedSizeList)
	require.Equal(t, d.all[1].celsius, curves.ListValues().(*array.Float32).Float32Values()[dayHours:2*dayHours])
	require.Equal(t, d.all[2].id, b.Column(0).(*array.Int64).Value(2))
	require.Equal(t, d.all[2].station, b.Column(1).(*array.String).Value(2))
	require.Equal(t, d.all[2].begins, b.Column(2).(*array.Timestamp).Value(2))
	require.True(t, arrow.TypeEqual(arrow.FixedSizeListOf(24, arrow.PrimitiveTypes.Float32), curves.DataType()))
}

func TestVectorTextIsWhatSQLReads(t *testing.T) {
	v := []float32{-1.2, 0, 3.5, 1e-9}
	require.Equal(t, "[-1.2, 0, 3.5, 1e-09]", vectorText(v, 4))
	require.Equal(t, "[-1.2, 0, …]", vectorText(v, 2))
}
