package main

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// sampleRows is how many rows of a CSV file the types of a new table are guessed from.
const sampleRows = 10_000

// csvSource reads a CSV file whose first line has the names of the columns. An empty value is NULL.
type csvSource struct {
	*countingReader
	closer io.Closer
	r      *csv.Reader
	schema *arrow.Schema
	// sample holds rows that were read to guess the types, lines where they stand.
	sample [][]string
	lines  []int
}

func openCSV(closer io.Closer, c *countingReader, comma rune, table *arrow.Schema) (rowSource, error) {
	s := &csvSource{countingReader: c, closer: closer, r: csv.NewReader(withoutMark(c))}
	s.r.Comma = comma
	names, err := s.r.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty: its first line must have the names of the columns")
	}
	if err != nil {
		return nil, err
	}
	if table != nil {
		s.schema, err = columnsOf(table, names)
		return s, err
	}
	for len(s.sample) < sampleRows {
		row, err := s.r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		line, _ := s.r.FieldPos(0)
		s.sample, s.lines = append(s.sample, row), append(s.lines, line)
	}
	s.schema = guessSchema(names, s.sample)
	return s, nil
}

// withoutMark skips the byte order mark that some programs put in front.
func withoutMark(r io.Reader) io.Reader {
	b := bufio.NewReaderSize(r, 1<<20)
	if mark, err := b.Peek(3); err == nil && string(mark) == "\xef\xbb\xbf" {
		_, _ = b.Discard(3) // they are in the buffer
	}
	return b
}

// columnsOf returns the columns of a table that a file names, in the file's order.
func columnsOf(table *arrow.Schema, names []string) (*arrow.Schema, error) {
	var list []arrow.Field
	for _, name := range names {
		found := false
		for _, f := range table.Fields() {
			if strings.EqualFold(f.Name, name) {
				list, found = append(list, f), true
			}
		}
		if name == "_tombstone" {
			list, found = append(list, arrow.Field{Name: name, Type: arrow.FixedWidthTypes.Boolean, Nullable: true}), true
		}
		if !found {
			return nil, fmt.Errorf("the table has no column %q; it has %s", name, strings.Join(fieldNames(table), ", "))
		}
	}
	return arrow.NewSchema(list, nil), nil
}

// fieldNames returns the names of columns.
func fieldNames(s *arrow.Schema) []string {
	var names []string
	for _, f := range s.Fields() {
		names = append(names, f.Name)
	}
	return names
}

// guesses are the types that a column of text may have, the narrowest first. A type is dropped at the first value that
// it does not fit. Numbers with a zero in front are mostly no numbers but names, such as postcodes.
var guesses = []struct {
	typ  arrow.DataType
	fits func(string) bool
}{
	{arrow.FixedWidthTypes.Boolean, func(s string) bool { return strings.EqualFold(s, "true") || strings.EqualFold(s, "false") }},
	{arrow.PrimitiveTypes.Int64, func(s string) bool {
		_, err := strconv.ParseInt(s, 10, 64)
		return err == nil && !paddedNumber.MatchString(s)
	}},
	{arrow.PrimitiveTypes.Float64, func(s string) bool {
		_, err := strconv.ParseFloat(s, 64)
		return err == nil && !paddedNumber.MatchString(s)
	}},
	{arrow.FixedWidthTypes.Date32, func(s string) bool { return dateText.MatchString(s) }},
	{arrow.FixedWidthTypes.Timestamp_us, func(s string) bool { // with a zone
		_, zone, err := arrow.TimestampFromStringInLocation(s, arrow.Microsecond, time.UTC)
		return err == nil && zone
	}},
	{&arrow.TimestampType{Unit: arrow.Microsecond}, func(s string) bool {
		_, zone, err := arrow.TimestampFromStringInLocation(s, arrow.Microsecond, time.UTC)
		return err == nil && !zone
	}},
}

var (
	paddedNumber = regexp.MustCompile(`^[+-]?0[0-9]`)
	dateText     = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}$`)
)

// guessSchema returns the types of columns that hold the values of some rows.
func guessSchema(names []string, rows [][]string) *arrow.Schema {
	list := make([]arrow.Field, len(names))
	for i, name := range names {
		list[i] = arrow.Field{Name: name, Type: guessType(rows, i), Nullable: true}
	}
	return arrow.NewSchema(list, nil)
}

// guessType returns the narrowest type that all values of a column fit, text when there is none.
func guessType(rows [][]string, column int) arrow.DataType {
	empty := true
	for _, g := range guesses {
		fits := true
		for _, row := range rows {
			if v := row[column]; v != "" {
				empty = false
				if fits = g.fits(v); !fits {
					break
				}
			}
		}
		if fits && !empty {
			return g.typ
		}
	}
	return arrow.BinaryTypes.String
}

// Schema implements rowSource.
func (s *csvSource) Schema() *arrow.Schema { return s.schema }

// Next implements rowSource.
func (s *csvSource) Next() (arrow.RecordBatch, error) {
	b := array.NewRecordBuilder(memory.DefaultAllocator, s.schema)
	defer b.Release()
	rows := 0
	for ; rows < batchRows; rows++ {
		row, line, err := s.row()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		for i, v := range row {
			if err := appendText(b.Field(i), v); err != nil {
				f := s.schema.Field(i)
				return nil, fmt.Errorf("line %d, column %q: %.40q is no %s (%w); types are those of the table, or guessed from the first %s rows: CREATE TABLE first to have others",
					line, f.Name, v, f.Type, err, thousands(sampleRows))
			}
		}
	}
	if rows == 0 {
		return nil, io.EOF
	}
	return b.NewRecordBatch(), nil
}

// row returns the next row and its line.
func (s *csvSource) row() ([]string, int, error) {
	if len(s.sample) > 0 {
		row, line := s.sample[0], s.lines[0]
		s.sample, s.lines = s.sample[1:], s.lines[1:]
		return row, line, nil
	}
	s.r.ReuseRecord = true
	row, err := s.r.Read()
	if err != nil {
		return nil, 0, err
	}
	line, _ := s.r.FieldPos(0)
	return row, line, nil
}

// appendText adds a value that is written as text.
func appendText(b array.Builder, v string) error {
	if v == "" {
		b.AppendNull()
		return nil
	}
	// Builders of text take "(null)" for NULL, which no file means.
	if text, ok := b.(*array.StringBuilder); ok {
		text.Append(v)
		return nil
	}
	return b.AppendValueFromString(v)
}

// Close implements rowSource.
func (s *csvSource) Close() error { return s.closer.Close() }
