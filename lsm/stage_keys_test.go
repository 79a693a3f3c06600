package lsm

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
)

// TestStageKnowsItsKeys inserts keys that are stored, deleted, staged, or staged and spilled already.
func TestStageKnowsItsKeys(t *testing.T) {
	for name, stageBytes := range map[string]int64{"memory": 1 << 20, "spilled": 1} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			db, err := Open(ctx, Options{Dir: t.TempDir(), wrap: faulty, StageBytes: stageBytes})
			require.NoError(t, err)
			defer func() { require.NoError(t, db.Close()) }()
			table := createTest(t, db, "s", "k utf8 key, v int64")
			keySchema := arrow.NewSchema(table.Schema().Fields()[:1], nil)
			batch := func(schema *arrow.Schema, format string, keys string) arrow.RecordBatch {
				var text []string
				for _, k := range strings.Fields(keys) {
					text = append(text, fmt.Sprintf(format, k))
				}
				rec, err := rows.Parse(schema, strings.Join(text, "\n"))
				require.NoError(t, err)
				t.Cleanup(rec.Release)
				return rec
			}
			insert := func(keys string) arrow.RecordBatch { return batch(table.Schema(), "%s 1", keys) }
			only := func(keys string) arrow.RecordBatch { return batch(keySchema, "%s", keys) }
			modify := func(fn func(snap *Snapshot, s *Stage) error) error {
				return table.Modify(ctx, func(_ context.Context, snap *Snapshot, s *Stage) error { return fn(snap, s) })
			}
			inserts := func(batches ...string) error {
				return modify(func(snap *Snapshot, s *Stage) error {
					for _, keys := range batches {
						if err := s.Insert(ctx, snap, insert(keys)); err != nil {
							return err
						}
					}
					return nil
				})
			}
			require.NoError(t, inserts("a b", "c", "d e f"))
			require.ErrorIs(t, inserts("g", "h", "i g"), ErrKeyExists)
			require.ErrorIs(t, inserts("g g"), ErrKeyExists)
			require.ErrorIs(t, inserts("g", "c"), ErrKeyExists)
			require.NoError(t, modify(func(_ *Snapshot, s *Stage) error { return s.Delete(ctx, only("c d")) }))
			require.NoError(t, inserts("c g"))
			require.NoError(t, db.Optimize(ctx, table.Name()))
			require.ErrorIs(t, inserts("h", "f"), ErrKeyExists)
			move := func(old, new string) error {
				return modify(func(snap *Snapshot, s *Stage) error {
					return s.Move(ctx, snap, []arrow.RecordBatch{only(old)}, func(yield func(arrow.RecordBatch, error) bool) {
						_ = yield(insert(new), nil) && yield(insert(new+"2"), nil)
					})
				})
			}
			require.NoError(t, move("a b", "b"))
			require.ErrorIs(t, move("b", "c"), ErrKeyExists)
			snap, err := db.Snapshot(ctx)
			require.NoError(t, err)
			defer snap.Release()
			v, err := snap.Table(table.Name())
			require.NoError(t, err)
			lines, err := scanRows(ctx, v, []int{0, 1})
			require.NoError(t, err)
			require.Equal(t, "b 1, b2 1, c 1, e 1, f 1, g 1", strings.Join(lines, ", "))
		})
	}
}
