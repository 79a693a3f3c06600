package query

import (
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"
)

// TestSpoolKeepsWhatMemoryDoesNot adds batches, takes some back, and reads the rest as often as one likes.
func TestSpoolKeepsWhatMemoryDoesNot(t *testing.T) {
	s := &memStore{}
	e := newTestEngine(t, s)
	sp, err := e.newSpool()
	require.NoError(t, err)
	defer sp.close()
	one := collectRows(t, e, "SELECT i, repeat('x', 20) AS s FROM range(2000) r(i)", nil)
	defer one.Release()
	count := func() (n int64) {
		for rec, err := range sp.all {
			require.NoError(t, err)
			require.True(t, rec.Schema().Equal(one.Schema()))
			require.Equal(t, printRows(one)[7], printRows(rec)[7])
			n += rec.NumRows()
		}
		return n
	}
	require.NoError(t, sp.add(one.NewSlice(0, 8)))
	require.Nil(t, sp.file)
	for range 5 {
		require.NoError(t, sp.add(one))
	}
	require.NotNil(t, sp.file)
	require.LessOrEqual(t, sp.held, int64(spoolKeep))
	mark, end := len(sp.parts), sp.end
	require.NoError(t, sp.add(one))
	sp.cut(mark)
	require.Equal(t, end, sp.end, "what was taken back is written over")
	require.NoError(t, sp.add(one))
	require.EqualValues(t, 12008, count())
	require.EqualValues(t, 12008, count())
	sp.limit = sp.held + sp.end + 1
	require.Equal(t, ResourceExhausted, codeOf(t, sp.add(one)))
	sp.cut(0)
	require.Zero(t, count())
}

// TestReturningMoreThanMemory returns many rows, twice; and a statement whose rows do not fit changes nothing.
func TestReturningMoreThanMemory(t *testing.T) {
	db, e := openAll(t, t.TempDir())
	defer func() { require.NoError(t, e.Close()); require.NoError(t, db.Close()) }()
	_, err := runUpdate(e, "CREATE TABLE t (id BIGINT PRIMARY KEY, s VARCHAR)", nil)
	require.NoError(t, err)
	f := func(sql string) (*Rows, error) {
		st, err := e.Prepare(t.Context(), e.NewSession(), sql)
		require.NoError(t, err)
		return st.Run(t.Context(), nil)
	}
	rows, err := f("INSERT INTO t SELECT i, repeat('x', 50) FROM range(100000) r(i) RETURNING id, s || 'y'")
	require.NoError(t, err)
	require.NotNil(t, rows.spool.file)
	for range 2 {
		var n, sum int64
		require.NoError(t, rows.Read(func(rec arrow.RecordBatch) error {
			for i := range int(rec.NumRows()) {
				n, sum = n+1, sum+int64(len(rec.Column(1).ValueStr(i)))
			}
			return nil
		}))
		require.EqualValues(t, 100000, n)
		require.EqualValues(t, 5100000, sum)
	}
	rows.Close()
	require.Error(t, rows.Read(nil))
	e.opts.Memory = 1 << 10
	_, err = f("DELETE FROM t RETURNING *")
	require.Equal(t, ResourceExhausted, codeOf(t, err), "%v", err)
	_, err = f("UPDATE t SET id = id + 1")
	require.Equal(t, InvalidArgument, codeOf(t, err), "it returns nothing")
	rec := collectRows(t, e, "SELECT count(*), min(id) FROM t", nil)
	defer rec.Release()
	require.Equal(t, []string{"100000 | 0"}, printRows(rec))
}

// TestSpilledRowsHaveAQuota: DuckDB is told how much it may have on disk, and without a word of ours not nine tenths of what
// is free, which flushes and merges need.
func TestSpilledRowsHaveAQuota(t *testing.T) {
	quota := func(o Options) string {
		e, err := open(t.Context(), o.withDefaults(), &memStore{})
		require.NoError(t, err)
		text, err := e.query.in.scalar("SELECT current_setting('max_temp_directory_size')")
		require.NoError(t, err)
		require.NoError(t, e.Close())
		return text
	}
	require.Equal(t, "3.0 MiB", quota(Options{Temp: t.TempDir(), TempBytes: 3 << 20}))
	half := instanceOptions{temp: t.TempDir()}.quota()
	require.Positive(t, half)
	require.NotEqual(t, quota(Options{}), quota(Options{Temp: t.TempDir()}), "%d bytes are half of what is free", half)
}
