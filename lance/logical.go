package lance

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
)

// ErrUnsupported is returned for what is right by the format but not by this package: a type, an encoding or a file
// version.
var ErrUnsupported = errors.New("not supported")

// plainTypes are the types whose Lance names have no parameters.
var plainTypes = map[string]arrow.DataType{
	"null":         arrow.Null,
	"bool":         arrow.FixedWidthTypes.Boolean,
	"int8":         arrow.PrimitiveTypes.Int8,
	"int16":        arrow.PrimitiveTypes.Int16,
	"int32":        arrow.PrimitiveTypes.Int32,
	"int64":        arrow.PrimitiveTypes.Int64,
	"uint8":        arrow.PrimitiveTypes.Uint8,
	"uint16":       arrow.PrimitiveTypes.Uint16,
	"uint32":       arrow.PrimitiveTypes.Uint32,
	"uint64":       arrow.PrimitiveTypes.Uint64,
	"halffloat":    arrow.FixedWidthTypes.Float16,
	"float":        arrow.PrimitiveTypes.Float32,
	"double":       arrow.PrimitiveTypes.Float64,
	"string":       arrow.BinaryTypes.String,
	"large_string": arrow.BinaryTypes.LargeString,
	"binary":       arrow.BinaryTypes.Binary,
	"large_binary": arrow.BinaryTypes.LargeBinary,
	"date32:day":   arrow.FixedWidthTypes.Date32,
	"date64:ms":    arrow.FixedWidthTypes.Date64,
	"time32:s":     arrow.FixedWidthTypes.Time32s,
	"time32:ms":    arrow.FixedWidthTypes.Time32ms,
	"time64:us":    arrow.FixedWidthTypes.Time64us,
	"time64:ns":    arrow.FixedWidthTypes.Time64ns,
	"duration:s":   arrow.FixedWidthTypes.Duration_s,
	"duration:ms":  arrow.FixedWidthTypes.Duration_ms,
	"duration:us":  arrow.FixedWidthTypes.Duration_us,
	"duration:ns":  arrow.FixedWidthTypes.Duration_ns,
}

// plainNames is plainTypes by Arrow's notation, which tells all of them apart.
var plainNames = func() map[string]string {
	names := make(map[string]string, len(plainTypes))
	for name, dt := range plainTypes {
		names[dt.String()] = name
	}
	return names
}()

// timeUnits are the units of a timestamp in Lance's notation, which is Arrow's.
var timeUnits = map[string]arrow.TimeUnit{
	"s": arrow.Second, "ms": arrow.Millisecond, "us": arrow.Microsecond, "ns": arrow.Nanosecond,
}

// logicalType returns Lance's name of an Arrow type. What is nested in it is named by fields of its own.
func logicalType(dt arrow.DataType) (string, error) {
	switch t := dt.(type) {
	case *arrow.StructType:
		return "struct", nil
	case *arrow.ListType:
		return listType("list", t.Elem()), nil
	case *arrow.LargeListType:
		return listType("large_list", t.Elem()), nil
	case *arrow.MapType:
		if t.KeysSorted {
			return "", fmt.Errorf("type %s: maps with sorted keys: %w", dt, ErrUnsupported)
		}
		return "map", nil
	case *arrow.DictionaryType:
		return "", fmt.Errorf("type %s: use the type of its values, %s: %w", dt, t.ValueType, ErrUnsupported)
	case *arrow.TimestampType:
		zone := t.TimeZone
		if zone == "" {
			zone = "-"
		}
		return fmt.Sprintf("timestamp:%s:%s", t.Unit, zone), nil
	case *arrow.Decimal128Type:
		return fmt.Sprintf("decimal:128:%d:%d", t.Precision, t.Scale), nil
	case *arrow.Decimal256Type:
		return fmt.Sprintf("decimal:256:%d:%d", t.Precision, t.Scale), nil
	case *arrow.FixedSizeBinaryType:
		if t.ByteWidth <= 0 || t.ByteWidth > maxRowBits/8 {
			return "", fmt.Errorf("type %s: want a width from 1 to %d: %w", dt, maxRowBits/8, ErrUnsupported)
		}
		return fmt.Sprintf("fixed_size_binary:%d", t.ByteWidth), nil
	case *arrow.FixedSizeListType:
		if err := checkItem(t.Elem(), int64(t.Len())); err != nil {
			return "", fmt.Errorf("type %s: %w", dt, err)
		}
		elem, err := logicalType(t.Elem())
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("fixed_size_list:%s:%d", elem, t.Len()), nil
	}
	if name, ok := plainNames[dt.String()]; ok {
		return name, nil
	}
	return "", fmt.Errorf("type %s: %w", dt, ErrUnsupported)
}

