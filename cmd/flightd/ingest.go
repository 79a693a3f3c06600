package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/util"
	"github.com/spf13/cobra"

	"github.com/flightd/flightd/flight"
)

func (p process) ingestCommand() *cobra.Command {
	j := ingestJob{stdin: p.stdin}
	var url string
	cmd := &cobra.Command{
		Use:   "ingest FILE... --table TABLE",
		Short: "Stream Parquet, Arrow, CSV and JSONL files into a table",
		Long: "ingest streams files into a table, one after the other, and ends when every row is acknowledged: synced to\n" +
			"disk and visible. What a file is its name tells: .parquet; .arrow, .arrows and .feather for Arrow IPC, file\n" +
			"or stream; .csv and .tsv with the names of the columns in the first line, where an empty value is NULL;\n" +
			".jsonl and .ndjson with an object in each line. \"-\" is an Arrow IPC stream on stdin.\n\n" +
			"Columns match the table's by name. A table with a key upserts, so that an ingest which failed can be run\n" +
			"again; one without a key appends, and the error says how many rows are stored already.\n\n" +
			"--idempotency-key makes every table take an ingest once: each file is stored as a whole, and one that was\n" +
			"stored under the key before is left out. With --resume it is stored as it comes, and a later run with the\n" +
			"same files and key goes on where this one ended. Of several files the n-th has the key KEY:n.\n\n" +
			"--create makes the table when it does not exist, with the columns of the first file; the types of a CSV\n" +
			"or JSONL file are guessed.",
		Example: "  flightd ingest readings-*.parquet --table readings --create --key id\n" +
			"  flightd ingest people.csv --table people --url grpc://10.0.0.5:31337\n" +
			"  flightd ingest events.jsonl --table events --idempotency-key events-2026-11-21 --resume\n" +
			"  flightd sql --format arrow -c 'FROM a WHERE x > 1' | flightd ingest - --table b --create",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{fmt.Errorf("want: %s", cmd.UseLine())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case j.table == "":
				return &usageError{errors.New("--table is missing")}
			case len(j.key) > 0 && !j.create:
				return &usageError{errors.New("--key is for a table that --create makes")}
			case j.resume && j.once == "":
				return &usageError{errors.New("--resume needs --idempotency-key: it names what to go on with")}
			}
			address, err := parseURL(url)
			if err != nil {
				return err
			}
			j.url = url
			if j.client, err = flight.Dial(address); err != nil {
				return err
			}
			defer j.client.Close()
			ctx, stop := untilSignal(cmd.Context(), p.stderr)
			defer stop()
			return p.ingest(ctx, &j, args)
		},
	}
	cmd.Flags().StringVar(&j.table, "table", "", "the table to write to")
	cmd.Flags().BoolVar(&j.create, "create", false, "make the table when it does not exist")
	cmd.Flags().StringArrayVar(&j.key, "key", nil, "a column of the primary key of the new table; may be repeated")
	cmd.Flags().StringVar(&j.once, "idempotency-key", "", "a name for this ingest; what comes under it is stored once")
	cmd.Flags().BoolVar(&j.resume, "resume", false, "go on where an ingest with the same --idempotency-key ended")
	cmd.Flags().StringVar(&url, "url", defaultURL, "the server")
	return cmd
}

// ingest streams all files and prints what came of it.
func (p process) ingest(ctx context.Context, j *ingestJob, files []string) error {
	j.progress = showProgress(p.stderr)
	err := j.run(ctx, files)
	j.progress.close()
	rows, took := j.progress.acked.Load(), time.Since(j.progress.begin)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		} else if flight.Unreachable(err) {
			err = fmt.Errorf("no answer from %s: %w; is it running, and is --url right?", j.url, err)
		}
		if rows == 0 {
			return fmt.Errorf("ingest: %w; no row was acknowledged", err)
		}
		return fmt.Errorf("ingest: %w; acknowledged and stored are the first %s", err, counted(rows, "row"))
	}
	before := ""
	if j.before > 0 {
		before = fmt.Sprintf(" (%s were stored before)", thousands(j.before))
	}
	_, err = fmt.Fprintf(p.stdout, "%s from %s stored in %q%s in %s, %s rows/s\n", counted(rows, "row"), counted(int64(len(files)), "file"),
		j.table, before, seconds(took), thousands(j.progress.rate()))
	return err
}

// ingestJob is one run of ingest.
type ingestJob struct {
	client *flight.Client
	url    string
	table  string
	create bool
	key    []string
	// once is the idempotency key, empty for none; resume says to go on where an ingest under it ended.
	once   string
	resume bool
	// before counts rows that were stored under the key before this run.
	before   int64
	stdin    io.Reader
	progress *progress
	// schema has the table's columns, nil while the table does not exist.
	schema *arrow.Schema
}

