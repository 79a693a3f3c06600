package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/spf13/cobra"

	"github.com/flightd/flightd/flight"
	"github.com/flightd/flightd/testdata"
)

func (p process) demoCommand() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the main job on a temporary folder, in under a minute",
		Long: "demo starts a server on a temporary folder, streams sample data into it, asks by SQL and by vectors, merges\n" +
			"into the base tables, indexes the vectors, kills the server with -9 in mid-stream, starts it again and checks\n" +
			"that every acknowledged row is there and every answer what it was.",
		Example: "  flightd demo\n  flightd demo --keep",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := untilSignal(cmd.Context(), p.stderr)
			defer stop()
			return p.demo(ctx, keep)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the server running until Ctrl-C, and its folder in place")
	return cmd
}

// demo plays all scenes. The folder goes away at the end unless keep is set or a scene failed: then it is what
// one wants to look at.
func (p process) demo(ctx context.Context, keep bool) (err error) {
	root, err := os.MkdirTemp("", "flightd-demo-")
	if err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	d := &demo{out: p.stdout, env: p.env, root: root}
	defer func() {
		err = errors.Join(err, d.close())
		switch {
		case err != nil:
			err = fmt.Errorf("the demo failed in its folder %s, which was left in place: %w", root, err)
		case !keep:
			err = os.RemoveAll(root)
		}
	}()
	d.sample, err = newSample()
	if err != nil {
		return err
	}
	defer d.sample.release()

	begin := time.Now()
	d.printf("flightd demo: streams in, kill -9, SQL out, Lance at rest\n")
	for _, scene := range []func(context.Context) error{
		d.start, d.create, d.stream, d.change, d.similar, d.optimize, d.crash, d.recover,
	} {
		if err := scene(ctx); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
	}
	d.printf("\nDone in %s.\n", seconds(time.Since(begin)))
	if keep {
		d.farewell()
		<-ctx.Done()
		d.printf("\nStopped. The files are still in %s\n", root)
	}
	return nil
}

// demo is the state of one run.
type demo struct {
	out    io.Writer
	env    []string
	root   string
	scenes int
	sample *sample

	child  *child
	client *flight.Client
	// answer is what overview answered last.
	answer string
	// days are the vectors in the table of them, and day is the one that is searched for.
	days *days
	day  day
	// acked is the last ack before the crash, sentRows what the interrupted stream had sent.
	acked    flight.UploadAck
	sentRows int64
}

// close ends the server.
func (d *demo) close() error {
	var errs []error
	if d.client != nil {
		errs = append(errs, d.client.Close())
	}
	if d.child != nil {
		errs = append(errs, d.child.stop())
	}
	return errors.Join(errs...)
}

// connect starts the server and a client of it.
func (d *demo) connect(ctx context.Context) (err error) {
	if d.child, err = startChild(ctx, d.root, d.env); err != nil {
		return err
	}
	d.client, err = flight.Dial(d.child.address())
	return err
}

func (d *demo) start(ctx context.Context) error {
	d.title("Start a server on an empty folder")
	if err := d.connect(ctx); err != nil {
		return err
	}
	d.say("folder   %s", filepath.Join(d.root, "data"))
	d.say("address  %s, metrics at %s/metrics", d.child.grpc, d.child.web)
	d.say("ready after %s, as process %d", seconds(d.child.took), d.child.cmd.Process.Pid)
	return nil
}

func (d *demo) create(ctx context.Context) error {
	d.title("Create a table by SQL")
	d.say("%s", testdata.ReadingsTable)
	_, err := d.client.Execute(ctx, testdata.ReadingsTable)
	return err
}

// stream sends the sample once and waits for all acks.
func (d *demo) stream(ctx context.Context) error {
	const batchRows = 400
	d.title("Stream %s rows through Flight DoPut, %d at a time", thousands(d.sample.rows()), batchRows)
	begin := time.Now()
	up, err := d.client.Put(ctx, d.sample.schema(), "readings")
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() { sent <- d.sendSample(up, batchRows) }()
	var acks int
	var first time.Duration
	last, err := readAcks(up, func(flight.UploadAck) {
		if acks++; acks == 1 {
			first = time.Since(begin)
		}
	})
	if err := errors.Join(<-sent, err); err != nil {
		return err
	}
	took := time.Since(begin)
	if last.Rows != d.sample.rows() {
		return fmt.Errorf("the stream was acknowledged up to row %d of %d", last.Rows, d.sample.rows())
	}
	d.say("%s rows synced to disk and acknowledged in %s: %s rows/s; %d acks, the first after %s",
		thousands(last.Rows), seconds(took), thousands(int64(float64(last.Rows)/took.Seconds())), acks, seconds(first))
	d.say("what was acknowledged is what SQL sees:")
	return d.overview(ctx)
}

