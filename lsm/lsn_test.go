package lsm

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/manifest"
)

// TestTheLogGoesOnAboveWhatAManifestHas opens a folder whose shard's manifest needs nothing from the log up to an LSN that the
// log itself does not reach, as after a loss of its end: what is written then has higher LSNs, and a replay takes it.
func TestTheLogGoesOnAboveWhatAManifestHas(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	db := openTest(t, dir)
	table := createTest(t, db, "w", writesSchema)
	putKeys(t, db, table, 1, 1, 2, 3)
	require.NoError(t, db.Flush(ctx, table.Name()))
	above := wal.LSN(table.last.Load()) + 3<<40 // three epochs on
	require.NoError(t, table.shards[0].edit(ctx, func(n *manifest.Shard) { n.ReplayAfter = uint64(above) }))
	require.NoError(t, db.Close())
	for seq := range int64(2) {
		db = openTest(t, dir)
		table, err := db.Table(TableName{Name: "w"})
		require.NoError(t, err)
		require.Equal(t, 3+int(seq), countRows(t, db, "w"))
		putKeys(t, db, table, 2+seq, 10+seq)
		require.Greater(t, wal.LSN(table.last.Load()), above)
		require.NoError(t, db.Close())
	}
	db = openTest(t, dir)
	require.Equal(t, 5, countRows(t, db, "w"))
	require.NoError(t, db.Close())
}
