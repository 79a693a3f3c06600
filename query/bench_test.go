package query

import (
	"fmt"
	"io"
	"log/slog"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/arrow/util"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/lsm"
)

// benchTables makes narrow, with 34 bytes a row, and wide, with vectors of 128 floats; row two of three lives in holed.
func benchTables(b *testing.B, s *memStore) {
	narrow := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "v", Type: arrow.PrimitiveTypes.Float64}, {Name: "s", Type: arrow.BinaryTypes.String}}, nil)
	var morsels, holed []memMorsel
	for m := range int64(16) {
		rb := array.NewRecordBuilder(offheap.Default, narrow)
		var live []uint32
		for i := range int64(122_880) {
			rb.Field(0).(*array.Int64Builder).Append(m*122_880 + i)
			rb.Field(1).(*array.Float64Builder).Append(float64(i) / 2)
			rb.Field(2).(*array.StringBuilder).Append("name-0000000-some"[:13+i%4])
			if i%3 != 0 {
				live = append(live, uint32(i))
			}
		}
		rec := rb.NewRecordBatch()
		rb.Release()
		rec.Retain()
		morsels, holed = append(morsels, memMorsel{rec: rec}), append(holed, memMorsel{rec: rec, live: live})
	}
	s.add(b, "narrow", narrow, nil, morsels...)
	s.add(b, "holed", narrow, nil, holed...)
	wide := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "emb", Type: arrow.FixedSizeListOf(128, arrow.PrimitiveTypes.Float32)}}, nil)
	morsels = nil
	for range 8 {
		rb := array.NewRecordBuilder(offheap.Default, wide)
		for i := range 20_000 {
			rb.Field(0).(*array.Int64Builder).Append(int64(i))
			list := rb.Field(1).(*array.FixedSizeListBuilder)
			list.Append(true)
			for j := range 128 {
				list.ValueBuilder().(*array.Float32Builder).Append(float32(i+j) / 7)
			}
		}
		morsels = append(morsels, memMorsel{rec: rb.NewRecordBatch()})
		rb.Release()
	}
	s.add(b, "wide", wide, nil, morsels...)
}

