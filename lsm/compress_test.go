package lsm

import (
	"fmt"
	"path"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// TestMergesCompress sees that fragments of the base of a 2.2 table are compressed, and those of a 2.0 table are not.
func TestMergesCompress(t *testing.T) {
	fields := []arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "tag", Type: arrow.BinaryTypes.String}}
	later := arrow.Field{Name: "map", Type: arrow.MapOf(arrow.BinaryTypes.String, arrow.BinaryTypes.String), Nullable: true}
	for version, fields := range map[lance.Version][]arrow.Field{lance.Version20: fields, lance.Version22: append(fields[:2:2], later)} {
		t.Run(version.String(), func(t *testing.T) {
			schema := arrow.NewSchema(fields, nil)
			dir := t.TempDir()
			st := object.NewLocal(dir)
			db, err := Open(t.Context(), Options{Dir: dir})
			require.NoError(t, err)
			name := TableName{Schema: "main", Name: "t"}
			require.NoError(t, db.CreateTable(t.Context(), TableDef{Name: name, Schema: schema, Key: []string{"id"}}))
			table, err := db.Table(name)
			require.NoError(t, err)
			b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
			defer b.Release()
			for i := range 5000 {
				b.Field(0).(*array.Int64Builder).Append(int64(i))
				b.Field(1).(*array.StringBuilder).Append(fmt.Sprintf("tag-%d", i%50))
				if len(fields) > 2 {
					b.Field(2).AppendNull()
				}
			}
			rec := b.NewRecordBatch()
			defer rec.Release()
			_, err = table.Put(t.Context(), Batch{Record: rec})
			require.NoError(t, err)
			require.NoError(t, db.Optimize(t.Context(), name))
			v, err := manifest.Latest(t.Context(), st, "t.lance", manifest.Options{})
			require.NoError(t, err)
			r, err := lance.Open(t.Context(), st, path.Join("t.lance", "data", v.Fragments[0].Files[0].Path), 0, lance.ReaderOptions{})
			require.NoError(t, err)
			var pages strings.Builder
			require.NoError(t, r.Describe(&pages))
			require.Equal(t, version == lance.Version22, strings.Contains(pages.String(), "mini-blocks, packed"), "%s", pages.String())
			require.NoError(t, r.Close())
			require.NoError(t, db.Close())
		})
	}
}
