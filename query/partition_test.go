package query

import (
	"context"
	"io"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/require"
)

// partIDs returns the first column of a part.
func partIDs(t *testing.T, p *Partitions, part int) (ids []int64) {
	t.Helper()
	r, err := p.Query(t.Context(), part)
	require.NoError(t, err)
	defer r.Close()
	for {
		rec, err := r.Next(t.Context())
		if err == io.EOF {
			return ids
		}
		require.NoError(t, err)
		ids = append(ids, rec.Column(0).(*array.Int64).Int64Values()...)
		rec.Release()
	}
}

// cut cuts a query into parts of 10,000 rows.
func cut(t *testing.T, e *Engine, sql string) *Partitions {
	t.Helper()
	st, err := e.Prepare(t.Context(), nil, sql)
	require.NoError(t, err, sql)
	p, err := st.Partition(t.Context(), 10_000, 4)
	require.NoError(t, err, sql)
	return p
}

func TestPartsTogetherAreTheResult(t *testing.T) {
	s := &memStore{}
	numbersTable(t, s, "n", 100_000, 1000)
	e := newTestEngine(t, s)
	p := cut(t, e, "SELECT id, id + 1 AS next FROM n WHERE id % 2 = 0")
	require.Equal(t, 4, p.Count())
	var all []int64
	for part := range p.Count() {
		ids := partIDs(t, p, part)
		require.NotEmpty(t, ids)
		require.ElementsMatch(t, ids, partIDs(t, p, part), "read once more")
		all = append(all, ids...)
	}
	slices.Sort(all)
	require.Len(t, all, 50_000)
	for i, id := range all {
		require.EqualValues(t, 2*i, id)
	}
	_, err := p.Query(t.Context(), 4)
	require.Error(t, err)

	// A result outlives the release, a query does not begin after it.
	r, err := p.Query(t.Context(), 0)
	require.NoError(t, err)
	p.Release()
	p.Release()
	rec, err := r.Next(t.Context())
	require.NoError(t, err)
	rec.Release()
	require.NotZero(t, s.open.Load())
	require.NoError(t, r.Close())
	require.Zero(t, s.open.Load())
	_, err = p.Query(t.Context(), 0)
	require.ErrorContains(t, err, "released")
}

func TestOnlyScansAreCut(t *testing.T) {
	s := &memStore{}
	numbersTable(t, s, "n", 100_000, 1000)
	numbersTable(t, s, "small", 1000, 1000)
	e := newTestEngine(t, s)
	f := func(sql string, want bool) {
		t.Helper()
		p := cut(t, e, sql)
		require.Equal(t, want, p != nil, sql)
		if p != nil {
			p.Release()
		}
	}
	f("SELECT * FROM n", true)
	f("FROM n", true)
	f("SELECT x.id AS y FROM (SELECT id FROM n WHERE id > 5) x WHERE x.id < 7 OR x.id > 9", true)
	f("SELECT * FROM small", false)
	f("SELECT count(*) FROM n", false)
	f("SELECT DISTINCT id FROM n", false)
	f("SELECT * FROM n ORDER BY id", false)
	f("SELECT * FROM n LIMIT 5", false)
	f("SELECT * FROM n LIMIT 5 OFFSET 3", false)
	f("SELECT row_number() OVER () FROM n", false)
	f("SELECT * FROM n a JOIN n b USING (id)", false)
	f("SELECT * FROM n WHERE id = (SELECT max(id) FROM n)", false)
	f("SELECT * FROM n WHERE EXISTS (SELECT 1 FROM small WHERE small.id = n.id)", false)
	f("SELECT * FROM n UNION ALL SELECT * FROM n", false)
	f("SELECT * FROM n USING SAMPLE 10", false)
	f("SELECT unnest([id, id]) FROM n", false)
	f("SELECT * FROM n WHERE id > ?", false)
	f("SELECT * FROM range(1000000)", false)
	f("DELETE FROM n WHERE id = 5", false)
}

func TestPartsOfATableThatChangedAreRefused(t *testing.T) {
	s := &memStore{}
	numbersTable(t, s, "n", 100_000, 1000)
	e := newTestEngine(t, s)
	p := cut(t, e, "SELECT id FROM n")
	defer p.Release()
	numbersTable(t, s, "other", 1000, 1000)
	require.NotEmpty(t, partIDs(t, p, 0), "what happens to other tables does not matter")
	require.NoError(t, s.drop(context.Background(), "main", "n"))
	_, err := p.Query(t.Context(), 1)
	require.ErrorContains(t, err, "dropped, replaced or altered")
	numbersTable(t, s, "n", 100_000, 1000)
	_, err = p.Query(t.Context(), 1)
	require.ErrorContains(t, err, "dropped, replaced or altered")
}

// TestPartsOfSomeKeys cuts a query with a condition on the key, one side of which is another each time that it is
// planned: the parts are of one set of keys all the same.
func TestPartsOfSomeKeys(t *testing.T) {
	db, e := openAll(t, t.TempDir())
	for _, sql := range []string{
		"CREATE TABLE n (id BIGINT PRIMARY KEY, v BIGINT)", "INSERT INTO n SELECT i * 2, i FROM range(100000) r(i)", "OPTIMIZE n",
		"INSERT INTO n SELECT i * 2 + 1, i FROM range(100000) r(i)",
	} {
		_, err := runUpdate(e, sql, nil)
		require.NoError(t, err)
	}
	p := cut(t, e, "SELECT id FROM n WHERE id >= 50000 AND id < 90000 - epoch_us(now()) % 7 * 1000")
	var all []int64
	for part := range p.Count() {
		all = append(all, partIDs(t, p, part)...)
	}
	slices.Sort(all)
	require.GreaterOrEqual(t, len(all), 90000-7000-50000)
	for i, id := range all[:90000-7000-50000] {
		require.EqualValues(t, 50000+i, id)
	}
	p.Release()
	require.NoError(t, e.Close())
	require.NoError(t, db.Close())
}