// sendSample sends the whole sample in batches.
func (d *demo) sendSample(up *flight.Upload, batchRows int64) error {
	for off := int64(0); off < d.sample.rows(); off += batchRows {
		batch := d.sample.batch(off, batchRows, 0)
		err := up.Send(batch)
		batch.Release()
		if err != nil {
			return err
		}
	}
	return up.CloseSend()
}

// readAcks reads acks until the stream ends and returns the last one, whatever the end was.
func readAcks(up *flight.Upload, each func(flight.UploadAck)) (last flight.UploadAck, err error) {
	for {
		ack, err := up.Ack()
		if errors.Is(err, io.EOF) {
			return last, nil
		}
		if err != nil {
			return last, err
		}
		last = ack
		each(ack)
	}
}

// overviewSQL touches every row and every column type of the table.
const overviewSQL = `SELECT station, count(*) AS readings, round(avg(celsius), 2) AS celsius, count(note) AS notes, max(taken) AS latest
FROM readings GROUP BY station ORDER BY celsius LIMIT 4`

// overview asks overviewSQL and prints the answer, which it keeps.
func (d *demo) overview(ctx context.Context) error {
	begin := time.Now()
	answer, err := d.ask(ctx, overviewSQL)
	if err != nil {
		return err
	}
	d.answer = answer
	d.block(overviewSQL)
	d.block(answer)
	d.say("(%s)", seconds(time.Since(begin)))
	return nil
}

// ask returns the rows of a query as an aligned text table.
func (d *demo) ask(ctx context.Context, sql string) (string, error) {
	var t textTable
	err := d.client.Query(ctx, sql, func(b arrow.RecordBatch) error {
		t.add(b)
		return nil
	})
	return t.String(), err
}

// change upserts and deletes rows in one stream, as change data capture sends them.
func (d *demo) change(ctx context.Context) error {
	d.title("Change rows: upserts and deletes in one stream")
	if _, err := d.send(ctx, "readings", d.sample.changes()); err != nil {
		return err
	}
	d.say("%d rows written again under their keys, %d keys deleted by _tombstone = true", changedRows, deletedRows)
	want := d.sample.rows() - deletedRows
	answer, err := d.ask(ctx, "SELECT count(*) AS rows, count(*) FILTER (note = 'corrected') AS corrected FROM readings")
	if err != nil {
		return err
	}
	d.block(answer)
	rows, err := d.count(ctx, "SELECT count(*) FROM readings")
	if err != nil {
		return err
	}
	if rows != want {
		return fmt.Errorf("the table holds %d rows after the changes, want %d", rows, want)
	}
	return d.overview(ctx)
}

// count returns the one integer that a query answers.
func (d *demo) count(ctx context.Context, sql string) (n int64, err error) {
	err = d.client.Query(ctx, sql, func(b arrow.RecordBatch) error {
		n, err = firstInteger(b)
		return err
	})
	return n, err
}

// optimize merges into the base tables, indexes the vectors, and checks that no answer changes.
func (d *demo) optimize(ctx context.Context) error {
	d.title("Merge everything into the base tables and index the vectors")
	before := d.answer
	begin := time.Now()
	if _, err := d.client.Execute(ctx, "OPTIMIZE readings"); err != nil {
		return err
	}
	d.say("OPTIMIZE readings: %s", seconds(time.Since(begin)))
	after, err := d.ask(ctx, overviewSQL)
	if err != nil {
		return err
	}
	if after != before {
		return fmt.Errorf("the answer changed by OPTIMIZE; before:\n%s\nafter:\n%s", before, after)
	}
	d.say("the same query gives the same rows")
	if err := d.index(ctx); err != nil {
		return err
	}
	d.say("%s is a Lance dataset now; with pylance:", d.dataset())
	d.say("  lance.dataset(%q).count_rows()", d.dataset())
	return nil
}

// dataset is the folder of the table.
func (d *demo) dataset() string { return filepath.Join(d.root, "data", "readings.lance") }

// farewell says how to go on.
func (d *demo) farewell() {
	d.printf(`
The server keeps running until Ctrl-C.

  Shell    %s sql --url %s

  Python   pip install adbc-driver-flightsql adbc-driver-manager pyarrow

           import adbc_driver_flightsql.dbapi as flightsql
           with flightsql.connect(%q, autocommit=True) as c, c.cursor() as cur:
               cur.execute("SELECT station, avg(celsius) FROM readings GROUP BY 1 ORDER BY 2")
               print(cur.fetch_arrow_table())

  Metrics  curl %s/metrics
  Files    %s
  Log      %s
`, os.Args[0], d.child.grpc, d.child.grpc, d.child.web, d.dataset(), d.child.log)
}
