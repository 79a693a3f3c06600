package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/flightd/flightd/flight"
)

const (
	// nearDays is how many days are searched for.
	nearDays = 3
	// dayPartitions is how many partitions the index has, and also how many are probed. With all of them, and the
	// vectors themselves in the index, it has to find what comparing all rows finds: that is what the demo checks.
	dayPartitions = 16
	// dayBatchRows is how many curves are sent at a time.
	dayBatchRows = 2000
)

// indexDays is the statement that indexes the curves.
var indexDays = fmt.Sprintf("CREATE INDEX near ON days USING IVF_FLAT (celsius) WITH (num_partitions = %d)", dayPartitions)

// searchDays asks for the days at other stations that are most like d.day. The unit of the answer is for people:
// the root of the mean square of what lies between two curves in an hour.
func (d *demo) searchDays(curve string) string {
	return fmt.Sprintf(`SELECT id, station, begins, round(sqrt(_distance / %d), 2) AS degrees_apart
FROM lance_vector_search('days', 'celsius', %s, k := %d, nprobs := %d, prefilter := true)
WHERE station <> '%s' ORDER BY _distance`, dayHours, curve, nearDays, dayPartitions, d.day.station)
}

// vectorText writes the first n numbers of a vector as SQL does, and an ellipsis for others.
func vectorText(v []float32, n int) string {
	var texts []string
	for _, x := range v[:n] {
		texts = append(texts, strconv.FormatFloat(float64(x), 'g', -1, 32))
	}
	if n < len(v) {
		texts = append(texts, "…")
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

// similar streams vectors made from the sample and finds the nearest to one while all of them are fresh.
func (d *demo) similar(ctx context.Context) error {
	d.title("Find days like this one: %d hours of temperatures as a vector", dayHours)
	d.days = newDays(d.sample)
	var ok bool
	if d.day, ok = d.days.find("Zugspitze", time.Date(2026, 1, 26, 0, 0, 0, 0, time.UTC)); !ok {
		return errors.New("the sample has no curve of the Zugspitze from 26 January 2026 on")
	}
	d.say("%s", daysTable)
	if _, err := d.client.Execute(ctx, daysTable); err != nil {
		return err
	}
	var batches []arrow.RecordBatch
	for some := range slices.Chunk(d.days.all, dayBatchRows) {
		batches = append(batches, daysBatch(some))
	}
	begin := time.Now()
	last, err := d.send(ctx, "days", batches)
	if err != nil {
		return err
	}
	if last.Rows != int64(len(d.days.all)) {
		return fmt.Errorf("the stream of days was acknowledged up to row %d of %d", last.Rows, len(d.days.all))
	}
	d.say("%s curves streamed in %s: for each reading the %d hours from it on, where none is missing",
		thousands(last.Rows), seconds(time.Since(begin)), dayHours)
	answer, took, err := d.nearest(ctx)
	if err != nil {
		return err
	}
	d.block(d.searchDays(vectorText(d.day.celsius, 4)))
	d.block(answer)
	d.say("(%s) the days most like 26 January 2026 on the Zugspitze, none of them merged or indexed yet;", seconds(took))
	d.say("the demo compared all curves by itself and came to the same days")
	return nil
}

// send streams batches into a table, releases them and returns the last ack.
func (d *demo) send(ctx context.Context, table string, batches []arrow.RecordBatch) (last flight.UploadAck, err error) {
	defer func() {
		for _, b := range batches {
			b.Release()
		}
	}()
	up, err := d.client.Put(ctx, batches[0].Schema(), table)
	if err != nil {
		return last, err
	}
	for _, b := range batches {
		if err := up.Send(b); err != nil {
			return last, err
		}
	}
	if err := up.CloseSend(); err != nil {
		return last, err
	}
	return readAcks(up, func(flight.UploadAck) {})
}

// nearest searches for the days that are most like d.day and compares them with those that the demo finds by itself.
// The time is that of the search alone.
func (d *demo) nearest(ctx context.Context) (answer string, took time.Duration, err error) {
	var t textTable
	var found []int64
	begin := time.Now()
	err = d.client.Query(ctx, d.searchDays(vectorText(d.day.celsius, dayHours)), func(b arrow.RecordBatch) error {
		ids, ok := b.Column(0).(*array.Int64)
		if !ok {
			return fmt.Errorf("the ids are %s, want integers", b.Column(0).DataType())
		}
		found = append(found, ids.Int64Values()...)
		t.add(b)
		return nil
	})
	took = time.Since(begin)
	if err != nil {
		return "", took, err
	}
	if want := d.days.nearest(d.day, nearDays); !slices.Equal(found, want) {
		return "", took, fmt.Errorf("the search found the days %v, and the nearest ones are %v", found, want)
	}
	return t.String(), took, nil
}

// index merges the curves into their base table, indexes them there, and searches through the index; then it adds
// a day, which is found although the index in the base does not have it.
func (d *demo) index(ctx context.Context) error {
	begin := time.Now()
	if _, err := d.client.Execute(ctx, "OPTIMIZE days"); err != nil {
		return err
	}
	merged := time.Since(begin)
	begin = time.Now()
	if _, err := d.client.Execute(ctx, indexDays); err != nil {
		return err
	}
	d.say("OPTIMIZE days: %s; %s: %s", seconds(merged), indexDays, seconds(time.Since(begin)))
	if err := d.byIndex(ctx); err != nil {
		return err
	}
	d.say("the same search, now by the index with all %d partitions probed: the same days", dayPartitions)

	one := d.day.warmer(crashKeys, "Testfeld", 0.5)
	d.days.all = append(d.days.all, one)
	if _, err := d.send(ctx, "days", []arrow.RecordBatch{daysBatch([]day{one})}); err != nil {
		return err
	}
	if err := d.byIndex(ctx); err != nil {
		return err
	}
	d.say("one more day, half a degree warmer throughout: the nearest as soon as it was acknowledged")
	return nil
}

// byIndex searches as nearest does and checks that the index serves the base.
func (d *demo) byIndex(ctx context.Context) error {
	if _, _, err := d.nearest(ctx); err != nil {
		return err
	}
	plan, err := d.ask(ctx, "EXPLAIN "+d.searchDays(vectorText(d.day.celsius, dayHours)))
	if err != nil {
		return err
	}
	if !strings.Contains(plan, "base: index near") {
		return fmt.Errorf("the index does not serve the search:\n%s", plan)
	}
	return nil
}