func (j *ingestJob) run(ctx context.Context, files []string) error {
	if err := j.look(ctx); err != nil {
		return err
	}
	for n, name := range files {
		once := j.once
		if once != "" && len(files) > 1 {
			once = fmt.Sprintf("%s:%d", once, n+1)
		}
		if err := j.file(ctx, name, once); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// look finds out whether the table exists, and its columns.
func (j *ingestJob) look(ctx context.Context) error {
	columns := &schemaSink{}
	_, err := j.client.Run(ctx, `SELECT * FROM "`+strings.ReplaceAll(j.table, `"`, `""`)+`" LIMIT 0`, columns)
	var refused *flight.ServerError
	if errors.As(err, &refused) && refused.Code == "NotFound" {
		if j.create {
			return nil
		}
		return fmt.Errorf("table %q does not exist; --create makes it", j.table)
	}
	j.schema = columns.schema
	return err
}

// schemaSink keeps the schema of a result.
type schemaSink struct{ schema *arrow.Schema }

// Begin implements flight.Sink.
func (s *schemaSink) Begin(schema *arrow.Schema) error {
	s.schema = schema
	return nil
}

// Batch implements flight.Sink.
func (s *schemaSink) Batch(arrow.RecordBatch) error { return nil }

// file streams one file, under a key unless that is empty, and waits until all of it is acknowledged.
func (j *ingestJob) file(ctx context.Context, name, once string) error {
	src, err := openSource(name, j.stdin, j.schema)
	if err != nil {
		return err
	}
	defer src.Close()
	if j.schema == nil {
		if err := j.createTable(ctx, src.Schema()); err != nil {
			return err
		}
	}
	j.progress.what.Store(&progressFile{name: filepath.Base(name), done: src.Done})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a stream that failed half way must not linger
	upload, there, err := j.upload(ctx, src.Schema(), once)
	if err != nil {
		return err
	}
	before := j.progress.acked.Load() // of the files before
	j.progress.acked.Add(there.Rows)
	j.before += there.Rows
	acked := make(chan error, 1)
	go func() { acked <- j.acks(upload, before) }()
	if !there.Complete {
		err = j.send(upload, src, there.Rows)
	}
	if err != nil && once != "" {
		// A proper end would say that this was all that comes under the key.
		cancel()
		<-acked
		return err
	}
	// Also after an error in the file: what was sent so far is stored then, and the count is right.
	closing := upload.CloseSend()
	if refused := <-acked; refused != nil {
		return refused
	}
	return errors.Join(err, closing)
}

// upload opens a stream, and returns what an ingest that it goes on with has stored.
func (j *ingestJob) upload(ctx context.Context, schema *arrow.Schema, once string) (u *flight.Upload, there flight.UploadAck, err error) {
	if once == "" {
		u, err = j.client.Put(ctx, schema, j.table)
		return u, there, err
	}
	u, err = j.client.PutOnce(ctx, once, j.resume, schema, j.table)
	if err == nil && j.resume {
		there, err = u.Ack()
	}
	return u, there, flight.Plain(err)
}

// createTable makes the table with the columns of a file.
func (j *ingestJob) createTable(ctx context.Context, s *arrow.Schema) error {
	list := s.Fields()
	for _, key := range j.key {
		found := false
		for i, f := range list {
			if strings.EqualFold(f.Name, key) {
				meta := f.Metadata.ToMap()
				meta["lance-schema:unenforced-primary-key"] = "true"
				list[i].Metadata, list[i].Nullable, found = arrow.MetadataFrom(meta), false, true
			}
		}
		if !found {
			return &usageError{fmt.Errorf("--key %s: there is no such column; there are %s", key, strings.Join(fieldNames(s), ", "))}
		}
	}
	j.schema = arrow.NewSchema(list, nil)
	return j.client.CreateTable(ctx, j.table, j.schema)
}

// acks takes note of acknowledged rows, behind those of the files before, until the stream ends.
func (j *ingestJob) acks(upload *flight.Upload, before int64) error {
	for {
		ack, err := upload.Ack()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return flight.Plain(err)
		}
		if ack.Repeated {
			j.before += ack.Rows // nobody else writes it while acks come
		}
		j.progress.acked.Store(before + ack.Rows)
	}
}

// maxSendBytes is the size of a batch at which it is cut: far below what a server takes, and enough to be quick.
const maxSendBytes = 8 << 20

// send streams all batches but the first rows, cut to a good size. io.EOF of the stream means that its error comes with
// the acks.
func (j *ingestJob) send(upload *flight.Upload, src rowSource, skip int64) error {
	for {
		rec, err := src.Next()
		if errors.Is(err, io.EOF) {
			if skip > 0 {
				return fmt.Errorf("%s more than the file has are stored under --idempotency-key %s: is it the same file?", counted(skip, "row"), j.once)
			}
			return nil
		}
		if err != nil {
			return err
		}
		rest := rec.NewSlice(min(skip, rec.NumRows()), rec.NumRows())
		skip -= rec.NumRows() - rest.NumRows()
		err = j.sendBatch(upload, rest)
		rest.Release()
		rec.Release()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// sendBatch sends a batch in pieces.
func (j *ingestJob) sendBatch(upload *flight.Upload, rec arrow.RecordBatch) error {
	rows := rec.NumRows()
	if rows == 0 {
		return nil
	}
	step := min(batchRows, max(1, maxSendBytes*rows/max(1, util.TotalRecordSize(rec))))
	for at := int64(0); at < rows; at += step {
		part := rec.NewSlice(at, min(rows, at+step))
		err := upload.Send(part)
		part.Release()
		if err != nil {
			return err
		}
		j.progress.sent.Add(min(step, rows-at))
	}
	return nil
}
