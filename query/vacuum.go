package query

import (
	"context"
	"errors"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/lsm"
)

// vacuumSchema is what VACUUM returns: a row for each table, with what was removed. versions are among the files.
var vacuumSchema = arrow.NewSchema([]arrow.Field{
	{Name: "table_schema", Type: arrow.BinaryTypes.String},
	{Name: "table_name", Type: arrow.BinaryTypes.String},
	{Name: "versions", Type: arrow.PrimitiveTypes.Int64},
	{Name: "files", Type: arrow.PrimitiveTypes.Int64},
	{Name: "bytes", Type: arrow.PrimitiveTypes.Int64},
}, nil)

// freed is what was removed from a table.
type freed struct{ versions, files, bytes int64 }

// vacuumTarget reads VACUUM [TABLE] [name]; without a name it means all tables.
func (p *parsed) vacuumTarget() (ref tableRef, all bool, err error) {
	if len(p.tokens) == 1 {
		return ref, true, nil
	}
	ref, err = p.onlyTable()
	return ref, false, err
}

// vacuum removes what a table, or all of them, keep no longer, and returns the number of files. Its rows are kept in
// memory: it has to work when the disk is full.
func (st *Statement) vacuum(ctx context.Context, out *returning) (int64, error) {
	ref, all, err := st.parsed.vacuumTarget()
	if err == nil && !all {
		err = st.e.notView(ref)
	}
	if err != nil {
		return 0, err
	}
	refs := []tableRef{ref}
	if all {
		refs = nil
		for _, t := range st.e.store.tables() {
			refs = append(refs, tableRef{t.schema, t.name})
		}
	}
	files := int64(0)
	b := array.NewRecordBuilder(memory.DefaultAllocator, vacuumSchema)
	defer b.Release()
	for _, ref := range refs {
		f, err := st.e.store.vacuum(ctx, ref.schema, ref.name)
		if all && errors.Is(err, lsm.ErrTableNotFound) {
			continue // dropped meanwhile
		}
		if err != nil {
			return files, err
		}
		files += f.files
		b.Field(0).(*array.StringBuilder).Append(ref.schema)
		b.Field(1).(*array.StringBuilder).Append(ref.name)
		for i, n := range []int64{f.versions, f.files, f.bytes} {
			b.Field(2 + i).(*array.Int64Builder).Append(n)
		}
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	return files, out.put(rec)
}
