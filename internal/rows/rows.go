package rows

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/google/uuid"
)

// keyMetadata marks the columns of a primary key, as Lance does.
const keyMetadata = "lance-schema:unenforced-primary-key"

// types are the types that have no parameters, by name.
var types = map[string]arrow.DataType{
	"bool": arrow.FixedWidthTypes.Boolean,
	"int8": arrow.PrimitiveTypes.Int8, "int16": arrow.PrimitiveTypes.Int16, "int32": arrow.PrimitiveTypes.Int32, "int64": arrow.PrimitiveTypes.Int64,
	"uint8": arrow.PrimitiveTypes.Uint8, "uint16": arrow.PrimitiveTypes.Uint16, "uint32": arrow.PrimitiveTypes.Uint32, "uint64": arrow.PrimitiveTypes.Uint64,
	"float": arrow.PrimitiveTypes.Float32, "double": arrow.PrimitiveTypes.Float64,
	"utf8": arrow.BinaryTypes.String, "large_utf8": arrow.BinaryTypes.LargeString,
	"binary": arrow.BinaryTypes.Binary, "large_binary": arrow.BinaryTypes.LargeBinary,
	"date32": arrow.FixedWidthTypes.Date32, "date64": arrow.FixedWidthTypes.Date64,
	"timestamp": arrow.FixedWidthTypes.Timestamp_us,
	"uuid":      &arrow.FixedSizeBinaryType{ByteWidth: 16},
}

// Schema parses a schema.
func Schema(text string) (*arrow.Schema, error) {
	var fields []arrow.Field
	for _, column := range regexp.MustCompile(`,\s+`).Split(strings.TrimSpace(text), -1) {
		words := strings.Fields(column)
		if len(words) < 2 {
			return nil, fmt.Errorf("column %q: want a name and a type", column)
		}
		t, err := dataType(words[1])
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", words[0], err)
		}
		f := arrow.Field{Name: words[0], Type: t, Nullable: true}
		if slices.Contains(words[2:], "key") {
			f.Nullable = false
			f.Metadata = arrow.NewMetadata([]string{keyMetadata}, []string{"true"})
		}
		fields = append(fields, f)
	}
	return arrow.NewSchema(fields, nil), nil
}

// dataType parses a type. Those with others in them are fsl(N,T), list(T), large_list(T) and struct(a:T,b:T); decimal(P,S)
// has two numbers.
func dataType(name string) (arrow.DataType, error) {
	kind, rest, nested := strings.Cut(name, "(")
	if !nested {
		if t, ok := types[name]; ok {
			return t, nil
		}
		return nil, fmt.Errorf("there is no type %q", name)
	}
	args := arguments(strings.TrimSuffix(rest, ")"))
	last := args[len(args)-1]
	switch kind {
	case "struct":
		return structType(args)
	case "decimal":
		precision, err := strconv.ParseInt(args[0], 10, 32)
		scale, scaleErr := strconv.ParseInt(last, 10, 32)
		return &arrow.Decimal128Type{Precision: int32(precision), Scale: int32(scale)}, errors.Join(err, scaleErr)
	}
	elem, err := dataType(last)
	if err != nil {
		return nil, err
	}
	switch kind {
	case "list":
		return arrow.ListOf(elem), nil
	case "large_list":
		return arrow.LargeListOf(elem), nil
	case "fsl":
		n, err := strconv.Atoi(args[0])
		return arrow.FixedSizeListOf(int32(n), elem), err
	}
	return nil, fmt.Errorf("there is no type %q", name)
}

func structType(args []string) (arrow.DataType, error) {
	fields := make([]arrow.Field, len(args))
	for i, arg := range args {
		name, text, _ := strings.Cut(arg, ":")
		t, err := dataType(text)
		if err != nil {
			return nil, err
		}
		fields[i] = arrow.Field{Name: name, Type: t, Nullable: true}
	}
	return arrow.StructOf(fields...), nil
}

// arguments divides a text at the commas that are in no parentheses.
func arguments(text string) (args []string) {
	depth, from := 0, 0
	for i, r := range text {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				args, from = append(args, text[from:i]), i+1
			}
		}
	}
	return append(args, text[from:])
}

// Parse returns the batch of some lines. The caller releases it.
func Parse(s *arrow.Schema, text string) (arrow.RecordBatch, error) {
	b := array.NewRecordBuilder(memory.DefaultAllocator, s)
	defer b.Release()
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		values := strings.Fields(line)
		if len(values) != s.NumFields() {
			return nil, fmt.Errorf("row %q has %d values, the schema %d columns", line, len(values), s.NumFields())
		}
		for i, v := range values {
			if err := appendText(b.Field(i), v); err != nil {
				return nil, fmt.Errorf("row %q, column %q: %w", line, s.Field(i).Name, err)
			}
		}
	}
	return b.NewRecordBatch(), nil
}

func appendText(b array.Builder, v string) error {
	switch b := b.(type) {
	case *array.BinaryBuilder:
		if v != "null" {
			b.Append([]byte(v))
			return nil
		}
	case *array.FixedSizeBinaryBuilder:
		if v == "null" {
			break
		}
		id, err := uuid.Parse(v)
		b.Append(id[:])
		return err
	case *array.FixedSizeListBuilder:
		if v == "null" {
			break
		}
		b.Append(true)
		for _, x := range strings.Split(strings.Trim(v, "[]"), ",") {
			if err := appendText(b.ValueBuilder(), x); err != nil {
				return err
			}
		}
		return nil
	}
	if v == "null" {
		b.AppendNull()
		return nil
	}
	return b.AppendValueFromString(v)
}

// Format returns a line for each row of a batch; only lists the rows to print, nil means all.
func Format(rec arrow.RecordBatch, only []uint32) []string {
	if only == nil {
		for i := range uint32(rec.NumRows()) {
			only = append(only, i)
		}
	}
	out := make([]string, 0, len(only))
	for _, row := range only {
		values := make([]string, rec.NumCols())
		for i, c := range rec.Columns() {
			values[i] = value(c, int(row))
		}
		out = append(out, strings.Join(values, " "))
	}
	return out
}

func value(c arrow.Array, row int) string {
	switch c := c.(type) {
	case *array.Binary:
		if c.IsValid(row) {
			return string(c.Value(row))
		}
	case *array.LargeBinary:
		if c.IsValid(row) {
			return string(c.Value(row))
		}
	case *array.FixedSizeBinary:
		if id, err := uuid.FromBytes(c.Value(row)); err == nil && c.IsValid(row) {
			return id.String()
		}
	}
	if c.IsNull(row) {
		return "null"
	}
	return c.ValueStr(row)
}
