package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

const (
	// dayHours is how many temperatures make a curve, and so the dimension of the vectors.
	dayHours = 24
	// daysTable is the statement that creates a table for days.
	daysTable = `CREATE TABLE days (id BIGINT PRIMARY KEY, station VARCHAR, begins TIMESTAMP, celsius FLOAT[24])`
)

// days are vectors made from the sample: for each reading the temperatures at its station in the 24 hours from
// it on. A curve that lacks an hour is left out. They begin at every hour rather than at midnight only, because
// 1,600 midnights are so few rows that a search compares them all, index or not.
type days struct {
	all []day
}

// day is one curve. Its id is that of the reading with which it begins.
type day struct {
	id      int64
	station string
	begins  arrow.Timestamp
	celsius []float32
}

// newDays cuts the curves out of the sample, in the order of their ids.
func newDays(s *sample) *days {
	ids, stations := s.all.Column(0).(*array.Int64), s.all.Column(1).(*array.String)
	taken, celsius := s.all.Column(2).(*array.Timestamp), s.all.Column(3).(*array.Float64)
	byStation := map[string][]int{} // the rows of each station, which lie in the order of time
	for row := range int(s.rows()) {
		byStation[stations.Value(row)] = append(byStation[stations.Value(row)], row)
	}
	d := &days{}
	for station, rows := range byStation {
		for i := range len(rows) - dayHours + 1 {
			hours := rows[i : i+dayHours]
			if slices.ContainsFunc(hours, celsius.IsNull) || !hourly(taken, hours) {
				continue
			}
			one := day{id: ids.Value(hours[0]), station: station, begins: taken.Value(hours[0])}
			for _, row := range hours {
				one.celsius = append(one.celsius, float32(celsius.Value(row)))
			}
			d.all = append(d.all, one)
		}
	}
	slices.SortFunc(d.all, func(a, b day) int { return cmp.Compare(a.id, b.id) })
	return d
}

// hourly reports whether the readings in some rows were taken an hour apart.
func hourly(taken *array.Timestamp, rows []int) bool {
	for i, row := range rows {
		if taken.Value(row)-taken.Value(rows[0]) != arrow.Timestamp(time.Duration(i)*time.Hour/time.Microsecond) {
			return false
		}
	}
	return true
}

// find returns the curve of a station from a time on.
func (d *days) find(station string, begins time.Time) (day, bool) {
	for _, one := range d.all {
		if one.station == station && one.begins == arrow.Timestamp(begins.UnixMicro()) {
			return one, true
		}
	}
	return day{}, false
}

// squared is the square of the distance between two curves, in numbers of twice the width that the server has.
func (d day) squared(e day) float64 {
	var sum float64
	for i, c := range d.celsius {
		diff := float64(c) - float64(e.celsius[i])
		sum += diff * diff
	}
	return sum
}

// nearest returns the ids of the k curves of other stations that are nearest to one, by comparing them all.
func (d *days) nearest(to day, k int) []int64 {
	type neighbor struct {
		id      int64
		squared float64
	}
	var best []neighbor
	for _, one := range d.all {
		if one.station == to.station {
			continue
		}
		n := neighbor{one.id, to.squared(one)}
		at, _ := slices.BinarySearchFunc(best, n, func(a, b neighbor) int {
			if a.squared > b.squared {
				return 1
			}
			return -1 // of equal ones the first stays in front: its id is the smaller one
		})
		if best = slices.Insert(best, at, n); len(best) > k {
			best = best[:k]
		}
	}
	ids := make([]int64, len(best))
	for i, n := range best {
		ids[i] = n.id
	}
	return ids
}

// warmer returns a day of an invented station that is by some degrees warmer than d throughout.
func (d day) warmer(id int64, station string, degrees float32) day {
	w := day{id: id, station: station, begins: d.begins, celsius: slices.Clone(d.celsius)}
	for i := range w.celsius {
		w.celsius[i] += degrees
	}
	return w
}

// daysSchema is that of the batches in which days are sent.
var daysSchema = arrow.NewSchema([]arrow.Field{
	{Name: "id", Type: arrow.PrimitiveTypes.Int64},
	{Name: "station", Type: arrow.BinaryTypes.String},
	{Name: "begins", Type: &arrow.TimestampType{Unit: arrow.Microsecond}},
	{Name: "celsius", Type: arrow.FixedSizeListOf(dayHours, arrow.PrimitiveTypes.Float32)},
}, nil)

// daysBatch returns days as rows of the table. The caller releases it.
func daysBatch(some []day) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, daysSchema)
	defer b.Release()
	curves := b.Field(3).(*array.FixedSizeListBuilder)
	for _, one := range some {
		b.Field(0).(*array.Int64Builder).Append(one.id)
		b.Field(1).(*array.StringBuilder).Append(one.station)
		b.Field(2).(*array.TimestampBuilder).Append(one.begins)
		curves.Append(true)
		curves.ValueBuilder().(*array.Float32Builder).AppendValues(one.celsius, nil)
	}
	return b.NewRecordBatch()
}
