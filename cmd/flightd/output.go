package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"

	"github.com/flightd/flightd/flight"
)

// resultWriter prints one result. End follows the last batch.
type resultWriter interface {
	flight.Sink
	End() error
}

// formats makes a writer for each value of --format.
var formats = map[string]func(w io.Writer) resultWriter{
	"table": func(w io.Writer) resultWriter { return &tableWriter{out: bufio.NewWriter(w)} },
	"csv":   func(w io.Writer) resultWriter { return &csvWriter{out: bufio.NewWriter(w)} },
	"json":  func(w io.Writer) resultWriter { return &jsonWriter{out: bufio.NewWriter(w)} },
	"arrow": func(w io.Writer) resultWriter { return &arrowWriter{out: w} },
}

// measuredRows is how many rows the widths of a table's columns are taken from: what is longer than those is printed
// as it comes, since a result may be larger than memory.
const measuredRows = 1000

// tableWriter lines up columns for people.
type tableWriter struct {
	out     *bufio.Writer
	names   []string
	right   []bool
	pending [][]string
	widths  []int // known once the head is written
	plan    bool  // what EXPLAIN returns, which is drawn with lines of its own
}

// Begin implements flight.Sink.
func (t *tableWriter) Begin(s *arrow.Schema) error {
	for _, f := range s.Fields() {
		t.names = append(t.names, printable(f.Name))
		t.right = append(t.right, arrow.IsPrimitive(f.Type.ID()) && !arrow.IsFixedSizeBinary(f.Type.ID()) && f.Type.ID() != arrow.BOOL && !temporal(f.Type) || arrow.IsDecimal(f.Type.ID()))
	}
	t.plan = slices.Equal(t.names, []string{"explain_key", "explain_value"})
	return nil
}

// temporal reports whether values of a type are dates or times, which are printed as text.
func temporal(t arrow.DataType) bool {
	switch t.ID() {
	case arrow.DATE32, arrow.DATE64, arrow.TIME32, arrow.TIME64, arrow.TIMESTAMP, arrow.DURATION,
		arrow.INTERVAL_MONTHS, arrow.INTERVAL_DAY_TIME, arrow.INTERVAL_MONTH_DAY_NANO:
		return true
	}
	return false
}

// Batch implements flight.Sink.
func (t *tableWriter) Batch(b arrow.RecordBatch) error {
	if t.plan {
		return t.paragraphs(b)
	}
	for row := range int(b.NumRows()) {
		cells := make([]string, b.NumCols())
		for i, column := range b.Columns() {
			if cells[i] = "NULL"; column.IsValid(row) {
				cells[i] = printable(cellText(column, row))
			}
		}
		if t.widths != nil {
			if err := t.line(cells); err != nil {
				return err
			}
			continue
		}
		if t.pending = append(t.pending, cells); len(t.pending) == measuredRows {
			if err := t.head(); err != nil {
				return err
			}
		}
	}
	return nil
}

// paragraphs writes a plan: under each key its text, line by line.
func (t *tableWriter) paragraphs(b arrow.RecordBatch) error {
	for row := range int(b.NumRows()) {
		if _, err := fmt.Fprintf(t.out, "%s:\n", printable(cellText(b.Column(0), row))); err != nil {
			return err
		}
		for line := range strings.Lines(cellText(b.Column(1), row)) {
			if _, err := fmt.Fprintln(t.out, printable(strings.TrimSuffix(line, "\n"))); err != nil {
				return err
			}
		}
	}
	return nil
}

// head writes the names of the columns and the rows that wait for them.
func (t *tableWriter) head() error {
	t.widths = make([]int, len(t.names))
	for _, cells := range append(t.pending, t.names) {
		for i, c := range cells {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c))
		}
	}
	if err := t.line(t.names); err != nil {
		return err
	}
	rules := make([]string, len(t.widths))
	for i, w := range t.widths {
		rules[i] = strings.Repeat("─", w+2)
	}
	if _, err := t.out.WriteString(strings.Join(rules, "┼") + "\n"); err != nil {
		return err
	}
	for _, cells := range t.pending {
		if err := t.line(cells); err != nil {
			return err
		}
	}
	t.pending = nil
	return nil
}

// line writes one row.
func (t *tableWriter) line(cells []string) error {
	var b strings.Builder
	for i, c := range cells {
		if i > 0 {
			b.WriteString("│")
		}
		pad := strings.Repeat(" ", max(0, t.widths[i]-utf8.RuneCountInString(c)))
		if t.right[i] {
			c = pad + c
		} else {
			c += pad
		}
		b.WriteString(" " + c + " ")
	}
	_, err := t.out.WriteString(strings.TrimRight(b.String(), " ") + "\n")
	return err
}

// End writes what is still pending.
func (t *tableWriter) End() error {
	if t.widths == nil && !t.plan {
		if err := t.head(); err != nil {
			return err
		}
	}
	return t.out.Flush()
}

