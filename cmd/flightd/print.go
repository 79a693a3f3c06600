package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// title begins a scene.
func (d *demo) title(format string, args ...any) {
	d.scenes++
	d.printf("\n%d. %s\n", d.scenes, fmt.Sprintf(format, args...))
}

// say prints one line of a scene.
func (d *demo) say(format string, args ...any) {
	d.printf("   %s\n", fmt.Sprintf(format, args...))
}

// block prints lines further in.
func (d *demo) block(text string) {
	for line := range strings.Lines(text) {
		d.printf("     %s", line)
	}
	if !strings.HasSuffix(text, "\n") {
		d.printf("\n")
	}
}

// printf writes to the terminal. That nobody reads it is no reason to stop.
func (d *demo) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(d.out, format, args...)
}

// textTable lines up the rows of batches for people.
type textTable struct {
	rows [][]string
}

// add appends the rows of b, and before the first ones the names of the columns.
func (t *textTable) add(b arrow.RecordBatch) {
	if len(t.rows) == 0 {
		var names []string
		for _, f := range b.Schema().Fields() {
			names = append(names, f.Name)
		}
		t.rows = append(t.rows, names)
	}
	for row := range int(b.NumRows()) {
		cells := make([]string, b.NumCols())
		for i, column := range b.Columns() {
			if cells[i] = column.ValueStr(row); column.IsNull(row) {
				cells[i] = "NULL"
			}
		}
		t.rows = append(t.rows, cells)
	}
}

// String implements fmt.Stringer.
func (t *textTable) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	for _, cells := range t.rows {
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	// A strings.Builder does not fail.
	_ = w.Flush()
	return b.String()
}

// firstInteger returns the first value of a batch.
func firstInteger(b arrow.RecordBatch) (int64, error) {
	if b.NumRows() == 0 || b.NumCols() == 0 {
		return 0, errors.New("the answer is empty")
	}
	column, ok := b.Column(0).(*array.Int64)
	if !ok {
		return 0, fmt.Errorf("the answer is %s, want an integer", b.Column(0).DataType())
	}
	return column.Value(0), nil
}

// seconds prints a time in the unit that people read it in.
func seconds(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// thousands prints a number in groups of three digits.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