// BenchmarkQuery reports what a query reads, or what it hands out, per second.
func BenchmarkQuery(b *testing.B) {
	s := &memStore{}
	benchTables(b, s)
	e := newTestEngine(b, s)
	rows := map[string]float64{"narrow": 16 * 122_880, "holed": 16 * 122_880, "wide": 160_000}
	for _, c := range []struct{ name, table, sql string }{
		{"count", "narrow", "SELECT count(*) FROM narrow"},
		{"sum", "narrow", "SELECT sum(id) FROM narrow"},
		{"sum-max-string", "narrow", "SELECT sum(id), sum(v), max(s) FROM narrow"},
		{"filter", "narrow", "SELECT sum(v) FROM narrow WHERE id BETWEEN 500000 AND 500100"},
		{"sum-holed", "holed", "SELECT sum(id), max(s) FROM holed"},
		{"vector", "wide", "SELECT min(array_distance(emb, (SELECT emb FROM wide LIMIT 1))) FROM wide"},
		{"out-narrow", "narrow", "SELECT * FROM narrow"},
		{"out-holed", "holed", "SELECT * FROM holed"},
		{"out-wide", "wide", "SELECT * FROM wide"},
		{"tiny", "tiny", "SELECT 1"},
	} {
		b.Run(c.name, func(b *testing.B) {
			var out int64
			for b.Loop() {
				st, err := e.Prepare(b.Context(), nil, c.sql)
				require.NoError(b, err)
				r, err := st.Query(b.Context(), nil)
				require.NoError(b, err)
				for {
					rec, err := r.Next(b.Context())
					if err == io.EOF {
						break
					}
					require.NoError(b, err)
					out += util.TotalRecordSize(rec)
					rec.Release()
				}
				require.NoError(b, r.Close())
			}
			b.ReportMetric(rows[c.table]*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrows/s")
			b.ReportMetric(float64(out)/b.Elapsed().Seconds()/1e6, "outMB/s")
		})
	}
}

// BenchmarkPoint asks for one row by its key, of 1,000,000 that are merged: as a prepared statement that runs again and
// again, as a text that comes again, and as one that is new each time.
func BenchmarkPoint(b *testing.B) {
	db, err := lsm.Open(b.Context(), lsm.Options{Dir: b.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	e, err := Open(b.Context(), Options{DB: db, Threads: 2})
	require.NoError(b, err)
	defer func() {
		require.NoError(b, e.Close())
		require.NoError(b, db.Close())
	}()
	for _, sql := range []string{"CREATE TABLE t (id BIGINT PRIMARY KEY, s VARCHAR)", "INSERT INTO t SELECT i, 'name' || i FROM range(1000000) r(i)", "OPTIMIZE t"} {
		_, err := runUpdate(e, sql, nil)
		require.NoError(b, err)
	}
	ids := array.NewInt64Builder(memory.DefaultAllocator)
	ids.Append(77)
	one := ids.NewArray()
	params := array.NewRecordBatch(arrow.NewSchema([]arrow.Field{{Name: "1", Type: arrow.PrimitiveTypes.Int64}}, nil), []arrow.Array{one}, 1)
	query := func(b *testing.B, st *Statement, params arrow.RecordBatch) {
		r, err := st.Query(b.Context(), params)
		require.NoError(b, err)
		rec, err := r.Next(b.Context())
		require.NoError(b, err)
		require.EqualValues(b, 1, rec.NumRows())
		rec.Release()
		require.NoError(b, r.Close())
	}
	prepare := func(b *testing.B, sql string) *Statement {
		st, err := e.Prepare(b.Context(), nil, sql)
		require.NoError(b, err)
		return st
	}
	b.Run("prepared", func(b *testing.B) {
		st := prepare(b, "SELECT * FROM t WHERE id = ?")
		for b.Loop() {
			query(b, st, params)
		}
	})
	b.Run("same", func(b *testing.B) {
		for b.Loop() {
			query(b, prepare(b, "SELECT * FROM t WHERE id = 77"), nil)
		}
	})
	b.Run("new", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			query(b, prepare(b, fmt.Sprintf("SELECT * FROM t WHERE id = %d", i%1000000)), nil)
		}
	})
}

// BenchmarkNearest searches among so few vectors that what it costs is what a statement costs: prepared with the vector as its parameter, and as a
// text that is new each time.
func BenchmarkNearest(b *testing.B) {
	db, err := lsm.Open(b.Context(), lsm.Options{Dir: b.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	e, err := Open(b.Context(), Options{DB: db, Threads: 2})
	require.NoError(b, err)
	defer func() {
		require.NoError(b, e.Close())
		require.NoError(b, db.Close())
	}()
	for _, sql := range []string{"CREATE TABLE t (id BIGINT PRIMARY KEY, v FLOAT[128])", "INSERT INTO t SELECT i, [i + j FOR j IN range(128)]::FLOAT[128] FROM range(100) r(i)", "OPTIMIZE t"} {
		_, err := runUpdate(e, sql, nil)
		require.NoError(b, err)
	}
	elements := make([]float32, 128)
	params := paramsOf(vectors(128, elements...))
	query := func(b *testing.B, sql string, params arrow.RecordBatch) {
		st, err := e.Prepare(b.Context(), nil, sql)
		require.NoError(b, err)
		for b.Loop() {
			r, err := st.Query(b.Context(), params)
			require.NoError(b, err)
			rec, err := r.Next(b.Context())
			require.NoError(b, err)
			require.EqualValues(b, 10, rec.NumRows())
			rec.Release()
			require.NoError(b, r.Close())
		}
	}
	for name, sql := range map[string]string{
		"search": "SELECT id, _distance FROM lance_vector_search('t', 'v', ?)", "order": "SELECT id FROM t ORDER BY array_distance(v, ?::FLOAT[128]) LIMIT 10",
		"where": "SELECT id, _distance FROM lance_vector_search('t', 'v', ?, prefilter := true) WHERE id < 90",
	} {
		b.Run(name, func(b *testing.B) { query(b, sql, params) })
	}
}
