package query

/*
#include <stdlib.h>
#include "scan.h"
*/
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/cdata"
	bind "github.com/duckdb/duckdb-go-bindings"
)

// naturalSchema returns the Arrow schema in which DuckDB hands out columns of these types.
func naturalSchema(conn bind.Connection, names []string, types []bind.LogicalType) (*arrow.Schema, error) {
	if len(names) == 0 {
		return arrow.NewSchema(nil, nil), nil
	}
	var options bind.ArrowOptions
	bind.ConnectionGetArrowOptions(conn, &options)
	defer bind.DestroyArrowOptions(&options)

	n := len(names)
	ptr := unsafe.Sizeof(uintptr(0))
	cTypes := (*unsafe.Pointer)(C.calloc(C.size_t(n), C.size_t(ptr)))
	defer C.free(unsafe.Pointer(cTypes))
	cNames := (**C.char)(C.calloc(C.size_t(n), C.size_t(ptr)))
	defer C.free(unsafe.Pointer(cNames))
	for i := range names {
		unsafe.Slice(cTypes, n)[i] = types[i].Ptr
		name := C.CString(names[i])
		defer C.free(unsafe.Pointer(name))
		unsafe.Slice(cNames, n)[i] = name
	}
	s := (*C.struct_ArrowSchema)(C.calloc(1, C.sizeof_struct_ArrowSchema))
	defer C.free(unsafe.Pointer(s))
	defer C.fd_release_schema(s)
	if err := takeErrorData(C.duckdb_to_arrow_schema(options.Ptr, cTypes, cNames, C.uint64_t(n), s)); err != nil {
		return nil, err
	}
	schema, err := cdata.ImportCArrowSchema((*cdata.CArrowSchema)(unsafe.Pointer(s)))
	if err != nil {
		return nil, err
	}
	fields := schema.Fields()
	for i, f := range fields {
		fields[i].Type = namedItems(f.Type)
	}
	return arrow.NewSchema(fields, nil), nil
}

// namedItems gives the values of lists the name that everybody uses for them. DuckDB calls them l, or nothing.
func namedItems(dt arrow.DataType) arrow.DataType {
	switch t := dt.(type) {
	case *arrow.FixedSizeListType:
		return arrow.FixedSizeListOf(t.Len(), namedItems(t.Elem()))
	case *arrow.ListType:
		return arrow.ListOf(namedItems(t.Elem()))
	case *arrow.StructType:
		fields := t.Fields()
		for i, f := range fields {
			fields[i].Type = namedItems(f.Type)
		}
		return arrow.StructOf(fields...)
	case *arrow.MapType:
		return arrow.MapOf(namedItems(t.KeyType()), namedItems(t.ItemType()))
	}
	return dt
}

// chunkRecord copies a chunk of a result into a record batch of the natural schema.
func chunkRecord(options bind.ArrowOptions, schema *arrow.Schema, chunk bind.DataChunk) (arrow.RecordBatch, error) {
	a := (*C.struct_ArrowArray)(C.calloc(1, C.sizeof_struct_ArrowArray))
	defer C.free(unsafe.Pointer(a))
	defer C.fd_release_array(a)
	if err := takeErrorData(C.duckdb_data_chunk_to_arrow(options.Ptr, chunk.Ptr, a)); err != nil {
		return nil, fmt.Errorf("convert a chunk to Arrow: %w", err)
	}
	return cdata.ImportCRecordBatchWithSchema((*cdata.CArrowArray)(unsafe.Pointer(a)), schema)
}
