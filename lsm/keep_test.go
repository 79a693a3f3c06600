package lsm

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
)

// partial returns a batch of a stream that lacks some columns, as a batch of the table.
func partial(t *testing.T, table *Table, o ConformOptions, schema, text string) Batch {
	t.Helper()
	s, err := rows.Schema(schema)
	require.NoError(t, err)
	rec, err := rows.Parse(s, text)
	require.NoError(t, err)
	defer rec.Release()
	c, err := table.Conform(s, o)
	require.NoError(t, err)
	out, err := c.Apply(context.Background(), rec)
	require.NoError(t, err)
	return Batch{Record: out, Keep: c.Keep()}
}

// nines is a default.
func nines(t *testing.T) map[string]func(context.Context, int) (arrow.Array, error) {
	s, err := rows.Schema("x int64")
	require.NoError(t, err)
	rec, err := rows.Parse(s, "9")
	require.NoError(t, err)
	return map[string]func(context.Context, int) (arrow.Array, error){"b": Constant(rec.Column(0))}
}

// TestRandomPartialUpserts puts rows without one of their columns, with deletes between, alone and in stages that
// spill, over stored rows in all layers, and compares the table with a model.
func TestRandomPartialUpserts(t *testing.T) {
	seeds := 5
	if testing.Short() {
		seeds = 2
	}
	for _, key := range []string{"id int64 key", "id utf8 key"} {
		for seed := range uint64(seeds) {
			t.Run(fmt.Sprintf("%s seed=%d", key, seed), func(t *testing.T) {
				t.Parallel() // it waits for syncs, most of the time
				randomPartialUpserts(t, key, seed)
			})
		}
	}
}

func randomPartialUpserts(t *testing.T, key string, seed uint64) {
	ctx := context.Background()
	r := rand.New(rand.NewPCG(seed, 2))
	db, err := Open(ctx, Options{Dir: t.TempDir(), wrap: faulty, StageBytes: 4000})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "t", key+", a int64, b int64, c utf8")
	model := map[string][3]string{} // a, b, c
	o := ConformOptions{Missing: MissingKeep, Defaults: nines(t)}
	column := strings.TrimSuffix(key, " key")
	text := func() string {
		var lines []string
		for range 1 + r.IntN(8) {
			id, v := fmt.Sprint(r.IntN(20)), fmt.Sprint(r.IntN(1000))
			if r.IntN(5) == 0 {
				delete(model, id)
				lines = append(lines, id+" null true")
				continue
			}
			row, ok := model[id]
			if !ok {
				row = [3]string{"null", "9", "null"}
			}
			row[0] = v
			model[id] = row
			lines = append(lines, id+" "+v+" false")
		}
		return strings.Join(lines, "\n")
	}
	for range 40 {
		switch k := r.IntN(8); {
		case k < 3:
			lsn, err := table.Put(ctx, partial(t, table, o, column+", a int64, _tombstone bool", text()))
			require.NoError(t, err)
			require.NoError(t, db.Wait(ctx, lsn))
		case k < 5:
			stage := table.Stage()
			for range 1 + r.IntN(20) {
				require.NoError(t, stage.Put(ctx, partial(t, table, o, column+", a int64, _tombstone bool", text())))
			}
			_, err := stage.Commit(ctx)
			require.NoError(t, err)
		case k == 5:
			id := fmt.Sprint(r.IntN(20))
			model[id] = [3]string{"1", "2", "whole"}
			lsn, err := table.Put(ctx, partial(t, table, ConformOptions{}, column+", a int64, b int64, c utf8", id+" 1 2 whole"))
			require.NoError(t, err)
			require.NoError(t, db.Wait(ctx, lsn))
		case k == 6:
			require.NoError(t, db.Flush(ctx, table.Name()))
		default:
			require.NoError(t, db.Optimize(ctx, table.Name()))
		}
		var want []string
		for id, row := range model {
			want = append(want, strings.Join(append([]string{id}, row[:]...), " "))
		}
		require.ElementsMatch(t, want, tableLines(t, db, "t"))
	}
}

// TestPartialUpsertsLoseNothing lets writers of different columns of the same rows race.
func TestPartialUpsertsLoseNothing(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "t", "id int64 key, a int64, b int64")
	var wg sync.WaitGroup
	for _, column := range []string{"a", "b"} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 30 {
				b := partial(t, table, ConformOptions{Missing: MissingKeep}, "id int64, "+column+" int64", fmt.Sprintf("1 %d\n2 %d", i, i))
				if _, err := table.Put(ctx, b); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	require.NoError(t, db.Wait(ctx, LSN(table.last.Load())))
	require.Equal(t, []string{"1 29 29", "2 29 29"}, tableLines(t, db, "t"))
}