// listType names a list. Lance marks the lists of structs.
func listType(name string, elem arrow.DataType) string {
	if elem.ID() == arrow.STRUCT {
		return name + ".struct"
	}
	return name
}

// parseLogicalType returns the Arrow type that a Lance name stands for, if nothing is nested in it.
func parseLogicalType(name string) (arrow.DataType, error) {
	if dt, ok := plainTypes[name]; ok {
		return dt, nil
	}
	kind, rest, _ := strings.Cut(name, ":")
	switch kind {
	case "timestamp":
		return parseTimestamp(name, rest)
	case "decimal":
		return parseDecimal(name, rest)
	case "fixed_size_binary":
		width, err := strconv.ParseInt(rest, 10, 32)
		if err != nil || width <= 0 || width > maxRowBits/8 {
			return nil, fmt.Errorf("type %q: want a width from 1 to %d", name, maxRowBits/8)
		}
		return &arrow.FixedSizeBinaryType{ByteWidth: int(width)}, nil
	case "fixed_size_list":
		return parseFixedSizeList(name, rest)
	}
	return nil, fmt.Errorf("type %q: %w", name, ErrUnsupported)
}

func parseTimestamp(name, rest string) (arrow.DataType, error) {
	unitName, zone, ok := strings.Cut(rest, ":")
	unit, known := timeUnits[unitName]
	if !ok || !known || zone == "" {
		return nil, fmt.Errorf("type %q: want timestamp:UNIT:ZONE", name)
	}
	if zone == "-" {
		zone = ""
	}
	return &arrow.TimestampType{Unit: unit, TimeZone: zone}, nil
}

func parseDecimal(name, rest string) (arrow.DataType, error) {
	var bits, precision, scale int32
	parts := strings.Split(rest, ":")
	if len(parts) != 3 {
		return nil, fmt.Errorf("type %q: want decimal:BITS:PRECISION:SCALE", name)
	}
	for i, to := range []*int32{&bits, &precision, &scale} {
		v, err := strconv.ParseInt(parts[i], 10, 16)
		if err != nil {
			return nil, fmt.Errorf("type %q: %w", name, err)
		}
		*to = int32(v)
	}
	switch {
	case bits == 128 && precision >= 1 && precision <= 38:
		return &arrow.Decimal128Type{Precision: precision, Scale: scale}, nil
	case bits == 256 && precision >= 1 && precision <= 76:
		return &arrow.Decimal256Type{Precision: precision, Scale: scale}, nil
	}
	return nil, fmt.Errorf("type %q: no such decimal", name)
}

func parseFixedSizeList(name, rest string) (arrow.DataType, error) {
	colon := strings.LastIndexByte(rest, ':')
	if colon < 0 {
		return nil, fmt.Errorf("type %q: want fixed_size_list:TYPE:LENGTH", name)
	}
	length, err := strconv.ParseInt(rest[colon+1:], 10, 32)
	if err != nil {
		return nil, fmt.Errorf("type %q: %w", name, err)
	}
	if strings.HasPrefix(rest, "fixed_size_list:") {
		return nil, fmt.Errorf("type %q: lists in lists: %w", name, ErrUnsupported)
	}
	elem, err := parseLogicalType(rest[:colon])
	if err != nil {
		return nil, fmt.Errorf("type %q: %w", name, err)
	}
	if err := checkItem(elem, length); err != nil {
		return nil, fmt.Errorf("type %q: %w", name, err)
	}
	return arrow.FixedSizeListOf(int32(length), elem), nil
}

// checkItem tells whether lists of n items of type elem can be stored.
func checkItem(elem arrow.DataType, n int64) error {
	if n <= 0 {
		return fmt.Errorf("a list of %d items: %w", n, ErrUnsupported)
	}
	if bits := bitWidth(elem); bits == 0 || elem.ID() == arrow.FIXED_SIZE_LIST {
		return fmt.Errorf("fixed-size lists of %s: %w", elem, ErrUnsupported)
	} else if n > maxRowBits/bits {
		return fmt.Errorf("a list of %d items of %d bits: rows above %d bits: %w", n, bits, maxRowBits, ErrUnsupported)
	}
	return nil
}

// maxRowBits bounds a fixed-width row to 16 MiB. Null rows take no room in a file, so without a bound a few bytes of it
// could make a reader ask for any amount of memory.
const maxRowBits = 16 << 20 * 8

// bitWidth returns the bits of one value of a fixed-width type, and 0 for types whose values vary or have no bytes.
func bitWidth(dt arrow.DataType) int64 {
	switch t := dt.(type) {
	case *arrow.FixedSizeListType:
		return bitWidth(t.Elem()) * int64(t.Len())
	case *arrow.FixedSizeBinaryType:
		return int64(t.ByteWidth) * 8
	case arrow.FixedWidthDataType:
		return int64(t.BitWidth())
	}
	return 0
}
