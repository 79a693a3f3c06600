package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// jsonlSource reads a file with a JSON object in each line. The columns are those that the first lines name, in the
// order in which they come; what a line lacks is NULL. arrow-go's own reader is not used: it drops fields that the
// schema lacks, knows no lines, and makes floating-point numbers of integers on the way.
type jsonlSource struct {
	*countingReader
	closer io.Closer
	in     *bufio.Reader
	schema *arrow.Schema
	line   int // of the row that was read last
	// sample holds rows that were read to find the columns.
	sample []jsonlRow
}

// jsonlRow is the object of a line.
type jsonlRow struct {
	line   int
	fields jsonObject
}

// jsonObject is a JSON object with its fields in their order. Other values are nil, bool, json.Number, string and
// []any.
type jsonObject []jsonField

// jsonField is one field.
type jsonField struct {
	name  string
	value any
}

func openJSONL(closer io.Closer, c *countingReader, table *arrow.Schema) (rowSource, error) {
	s := &jsonlSource{countingReader: c, closer: closer, in: bufio.NewReaderSize(withoutMark(c), 1<<20)}
	all := jsonlRow{} // a row with the values of all, in lists
	for len(s.sample) < sampleRows {
		row, err := s.read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		s.sample = append(s.sample, row)
		all.fields = all.fields.collect(row.fields)
	}
	if len(all.fields) == 0 {
		return nil, errors.New("the file has no rows: each line must be a JSON object")
	}
	var err error
	if table != nil {
		s.schema, err = columnsOf(table, all.fields.names())
		return s, err
	}
	list := make([]arrow.Field, len(all.fields))
	for i, f := range all.fields {
		list[i] = arrow.Field{Name: f.name, Nullable: true}
		if list[i].Type, err = guessJSON(f.value.([]any)); err != nil {
			return nil, fmt.Errorf("column %q: %w; CREATE TABLE first", f.name, err)
		}
	}
	s.schema = arrow.NewSchema(list, nil)
	return s, nil
}

// names returns the names of the fields.
func (o jsonObject) names() []string {
	names := make([]string, len(o))
	for i, f := range o {
		names[i] = f.name
	}
	return names
}

// collect adds the values of an object to the lists of the fields of o, and fields that o lacks behind them.
func (o jsonObject) collect(from jsonObject) jsonObject {
	for _, f := range from {
		i := slices.IndexFunc(o, func(x jsonField) bool { return strings.EqualFold(x.name, f.name) })
		if i < 0 {
			i = len(o)
			o = append(o, jsonField{f.name, []any(nil)})
		}
		o[i].value = append(o[i].value.([]any), f.value)
	}
	return o
}

// read reads the next line that is not empty.
func (s *jsonlSource) read() (jsonlRow, error) {
	for {
		text, err := s.in.ReadBytes('\n')
		if err != nil && (!errors.Is(err, io.EOF) || len(text) == 0) {
			return jsonlRow{}, err
		}
		s.line++
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue
		}
		o, err := parseObject(text)
		if err != nil {
			return jsonlRow{}, fmt.Errorf("line %d: %w", s.line, err)
		}
		return jsonlRow{s.line, o}, nil
	}
}

// parseObject parses a line.
func parseObject(text []byte) (jsonObject, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	v, err := parseValue(d, maxJSONDepth)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // the line ends in a value; the file goes on
	}
	if err != nil {
		return nil, fmt.Errorf("it is no JSON: %w", err)
	}
	o, ok := v.(jsonObject)
	if !ok {
		return nil, errors.New("it is JSON, but no object such as {\"id\": 1}")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the object; each row has a line of its own")
	}
	return o, nil
}

// maxJSONDepth bounds how deep values nest: no column does so deep.
const maxJSONDepth = 64

// parseValue parses one value that nests no deeper than a depth.
func parseValue(d *json.Decoder, depth int) (any, error) {
	if depth == 0 {
		return nil, fmt.Errorf("values nest deeper than %d", maxJSONDepth)
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := parseValue(d, depth-1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.Token()
		return list, err
	case json.Delim('{'):
		o := jsonObject{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, err
			}
			v, err := parseValue(d, depth-1)
			if err != nil {
				return nil, err
			}
			o = append(o, jsonField{name.(string), v}) // names are texts, or Token fails
		}
		_, err := d.Token()
		return o, err
	}
	return t, nil
}

// guessJSON returns the narrowest type that all values have: text when they are all null, or scalars of several kinds.
func guessJSON(values []any) (arrow.DataType, error) {
	var elements []any
	var fields jsonObject
	kinds := map[string]bool{}
	for _, v := range values {
		switch v := v.(type) {
		case nil:
		case bool:
			kinds["boolean"] = true
		case json.Number:
			kinds["number"] = true
		case string:
			kinds["text"] = true
		case []any:
			kinds["list"] = true
			elements = append(elements, v...)
		case jsonObject:
			kinds["object"] = true
			fields = fields.collect(v)
		}
	}
	switch {
	case len(kinds) > 1 && (kinds["list"] || kinds["object"]):
		return nil, errors.New("it holds lists or objects, and other values")
	case len(kinds) != 1:
		return arrow.BinaryTypes.String, nil
	case kinds["list"]:
		element, err := guessJSON(elements)
		if err != nil {
			return nil, err
		}
		return arrow.ListOf(element), nil
	case kinds["object"]:
		return guessStruct(fields)
	}
	return guessScalar(values, kinds["text"]), nil
}