// TestPartialUpsertsThatCannotBe are refused with the place and the remedy.
func TestPartialUpsertsThatCannotBe(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	plain := createTest(t, db, "p", "id int64, a int64")
	s, err := rows.Schema("id int64")
	require.NoError(t, err)
	_, err = plain.Conform(s, ConformOptions{Missing: MissingKeep})
	require.ErrorAs(t, err, new(*NoKeyError))
	require.EqualError(t, err, `table "p" has no primary key; declare one with PRIMARY KEY or the Arrow field metadata lance-schema:unenforced-primary-key`)
	_, err = plain.Conform(s, ConformOptions{Missing: MissingError})
	require.ErrorContains(t, err, `column "a": the stream lacks it`)

	keyed := createTest(t, db, "t", "id int64 key, a int64, b int64")
	lsn, err := keyed.Put(ctx, partial(t, keyed, ConformOptions{}, "id int64, a int64, b int64", "1 1 1"))
	require.NoError(t, err)
	require.NoError(t, db.Wait(ctx, lsn))
	a := unchanged(keyed)
	require.NoError(t, alterLine(&a, "forbid-null b"))
	require.NoError(t, db.AlterTable(ctx, keyed.Name(), a))
	o := ConformOptions{Missing: MissingKeep}
	_, err = keyed.Put(ctx, partial(t, keyed, o, "id int64, a int64", "1 5\n2 6"))
	require.ErrorContains(t, err, `column "b": got null in row 1`)
	stage := keyed.Stage()
	require.NoError(t, stage.Put(ctx, partial(t, keyed, o, "id int64, a int64", "1 5")))
	_, err = stage.Commit(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"1 5 1"}, tableLines(t, db, "t"))
}

// TestPartialUpsertsOfAStageComeOneAfterTheOther puts two partial upserts of one key, which is not stored, into a stage,
// and adds a column between them. The second keeps what the first brought: what the column had been added with.
func TestPartialUpsertsOfAStageComeOneAfterTheOther(t *testing.T) {
	ctx := context.Background()
	for _, spill := range []int64{1, 1 << 20} {
		db := openSpilling(t, t.TempDir(), spill)
		table := createTest(t, db, "t", "key int64 key, a int64, b utf8")
		stage := table.Stage()
		put := func(schema, text string) {
			b := partial(t, table, ConformOptions{Missing: MissingKeep}, schema, text)
			defer b.Record.Release()
			require.NoError(t, stage.Put(ctx, b))
		}
		put("key int64, b utf8", "1 first\n2 only")
		s := &scenario{t: t, db: db}
		require.NoError(t, s.alter(ctx, "t", "add c int64 = 576"))
		put("key int64, b utf8", "1 second\n3 third")
		_, err := stage.Commit(ctx)
		require.NoError(t, err)
		require.Equal(t, []string{"1 null second 576", "2 null only 576", "3 null third null"}, tableLines(t, db, "t"))
		used, _ := db.budget.state()
		require.Equal(t, table.set.Load().chains[0].active().bytes.Load(), used)
		require.NoError(t, db.Close())
	}
}

// TestAStageKeepsColumnsThatComeLater: a stage of partial upserts that had all columns of its table when its batches came
// keeps what is stored in one that the table got before the commit.
func TestAStageKeepsColumnsThatComeLater(t *testing.T) {
	ctx := context.Background()
	for _, spill := range []int64{1, 1 << 20} {
		db := openSpilling(t, t.TempDir(), spill)
		table := createTest(t, db, "t", "key int64 key, a int64")
		s := &scenario{t: t, db: db}
		require.NoError(t, s.put(ctx, "t", false, "1 1\n2 2\n3 3"))
		partly, whole := table.Stage(), table.Stage()
		for stage, o := range map[*Stage]ConformOptions{partly: {Missing: MissingKeep}, whole: {}} {
			text := map[*Stage]string{partly: "1 10\n4 40", whole: "2 20"}[stage]
			b := partial(t, table, o, "key int64, a int64", text)
			require.Empty(t, b.Keep)
			require.NoError(t, stage.Put(ctx, b))
			b.Record.Release()
		}
		require.NoError(t, s.alter(ctx, "t", "add c int64 = 5"))
		require.NoError(t, s.put(ctx, "t", false, "1 1 100\n2 2 200"))
		for _, stage := range []*Stage{partly, whole} {
			_, err := stage.Commit(ctx)
			require.NoError(t, err)
		}
		require.Equal(t, []string{"1 10 100", "2 20 5", "3 3 5", "4 40 5"}, tableLines(t, db, "t"))
		require.NoError(t, db.Close())
	}
}
