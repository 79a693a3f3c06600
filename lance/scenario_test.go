package lance

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
	"github.com/flightd/flightd/object"
)

// TestScenarios runs the files of testdata, one file of the store for each. With -rewrite it writes what happened; read
// the difference. The commands:
//
//	write schema=(...) [page-bytes=N]  writes a file, each paragraph of the input a batch
//	describe                           prints where everything is
//	scan [columns=(0,1)] [off=N] [n=N] [max=N]
//	take [columns=(0,1)] rows=(5,1)
//	verify                             verifies everything
//	flip at=N                          changes a bit of the byte at N
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &scenario{st: object.NewMem()}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			out, err := s.run(t, d)
			if err != nil {
				out += "error: " + err.Error() + "\n"
			}
			return out
		})
	})
}

// scenario is the file that the commands are about.
type scenario struct{ st *object.Mem }

func (s *scenario) run(t *testing.T, d *datadriven.TestData) (string, error) {
	switch d.Cmd {
	case "write":
		return s.write(t, d)
	case "flip":
		var at int
		d.ScanArgs(t, "at", &at)
		b, err := s.st.Get(t.Context(), "f")
		require.NoError(t, err)
		b = append([]byte{}, b...)
		b[at] ^= 1
		return "", s.st.Put(t.Context(), "f", b)
	}
	r, err := Open(t.Context(), s.st, "f", 0, ReaderOptions{})
	if err != nil {
		return "", err
	}
	defer r.Close()
	var out strings.Builder
	switch d.Cmd {
	case "describe":
		err = r.Describe(&out)
	case "verify":
		err = r.Verify(t.Context())
	case "scan":
		err = scan(t, d, r, &out)
	case "take":
		err = take(t, d, r, &out)
	default:
		t.Fatalf("no command %q", d.Cmd)
	}
	return out.String(), err
}

func (s *scenario) write(t *testing.T, d *datadriven.TestData) (string, error) {
	var columns []string
	for _, arg := range d.CmdArgs {
		if arg.Key == "schema" {
			columns = arg.Vals
		}
	}
	schema, err := rows.Schema(strings.Join(columns, ", "))
	require.NoError(t, err)
	var o WriterOptions
	d.MaybeScanArgs(t, "page-bytes", &o.PageBytes)
	var batches []arrow.RecordBatch
	for text := range strings.SplitSeq(d.Input, "\n\n") {
		b, err := rows.Parse(schema, text)
		require.NoError(t, err)
		batches = append(batches, b)
	}
	require.NoError(t, s.st.DeleteAll(t.Context(), "f"))
	info := writeFile(t, s.st, "f", schema, o, batches...)
	return fmt.Sprintf("%d rows, %d bytes\n", info.Rows, info.Bytes), nil
}

// numbers returns the values of an argument; ok is false if it is not there.
func numbers(t *testing.T, d *datadriven.TestData, key string) (out []int64, ok bool) {
	for _, arg := range d.CmdArgs {
		if arg.Key != key {
			continue
		}
		ok = true
		for _, v := range arg.Vals {
			if v != "" {
				n, err := strconv.ParseInt(v, 10, 64)
				require.NoError(t, err)
				out = append(out, n)
			}
		}
	}
	return out, ok
}

// columnsOf returns the columns that a command asks for, all if it names none.
func columnsOf(t *testing.T, d *datadriven.TestData, r *Reader) (columns []int) {
	named, ok := numbers(t, d, "columns")
	for _, c := range named {
		columns = append(columns, int(c))
	}
	for c := 0; !ok && c < len(r.Schema().Fields); c++ {
		columns = append(columns, c)
	}
	return columns
}

func scan(t *testing.T, d *datadriven.TestData, r *Reader, out *strings.Builder) error {
	off, n, maxRows := int64(0), r.Rows(), int64(0)
	d.MaybeScanArgs(t, "off", &off)
	d.MaybeScanArgs(t, "n", &n)
	d.MaybeScanArgs(t, "max", &maxRows)
	s := r.Scan(columnsOf(t, d, r), off, n, maxRows)
	for {
		rec, err := s.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%d rows\n", rec.NumRows())
		for _, line := range rows.Format(rec, nil) {
			if rec.NumCols() > 0 {
				fmt.Fprintf(out, "  %s\n", line)
			}
		}
		rec.Release()
	}
}

func take(t *testing.T, d *datadriven.TestData, r *Reader, out *strings.Builder) error {
	at, _ := numbers(t, d, "rows")
	rec, err := r.Take(t.Context(), columnsOf(t, d, r), at)
	if err != nil {
		return err
	}
	defer rec.Release()
	for _, line := range rows.Format(rec, nil) {
		fmt.Fprintln(out, line)
	}
	return nil
}