// guessStruct is guessJSON for objects.
func guessStruct(fields jsonObject) (arrow.DataType, error) {
	if len(fields) == 0 {
		return nil, errors.New("it holds objects without fields")
	}
	list := make([]arrow.Field, len(fields))
	for i, f := range fields {
		t, err := guessJSON(f.value.([]any))
		if err != nil {
			return nil, fmt.Errorf("field %q: %w", f.name, err)
		}
		list[i] = arrow.Field{Name: f.name, Type: t, Nullable: true}
	}
	return arrow.StructOf(list...), nil
}

// guessScalar returns the narrowest type of values of one kind. Texts may be dates and times, but no numbers.
func guessScalar(values []any, texts bool) arrow.DataType {
	for _, g := range guesses {
		temporal := g.typ.ID() == arrow.DATE32 || g.typ.ID() == arrow.TIMESTAMP
		if texts != temporal {
			continue
		}
		if !slices.ContainsFunc(values, func(v any) bool { return v != nil && !g.fits(scalarText(v)) }) {
			return g.typ
		}
	}
	return arrow.BinaryTypes.String
}

// scalarText returns a scalar as it is written in CSV.
func scalarText(v any) string {
	switch v := v.(type) {
	case bool:
		return strconv.FormatBool(v)
	case json.Number:
		return v.String()
	case string:
		return v
	}
	return fmt.Sprint(v)
}

// Schema implements rowSource.
func (s *jsonlSource) Schema() *arrow.Schema { return s.schema }

// Next implements rowSource.
func (s *jsonlSource) Next() (arrow.RecordBatch, error) {
	b := array.NewRecordBuilder(memory.DefaultAllocator, s.schema)
	defer b.Release()
	rows := 0
	for ; rows < batchRows; rows++ {
		row, err := s.row()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := s.append(b, row.fields); err != nil {
			return nil, fmt.Errorf("line %d, %w; columns and types are those of the table, or of the first %s rows: CREATE TABLE first to have others",
				row.line, err, thousands(sampleRows))
		}
	}
	if rows == 0 {
		return nil, io.EOF
	}
	return b.NewRecordBatch(), nil
}

// row returns the next row.
func (s *jsonlSource) row() (jsonlRow, error) {
	if len(s.sample) > 0 {
		row := s.sample[0]
		s.sample = s.sample[1:]
		return row, nil
	}
	return s.read()
}

// append adds a row.
func (s *jsonlSource) append(b *array.RecordBuilder, row jsonObject) error {
	return appendFields(row, s.schema.Fields(), func(i int) array.Builder { return b.Field(i) })
}

// appendFields adds an object to the builders of its fields. Of a field that comes twice the last one counts.
func appendFields(o jsonObject, fields []arrow.Field, builder func(i int) array.Builder) error {
	values := make([]any, len(fields))
	for _, f := range o {
		i := slices.IndexFunc(fields, func(x arrow.Field) bool { return strings.EqualFold(x.Name, f.name) })
		if i < 0 {
			return fmt.Errorf("column %q: it is a new one", f.name)
		}
		values[i] = f.value
	}
	for i, v := range values {
		if err := appendJSON(builder(i), v); err != nil {
			return fmt.Errorf("column %q: %w", fields[i].Name, err)
		}
	}
	return nil
}

// appendJSON adds a value.
func appendJSON(b array.Builder, v any) error {
	switch v := v.(type) {
	case nil:
		b.AppendNull()
		return nil
	case []any:
		return appendList(b, v)
	case jsonObject:
		x, ok := b.(*array.StructBuilder)
		if !ok {
			return fmt.Errorf("an object is no %s", b.Type())
		}
		x.Append(true)
		return appendFields(v, x.Type().(*arrow.StructType).Fields(), x.FieldBuilder)
	}
	text := scalarText(v)
	if x, ok := b.(*array.StringBuilder); ok { // see appendText; and an empty text is one here
		x.Append(text)
		return nil
	}
	if err := b.AppendValueFromString(text); err != nil {
		return fmt.Errorf("%.40q is no %s (%w)", text, b.Type(), err)
	}
	return nil
}

// appendList adds a list.
func appendList(b array.Builder, list []any) error {
	x, ok := b.(array.ListLikeBuilder)
	if !ok {
		return fmt.Errorf("a list is no %s", b.Type())
	}
	if fixed, ok := b.Type().(*arrow.FixedSizeListType); ok && int(fixed.Len()) != len(list) {
		return fmt.Errorf("a list of %d is no %s", len(list), b.Type())
	}
	x.Append(true)
	for _, v := range list {
		if err := appendJSON(x.ValueBuilder(), v); err != nil {
			return err
		}
	}
	return nil
}

// Close implements rowSource.
func (s *jsonlSource) Close() error { return s.closer.Close() }