// printable replaces what would move the cursor of a terminal or give it orders: rows hold what clients sent.
func printable(s string) string {
	clean := func(r rune) bool { return r != utf8.RuneError && (unicode.IsPrint(r) || unicode.Is(unicode.Zs, r)) }
	if !strings.ContainsFunc(s, func(r rune) bool { return !clean(r) }) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case clean(r):
			b.WriteRune(r)
		case r == utf8.RuneError:
			_, size := utf8.DecodeRuneInString(s[i:])
			if size == 1 {
				fmt.Fprintf(&b, `\x%02x`, s[i])
			} else {
				b.WriteRune(r)
			}
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}

// csvWriter writes RFC 4180 with a head. NULL is nothing between two commas, an empty string is "".
type csvWriter struct{ out *bufio.Writer }

// Begin implements flight.Sink.
func (c *csvWriter) Begin(s *arrow.Schema) error {
	names := make([]string, s.NumFields())
	for i, f := range s.Fields() {
		names[i] = csvCell(f.Name)
	}
	_, err := c.out.WriteString(strings.Join(names, ",") + "\n")
	return err
}

// Batch implements flight.Sink.
func (c *csvWriter) Batch(b arrow.RecordBatch) error {
	cells := make([]string, b.NumCols())
	for row := range int(b.NumRows()) {
		for i, column := range b.Columns() {
			if cells[i] = ""; column.IsValid(row) {
				cells[i] = csvCell(cellText(column, row))
			}
		}
		if _, err := c.out.WriteString(strings.Join(cells, ",") + "\n"); err != nil {
			return err
		}
	}
	return nil
}

// cellText returns a value that is not null as text.
func cellText(column arrow.Array, row int) string {
	if text, ok := decimalText(column, row); ok {
		return text
	}
	return column.ValueStr(row)
}

// cellValue returns a value as it is marshalled to JSON, nil for a null.
func cellValue(column arrow.Array, row int) any {
	if column.IsValid(row) {
		if text, ok := decimalText(column, row); ok {
			return text
		}
	}
	return column.GetOneForMarshal(row)
}

// decimalText returns a decimal with all digits of its scale. Arrow's own text goes by a binary float: it drops zeros
// at the end and writes small numbers with an exponent.
func decimalText(column arrow.Array, row int) (string, bool) {
	switch column := column.(type) {
	case *array.Decimal128:
		return column.Value(row).ToString(column.DataType().(*arrow.Decimal128Type).Scale), true
	case *array.Decimal256:
		return column.Value(row).ToString(column.DataType().(*arrow.Decimal256Type).Scale), true
	}
	return "", false
}

// csvCell quotes what must be quoted.
func csvCell(s string) string {
	if s == "" || strings.ContainsAny(s, ",\"\r\n") || s[0] == ' ' || s[len(s)-1] == ' ' {
		return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
	}
	return s
}

// End implements resultWriter.
func (c *csvWriter) End() error { return c.out.Flush() }

// jsonWriter writes a line with an object for each row, its columns in order.
type jsonWriter struct {
	out   *bufio.Writer
	names [][]byte
}

// Begin implements flight.Sink.
func (j *jsonWriter) Begin(s *arrow.Schema) error {
	for _, f := range s.Fields() {
		name, err := json.Marshal(f.Name)
		if err != nil {
			return fmt.Errorf("write column name %q: %w", f.Name, err)
		}
		j.names = append(j.names, name)
	}
	return nil
}

// Batch implements flight.Sink.
func (j *jsonWriter) Batch(b arrow.RecordBatch) error {
	for row := range int(b.NumRows()) {
		line := []byte{'{'}
		for i, column := range b.Columns() {
			value, err := json.Marshal(cellValue(column, row))
			if err != nil {
				return fmt.Errorf("write column %s as JSON: %w", j.names[i], err)
			}
			if i > 0 {
				line = append(line, ',')
			}
			line = append(append(append(line, j.names[i]...), ':'), value...)
		}
		if _, err := j.out.Write(append(line, '}', '\n')); err != nil {
			return err
		}
	}
	return nil
}

// End implements resultWriter.
func (j *jsonWriter) End() error { return j.out.Flush() }

// arrowWriter writes an Arrow IPC stream.
type arrowWriter struct {
	out io.Writer
	ipc *ipc.Writer
}

// Begin implements flight.Sink.
func (a *arrowWriter) Begin(s *arrow.Schema) error {
	a.ipc = ipc.NewWriter(a.out, ipc.WithSchema(s))
	return nil
}

// Batch implements flight.Sink.
func (a *arrowWriter) Batch(b arrow.RecordBatch) error { return a.ipc.Write(b) }

// End implements resultWriter.
func (a *arrowWriter) End() error {
	if a.ipc == nil {
		return errors.New("the server sent no schema")
	}
	return a.ipc.Close()
}
