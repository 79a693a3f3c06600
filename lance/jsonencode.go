package lance

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// appendJSONB appends the binary form of a JSON text, see jsonb.go. Of a key that comes twice the last value counts.
func appendJSONB(out, text []byte) ([]byte, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("it is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it is empty")
		}
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something is behind the value")
	}
	switch v.(type) {
	case map[string]any, []any:
		return appendJSONContainer(out, v, 0)
	}
	out = binary.BigEndian.AppendUint32(out, jsonScalar<<28)
	return appendJSONEntries(out, []any{v}, 0)
}

// jsonKey is a key of an object, which is a string beside its values.
type jsonKey string

// appendJSONContainer appends an array or an object, the keys of which are in order.
func appendJSONContainer(out []byte, v any, depth int) ([]byte, error) {
	if depth > jsonDepth {
		return nil, fmt.Errorf("it is nested more than %d deep", jsonDepth)
	}
	if list, ok := v.([]any); ok {
		if len(list) > jsonSize {
			return nil, fmt.Errorf("an array of %d items", len(list))
		}
		return appendJSONEntries(binary.BigEndian.AppendUint32(out, jsonArray<<28|uint32(len(list))), list, depth)
	}
	object := v.(map[string]any)
	keys := slices.Sorted(maps.Keys(object))
	all := make([]any, 0, 2*len(keys))
	for _, k := range keys {
		all = append(all, jsonKey(k))
	}
	for _, k := range keys {
		all = append(all, object[k])
	}
	if len(all) > jsonSize {
		return nil, fmt.Errorf("an object of %d keys", len(keys))
	}
	return appendJSONEntries(binary.BigEndian.AppendUint32(out, jsonObject<<28|uint32(len(keys))), all, depth)
}

// appendJSONEntries appends the entries of values, and then the values.
func appendJSONEntries(out []byte, values []any, depth int) ([]byte, error) {
	head := len(out)
	out = append(out, make([]byte, 4*len(values))...)
	for i, v := range values {
		before := len(out)
		kind, err := uint32(jsonNull), error(nil)
		switch v := v.(type) {
		case nil:
		case bool:
			if kind = jsonFalse; v {
				kind = jsonTrue
			}
		case string:
			kind, out = jsonString, append(out, v...)
		case jsonKey:
			kind, out = jsonString, append(out, v...)
		case json.Number:
			kind = jsonNumber
			out, err = appendJSONBNumber(out, string(v))
		default:
			kind = jsonContainer
			out, err = appendJSONContainer(out, v, depth+1)
		}
		if err != nil {
			return nil, err
		}
		size := len(out) - before
		if size > jsonSize {
			return nil, fmt.Errorf("a value of %d bytes", size)
		}
		binary.BigEndian.PutUint32(out[head+4*i:], kind<<28|uint32(size))
	}
	return out, nil
}

// appendJSONBNumber appends a number: one without point or exponent in as few bytes as it takes.
func appendJSONBNumber(out []byte, text string) ([]byte, error) {
	if !strings.ContainsAny(text, ".eE") {
		if n, err := strconv.ParseUint(text, 10, 64); err == nil {
			switch {
			case n == 0:
				return append(out, jsonZero), nil
			case n <= math.MaxUint8:
				return append(out, jsonUint, byte(n)), nil
			case n <= math.MaxUint16:
				return binary.BigEndian.AppendUint16(append(out, jsonUint), uint16(n)), nil
			case n <= math.MaxUint32:
				return binary.BigEndian.AppendUint32(append(out, jsonUint), uint32(n)), nil
			}
			return binary.BigEndian.AppendUint64(append(out, jsonUint), n), nil
		}
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			switch {
			case n == 0:
				return append(out, jsonZero), nil
			case n >= math.MinInt8:
				return append(out, jsonInt, byte(n)), nil
			case n >= math.MinInt16:
				return binary.BigEndian.AppendUint16(append(out, jsonInt), uint16(n)), nil
			case n >= math.MinInt32:
				return binary.BigEndian.AppendUint32(append(out, jsonInt), uint32(n)), nil
			}
			return binary.BigEndian.AppendUint64(append(out, jsonInt), uint64(n)), nil
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil, fmt.Errorf("the number %s is out of range", text)
	}
	return binary.BigEndian.AppendUint64(append(out, jsonFloat), math.Float64bits(f)), nil
}
