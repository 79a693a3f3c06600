package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/object"
)

// request says what to do with the file at Path.
type request struct {
	// Op is load, write, scan, sum, memory, open or take.
	Op   string
	Path string
	// Version of a file to write, and whether it is compressed.
	Version  string
	Compress bool
	// Rows to take.
	Rows []int64
}

// answer is what came of a request.
type answer struct {
	Seconds float64
	Rows    int64
	// Sum keeps the compiler from leaving out what it is the result of.
	Sum uint64
	// Anonymous is the most memory of the process that belongs to no file, in bytes.
	Anonymous int64
	Error     string `json:",omitempty"`
}

// bench has what stays between requests.
type bench struct {
	batches []arrow.RecordBatch
	reader  *lance.Reader
}

func main() {
	b := &bench{}
	in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	in.Buffer(nil, 1<<24)
	for in.Scan() {
		var r request
		var a answer
		err := json.Unmarshal(in.Bytes(), &r)
		if err == nil {
			a, err = b.do(context.Background(), r)
		}
		if err != nil {
			a.Error = err.Error()
		}
		if err := out.Encode(a); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func (b *bench) do(ctx context.Context, r request) (a answer, err error) {
	start := time.Now()
	switch r.Op {
	case "load":
		err = b.load(r.Path)
	case "write":
		err = b.write(ctx, r)
	case "open":
		b.reader, err = open(ctx, r.Path)
	case "take":
		a.Rows, err = b.take(ctx, r.Rows)
	case "scan", "sum", "memory":
		a, err = scan(ctx, r)
	default:
		err = fmt.Errorf("there is no %q", r.Op)
	}
	a.Seconds = time.Since(start).Seconds()
	return a, err
}

// load reads an Arrow IPC file, which write then writes.
func (b *bench) load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := ipc.NewFileReader(f)
	if err != nil {
		return err
	}
	for _, rec := range b.batches {
		rec.Release()
	}
	b.batches = nil
	for i := range r.NumRecords() {
		rec, err := r.RecordBatch(i)
		if err != nil {
			return err
		}
		rec.Retain() // else it is valid until the next one only
		b.batches = append(b.batches, rec)
	}
	runtime.GC()
	return nil
}

func (b *bench) write(ctx context.Context, r request) error {
	version, err := lance.ParseVersion(r.Version)
	if err != nil {
		return err
	}
	schema, err := lance.SchemaFromArrow(b.batches[0].Schema(), 0)
	if err != nil {
		return err
	}
	st := object.NewLocal(filepath.Dir(r.Path))
	w, err := lance.Create(ctx, st, filepath.Base(r.Path), schema, lance.WriterOptions{Version: version, Compress: r.Compress})
	if err != nil {
		return err
	}
	defer w.Abort()
	for _, rec := range b.batches {
		if err := w.Write(ctx, rec); err != nil {
			return err
		}
	}
	_, err = w.Finish(ctx) // which syncs
	return err
}

func open(ctx context.Context, path string) (*lance.Reader, error) {
	return lance.Open(ctx, object.NewLocal(filepath.Dir(path)), filepath.Base(path), 0, lance.ReaderOptions{})
}

func (b *bench) take(ctx context.Context, rows []int64) (int64, error) {
	rec, err := b.reader.Take(ctx, all(b.reader), rows)
	if err != nil {
		return 0, err
	}
	defer rec.Release()
	return rec.NumRows(), nil
}

// all returns the numbers of all columns.
func all(r *lance.Reader) []int {
	columns := make([]int, len(r.Schema().Fields))
	for i := range columns {
		columns[i] = i
	}
	return columns
}

// scan reads a whole file: to Arrow arrays, which may lie in the mapped file untouched; with sum, every byte of these,
// too; with memory, it looks at the memory of the process at each batch instead.
func scan(ctx context.Context, r request) (a answer, err error) {
	f, err := open(ctx, r.Path)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	s := f.Scan(all(f), 0, f.Rows(), 0)
	defer s.Close()
	for {
		rec, err := s.Next(ctx)
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil {
			return a, err
		}
		a.Rows += rec.NumRows()
		switch r.Op {
		case "sum":
			for _, c := range rec.Columns() {
				a.Sum += sum(c.Data())
			}
		case "memory":
			now, err := anonymous()
			if err != nil {
				return a, err
			}
			a.Anonymous = max(a.Anonymous, now)
		}
		rec.Release()
	}
}

// sum adds up the values of an array, whatever they are, in words.
func sum(d arrow.ArrayData) (n uint64) {
	from, to := d.Offset(), d.Offset()+d.Len()
	switch t := d.DataType().(type) {
	case *arrow.FixedSizeListType:
		items, width := d.Children()[0], int(t.Len())
		return words(items.Buffers()[1].Bytes(), (items.Offset()+from*width)*4, (items.Offset()+to*width)*4)
	case *arrow.StringType:
		offsets := arrow.GetData[int32](d.Buffers()[1].Bytes())
		n = words(d.Buffers()[1].Bytes(), 4*from, 4*to)
		if d.Buffers()[2] != nil {
			n += words(d.Buffers()[2].Bytes(), int(offsets[from]), int(offsets[to]))
		}
		return n
	case arrow.FixedWidthDataType:
		return words(d.Buffers()[1].Bytes(), from*t.BitWidth()/8, to*t.BitWidth()/8)
	}
	return 0
}

func words(b []byte, from, to int) (n uint64) {
	b = b[(from+7)&^7 : max(to, (from+7)&^7)]
	for _, w := range arrow.GetData[uint64](b[:len(b)&^7]) {
		n += w
	}
	return n
}

// anonymous is the memory of the process that belongs to no file.
func anonymous() (int64, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "RssAnon:")
	var kib int64
	_, err = fmt.Sscanf(rest, "%d kB", &kib)
	return kib << 10, err
}
