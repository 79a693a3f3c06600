package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/flight"
)

const (
	// crashBatchRows is small, so that the kill finds many batches under way.
	crashBatchRows = 100
	// crashAfterRows is how many rows of the second stream are acknowledged before the server is killed.
	crashAfterRows = 50_000
	// crashKeys lies above all keys of the sample: the second stream has keys of its own.
	crashKeys = 1_000_000
)

// crash streams without end and kills the server while batches are under way.
func (d *demo) crash(ctx context.Context) error {
	d.title("Kill the server with -9 in mid-stream")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up, err := d.client.Put(ctx, d.sample.schema(), "readings")
	if err != nil {
		return err
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		d.sendForever(up)
	}()
	killed := false
	last, err := readAcks(up, func(a flight.UploadAck) {
		if !killed && a.Rows >= crashAfterRows {
			killed = true
			d.child.kill()
		}
	})
	cancel()
	<-sent
	if !killed {
		return fmt.Errorf("the stream ended by itself after %d acknowledged rows: %w", last.Rows, err)
	}
	d.acked = last
	d.say("process %d killed while a stream was running", d.child.cmd.Process.Pid)
	d.say("the client had sent %s rows; %s of them were acknowledged", thousands(d.sentRows), thousands(last.Rows))
	d.child = nil
	return d.client.Close()
}

// sendForever repeats the sample under ever new keys until the stream breaks. That it breaks is the point, so
// the error is not looked at.
func (d *demo) sendForever(up *flight.Upload) {
	for {
		batch := d.sample.batch(d.sentRows, crashBatchRows, crashKeys)
		err := up.Send(batch)
		batch.Release()
		if err != nil {
			return
		}
		d.sentRows += crashBatchRows
	}
}

// recover starts the server again and compares every row with what was sent.
func (d *demo) recover(ctx context.Context) error {
	d.title("Start it again on the same folder")
	if err := d.connect(ctx); err != nil {
		return err
	}
	d.say("ready after %s, the log replayed", seconds(d.child.took))
	after, err := d.ask(ctx, overviewOfSample)
	if err != nil {
		return err
	}
	if after != d.answer {
		return fmt.Errorf("the answer changed by the crash; before:\n%s\nafter:\n%s", d.answer, after)
	}
	d.say("the first stream's rows, changes and deletes: unchanged")
	if err := d.byIndex(ctx); err != nil {
		return err
	}
	d.say("the days like this one, by the index and from the log: unchanged")

	begin := time.Now()
	found, err := d.compareCrashed(ctx)
	if err != nil {
		return err
	}
	switch {
	case found < d.acked.Rows:
		return fmt.Errorf("%d rows were acknowledged and only %d are there", d.acked.Rows, found)
	case found%crashBatchRows != 0:
		return fmt.Errorf("%d rows are there, which is not a whole number of batches of %d", found, crashBatchRows)
	}
	d.say("the interrupted stream: %s rows acknowledged, %s rows there, each compared with what was sent (%s)",
		thousands(d.acked.Rows), thousands(found), seconds(time.Since(begin)))
	d.say("nothing acknowledged was lost; beyond it %d whole batches had reached the log before their acks left",
		(found-d.acked.Rows)/crashBatchRows)
	return nil
}

// overviewOfSample is overviewSQL without the rows of the interrupted stream.
var overviewOfSample = fmt.Sprintf(`SELECT station, count(*) AS readings, round(avg(celsius), 2) AS celsius, count(note) AS notes, max(taken) AS latest
FROM readings WHERE id <= %d GROUP BY station ORDER BY celsius LIMIT 4`, crashKeys)

// compareCrashed compares the rows of the interrupted stream with what was sent, from the first one on, and
// returns how many there are.
func (d *demo) compareCrashed(ctx context.Context) (found int64, err error) {
	sql := fmt.Sprintf("SELECT * FROM readings WHERE id > %d ORDER BY id", crashKeys)
	err = d.client.Query(ctx, sql, func(got arrow.RecordBatch) error {
		if found+got.NumRows() > d.sentRows+crashBatchRows {
			return fmt.Errorf("more rows are there than the %d that were sent", d.sentRows)
		}
		err := d.sample.compare(got, found, crashKeys)
		found += got.NumRows()
		return err
	})
	return found, errors.Join(err)
}
